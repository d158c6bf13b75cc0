use super::*;
use crate::digest::ContentId;
use crate::tree::Meta;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

struct Space {
    dir: tempfile::TempDir,
    store: Store,
}

fn space() -> Space {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("deep/store")).unwrap();
    Space { dir, store }
}

#[test]
fn opening_makes_a_closed_directory_twice() {
    let s = space();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(s.store.root()), 0o700);
    for dir in LAYOUT {
        assert!(s.store.root().join(dir).is_dir(), "{dir}");
    }
    std::fs::set_permissions(s.store.root(), PermissionsExt::from_mode(0o755)).unwrap();
    let again = Store::open(s.store.root()).unwrap();
    assert_eq!(mode(again.root()), 0o700);
    std::fs::write(s.dir.path().join("file"), "").unwrap();
    assert!(Store::open(&s.dir.path().join("file")).is_err());
}

#[test]
fn files_are_replaced_in_one_step() {
    let s = space();
    let store = &s.store;
    store.write_atomic("builds/one/log", b"first", false).unwrap();
    store.write_atomic("builds/one/log", b"second", true).unwrap();
    assert_eq!(store.read("builds/one/log", 6).unwrap().unwrap(), b"second");
    assert!(matches!(store.read("builds/one/log", 5), Err(StoreError::TooLarge { limit: 5, .. })));
    assert_eq!(store.read("builds/two", 5).unwrap(), None);
    assert_eq!(store.read("builds/one/log/below", 5).unwrap(), None);
    assert_eq!(std::fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    for bad in ["", "/etc/passwd", "../out", "builds/../../out", "builds//x", "builds/./x", "a\0b"] {
        assert!(matches!(store.write_atomic(bad, b"", false), Err(StoreError::Name(_))), "{bad:?}");
        assert!(matches!(store.read(bad, 1), Err(StoreError::Name(_))), "{bad:?}");
    }
}

#[test]
fn the_leftovers_of_the_dead_are_swept_and_those_of_the_living_stay() {
    let s = space();
    let store = &s.store;
    let tmp = store.root().join("tmp");
    std::fs::create_dir_all(tmp.join("step-dead/snapshot/fs/usr")).unwrap();
    std::fs::write(tmp.join("step-dead/snapshot/fs/usr/file"), "x").unwrap();
    std::fs::write(tmp.join("file-dead"), "x").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tmp.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let alive = store.temp_dir("alive").unwrap();
    std::fs::write(alive.path().join("f"), "x").unwrap();
    let writer = store.blobs().writer().unwrap();
    let again = Store::open(store.root()).unwrap();
    let left: Vec<_> = std::fs::read_dir(&tmp).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(alive.path().join("f").exists());
    drop((alive, writer, again));
    assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 0);
}

#[test]
fn locks_exclude_and_end() {
    let s = space();
    let store = &s.store;
    let shared = store.lock("a", LockKind::Shared).unwrap();
    assert!(store.try_lock("a", LockKind::Shared).unwrap().is_some());
    assert!(store.try_lock("a", LockKind::Exclusive).unwrap().is_none());
    drop(shared);
    let alone = store.lock("a", LockKind::Exclusive).unwrap();
    assert!(store.try_lock("a", LockKind::Shared).unwrap().is_none());
    assert!(store.try_lock("b", LockKind::Exclusive).unwrap().is_some());
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| store.lock("a", LockKind::Exclusive).map(drop));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!waits.is_finished());
        drop(alone);
        waits.join().unwrap().unwrap();
    });
    for bad in ["", ".hidden", "a/b", "..", "x\0"] {
        assert!(store.lock(bad, LockKind::Shared).is_err(), "{bad:?}");
    }
}

