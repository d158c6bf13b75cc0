//! Published ports: from the host's loopback and other addresses, both families, TCP and UDP, as root and as a user.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::fleet::{Fleet, ask, get, has_ipv6, host_address, try_get};
use common::{TestSpace, root_or_skip};

/// Answers each datagram with itself in upper case.
const ECHO: &str = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 7, Proto => 'udp') or die; \
    while (defined(my $from = $s->recv(my $word, 1500))) { $s->send(uc $word) }";

fn as_root() -> Option<Fleet> {
    root_or_skip().then(|| Fleet::new(TestSpace::new()))
}

/// All addresses by which the host itself reaches a published port.
fn own_addresses() -> Vec<String> {
    let mut all = vec!["127.0.0.1".to_owned()];
    all.extend(has_ipv6().then(|| "::1".to_owned()));
    all.extend(host_address());
    all
}

fn speaks_to_redis(at: SocketAddr) -> bool {
    let talk = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"SET key value\r\nGET key\r\nQUIT\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    };
    talk().is_ok_and(|said| said == "+OK\r\n$5\r\nvalue\r\n+OK\r\n")
}

#[test]
fn nginx_and_redis_are_published() {
    let Some(fleet) = as_root() else { return };
    fleet.load_servers();
    fleet.start("web", &["-p", "80"], &["servers", "nginx", "-g", "daemon off;"]);
    fleet.start("store", &["-P"], &["servers", "redis-server", "--protected-mode", "no"]);
    let (web, store) = (fleet.port("web", "80/tcp"), fleet.port("store", "6379/tcp"));
    for ip in own_addresses() {
        assert!(get(&ip, web).contains("Welcome to nginx"), "{ip}");
        let at = SocketAddr::new(ip.parse().unwrap(), store);
        common::process::eventually("redis answers", Duration::from_secs(30), || speaks_to_redis(at));
    }
    // -P publishes all that the image exposes
    assert_eq!(fleet.says(&["port", "store"]).lines().count(), 4);
    let shown = fleet.says(&["ps", "--filter", "name=web", "--format", "{{.Ports}}"]);
    assert!(shown.contains(&format!("0.0.0.0:{web}->80/tcp, [::]:{web}->80/tcp")), "{shown}");
    assert!(shown.contains("6379/tcp"), "{shown}");
    let json = fleet.says(&["inspect", "web", "-f", "{{json .NetworkSettings.Ports}}"]);
    assert!(json.contains(&format!("\"HostPort\":\"{web}\"")), "{json}");
}

#[test]
fn much_goes_through() {
    let Some(fleet) = as_root() else { return };
    let script = "mkdir /w && dd if=/dev/zero of=/w/index.html bs=1M count=40 2>/dev/null && exec httpd -f -p 80 -h /w";
    fleet.start("web", &["-p", "127.0.0.1::80"], &["busybox", "sh", "-c", script]);
    let port = fleet.port("web", "80");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(get("127.0.0.1", port).len(), 40 << 20));
        }
    });
}

#[test]
fn datagrams_are_published() {
    let Some(fleet) = as_root() else { return };
    fleet.space.import("debian");
    fleet.start("echo", &["-p", "7/udp"], &["debian", "perl", "-e", ECHO]);
    let port = fleet.port("echo", "7/udp");
    for ip in own_addresses() {
        assert_eq!(ask(&ip, port, "hello"), "HELLO", "{ip}");
    }
    // an answer comes from the address that was spoken to, whichever of the loopback's it is
    assert_eq!(ask("127.0.0.9", port, "again"), "AGAIN");
}

#[test]
fn containers_reach_published_ports_of_themselves_and_others() {
    let Some(fleet) = as_root() else { return };
    let Some(host) = host_address() else { return };
    fleet.says(&["network", "create", "lan"]);
    fleet.says(&["network", "create", "far"]);
    fleet.web("web", &["-p", "80", "--network", "lan"]);
    let port = fleet.port("web", "80");
    assert_eq!(get("127.0.0.1", port), "web\n");
    let ask = format!("wget -qO- http://{host}:{port}/");
    assert_eq!(fleet.says(&["exec", "web", "sh", "-c", &ask]), "web");
    for network in ["lan", "far", "bridge"] {
        assert_eq!(fleet.shell(&["--network", network], &ask).ok().stdout, "web\n", "{network}");
    }
}

