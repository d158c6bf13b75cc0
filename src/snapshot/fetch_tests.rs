use super::super::{LayerInfo, LayerProvider, SnapshotMode, StepRecord};
use super::*;
use crate::layer::write_tar;
use crate::oci::{Descriptor, media_type};
use crate::store::Store;
use crate::tree::TreePath;
use std::collections::{HashMap, HashSet};

/// Blobs in memory, and what was asked for.
#[derive(Default)]
struct Memory {
    blobs: HashMap<Digest, Vec<u8>>,
    asked: Mutex<Vec<Digest>>,
}

impl LayerProvider for Memory {
    fn open(&self, place: &str, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        if place != "memory" {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.asked.lock().unwrap().push(blob.digest.clone());
        let bytes = self.blobs.get(&blob.digest).cloned();
        Ok(Box::new(io::Cursor::new(bytes.ok_or(io::ErrorKind::NotFound)?)))
    }
}

struct Machine {
    _dir: tempfile::TempDir,
    snapshots: Snapshots,
}

fn machine() -> Machine {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let mode = SnapshotMode::Overlay { userxattr: false };
    Machine { _dir: dir, snapshots: Snapshots::new_with_mode(store, mode) }
}

impl Machine {
    fn left_in_tmp(&self) -> usize {
        std::fs::read_dir(self.snapshots.store().root().join("tmp")).unwrap().count()
    }

    /// Makes a step on top of `parent` and gives what another machine needs to know of it.
    fn step(&self, parent: &ResultId, name: &str, memory: &mut Memory) -> Absent {
        let prepared = self.snapshots.prepare(parent).unwrap();
        std::fs::write(prepared.upper.join(name), name.repeat(100_000)).unwrap();
        let diff = prepared.scan(&HashSet::new()).unwrap();
        let id = self.snapshots.commit(prepared, diff.clone(), StepRecord::default()).unwrap().id;
        let mut tar = Vec::new();
        write_tar(&diff, &|path| self.snapshots.open_file(&id, path), None, &mut tar).unwrap();
        let layer = self.snapshots.layer_digest(&id, None).unwrap();
        let digest = Digest::sha256_of(&tar);
        let media_type = media_type::LAYER_TAR.to_owned();
        let size = tar.len() as u64;
        let blob = Descriptor { media_type, digest, size, annotations: Default::default(), platform: None };
        memory.blobs.insert(blob.digest.clone(), tar);
        let origin = Origin::Step { step: StepRecord::default(), created: 7 };
        let sources = vec![Source { blob, place: "memory".into(), provider: None }];
        Absent { id, parent: *parent, origin, layer: Some(layer), clamped: Vec::new(), sources }
    }
}

fn three() -> (Memory, Vec<Absent>) {
    let (maker, mut memory) = (machine(), Memory::default());
    let one = maker.step(&ResultId::scratch(), "a", &mut memory);
    let two = maker.step(&one.id, "b", &mut memory);
    let three = maker.step(&two.id, "c", &mut memory);
    (memory, vec![one, two, three])
}

#[test]
fn what_is_known_is_brought_when_it_is_needed() {
    let (memory, layers) = three();
    let here = machine();
    let memory = Arc::new(memory);
    here.snapshots.set_provider(memory.clone());
    for layer in &layers {
        here.snapshots.know(layer.clone()).unwrap();
    }
    let top = layers[2].id;
    let name = ResultId([9; 32]);
    assert!(here.snapshots.has(&top) && !here.snapshots.is_present(&top));
    assert_eq!(here.snapshots.info(&top).unwrap().created, 7);
    assert_eq!(here.snapshots.layer(&top).unwrap(), layers[2].layer.clone().unwrap());
    here.snapshots.alias(&name, &top).unwrap();
    assert_eq!(here.snapshots.remove_garbage().unwrap(), 0);
    assert!(memory.asked.lock().unwrap().is_empty());

    // another process knows it from the files
    let store = Store::open(here.snapshots.store().root()).unwrap();
    let other = Snapshots::new_with_mode(store, here.snapshots.mode());
    other.set_provider(memory.clone());
    let found = other.get(&name).unwrap();
    assert_eq!(found.chain, [layers[2].id, layers[1].id, layers[0].id]);
    assert_eq!(found.view().read(&TreePath::clean(b"c"), 1 << 20).unwrap().len(), 100_000);
    assert_eq!(memory.asked.lock().unwrap().len(), 3);
    // the first one sees it, too, and fetches nothing again
    assert_eq!(here.snapshots.get(&top).unwrap().chain.len(), 3);
    assert_eq!(here.snapshots.info(&top).unwrap().created, 7);
    assert_eq!((memory.asked.lock().unwrap().len(), here.left_in_tmp()), (3, 0));
    assert!(here.snapshots.absent(&top).is_none() || here.snapshots.is_present(&top));
}

#[test]
fn processes_that_want_the_same_fetch_it_once() {
    let (memory, layers) = three();
    let here = machine();
    let memory = Arc::new(memory);
    for layer in &layers {
        here.snapshots.know(layer.clone()).unwrap();
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(here.snapshots.store().root()).unwrap();
                let other = Snapshots::new_with_mode(store, here.snapshots.mode());
                other.set_provider(memory.clone());
                assert_eq!(other.get(&layers[2].id).unwrap().chain.len(), 3);
            });
        }
    });
    assert_eq!(memory.asked.lock().unwrap().len(), 3);
}

