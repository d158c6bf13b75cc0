//! Registries that want to know who asks: passwords over TLS with a CA of their own, tokens, credential helpers.

mod common;

use common::registry::Registry;
use common::token::{self, IDENTITY, PASSWORD, SERVICE, TokenServer, USER};
use common::{TestSpace, tools_or_skip};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// `me:s3cret:pass` as htpasswd -B has it.
const HTPASSWD: &str = "me:$2b$04$i8e38dZJC4IGOVQTxwxX9u7Pviw8muKFqoWRRMGbReLUOU5jDLGnq\n";

/// A registry with https, a certificate that nobody knows, and a password.
fn with_password(space: &TestSpace) -> Option<Registry> {
    if !tools_or_skip(&["openssl", "docker-registry"]) {
        return None;
    }
    let (_, cert, key) = token::authority(space, "registry");
    let users = space.write("htpasswd", HTPASSWD);
    let auth = format!("auth:\n  htpasswd: {{realm: \"basic realm\", path: {}}}\n", users.display());
    let tls = format!("  tls: {{certificate: {}, key: {}}}\n", cert.display(), key.display());
    Registry::start_with(space, "registry", &auth, &tls)
}

fn login(space: &TestSpace, host: &str, password: &str, flags: &[&str]) -> common::Done {
    let mut args = vec!["login", "-u", USER, "--password-stdin", host];
    args.extend(flags);
    space.rbuild_fed(args, password.as_bytes())
}

