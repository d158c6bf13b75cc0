//! The plans of one Dockerfile for several platforms as one graph: what they have in common is in it once, so a stage that
//! runs on the build platform and knows nothing of the target runs once for all of them.

use super::builder::GraphBuilder;
use super::op::BuildGraph;
use super::output::Plan;
use petgraph::graph::NodeIndex;

/// Several plans as one graph.
#[derive(Debug, Clone)]
pub struct Joint {
    /// All vertices of all plans.
    pub graph: BuildGraph,
    /// For each plan where its vertices are in the graph, by their index in the plan's own.
    pub places: Vec<Vec<NodeIndex>>,
}

/// Joins plans. Of equal vertices the label of the first plan stays.
pub fn join(plans: &[Plan]) -> Joint {
    let mut graph = GraphBuilder::default();
    let places = plans.iter().map(|plan| {
        let mut places: Vec<NodeIndex> = Vec::with_capacity(plan.graph.node_count());
        // inputs come before what needs them
        for vertex in plan.order() {
            let inputs = plan.inputs(vertex).into_iter().map(|(role, from)| (role, places[from.index()]));
            let inputs = inputs.collect();
            places.push(graph.add(plan.graph[vertex].clone(), inputs));
        }
        places
    });
    let places = places.collect();
    Joint { graph: graph.into_graph(), places }
}
