//! Hostile tars: as layers of an image (`load`), as a root file system (`import`), and as the source of `ADD`.

use crate::canary::Canary;
use crate::common::{Done, TestSpace, root_or_skip};
use crate::hostile::{Tar, config, docker_archive};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// What a layer's entrance makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It is harmless inside the root.
    Taken,
    /// The command fails and says this.
    Refused(&'static str),
}
use Answer::{Refused, Taken};

struct Attack {
    name: &'static str,
    layers: Vec<Vec<u8>>,
    /// As layers of an image.
    loaded: Answer,
    /// As an archive for ADD, whose names are plain: the last layer alone.
    added: Answer,
}

fn attack(name: &'static str, layers: Vec<Vec<u8>>, loaded: Answer, added: Answer) -> Attack {
    Attack { name, layers, loaded, added }
}

/// Names, links, metadata, whiteouts: all that tries to reach the canary.
fn reaching_out(canary: &Canary) -> Vec<Attack> {
    let (secret, outside, dotted) = (canary.path("secret"), canary.path(""), canary.dotted("secret"));
    let one = |tar: Tar| vec![tar.end()];
    let new = Tar::new;
    let link = || new().symlink("out", &outside);
    let up = || new().symlink("out", canary.dotted(""));
    let owned = "owned\n";
    vec![
        attack("an absolute name", one(new().file(&secret, owned)), Taken, Taken),
        attack("a name with dots", one(new().file(&dotted, owned)), Refused("leads out"), Taken),
        attack(
            "dots after a name",
            one(new().file(format!("a/b/{dotted}"), owned)),
            Refused("leads out"),
            Taken,
        ),
        attack(
            "a long PAX name with dots",
            one(new().pax("path", dotted.as_bytes()).file("a", owned)),
            Refused("leads out"),
            Taken,
        ),
        attack(
            "a write through a link",
            one(link().file("out/secret", owned).file("out/new", owned)),
            Taken,
            Refused("leads nowhere"),
        ),
        attack(
            "a write through a link with dots",
            one(up().file("out/secret", owned)),
            Taken,
            Refused("leads nowhere"),
        ),
        attack(
            "a write through a chain of links",
            one(new().symlink("a", "b/../c").dir("b").symlink("c", &outside).file("a/new", owned)),
            Taken,
            Refused("leads nowhere"),
        ),
        attack(
            "a directory through a link",
            one(link().dir("out/dir").dir("out/new").entry(b'5', "out", "", 0, b"")),
            Taken,
            Refused("leads nowhere"),
        ),
        attack(
            "a link of an earlier layer",
            vec![link().end(), new().file("out/secret", owned).file("out/new", owned).dir("out/d").end()],
            Taken,
            Taken,
        ),
        attack(
            "a directory that became a link",
            vec![
                new().dir("d").file("d/x", "x").end(),
                new().symlink("d", &outside).file("d/secret", owned).end(),
            ],
            Taken,
            Refused("leads nowhere"),
        ),
        attack("a file over a link", one(new().symlink("s", &secret).file("s", owned)), Taken, Taken),
        attack(
            "a link that changes",
            one(link().dir("out").symlink("out", &outside).file("out", owned)),
            Taken,
            Taken,
        ),
        attack(
            "a special file through a link",
            one(link().entry(b'6', "out/pipe", "", 0o666, b"")),
            Taken,
            Refused("leads nowhere"),
        ),
        attack(
            "a hard link to a file of the host",
            one(new().hardlink("h", &secret).file("h", owned)),
            Refused("does not exist"),
            Refused("does not exist"),
        ),
        attack(
            "a hard link with dots",
            one(new().hardlink("h", &dotted)),
            Refused("outside of the root"),
            Refused("outside of the root"),
        ),
        attack(
            "a hard link through a link",
            one(link().hardlink("h", "out/secret").file("h", owned)),
            Refused("does not exist"),
            Refused("leads nowhere"),
        ),
        attack(
            "a hard link to a link",
            one(new().symlink("s", &secret).hardlink("h", "s").file("h", owned)),
            Taken,
            Taken,
        ),
        attack(
            "a hard link to a link of an earlier layer",
            vec![new().symlink("s", &secret).end(), new().hardlink("h", "s").file("h", owned).end()],
            Refused("no regular file"),
            Refused("does not exist"),
        ),
        attack(
            "a hard link to a directory",
            one(new().dir("d").hardlink("h", "d")),
            Refused("directory"),
            Refused("directory"),
        ),
        attack("a hard link to itself", one(new().hardlink("h", "h")), Taken, Taken),
        attack(
            "metadata of a link",
            one(new()
                .pax("SCHILY.xattr.user.evil", b"1")
                .pax("mtime", b"1")
                .entry(b'2', "s", &secret, 0o4777, b"")),
            Taken,
            Taken,
        ),
        attack(
            "marks of overlayfs",
            one(new()
                .pax("SCHILY.xattr.trusted.overlay.redirect", canary.path("dir").as_bytes())
                .pax("SCHILY.xattr.user.overlay.redirect", canary.path("dir").as_bytes())
                .pax("SCHILY.xattr.user.overlay.opaque", b"y")
                .dir("d")),
            Taken,
            Taken,
        ),
        attack(
            "a root that is a link",
            one(new().symlink("./", &outside).file("secret", owned)),
            Refused("root must be"),
            Refused("root must be"),
        ),
        attack(
            "a root that is a file",
            one(new().file("/", owned)),
            Refused("root must be"),
            Refused("root must be"),
        ),
        attack(
            "a root that is a device",
            one(new().entry(b'3', ".", "", 0o666, b"")),
            Refused("root must be"),
            Refused("root must be"),
        ),
        attack("a closed root", one(new().entry(b'5', "./", "", 0, b"").file("a", "x")), Taken, Taken),
        attack("no name", one(new().file("", owned)), Refused("no name"), Refused("no name")),
        attack(
            "a whiteout of nothing",
            one(new().dir("d").file("d/.wh.", "")),
            Refused("names nothing"),
            Taken,
        ),
        attack(
            "a whiteout of itself",
            one(new().dir("d").file("d/.wh..", "")),
            Refused("names nothing"),
            Taken,
        ),
        attack(
            "a whiteout of what is above",
            one(new().dir("d").file("d/.wh...", "")),
            Refused("names nothing"),
            Taken,
        ),
        attack(
            "a whiteout above the root",
            one(new().file(canary.dotted(".wh.secret"), "")),
            Refused("leads out"),
            Taken,
        ),
        attack(
            "a whiteout through a link",
            one(link().file("out/.wh.secret", "")),
            Taken,
            Refused("leads nowhere"),
        ),
        attack(
            "a whiteout through a link below",
            vec![link().end(), new().file("out/.wh.secret", "").end()],
            Taken,
            Taken,
        ),
        attack(
            "an opaque mark through a link",
            one(link().file("out/.wh..wh..opq", "")),
            Taken,
            Refused("leads nowhere"),
        ),
        attack(
            "an opaque mark above the root",
            one(new().file(canary.dotted(".wh..wh..opq"), "")),
            Refused("leads out"),
            Taken,
        ),
        attack(
            "a whiteout that holds something",
            one(new().dir(".wh.d").file(".wh.d/x", owned)),
            Refused("hold anything"),
            Taken,
        ),
        attack(
            "an opaque root",
            vec![new().file("a", "x").end(), new().file(".wh..wh..opq", "").end()],
            Taken,
            Taken,
        ),
    ]
}

