//! Registries that lie, stall, break and beg: each fault ends as a clear error in bounded time and memory, and nothing of it
//! stays in the store; what passes by itself is sat out.

mod common;

use common::TestSpace;
use common::archive::sha256;
use common::process::{self, Done};
use common::web::{Request, Web, head, reply};
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// No fault may take longer; the client is told to be patient for a second.
const BOUND: Duration = Duration::from_secs(40);

/// An honest image of one layer.
#[derive(Clone)]
struct Fake {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Fake {
    fn new() -> Self {
        Self::with(|_| (), |_| ())
    }

    /// An image whose documents were changed before they got their digests.
    fn with(config: impl FnOnce(&mut Value), manifest: impl FnOnce(&mut Value)) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        // does not compress and is the same each time
        let mut state = 1u32;
        let body: Vec<u8> = (0..3 << 20)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let mut header = tar::Header::new_gnu();
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, "body", body.as_slice()).expect("memory takes all");
        let layer = tar.into_inner().expect("memory takes all");
        let digest = sha256(&layer);
        let mut document = json!({"architecture": std::env::consts::ARCH, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest]}});
        config(&mut document);
        let config = document.to_string().into_bytes();
        let mut document = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": sha256(&config), "size": config.len()},
            "layers": [{"mediaType": LAYER, "digest": digest, "size": layer.len()}]});
        manifest(&mut document);
        Self { layer, config, manifest: document.to_string().into_bytes() }
    }

    /// Answers as an honest registry would.
    fn answer(&self, request: &Request, stream: &mut TcpStream) -> io::Result<()> {
        let body = match request.path.as_str() {
            "/v2/" => &b"{}"[..],
            path if path.contains("/manifests/") => {
                return reply(stream, "200 OK", &[("Content-Type", MANIFEST)], &self.manifest);
            }
            path if path.ends_with(&sha256(&self.config)) => &self.config,
            path if path.ends_with(&sha256(&self.layer)) => &self.layer,
            _ => return reply(stream, "404 Not Found", &[], b""),
        };
        reply(stream, "200 OK", &[("Content-Type", "application/octet-stream")], body)
    }

    fn is_layer(&self, request: &Request) -> bool {
        request.path.ends_with(&sha256(&self.layer))
    }
}

/// A registry that has the image, and one fault: `fault` answers, or says that it does not care for the request.
fn registry(
    fake: &Fake,
    fault: impl Fn(&Fake, &Request, &mut TcpStream) -> Option<io::Result<()>> + Send + Sync + 'static,
) -> Web {
    let fake = fake.clone();
    Web::start(move |request, stream| match fault(&fake, request, stream) {
        Some(done) => done,
        None => fake.answer(request, stream),
    })
}