#[test]
fn what_is_wrong_leaves_nothing_and_another_source_helps() {
    type Damage = fn(&mut Absent, &mut Memory);
    let damages: [(&str, Damage); 8] = [
        ("its digest is", |layer, memory| {
            memory.blobs.get_mut(&layer.sources[0].blob.digest).unwrap()[600] ^= 1;
        }),
        ("announced", |layer, memory| {
            memory.blobs.get_mut(&layer.sources[0].blob.digest).unwrap().truncate(700);
        }),
        ("longer than", |layer, memory| {
            memory.blobs.get_mut(&layer.sources[0].blob.digest).unwrap().extend([0; 5000]);
        }),
        ("announced", |layer, _| layer.sources[0].blob.size += 1),
        ("not found", |layer, memory| drop(memory.blobs.remove(&layer.sources[0].blob.digest))),
        ("diff ID", |layer, _| {
            layer.layer.as_mut().unwrap().diff_id = Some(crate::digest::DiffId(Digest::sha256_of(b"x")));
        }),
        ("bytes", |layer, _| layer.layer.as_mut().unwrap().tar_size = Some(1)),
        // a blob that is whole, and the layer of something else
        ("result", |layer, memory| {
            let (digest, bytes) = memory
                .blobs
                .iter()
                .find(|(digest, _)| **digest != layer.sources[0].blob.digest)
                .map(|(digest, bytes)| (digest.clone(), bytes.len() as u64))
                .unwrap();
            layer.sources[0].blob.digest = digest;
            layer.sources[0].blob.size = bytes;
            layer.layer = None;
        }),
    ];
    for (number, (part, damage)) in damages.into_iter().enumerate() {
        let (mut memory, mut layers) = three();
        let good = layers[1].sources[0].clone();
        let good_bytes = memory.blobs[&good.blob.digest].clone();
        damage(&mut layers[1], &mut memory);
        let here = machine();
        here.snapshots.set_provider(Arc::new(memory));
        for layer in &layers {
            here.snapshots.know(layer.clone()).unwrap();
        }
        let error = here.snapshots.get(&layers[2].id).unwrap_err();
        let SnapshotError::Unavailable { ids, why } = &error else { panic!("{number}: {error}") };
        assert_eq!(ids[..], [layers[1].id, layers[2].id], "{number}");
        assert!(why.to_lowercase().contains(&part.to_lowercase()), "{number}: {why}");
        assert!(!here.snapshots.is_present(&layers[1].id) && here.left_in_tmp() == 0, "{number}");
        assert!(here.snapshots.is_present(&layers[0].id), "{number}");
        if number < 5 {
            // a second place has it right
            let second = Memory {
                blobs: HashMap::from([(good.blob.digest.clone(), good_bytes)]),
                ..Memory::default()
            };
            let source = Source { provider: Some(Arc::new(second)), ..good };
            here.snapshots.know(Absent { sources: vec![source], ..layers[1].clone() }).unwrap();
            let found = here.snapshots.get(&layers[2].id);
            assert_eq!(found.unwrap().chain.len(), 3, "{number}");
        }
        here.snapshots.forget_absent(&layers[1].id);
        if number >= 5 {
            assert!(!here.snapshots.has(&layers[1].id), "{number}");
        }
    }
}

#[test]
fn a_result_without_files_anywhere_says_so() {
    let (_, mut layers) = three();
    let here = machine();
    layers[0].sources.clear();
    layers[1].sources.clear();
    for layer in &layers {
        here.snapshots.know(layer.clone()).unwrap();
    }
    let error = here.snapshots.get(&layers[2].id).unwrap_err();
    let SnapshotError::Unavailable { ids, .. } = error else { panic!("{error}") };
    assert_eq!(ids, [layers[0].id, layers[1].id, layers[2].id]);
}

#[test]
fn notes_that_nobody_needs_go() {
    let (memory, layers) = three();
    let here = machine();
    here.snapshots.set_provider(Arc::new(memory));
    for layer in &layers {
        here.snapshots.know(layer.clone()).unwrap();
    }
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(48 * 3600);
    for layer in &layers {
        let path = here.snapshots.store().root().join(format!("absent/{}", layer.id));
        File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
    here.snapshots.forget_unneeded(&[layers[1].id]);
    let known: Vec<bool> = layers.iter().map(|layer| here.snapshots.has(&layer.id)).collect();
    assert_eq!(known, [true, true, false]);
    let info = LayerInfo::default();
    assert!(here.snapshots.set_layer(&layers[2].id, None, &info).is_err());
}
