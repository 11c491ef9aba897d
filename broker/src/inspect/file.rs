//! A store on disk, read without changing it.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::{InspectError, Inspection, Source, survey};
use crate::check::{cannot, must_be_current};
use crate::clock::Clock;
use crate::engine::{Model, group_views, queue_views};
use crate::error::OpenError;
use crate::lock::{self, Claim};
use crate::store::{self, Db, Found};

/// Tells what a store holds: all queues, or one. Changes nothing, and reads also what another process has open; what it
/// does meanwhile is not part of the picture.
///
/// Blocks while it reads. A store that this process has open itself is refused ([`OpenError::Locked`]): ask its broker.
pub fn inspect(path: &Path, queue: Option<&str>) -> Result<Inspection, InspectError> {
    let path = &crate::real_path(path)?;
    let _claim = Claim::new(path)?;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (owner, before) = (lock::owner_of(path), state(path));
        let result = look(path, queue, owner);
        // What nobody had open is read as a file that nobody changes; if somebody came meanwhile, that was wrong.
        let undisturbed =
            owner.is_some() || lock::owner_of(path).is_none() && state(path) == before;
        if undisturbed || attempts == 5 {
            return result;
        }
    }
}

/// What changes when somebody works on a store.
fn state(path: &Path) -> [Option<(u64, Option<SystemTime>)>; 2] {
    [path.to_path_buf(), store::beside(path, "-wal")].map(|path| {
        let file = fs::metadata(path).ok()?;
        Some((file.len(), file.modified().ok()))
    })
}

fn look(path: &Path, queue: Option<&str>, owner: Option<u32>) -> Result<Inspection, InspectError> {
    let refuse = |reason: &str| OpenError::Schema {
        path: path.to_path_buf(),
        reason: reason.into(),
    };
    match store::find(path)? {
        Found::Nothing => return Err(refuse("there is no such file").into()),
        Found::Empty => return Err(refuse("the file is empty").into()),
        Found::Database => {}
    }
    if owner.is_none()
        && let Some(reason) = store::broken_log(path)
    {
        return Err(refuse(&reason).into());
    }
    let db = match owner {
        Some(_) => Db::at_work(path)?,
        None => Db::at_rest(path)?,
    };
    must_be_current(&db).map_err(|strange| strange.at(path))?;
    let now = Clock::default().now();
    let model = Model::load(&db, now).map_err(|error| cannot(path, &error))?;
    let mut file = File {
        path,
        db,
        model,
        now,
    };
    Ok(Inspection {
        source: path.display().to_string(),
        owner_pid: owner,
        queues: survey(&mut file, queue)?,
    })
}

struct File<'a> {
    path: &'a Path,
    db: Db,
    model: Model,
    now: i64,
}

impl File<'_> {
    fn value(&self, view: store::Result<Option<String>>) -> Result<Option<Value>, InspectError> {
        let Some(text) = view.map_err(|error| cannot(self.path, &error))? else {
            return Ok(None);
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| self.odd(&error.to_string()))
    }
}

impl Source for File<'_> {
    fn queues(&mut self) -> Result<Value, InspectError> {
        let names = self.model.queues.values();
        let names = names.map(|queue| json!({ "name": &*queue.name }));
        Ok(json!({ "queues": Value::from_iter(names) }))
    }

    fn queue(&mut self, name: &str) -> Result<Option<Value>, InspectError> {
        match self.model.detail(name, None, self.now) {
            Some(queue) => self.value(queue_views::describe(&self.db, &queue)),
            None => Ok(None),
        }
    }

    fn groups(&mut self) -> Result<Value, InspectError> {
        let groups = self.value(group_views::list(&self.db, self.now))?;
        Ok(groups.unwrap_or_default())
    }

    fn group(&mut self, name: &str) -> Result<Value, InspectError> {
        let group = self.value(group_views::details(&self.db, name, self.now))?;
        Ok(group.unwrap_or_default())
    }

    fn odd(&self, what: &str) -> InspectError {
        OpenError::Store {
            path: self.path.display().to_string(),
            message: format!("what it holds cannot be told: {what}"),
        }
        .into()
    }
}