/// Only what is asked for a layer is answered otherwise.
fn bad_layer(
    fault: impl Fn(&Fake, &Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> Web {
    registry(&Fake::new(), move |fake, request, stream| {
        fake.is_layer(request).then(|| fault(fake, request, stream))
    })
}

/// Only what is asked for a manifest is answered otherwise.
fn bad_manifest(fault: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Web {
    registry(&Fake::new(), move |_, request, stream| {
        request.path.contains("/manifests/").then(|| fault(request, stream))
    })
}

fn pull(space: &TestSpace, name: &str) -> Done {
    let mut command = space.command(["pull", name]);
    process::finish(command.env("RBUILD_REGISTRY_TIMEOUT", "1"), None, BOUND)
}

/// Pulls, and insists on a refusal with these words that leaves nothing.
#[track_caller]
fn refused(web: &Web, words: &[&str]) -> Done {
    let space = TestSpace::new();
    let begun = Instant::now();
    let done = pull(&space, &format!("{}/x/app:1", web.host())).refuses(1, words);
    assert!(begun.elapsed() < BOUND, "it took {:?}\n{done}", begun.elapsed());
    assert_nothing_stays(&space);
    done
}

#[track_caller]
fn assert_nothing_stays(space: &TestSpace) {
    assert_eq!(space.rbuild(["images", "-q"]).ok().stdout, "");
    for dir in ["images/blobs/sha256", "snapshots", "tmp"] {
        let left: Vec<_> = fs::read_dir(space.store().join(dir)).expect(dir).flatten().collect();
        let left: Vec<_> = left.iter().map(fs::DirEntry::path).filter(|p| !is_own_lock(p)).collect();
        assert!(left.is_empty(), "{left:?} stay in {dir}");
    }
}

/// The one thing that `tmp/` keeps is not there any more when no command runs.
fn is_own_lock(path: &std::path::Path) -> bool {
    path.file_name().is_some_and(|name| name == "lock")
}

/// Pulls what must come after all.
#[track_caller]
fn arrives(web: &Web) -> TestSpace {
    let space = TestSpace::new();
    let name = format!("{}/x/app:1", web.host());
    pull(&space, &name).ok();
    assert_eq!(space.rbuild(["images", "-q"]).ok().stdout.lines().count(), 1);
    space
}

fn peak_memory_kib() -> i64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
    usage.expect("the kernel counts").max_rss()
}

#[test]
fn an_honest_image_arrives() {
    let fake = Fake::new();
    let space = arrives(&registry(&fake, |_, _, _| None));
    assert_eq!(space.rbuild(["images", "-q", "--no-trunc"]).ok().stdout.trim(), sha256(&fake.config));
}

#[test]
fn other_bytes_are_refused() {
    let web = bad_layer(|fake, _, stream| {
        let mut other = fake.layer.clone();
        other[1 << 20] ^= 1;
        reply(stream, "200 OK", &[], &other)
    });
    refused(&web, &["layer", "is not what its descriptor says", "the digest of its bytes is sha256:"]);
}

#[test]
fn other_lengths_are_refused() {
    let web =
        bad_layer(|fake, _, stream| reply(stream, "200 OK", &[], &fake.layer[..fake.layer.len() - 512]));
    refused(&web, &["is not what its descriptor says", "were promised"]);
    let short = Fake::with(|_| (), |m| m["layers"][0]["size"] = 1024.into());
    refused(&registry(&short, |_, _, _| None), &["bytes where 1024 were promised"]);
}

#[test]
fn a_cut_off_body_is_an_error_after_some_tries() {
    let web = bad_layer(|fake, _, stream| {
        head(stream, "200 OK", &[], Some(fake.layer.len() as u64))?;
        stream.write_all(&fake.layer[..100_000])
    });
    refused(&web, &["/blobs/sha256:", "at 100000 of", "5 times"]);
    // the same without a length that could tell
    let web = bad_layer(|fake, _, stream| {
        head(stream, "200 OK", &[], None)?;
        stream.write_all(&fake.layer[..100_000])
    });
    refused(&web, &["ended early", "5 times"]);
}

#[test]
fn an_endless_body_is_cut() {
    let web = bad_layer(|fake, _, stream| {
        head(stream, "200 OK", &[], None)?;
        stream.write_all(&fake.layer)?;
        loop {
            stream.write_all(&[0; 65_536])?;
        }
    });
    refused(&web, &["it goes on after the", "that were promised"]);
    let web = bad_manifest(|_, stream| {
        head(stream, "200 OK", &[("Content-Type", MANIFEST)], None)?;
        loop {
            stream.write_all(&[b' '; 65_536])?;
        }
    });
    refused(&web, &["more than the 4194304 bytes that are accepted"]);
    assert!(peak_memory_kib() < 400 << 10, "{} KiB", peak_memory_kib());
}

#[test]
fn a_huge_manifest_is_not_read() {
    let web = bad_manifest(|_, stream| head(stream, "200 OK", &[("Content-Type", MANIFEST)], Some(1 << 40)));
    refused(&web, &["more than the 4194304 bytes that are accepted"]);
    let huge = Fake::with(|_| (), |m| m["config"]["size"] = (1u64 << 40).into());
    refused(&registry(&huge, |_, _, _| None), &["more than the 16777216 bytes"]);
}

#[test]
fn a_body_that_drips_or_stands_still_is_given_up() {
    let web = bad_layer(|fake, _, stream| {
        head(stream, "200 OK", &[], Some(fake.layer.len() as u64))?;
        for byte in &fake.layer {
            stream.write_all(&[*byte])?;
            sleep(Duration::from_millis(50));
        }
        Ok(())
    });
    refused(&web, &["too slow", "times"]);
    let web = bad_layer(|fake, _, stream| {
        head(stream, "200 OK", &[], Some(fake.layer.len() as u64))?;
        sleep(Duration::from_secs(30));
        Ok(())
    });
    refused(&web, &["the transfer broke off", "5 times"]);
    let web = bad_manifest(|_, stream| {
        head(stream, "200 OK", &[("Content-Type", MANIFEST)], Some(1000))?;
        loop {
            stream.write_all(b" ")?;
            sleep(Duration::from_millis(100));
        }
    });
    refused(&web, &["too slow"]);
}

#[test]
fn a_registry_that_does_not_answer_is_given_up() {
    let web = bad_manifest(|_, _| {
        sleep(Duration::from_secs(30));
        Ok(())
    });
    refused(&web, &["/v2/x/app/manifests/1", "no answer in time"]);
    let space = TestSpace::new();
    let nobody = format!("127.0.0.1:{}/x:1", common::registry::free_port());
    pull(&space, &nobody).refuses(1, &["refused"]);
}

#[test]
fn redirects_are_counted_and_led_nowhere_else() {
    let web = bad_layer(|_, request, stream| {
        reply(stream, "307 Temporary Redirect", &[("Location", &request.path)], b"")
    });
    refused(&web, &["sixth redirect"]);
    for (location, words) in [
        ("file:///etc/passwd", "it is no address"),
        ("http://registry.invalid/blob", "plain http"),
        ("ftp://127.0.0.1/x", "it is no address"),
    ] {
        let web = bad_layer(move |_, _, stream| reply(stream, "302 Found", &[("Location", location)], b""));
        refused(&web, &["refused", words]);
    }
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    let fake = Fake::new();
    let elsewhere = registry(&fake, |fake, request, stream| {
        (request.path == "/bytes?sig=secret").then(|| reply(stream, "200 OK", &[], &fake.layer))
    });
    let to = format!("http://{}/bytes?sig=secret", elsewhere.host());
    let web = registry(&fake, move |fake, request, stream| {
        if request.header("authorization") != Some("Basic bWU6aHVudGVyMg==") {
            let wants = [("WWW-Authenticate", "Basic realm=\"here\"")];
            return Some(reply(stream, "401 Unauthorized", &wants, b""));
        }
        let layer = fake.is_layer(request);
        layer.then(|| reply(stream, "307 Temporary Redirect", &[("Location", &to)], b""))
    });
    let space = TestSpace::new();
    let auths =
        json!({"auths": {web.host(): {"auth": "bWU6aHVudGVyMg=="}, elsewhere.host(): {"auth": "YTpi"}}});
    space.write("home/.docker/config.json", auths.to_string());
    pull(&space, &format!("{}/x/app:1", web.host())).ok();
    let there = elsewhere.seen();
    assert_eq!(there.iter().filter(|r| r.path.starts_with("/bytes")).count(), 1);
    assert!(there.iter().all(|r| r.header("authorization").is_none()), "{there:?}");
    // and a place that asks for a name after a redirect does not get one
    let greedy = Web::start(|_, stream| {
        reply(stream, "401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"give\"")], b"")
    });
    let to = format!("http://{}/b", greedy.host());
    let web = registry(&fake, move |fake, request, stream| {
        if request.header("authorization").is_none() {
            let wants = [("WWW-Authenticate", "Basic realm=\"here\"")];
            return Some(reply(stream, "401 Unauthorized", &wants, b""));
        }
        fake.is_layer(request).then(|| reply(stream, "302 Found", &[("Location", &to)], b""))
    });
    let auths = json!({"auths": {web.host(): {"auth": "bWU6aHVudGVyMg=="}, greedy.host(): {"auth": "YTpi"}}});
    space.write("home/.docker/config.json", auths.to_string());
    space.rbuild(["rmi", "-f", space.rbuild(["images", "-q"]).ok().stdout.trim()]).ok();
    pull(&space, &format!("{}/x/app:1", web.host())).refuses(1, &["401"]);
    assert!(greedy.seen().iter().all(|r| r.header("authorization").is_none()));
}

