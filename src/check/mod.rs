//! `system check`: whether all that the store holds is what it should be, and putting right what can be put right.
//!
//! Each room knows how to look at its own things; here they are looked at one after the other, in words for people, and it
//! is decided in which order they are mended: what is damaged goes first, then what can be made of something else is made
//! (the list of images of its copy or of the documents, layers of their blobs), and only then goes what stands on something
//! that nobody can make again. Other processes may work meanwhile: what is in use is not touched.

mod files;

use crate::cache::{Records, index};
use crate::image::{ImageError, Images, Mend};
use crate::oci::Descriptor;
use crate::runtime::{Containers, RunError};
use crate::snapshot::{FlawKind, SnapshotError, Snapshots};
use crate::store::{LockKind, Store, StoreError};
use std::path::{Path, PathBuf};

/// Rounds of repair: a layer is mended, then what stands on it is looked at again.
const ROUNDS: usize = 5;

/// What can go wrong while a store is checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshots cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The images cannot be written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The containers cannot be read.
    #[error(transparent)]
    Container(#[from] RunError),
}

/// Something that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing and which one.
    pub what: String,
    /// What is wrong with it.
    pub wrong: String,
    /// What can be done.
    pub cure: Cure,
}

/// What can be done about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cure {
    /// The file or directory goes; the text says what that means.
    Remove(PathBuf, &'static str),
    /// The snapshot goes; builds make it again.
    RemoveSnapshot(String),
    /// The same for one that only lacks what it stands on.
    RemoveOrphan(String),
    /// The list of images is made anew.
    RemakeList,
    /// The layers of an image are unpacked from their blobs.
    Unpack(Box<Descriptor>),
    /// Nothing here; the text says what the user can do.
    Nothing(String),
}

impl Cure {
    /// Says whether a repair can do it.
    pub fn is_possible(&self) -> bool {
        !matches!(self, Self::Nothing(_))
    }

    /// Later ones wait until there are none of the earlier.
    fn turn(&self) -> usize {
        match self {
            Self::Remove(..) | Self::RemoveSnapshot(_) => 0,
            Self::RemakeList => 1,
            Self::Unpack(_) => 2,
            Self::RemoveOrphan(_) => 3,
            Self::Nothing(_) => 4,
        }
    }

    /// Says it to the user.
    pub fn text(&self) -> &str {
        match self {
            Self::Remove(_, then) => then,
            Self::RemoveSnapshot(_) => {
                "--repair removes it; it is unpacked, pulled or built again when it is needed"
            }
            Self::RemoveOrphan(_) => "--repair removes it unless what it stands on comes back",
            Self::RemakeList => "--repair makes it anew from what is left; images may lose their names",
            Self::Unpack(_) => "--repair unpacks it again",
            Self::Nothing(what) => what,
        }
    }
}

/// What a check has found.
#[derive(Debug, Default)]
pub struct Report {
    /// What is wrong now.
    pub findings: Vec<Finding>,
    /// What was wrong and has been mended.
    pub mended: Vec<Finding>,
    /// What could not be looked at, in words.
    pub passed_over: Vec<String>,
}

/// Checks a store.
pub struct Checker {
    store: Store,
    snapshots: Snapshots,
    images: Images,
    records: Records,
}

impl Checker {
    /// Works on a store; `records` are its step records.
    pub fn new(store: Store, snapshots: Snapshots, images: Images, records: Records) -> Self {
        Self { store, snapshots, images, records }
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn check(&self) -> Result<Report, CheckError> {
        let mut report = Report::default();
        let out = &mut report.findings;
        self.blobs(out)?;
        self.images(out);
        self.snapshots(out)?;
        self.records(out);
        match index::verify(&self.store.root().join("index")) {
            index::Verdict::Whole => {}
            index::Verdict::Damaged(wrong) => out.push(Finding {
                what: "index of the cache".into(),
                wrong,
                cure: Cure::Remove("index".into(), "--repair removes it; the next build makes it anew"),
            }),
            index::Verdict::Locked => {
                report.passed_over.push("the index of the cache, which a build uses".into())
            }
        }
        self.containers(&mut report.findings)?;
        files::look(&self.store, &mut report.findings)?;
        Ok(report)
    }

    /// Mends what can be mended, and looks again until nothing more can be done.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn repair(&self) -> Result<Report, CheckError> {
        let _alone = self.store.lock("gc", LockKind::Exclusive)?;
        let mut mended: Vec<Finding> = Vec::new();
        for _ in 0..ROUNDS {
            let report = self.check()?;
            let possible = report.findings.iter().filter(|finding| finding.cure.is_possible());
            let Some(turn) = possible.map(|finding| finding.cure.turn()).min() else {
                return Ok(Report { mended, ..report });
            };
            let mut progress = false;
            for finding in report.findings.into_iter().filter(|finding| finding.cure.turn() == turn) {
                if self.apply(&finding.cure)? {
                    progress = true;
                    mended.push(finding);
                }
            }
            if !progress {
                break;
            }
        }
        Ok(Report { mended, ..self.check()? })
    }

