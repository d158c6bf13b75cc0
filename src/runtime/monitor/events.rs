//! What happens to containers, images, volumes and networks, for `events`: one JSON object a line in
//! `containers/events.json`.
//!
//! Every line is one write at the end of the file, so that any number of monitors and commands can add theirs. The file
//! is put aside when it has grown; one older file is kept.

use crate::runtime::containers::Containers;
use crate::runtime::record::Record;
use crate::runtime::time;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A longer file is put aside, in bytes.
const LONGEST: u64 = 4 << 20;

fn path(root: &Path) -> PathBuf {
    root.join("containers/events.json")
}

/// Adds an event of a container. One that cannot be written is lost; the container does not suffer for it.
pub fn record_event(containers: &Containers, record: &Record, action: &str, attributes: &[(&str, String)]) {
    let mut map: Map<String, Value> =
        record.config.labels.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
    map.insert("image".into(), record.image.as_str().into());
    map.insert("name".into(), record.name.as_str().into());
    map.extend(attributes.iter().map(|(k, v)| ((*k).to_owned(), v.as_str().into())));
    let nanos = time::now();
    let event = json!({
        "status": action, "id": record.id.as_str(), "from": record.image, "Type": "container", "Action": action,
        "Actor": { "ID": record.id.as_str(), "Attributes": map }, "scope": "local",
        "time": i64::try_from(nanos / 1_000_000_000).unwrap_or(0), "timeNano": i64::try_from(nanos).unwrap_or(0),
    });
    let _ = append(&path(containers.store().root()), format!("{event}\n").as_bytes());
}

/// Adds an event of something else: `kind` is `image`, `volume`, `network` or what was pruned, `id` what docker's event has
/// in that place. One that cannot be written is lost.
pub fn record_other(root: &Path, kind: &str, action: &str, id: &str, attributes: &[(&str, String)]) {
    let map: Map<String, Value> =
        attributes.iter().map(|(k, v)| ((*k).to_owned(), v.as_str().into())).collect();
    let nanos = time::now();
    let mut event = json!({
        "Type": kind, "Action": action, "Actor": { "ID": id, "Attributes": map }, "scope": "local",
        "time": i64::try_from(nanos / 1_000_000_000).unwrap_or(0), "timeNano": i64::try_from(nanos).unwrap_or(0),
    });
    if let (Some(fields), "image") = (event.as_object_mut(), kind) {
        fields.insert("status".into(), action.into());
        fields.insert("id".into(), id.into());
    }
    let _ = append(&path(root), format!("{event}\n").as_bytes());
}

fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let open = || File::options().append(true).create(true).mode(0o600).open(path);
    let mut file = match open() {
        // before the first container there is no directory of containers
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let dir = path.parent().unwrap_or(path);
            std::fs::DirBuilder::new().mode(0o700).create(dir).and_then(|()| open())?
        }
        file => file?,
    };
    if file.metadata()?.len() > LONGEST {
        let _ = std::fs::rename(path, path.with_extension("json.1"));
        file = File::options().append(true).create(true).mode(0o600).open(path)?;
    }
    file.write_all(line)
}

/// Which events are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventQuery {
    /// Not before, in nanoseconds since 1970; `None` is from now on.
    pub since: Option<i128>,
    /// Not after; without it they go on.
    pub until: Option<i128>,
}

/// Reads events.
#[derive(Debug)]
pub struct EventReader {
    path: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
    older: Vec<u8>,
    query: EventQuery,
}

impl EventReader {
    /// Opens the events of a store.
    pub fn open(root: &Path, query: EventQuery) -> io::Result<Self> {
        let path = path(root);
        let mut older = Vec::new();
        let mut file = File::open(&path).ok();
        if query.since.is_some() {
            older = std::fs::read(path.with_extension("json.1")).unwrap_or_default();
        } else if let Some(file) = &mut file {
            io::Seek::seek(file, io::SeekFrom::End(0))?;
        }
        Ok(Self { path, file, rest: Vec::new(), older, query })
    }

    /// Gives what has come since the last call.
    pub fn next_events(&mut self) -> io::Result<Vec<Value>> {
        let mut text = std::mem::take(&mut self.older);
        text.append(&mut self.rest);
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut text)?;
        }
        let here = self.path.metadata().ok().map(|meta| meta.ino());
        let ours = self.file.as_ref().and_then(|file| file.metadata().ok()).map(|meta| meta.ino());
        if here != ours {
            self.file = File::open(&self.path).ok();
            if let Some(file) = &mut self.file {
                file.read_to_end(&mut text)?;
            }
        }
        let end = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        self.rest = text.split_off(end);
        let events =
            text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let fits = |event: &Value| {
            let at = i128::from(event["timeNano"].as_i64().unwrap_or(0));
            self.query.since.is_none_or(|since| at >= since)
                && self.query.until.is_none_or(|until| at <= until)
        };
        Ok(events.filter(fits).collect())
    }
}