#[test]
fn errors_do_not_tell_signatures() {
    let web = bad_layer(|_, request, stream| match request.path.contains("sig=") {
        true => reply(stream, "404 Not Found", &[], b""),
        false => reply(stream, "302 Found", &[("Location", "/elsewhere?sig=topsecret&app/blobs")], b""),
    });
    let fake = Fake::new();
    let done = refused(&web, &[]);
    assert!(!done.stderr.contains("topsecret"), "{done}");
    assert!(done.stderr.contains(&sha256(&fake.layer)[7..19]), "{done}");
}

#[test]
fn indexes_that_lead_to_indexes_end() {
    // each is honest about the next
    let mut documents: Vec<(String, Vec<u8>)> = Vec::new();
    let mut next = json!({"mediaType": MANIFEST, "digest": sha256(b"x"), "size": 1});
    for _ in 0..8 {
        next["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let index =
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [next]}).to_string().into_bytes();
        let digest = sha256(&index);
        next = json!({"mediaType": INDEX, "digest": digest, "size": index.len()});
        documents.push((digest, index));
    }
    let web = bad_manifest(move |request, stream| {
        let named = documents.iter().find(|(digest, _)| request.path.ends_with(digest.as_str()));
        let (_, index) = named.or(documents.last()).expect("there are some");
        reply(stream, "200 OK", &[("Content-Type", INDEX)], index)
    });
    refused(&web, &["nested deeper than 4"]);
    // one that leads to itself cannot be honest
    let web = bad_manifest(|_, stream| {
        let entry = json!({"mediaType": INDEX, "digest": sha256(b"me"), "size": 100,
            "platform": {"os": "linux", "architecture": "amd64"}});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
        reply(stream, "200 OK", &[("Content-Type", INDEX)], index.as_bytes())
    });
    refused(&web, &["is not what its descriptor says"]);
}

