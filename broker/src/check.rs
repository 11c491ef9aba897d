//! Verifying a store without changing it: what SQLite says of the file, and whether the rows agree with each other.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::IgnoredAny;

use crate::engine::{Mode, QueueOptions};
use crate::error::OpenError;
use crate::lock::{Claim, StoreLock, lock_path};
use crate::store::{
    self, APPLICATION_ID, Db, Found, LoadedCursor, LoadedGroup, LoadedPart, NONE, Result, VERSION,
};

/// What [`check`] has looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Faults found; each was reported.
    pub faults: u64,
    /// Queues.
    pub queues: u64,
    /// Partitions.
    pub partitions: u64,
    /// Stored messages.
    pub messages: u64,
}

/// Verifies the store in a file: the database itself, the layout, and that messages, offsets, transaction ids, cursors,
/// leases and dead letters agree. `report` gets each fault as one line. What is right is not changed, and what is wrong
/// is not mended; the log of a broker that was killed is read where it is.
///
/// Blocks while it reads the whole file. An error means that the file could not be checked: it does not exist, is no store,
/// has another layout than this version writes, or is in use ([`OpenError::Locked`]).
pub fn check(path: &Path, mut report: impl FnMut(&str)) -> std::result::Result<Checked, OpenError> {
    let path = &crate::real_path(path)?;
    let _claim = Claim::new(path)?;
    let found = store::find(path)?;
    let refuse = |reason: String| OpenError::Schema {
        path: path.clone(),
        reason,
    };
    match found {
        Found::Nothing => return Err(refuse("there is no such file".into())),
        Found::Empty => return Err(refuse("the file is empty".into())),
        Found::Database => {}
    }
    let _lock = StoreLock::take_existing(path)?;
    let unowned = !lock_path(path).exists();

    let mut check = Check {
        report: &mut report,
        checked: Checked::default(),
    };
    let db = Db::at_rest(path)?;
    match must_be_current(&db) {
        // Too broken for SQLite; the header still tells whose it is.
        Err(Strange::Damaged(error)) if is_ours(path) => {
            check.fault(format!("database: {error}"));
            return Ok(check.checked);
        }
        result => result.map_err(|strange| strange.at(path))?,
    }
    if let Some(reason) = store::broken_log(path) {
        check.fault(format!("log: {reason}"));
    }
    check.all(&db).map_err(|error| cannot(path, &error))?;
    if unowned && lock_path(path).exists() {
        return Err(refuse("another process opened it meanwhile".into()));
    }
    Ok(check.checked)
}

/// Why the layout of a store is not the present one.
pub(crate) enum Strange {
    Other(String),
    Damaged(rusqlite::Error),
    Failed(rusqlite::Error),
}

impl Strange {
    pub(crate) fn at(self, path: &Path) -> OpenError {
        let reason = match self {
            Strange::Other(reason) => reason,
            Strange::Damaged(_) => "it is not a Queen store".into(),
            Strange::Failed(error) => return cannot(path, &error),
        };
        OpenError::Schema {
            path: path.to_path_buf(),
            reason,
        }
    }
}

/// Refuses what is no store of the layout that this program writes.
pub(crate) fn must_be_current(db: &Db) -> std::result::Result<(), Strange> {
    let other = match db.identity() {
        Ok((APPLICATION_ID, VERSION)) => return Ok(()),
        Ok((APPLICATION_ID, version)) if (1..VERSION).contains(&version) => format!(
            "its layout has version {version} and this program reads version {VERSION}; \
             start queen-broker serve on it once, which brings it up to date"
        ),
        Ok((APPLICATION_ID, version)) => format!(
            "its layout has version {version} and this program knows the versions up to {VERSION}; \
             look at it with the program that wrote it"
        ),
        Ok((application, _)) => {
            format!("it is a database of another program (application id {application})")
        }
        Err(error) if Db::is_damage(&error) => return Err(Strange::Damaged(error)),
        Err(error) => return Err(Strange::Failed(error)),
    };
    Err(Strange::Other(other))
}

pub(crate) fn cannot(path: &Path, error: &rusqlite::Error) -> OpenError {
    OpenError::Store {
        path: path.display().to_string(),
        message: store::explain(error),
    }
}

