//! ONBUILD triggers.

use super::*;

#[test]
fn triggers_are_stored_and_not_run() {
    let plan =
        planned("FROM busybox\nONBUILD RUN x $Y\nonbuild copy --from=a b c\nONBUILD RUN <<E\nbody\nE\n");
    assert_eq!(plan.config.config.on_build, ["RUN x $Y", "copy --from=a b c", "RUN <<E\nbody\nE"]);
    assert!(plan.layers.is_empty() && plan.history.is_empty());
}

#[test]
fn a_parent_stage_triggers_in_its_child_and_not_in_the_grandchild() {
    let text = "FROM busybox AS p\nARG V=parent\nONBUILD ARG V\nONBUILD RUN echo $V\nFROM p AS c\nRUN own\nFROM c\nRUN last\n";
    let plan = planned_with(text, &with_args(&[("V", "cli")]));
    assert_eq!(plan.runs().iter().map(|run| run.script()).collect::<Vec<_>>(), ["echo $V", "own", "last"]);
    assert!(plan.config.config.on_build.is_empty());
    assert_eq!(plan.labels()[1], "[c 1/2] ONBUILD RUN echo cli");
    let trigger = &plan.graph[plan.layers[0]];
    assert_eq!(trigger.lines, 5..6, "the FROM line that made it run");
}

#[test]
fn triggers_of_a_base_image_use_the_childs_stages_and_arguments() {
    let text = "FROM debian AS tools\nRUN tool\nFROM triggers\nONBUILD RUN mine\n";
    let plan = planned_with(text, &with_args(&[("V", "given")]));
    assert_eq!(plan.runs().len(), 2);
    assert_eq!(plan.labels()[3], "[stage-1 2/3] ONBUILD RUN make given");
    let copied = plan.inputs(plan.target)[1];
    assert_eq!((copied.0, plan.graph[copied.1].label.as_str()), (Role::Source, "[tools 2/2] RUN tool"));
    assert_eq!(plan.config.config.on_build, ["RUN mine"]);
}

#[test]
fn a_trigger_heredoc_keeps_its_body() {
    let plan = planned("FROM busybox AS p\nONBUILD COPY <<A <<B /d/\n1\nA\n2\nB\nFROM p\n");
    let bodies: Vec<_> = plan.copies()[0].sources.iter().map(|source| format!("{source:?}")).collect();
    assert_eq!(
        bodies,
        ["Inline { name: \"A\", content: \"1\\n\" }", "Inline { name: \"B\", content: \"2\\n\" }"]
    );
}

#[test]
fn cmd_of_a_trigger_counts_as_the_childs() {
    let text = "FROM busybox AS p\nONBUILD CMD [\"t\"]\nFROM p\nENTRYPOINT [\"e\"]\n";
    assert_eq!(planned(text).config.config.cmd, Some(vec!["t".to_owned()]));
}