/// Fields that lie, and names that are hard to bear.
fn malformed() -> Vec<Attack> {
    let one = |tar: Tar| vec![tar.end()];
    let cut = |tar: Tar| vec![tar.unfinished()];
    let new = Tar::new;
    let sized = |size: &[u8]| new().raw_header(b'0', b"f", b"", 0o644, size);
    let negative = [0xff; 12];
    let enormous = [&[0x80][..], &[0x7f; 11]].concat();
    let same = |name, layers, answer| attack(name, layers, answer, answer);
    let deep = "d/".repeat(2040);
    let mut wrong_sum = new().file("f", "x").end();
    wrong_sum[0] ^= 1;
    vec![
        same("a negative size", one(sized(&negative)), Refused("negative")),
        same("a size beyond counting", one(sized(&enormous)), Refused("size is")),
        same(
            "a size of 8 GiB that is not there",
            cut(sized(b"77777777777\0").body(b"x")),
            Refused("cut off"),
        ),
        same("a size that is no number", one(sized(b"12x45678901\0")), Refused("size")),
        same(
            "a PAX size beyond counting",
            one(new().pax("size", b"18446744073709551615").file("f", "x")),
            Refused("size"),
        ),
        same("a negative PAX size", one(new().pax("size", b"-1").file("f", "x")), Refused("PAX number")),
        same("a body that is cut off", cut(sized(b"00000000010\0")), Refused("cut off")),
        same("a GNU sparse file", one(new().entry(b'S', "f", "", 0o644, b"")), Refused("sparse")),
        same(
            "a PAX sparse file",
            one(new()
                .pax("GNU.sparse.major", b"1")
                .pax("GNU.sparse.realsize", b"99999999999999")
                .file("f", "x")),
            Refused("sparse"),
        ),
        same(
            "a long name of 1 GiB",
            cut(new().raw_header(b'L', b"l", b"", 0, b"10000000000\0").body(b"x")),
            Refused("extended header claims"),
        ),
        same(
            "a PAX header of 1 GiB",
            cut(new().raw_header(b'x', b"x", b"", 0, b"10000000000\0").body(b"x")),
            Refused("extended header claims"),
        ),
        same(
            "a global PAX header of 1 GiB",
            cut(new().raw_header(b'g', b"g", b"", 0, b"10000000000\0").body(b"x")),
            Refused("extended header claims"),
        ),
        same(
            "a PAX record of no length",
            one(new().entry(b'x', "x", "", 0, b"0 path=x\n").file("f", "x")),
            Refused("malformed"),
        ),
        same(
            "a PAX record that is too long",
            one(new().entry(b'x', "x", "", 0, b"99999 path=x\n").file("f", "x")),
            Refused("malformed"),
        ),
        same("a PAX name with a NUL", one(new().pax("path", b"a\0b").file("f", "x")), Refused("NUL")),
        same(
            "a PAX name that is too long",
            one(new().pax("path", &[b'a'; 5000]).file("f", "x")),
            Refused("4096"),
        ),
        same(
            "a PAX link that is too long",
            one(new().pax("linkpath", &[b'a'; 5000]).symlink("f", "x")),
            Refused("4096"),
        ),
        same(
            "a long name alone",
            cut(new().raw_header(b'L', b"l", b"", 0, b"00000000002\0").body(b"a\0")),
            Refused("belongs to no entry"),
        ),
        same("a wrong checksum", vec![wrong_sum], Refused("checksum")),
        same("an unknown type", one(new().entry(b'Z', "f", "", 0o644, b"")), Refused("type")),
        same("a component that is too long", one(new().file("n".repeat(256), "x")), Refused("too long")),
        same("a file below a file", one(new().file("f", "x").file("f/g", "x")), Refused("not a directory")),
        same(
            "links in a circle",
            one(new().symlink("a", "b").symlink("b", "a").file("a/x", "x")),
            Refused("too many"),
        ),
        same("two thousand directories in each other", one(new().file(format!("{deep}f"), "x")), Taken),
        same(
            "odd names",
            one(new()
                .file("new\nline", "x")
                .file(b"\xff\xfe", "x")
                .file("-rf", "x")
                .file("--", "x")
                .file("\x1b]0;owned\x07", "x")
                .file("n".repeat(255), "x")
                .file("a,b:c\\d=e\"f'$(g)`h`", "x")),
            Taken,
        ),
        same(
            "devices and rights",
            one(new().entry(b'3', "mem", "", 0o666, b"").entry(b'4', "disk", "", 0o666, b"").entry(
                b'0',
                "root-shell",
                "",
                0o6755,
                b"x",
            )),
            Taken,
        ),
    ]
}

