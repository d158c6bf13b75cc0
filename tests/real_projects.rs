//! Whole projects as people have them: built, changed, built again and run.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::process::{Running, eventually};
use common::{TestSpace, root_or_skip};
use nix::sys::signal::Signal;

#[test]
fn a_c_program_compiled_in_one_stage_and_shipped_in_another() {
    let space = TestSpace::new().with_busybox().with_debian();
    let project = space.fixture("hello-c");
    space.build(&project, &["-t", "hello"]).ok();
    let said = space.rbuild(["run", "--rm", "--network", "none", "hello"]).ok().stdout;
    assert_eq!(said, "Hello, world! This is version 0.1, uid 65534, with 3 words to say.\n");
    let said = space.rbuild(["run", "--rm", "--network", "none", "hello", "reader"]).ok().stdout;
    assert!(said.starts_with("Hello, reader!"), "{said}");

    // The compiler stays behind.
    let size = |image: &str| space.inspect(image)["Size"].as_u64().unwrap();
    assert!(size("hello") < 20 << 20, "{} bytes", size("hello"));

    space.build(&project, &["-t", "hello"]).ok().assert_executed(&[]);

    space.write("hello-c/words.txt", "bread\nsalt\n");
    space.build(&project, &["-t", "hello"]).ok().assert_executed(&["COPY words.txt"]);

    // A comment changes the source and not the program: the rebuild ends at the compiler's output.
    let source = fs::read_to_string(project.join("src/main.c")).unwrap();
    space.write("hello-c/src/main.c", source.replace("int main(", "/* starts here */ int main("));
    let built = space.build(&project, &["-t", "hello"]).ok();
    built.assert_executed(&["COPY src/", "RUN make"]);

    let built = space.build(&project, &["-t", "hello", "--build-arg", "VERSION=0.2"]).ok();
    built.assert_executed(&["RUN make", "COPY --from=build", "COPY words.txt"]);
    let said = space.rbuild(["run", "--rm", "--network", "none", "hello"]).ok().stdout;
    assert_eq!(said, "Hello, world! This is version 0.2, uid 65534, with 2 words to say.\n");
}

#[test]
fn a_python_web_service_answers_over_http() {
    let space = TestSpace::new().with_debian();
    let project = space.fixture("web-python");
    space.build(&project, &["-t", "web"]).ok();

    let port = common::registry::free_port().to_string();
    let setting = format!("PORT={port}");
    let host =
        Running::start(&mut space.command(["run", "--rm", "--network", "host", "-e", &setting, "web"]));
    serves(host, &format!("127.0.0.1:{port}"));

    if root_or_skip() {
        let mut bridged = Running::start(&mut space.command(["run", "--rm", "--network", "bridge", "web"]));
        bridged.wait_for("serving at ", Duration::from_secs(60));
        let said = bridged.so_far();
        let address =
            said.split("serving at ").nth(1).and_then(|rest| rest.lines().next()).unwrap().to_owned();
        assert!(!address.starts_with("127."), "the container has no address of its own: {address}");
        serves(bridged, &address);
    }
    space.assert_nothing_runs();
}

/// Insists that the service answers at `address` and ends well when it is told to.
fn serves(mut service: Running, address: &str) {
    service.wait_for("serving at ", Duration::from_secs(60));
    eventually("the service listens", Duration::from_secs(30), || TcpStream::connect(address).is_ok());
    let page = get(address, "/");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.contains("<p>Served by web.</p>"), "{page}");
    let about = get(address, "/about");
    let about: serde_json::Value = serde_json::from_str(about.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(about, serde_json::json!({"user": "web", "where": "/srv/web", "pid": 1}));
    service.signal(Signal::SIGTERM);
    service.wait(Duration::from_secs(30)).ok();
}

/// The whole answer to a GET.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_base_with_triggers_and_an_application_on_it() {
    let space = TestSpace::new().with_busybox();
    let base = space.fixture("onbuild-base");
    let app = space.fixture("onbuild-app");
    let built = space.build(&base, &["-t", "app-base"]).ok();
    assert!(!built.executed().iter().any(|title| title.contains("build-app \"$GREETING\"")), "{built}");
    assert_eq!(space.inspect("app-base")["Config"]["OnBuild"].as_array().map(Vec::len), Some(3));

    space.build(&app, &["-t", "app"]).ok();
    assert_eq!(space.stdout_of("app", &[]), "hello from /app\none.txt\ntwo.txt\n");
    assert_eq!(space.stdout_of("app", &["cat", "/app/lines"]), "3\n");
    let triggers = &space.inspect("app")["Config"]["OnBuild"];
    assert!(triggers.as_array().is_none_or(Vec::is_empty), "a child keeps no triggers: {triggers}");

    space.build(&app, &["-t", "app", "--build-arg", "GREETING=good day"]).ok();
    assert_eq!(space.stdout_of("app", &[]), "good day from /app\none.txt\ntwo.txt\n");

    // A grandchild runs them no more.
    let context = space.dockerfile("FROM app\nRUN echo grandchild > /tmp/x\n");
    space.build(&context, &["-t", "grandchild"]).ok().assert_executed(&["RUN echo grandchild"]);
}

#[test]
fn a_context_of_twenty_thousand_files() {
    let space = TestSpace::new().with_busybox();
    for folder in 0..200 {
        let (module, object) = (format!("ctx/src/m{folder:03}"), format!("ctx/obj/m{folder:03}"));
        space.mkdir(&module);
        space.mkdir(&object);
        for file in 0..50 {
            fs::write(space.path(&format!("{module}/f{file}.c")), format!("int f{folder}_{file};\n"))
                .unwrap();
            fs::write(space.path(&format!("{object}/f{file}.o")), [folder as u8; 64]).unwrap();
        }
    }
    space.write("ctx/.dockerignore", "# built things\n**/*.o\n!obj/m007/*.o\n.git\n");
    let context = space.dockerfile(
        "FROM busybox\nCOPY . /all/\nRUN find /all -type f | wc -l > /count && find /all -name '*.o' | wc -l > /objects\n",
    );
    space.build(&context, &["-t", "big"]).ok();
    // The sources, one folder of objects, the Dockerfile and the ignore file.
    assert_eq!(space.stdout_of("big", &["cat", "/count", "/objects"]), "10052\n50\n");

    let start = Instant::now();
    space.build(&context, &["-t", "big"]).ok().assert_executed(&[]);
    let again = start.elapsed();
    assert!(again < Duration::from_secs(10), "an unchanged context took {again:?}");

    space.write("ctx/obj/m000/f0.o", "changed, but ignored");
    space.build(&context, &["-t", "big"]).ok().assert_executed(&[]);

    let mut changed = String::new();
    write!(changed, "int changed;").unwrap();
    space.write("ctx/src/m123/f45.c", &changed);
    space.build(&context, &["-t", "big"]).ok().assert_executed(&["COPY . /all/", "RUN find"]);
    assert_eq!(space.stdout_of("big", &["cat", "/all/src/m123/f45.c"]), changed);
}