/// Whether the header, read past SQLite, carries our mark.
fn is_ours(path: &Path) -> bool {
    let head = head::<72>(path);
    head.is_some_and(|head| head.ends_with(&APPLICATION_ID.to_be_bytes()))
}

fn head<const N: usize>(path: &Path) -> Option<[u8; N]> {
    let mut head = [0; N];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut head))
        .ok()?;
    Some(head)
}

struct Check<'a> {
    report: &'a mut dyn FnMut(&str),
    checked: Checked,
}

/// The names of partitions and groups, for the reports.
struct Names {
    parts: HashMap<i64, String>,
    groups: HashMap<i64, String>,
}

impl Names {
    fn part(&self, id: i64) -> String {
        let name = self.parts.get(&id).cloned();
        name.unwrap_or_else(|| format!("partition number {id}"))
    }

    fn cursor(&self, group: i64, part: i64) -> String {
        let name = self.groups.get(&group).cloned();
        let name = name.unwrap_or_else(|| format!("group number {group}"));
        format!("{}: {name}", self.part(part))
    }
}

impl Check<'_> {
    fn fault(&mut self, text: impl AsRef<str>) {
        self.checked.faults += 1;
        (self.report)(text.as_ref());
    }

    /// Takes the result of one section: damage is a fault, and a failing machine ends the check.
    fn section<T>(&mut self, name: &str, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(error) if Db::is_damage(&error) => {
                self.fault(format!("{name}: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn all(&mut self, db: &Db) -> Result<()> {
        let integrity = db.integrity(|line| self.fault(format!("database: {line}")));
        self.section("database", integrity)?;
        let strange = self
            .section("layout", db.strange_tables())?
            .unwrap_or_default();
        for table in &strange {
            self.fault(format!("layout: {table}"));
        }
        if !strange.is_empty() {
            return Ok(());
        }
        for orphan in self
            .section("references", db.orphans())?
            .unwrap_or_default()
        {
            self.fault(orphan);
        }
        let mut queues = HashMap::new();
        for queue in self.section("queues", db.queues())?.unwrap_or_default() {
            self.checked.queues += 1;
            if let Err(error) = serde_json::from_str::<QueueOptions>(&queue.options) {
                self.fault(format!("queue {:?}: its options: {error}", queue.name));
            }
            queues.insert(queue.id, queue.name);
        }
        let parts = self.section("partitions", db.parts())?.unwrap_or_default();
        let groups = self.section("groups", db.groups())?.unwrap_or_default();
        let names = names(&queues, &parts, &groups);
        let mut ids = HashSet::new();
        for part in &parts {
            self.checked.partitions += 1;
            let name = names.part(part.id);
            if !ids.insert(part.uuid) {
                self.fault(format!(
                    "{name}: another partition has the id {} too",
                    part.uuid
                ));
            }
            let log = self.part(db, part, &name);
            self.section(&name, log)?;
        }
        let modes = db.modes();
        for mode in self.section("subscriptions", modes)?.unwrap_or_default() {
            if Mode::parse(&mode).name() != mode {
                self.fault(format!("subscriptions: {mode:?} is no mode"));
            }
        }
        let cursors = self.section("cursors", db.cursors())?.unwrap_or_default();
        self.cursors(&cursors, &groups, &parts, &names);
        let buried = self.buried(db, &parts, &names);
        self.section("dead letters", buried)?;
        Ok(())
    }

    /// The log of one partition: segments that decode and follow each other.
    fn part(&mut self, db: &Db, part: &LoadedPart, name: &str) -> Result<()> {
        if part.first > 0 && !db.was_swept(part.id)? {
            self.fault(format!(
                "{name}: the messages before offset {} are missing",
                part.first
            ));
        }
        let (mut next, mut newest, mut messages) = (part.first, i64::MIN, 0);
        db.each_segment(part.id, |segment, records| {
            let span = format!("{name}: offsets {}..{}", segment.first, segment.last);
            if segment.first < 0 || segment.last < segment.first {
                self.fault(format!("{span}: that is no span"));
            }
            if segment.first != next {
                self.fault(format!("{span}: they should begin at {next}"));
            }
            if segment.created < newest {
                self.fault(format!("{span}: they are older than those before"));
            }
            newest = newest.max(segment.created);
            let mut position = segment.first;
            for record in records {
                let record = match record {
                    Ok(record) => record,
                    Err(damage) => {
                        self.fault(format!("{span}: {damage}"));
                        break;
                    }
                };
                if let Err(error) = serde_json::from_str::<IgnoredAny>(record.payload) {
                    self.fault(format!(
                        "{name}: offset {position}: the payload is not JSON: {error}"
                    ));
                }
                position = position.saturating_add(1);
                messages += 1;
            }
            if position != segment.last.saturating_add(1) {
                self.fault(format!(
                    "{span}: {} messages are in it",
                    position - segment.first
                ));
            }
            next = segment.last.saturating_add(1);
            Ok(())
        })?;
        self.checked.messages += messages;
        if next != part.next {
            self.fault(format!(
                "{name}: its messages end at {next}, and its log at {}",
                part.next
            ));
        }
        Ok(())
    }

    fn cursors(
        &mut self,
        cursors: &[LoadedCursor],
        groups: &[LoadedGroup],
        parts: &[LoadedPart],
        names: &Names,
    ) {
        let queue_of_group: HashMap<i64, i64> = groups.iter().map(|g| (g.id, g.queue)).collect();
        let part_of: HashMap<i64, &LoadedPart> = parts.iter().map(|p| (p.id, p)).collect();
        for cursor in cursors {
            // One that belongs to nothing was reported with the other orphans.
            let (Some(queue), Some(part)) =
                (queue_of_group.get(&cursor.group), part_of.get(&cursor.part))
            else {
                continue;
            };
            let name = names.cursor(cursor.group, cursor.part);
            let LoadedCursor {
                committed,
                delivered,
                retries,
                ..
            } = *cursor;
            if *queue != part.queue {
                self.fault(format!("{name}: the group belongs to another queue"));
            }
            if committed < NONE.max(part.first - 1) || committed >= part.next {
                self.fault(format!(
                    "{name}: committed offset {committed} is not within {}..{}",
                    part.first - 1,
                    part.next - 1
                ));
            }
            if delivered < committed || delivered >= part.next {
                self.fault(format!(
                    "{name}: delivered offset {delivered} is not within {committed}..{}",
                    part.next - 1
                ));
            }
            if retries < 0 {
                self.fault(format!("{name}: {retries} retries"));
            }
            if let Some((lease, _, end)) = cursor.lease
                && (end <= committed || end > delivered)
            {
                self.fault(format!(
                    "{name}: lease {lease} ends at offset {end}, which is not within {}..{delivered}",
                    committed + 1
                ));
            }
        }
    }

    fn buried(&mut self, db: &Db, parts: &[LoadedPart], names: &Names) -> Result<()> {
        let part_of: HashMap<i64, &LoadedPart> = parts.iter().map(|p| (p.id, p)).collect();
        db.each_buried(|row| {
            let Some(part) = part_of.get(&row.part) else {
                return Ok(());
            };
            let name = format!(
                "{}: dead letter {} of group {:?}",
                names.part(row.part),
                row.id,
                row.group
            );
            if row.position < 0 || row.position >= part.next {
                self.fault(format!("{name}: offset {} was never written", row.position));
            }
            if let Err(error) = serde_json::from_str::<IgnoredAny>(&row.payload) {
                self.fault(format!("{name}: the payload is not JSON: {error}"));
            }
            // A message that does not decode was reported with its segment.
            if let Ok(Some(stored)) = db.message(row.part, row.position)
                && stored.id.as_bytes() != row.message.as_slice()
            {
                self.fault(format!(
                    "{name}: offset {} holds another message",
                    row.position
                ));
            }
            Ok(())
        })
    }
}

fn names(queues: &HashMap<i64, String>, parts: &[LoadedPart], groups: &[LoadedGroup]) -> Names {
    let queue = |id: i64| queues.get(&id).map_or("", String::as_str);
    let part = |p: &LoadedPart| {
        (
            p.id,
            format!("queue {:?} partition {:?}", queue(p.queue), p.name),
        )
    };
    let group = |g: &LoadedGroup| (g.id, format!("group {:?}", g.name));
    Names {
        parts: parts.iter().map(part).collect(),
        groups: groups.iter().map(group).collect(),
    }
}
