//! ARG, its scopes and where values come from.

use super::*;

#[test]
fn a_value_comes_from_the_command_line_the_default_or_the_global_arg() {
    let text = "ARG G=global\nARG U\nFROM busybox\nARG A=default\nARG B=$A-b\nARG G\nARG U\nARG N\nRUN x\n";
    let run = |options: &PlanOptions| planned_with(text, options).runs()[0].clone();
    let plain = run(&options());
    assert_eq!(
        (plain.env("A"), plain.env("B"), plain.env("G")),
        (Some("default"), Some("default-b"), Some("global"))
    );
    assert_eq!((plain.env("U"), plain.env("N")), (None, None));
    let given = run(&with_args(&[("A", "1"), ("G", "2"), ("U", "3"), ("N", "")]));
    assert_eq!((given.env("A"), given.env("B"), given.env("G")), (Some("1"), Some("1-b"), Some("2")));
    assert_eq!((given.env("U"), given.env("N")), (Some("3"), Some("")));
}

#[test]
fn a_default_in_the_stage_hides_the_global_one() {
    let plan = planned("ARG V=global\nFROM busybox\nARG V=stage\nRUN x\n");
    assert_eq!(plan.runs()[0].env("V"), Some("stage"));
}

#[test]
fn a_build_arg_without_value_counts_as_not_given() {
    let mut options = options();
    options.build_args.insert("V".into(), None);
    assert_eq!(planned_with("FROM busybox\nARG V=d\nRUN x\n", &options).runs()[0].env("V"), Some("d"));
}

#[test]
fn arguments_are_seen_from_their_line_to_the_end_of_the_stage() {
    let plan = planned(
        "FROM busybox AS a\nRUN 1\nARG V=v\nRUN 2\nFROM busybox AS b\nRUN 3\nFROM a\nRUN 4\nCOPY --from=b / /\n",
    );
    let seen: Vec<_> =
        plan.runs().iter().map(|run| (run.script().to_owned(), run.env("V").is_some())).collect();
    let want =
        [("1", false), ("2", true), ("3", false), ("4", true)].map(|(run, seen)| (run.to_owned(), seen));
    assert_eq!(seen.len(), want.len());
    assert!(want.iter().all(|run| seen.contains(run)), "{seen:?}");
}

#[test]
fn the_later_of_env_and_arg_wins_and_only_env_reaches_the_config() {
    let text = "FROM busybox\nARG V=arg\nRUN 1\nENV V=env-$V\nRUN 2\nARG V=again\nRUN 3\nARG V\nRUN 4\nENV W=w\nARG W\nRUN 5\n";
    let plan = planned(text);
    let seen: Vec<_> = plan.runs().iter().map(|run| run.env("V").unwrap()).collect();
    assert_eq!(seen, ["arg", "env-arg", "again", "again", "again"]);
    assert_eq!(plan.runs()[4].env("W"), Some("w"), "a bare ARG without a value leaves ENV alone");
    assert_eq!(plan.config.config.env, [PATH, "V=env-arg", "W=w"]);
}

#[test]
fn words_of_one_arg_see_each_other_and_words_of_one_env_do_not() {
    let plan =
        planned("FROM busybox\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\nARG a=1 b=$a\nRUN x\n");
    assert_eq!(plan.config.config.env, [PATH, "abc=bye", "def=hello", "ghi=bye"]);
    assert_eq!(plan.runs()[0].env("b"), Some("1"));
}

#[test]
fn global_args_reach_from_only() {
    let plan = planned("ARG BASE=busy\nARG FULL=${BASE}box\nFROM $FULL\nRUN echo $BASE\n");
    assert_eq!(plan.runs()[0].env("BASE"), None);
    let plan = planned_with("ARG BASE=nope\nFROM $BASE\nRUN x\n", &with_args(&[("BASE", "debian")]));
    assert_eq!(plan.config.config.labels["from"], "debian");
}

#[test]
fn platform_arguments_need_a_bare_arg() {
    let options = PlanOptions { platform: Some("linux/arm/v7".parse().unwrap()), ..options() };
    let text = "FROM --platform=$BUILDPLATFORM busybox AS tool\nARG TARGETPLATFORM\nARG TARGETVARIANT\nARG BUILDARCH\n\
                ARG TARGETSTAGE\nRUN x\nFROM busybox\nRUN y\n";
    let plan = planned_with(text, &PlanOptions { target: Some("tool".into()), ..options.clone() });
    let run = plan.runs()[0];
    assert_eq!((run.env("TARGETPLATFORM"), run.env("TARGETVARIANT")), (Some("linux/arm/v7"), Some("v7")));
    assert_eq!((run.env("BUILDARCH"), run.env("TARGETSTAGE")), (Some("amd64"), Some("tool")));
    assert_eq!(run.platform.architecture, "amd64");
    let plan = planned_with(text, &options);
    assert_eq!(plan.runs()[0].env("TARGETPLATFORM"), None);
    assert_eq!((plan.config.architecture.as_str(), plan.config.variant.as_deref()), ("arm", Some("v7")));
}

