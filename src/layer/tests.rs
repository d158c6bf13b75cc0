//! The round trip: a real tree, its diff, its tar, and back; with GNU tar on either side.

use super::*;
use crate::digest::{DiffId, Digest};
use crate::sys::fsutil;
use crate::tree::{Diff, Entry, Node};
use proptest::prelude::*;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn scan_all(dir: &Path) -> Diff {
    scan(dir, &ScanOptions { userxattr: false, skip: &HashSet::new() }).unwrap()
}

fn tar_of(dir: &Path, diff: &Diff, epoch: Option<i64>) -> Vec<u8> {
    let root = fsutil::open_dir(dir).unwrap();
    let open = |path: &TreePath| fsutil::open_regular(root.as_fd(), path.as_os_str());
    let mut out = Vec::new();
    write_tar(diff, &open, epoch, &mut out).unwrap();
    let (id, size) = diff_id(diff, &open, epoch).unwrap();
    assert_eq!((id, size), (DiffId(Digest::sha256_of(&out)), out.len() as u64));
    out
}

fn unpack_to(dir: &Path, tar: &[u8]) -> Diff {
    std::fs::create_dir(dir).unwrap();
    let opts = UnpackOptions { chown_ok: is_root(), ..UnpackOptions::default() };
    unpack(&mut Cursor::new(tar), dir, &opts).unwrap()
}

/// What a tar can hold of the times.
fn whole_seconds(diff: &Diff) -> Diff {
    let cut = |entry: &Entry| {
        let mut entry = entry.clone();
        entry.meta.mtime.nanos = 0;
        entry
    };
    Diff::new(diff.entries().map(|e| cut(&e)).collect())
}

#[derive(Debug, Clone)]
enum Make {
    File { size: usize, hole: bool, mode: u32, xattr: bool },
    Dir { mode: u32, opaque: bool },
    Symlink(Vec<u8>),
    Hardlink(usize),
    Fifo,
    Device { block: bool, major: u32, minor: u32 },
    Whiteout,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => proptest::sample::select(vec![b"a".to_vec(), b"b".to_vec(), b"a-b".to_vec(), b"c.d".to_vec()]),
        1 => Just("ümlaut".as_bytes().to_vec()),
        1 => Just(b"not\xff utf8\n".to_vec()),
        1 => Just(b"-rf".to_vec()),
        1 => (90usize..255).prop_map(|len| vec![b'n'; len]),
    ]
}

fn make() -> impl Strategy<Value = Make> {
    let mode = proptest::sample::select(vec![0o644u32, 0o755, 0o4755, 0o1777, 0o600, 0o2750]);
    let size = prop_oneof![Just(0usize), 1usize..2000, Just(512), 260_000usize..300_000];
    prop_oneof![
        4 => (size, any::<bool>(), mode.clone(), any::<bool>())
            .prop_map(|(size, hole, mode, xattr)| Make::File { size, hole, mode, xattr }),
        3 => (mode, any::<bool>()).prop_map(|(mode, opaque)| Make::Dir { mode: mode | 0o700, opaque }),
        1 => proptest::collection::vec(1u8..=255, 1..300).prop_map(Make::Symlink),
        2 => (0usize..20).prop_map(Make::Hardlink),
        1 => Just(Make::Fifo),
        1 => (any::<bool>(), 0u32..4000, 1u32..(1 << 20))
            .prop_map(|(block, major, minor)| Make::Device { block, major, minor }),
        1 => Just(Make::Whiteout),
    ]
}