/// Whether the answer is the wanted one, and the canary well; says whether the attack was taken.
#[track_caller]
fn check(canary: &Canary, what: &str, done: &Done, answer: Answer) -> bool {
    assert!(!done.stderr.contains("panicked"), "{what}\n{done}");
    match answer {
        Taken => assert!(done.status.success(), "{what}\n{done}"),
        Refused(word) => {
            assert_eq!(done.status.code(), Some(1), "{what} was taken\n{done}");
            assert!(done.stderr.contains(word), "{what}: no {word:?}\n{done}");
        }
    }
    canary.assert_untouched(what);
    answer == Taken
}

/// Writes the image's tree into a directory, where links of the image may not lead out either. The second time the links
/// of the first are there.
fn export(space: &TestSpace, canary: &Canary, what: &str, times: usize) {
    let context = space.dockerfile("FROM evil:1\n");
    let dest = format!("type=local,dest={}", space.path("out").display());
    for _ in 0..times {
        let done = space.build(&context, &["-o", &dest]);
        canary.assert_untouched(&format!("the export of {what}\n{done}"));
    }
    let _ = fs::remove_dir_all(space.path("out"));
}

/// Loads images with these layers; of those that are taken some are written out, too.
fn load_all(space: &TestSpace, attacks: impl Fn(&Canary) -> Vec<Attack>) {
    let canary = Canary::plant(space);
    for Attack { name, layers, loaded, .. } in attacks(&canary) {
        let archive = space.write("evil.tar", docker_archive(&config(&layers), &layers));
        let done = space.rbuild(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]);
        let taken = check(&canary, name, &done, loaded);
        // where the tree holds links or special files
        if taken && ["link", "device"].iter().any(|word| name.contains(word)) {
            export(space, &canary, name, if name.contains("write") { 2 } else { 1 });
        }
    }
    // What was refused left nothing but the base, and what was taken can be thrown away.
    space.rbuild(["rmi", "-f", "evil:1"]);
    space.rbuild(["system", "prune", "-a", "-f"]).ok();
    let left = fs::read_dir(space.store().join("snapshots")).unwrap().count();
    assert!(left <= 1, "{left} snapshots are left");
    assert_eq!(fs::read_dir(space.store().join("tmp")).unwrap().count(), 0);
    canary.assert_untouched("everything was removed");
}

