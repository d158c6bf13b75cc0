//! RUN and its mounts.

use super::*;

fn run(lines: &str) -> RunOp {
    planned(&format!("FROM busybox AS other\nFROM busybox\nWORKDIR /w\n{lines}")).runs()[0].clone()
}

#[test]
fn shell_and_exec_forms() {
    let args = |line: &str| run(line).args.join("|");
    assert_eq!(args("RUN echo  $X 'q'"), "/bin/sh|-c|echo  $X 'q'");
    assert_eq!(args("RUN [\"echo\", \"$X\"]"), "echo|$X");
    assert_eq!(args("SHELL [\"/bin/bash\", \"-xc\"]\nRUN a \\\n  b"), "/bin/bash|-xc|a   b");
    assert_eq!(args("RUN <<-EOF\n\techo $X\n\tEOF\n"), "/bin/sh|-c|echo $X\n");
    assert_eq!(
        args("RUN <<A cat >a && <<B cat >b\n1\nA\n2\nB\n"),
        "/bin/sh|-c|<<A cat >a && <<B cat >b\n1\nA\n2\nB"
    );
    let script = run("RUN <<EOF\n#!/usr/bin/env python\nprint(1)\nEOF\n");
    assert_eq!(script.args.join("|"), "/bin/sh|-c|/dev/pipes/EOF");
    assert_eq!(script.scripts, [("EOF".to_owned(), "#!/usr/bin/env python\nprint(1)\n".to_owned())]);
}

#[test]
fn user_directory_and_host_name() {
    let op = run("ENV U=me\nUSER $U:grp\nWORKDIR sub\nRUN x");
    assert_eq!(
        (op.user.as_str(), op.cwd.as_str(), op.hostname.as_str()),
        ("me:grp", "/w/sub", "buildkitsandbox")
    );
    let text = "FROM busybox\nRUN x\n";
    let named = planned_with(text, &PlanOptions { hostname: Some("h".into()), ..options() });
    assert_eq!(named.runs()[0].hostname, "h");
    assert_eq!(planned_with(text, &with_args(&[("BUILDKIT_SANDBOX_HOSTNAME", "b")])).runs()[0].hostname, "b");
}

#[test]
fn networks() {
    let network = |line: &str, options: &PlanOptions| planned_with(line, options).runs()[0].network;
    let plain = options();
    assert_eq!(network("FROM busybox\nRUN x\n", &plain), RunNetwork::Default);
    assert_eq!(network("FROM busybox\nRUN --network=none x\n", &plain), RunNetwork::None);
    let host = PlanOptions { network: RunNetwork::Host, ..options() };
    assert_eq!(network("FROM busybox\nRUN x\n", &host), RunNetwork::Host);
    assert_eq!(network("FROM busybox\nRUN --network=none x\n", &host), RunNetwork::None);
    let allowed = PlanOptions { allow_host_network: true, allow_insecure: true, ..options() };
    assert_eq!(network("FROM busybox\nRUN --network=host x\n", &allowed), RunNetwork::Host);
    assert!(planned_with("FROM busybox\nRUN --security=insecure x\n", &allowed).runs()[0].insecure);
}

#[test]
fn bind_and_cache_mounts() {
    let op = run("ENV D=d\nRUN --mount=target=$D --mount=type=bind,from=other,source=/s/../t/,target=/t,rw \
                  --mount=type=cache,target=/c/,id=i-$D,sharing=locked,mode=0700,uid=1,gid=2 \
                  --mount=type=cache,target=c2,from=other,ro x");
    let bind = |target: &str, from: From, source: &str, writable| RunMount::Bind {
        target: target.into(),
        from,
        source: source.into(),
        writable,
    };
    assert_eq!(op.mounts[0], bind("/w/d", From::Context(String::new()), "/", false));
    assert_eq!(op.mounts[1], bind("/t", From::Vertex, "/t", true));
    let cache = |target: &str, id: &str, sharing, from, look, readonly| RunMount::Cache {
        target: target.into(),
        id: id.into(),
        sharing,
        from,
        source: "/".into(),
        look,
        readonly,
    };
    assert_eq!(
        op.mounts[2],
        cache("/c", "/i-d", Sharing::Locked, From::Empty, Some(Look { mode: 0o700, uid: 1, gid: 2 }), false)
    );
    assert_eq!(op.mounts[3], cache("/w/c2", "/c2", Sharing::Shared, From::Vertex, None, true));
}