/// Makes what can be made; a path whose parent is no directory is left out.
fn build(root: &Path, makes: &[(Vec<Vec<u8>>, Make)]) {
    let mut files: Vec<std::path::PathBuf> = Vec::new();
    for (parts, make) in makes {
        let mut path = root.to_owned();
        for part in &parts[..parts.len() - 1] {
            path.push(OsStr::from_bytes(part));
            let _ = std::fs::create_dir(&path);
        }
        let Ok(dir) = fsutil::open_dir(&path) else { continue };
        let name = OsStr::from_bytes(&parts[parts.len() - 1]);
        let path = path.join(name);
        if path.symlink_metadata().is_ok() {
            continue;
        }
        let chmod = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        match make {
            Make::File { size, hole, mode, xattr } => {
                let mut file = File::create(&path).unwrap();
                if *hole {
                    file.set_len(*size as u64).unwrap();
                    let _ = file.write_at(b"x", (*size as u64).saturating_sub(1));
                } else {
                    file.write_all(&vec![b'c'; *size]).unwrap();
                }
                if *xattr {
                    let _ = fsutil::set_xattr(file.as_fd(), OsStr::new("user.test"), b"a=\0\n");
                }
                chmod(*mode);
                files.push(path);
            }
            Make::Dir { mode, opaque } => {
                std::fs::create_dir(&path).unwrap();
                if *opaque && is_root() {
                    whiteout::mark_opaque(fsutil::open_dir(&path).unwrap().as_fd(), false).unwrap();
                }
                chmod(*mode);
            }
            Make::Symlink(to) => std::os::unix::fs::symlink(OsStr::from_bytes(to), &path).unwrap(),
            Make::Hardlink(at) => drop(files.get(*at).map(|file| std::fs::hard_link(file, &path))),
            Make::Fifo => {
                let mode = rustix::fs::Mode::from_raw_mode(0o640);
                rustix::fs::mknodat(&dir, name, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            }
            Make::Device { block, major, minor } if is_root() => {
                use rustix::fs::FileType::{BlockDevice, CharacterDevice};
                let kind = if *block { BlockDevice } else { CharacterDevice };
                crate::sys::file::mknod_at(&dir, name, kind, 0o660, *major, *minor).unwrap();
            }
            Make::Whiteout if is_root() => whiteout::make_whiteout(dir.as_fd(), name).unwrap(),
            Make::Device { .. } | Make::Whiteout => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn tree_to_tar_to_tree(
        makes in proptest::collection::vec((proptest::collection::vec(name(), 1..4), make()), 0..16)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        build(&from, &makes);
        let diff = scan_all(&from);
        let tar = tar_of(&from, &diff, None);
        let unpacked = unpack_to(&to, &tar);
        prop_assert_eq!(&unpacked, &whole_seconds(&diff));
        prop_assert_eq!(&scan_all(&to), &unpacked);
        prop_assert_eq!(tar_of(&to, &unpacked, None), tar, "the same diff gives the same bytes");
        prop_assert_eq!(Diff::decode(diff.encode()).unwrap(), diff);
    }

    #[test]
    fn any_bytes_are_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), fix in any::<bool>()) {
        if fix && bytes.len() >= 512 {
            // a right checksum leads the reader further in
            bytes[148..156].fill(b' ');
            let sum: u32 = bytes[..512].iter().map(|b| u32::from(*b)).sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { bytes: 1 << 20, entries: 100 };
        let _ = unpack(&mut Cursor::new(&bytes), dir.path(), &UnpackOptions { limits, ..UnpackOptions::default() });
    }
}

/// A tree with what layers stumble over, without overlayfs's marks.
fn tricky(root: &Path) {
    let long = vec![b'l'; 200];
    let part = |names: &[&[u8]]| names.iter().map(|n| n.to_vec()).collect::<Vec<_>>();
    let file = |size, mode| Make::File { size, hole: false, mode, xattr: false };
    let mut makes = vec![
        (part(&[b"a"]), file(10, 0o4755)),
        (part(&[b"dir", b"b"]), Make::Hardlink(0)),
        (part(&[b"a-b"]), file(0, 0o644)),
        (part(&[&long, &long, b"deep"]), file(700, 0o600)),
        (part(&["ümlaut".as_bytes()]), Make::Symlink(vec![b't'; 150])),
        (part(&[b"odd\xff\n"]), file(1, 0o644)),
        (part(&[b"pipe"]), Make::Fifo),
        (part(&[b"sticky"]), Make::Dir { mode: 0o1777, opaque: false }),
        (part(&[b"sparse"]), Make::File { size: 5 << 20, hole: true, mode: 0o644, xattr: true }),
        (part(&[b"null"]), Make::Device { block: false, major: 1, minor: 3 }),
        (part(&[b"disk"]), Make::Device { block: true, major: 259, minor: 70_000 }),
    ];
    makes.push((part(&[&[b'x'; 100], &[b'y'; 98], b"z"]), file(3, 0o644)));
    build(root, &makes);
    if is_root() {
        std::os::unix::fs::chown(root.join("a"), Some(70_000), Some(3_000_000)).unwrap();
        std::fs::set_permissions(root.join("a"), PermissionsExt::from_mode(0o4755)).unwrap();
    }
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(100_000_000_000);
    File::open(root.join("a-b")).unwrap().set_modified(old).unwrap();
}

fn gnu_tar(args: &[&str], dir: &Path, input: &[u8]) -> Option<Vec<u8>> {
    let mut child = match Command::new("tar")
        .arg("-C")
        .arg(dir)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(e) => {
            eprintln!("skipped: GNU tar cannot be run: {e}");
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let out = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(out.status.success(), "tar {args:?}");
    Some(out.stdout)
}

#[test]
fn gnu_tar_reads_what_we_write() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    std::fs::create_dir(&to).unwrap();
    tricky(&from);
    let diff = scan_all(&from);
    let tar = tar_of(&from, &diff, None);
    let args = ["--extract", "--preserve-permissions", "--numeric-owner", "--xattrs", "--xattrs-include=*"];
    if gnu_tar(&args, &to, &tar).is_none() {
        return;
    }
    let theirs = scan_all(&to);
    assert_eq!(whole_seconds(&theirs), whole_seconds(&diff));
    let list = gnu_tar(&["--list", "--quoting-style=escape"], &to, &tar).unwrap();
    assert_eq!(list.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count(), diff.entries().len());
}

#[test]
fn we_read_what_gnu_tar_writes() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    std::fs::create_dir(&from).unwrap();
    tricky(&from);
    let diff = scan_all(&from);
    for (format, xattrs) in [("gnu", false), ("posix", true)] {
        let format_arg = format!("--format={format}");
        let mut args = vec!["--create", &format_arg, "--numeric-owner"];
        if xattrs {
            args.extend(["--xattrs", "--xattrs-include=*"]);
        }
        let create: Vec<&str> = args.iter().copied().chain(["--file=-"]).collect();
        let Some(tar) = gnu_tar(&[&create[..], &["."]].concat(), &from, b"") else {
            return;
        };
        let unpacked = unpack_to(&dir.path().join(format), &tar);
        let plain = |diff: &Diff| {
            let strip = |entry: &Entry| {
                let mut entry = entry.clone();
                if !xattrs {
                    entry.meta.xattrs.clear();
                }
                entry
            };
            whole_seconds(&Diff::new(diff.entries().map(|e| strip(&e)).collect()))
        };
        assert_eq!(plain(&unpacked), plain(&diff), "{format}");
    }
}

#[test]
fn times_are_lowered_and_never_raised() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("old"), "").unwrap();
    std::fs::write(dir.path().join("new"), "").unwrap();
    let set = |name: &str, secs| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
        File::open(dir.path().join(name)).unwrap().set_modified(time).unwrap();
    };
    set("old", 50);
    set("new", 5000);
    let tar = tar_of(dir.path(), &scan_all(dir.path()), Some(100));
    let clamped = unpack_to(&dir.path().join("to"), &tar);
    let secs: Vec<i64> = clamped.entries().map(|e| e.meta.mtime.secs).collect();
    assert_eq!(secs, [100, 50]);
}

