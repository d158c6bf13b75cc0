//! What instructions do to the config of the image.

use super::*;

fn config(text: &str) -> crate::oci::Config {
    planned(text).config.config
}

fn words(items: &[&str]) -> Option<Vec<String>> {
    Some(items.iter().map(|item| (*item).to_owned()).collect())
}

#[test]
fn entrypoint_drops_the_cmd_of_others() {
    for (text, cmd) in [
        ("FROM busybox\nENTRYPOINT [\"e\"]\n", None),
        ("FROM busybox\nENTRYPOINT [\"e\"]\nCMD [\"c\"]\n", words(&["c"])),
        ("FROM busybox\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n", words(&["c"])),
        ("FROM busybox AS a\nCMD [\"c\"]\nFROM a\nENTRYPOINT [\"e\"]\n", None),
        ("FROM busybox\nENTRYPOINT []\n", None),
    ] {
        assert_eq!(config(text).cmd, cmd, "{text}");
    }
}

#[test]
fn shell_forms_freeze_the_shell_in_force() {
    let text = "FROM busybox\nCMD a  b\nSHELL [\"/bin/bash\", \"-c\"]\nENTRYPOINT x $Y\nSHELL [\"/bin/ash\", \"-c\"]\n";
    let config = config(text);
    assert_eq!(config.cmd, words(&["/bin/sh", "-c", "a  b"]));
    assert_eq!(config.entrypoint, words(&["/bin/bash", "-c", "x $Y"]));
    assert_eq!(config.shell, words(&["/bin/ash", "-c"]));
    assert_eq!(config.args_escaped, Some(true));
}

#[test]
fn empty_lists_are_null() {
    let config = config("FROM debian\nCMD []\nENTRYPOINT []\n");
    assert_eq!((config.cmd, config.entrypoint), (None, None));
}

#[test]
fn a_base_config_is_inherited_without_what_was_true_of_it_alone() {
    let plan = planned("FROM debian\nENV A=new B=2\nLABEL x=y\n");
    let config = &plan.config.config;
    assert_eq!(config.env, ["A=new", PATH, "B=2"]);
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("www", "/srv"));
    assert_eq!((&config.cmd, &config.entrypoint), (&words(&["bash"]), &words(&["/init"])));
    assert_eq!(config.labels.len(), 2);
    assert!(config.other.is_empty() && plan.config.other.is_empty());
    assert!(plan.config.created.is_none() && plan.config.history.is_empty());
    assert_eq!(plan.base.unwrap().config.history.len(), 1);
}

#[test]
fn scratch_has_a_path_and_the_root() {
    let plan = planned("FROM scratch\nCMD [\"/x\"]\n");
    assert_eq!(plan.config.config.env, [PATH]);
    assert_eq!(plan.config.config.working_dir, "/");
    assert!(plan.base.is_none() && plan.layers.is_empty());
    assert_eq!(plan.graph[plan.target].op, Op::Scratch);
}

#[test]
fn ports_volumes_signals_and_health() {
    let text = "FROM busybox\nENV P=\"81/UDP 82\"\nEXPOSE 90 8000-8001 $P\nVOLUME /b /a\nVOLUME [\"/c d\"]\nSTOPSIGNAL 9\n\
                HEALTHCHECK --interval=30s CMD [\"x\", \"$Y\"]\n";
    let plan = planned(text);
    let config = &plan.config.config;
    assert_eq!(
        config.exposed_ports.keys().collect::<Vec<_>>(),
        ["8000/tcp", "8001/tcp", "81/udp", "82/tcp", "90/tcp"]
    );
    assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/a", "/b", "/c d"]);
    assert_eq!(config.stop_signal.as_deref(), Some("9"));
    let check = config.healthcheck.as_ref().unwrap();
    assert_eq!(
        (check.test.as_slice(), check.interval),
        (&["CMD", "x", "$Y"].map(str::to_owned)[..], 30_000_000_000)
    );
    assert_eq!(
        plan.lines_of_history()[1..],
        [
            "EXPOSE [81/udp 82/tcp 8000/tcp 8001/tcp 90/tcp]",
            "VOLUME [/b /a]",
            "VOLUME [/c d]",
            "STOPSIGNAL 9",
            "HEALTHCHECK {Test:[CMD x $Y] Interval:30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
        ]
    );
}

#[test]
fn a_new_healthcheck_replaces_all_of_the_old() {
    let text = "FROM busybox AS a\nHEALTHCHECK --retries=5 CMD x\nFROM a\nHEALTHCHECK CMD y\n";
    let check = config(text).healthcheck.unwrap();
    assert_eq!((check.test, check.retries), (vec!["CMD-SHELL".to_owned(), "y".to_owned()], 0));
    assert_eq!(config("FROM busybox\nHEALTHCHECK NONE\n").healthcheck.unwrap().test, ["NONE"]);
}

#[test]
fn working_dirs_join_and_make_directories() {
    let text =
        "FROM debian\nWORKDIR a\nWORKDIR ../b/\nUSER 5\nENV D=/abs\nWORKDIR $D/x/../y/\nWORKDIR /\nRUN pwd\n";
    let plan = planned(text);
    let made: Vec<_> = plan
        .graph
        .node_weights()
        .filter_map(|vertex| match &vertex.op {
            Op::Workdir(op) => Some((op.path.as_str(), op.user.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(made, [("/srv/a", "www"), ("/srv/b", "www"), ("/abs/y", "5")]);
    assert_eq!(plan.config.config.working_dir, "/");
    assert_eq!(plan.runs()[0].cwd, "/");
    assert_eq!(plan.layers.len(), 4);
    let history = plan.lines_of_history();
    assert_eq!((history[0].as_str(), history[5].as_str()), ("+ WORKDIR /srv/a", "WORKDIR /"));
    assert_eq!(history[4], "+ WORKDIR /abs/x/../y/");
}

#[test]
fn labels_of_the_command_line_come_last() {
    let mut options = options();
    options.labels = vec![("a".into(), "cli".into()), ("c".into(), String::new())];
    let plan = planned_with("FROM debian\nLABEL a=file b=$NOPE\n", &options);
    let labels: Vec<_> = plan.config.config.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(labels, ["a=cli", "b=", "c=", "from=debian"]);
}

#[test]
fn the_platform_of_the_image_is_that_of_the_base_unless_asked_for() {
    let plan = planned("FROM arm\nRUN x\n");
    assert_eq!(
        (plan.config.architecture.as_str(), plan.runs()[0].platform.architecture.as_str()),
        ("arm64", "arm64")
    );
    assert_eq!(plan.warnings[0].rule.name(), "InvalidBaseImagePlatform");
    let options = PlanOptions { platform: Some("linux/amd64".parse().unwrap()), ..options() };
    assert_eq!(planned_with("FROM arm\nRUN x\n", &options).config.architecture, "amd64");
}

#[test]
fn maintainer_is_the_author() {
    let plan = planned("FROM busybox\nMAINTAINER Jo <jo@x>\n");
    assert_eq!(plan.config.author.as_deref(), Some("Jo <jo@x>"));
    assert_eq!(plan.lines_of_history(), ["MAINTAINER Jo <jo@x>"]);
}
