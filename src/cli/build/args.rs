//! The flags of `build`, as clap reads them. Their meaning is in `settings`, `contexts` and `output`.

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

/// Builds an image from a Dockerfile.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(in crate::cli) struct BuildArgs {
    /// Build context: a directory, the address of a git repository or archive, or - for a tar archive or Dockerfile on
    /// standard input
    #[arg(value_name = "PATH | URL | -")]
    pub(super) context: Option<OsString>,
    /// Name and optionally tag of the image; may be repeated
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(super) tag: Vec<String>,
    /// Dockerfile [default: PATH/Dockerfile]; a file, an URL, or - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Value of an ARG; without = it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) build_arg: Vec<String>,
    /// File with one NAME=VALUE a line; --build-arg wins
    #[arg(long, value_name = "FILE")]
    pub(super) build_arg_file: Vec<PathBuf>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// Platform of the image, for example linux/arm64; several, with commas or repeated, make an index of one image each
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',', env = "DOCKER_DEFAULT_PLATFORM")]
    pub(super) platform: Vec<String>,
    /// Run every step of these stages even when its result is known
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(super) no_cache_filter: Vec<String>,
    /// Label of the image; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) label: Vec<String>,
    /// Annotation of the manifest, or with index: or manifest-descriptor: in front of that, with [PLATFORM] for one image
    /// of several; may be repeated
    #[arg(long, value_name = "[TYPE:]NAME=VALUE")]
    pub(super) annotation: Vec<String>,
    /// When base images are asked for at their registry: always, missing or never
    #[arg(
        long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "always",
        default_value = "missing"
    )]
    pub(super) pull: String,
    /// Cache to read: type=registry,ref=REF | type=local,src=DIR | type=s3,bucket=NAME,region=REGION, or REF; may be
    /// repeated
    #[arg(long, value_name = "SPEC")]
    pub(super) cache_from: Vec<String>,
    /// Cache to write: type=registry,ref=REF | type=local,dest=DIR | type=s3,... | type=inline, with mode=min|max; may be
    /// repeated
    #[arg(long, value_name = "SPEC")]
    pub(super) cache_to: Vec<String>,
    /// Further build context: NAME=DIR, docker-image://REF, oci-layout://DIR[:TAG], the address of a git repository or
    /// archive
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) build_context: Vec<OsString>,
    /// Where the result goes, for example type=oci,dest=app.tar; may be repeated [default: the image store]
    #[arg(short, long, value_name = "DEST")]
    pub(super) output: Vec<String>,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// How progress is shown: auto, plain, tty, rawjson, quiet
    #[arg(long, value_name = "KIND", default_value = "auto", env = "BUILDKIT_PROGRESS")]
    pub(super) progress: String,
    /// Write the whole log of all steps to a file, too
    #[arg(long, value_name = "FILE")]
    pub(super) logfile: Option<PathBuf>,
    /// Network of RUN steps: default, none, host
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(super) network: String,
    /// Further line of /etc/hosts; may be repeated
    #[arg(long, value_name = "NAME:IP")]
    pub(super) add_host: Vec<String>,
    /// Name server of RUN steps; may be repeated
    #[arg(long, value_name = "IP")]
    pub(super) dns: Vec<IpAddr>,
    /// Search domain of RUN steps; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    pub(super) dns_search: Vec<String>,
    /// Option of the resolver in RUN steps; may be repeated
    #[arg(long, value_name = "OPTION")]
    pub(super) dns_option: Vec<String>,
    /// Most steps that run at once [default: as many as the graph allows]
    #[arg(short, long, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// Secret for RUN --mount=type=secret: id=ID[,src=FILE | ,env=NAME]
    #[arg(long, value_name = "SPEC")]
    pub(super) secret: Vec<String>,
    /// Agent for RUN --mount=type=ssh: default or ID=SOCKET
    #[arg(long, value_name = "SPEC")]
    pub(super) ssh: Vec<String>,
    /// Mount a directory of the host in every RUN step; what is in it does not count for the cache
    #[arg(short, long, value_name = "DIR:TARGET[:ro]")]
    pub(super) volume: Vec<OsString>,
    /// A RUN --mount for every RUN step
    #[arg(long, value_name = "SPEC")]
    pub(super) mount: Vec<String>,
    /// Extra right: network.host or security.insecure
    #[arg(long, value_name = "RIGHT", value_delimiter = ',')]
    pub(super) allow: Vec<String>,
    /// Security of RUN steps: no-new-privileges or seccomp=unconfined
    #[arg(long, value_name = "OPTION")]
    pub(super) security_opt: Vec<String>,
    /// Size of /dev/shm in RUN steps, for example 128m
    #[arg(long, value_name = "BYTES")]
    pub(super) shm_size: Option<String>,
    /// Limit of a RUN step's processes: NAME=SOFT[:HARD]
    #[arg(long, value_name = "LIMIT")]
    pub(super) ulimit: Vec<String>,
    /// Memory of a RUN step, for example 512m
    #[arg(short, long, value_name = "BYTES")]
    pub(super) memory: Option<String>,
    /// Memory and swap of a RUN step together; -1 is no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(super) memory_swap: Option<String>,
    /// Weight of a RUN step when processors are scarce [default of the kernel: 1024]
    #[arg(short, long, value_name = "N")]
    pub(super) cpu_shares: Option<u64>,
    /// Processor time of a RUN step in microseconds of each period
    #[arg(long, value_name = "MICROSECONDS")]
    pub(super) cpu_quota: Option<u64>,
    /// Length of that period in microseconds
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 100_000)]
    pub(super) cpu_period: u64,
    /// Processors that a RUN step may use, for example 0-2,5
    #[arg(long, value_name = "LIST")]
    pub(super) cpuset_cpus: Option<String>,
    /// Cgroup to put RUN steps below
    #[arg(long, value_name = "PATH")]
    pub(super) cgroup_parent: Option<PathBuf>,
    /// Ignore file [default: FILE.dockerignore beside the Dockerfile, else PATH/.dockerignore]
    #[arg(long, value_name = "FILE")]
    pub(super) ignorefile: Option<PathBuf>,
    /// Answer a question instead of building: check, outline or targets, with ,format=json
    #[arg(long, value_name = "WHAT", default_value = "build")]
    pub(super) call: String,
    /// Time of everything in the image in seconds since 1970, in place of SOURCE_DATE_EPOCH
    #[arg(long, visible_alias = "timestamp", value_name = "SECONDS")]
    pub(super) source_date_epoch: Option<String>,
    #[command(flatten)]
    pub(super) switches: Switches,
    #[command(flatten)]
    pub(super) elsewhere: Elsewhere,
}