#[test]
fn sockets_and_stubs_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    std::fs::create_dir_all(root.join("run/secrets")).unwrap();
    std::fs::write(root.join("run/secrets/token"), "").unwrap();
    std::fs::write(root.join("empty"), "").unwrap();
    std::fs::write(root.join("filled"), "x").unwrap();
    let skip =
        ["run", "run/secrets", "run/secrets/token", "filled"].map(|p| TreePath::clean(p.as_bytes())).into();
    let diff = scan(root, &ScanOptions { userxattr: false, skip: &skip }).unwrap();
    let paths: Vec<_> = diff.entries().map(|e| e.path.to_string()).collect();
    assert_eq!(paths, ["/empty", "/filled"]);
}

#[test]
fn a_changed_file_is_noticed_while_the_tar_is_written() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "12345").unwrap();
    let diff = scan_all(dir.path());
    for text in ["1234", "123456"] {
        std::fs::write(dir.path().join("f"), text).unwrap();
        let open = |_: &TreePath| File::open(dir.path().join("f"));
        let error = write_tar(&diff, &open, None, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, LayerError::Changed { .. }), "{error}");
    }
}

#[test]
fn markers_have_the_names_of_the_spec() {
    let entry =
        |path: &str, node| Entry { path: TreePath::clean(path.as_bytes()), meta: Default::default(), node };
    let diff = Diff::new(vec![
        entry("a", Node::Dir { opaque: true }),
        entry("a/gone", Node::Whiteout),
        entry("b", Node::Whiteout),
    ]);
    let mut tar = Vec::new();
    write_tar(&diff, &|_| Err(std::io::ErrorKind::NotFound.into()), None, &mut tar).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|e| String::from_utf8(e.unwrap().path_bytes().into_owned()).unwrap())
        .collect();
    assert_eq!(names, ["a/", "a/.wh..wh..opq", "a/.wh.gone", ".wh.b"]);
}

