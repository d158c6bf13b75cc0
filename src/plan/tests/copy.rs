//! COPY and ADD.

use super::*;

fn copy(lines: &str) -> CopyOp {
    planned(&format!("FROM busybox AS other\nFROM busybox\nWORKDIR /w\n{lines}")).copies()[0].clone()
}

fn paths(op: &CopyOp) -> Vec<&str> {
    let text = |source| match source {
        &CopySource::Path(ref text) | &CopySource::Url(ref text) | &CopySource::Git(ref text) => {
            text.as_str()
        }
        CopySource::Inline { name, .. } => name.as_str(),
    };
    op.sources.iter().map(text).collect()
}

#[test]
fn destinations_join_the_working_directory() {
    for (line, want) in [
        ("COPY a b", "/w/b"),
        ("COPY a b/", "/w/b/"),
        ("COPY a .", "/w/"),
        ("COPY a ./x/../y", "/w/y"),
        ("COPY a /abs", "/abs"),
        ("COPY a /", "/"),
        ("COPY a \"$UNSET\"", "/w/"),
        ("COPY [\"a b\", \"c d/\"]", "/w/c d/"),
    ] {
        assert_eq!(copy(line).dest, want, "{line}");
    }
}

#[test]
fn words_and_some_flags_expand() {
    let op = copy("ENV A=a M=u=rw,go=r O=3:4\nCOPY --chown=$O --chmod=$M --exclude=$A ${A}1 $A/*.c ./$A/\n");
    assert_eq!((paths(&op), op.dest.as_str()), (vec!["a1", "a/*.c"], "/w/a/"));
    assert_eq!((op.chown.as_deref(), op.chmod.as_deref()), (Some("3:4"), Some("u=rw,go=r")));
    assert_eq!(op.exclude, ["$A"]);
    assert_eq!(copy("COPY --chown=$NOPE a b").chown, None);
}

#[test]
fn sources_come_from_the_context_a_stage_an_image_or_nothing() {
    let from = |line: &str| copy(line).from;
    assert_eq!(from("COPY a b"), From::Context(String::new()));
    assert_eq!(from("COPY --from=other a b"), From::Vertex);
    assert_eq!(from("COPY --from=OTHER a b"), From::Vertex);
    assert_eq!(from("COPY --from=0 a b"), From::Vertex);
    assert_eq!(from("COPY --from=debian a b"), From::Vertex);
    assert_eq!(from("COPY --from=scratch a b"), From::Empty);
    assert_eq!(from("ADD https://h/x /y"), From::Empty);
    assert_eq!(from("ADD https://h/x local /y/"), From::Context(String::new()));
    assert_eq!(from("COPY <<E /y\nbody\nE\n"), From::Empty);
}

#[test]
fn heredocs_expand_unless_quoted_and_come_last() {
    let op = copy("ENV V=v\nCOPY <<A <<-\"B\" f /d/\n$V 'q' \\$V\nA\n\t$V\nB\n");
    let inline =
        |name: &str, content: &str| CopySource::Inline { name: name.into(), content: content.into() };
    assert_eq!(op.sources, [CopySource::Path("f".into()), inline("A", "v 'q' $V\n"), inline("B", "$V\n")]);
    assert_eq!(op.from, From::Context(String::new()));
}

#[test]
fn add_knows_urls_and_repositories() {
    let sum = Digest::sha256_of(b"x");
    let op = copy(&format!("ENV S={sum}\nADD --checksum=$S --unpack=true https://h/x.tar /d/"));
    assert_eq!(op.sources, [CopySource::Url("https://h/x.tar".into())]);
    assert_eq!((op.is_add, op.unpack, op.checksum.as_deref()), (true, Some(true), Some(sum.as_str())));
    let op = copy("ADD --keep-git-dir https://h/r.git#main:sub /d");
    assert_eq!(op.sources, [CopySource::Git("https://h/r.git#main:sub".into())]);
    assert!(op.keep_git_dir);
}

#[test]
fn link_is_dropped_where_modes_change() {
    assert!(copy("COPY --link a b").link);
    assert!(!copy("COPY --link --chmod=644 a b").link);
}

#[test]
fn history_says_what_was_copied() {
    let text = "FROM busybox\nENV D=d\nCOPY --parents --chown=1:2 --chmod=644 --link --exclude=x $D/a b /x/\nADD <<E a $D\nx\nE\n";
    let plan = planned(text);
    let want = ["+ COPY --parents --chown=1:2 --chmod=644 d/a b /x/ # buildkit", "+ ADD a <<E d # buildkit"];
    assert_eq!(plan.lines_of_history()[1..], want);
    assert_eq!(plan.labels()[2], "[3/3] ADD <<E a d");
}
