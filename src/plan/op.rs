//! The ops of a build and the graph that holds them.
//!
//! An op is everything that its execution needs and nothing of the Dockerfile: variables are expanded, relative paths
//! joined, shell forms turned into argument lists. Two vertices with equal op and equal inputs are one vertex.

use crate::digest::{DiffId, ImageId};
use crate::oci::ImageConfig;
use crate::platform::Platform;
use petgraph::graph::DiGraph;
use std::ops::Range;

/// The graph: an edge points from a vertex to the one that needs it.
pub type BuildGraph = DiGraph<Vertex, Role>;

/// What an input is to the vertex that needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The file system that the op changes.
    Base,
    /// What a COPY or ADD takes files from.
    Source,
    /// What the RUN mount of this position takes files from.
    Mount(usize),
}

/// An op with what people need to know about it.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// What to do.
    pub op: Op,
    /// As shown, for example `[build 2/5] RUN make`.
    pub label: String,
    /// The Dockerfile lines, 1-based and half open; empty for what no line asked for.
    pub lines: Range<usize>,
    /// Run even when the result is known (`--no-cache`).
    pub no_cache: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Op {
    /// The empty file system.
    Scratch,
    /// The layers of an image.
    Image(ImageOp),
    /// A command.
    Run(Box<RunOp>),
    /// COPY or ADD.
    Copy(Box<CopyOp>),
    /// Makes sure that a directory is there.
    Workdir(WorkdirOp),
}

/// A base image, known by what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageOp {
    /// As the user wrote it, for messages.
    pub name: String,
    /// Digest of its config.
    pub image: ImageId,
    /// Its layers, lowest first.
    pub diff_ids: Vec<DiffId>,
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunOp {
    /// Program and arguments, the shell in front for the shell form.
    pub args: Vec<String>,
    /// Heredoc bodies that start with `#!`: files below `/dev/pipes`, mode 0755, by name and content; `args` names them.
    pub scripts: Vec<(String, String)>,
    /// The whole environment in order.
    pub env: Vec<(String, String)>,
    /// Proxy settings: in the environment, not in the cache key.
    pub proxy_env: Vec<(String, String)>,
    /// Absolute.
    pub cwd: String,
    /// As USER has it, looked up in the root file system; empty is root.
    pub user: String,
    /// In the order of the flags.
    pub mounts: Vec<RunMount>,
    /// How many of them the Dockerfile has; the others are of the command line, and only their files count.
    pub own_mounts: usize,
    /// `--network`.
    pub network: RunNetwork,
    /// `--security=insecure`.
    pub insecure: bool,
    /// Host name inside.
    pub hostname: String,
    /// Platform of the step's programs.
    pub platform: Platform,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RunNetwork {
    /// What the build was told to use.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// Where files of a COPY or mount come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum From {
    /// A build context: the main one has the empty name.
    Context(String),
    /// The vertex at the other end of the edge with this op's `Source` or `Mount(n)` role.
    Vertex,
    /// Nothing: an empty directory.
    Empty,
}

/// `RUN --mount`; targets are absolute and clean.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RunMount {
    /// `type=bind`.
    Bind {
        /// Inside.
        target: String,
        /// From where.
        from: From,
        /// Path in `from`.
        source: String,
        /// Writes are allowed and thrown away.
        writable: bool,
    },
    /// `type=cache`.
    Cache {
        /// Inside.
        target: String,
        /// Name of the cache, already with its namespace.
        id: String,
        /// What concurrent users get.
        sharing: Sharing,
        /// Seed of a new cache.
        from: From,
        /// Path in `from`.
        source: String,
        /// Look of a new cache's directory, when the mount says any of it.
        look: Option<Look>,
        /// Writes fail.
        readonly: bool,
    },
    /// `type=tmpfs`.
    Tmpfs {
        /// Inside.
        target: String,
        /// Bytes; `None` is no limit.
        size: Option<u64>,
    },
    /// `type=secret`.
    Secret {
        /// Inside; `None` when only the variable was asked for.
        target: Option<String>,
        /// Which secret.
        id: String,
        /// Variable that gets the value.
        env: Option<String>,
        /// Missing is an error.
        required: bool,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// `type=ssh`.
    Ssh {
        /// Inside.
        target: String,
        /// Which agent.
        id: String,
        /// Missing is an error.
        required: bool,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// Mode and owner of a new cache's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Look {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Default for Look {
    /// 0755, root's.
    fn default() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0 }
    }
}

/// Who may use a cache mount at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sharing {
    /// Everybody, together.
    #[default]
    Shared,
    /// The second user gets a directory of its own.
    Private,
    /// The second user waits.
    Locked,
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CopyOp {
    /// In the order of the arguments; heredocs last.
    pub sources: Vec<CopySource>,
    /// From where path sources come.
    pub from: From,
    /// Absolute (joined with WORKDIR); a trailing slash says that it is a directory.
    pub dest: String,
    /// `user[:group]`, expanded, looked up in the destination's root file system.
    pub chown: Option<String>,
    /// Octal or symbolic text, expanded.
    pub chmod: Option<String>,
    /// `--parents`.
    pub parents: bool,
    /// `--link`.
    pub link: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<String>,
    /// ADD: local archives are unpacked, URLs and git allowed.
    pub is_add: bool,
    /// ADD `--unpack`.
    pub unpack: Option<bool>,
    /// ADD `--checksum`.
    pub checksum: Option<String>,
    /// ADD `--keep-git-dir`.
    pub keep_git_dir: bool,
}

impl CopyOp {
    /// Makes a COPY without flags.
    pub fn plain(sources: Vec<CopySource>, from: From, dest: impl Into<String>) -> Self {
        Self {
            sources,
            from,
            dest: dest.into(),
            chown: None,
            chmod: None,
            parents: false,
            link: false,
            exclude: Vec::new(),
            is_add: false,
            unpack: None,
            checksum: None,
            keep_git_dir: false,
        }
    }
}

/// One source of a COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CopySource {
    /// A path or pattern in `from`.
    Path(String),
    /// A heredoc: file name and expanded body.
    Inline {
        /// One component.
        name: String,
        /// File content.
        content: String,
    },
    /// ADD: http or https.
    Url(String),
    /// ADD: a git remote with fragment or query.
    Git(String),
}

/// WORKDIR.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkdirOp {
    /// Absolute and clean.
    pub path: String,
    /// As USER has it; owns the directories that are made.
    pub user: String,
}

/// What a plan needs to know of a base.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// Digest of `config`.
    pub image: ImageId,
    /// The whole config; `rootfs.diff_ids` are its layers.
    pub config: ImageConfig,
}

/// A base image that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {why}")]
pub struct BaseImageError {
    /// As the user wrote it.
    pub name: String,
    /// Why not and what to do.
    pub why: String,
}

/// Knows base images by name; the planner's only window to the outside.
pub trait BaseImages {
    /// Finds an image by reference for a platform (`None`: whatever it is made for). No layer is fetched.
    fn resolve(&self, name: &str, platform: Option<&Platform>) -> Result<BaseImage, BaseImageError>;
}