#[test]
fn a_tree_deeper_than_the_descriptors_is_no_problem() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let path = root.join(["d"; 1500].join("/"));
    std::fs::create_dir_all(&path).unwrap();
    let diff = scan_all(&root);
    assert_eq!(diff.entries().len(), 1500);
    let tar = tar_of(&root, &diff, None);
    assert_eq!(unpack_to(&dir.path().join("to"), &tar), whole_seconds(&diff));
    fsutil::remove_tree(&root).unwrap();
    assert!(!root.exists());
}

#[test]
fn every_compression_comes_back_and_damage_is_noticed() {
    let text: Vec<u8> = (0..400_000u32).map(|n| (n / 7) as u8).collect();
    let write = |how| {
        let mut out = encoder(Vec::new(), how).unwrap();
        out.write_all(&text).unwrap();
        out.finish().unwrap()
    };
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&text).unwrap();
    let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bz.write_all(&text).unwrap();
    let all = [
        (Format::Plain, write(Compression::None)),
        (Format::Gzip, write(Compression::Gzip(6))),
        (Format::Zstd, write(Compression::Zstd(3))),
        (Format::Xz, xz.finish().unwrap()),
        (Format::Bzip2, bz.finish().unwrap()),
    ];
    let read = |bytes: &[u8]| {
        let mut out = Vec::new();
        let bytes = bytes.to_vec();
        decoder(Box::new(Cursor::new(bytes)))?.read_to_end(&mut out).map(|_| out)
    };
    for (format, bytes) in &all {
        assert_eq!(Format::of(bytes), *format);
        assert_eq!(read(bytes).unwrap(), text, "{format:?}");
        if *format == Format::Plain {
            continue;
        }
        assert_eq!(read(&[&bytes[..], bytes].concat()).unwrap().len(), 2 * text.len(), "{format:?} twice");
        assert!(read(&bytes[..bytes.len() - 3]).is_err(), "{format:?} cut off");
        let mut bad = bytes.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 0x55;
        assert_ne!(read(&bad).ok().as_deref(), Some(&text[..]), "{format:?} damaged");
    }
    assert_eq!(write(Compression::Gzip(6)), write(Compression::Gzip(6)));
    assert_eq!(write(Compression::Gzip(6))[3..10], [0, 0, 0, 0, 0, 0, 255], "neither name, time nor system");
}
