//! Tests of the parser as a whole.

use super::ast::{Command, Healthcheck, Kind, Source};
use super::{Diagnostic, Dockerfile, LineIndex, Span, Text, parse, parse_trigger};

/// The processor time of this thread: unlike the time on the wall it does not grow when the machine is busy.
pub(super) fn cpu_time() -> std::time::Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let whole = u64::try_from(now.tv_sec).expect("counts from zero");
    std::time::Duration::from_secs(whole) + std::time::Duration::from_nanos(now.tv_nsec.unsigned_abs())
}

fn file(source: &str) -> Dockerfile {
    parse(source.as_bytes())
        .unwrap_or_else(|error| panic!("{}", error.render("Dockerfile", source.as_bytes(), false)))
}

fn fails(source: &str) -> Diagnostic {
    parse(source.as_bytes()).expect_err(source)
}

/// Parses one instruction of a stage.
fn one(line: &str) -> Kind {
    let mut file = file(&format!("FROM scratch\n{line}\n"));
    file.stages.remove(0).instructions.remove(0).kind
}

fn strings(texts: &[Text]) -> Vec<&str> {
    texts.iter().map(Text::as_str).collect()
}

#[test]
fn stages_and_global_args() {
    let file = file(
        "# syntax=docker/dockerfile:1\n# escape=`\n\nARG V=1\nfrom --platform=$P a:$V as Base\nRUN x `\n y\nFROM base\n",
    );
    assert_eq!(file.escape, '`');
    assert_eq!(file.directive("syntax").map(Text::as_str), Some("docker/dockerfile:1"));
    assert_eq!(file.global_args.len(), 1);
    assert_eq!(file.stages.len(), 2);
    let base = &file.stages[0];
    assert_eq!((base.name(), base.from.image.as_str()), (Some("base"), "a:$V"));
    assert_eq!(base.from.platform.as_ref().map(Text::as_str), Some("$P"));
    assert_eq!(base.instructions[0].head.original.as_str(), "RUN x  y");
    assert_eq!(file.stages[1].name(), None);
    assert_eq!(file.heads().map(super::ast::Head::name).collect::<Vec<_>>(), ["ARG", "FROM", "RUN", "FROM"]);
}

#[test]
fn comments_describe_what_follows() {
    let file = file(
        "# first\n#\n# build the build stage\n# check=skip=all\n\nFROM a AS build\nRUN x\n  # indented\nARG indented\n",
    );
    let head = &file.stages[0].head;
    assert_eq!(strings(&head.comments), ["build the build stage", "check=skip=all"]);
    assert_eq!(head.doc_comment("build"), Some("the build stage"));
    assert_eq!(head.doc_comment("buil"), None);
    assert_eq!(strings(&file.stages[0].instructions[1].head.comments), ["# indented"]);
}

#[test]
fn spans_are_exact_across_continuations() {
    let source = "\u{feff}FROM a\r\nENV A=\\\r\n# note\r\n\"b c\" \\\r\n\r\n  D=e\r\n";
    let file = file(source);
    let env = &file.stages[0].instructions[0];
    let Kind::Env(pairs) = &env.kind else { panic!("{env:?}") };
    let shown = |text: &Text| &source[text.span().start..text.span().end];
    assert_eq!(shown(&env.head.keyword), "ENV");
    assert_eq!(&source[env.span().start..env.span().end], "ENV A=\\\r\n# note\r\n\"b c\" \\\r\n\r\n  D=e");
    assert_eq!(env.head.blank_continuations.len(), 1);
    let shown: Vec<_> = pairs.pairs.iter().map(|pair| (shown(&pair.key), shown(&pair.value))).collect();
    assert_eq!(shown, [("A", "\"b c\""), ("D", "e")]);
}

#[test]
fn a_word_can_run_over_lines() {
    let source = "FROM a\nENV A=\"b\\\nc\" D=\\\ne\n";
    let file = file(source);
    let Kind::Env(env) = &file.stages[0].instructions[0].kind else { panic!("no ENV") };
    let values: Vec<_> = env.pairs.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
    assert_eq!(values, [("A", "\"bc\""), ("D", "e")]);
    let value = &env.pairs[0].value;
    assert_eq!(&source[value.span().start..value.span().end], "\"b\\\nc\"");
    assert_eq!(value.offset_in_file(2), source.find('c').expect("there"));
    assert_eq!(LineIndex::new(source.as_bytes()).position(env.pairs[1].value.span().start).line, 4);
}

