//! Where secrets may not be found after a build, or while it runs.

use crate::common::process::Running;
use crate::common::{TestSpace, archive};
use crate::containers::holding;
use std::fs;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// Values that occur nowhere else.
const SECRETS: [&str; 5] = [
    "s3cretOfAFile-9f1",
    "s3cretOfTheEnv-7c2",
    "s3cretOfAnArg-4d8",
    "s3cretOfAnAddress-6b3",
    "s3cretOfARegistry-2e5",
];

fn secret_in(text: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(text);
    SECRETS.into_iter().find(|secret| text.contains(secret))
}

#[test]
fn secrets_are_nowhere_but_where_they_were_asked_for() {
    let space = TestSpace::new().with_busybox();
    let [file, env, arg, address, password] = SECRETS;
    space.write("home/file", file);
    let context = space.dockerfile(&format!(
        "FROM busybox AS builder\nARG TOKEN\nRUN test -n \"$TOKEN\" && echo used > /used\n\
         FROM busybox\nCOPY --from=builder /used /used\n\
         RUN --mount=type=secret,id=file --mount=type=secret,id=env --mount=type=secret,id=env,env=GIVEN \
         test \"$(cat /run/secrets/file)\" = {} && test -n \"$GIVEN\" && echo ready && sleep 2 && cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n' | grep -v GIVEN | grep -c s3cret; wc -c /run/secrets/env > /size\n",
        // not itself, or the Dockerfile would be a place where it is
        "s3cret\"\"OfAFile-9f1",
    ));
    let args = [
        "build",
        "--progress",
        "plain",
        "--secret",
        "id=file,src=home/file",
        "--secret",
        "id=env,env=CI_TOKEN",
        "--build-arg",
        "TOKEN",
        "-t",
        "done",
        "-o",
        "type=docker,dest=out/image.tar",
        context.to_str().unwrap(),
    ];
    space.mkdir("out");
    let mut command = space.command(args);
    command.env("CI_TOKEN", env).env("TOKEN", arg);
    let mut running = Running::start(&mut command);
    running.wait_for("ready\n", MINUTE);
    // Every user may list processes: no argument holds a secret, and besides rbuild's own no environment.
    let mut own = 0;
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Ok(pid) = name.to_string_lossy().parse::<u32>() else { continue };
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        assert_eq!(secret_in(&read("cmdline")), None, "in the arguments of {pid}");
        let environ = read("environ");
        let root = fs::read_link(entry.path().join("root")).unwrap_or_default();
        if let Some(secret) = secret_in(&environ) {
            let step = String::from_utf8_lossy(&environ).contains("GIVEN=");
            assert!(
                pid == running.child.id() || step,
                "{secret} in the environment of {pid} ({}) {}",
                root.display(),
                String::from_utf8_lossy(&read("cmdline"))
            );
            own += 1;
        }
    }
    assert!(own > 0, "the environment of the build was not looked at");
    let built = running.wait(MINUTE).ok();
    assert_eq!(secret_in((built.stdout + &built.stderr).as_bytes()), None);

    // Failures of all kinds that have a secret at hand.
    for (what, text, flags) in [
        (
            "a step that fails",
            "FROM busybox\nARG TOKEN\nRUN --mount=type=secret,id=file,required false\n",
            &[][..],
        ),
        ("an address", &*format!("FROM busybox\nADD http://user:{address}@127.0.0.1:1/x /x\n"), &[]),
        ("a git address", &*format!("FROM busybox\nADD https://user:{address}@127.0.0.1:1/x.git /x\n"), &[]),
        (
            "a context",
            "FROM busybox\n",
            &["--build-context", "x=https://user:s3cretOfAnAddress-6b3@127.0.0.1:1/x.git"],
        ),
    ] {
        let context = space.dockerfile(text);
        let mut args = vec![
            "build",
            "--progress",
            "plain",
            "--no-cache",
            "--secret",
            "id=file,src=home/file",
            "--build-arg",
            "TOKEN",
        ];
        args.extend(flags);
        args.push(context.to_str().unwrap());
        let mut command = space.command(&args);
        command.env("CI_TOKEN", env).env("TOKEN", arg);
        let done = crate::common::process::finish(&mut command, None, MINUTE);
        if what != "a context" {
            assert!(!done.status.success(), "{what}\n{done}");
        }
        assert_eq!(secret_in((done.stdout.clone() + &done.stderr).as_bytes()), None, "{what}\n{done}");
    }
    let address = format!("https://user:{address}@127.0.0.1:1/x.git");
    let done = space.rbuild(["build", &address]);
    assert!(!done.status.success() && secret_in(done.stderr.as_bytes()).is_none(), "{done}");
    let done =
        space.rbuild_fed(["login", "-u", "me", "--password-stdin", "127.0.0.1:1"], password.as_bytes());
    assert!(!done.status.success() && secret_in(done.stderr.as_bytes()).is_none(), "{done}");

    // The store, its logs, keys, records and index, the image and its history.
    fs::remove_file(space.path("home/file")).unwrap();
    for dir in ["store", "out", "tmp", "run", "home"] {
        // how all of them begin
        assert_eq!(holding(&space.path(dir), "s3cretOf"), None, "a secret is in {dir}");
    }
    let image = archive::Image::from_docker(&space.path("out/image.tar"));
    assert_eq!(secret_in(image.config.to_string().as_bytes()), None);
    for command in
        [&["history", "--no-trunc", "done"][..], &["inspect", "done"], &["images"], &["system", "df", "-v"]]
    {
        assert_eq!(secret_in(space.rbuild(command).ok().stdout.as_bytes()), None, "{command:?}");
    }
}