    fn apply(&self, cure: &Cure) -> Result<bool, CheckError> {
        Ok(match cure {
            Cure::Remove(path, _) => files::remove(&self.store, path)?,
            Cure::RemoveSnapshot(name) | Cure::RemoveOrphan(name) => self.snapshots.remove_flawed(name)?,
            Cure::RemakeList => {
                self.images.remake_list()?;
                true
            }
            // what cannot be unpacked is found again, and then said to be lost
            Cure::Unpack(entry) => self.images.mend_entry(entry).unwrap_or(false),
            Cure::Nothing(_) => false,
        })
    }

    /// Blobs against the digests that name them.
    fn blobs(&self, out: &mut Vec<Finding>) -> Result<(), CheckError> {
        let dir = self.store.root().join("images/blobs/sha256");
        for name in files::names(&dir)? {
            let path = Path::new("images/blobs/sha256").join(&name);
            let Ok(digest) = format!("sha256:{name}").parse() else {
                let cure = Cure::Remove(path, "--repair removes it");
                out.push(Finding {
                    what: format!("file {name} among the blobs"),
                    wrong: "it is no blob".into(),
                    cure,
                });
                continue;
            };
            let wrong = match self.store.blobs().digest_of(&digest) {
                Ok(found) if found == digest => continue,
                Ok(found) => format!("its bytes have the digest {found}"),
                Err(StoreError::NoBlob(_)) => continue,
                Err(error) => error.to_string(),
            };
            let users = self.images.users_of_blob(&digest);
            let of = if users.is_empty() { String::new() } else { format!(" (of {})", users.join(", ")) };
            out.push(Finding {
                what: format!("blob {digest}{of}"),
                wrong,
                cure: Cure::Remove(
                    path,
                    "--repair removes it; loading or pulling the image again brings it back",
                ),
            });
        }
        Ok(())
    }

    fn images(&self, out: &mut Vec<Finding>) {
        for flaw in self.images.audit() {
            let cure = match flaw.mend {
                Mend::List => Cure::RemakeList,
                Mend::Unpack(entry) => Cure::Unpack(entry),
                Mend::Nothing => Cure::Nothing(format!(
                    "build, load or pull it again, or take the name away with `rbuild rmi {}`",
                    flaw.image
                )),
            };
            let what = match cure {
                Cure::RemakeList => flaw.image,
                _ => format!("image {}", flaw.image),
            };
            out.push(Finding { what, wrong: flaw.wrong, cure });
        }
    }

    fn snapshots(&self, out: &mut Vec<Finding>) -> Result<(), CheckError> {
        for flaw in self.snapshots.audit()? {
            let cure = match flaw.kind {
                FlawKind::Damaged => Cure::RemoveSnapshot(flaw.name.clone()),
                FlawKind::Orphan => Cure::RemoveOrphan(flaw.name.clone()),
                FlawKind::File(path) => {
                    let path = path.strip_prefix(self.store.root()).map(Path::to_owned).unwrap_or(path);
                    Cure::Remove(path, "--repair removes it; it is found out again when it is needed")
                }
            };
            out.push(Finding { what: format!("snapshot {}", flaw.name), wrong: flaw.wrong, cure });
        }
        Ok(())
    }

    /// Records of steps and memos; one whose result is gone is no damage, since its step is run again.
    fn records(&self, out: &mut Vec<Finding>) {
        let (_, damaged) = self.records.uses();
        let steps = damaged.into_iter().map(|name| ("record of a step", name));
        let memos = self.records.damaged_memos().into_iter().map(|name| ("memo", name));
        for (what, name) in steps.chain(memos) {
            out.push(Finding {
                what: format!("{what} {name}"),
                wrong: "it is cut off or damaged".into(),
                cure: Cure::Remove(name.into(), "--repair removes it; its step is run again"),
            });
        }
    }

    fn containers(&self, out: &mut Vec<Finding>) -> Result<(), CheckError> {
        let containers = Containers::new(&self.store);
        for (what, wrong) in containers.audit()? {
            let cure = Cure::Nothing(format!(
                "its files are in containers/{what}/fs; that directory can be removed when they are not needed"
            ));
            out.push(Finding { what: format!("container {what}"), wrong, cure });
        }
        for container in containers.list()? {
            if !container.record.tops().all(|top| self.snapshots.stands(&top)) {
                let cure = Cure::Nothing(format!(
                    "bring {} back (build, load or pull it), or remove the container",
                    container.record.image
                ));
                let wrong = "a layer of its image is gone".into();
                out.push(Finding { what: format!("container {}", container.record.name), wrong, cure });
            }
        }
        // what a killed command leaves is no damage, as in tmp/
        containers.sweep_names()?;
        Ok(())
    }
}