#[test]
fn other_things_than_images_are_named() {
    type Edit = fn(&mut Value);
    let edits: [(Edit, &str); 6] = [
        (
            |m| m["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into(),
            "another artifact",
        ),
        (|m| m["layers"][0]["mediaType"] = "text/html".into(), "layers of type"),
        (|m| m["manifests"] = json!([]), "in two ways"),
        (|m| m["layers"][0]["digest"] = "sha256:../../../etc/passwd".into(), "is not a digest"),
        (|m| m["layers"] = vec![m["layers"][0].clone(); 600].into(), "more than 500"),
        (|m| m["fsLayers"] = json!([]), "schema 1"),
    ];
    for (edit, words) in edits {
        refused(&registry(&Fake::with(|_| (), edit), |_, _, _| None), &[words]);
    }
    let types = [
        ("text/html", "which is no image"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (INDEX, "media type"),
    ];
    for (kind, words) in types {
        let web = registry(&Fake::new(), move |fake, request, stream| {
            let manifest = request.path.contains("/manifests/");
            manifest.then(|| reply(stream, "200 OK", &[("Content-Type", kind)], &fake.manifest))
        });
        refused(&web, &[words]);
    }
    let web = bad_manifest(|_, stream| reply(stream, "200 OK", &[("Content-Type", MANIFEST)], b"<html>"));
    refused(&web, &["cannot be read"]);
}

#[test]
fn a_layer_that_is_not_the_config_s_is_refused() {
    let other = Fake::with(|c| c["rootfs"]["diff_ids"][0] = sha256(b"other").into(), |_| ());
    let space = TestSpace::new();
    let web = registry(&other, |_, _, _| None);
    pull(&space, &format!("{}/x/app:1", web.host())).refuses(1, &["diff ID"]);
    assert_eq!(space.rbuild(["images", "-q"]).ok().stdout, "");
    assert_eq!(fs::read_dir(space.store().join("snapshots")).expect("a store").count(), 0);
    let fewer = Fake::with(|c| c["rootfs"]["diff_ids"] = json!([]), |_| ());
    refused(&registry(&fewer, |_, _, _| None), &["lists 1 layers and its config 0"]);
}

#[test]
fn tags_that_are_paths_are_not_asked_for() {
    let web = registry(&Fake::new(), |_, request, stream| {
        let tags = json!({"name": "x/app", "tags": ["../../../etc/passwd", "a b", "\u{1b}[2J", "good", ""]});
        request.path.contains("/tags/list").then(|| reply(stream, "200 OK", &[], tags.to_string().as_bytes()))
    });
    let space = TestSpace::new();
    let done = space.rbuild(["pull", "-a", &format!("{}/x/app", web.host())]).ok();
    assert_eq!(done.stdout.matches("Pulling from").count(), 1, "{done}");
    assert!(web.seen().iter().all(|r| !r.path.contains("..")), "{:?}", web.seen());
}

#[test]
fn too_many_requests_are_sat_out_or_given_up() {
    let web = bad_manifest(|_, stream| {
        reply(
            stream,
            "429 Too Many Requests",
            &[("Retry-After", "0")],
            br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#,
        )
    });
    refused(&web, &["too many requests", "slow down"]);
    let asked = web.seen().iter().filter(|r| r.path.contains("/manifests/")).count();
    assert_eq!(asked, 5);
    let web =
        bad_manifest(|_, stream| reply(stream, "429 Too Many Requests", &[("Retry-After", "3600")], b""));
    let begun = Instant::now();
    refused(&web, &["asks to wait 3600s"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
    for status in ["429 Too Many Requests", "503 Service Unavailable", "500 Internal Server Error"] {
        let count = Arc::new(AtomicUsize::new(0));
        let asked = count.clone();
        arrives(&registry(&Fake::new(), move |_, request, stream| {
            let fails = request.path != "/v2/" && asked.fetch_add(1, Ordering::Relaxed) % 3 < 2;
            fails.then(|| reply(stream, status, &[("Retry-After", "0")], b""))
        }));
        assert_eq!(count.load(Ordering::Relaxed), 9, "each of three things is asked for three times");
    }
}

#[test]
fn a_transfer_that_breaks_goes_on_where_it_was() {
    for ranges in [true, false] {
        let web = bad_layer(move |fake, request, stream| {
            let from = request
                .header("range")
                .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
            let from: usize = from.filter(|_| ranges).unwrap_or(0);
            let total = fake.layer.len();
            let rest = (total - from) as u64;
            match from {
                0 => head(stream, "200 OK", &[], Some(rest))?,
                _ => {
                    let range = format!("bytes {from}-{}/{total}", total - 1);
                    head(stream, "206 Partial Content", &[("Content-Range", &range)], Some(rest))?;
                }
            }
            // those who cannot go on in the middle get further each time
            let asked: usize =
                request.header("range").map_or(0, |r| r[6..].trim_end_matches('-').parse().unwrap_or(0));
            let until = total.min(asked + 1_200_000);
            stream.write_all(&fake.layer[from..until])
        });
        let space = arrives(&web);
        drop(space);
        let fake = Fake::new();
        let asked: Vec<Request> = web.seen().into_iter().filter(|r| fake.is_layer(r)).collect();
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert!(asked[1].header("range").is_some() && asked[0].header("range").is_none());
    }
}

#[test]
fn wrong_parts_of_a_blob_are_refused() {
    let web = bad_layer(|fake, request, stream| match request.header("range") {
        None => {
            head(stream, "200 OK", &[], Some(fake.layer.len() as u64))?;
            stream.write_all(&fake.layer[..1000])
        }
        Some(_) => {
            let rest = fake.layer.len() - 5;
            head(stream, "206 Partial Content", &[("Content-Range", "bytes 5-9/10")], Some(rest as u64))?;
            stream.write_all(&fake.layer[5..])
        }
    });
    refused(&web, &["another part of the blob"]);
}

#[test]
fn words_of_the_registry_are_kept_and_tamed() {
    let web = bad_manifest(|_, stream| {
        let body = br#"{"errors":[{"code":"DENIED","message":"quota\u001b[2J exceeded","detail":"team x"}]}"#;
        reply(stream, "403 Forbidden", &[], body)
    });
    let done = refused(&web, &["denies access to x/app", "exceeded (team x)", "rbuild login"]);
    assert!(!done.stderr.contains('\u{1b}'), "{done}");
    let web = bad_manifest(|_, stream| reply(stream, "418 I'm a teapot", &[], &[b'x'; 1 << 20]));
    let done = refused(&web, &["answered 418"]);
    assert!(done.stderr.len() < 2000, "{done}");
}
