//! Stages: names, targets, what is planned and what is shared.

use super::*;

/// Plans and tells which images were asked for.
fn asked(text: &str, options: &PlanOptions) -> Vec<String> {
    let bases = Bases::default();
    let file = parse(text.as_bytes()).unwrap();
    plan(text.as_bytes(), &file, options, &bases).unwrap();
    bases.asked.into_inner()
}

#[test]
fn stages_that_nothing_needs_are_not_even_resolved() {
    let text = "FROM missing AS a\nRUN a\nFROM busybox AS b\nRUN b\nFROM debian AS c\nCOPY --from=b / /\nFROM gone\nRUN x\n";
    let options = PlanOptions { target: Some("C".into()), ..options() };
    assert_eq!(asked(text, &options), ["busybox", "debian"]);
    let plan = planned_with(text, &options);
    assert_eq!(plan.runs().len(), 1);
    assert_eq!(plan.stage.as_deref(), Some("c"));
}

#[test]
fn all_stages_are_planned_to_be_checked() {
    let text = "FROM busybox\nRUN $\nFROM debian\nMAINTAINER x\nCMD y\nFROM busybox\n";
    let options = PlanOptions { all_stages: true, ..options() };
    assert_eq!(asked(text, &options), ["busybox", "debian"]);
    let plan = planned_with(text, &options);
    let rules: Vec<_> = plan.warnings.iter().map(|warning| warning.rule.name()).collect();
    assert_eq!(rules, ["MaintainerDeprecated", "JSONArgsRecommended"]);
    assert_eq!(plan.graph.node_count(), 1, "the graph holds what the target needs");
}

#[test]
fn a_mount_that_takes_no_files_needs_no_stage_in_the_graph() {
    let plan = planned("FROM debian AS a\nRUN a\nFROM busybox\nRUN --mount=type=tmpfs,target=/t,from=a x\n");
    assert_eq!(plan.graph.node_count(), 2);
}

#[test]
fn equal_steps_are_one_vertex() {
    let text = "FROM busybox AS a\nRUN same\nRUN a\nFROM busybox:latest AS b\nRUN same\nRUN b\nFROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
    let plan = planned(text);
    let scripts: Vec<_> = plan.runs().iter().map(|run| run.script()).collect();
    assert_eq!(scripts, ["same", "a", "b"]);
    let images = plan.graph.node_weights().filter(|vertex| matches!(vertex.op, Op::Image(_))).count();
    assert_eq!(images, 1);
}

#[test]
fn an_argument_makes_equal_text_another_step() {
    let plan =
        planned("FROM busybox AS a\nARG X=1\nRUN same\nFROM busybox\nARG X=2\nRUN same\nCOPY --from=a / /\n");
    assert_eq!(plan.runs().len(), 2);
}