#[test]
fn passwords_go_over_tls_with_a_ca_of_its_own() {
    let space = TestSpace::new().with_busybox();
    let Some(registry) = with_password(&space) else { return };
    let host = registry.host.clone();
    let name = format!("{host}/team/app:1");
    space.rbuild(["tag", "busybox", &name]).ok();
    // nobody vouches for the certificate
    let unknown = login(&space, &host, PASSWORD, &[]);
    unknown.refuses(1, &["certificate is not trusted", "certs.d"]);
    // the two ways to live with it
    login(&space, &host, PASSWORD, &["--tls-verify=false"]).ok();
    space.rbuild(["logout", &host]).ok();
    let certs = space.mkdir(&format!("certs/{host}"));
    fs::copy(space.path("registry-ca.crt"), certs.join("ca.crt")).unwrap();
    let trust = ["--cert-dir", space.path("certs").to_str().unwrap()].map(str::to_owned);
    let trust: Vec<&str> = trust.iter().map(String::as_str).collect();

    login(&space, &host, "wrong", &trust).refuses(1, &["login to", "failed"]);
    assert!(!space.path("home/.docker/config.json").exists() || !config(&space).contains("d3Jvbmc"));
    let denied = space.rbuild(["push", &name].iter().chain(&trust));
    denied.refuses(1, &["denies access to team/app", &format!("rbuild login {host}")]);
    let done = login(&space, &host, PASSWORD, &trust).ok();
    assert!(done.stdout.contains("Login Succeeded") && done.stderr.contains("unencrypted"), "{done}");
    let mode = fs::metadata(space.path("home/.docker/config.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    space.rbuild(["push", &name].iter().chain(&trust)).ok();

    let other = TestSpace::new();
    let mut pull = other.command(["pull", &name]);
    pull.env("DOCKER_CONFIG", space.path("home/.docker")).env("RBUILD_CERTS", space.path("certs"));
    common::process::finish(&mut pull, None, std::time::Duration::from_secs(60)).ok();
    assert_eq!(other.inspect(&name)["Id"], space.inspect(&name)["Id"]);

    let bye = space.rbuild(["logout", &host]).ok();
    assert!(bye.stdout.contains("Removing login credentials"), "{bye}");
    assert!(space.rbuild(["logout", &host]).ok().stdout.contains("Not logged in"));
    space.rbuild(["pull", &name].iter().chain(&trust)).refuses(1, &["denies access"]);
    // one password is enough
    let plain = login(&space, &host, PASSWORD, &["-p", "x"]);
    plain.refuses(1, &["cannot be used with"]);
}

fn config(space: &TestSpace) -> String {
    fs::read_to_string(space.path("home/.docker/config.json")).expect("login wrote it")
}

#[test]
fn a_password_on_the_command_line_warns_and_works() {
    let space = TestSpace::new();
    let Some(registry) = with_password(&space) else { return };
    let args = ["login", "--tls-verify=false", "-u", USER, "-p", PASSWORD, &registry.host];
    let done = space.rbuild(args).ok();
    assert!(done.stderr.contains("--password-stdin"), "{done}");
    // who is known need not say it again
    let again = space.rbuild(["login", "--tls-verify=false", &registry.host]).ok();
    assert!(again.stderr.contains("existing credentials"), "{again}");
    space.rbuild(["login", "-u", USER, &registry.host]).refuses(1, &["no terminal", "--password-stdin"]);
}

#[test]
fn a_credential_helper_keeps_the_password() {
    let space = TestSpace::new().with_busybox();
    let Some(registry) = with_password(&space) else { return };
    // answers as the real ones do
    space.program(
        "bin/docker-credential-test",
        "#!/bin/sh\ncase $1 in\nstore) cat > $HOME/kept;;\nget) read -r server; \
         if [ -e $HOME/kept ]; then cat $HOME/kept; else echo credentials not found in native keychain; exit 1; fi;;\n\
         erase) rm -f $HOME/kept;;\nesac\n",
    );
    space.write("home/.docker/config.json", r#"{"credsStore":"test","HttpHeaders":{"X":"y"}}"#);
    let path = format!("{}:/usr/bin:/bin", space.path("bin").display());
    let run = |args: &[&str], input: Option<&[u8]>| {
        let mut command = space.command(args);
        command.env("PATH", &path);
        common::process::finish(&mut command, input, std::time::Duration::from_secs(60))
    };
    let host = registry.host.as_str();
    let name = format!("{host}/team/app:1");
    run(&["tag", "busybox", &name], None).ok();
    run(&["push", "--tls-verify=false", &name], None).refuses(1, &["denies access"]);
    let stdin = Some(PASSWORD.as_bytes());
    let done = run(&["login", "--tls-verify=false", "-u", USER, "--password-stdin", host], stdin).ok();
    assert!(!done.stderr.contains("unencrypted"), "{done}");
    let text = config(&space);
    assert!(text.contains(r#""credsStore": "test""#) && text.contains(r#""X": "y""#), "{text}");
    assert!(!text.contains("auth\":"), "{text}");
    run(&["push", "--tls-verify=false", &name], None).ok();
    run(&["logout", host], None).ok();
    assert!(!space.path("home/kept").exists());
    run(&["pull", "--tls-verify=false", &name], None).refuses(1, &["denies access"]);
    // one that is not there is named
    space
        .rbuild(["pull", "--tls-verify=false", &name])
        .refuses(1, &["docker-credential-test", "not in PATH"]);
}

/// A registry that asks for the tokens of `server`.
fn behind(server: &TokenServer, space: &TestSpace) -> Option<Registry> {
    let auth = format!(
        "auth:\n  token: {{realm: \"{}\", service: \"{SERVICE}\", issuer: \"{}\", rootcertbundle: {}}}\n",
        server.realm(),
        token::ISSUER,
        server.certificate.display()
    );
    Registry::start_with(space, "registry", &auth, "")
}

#[test]
fn tokens_are_fetched_used_again_and_renewed() {
    let space = TestSpace::new().with_busybox();
    if !tools_or_skip(&["openssl", "docker-registry"]) {
        return;
    }
    let server = TokenServer::start(&space, 300);
    let Some(registry) = behind(&server, &space) else { return };
    let host = registry.host.as_str();
    let (open, closed) = (format!("{host}/open/app:1"), format!("{host}/closed/app:1"));
    let context = space.dockerfile("FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2\nRUN echo 3 > /3\n");
    space.build(&context, &["-t", &open, "-t", &closed]).ok();

    space.rbuild(["push", &open]).refuses(1, &["denies access to open/app"]);
    login(&space, host, "wrong", &[]).refuses(1, &["incorrect username or password"]);
    login(&space, host, PASSWORD, &[]).ok();
    let before = server.issued();
    space.rbuild(["push", &open]).ok();
    let used = server.issued() - before;
    // to see what is there, to mount and to push; all layers share them
    assert!(
        used <= 3,
        "{used} tokens for one push: {:?}",
        server.seen().iter().map(|r| &r.path).collect::<Vec<_>>()
    );
    let mounted = space.rbuild(["push", &closed]).ok();
    assert!(mounted.stdout.contains("Mounted from another repository"), "{mounted}");

    // nobody may pull what is open, and not what is closed
    let other = TestSpace::new();
    let before = server.issued();
    other.rbuild(["pull", &open]).ok();
    assert_eq!(server.issued() - before, 1, "one anonymous token is enough for a pull");
    other.rbuild(["pull", &closed]).refuses(1, &["denies access to closed/app", "rbuild login"]);
    // an identity token is as good as a password
    let auths = serde_json::json!({"auths": {host: {"auth": "PHRva2VuPjo=", "identitytoken": IDENTITY}}});
    other.write("home/.docker/config.json", auths.to_string());
    other.rbuild(["pull", &closed]).ok();
    assert!(server.seen().iter().any(|r| r.method == "POST"), "identity tokens are exchanged by POST");
    // podman's file is read, too
    let third = TestSpace::new();
    third.write("run/containers/auth.json", auths.to_string());
    third.rbuild(["pull", &closed]).ok();
}

#[test]
fn tokens_that_end_early_are_renewed() {
    let space = TestSpace::new().with_busybox();
    if !tools_or_skip(&["openssl", "docker-registry"]) {
        return;
    }
    // so short-lived that each is used for a second only
    let server = TokenServer::start(&space, 2);
    let Some(registry) = behind(&server, &space) else { return };
    login(&space, &registry.host, PASSWORD, &[]).ok();
    let name = format!("{}/open/app:1", registry.host);
    space.rbuild(["tag", "busybox", &name]).ok();
    space.rbuild(["push", &name]).ok();
    let other = TestSpace::new();
    other.rbuild(["pull", &name]).ok();
}

#[test]
fn a_registry_may_want_a_certificate_of_ours() {
    let space = TestSpace::new().with_busybox();
    if !tools_or_skip(&["openssl", "docker-registry"]) {
        return;
    }
    let (ca, cert, key) = token::authority(&space, "server");
    let (client_ca, own, own_key) = token::authority(&space, "client");
    let (cert, key, client_ca) = (cert.display(), key.display(), client_ca.display());
    let tls = format!("  tls: {{certificate: {cert}, key: {key}, clientcas: [{client_ca}]}}\n");
    let Some(registry) = Registry::start_with(&space, "registry", "", &tls) else { return };
    let name = format!("{}/team/app:1", registry.host);
    let dir = space.mkdir(&format!("home/.config/rbuild/certs.d/{}", registry.host));
    fs::copy(ca, dir.join("ca.crt")).unwrap();
    space.rbuild(["tag", "busybox", &name]).ok();
    space.rbuild(["push", &name]).refuses(1, &[&registry.host, "certificate"]);
    fs::copy(own, dir.join("client.cert")).unwrap();
    space.rbuild(["push", &name]).refuses(1, &["client.key"]);
    fs::copy(own_key, dir.join("client.key")).unwrap();
    space.rbuild(["push", &name]).ok();
    fs::write(dir.join("ca.crt"), "nonsense").unwrap();
    space.rbuild(["pull", &name]).refuses(1, &["ca.crt", "no certificate in it"]);
}