#[test]
fn caches_have_a_name_space() {
    let text = "FROM busybox\nRUN --mount=type=cache,target=/c x\n";
    let id = |plan: Plan| match &plan.runs()[0].mounts[0] {
        RunMount::Cache { id, .. } => id.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(id(planned(text)), "//c");
    assert_eq!(id(planned_with(text, &with_args(&[("BUILDKIT_CACHE_MOUNT_NS", "n")]))), "n//c");
}

#[test]
fn edges_say_which_mount_takes_from_where() {
    let text = "FROM busybox AS a\nRUN a\nFROM debian AS b\nRUN b\nFROM busybox\n\
                RUN --mount=type=tmpfs,target=/t --mount=from=b,target=/b --mount=from=a,target=/a x\n";
    let plan = planned(text);
    let roles: Vec<_> = plan
        .inputs(plan.target)
        .into_iter()
        .map(|(role, from)| (role, plan.graph[from].label.clone()))
        .collect();
    assert_eq!(
        roles,
        [
            (Role::Base, "[a 1/2] FROM busybox".to_owned()),
            (Role::Mount(1), "[b 2/2] RUN b".to_owned()),
            (Role::Mount(2), "[a 2/2] RUN a".to_owned()),
        ]
    );
}

#[test]
fn secrets_and_agents() {
    let op = run("RUN --mount=type=secret,id=k --mount=type=secret,target=/x/t,mode=0440,uid=5,required \
                  --mount=type=secret,id=e,env=E --mount=type=ssh --mount=type=ssh,id=two,target=/s x");
    let secret = |index: usize| match &op.mounts[index] {
        RunMount::Secret { target, id, env, required, mode, uid, .. } => {
            (target.as_deref(), id.as_str(), env.as_deref(), *required, *mode, *uid)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(secret(0), (Some("/run/secrets/k"), "k", None, false, 0o400, 0));
    assert_eq!(secret(1), (Some("/x/t"), "t", None, true, 0o440, 5));
    assert_eq!(secret(2), (None, "e", Some("E"), false, 0o400, 0));
    let ssh = |index: usize| match &op.mounts[index] {
        RunMount::Ssh { target, id, mode, .. } => (target.as_str(), id.as_str(), *mode),
        other => panic!("{other:?}"),
    };
    assert_eq!(ssh(3), ("/run/buildkit/ssh_agent.0", "default", 0o600));
    assert_eq!(ssh(4), ("/s", "two", 0o600));
    assert_eq!(op.env("SSH_AUTH_SOCK"), Some("/run/buildkit/ssh_agent.0"));
}

#[test]
fn labels_show_values_but_no_secret() {
    let text = "FROM busybox\nENV V=1 KEY=public\nRUN --mount=type=secret,id=k,env=KEY echo \"$V\" $KEY ${W:-w} \\$V\nRUN <<EOF\nfirst\nsecond\nEOF\n";
    let plan = planned(text);
    assert_eq!(plan.labels()[1], "[2/3] RUN --mount=type=secret,id=k,env=KEY echo \"1\" **** ${W:-w} $V");
    assert_eq!(plan.labels()[2], "[3/3] RUN <<EOF (first...)");
}

#[test]
fn no_cache_is_for_steps_of_all_or_some_stages() {
    let text = "FROM busybox AS a\nRUN a\nFROM busybox\nWORKDIR /w\nCOPY --from=a / /\n";
    let flags = |options: &PlanOptions| {
        let plan = planned_with(text, options);
        plan.graph.node_weights().filter(|v| v.no_cache).map(|v| v.label.clone()).collect::<Vec<_>>()
    };
    assert_eq!(flags(&options()), [""; 0]);
    assert_eq!(flags(&PlanOptions { no_cache: true, ..options() }).len(), 2);
    let some = PlanOptions { no_cache_filter: vec!["A".into()], ..options() };
    assert_eq!(flags(&some), ["[a 2/2] RUN a"]);
}