#[test]
fn a_stage_may_have_the_name_of_its_image() {
    let text = "FROM busybox AS busybox\nRUN first\nFROM busybox\nRUN second\n";
    let plan = planned(text);
    assert_eq!(plan.runs().iter().map(|run| run.script()).collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(asked(text, &options()), ["busybox"]);
}

#[test]
fn from_matches_stage_names_in_lower_case_only() {
    let text = "FROM busybox AS Base\nRUN first\nFROM base\nRUN second\n";
    assert_eq!(planned(text).runs().len(), 2);
    assert!(fails("FROM busybox AS Base\nFROM Base\n").contains("base image Base"));
}

#[test]
fn of_two_stages_with_one_name_the_later_counts() {
    let plan = planned("FROM busybox AS x\nRUN 1\nFROM busybox AS x\nRUN 2\nFROM x\nCOPY --from=x /a /b\n");
    assert_eq!(plan.runs().iter().map(|run| run.script()).collect::<Vec<_>>(), ["2"]);
}

#[test]
fn layers_and_history_run_through_the_chain_of_stages() {
    let plan = planned("FROM busybox AS a\nENV X=1\nRUN a\nFROM a AS b\nCOPY f /f\nFROM b\nCMD [\"c\"]\n");
    assert_eq!(plan.layers.len(), 2);
    assert_eq!(plan.layers[1], plan.target);
    let layers: Vec<_> = plan.history.iter().filter_map(|entry| entry.vertex).collect();
    assert_eq!(layers, plan.layers);
    let want = ["ENV X=1", "+ RUN /bin/sh -c a # buildkit", "+ COPY f /f # buildkit", "CMD [\"c\"]"];
    assert_eq!(plan.lines_of_history(), want);
}

#[test]
fn numbers_count_the_steps_of_a_stage() {
    let text = "FROM busybox AS build\nRUN a\nENV X=1\nWORKDIR /\nFROM scratch\nCOPY --from=build /a /\nFROM build\nRUN b\n";
    let labels = |target: &str| {
        let options =
            PlanOptions { target: Some(target.into()).filter(|t: &String| !t.is_empty()), ..options() };
        planned_with(text, &options).labels().join("\n")
    };
    assert_eq!(labels("build"), "[build 1/2] FROM busybox\n[build 2/2] RUN a");
    assert_eq!(labels(""), "[build 1/2] FROM busybox\n[build 2/2] RUN a\n[stage-2 1/1] RUN b");
    let many = format!("FROM busybox\n{}", "RUN a\n".repeat(9));
    assert_eq!(planned(&many).labels()[..2], ["[ 1/10] FROM busybox", "[ 2/10] RUN a"]);
}

#[test]
fn an_image_without_layers_is_the_empty_file_system() {
    let plan = planned("FROM empty\nCOPY a /b\n");
    assert_eq!(plan.labels()[0], "FROM scratch");
    assert!(plan.base.is_some());
}

#[test]
fn named_contexts_stand_for_stages_and_images() {
    let text = "FROM nothing AS src\nRUN never\nFROM debian:latest\nCOPY --from=src /a /a\nCOPY --from=lib /b /b\n\
                RUN --mount=from=src,target=/m x\n";
    let mut options = options();
    for (name, context) in [
        ("src", NamedContext::Files),
        ("lib", NamedContext::Files),
        ("docker.io/library/debian", NamedContext::Image("busybox".into())),
    ] {
        options.contexts.insert(name.into(), context);
    }
    assert_eq!(asked(text, &options), ["busybox"]);
    let plan = planned_with(text, &options);
    let from: Vec<_> = plan.copies().iter().map(|copy| copy.from.clone()).collect();
    assert_eq!(from, [From::Context("src".into()), From::Context("lib".into())]);
    assert!(
        matches!(&plan.runs()[0].mounts[0], RunMount::Bind { from: From::Context(name), .. } if name == "src")
    );
}

#[test]
fn a_context_of_files_can_be_a_base() {
    let mut options = options();
    options.contexts.insert("root".into(), NamedContext::Files);
    options.contexts.insert("nothing".into(), NamedContext::Image("scratch".into()));
    let plan = planned_with("FROM root\nCMD [\"x\"]\n", &options);
    assert_eq!((plan.layers.len(), plan.history.len()), (1, 2));
    assert_eq!(plan.copies()[0].from, From::Context("root".into()));
    assert_eq!(plan.config.config.env, [PATH]);
    let stage =
        planned_with("FROM busybox AS root\nRUN never\nFROM root\nCOPY --from=nothing / /x\n", &options);
    assert!(stage.runs().is_empty() && stage.base.is_none());
    assert_eq!(stage.copies()[1].from, From::Empty);
}

#[test]
fn many_stages_in_a_chain_are_no_problem() {
    let mut text = String::from("FROM busybox AS s0\nRUN 0\n");
    for n in 1..3000 {
        let _ = writeln!(text, "FROM s{} AS s{n}\nCOPY --from=s{} /a /b", n - 1, n - 1);
    }
    assert_eq!(planned(&text).layers.len(), 3000);
}
