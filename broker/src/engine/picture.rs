//! The model as text, to be compared with another one: what the writer holds in memory must be what the store says.

use std::collections::BTreeMap;

use super::model::{Group, Model};
use super::writer::Writer;
use crate::store::Result;

type Picture = BTreeMap<String, String>;

impl Writer {
    /// Where the model and the store differ, between two transactions: nowhere.
    pub(super) fn disagreements(&self) -> Result<Vec<String>> {
        let (held, stored) = (
            picture(&self.model),
            picture(&Model::load(&self.db, self.round.now)?),
        );
        let names = held
            .keys()
            .chain(stored.keys().filter(|name| !held.contains_key(*name)));
        let differing = names.filter(|name| held.get(*name) != stored.get(*name));
        let told = differing.map(|name| {
            let show =
                |picture: &Picture| picture.get(name).map_or("nothing".into(), String::clone);
            format!(
                "{name}: {} in memory, {} in the store",
                show(&held),
                show(&stored)
            )
        });
        let mut told: Vec<String> = told.collect();
        told.extend(self.wrong_windows()?);
        let wrong = self.wrong_txns()?.into_iter();
        told.extend(
            wrong.map(|part| format!("the transaction ids of partition {part} lead elsewhere")),
        );
        Ok(told)
    }
}

/// All that outlives a restart. The order of turns does not.
fn picture(model: &Model) -> Picture {
    let mut lines = Picture::new();
    for (id, queue) in &model.queues {
        let name = format!("queue {:?}", queue.name);
        let names = (
            &queue.namespace,
            &queue.task,
            queue.uuid,
            queue.created,
            queue.stored,
        );
        lines.insert(name.clone(), format!("{id} {names:?} {:?}", queue.options));
        for (part_name, id) in &queue.parts {
            let told = model.parts.get(id).map(|part| {
                let log = (part.first, part.next, part.newest, part.dead);
                (part.uuid, part.created, log)
            });
            lines.insert(
                format!("{name} partition {part_name:?}"),
                format!("{id} {told:?}"),
            );
        }
        for (group_name, id) in &queue.groups {
            let name = format!("{name} group {group_name:?}");
            if let Some(group) = model.groups.get(id) {
                draw(&mut lines, &name, group);
            }
        }
    }
    for (lease, claims) in &model.leases {
        let mut claims = claims.clone();
        claims.sort_unstable();
        lines.insert(format!("lease {lease}"), format!("{claims:?}"));
    }
    for (place, groups) in &model.pins {
        let groups: std::collections::BTreeSet<&String> = groups.iter().collect();
        lines.insert(format!("pins on {place:?}"), format!("{groups:?}"));
    }
    for (key, finder) in &model.finders {
        lines.insert(
            format!("finder {key:?}"),
            format!("{:?}", finder.subscription),
        );
    }
    for stream in model.streams.all.values() {
        let (row, sources) = (&stream.row, &stream.sources);
        let lengths = (row.duration, row.grace, row.lease);
        let rest = (row.uuid, &row.namespace, row.partitioned, row.strict);
        let told = format!("{} {lengths:?} {rest:?} {sources:?}", row.id);
        lines.insert(format!("stream {:?}", stream.name), told);
    }
    let sizes = (
        model.parts.len(),
        model.groups.len(),
        model.part_ids.len(),
        model.names.len(),
    );
    lines.insert("sizes".into(), format!("{sizes:?}"));
    lines
}

fn draw(lines: &mut Picture, name: &str, group: &Group) {
    let told = (group.registered, group.subscription, group.undelivered());
    lines.insert(name.to_owned(), format!("{told:?}"));
    for (part, cursor) in &group.cursors {
        let lease = cursor
            .lease
            .map(|lease| (lease.id, lease.expires, lease.batch_end));
        let stand = (
            cursor.committed,
            cursor.delivered,
            cursor.retries,
            cursor.consumed,
            lease,
        );
        lines.insert(format!("{name} cursor {part}"), format!("{stand:?}"));
    }
}
