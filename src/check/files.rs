//! The small things of the store that are plain files: volumes, networks, contexts, drafts, shared bodies, leftovers.

use super::{CheckError, Cure, Finding};
use crate::runtime::volumes::Volumes;
use crate::store::{Store, StoreError};
use crate::sys::fsutil;
use std::path::Path;

/// No honest file of this kind is longer, in bytes.
const LIMIT: u64 = 2 << 30;
/// Nobody has it, so nothing but a failure to remove it keeps it there.
const LEFTOVER: &str = "nobody uses it any more";

/// Looks at them.
pub(super) fn look(store: &Store, out: &mut Vec<Finding>) -> Result<(), CheckError> {
    json_files(store, "networks/defined", "network", "--repair removes it; make the network again", out)?;
    json_files(
        store,
        "manifests",
        "list of images",
        "--repair removes it; make it again with `rbuild manifest`",
        out,
    )?;
    volumes(store, out)?;
    contexts(store, out)?;
    leftovers(store, out)?;
    Ok(store.bodies().audit(&mut |name, wrong| {
        out.push(Finding {
            what: format!("shared file {name}"),
            wrong,
            cure: Cure::Remove(
                Path::new("files").join(name),
                "--repair removes it; later copies are made anew",
            ),
        });
    })?)
}

/// Moves something aside and removes it; gives false when it is gone.
pub(super) fn remove(store: &Store, rel: &Path) -> Result<bool, CheckError> {
    let path = store.root().join(rel);
    let grave = store.temp_dir("damaged")?;
    match std::fs::rename(&path, grave.path().join("damaged")) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        done => {
            done.map_err(StoreError::io("remove", &path))?;
            Ok(true)
        }
    }
}

/// Lists the names in a directory of the store; none where it is missing.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StoreError::io("list", dir))?,
    };
    let mut names: Vec<String> =
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Files that must be JSON.
fn json_files(
    store: &Store,
    dir: &str,
    what: &str,
    then: &'static str,
    out: &mut Vec<Finding>,
) -> Result<(), CheckError> {
    for name in names(&store.root().join(dir))?.into_iter().filter(|name| !name.starts_with('.')) {
        let rel = format!("{dir}/{name}");
        let Ok(Some(bytes)) = store.read(&rel, LIMIT) else { continue };
        if let Err(error) = serde_json::from_slice::<serde_json::Value>(&bytes) {
            let cure = Cure::Remove(rel.into(), then);
            out.push(Finding {
                what: format!("{what} {name}"),
                wrong: format!("it is damaged: {error}"),
                cure,
            });
        }
    }
    Ok(())
}

fn volumes(store: &Store, out: &mut Vec<Finding>) -> Result<(), CheckError> {
    Volumes::new(store).sweep()?;
    for name in names(&store.root().join("volumes"))? {
        let rel = format!("volumes/{name}/volume.json");
        let described = store.read(&rel, LIMIT).ok().flatten();
        let finding = |wrong: String, cure| Finding { what: format!("volume {name}"), wrong, cure };
        match described.as_deref().map(serde_json::from_slice::<serde_json::Value>) {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let cure = Cure::Remove(rel.into(), "--repair removes what was said of it; its files stay");
                out.push(finding(format!("its description is damaged: {error}"), cure));
            }
            None => {}
        }
    }
    Ok(())
}

fn contexts(store: &Store, out: &mut Vec<Finding>) -> Result<(), CheckError> {
    for name in names(&store.root().join("contexts"))? {
        let rel = format!("contexts/{name}");
        let Ok(Some(bytes)) = store.read(&rel, LIMIT) else { continue };
        if !crate::context::is_whole(bytes) {
            let cure =
                Cure::Remove(rel.into(), "--repair removes it; the next build reads the context again");
            let wrong = "it is cut off or damaged".into();
            out.push(Finding { what: format!("digests of context {name}"), wrong, cure });
        }
    }
    Ok(())
}

/// Opening the store has swept `tmp/`: what is there now is in use, or could not be removed.
fn leftovers(store: &Store, out: &mut Vec<Finding>) -> Result<(), CheckError> {
    for name in store.leftovers() {
        let cure = Cure::Nothing(format!("remove {}", store.root().join("tmp").join(&name).display()));
        out.push(Finding { what: format!("temporary {name}"), wrong: LEFTOVER.into(), cure });
    }
    for name in names(store.root())?.into_iter().filter(|name| name.starts_with("index.damaged-")) {
        let cure = Cure::Remove(name.clone().into(), "--repair removes it");
        out.push(Finding { what: name, wrong: LEFTOVER.into(), cure });
    }
    // what a killed command leaves is no damage, as in tmp/
    let dir = store.root().join("networks/defined");
    for name in names(&dir)?.into_iter().filter(|name| name.starts_with('.')) {
        if fsutil::is_unlocked(&dir.join(&name)) {
            let _ = std::fs::remove_file(dir.join(&name));
        }
    }
    Ok(())
}