#[test]
fn blobs_are_what_their_names_say() {
    let s = space();
    let store = &s.store;
    let blobs = store.blobs();
    let digest = blobs.put(b"text", false).unwrap();
    assert_eq!(blobs.put(b"text", true).unwrap(), digest);
    assert!(blobs.has(&digest));
    assert_eq!((blobs.size(&digest).unwrap(), blobs.read(&digest, 4).unwrap()), (4, b"text".to_vec()));
    assert_eq!(blobs.list().unwrap(), std::slice::from_ref(&digest));
    let other = Digest::sha256_of(b"other");
    assert!(matches!(blobs.open(&other), Err(StoreError::NoBlob(_))));
    let write = |expected: Option<(&Digest, u64)>| {
        let mut writer = blobs.writer().unwrap();
        writer.write_all(b"other").unwrap();
        writer.finish(expected)
    };
    assert!(matches!(write(Some((&digest, 5))), Err(StoreError::Digest { .. })));
    assert!(matches!(write(Some((&other, 4))), Err(StoreError::Size { found: 5, .. })));
    assert!(!blobs.has(&other));
    assert_eq!(write(Some((&other, 5))).unwrap(), other);
    std::fs::write(blobs.path(&other), "OTHER").unwrap();
    assert!(matches!(blobs.read(&other, 5), Err(StoreError::Digest { .. })));
    blobs.remove(&other).unwrap();
    blobs.remove(&other).unwrap();
    assert!(!blobs.has(&other));
    assert_eq!(std::fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_body_is_shared_between_snapshots_and_not_within_one() {
    let s = space();
    let store = &s.store;
    let temp = store.temp_dir("bodies").unwrap();
    let dir = fsutil::open_dir(temp.path()).unwrap();
    let me = temp.path().metadata().unwrap();
    let meta = Meta { mode: 0o640, uid: me.uid(), gid: me.gid(), ..Meta::default() };
    let id: ContentId = blake3::hash(b"text").into();
    let make = |bodies: &Bodies, meta: &Meta, name: &str| {
        let from = BodySource::Bytes(b"text");
        bodies.link_or_insert(&id, 4, meta, from, dir.as_fd(), OsStr::new(name)).unwrap()
    };
    let inode = |name: &str| temp.path().join(name).metadata().unwrap().ino();
    let first = store.bodies();
    assert_eq!(make(&first, &meta, "a"), BodyOutcome::Inserted);
    assert_eq!(make(&first, &meta, "b"), BodyOutcome::Copied);
    let second = store.bodies();
    assert_eq!(make(&second, &meta, "c"), BodyOutcome::Linked);
    assert_eq!(inode("a"), inode("c"));
    assert_ne!(inode("a"), inode("b"));
    let newer = Meta { mtime: crate::tree::Mtime { secs: 9, nanos: 1 }, ..meta.clone() };
    assert_eq!(make(&second, &newer, "d"), BodyOutcome::Inserted);
    let d = temp.path().join("d").metadata().unwrap();
    assert_eq!((d.mtime(), d.mtime_nsec(), d.mode() & 0o7777), (9, 1, 0o640));
    // a body that a power cut has cut off is not used
    std::fs::File::options().write(true).open(temp.path().join("a")).unwrap().set_len(0).unwrap();
    assert_eq!(make(&store.bodies(), &meta, "e"), BodyOutcome::Inserted);
    assert_eq!(std::fs::read(temp.path().join("e")).unwrap(), b"text");
    // what exists is never overwritten, nor removed
    let taken = store.bodies().link_or_insert(
        &id,
        4,
        &meta,
        BodySource::Bytes(b"text"),
        dir.as_fd(),
        OsStr::new("e"),
    );
    assert!(taken.is_err() && temp.path().join("e").exists());
    let freed = store.bodies().prune().unwrap();
    assert_eq!(freed, 0);
    drop(temp);
    assert!(store.bodies().prune().unwrap() > 0);
}

#[test]
fn an_open_file_is_a_source_wherever_it_stands() {
    let s = space();
    let store = &s.store;
    let temp = store.temp_dir("bodies").unwrap();
    let dir = fsutil::open_dir(temp.path()).unwrap();
    std::fs::write(temp.path().join("from"), "text").unwrap();
    let mut from = File::open(temp.path().join("from")).unwrap();
    std::io::Read::read_exact(&mut from, &mut [0; 2]).unwrap();
    let me = temp.path().metadata().unwrap();
    let meta = Meta { mode: 0o600, uid: me.uid(), gid: me.gid(), ..Meta::default() };
    let id = blake3::hash(b"text").into();
    let made =
        store.bodies().link_or_insert(&id, 4, &meta, BodySource::File(&from), dir.as_fd(), OsStr::new("to"));
    assert_eq!(made.unwrap(), BodyOutcome::Inserted);
    assert_eq!(std::fs::read(temp.path().join("to")).unwrap(), b"text");
}
