//! Grows the graph: a vertex that exists already, op and inputs alike, is used again.

use super::op::{BuildGraph, Op, Role, Vertex};
use petgraph::Direction;
use petgraph::graph::NodeIndex;
use petgraph::visit::Dfs;
use std::collections::HashMap;

/// The graph and what is in it.
#[derive(Debug, Default)]
pub(super) struct GraphBuilder {
    graph: BuildGraph,
    known: HashMap<(Op, Vec<(Role, NodeIndex)>), NodeIndex>,
}

impl GraphBuilder {
    /// Adds a vertex or finds the equal one. Of two equal ones the first keeps its label, and either can ask not to
    /// use the cache.
    pub(super) fn add(&mut self, vertex: Vertex, inputs: Vec<(Role, NodeIndex)>) -> NodeIndex {
        let key = (identity(&vertex.op), inputs);
        if let Some(&known) = self.known.get(&key) {
            self.graph[known].no_cache |= vertex.no_cache;
            return known;
        }
        let index = self.graph.add_node(vertex);
        for &(role, input) in &key.1 {
            self.graph.add_edge(input, index, role);
        }
        self.known.insert(key, index);
        index
    }

    /// Gives the label of a vertex, empty when it has none yet.
    pub(super) fn label(&self, vertex: NodeIndex) -> &str {
        &self.graph[vertex].label
    }

    /// Labels a vertex.
    pub(super) fn set_label(&mut self, vertex: NodeIndex, label: String) {
        self.graph[vertex].label = label;
    }

    /// Gives the whole graph.
    pub(super) fn into_graph(self) -> BuildGraph {
        self.graph
    }

    /// Gives the graph without the vertices that `target` does not need, and says where the others went.
    pub(super) fn finish(self, target: NodeIndex) -> (BuildGraph, HashMap<NodeIndex, NodeIndex>) {
        let mut needed = vec![false; self.graph.node_count()];
        let against = petgraph::visit::Reversed(&self.graph);
        let mut walk = Dfs::new(against, target);
        while let Some(index) = walk.next(against) {
            needed[index.index()] = true;
        }
        let mut moved = HashMap::new();
        let mut kept = BuildGraph::new();
        for index in self.graph.node_indices().filter(|index| needed[index.index()]) {
            let new = kept.add_node(self.graph[index].clone());
            moved.insert(index, new);
            // inputs are always older than what needs them
            let mut inputs: Vec<_> =
                self.graph.edges_directed(index, Direction::Incoming).map(input_of).collect();
            inputs.sort_unstable();
            for (role, from) in inputs {
                kept.add_edge(moved[&from], new, role);
            }
        }
        (kept, moved)
    }
}

fn input_of(edge: petgraph::graph::EdgeReference<'_, Role>) -> (Role, NodeIndex) {
    use petgraph::visit::EdgeRef;
    (*edge.weight(), edge.source())
}

/// Leaves out what does not make an op another one: the name by which an image was asked for.
fn identity(op: &Op) -> Op {
    let mut op = op.clone();
    if let Op::Image(image) = &mut op {
        image.name.clear();
    }
    op
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::WorkdirOp;

    fn workdir(path: &str, no_cache: bool) -> Vertex {
        let op = Op::Workdir(WorkdirOp { path: path.into(), user: String::new() });
        Vertex { op, label: path.into(), lines: 0..0, no_cache }
    }

    #[test]
    fn equal_vertices_are_one_and_unneeded_ones_go() {
        let mut graph = GraphBuilder::default();
        let scratch = Vertex { op: Op::Scratch, label: String::new(), lines: 0..0, no_cache: false };
        let root = graph.add(scratch, vec![]);
        let a = graph.add(workdir("/a", false), vec![(Role::Base, root)]);
        let unneeded = graph.add(workdir("/x", false), vec![(Role::Base, a)]);
        assert_eq!(graph.add(workdir("/a", true), vec![(Role::Base, root)]), a);
        let deeper = graph.add(workdir("/a", false), vec![(Role::Base, a)]);
        assert_ne!(deeper, a, "same op, another input");

        let (kept, moved) = graph.finish(deeper);
        assert_eq!(kept.node_count(), 3);
        assert!(!moved.contains_key(&unneeded));
        assert!(kept[moved[&a]].no_cache);
        assert!(kept.contains_edge(moved[&root], moved[&a]) && kept.contains_edge(moved[&a], moved[&deeper]));
    }
}