#[test]
fn a_port_that_is_taken_is_said() {
    let Some(fleet) = as_root() else { return };
    let holder = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let run = |name: &str, flag: &str| {
        fleet.space.rbuild(["run", "-d", "--name", name, "-p", flag, "busybox", "sleep", "60"])
    };
    let words = format!("Bind for 0.0.0.0:{port} failed: port is already allocated");
    run("late", &format!("{port}:80")).refuses(125, &[&words, "endpoint late"]);
    assert_eq!(fleet.says(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]), "late created");
    drop(holder);
    // what failed holds nothing, and the container can be started now
    fleet.says(&["start", "late"]);
    run("later", &format!("{port}:80")).refuses(125, &["port is already allocated"]);
    // a range has others
    let end = port.saturating_add(30);
    run("range", &format!("{port}-{end}:80")).ok();
    assert_ne!(fleet.port("range", "80"), port);
    run("nowhere", "203.0.113.9:0:80").refuses(125, &["cannot assign requested address"]);
}

#[test]
fn a_port_is_published_where_it_was_asked_for_and_as_long_as_the_container_runs() {
    let Some(fleet) = as_root() else { return };
    fleet.web("web", &["-p", "127.0.0.2::80", "-p", "127.0.0.1::80"]);
    let ports = fleet.says(&["port", "web"]);
    let at = |ip: &str| -> SocketAddr {
        let line = ports.lines().find(|line| line.contains(&format!("{ip}:"))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (one, two) = (at("127.0.0.1"), at("127.0.0.2"));
    assert_eq!(get("127.0.0.1", one.port()), "web\n");
    assert_eq!(get("127.0.0.2", two.port()), "web\n");
    if one.port() != two.port() {
        assert!(try_get(SocketAddr::new(two.ip(), one.port())).is_err());
    }
    fleet.says(&["stop", "-t", "0", "web"]);
    assert!(TcpListener::bind(one).is_ok());
    assert_eq!(fleet.says(&["port", "web"]), "");
    fleet.says(&["start", "web"]);
    assert_eq!(get("127.0.0.1", fleet.port("web", "80")), "web\n");
}

#[test]
fn a_network_may_say_where_ports_are_published() {
    let Some(fleet) = as_root() else { return };
    fleet.says(&["network", "create", "-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.3", "lan"]);
    fleet.web("web", &["-p", "80", "-p", "127.0.0.1::81", "--network", "lan"]);
    let port = fleet.port("web", "80");
    assert_eq!(fleet.says(&["port", "web", "80"]), format!("127.0.0.3:{port}"));
    assert!(fleet.says(&["port", "web", "81"]).starts_with("127.0.0.1:"));
    assert_eq!(get("127.0.0.3", port), "web\n");
}

#[test]
fn a_port_survives_a_client_that_breaks_off() {
    let Some(fleet) = as_root() else { return };
    fleet.web("web", &["-p", "80"]);
    let port = fleet.port("web", "80");
    assert_eq!(get("127.0.0.1", port), "web\n");
    for _ in 0..50 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET / HT").unwrap();
    }
    assert_eq!(get("127.0.0.1", port), "web\n");
}

#[test]
fn an_ordinary_user_publishes_ports() {
    let Some(space) = TestSpace::rootless() else { return };
    let fleet = Fleet::new(space);
    fleet.space.import("debian");
    fleet.web("web", &["-p", "80"]);
    fleet.start("echo", &["-p", "7/udp"], &["debian", "perl", "-e", ECHO]);
    let (web, echo) = (fleet.port("web", "80"), fleet.port("echo", "7/udp"));
    for ip in own_addresses() {
        assert_eq!(get(&ip, web), "web\n", "{ip}");
        assert_eq!(ask(&ip, echo, "hello"), "HELLO", "{ip}");
    }
    let run = |flag: &str| fleet.space.rbuild(["run", "--rm", "-p", flag, "busybox", "true"]);
    run(&format!("{web}:80")).refuses(125, &["port is already allocated"]);
    let free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if free.trim().parse::<u16>().unwrap() > 81 {
        run("81:80").refuses(125, &["Bind for 0.0.0.0:81 failed", "ip_unprivileged_port_start"]);
    }
    run("80/sctp").refuses(125, &["SCTP"]);
}

#[test]
fn wrong_ports_are_refused() {
    let space = TestSpace::new();
    for (flag, value, word) in [
        ("-p", "x", "invalid port"),
        ("-p", "80:81:82:83", "IPv6"),
        ("-p", "1-3:1-2", "invalid ranges"),
        ("-p", "80/icmp", "invalid proto"),
        ("--expose", "80:80", "--expose"),
    ] {
        space.rbuild(["run", flag, value, "busybox", "true"]).refuses(125, &[word]);
    }
    let both = ["run", "--network", "container:x", "-p", "80", "busybox", "true"];
    space.rbuild(both).refuses(125, &["conflicting options"]);
}