#[test]
fn layers_that_reach_out_reach_nothing() {
    load_all(&TestSpace::new(), reaching_out);
}

#[test]
fn layers_that_reach_out_reach_nothing_of_an_ordinary_user() {
    let Some(space) = TestSpace::rootless() else { return };
    // the extractor is the same: every third attack shows that nothing around it differs
    load_all(&space, |canary| reaching_out(canary).into_iter().step_by(3).collect());
}

#[test]
fn malformed_layers_are_refused_or_harmless() {
    load_all(&TestSpace::new(), |_| malformed());
}

#[test]
fn archives_that_are_added_reach_nothing() {
    let space = TestSpace::new();
    let canary = Canary::plant(&space);
    // the fields of headers are read by the same code as a layer's
    let more =
        malformed().into_iter().filter(|attack| attack.added == Taken || attack.name.contains("PAX size"));
    for Attack { name, layers, added, .. } in reaching_out(&canary).into_iter().chain(more) {
        let mut tar = layers.last().unwrap().clone();
        // What does not look like an archive is copied as a file; a good entry first makes it look like one.
        tar.splice(0..0, Tar::new().file("first", "").unfinished());
        space.write("ctx/evil.tar", tar);
        let context = space.dockerfile("FROM scratch\nADD evil.tar /sub/dir/\n");
        let done = space.build(&context, &["-t", "evil:1"]);
        check(&canary, &format!("ADD of {name}"), &done, added);
    }
}

#[test]
fn imported_trees_reach_nothing() {
    let space = TestSpace::new();
    let canary = Canary::plant(&space);
    for Attack { name, layers, .. } in reaching_out(&canary) {
        // One tar with the entries of all layers.
        let mut tar = Vec::new();
        for layer in &layers {
            tar.extend(&layer[..layer.len() - 1024]);
        }
        tar.extend([0; 1024]);
        let archive = space.write("evil.tar", tar);
        let done = space.rbuild(["import".as_ref(), archive.as_os_str(), "evil:1".as_ref()]);
        assert!(matches!(done.status.code(), Some(0 | 1)), "{name}\n{done}");
        assert!(!done.stderr.contains("panicked"), "{name}\n{done}");
        canary.assert_untouched(&format!("import of {name}"));
    }
}

/// Setuid programs of images lie in the store: nobody else may come near them.
#[test]
fn other_users_cannot_enter_the_store() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new();
    let layers = [Tar::new().entry(b'0', "root-shell", "", 0o6755, b"x").end()];
    let archive = space.write("evil.tar", docker_archive(&config(&layers), &layers));
    // also where the directory was there before and stood open
    let store = space.mkdir("store");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o777)).unwrap();
    space.rbuild(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]).ok();
    let mode = fs::metadata(&store).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode & 0o077, 0, "the store has mode {mode:o}");
}
