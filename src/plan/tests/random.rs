//! Random Dockerfiles: planning ends without a panic, and what it gives holds together.

use super::*;
use petgraph::graph::NodeIndex;
use proptest::prelude::*;

const STAGES: [&str; 4] = ["a", "b", "c", "debian"];

fn line() -> impl Strategy<Value = String> {
    let stage = || prop::sample::select(&STAGES[..]);
    let word = || prop::sample::select(&["x", "$A", "${B:-y}", "/d/", "w/..", "1", "é"][..]);
    prop_oneof![
        4 => (stage(), stage()).prop_map(|(from, name)| format!("FROM {from} AS {name}")),
        2 => Just("FROM busybox".to_owned()),
        1 => Just("FROM triggers AS a".to_owned()),
        2 => (stage(), word(), word()).prop_map(|(from, a, b)| format!("COPY --from={from} {a} {b}")),
        2 => (stage(), word()).prop_map(|(from, to)| format!("RUN --mount=from={from},target={to} true")),
        2 => word().prop_map(|w| format!("RUN echo {w}")),
        1 => word().prop_map(|w| format!("WORKDIR {w}")),
        1 => (word(), word()).prop_map(|(a, b)| format!("ARG A={a} B={b}")),
        1 => (word(), word()).prop_map(|(a, b)| format!("ENV A={a} B={b}")),
        1 => Just("EXPOSE ${A:-80}".to_owned()),
        1 => (stage(), word()).prop_map(|(from, w)| format!("ONBUILD COPY --from={from} {w} /o")),
        1 => word().prop_map(|w| format!("ONBUILD RUN echo {w}")),
        1 => word().prop_map(|w| format!("CMD {w}")),
    ]
}

/// Each step stands on exactly one file system, inputs come first, and layers and history agree.
fn check(plan: &Plan) {
    let mut seen: Vec<NodeIndex> = Vec::new();
    for vertex in plan.order() {
        let inputs = plan.inputs(vertex);
        assert!(inputs.iter().all(|(_, input)| seen.contains(input)));
        let bases = inputs.iter().filter(|(role, _)| *role == Role::Base).count();
        let root = matches!(plan.graph[vertex].op, Op::Scratch | Op::Image(_));
        assert_eq!(bases, usize::from(!root));
        assert!(!plan.graph[vertex].label.is_empty());
        seen.push(vertex);
    }
    let with_layers: Vec<_> = plan.history.iter().filter_map(|entry| entry.vertex).collect();
    assert_eq!(with_layers, plan.layers);
    assert!(plan.layers.last().is_none_or(|last| *last == plan.target));
}

proptest! {
    #[test]
    fn planning_ends_well_or_with_a_place(lines in prop::collection::vec(line(), 1..25), all: bool) {
        let text = format!("FROM busybox AS a\nFROM a AS b\nFROM b AS c\nFROM busybox\n{}\n", lines.join("\n"));
        let options = PlanOptions { all_stages: all, ..options() };
        match try_plan(&text, &options) {
            Ok(plan) => check(&plan),
            Err(error) => prop_assert!(!error.places().is_empty(), "{}", error.message()),
        }
    }
}
