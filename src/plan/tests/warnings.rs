//! The checks that planning makes.

use super::*;

fn warnings(text: &str) -> Vec<String> {
    let index = crate::dockerfile::LineIndex::new(text.as_bytes());
    let line = |warning: &Warning| {
        format!(
            "{}: {}: {}",
            index.position(warning.spans[0].start).line,
            warning.rule.name(),
            warning.message
        )
    };
    planned(text).warnings.iter().map(line).collect()
}

#[test]
fn each_check_has_a_case() {
    for (text, want) in [
        (
            "FROM busybox\nENV VERSION=1\nLABEL x=$VERSON y=$VERSION\n",
            &["3: UndefinedVar: Usage of undefined variable '$VERSON' (did you mean $VERSION?)"][..],
        ),
        ("FROM busybox\nARG B\nLABEL x=$B\n", &[]),
        (
            "ARG TAG=x\nFROM busybox:${TAAG:-latest}\n",
            &["2: UndefinedArgInFrom: FROM argument 'TAAG' is not declared (did you mean TAG?)"],
        ),
        ("ARG TAG\nFROM busybox:${TAG:-latest}\n", &[]),
        ("ARG I=:\nFROM ${I#:}busybox\n", &[]),
        (
            "FROM busybox\nWORKDIR a\nWORKDIR b\n",
            &[
                "2: WorkdirRelativePath: Relative workdir \"a\" can have unexpected results if the base image changes",
            ],
        ),
        ("FROM busybox\nWORKDIR /\nWORKDIR b\n", &[]),
        ("FROM busybox\nSHELL [\"x\"]\nCMD a\n", &[]),
        (
            "FROM busybox\nCMD [\"a\"]\nENTRYPOINT [\"a\"]\nHEALTHCHECK NONE\nCMD [\"b\"]\n",
            &[
                "2: MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used",
            ],
        ),
        ("FROM busybox AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n", &[]),
        (
            "FROM busybox\nARG API_KEY\n",
            &[
                "2: SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"API_KEY\")",
            ],
        ),
        (
            "FROM busybox\nEXPOSE 80/TCP 1.2.3.4:1:2\n",
            &[
                "2: ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '1.2.3.4:1:2'",
                "2: ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
            ],
        ),
        (
            "FROM --platform=$TARGETPLATFORM busybox\n",
            &[
                "1: RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ],
        ),
        ("FROM --platform=$BUILDPLATFORM busybox\n", &[]),
        (
            "FROM --platform=linux/amd64 busybox\n",
            &[
                "1: FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\"",
            ],
        ),
        ("FROM --platform=linux/amd64 busybox AS build-amd64\n", &[]),
        (
            "FROM busybox\nRUN --mount=type=cache,id=$NONE,target=/c x\n",
            &["2: UndefinedVar: Usage of undefined variable '$NONE'"],
        ),
        (
            "FROM busybox AS p\nONBUILD LABEL x=$NONE\nFROM p\n",
            &["3: UndefinedVar: Usage of undefined variable '$NONE'"],
        ),
    ] {
        assert_eq!(warnings(text), want, "{text}");
    }
}

#[test]
fn unwanted_checks_are_not_heard() {
    assert_eq!(warnings("# check=skip=UndefinedVar\nFROM busybox\nLABEL x=$NONE\n"), [""; 0]);
    assert_eq!(warnings("FROM busybox\n# check=skip=UndefinedVar\nLABEL x=$NONE\n"), [""; 0]);
    let text = "# check=skip=all\nFROM busybox\nLABEL x=$NONE\n";
    let plan = planned_with(text, &with_args(&[("BUILDKIT_DOCKERFILE_CHECK", "error=true")]));
    assert_eq!((plan.warnings.len(), plan.warnings_are_errors), (1, true));
    assert!(
        fails_with(text, &with_args(&[("BUILDKIT_DOCKERFILE_CHECK", "eror=true")]))
            .contains("BUILDKIT_DOCKERFILE_CHECK")
    );
}

#[test]
fn a_base_name_without_its_build_arg() {
    let text = "ARG TAG\nFROM busybox:$TAG\n";
    let plan = planned_with(text, &with_args(&[("TAG", "latest")]));
    assert_eq!(
        plan.warnings[0].message,
        "Default value for ARG busybox:$TAG results in empty or invalid base image name"
    );
}