/// Makes a group of flags that are on or off. As for docker `--flag`, `--flag=true` and `--flag=false` can be written.
macro_rules! switches {
    ($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Args)]
        pub(super) struct $name {
            $(
                $(#[$attr])*
                #[arg(
                    long, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
                    default_missing_value = "true", default_value = "false", value_name = "BOOL",
                    hide_default_value = true, hide_possible_values = true, value_parser = BoolishValueParser::new()
                )]
                pub(super) $field: bool,
            )*
        }
    };
}

switches! {
    /// Flags that are on or off.
    Switches {
        /// Run every step even when its result is known
        no_cache,
        /// Squash the new layers into one on top of the base image's
        squash,
        /// The image store; the default, accepted for docker's sake
        load,
        /// Print the image id and nothing else
        #[arg(short)]
        quiet,
        /// Say for each step that runs which of its inputs changed
        explain,
        /// Check the Dockerfile without building; the same as --call=check
        check,
    }
}

impl BuildArgs {
    /// Says whether the image's ID is to be printed or written down.
    pub(super) fn wants_id(&self) -> bool {
        self.switches.quiet || self.iidfile.is_some() || self.metadata_file.is_some()
    }
}

/// What other builders have: some of it is always so here, some is not available, and then it is said.
#[derive(Debug, Args)]
pub(super) struct Elsewhere {
    /// Times in layers are lowered to SOURCE_DATE_EPOCH whenever it is given
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) rewrite_timestamp: Option<String>,
    /// Push the image to the registries of its names
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) push: Option<String>,
    #[arg(long, hide = true)]
    pub(super) provenance: Option<String>,
    #[arg(long, hide = true)]
    pub(super) sbom: Option<String>,
    #[arg(long, hide = true)]
    pub(super) attest: Vec<String>,
    #[arg(long, hide = true)]
    pub(super) cpuset_mems: Option<String>,
    #[arg(long, hide = true)]
    pub(super) isolation: Option<String>,
    #[arg(long, hide = true)]
    pub(super) builder: Option<String>,
    #[command(flatten)]
    _always: Always,
}

switches! {
    /// Flags that change nothing here.
    Always {
        #[arg(hide = true)]
        rm,
        #[arg(hide = true)]
        force_rm,
        #[arg(hide = true)]
        compress,
        #[arg(hide = true)]
        layers,
        #[arg(short = 'D', hide = true)]
        debug,
    }
}