#[test]
fn proxies_stay_out_of_environment_and_history_unless_declared() {
    let options = with_args(&[("http_proxy", "http://p")]);
    let text = "FROM busybox\nRUN a\nARG http_proxy\nRUN b\n";
    let plan = planned_with(text, &options);
    let runs = plan.runs();
    let both = [("HTTP_PROXY", "http://p"), ("http_proxy", "http://p")];
    assert_eq!(runs[0].proxy_env, both.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!((runs[0].env("http_proxy"), runs[1].env("http_proxy")), (None, Some("http://p")));
    let history = plan.lines_of_history();
    assert_eq!(history[0], "+ RUN /bin/sh -c a # buildkit");
    assert_eq!(history[2], "+ RUN |1 http_proxy=http://p /bin/sh -c b # buildkit");
    assert_eq!(plan.unused_build_args, [""; 0]);
}

#[test]
fn build_args_that_nobody_asks_for_are_named() {
    let options = with_args(&[
        ("TYPO", "1"),
        ("IN_OTHER_STAGE", "1"),
        ("IN_TRIGGER", "1"),
        ("BUILDKIT_SYNTAX", "x"),
        ("NO_PROXY", "x"),
        ("TARGETARCH", "x"),
    ]);
    let text = "FROM busybox AS a\nARG IN_OTHER_STAGE\nONBUILD ARG IN_TRIGGER=1\nFROM busybox\n";
    assert_eq!(planned_with(text, &options).unused_build_args, ["TYPO"]);
    let text = "FROM debian AS tools\nFROM triggers\n";
    assert_eq!(planned_with(text, &with_args(&[("V", "1"), ("W", "1")])).unused_build_args, ["W"]);
}

#[test]
fn a_run_is_another_one_only_when_it_sees_the_change() {
    let text =
        "FROM busybox AS a\nARG SEEN\nRUN one\nFROM busybox AS b\nRUN two\nFROM a\nCOPY --from=b /x /x\n";
    let with = |name| planned_with(text, &with_args(&[(name, "1")]));
    let (plain, other, seen) = (planned(text), with("OTHER"), with("SEEN"));
    assert_eq!(plain.runs(), other.runs());
    let changed = |script| {
        plain.runs().iter().find(|run| run.script() == script)
            != seen.runs().iter().find(|run| run.script() == script)
    };
    assert!(changed("one") && !changed("two"));
}

#[test]
fn the_epoch_comes_from_the_command_line_or_a_global_arg() {
    let text = "ARG SOURCE_DATE_EPOCH=5\nFROM busybox\nARG SOURCE_DATE_EPOCH\nRUN x\n";
    assert_eq!(planned(text).epoch, Some(5));
    let plan = planned_with(text, &with_args(&[("SOURCE_DATE_EPOCH", "7")]));
    assert_eq!((plan.epoch, plan.runs()[0].env("SOURCE_DATE_EPOCH")), (Some(7), Some("7")));
    assert_eq!(planned("FROM busybox\nARG SOURCE_DATE_EPOCH=5\nRUN x\n").epoch, None);
}

#[test]
fn history_names_each_argument_once_with_its_last_value() {
    let plan = planned("FROM busybox\nARG foo=bar\nARG bar=123 none\nARG foo=bar2\nRUN ls\n");
    let want = [
        "ARG foo=bar",
        "ARG bar=123 none",
        "ARG foo=bar2",
        "+ RUN |3 foo=bar2 bar=123 none= /bin/sh -c ls # buildkit",
    ];
    assert_eq!(plan.lines_of_history(), want);
}

#[test]
fn the_outline_tells_arguments_secrets_and_agents() {
    let text = "# TAG of the base\nARG TAG=latest\nFROM busybox:$TAG\n# MODE how to build\nARG MODE=fast\nARG TAG\n\
                RUN --mount=type=secret,id=key,required --mount=type=ssh x\n";
    let outline = planned(text).outline;
    let args: Vec<_> = outline
        .args
        .iter()
        .map(|arg| (arg.name.as_str(), arg.value.as_deref(), arg.description.as_deref()))
        .collect();
    assert_eq!(
        args,
        [("TAG", Some("latest"), Some("of the base")), ("MODE", Some("fast"), Some("how to build"))]
    );
    assert_eq!((outline.secrets[0].id.as_str(), outline.secrets[0].required), ("key", true));
    assert_eq!((outline.ssh[0].id.as_str(), outline.ssh[0].required), ("default", false));
}
