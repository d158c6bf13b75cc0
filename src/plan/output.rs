//! What planning gives: the graph, the config of the image and what people may want to know.

use super::op::{BaseImage, BuildGraph, Role};
use crate::dockerfile::lint::Warning;
use crate::dockerfile::span::Span;
use crate::oci::ImageConfig;
use petgraph::Direction;
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;

/// A planned build.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The vertices that the target needs, no others.
    pub graph: BuildGraph,
    /// The vertex whose file system is the image's.
    pub target: NodeIndex,
    /// The vertices that make the layers above the base, lowest first.
    pub layers: Vec<NodeIndex>,
    /// The image below the layers; `None` when they stand on nothing.
    pub base: Option<BaseImage>,
    /// The config of the image; history and root file system are left empty.
    pub config: ImageConfig,
    /// The history entries above those of the base, oldest first.
    pub history: Vec<PlannedHistory>,
    /// Name of the target stage, if it has one.
    pub stage: Option<String>,
    /// `SOURCE_DATE_EPOCH` in seconds, when given.
    pub epoch: Option<i64>,
    /// What the checks found, in the order of the file, without what the file or the user does not want to hear.
    pub warnings: Vec<Warning>,
    /// A warning is to fail the build (`# check=error=true`).
    pub warnings_are_errors: bool,
    /// Names of `--build-arg` that no ARG asks for.
    pub unused_build_args: Vec<String>,
    /// What the target can be given.
    pub outline: Outline,
}

impl Plan {
    /// Gives the vertices so that each comes after its inputs.
    pub fn order(&self) -> Vec<NodeIndex> {
        // the graph is pruned by copying it in this order
        self.graph.node_indices().collect()
    }

    /// Gives the inputs of a vertex: the base first, then the source, then the mounts by position.
    pub fn inputs(&self, vertex: NodeIndex) -> Vec<(Role, NodeIndex)> {
        let incoming = self.graph.edges_directed(vertex, Direction::Incoming);
        let mut inputs: Vec<_> = incoming.map(|edge| (*edge.weight(), edge.source())).collect();
        inputs.sort_unstable();
        inputs
    }
}

/// A line of history that the build adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedHistory {
    /// The instruction as BuildKit words it.
    pub created_by: String,
    /// The builder's note.
    pub comment: String,
    /// No layer belongs to the entry.
    pub empty_layer: bool,
    /// The vertex that makes the layer.
    pub vertex: Option<NodeIndex>,
}

/// What the target stage and the stages that it needs can be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// Arguments in the order of the file.
    pub args: Vec<OutlineArg>,
    /// Secrets in the order of the file.
    pub secrets: Vec<OutlineNeed>,
    /// ssh agents in the order of the file.
    pub ssh: Vec<OutlineNeed>,
}

/// An argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Name.
    pub name: String,
    /// The value that it has in this build.
    pub value: Option<String>,
    /// From the comment above the ARG.
    pub description: Option<String>,
    /// The ARG.
    pub span: Span,
}

/// A secret or an ssh agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineNeed {
    /// Name.
    pub id: String,
    /// A step fails without it.
    pub required: bool,
    /// The RUN.
    pub span: Span,
}
