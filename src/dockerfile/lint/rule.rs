//! The rules by name.

use std::sync::LazyLock;

use regex::Regex;

macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident = $slug:expr, $description:literal;)*) => {
        /// A build check.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule { $($(#[$doc])* $rule,)* }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Rule] = &[$(Rule::$rule,)*];

            /// Returns the name that `# check=skip=` takes.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$rule => stringify!($rule),)* }
            }

            /// Says what the rule is about.
            pub fn description(self) -> &'static str {
                match self { $(Rule::$rule => $description,)* }
            }

            fn slug(self) -> &'static str {
                match self { $(Rule::$rule => $slug,)* }
            }
        }
    };
}

rules! {
    /// A stage name with capitals.
    StageNameCasing = "stage-name-casing", "Stage names should be lowercase";
    /// `FROM a as b`.
    FromAsCasing = "from-as-casing", "The 'as' keyword should match the case of the 'from' keyword";
    /// A blank line inside an instruction.
    NoEmptyContinuation = "no-empty-continuation", "Empty continuation lines will become errors in a future release";
    /// `RUN` here and `copy` there.
    ConsistentInstructionCasing = "consistent-instruction-casing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)";
    /// Two stages of one name.
    DuplicateStageName = "duplicate-stage-name", "Stage names should be unique";
    /// A stage named `scratch` or `context`.
    ReservedStageName = "reserved-stage-name", "Reserved words should not be used as stage names";
    /// Shell form of CMD or ENTRYPOINT without a SHELL instruction.
    JSONArgsRecommended = "json-args-recommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals";
    /// MAINTAINER.
    MaintainerDeprecated = "maintainer-deprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author";
    /// A variable in FROM that is not declared.
    UndefinedArgInFrom = "undefined-arg-in-from", "FROM command must use declared ARGs";
    /// A relative WORKDIR before any absolute one.
    WorkdirRelativePath = "workdir-relative-path",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes";
    /// A variable that is not defined.
    UndefinedVar = "undefined-var", "Variables should be defined before their use";
    /// Two CMD, ENTRYPOINT or HEALTHCHECK in a stage.
    MultipleInstructionsDisallowed = "multiple-instructions-disallowed",
        "Multiple instructions of the same type should not be used in the same stage";
    /// `ENV key value`.
    LegacyKeyValueFormat = "legacy-key-value-format",
        "Legacy key/value format with whitespace separator should not be used";
    /// A base image of the wrong platform.
    InvalidBaseImagePlatform = "", "Base image platform does not match expected target platform";
    /// `--platform=$TARGETPLATFORM`.
    RedundantTargetPlatform = "redundant-target-platform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior";
    /// `ARG PASSWORD`.
    SecretsUsedInArgOrEnv = "secrets-used-in-arg-or-env",
        "Sensitive data should not be used in the ARG or ENV commands";
    /// A base name that is no name without build arguments.
    InvalidDefaultArgInFrom = "invalid-default-arg-in-from",
        "Default value for global ARG results in an empty or invalid base image name";
    /// `--platform=linux/amd64`.
    FromPlatformFlagConstDisallowed = "from-platform-flag-const-disallowed",
        "FROM --platform flag should not use a constant value";
    /// COPY of a file that the ignore file excludes.
    CopyIgnoredFile = "copy-ignored-file", "Attempting to Copy file that is excluded by .dockerignore";
    /// A comment above a stage or an argument that does not describe it.
    InvalidDefinitionDescription = "invalid-definition-description",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.";
    /// `EXPOSE 80/TCP`.
    ExposeProtoCasing = "expose-proto-casing", "Protocol in EXPOSE instruction should be lowercase";
    /// `EXPOSE 127.0.0.1:80:80`.
    ExposeInvalidFormat = "expose-invalid-format",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release";
}

impl Rule {
    /// Returns the page that explains the rule.
    pub fn url(self) -> Option<String> {
        let slug = self.slug();
        (!slug.is_empty()).then(|| format!("https://docs.docker.com/go/dockerfile/rule/{slug}/"))
    }

    /// Tells whether the rule only works when it is asked for.
    pub fn is_experimental(self) -> bool {
        self == Rule::InvalidDefinitionDescription
    }
}

/// Tells whether the name of a variable suggests that its value is secret.
pub(crate) fn names_a_secret(name: &str) -> bool {
    static SECRET: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new("(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)")
            .expect("a constant pattern")
    });
    static HARMLESS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new("(?i)(?:_|^)(?:public|file|version)(?:_|$)").expect("a constant pattern")
    });
    SECRET.is_match(name) && !HARMLESS.is_match(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for (name, secret) in [
            ("PASSWORD", true),
            ("github_token", true),
            ("TOKEN_URL", true),
            ("AUTH", true),
            ("PUBLIC_KEY", false),
            ("KEY_FILE", false),
            ("KEYBOARD", false),
            ("AUTHOR", false),
            ("PATH", false),
        ] {
            assert_eq!(names_a_secret(name), secret, "{name}");
        }
    }

    #[test]
    fn there_are_twenty_two() {
        assert_eq!(Rule::ALL.len(), 22);
        assert_eq!(Rule::JSONArgsRecommended.name(), "JSONArgsRecommended");
    }
}