#[test]
fn commands_in_both_forms() {
    let shell = |kind: Kind| match kind {
        Kind::Cmd(Command::Shell(text)) | Kind::Entrypoint(Command::Shell(text)) => text.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(shell(one("CMD echo  \"a\"   b  ")), "echo  \"a\"   b");
    assert_eq!(shell(one("CMD ['a']")), "['a']");
    assert_eq!(shell(one("CMD [\"a\"] b")), "[\"a\"] b");
    assert_eq!(shell(one("ENTRYPOINT")), "");
    assert!(matches!(one("CMD  [ ]"), Kind::Cmd(Command::Exec(words)) if words.is_empty()));
    assert!(matches!(one("ENTRYPOINT [\"a\",\n"), Kind::Entrypoint(Command::Shell(_))));
    assert!(matches!(one("SHELL [\"a\", \"-c\"]"), Kind::Shell(words) if strings(&words) == ["a", "-c"]));
    assert_eq!(fails("FROM a\nCMD [\"a\", 1]").kind(), "rbuild::not_strings");
}

#[test]
fn flags_end_at_the_first_argument() {
    let Kind::Copy(copy) = one("COPY --from=a --chown=\"$U\":g --link --exclude=a --exclude='b c' -- --x /d")
    else {
        panic!("no COPY")
    };
    assert_eq!(copy.from.as_ref().map(Text::as_str), Some("a"));
    assert_eq!(copy.chown.as_ref().map(Text::as_str), Some("$U:g"));
    assert!(copy.link && !copy.parents);
    assert_eq!(strings(&copy.excludes), ["a", "b c"]);
    assert!(matches!(copy.sources.as_slice(), [Source::Path(path)] if path.as_str() == "--x"));
    let Kind::Run(run) = one(
        "RUN --network=none --mount=type=tmpfs,target=/t --mount=from=b,target=/b,'\"src=a,b\"' make --all",
    ) else {
        panic!("no RUN")
    };
    assert!(matches!(&run.command, Command::Shell(text) if text.as_str() == "make --all"));
    assert_eq!(run.mounts.len(), 2);
    assert_eq!(strings(&run.mounts[1].fields), ["from=b", "target=/b", "src=a,b"]);
    assert_eq!(run.mounts[1].from.as_ref().map(Text::as_str), Some("b"));
    let Kind::Add(add) = one("ADD --unpack=FALSE --keep-git-dir --link=false a b") else { panic!("no ADD") };
    assert_eq!((add.unpack, add.keep_git_dir, add.link), (Some(false), Some(true), false));
    assert!(matches!(one("STOPSIGNAL --ignored=1 9"), Kind::StopSignal(signal) if signal.as_str() == "9"));
}

#[test]
fn heredocs_of_all_kinds() {
    let source = "FROM a\nRUN <<A cat >a && <<-'B' cat >b\n# data\nA\n\t\tx\n\tB\nCOPY <<f \"<<no\" /d/\n$x\nf\nONBUILD RUN <<E\nin\nE\nRUN last\n";
    let file = file(source);
    let kinds: Vec<&Kind> = file.stages[0].instructions.iter().map(|instruction| &instruction.kind).collect();
    let Kind::Run(run) = kinds[0] else { panic!("no RUN") };
    let bodies: Vec<_> =
        run.heredocs.iter().map(|h| (h.name.as_str(), h.body().into_owned(), h.expand)).collect();
    assert_eq!(bodies, [("A", "# data\n".into(), true), ("B", "x\n".into(), false)]);
    let Kind::Copy(copy) = kinds[1] else { panic!("no COPY") };
    let [Source::Heredoc(heredoc), Source::Path(path)] = copy.sources.as_slice() else { panic!("{copy:?}") };
    assert_eq!((heredoc.content.as_str(), path.as_str()), ("$x\n", "\"<<no\""));
    let Kind::Onbuild(onbuild) = kinds[2] else { panic!("no ONBUILD") };
    assert_eq!(onbuild.trigger, "RUN <<E\nin\nE");
    assert!(
        matches!(kinds[3], Kind::Run(run) if matches!(&run.command, Command::Shell(text) if text.as_str() == "last"))
    );
    let span = file.stages[0].instructions[1].span();
    assert_eq!(&source[span.start..span.end], "COPY <<f \"<<no\" /d/\n$x\nf");
}

#[test]
fn triggers_come_back() {
    let Kind::Onbuild(onbuild) = one("onbuild  COPY <<-E /d\n\ta\n\tE") else { panic!("no ONBUILD") };
    assert_eq!(onbuild.trigger, "COPY <<-E /d\n\ta\nE");
    let Kind::Copy(copy) = parse_trigger(&onbuild.trigger).expect("a trigger").kind else {
        panic!("no COPY")
    };
    assert!(matches!(&copy.sources[0], Source::Heredoc(heredoc) if heredoc.body() == "a\n"));
    assert!(matches!(one("ONBUILD FUTURE thing"), Kind::Onbuild(_)));
    for bad in ["", "FROM a", "ONBUILD RUN a", "MAINTAINER a", "RUN a\nRUN b", "# only"] {
        assert_eq!(parse_trigger(bad).expect_err(bad).kind(), "rbuild::bad_trigger", "{bad:?}");
    }
    assert_eq!(parse_trigger("FUTURE thing").expect_err("unknown").kind(), "rbuild::unknown_instruction");
}

#[test]
fn values_of_the_older_form() {
    let Kind::Env(env) = one("ENV ONE  TWO= THREE=x ") else { panic!("no ENV") };
    assert!(env.legacy);
    assert_eq!((env.pairs[0].key.as_str(), env.pairs[0].value.as_str()), ("ONE", "TWO= THREE=x"));
    let Kind::Arg(vars) = one("ARG a b= c=\"d e\"") else { panic!("no ARG") };
    let vars: Vec<_> =
        vars.iter().map(|var| (var.name.as_str(), var.default.as_ref().map(Text::as_str))).collect();
    assert_eq!(vars, [("a", None), ("b", Some("")), ("c", Some("\"d e\""))]);
}

#[test]
fn healthchecks() {
    let Kind::Healthcheck(Healthcheck::Cmd { command, interval, retries, start_period, .. }) =
        one("HEALTHCHECK --interval=1m30s --retries=3 --start-period=0s cmd curl  -f x")
    else {
        panic!("no command")
    };
    assert!(matches!(command, Command::Shell(text) if text.as_str() == "curl  -f x"));
    assert_eq!((interval.as_secs(), retries, start_period.as_secs()), (90, 3, 0));
    assert_eq!(one("HEALTHCHECK --interval=x none"), Kind::Healthcheck(Healthcheck::None));
}

#[test]
fn front_ends_are_found_wherever_they_stand() {
    let cases = [
        ("# syntax=a/b:1 opt\nFROM x", Some("a/b:1")),
        ("#!/usr/bin/env x\n# escape=`\n# syntax = a\n", Some("a")),
        ("//syntax=a\n", Some("a")),
        ("{\"syntax\": \"a\"}", Some("a")),
        ("# note\n# syntax=a\n", None),
        ("FROM x", None),
    ];
    for (source, expected) in cases {
        assert_eq!(super::detect_syntax(source.as_bytes()).as_deref(), expected, "{source:?}");
    }
}

#[test]
fn damaged_utf8_is_refused_where_it_stands() {
    let error = parse(b"FROM a\nRUN \xff\n").expect_err("not UTF-8");
    assert_eq!((error.kind(), error.places()[0].span), ("rbuild::not_utf8", Span::new(11, 12)));
}

#[test]
fn long_hostile_files_take_linear_time() {
    let units = [
        "RUN a\n",
        "RUN <<E\nE\n",
        "RUN a\\\nb\n",
        "ENV a=b\\\n c=d\n",
        "COPY a b\n",
        "# c\n",
        "\n",
        "RUN [\"a\", \"b\"]\n",
        "LABEL a=\"b c\" d\\ e=f\n",
        "ONBUILD RUN <<E\nE\n",
        "ARG a=${b:-${c}}\n",
    ];
    let lines = [
        "ENV a=b ",
        "<<E ",
        "$",
        "${",
        "\"",
        "'",
        "\\",
        "[",
        "[\"a\",",
        "--a ",
        "--mount=a ",
        "é=",
        "a\\\nb",
    ];
    let n = 1 << 16;
    let files = units.map(|unit| format!("FROM a\n{}", unit.repeat(n / unit.len())));
    let long = lines.iter().flat_map(|unit| {
        ["RUN ", "ENV a=", "COPY ", "ONBUILD RUN ", "HEALTHCHECK CMD ", "VOLUME ", "RUN --mount=", ""]
            .map(|head| format!("FROM a\n{head}{}", unit.repeat(n / unit.len())))
    });
    for source in files.into_iter().chain(long) {
        let started = cpu_time();
        let _ = parse(source.as_bytes());
        let took = cpu_time() - started;
        assert!(took.as_secs() < 5, "{:?}... took {took:?}", &source[..40]);
    }
}
