//! Networks of the user's making: names, isolation, addresses, live changes, and what a killed monitor leaves.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use common::fleet::{Fleet, get};
use common::process::eventually;
use common::{TestSpace, root_or_skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);

fn as_root() -> Option<Fleet> {
    root_or_skip().then(|| Fleet::new(TestSpace::new()))
}

/// Fetches a page from a container within a few seconds, or fails.
const FETCH: &str = "fetch() { for n in 1 2 3 4 5; do timeout 3 wget -qO- http://$1/ && return 0; sleep 0.2; done; return 1; }; ";

fn fetch(fleet: &Fleet, network: &str, host: &str) -> Option<String> {
    let done = fleet.shell(&["--network", network], &format!("{FETCH} fetch {host}"));
    done.status.success().then_some(done.stdout)
}

/// Whether one attempt to connect gets nowhere.
fn cannot_reach(fleet: &Fleet, network: &str, host: &str) -> bool {
    let script = format!("timeout 2 wget -qO- http://{host}/ && exit 1; true");
    fleet.shell(&["--network", network], &script).status.success()
}

/// Names of the host's interfaces and packet tables that are about networks of users.
fn traces() -> HashSet<String> {
    let links = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    let mut all: HashSet<String> = links
        .map(|e| e.file_name().into_string().unwrap())
        .filter(|n| n.starts_with("rb-") || n.starts_with("rv"))
        .collect();
    if let Ok(out) = Command::new("nft").args(["list", "tables"]).output() {
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        all.extend(text.lines().filter(|line| line.contains(" rbuild-")).map(str::to_owned));
    }
    all
}

#[test]
fn containers_find_each_other_by_name() {
    let Some(fleet) = as_root() else { return };
    fleet.says(&["network", "create", "lan"]);
    fleet.web("web", &["--network", "lan", "--network-alias", "www", "-h", "machine"]);
    let id = fleet.says(&["inspect", "web", "-f", "{{.Id}}"]);
    for name in ["web", "WEB", "www", "web.lan", "machine", &id[..12]] {
        assert_eq!(fetch(&fleet, "lan", name).as_deref(), Some("web\n"), "{name}");
    }
    let conf = fleet.says(&["exec", "web", "cat", "/etc/resolv.conf"]);
    assert!(conf.contains("nameserver 127.0.0.11"), "{conf}");
    let ip = fleet.address("web", "lan");
    let back = fleet.shell(&["--network", "lan"], &format!("nslookup {ip}")).stdout;
    assert!(back.contains("web.lan"), "{back}");
    // a name is gone with its container, and follows a change
    fleet.says(&["rename", "web", "store"]);
    assert_eq!(fetch(&fleet, "lan", "store").as_deref(), Some("web\n"));
    fleet.says(&["stop", "-t", "0", "store"]);
    assert!(cannot_reach(&fleet, "lan", "store"));
    // the default network has no names
    fleet.web("plain", &[]);
    assert!(cannot_reach(&fleet, "bridge", "plain"));
}

#[test]
fn a_container_may_have_a_name_server_of_its_own() {
    let Some(fleet) = as_root() else { return };
    fleet.space.import("debian");
    fleet.says(&["network", "create", "lan"]);
    // port 53 is free on all addresses, and names are served all the same, over TCP too
    let script = "use IO::Socket::INET; \
        IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => 53, Proto => 'udp') or die 'udp'; \
        IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => 53, Listen => 1) or die 'tcp'; \
        my $q = pack('nnnnnn', 7, 256, 1, 0, 0, 0) . \"\\x03self\" ; \
        $q = pack('nnnnnn', 7, 256, 1, 0, 0, 0) . \"\\x02me\\x00\\x00\\x01\\x00\\x01\"; \
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.11', PeerPort => 53, Proto => 'tcp') or die 'connect'; \
        print $s pack('n', length $q) . $q; read $s, my $n, 2; read $s, my $a, unpack('n', $n); \
        print join('.', unpack('C4', substr($a, -4)))";
    let args = ["run", "--rm", "--name", "me", "--network", "lan", "debian", "perl", "-e", script];
    let said = fleet.says(&args);
    assert!(said.starts_with("10.") || said.starts_with("172."), "{said}");
}

#[test]
fn networks_are_isolated() {
    let Some(fleet) = as_root() else { return };
    fleet.says(&["network", "create", "red"]);
    fleet.says(&["network", "create", "blue"]);
    fleet.web("web", &["--network", "red"]);
    let ip = fleet.address("web", "red");
    assert_eq!(fetch(&fleet, "red", &ip).as_deref(), Some("web\n"));
    for network in ["blue", "bridge"] {
        assert!(cannot_reach(&fleet, network, &ip), "{network}");
    }
    assert!(cannot_reach(&fleet, "blue", "web"));
    // the host itself reaches it
    assert_eq!(get(&ip, 80), "web\n");
}

#[test]
fn an_internal_network_has_no_way_out() {
    let Some(fleet) = as_root() else { return };
    fleet.says(&["network", "create", "--internal", "cell"]);
    fleet.web("web", &["--network", "cell", "-p", "80"]);
    assert_eq!(fetch(&fleet, "cell", "web").as_deref(), Some("web\n"));
    assert_eq!(fleet.shell(&["--network", "cell"], "ip route | grep -c default").stdout, "0\n");
    assert_eq!(fleet.says(&["port", "web"]), "");
    // names of the outside are not asked for
    let done = fleet.shell(&["--network", "cell"], "nslookup example.org");
    assert!(!done.status.success() && (done.stdout + &done.stderr).contains("SERVFAIL"));
    // nor does a route by hand help
    let way = "ip route add default via $(ip route | sed -n 's/.* src \\([0-9.]*\\)\\..*/\\1.1/p'); ";
    let script = format!("{way} timeout 2 wget -qO- http://203.0.113.80/ && exit 1; true");
    fleet.shell(&["--network", "cell", "--cap-add", "NET_ADMIN"], &script).ok();
}

#[test]
fn networks_change_while_a_container_runs() {
    let Some(fleet) = as_root() else { return };
    fleet.says(&["network", "create", "lan"]);
    fleet.says(&["network", "create", "far"]);
    fleet.web("web", &["-p", "80"]);
    let port = fleet.port("web", "80");
    assert!(cannot_reach(&fleet, "lan", "web"));
    fleet.says(&["network", "connect", "--alias", "www", "lan", "web"]);
    assert_eq!(fetch(&fleet, "lan", "www").as_deref(), Some("web\n"));
    // it finds names itself now
    fleet.web("other", &["--network", "lan"]);
    let script = format!("{FETCH} fetch other");
    assert_eq!(fleet.says(&["exec", "web", "sh", "-c", &script]), "other");
    fleet.says(&["network", "disconnect", "lan", "web"]);
    assert!(cannot_reach(&fleet, "lan", "www"));
    fleet.space.rbuild(["network", "disconnect", "lan", "web"]).refuses(1, &["is not connected"]);

    // the default route moves with the networks
    fleet.says(&["network", "connect", "far", "web"]);
    fleet.says(&["network", "disconnect", "bridge", "web"]);
    let route = fleet.says(&["exec", "web", "ip", "route"]);
    assert!(route.contains("default via") && route.contains("eth1"), "{route}");
    // and so do the published ports
    assert_eq!(fleet.port("web", "80"), port);
    assert_eq!(get("127.0.0.1", port), "web\n");
    // a stopped container keeps what it was given
    fleet.says(&["stop", "-t", "0", "web"]);
    fleet.says(&["network", "connect", "lan", "web"]);
    fleet.says(&["start", "web"]);
    let networks = fleet.says(&["inspect", "web", "-f", "{{json .NetworkSettings.Networks}}"]);
    let networks: Value = serde_json::from_str(&networks).unwrap();
    let names: HashSet<&String> = networks.as_object().unwrap().keys().collect();
    assert_eq!(names, HashSet::from([&"lan".to_owned(), &"far".to_owned()]));
    assert_eq!(fetch(&fleet, "lan", "web").as_deref(), Some("web\n"));
    assert_eq!(fetch(&fleet, "far", "web").as_deref(), Some("web\n"));
}

#[test]
fn addresses_can_be_chosen() {
    let Some(fleet) = as_root() else { return };
    let create = ["network", "create", "--subnet", "10.213.7.0/24", "--gateway", "10.213.7.254"];
    fleet.says(
        &[&create[..], &["--subnet", "fd21:3:7::/64", "--ip-range", "10.213.7.128/25", "lan"]].concat(),
    );
    let flags = [
        "--network",
        "lan",
        "--ip",
        "10.213.7.9",
        "--ip6",
        "fd21:3:7::9",
        "--mac-address",
        "02:00:00:00:07:09",
    ];
    fleet.web("web", &flags);
    let look = fleet.says(&["exec", "web", "ip", "addr", "show", "eth0"]);
    for word in ["10.213.7.9/24", "fd21:3:7::9/64", "02:00:00:00:07:09"] {
        assert!(look.contains(word), "{look}");
    }
    assert_eq!(fetch(&fleet, "lan", "[fd21:3:7::9]").as_deref(), Some("web\n"));
    let own = fleet.shell(&["--network", "lan"], "ip addr show eth0; ip route").ok().stdout;
    assert!(own.contains("10.213.7.128/24") && own.contains("default via 10.213.7.254"), "{own}");
    let refused = |flags: &[&str], word: &str| {
        fleet.shell(&[&["--network", "lan"], flags].concat(), "true").refuses(125, &[word]);
    };
    refused(&["--ip", "10.213.7.9"], "Address already in use");
    refused(&["--ip", "10.213.7.254"], "Address already in use");
    refused(&["--ip", "10.9.9.9"], "no configured subnet");
    fleet.says(&["network", "create", "auto"]);
    fleet
        .shell(&["--network", "auto", "--ip", "10.190.0.9"], "true")
        .refuses(125, &["user configured subnets"]);
    let overlap = ["network", "create", "--subnet", "10.213.0.0/16", "wide"];
    fleet.space.rbuild(overlap).refuses(1, &["Pool overlaps"]);
}

#[test]
fn twenty_at_once_have_addresses_of_their_own() {
    let Some(fleet) = as_root() else { return };
    fleet.says(&["network", "create", "lan"]);
    std::thread::scope(|scope| {
        for n in 0..20 {
            let fleet = &fleet;
            scope.spawn(move || {
                fleet.start(&format!("c{n}"), &["--network", "lan"], &["busybox", "sleep", "300"]);
            });
        }
    });
    let json = fleet.says(&["network", "inspect", "lan", "-f", "{{json .Containers}}"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let all = json.as_object().unwrap();
    let ips: HashSet<&str> = all.values().filter_map(|c| c["IPv4Address"].as_str()).collect();
    assert_eq!((all.len(), ips.len()), (20, 20));
    let all: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    fleet.says(&[&["rm", "-f"], names.as_slice()].concat());
    let json = fleet.says(&["network", "inspect", "lan", "-f", "{{json .Containers}}"]);
    assert_eq!(json, "{}");
}

#[test]
fn a_killed_monitor_leaves_nothing_behind() {
    let Some(fleet) = as_root() else { return };
    let id = fleet.says(&["network", "create", "lan"]);
    fleet.web("web", &["--network", "lan", "-p", "80"]);
    let short = fleet.says(&["inspect", "web", "-f", "{{.Id}}"])[..8].to_owned();
    let port = fleet.port("web", "80");
    assert_eq!(get("127.0.0.1", port), "web\n");
    let ours = |name: &String| name.contains(&id[..12]) || name.contains(&short);
    assert!(traces().iter().filter(|n| ours(n)).count() >= 3, "{:?}", traces());
    kill(Pid::from_raw(fleet.monitor("web")), Signal::SIGKILL).unwrap();
    // the port is free, whoever asks first
    eventually("the port is free", Duration::from_secs(20), || {
        std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
    });
    eventually("interfaces and rules are gone", Duration::from_secs(20), || {
        fleet.space.rbuild(["ps", "-a"]).ok();
        !traces().iter().any(ours)
    });
    assert_eq!(std::fs::read_dir(fleet.space.store().join("networks/live")).unwrap().count(), 0);
    // its place and port are free again
    fleet.says(&["rm", "web"]);
    fleet.web("web", &["--network", "lan", "-p", &format!("{port}:80")]);
    assert_eq!(get("127.0.0.1", port), "web\n");
    fleet.says(&["rm", "-f", "web"]);
    assert!(!traces().iter().any(ours), "{:?}", traces());
    fleet.says(&["network", "rm", "lan"]);
}

#[test]
fn links_give_names_and_variables() {
    let Some(fleet) = as_root() else { return };
    fleet.web("db", &["--expose", "80", "-e", "USER=me"]);
    let script = format!("{FETCH} fetch store; env; grep store /etc/hosts");
    let said = fleet.shell(&["--name", "app", "--link", "db:store"], &script).ok().stdout;
    let ip = fleet.address("db", "bridge");
    for line in [
        "db".to_owned(),
        format!("STORE_PORT=tcp://{ip}:80"),
        format!("STORE_PORT_80_TCP_ADDR={ip}"),
        "STORE_NAME=/app/store".into(),
        "STORE_ENV_USER=me".into(),
    ] {
        assert!(said.lines().any(|l| l == line), "{line}: {said}");
    }
    fleet.shell(&["--link", "nobody"], "true").refuses(125, &["could not get container for nobody"]);
    // a link follows its target, whatever becomes of that
    fleet.start("app", &["--link", "db:store"], &["busybox", "sleep", "1000"]);
    fleet.says(&["stop", "-t", "0", "db"]);
    fleet.start("other", &[], &["busybox", "sleep", "1000"]);
    fleet.says(&["start", "db"]);
    let knows = || {
        let ip = fleet.address("db", "bridge");
        fleet
            .says(&["exec", "app", "cat", "/etc/hosts"])
            .lines()
            .any(|line| line.starts_with(&format!("{ip}\tstore ")))
    };
    eventually("the link follows", MINUTE, knows);
    fleet.says(&["rename", "db", "base"]);
    fleet.says(&["restart", "-t", "0", "app"]);
    assert_eq!(fleet.says(&["inspect", "app", "-f", "{{.HostConfig.Links}}"]), "[/base:/app/store]");
    fleet.says(&["stop", "-t", "0", "base"]);
    fleet
        .space
        .rbuild(["restart", "-t", "0", "app"])
        .refuses(1, &["non running container: /base AS /app/store"]);
    fleet.says(&["network", "create", "lan"]);
    fleet.web("far", &["--network", "lan"]);
    let script = format!("{FETCH} fetch near");
    let flags = ["--network", "lan", "--link", "far:near"];
    assert_eq!(fleet.shell(&flags, &script).ok().stdout, "far\n");
}

#[test]
fn a_network_can_be_shared() {
    let Some(fleet) = as_root() else { return };
    fleet.web("web", &["--add-host", "extra:10.1.2.3"]);
    let script = format!("{FETCH} fetch 127.0.0.1; grep -c extra /etc/hosts; hostname; cat /etc/hostname");
    let name = fleet.says(&["inspect", "web", "-f", "{{.Config.Hostname}}"]);
    let shared = ["--network", "container:web"];
    assert_eq!(fleet.shell(&shared, &script).ok().stdout, format!("web\n1\n{name}\n{name}\n"));
    fleet
        .shell(&[&shared[..], &["-h", "x"]].concat(), "true")
        .refuses(125, &["hostname and the network mode"]);
    // the other one may be renamed
    fleet.start("beside", &shared, &["busybox", "sleep", "1000"]);
    fleet.says(&["rename", "web", "site"]);
    fleet.says(&["restart", "-t", "0", "beside"]);
    fleet.says(&["rm", "-f", "beside"]);
    fleet.says(&["rename", "site", "web"]);
    fleet.says(&["stop", "-t", "0", "web"]);
    let dead = fleet.shell(&["--network", "container:web"], "true");
    dead.refuses(125, &["cannot join network of a non running container"]);
    assert_eq!(fleet.shell(&["--network", "none"], "ip route | wc -l").ok().stdout, "0\n");
}

#[test]
fn a_container_is_told_its_own_names() {
    let Some(fleet) = as_root() else { return };
    fleet.says(&["network", "create", "--subnet", "10.213.11.0/24", "lan"]);
    fleet.says(&["network", "create", "--subnet", "10.213.12.0/24", "far"]);
    let flags = ["--network", "lan", "--ip", "10.213.11.9", "-h", "box", "--domainname", "example.org"];
    fleet.start("box", &[&flags[..], &["--add-host", "up:10.1.2.3"]].concat(), &["busybox", "sleep", "1000"]);
    let local = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
        ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";
    let hosts = |more: &str| {
        let there = fleet.space.rbuild(["exec", "box", "cat", "/etc/hosts"]).ok().stdout;
        assert_eq!(there, format!("{local}10.1.2.3\tup\n10.213.11.9\tbox.example.org box\n{more}"));
    };
    hosts("");
    // a line of the program's own stays
    fleet.says(&["exec", "box", "sh", "-c", "echo 10.9.9.9 mine >> /etc/hosts"]);
    fleet.says(&["network", "connect", "--ip", "10.213.12.9", "far", "box"]);
    hosts("10.9.9.9 mine\n10.213.12.9\tbox.example.org box\n");
    let settings = fleet.says(&["inspect", "box", "-f", "{{json .NetworkSettings.Networks.far}}"]);
    let settings: Value = serde_json::from_str(&settings).unwrap();
    assert_eq!(settings["IPAMConfig"]["IPv4Address"], "10.213.12.9");
    fleet.says(&["network", "disconnect", "far", "box"]);
    hosts("10.9.9.9 mine\n");
    let own = fleet.shell(&["-h", "a.b.c"], "tail -n 1 /etc/hosts").ok().stdout;
    assert!(own.ends_with("\ta.b.c a\n"), "{own}");
    assert_eq!(fleet.shell(&["--network", "none"], "cat /etc/hosts").ok().stdout, local);
}

/// The processes that a process has started, with their names.
fn children(of: i32) -> Vec<(i32, String)> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let one = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let mut fields = tail.split_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?);
        let (pid, name) = head.split_once(" (")?;
        (parent == of.to_string() && state != "Z").then(|| Some((pid.parse().ok()?, name.to_owned())))?
    };
    processes.filter_map(one).collect()
}

fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn a_killed_keeper_is_replaced() {
    let Some(fleet) = as_root() else { return };
    fleet.says(&["network", "create", "lan"]);
    fleet.web("web", &["--network", "lan", "-p", "80"]);
    fleet.web("other", &["--network", "lan"]);
    let port = fleet.port("web", "80");
    let monitor = fleet.monitor("web");
    let keeper = || children(monitor).into_iter().find(|(_, name)| name == "rbuild-net").map(|(pid, _)| pid);
    let first = keeper().unwrap();
    end(first);
    eventually("there is another one", MINUTE, || keeper().is_some_and(|pid| pid != first));
    assert_eq!(get("127.0.0.1", port), "web\n");
    let script = "until timeout 5 wget -qO- http://other/; do sleep 0.2; done";
    assert_eq!(fleet.says(&["exec", "web", "sh", "-c", script]), "other");
    assert_eq!(fleet.port("web", "80"), port);
}

#[test]
fn several_networks_at_once() {
    let Some(fleet) = as_root() else { return };
    for name in ["alpha", "beta"] {
        fleet.says(&["network", "create", name]);
        fleet.web(&format!("in-{name}"), &["--network", name]);
    }
    let script = format!("{FETCH} fetch in-alpha; fetch in-beta; ip route | grep default");
    let said = fleet.shell(&["--network", "beta", "--network", "alpha"], &script).ok().stdout;
    assert!(said.starts_with("in-alpha\nin-beta\n") && said.contains("dev eth1"), "{said}");
    let flags = ["--network", "name=beta,gw-priority=1", "--network", "alpha"];
    let said = fleet.shell(&flags, "ip route | grep default").ok().stdout;
    assert!(said.contains("dev eth0"), "{said}");
}

#[test]
fn networks_are_managed_as_docker_does() {
    let space = TestSpace::new();
    let says = |args: &[&str]| space.rbuild(args).ok().stdout;
    let id =
        says(&["network", "create", "--label", "a=b", "-o", "com.docker.network.driver.mtu=1400", "lan"]);
    assert_eq!(id.trim_end().len(), 64);
    says(&["network", "create", "--ipv6", "six"]);
    space.rbuild(["network", "create", "lan"]).refuses(1, &["network with name lan already exists"]);
    space.rbuild(["network", "create", "host"]).refuses(1, &["not permitted on predefined host network"]);
    let two = ["--subnet", "10.213.9.0/24", "--gateway", "10.213.9.1", "--gateway", "10.213.9.2", "x1"];
    let refused = |flags: &[&str], why: &str| {
        space.rbuild([&["network", "create"], flags].concat()).refuses(1, &[why]);
    };
    refused(&two, "must have a corresponding subnet");
    refused(&["-o", "com.docker.network.bridge.enable_icc=maybe", "x1"], "true or false");
    refused(&["--label", "=a", "x1"], "empty name");
    space.rbuild(["network", "create", "-d", "overlay", "x1"]).refuses(1, &["there is only bridge"]);
    let names = |filter: &[&str]| {
        let args = [&["network", "ls", "--format", "{{.Name}}"], filter].concat();
        says(&args).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&[]), "bridge host lan none six");
    assert_eq!(names(&["-f", "type=custom"]), "lan six");
    assert_eq!(names(&["-f", "label=a=b"]), "lan");
    assert_eq!(names(&["-f", "driver=null"]), "none");
    assert_eq!(names(&["-f", "name=la"]), "lan");
    assert_eq!(names(&["-f", "name=^.a"]), "lan");
    let row = ["network", "ls", "--format", "{{.Name}} {{.Label \"a\"}}", "-f", "name=lan"];
    assert_eq!(says(&row), "lan b\n");
    let bridge = "com.docker.network.bridge.name=rb-test-same";
    says(&["network", "create", "--internal=false", "-o", bridge, "first"]);
    refused(&["-o", bridge, "second"], "networks have same bridge name");
    says(&["network", "rm", "first"]);
    let head = says(&["network", "ls"]);
    assert!(head.starts_with("NETWORK ID     NAME      DRIVER    SCOPE\n"), "{head}");
    let json: Value = serde_json::from_str(&says(&["network", "inspect", "six", &id[..10]])).unwrap();
    assert_eq!((json[0]["EnableIPv6"].as_bool(), json[1]["Name"].as_str()), (Some(true), Some("lan")));
    assert_eq!(json[0]["IPAM"]["Config"].as_array().unwrap().len(), 2);
    assert_eq!(json[1]["Labels"]["a"], "b");
    let missing = space.rbuild(["network", "inspect", "gone"]).code(1);
    assert_eq!((missing.stdout.as_str(), missing.stderr.contains("network gone not found")), ("[]\n", true));
    space.rbuild(["network", "rm", "bridge"]).refuses(1, &["cannot be removed"]);
    let done = space.rbuild(["network", "rm", "gone", "lan"]).refuses(1, &["network gone not found"]);
    assert_eq!(done.stdout, "lan\n");
    assert_eq!(says(&["network", "prune", "-f"]), "Deleted Networks:\nsix\n\n");
    assert_eq!(names(&["-f", "type=custom"]), "");
}

#[test]
fn a_network_in_use_stays() {
    let Some(fleet) = as_root() else { return };
    fleet.says(&["network", "create", "lan"]);
    fleet.web("web", &["--network", "lan"]);
    fleet.space.rbuild(["network", "rm", "lan"]).refuses(1, &["has active endpoints", "web"]);
    assert_eq!(fleet.says(&["network", "prune", "-f"]), "");
    fleet.shell(&["--network", "nothing"], "true").refuses(125, &["network nothing not found"]);
}

#[test]
fn an_ordinary_users_containers_are_in_networks_together() {
    let Some(space) = TestSpace::rootless() else { return };
    let fleet = Fleet::new(space);
    for create in [&["lan"][..], &["far"], &["--internal", "closed"], &["--subnet", "10.99.7.0/24", "fixed"]]
    {
        fleet.says(&[&["network", "create"], create].concat());
    }
    fleet.web("web", &["--network", "lan", "--network-alias", "www"]);
    fleet.web("deep", &["--network", "closed"]);
    fleet.web("still", &["--network", "fixed", "--ip", "10.99.7.77"]);
    let ask = |network: &str, name: &str| {
        let script = format!(
            "for i in 1 2 3 4 5 6 7 8 9; do timeout 5 wget -qO- http://{name}/ && exit; sleep 1; done"
        );
        fleet.shell(&["--network", network], &script).stdout
    };
    assert_eq!(ask("lan", "web"), "web\n");
    assert_eq!(ask("lan", "www"), "web\n");
    assert_eq!(ask("closed", "deep"), "deep\n");
    assert_eq!(ask("fixed", "10.99.7.77"), "still\n");
    assert_eq!(ask("container:web", "localhost"), "web\n");
    // other networks know neither the name nor the address, and a closed one has no way out
    fleet.shell(&["--network", "far"], "nslookup web").code(1);
    let address = fleet.address("web", "lan");
    fleet.shell(&["--network", "far"], &format!("timeout 2 wget -qO- http://{address}/ || exit 1")).code(1);
    assert_eq!(fleet.shell(&["--network", "closed"], "ip route | grep -c default").stdout, "0\n");
    assert_eq!(fleet.shell(&["--network", "lan"], "ip route | grep -c default").stdout, "1\n");
    fleet.says(&["network", "connect", "--alias", "late", "far", "web"]);
    assert_eq!(ask("far", "late"), "web\n");
    fleet.says(&["network", "disconnect", "far", "web"]);
    fleet.shell(&["--network", "far"], "nslookup late").code(1);
    fleet.space.rbuild(["network", "rm", "lan"]).refuses(1, &["has active endpoints", "web"]);
    fleet.shell(&["--network", "nothing"], "true").refuses(125, &["not found"]);
    assert_eq!(fleet.shell(&["--network", "none"], "ip route | wc -l").ok().stdout, "0\n");
    fleet.says(&["rm", "-f", "web", "deep", "still"]);
    fleet.says(&["network", "rm", "lan", "far", "closed", "fixed"]);
}

#[test]
fn an_ordinary_users_containers_share_what_the_first_one_makes() {
    let Some(space) = TestSpace::rootless() else { return };
    let fleet = Fleet::new(space);
    fleet.says(&["network", "create", "lan"]);
    let marks = || ["anchor", "ground.json"].map(|name| fleet.space.path("run/rbuild").join(name).exists());
    for _ in 0..2 {
        // all at once, with nothing there: one of them makes it, the others find it
        std::thread::scope(|scope| {
            for n in 0..6 {
                let fleet = &fleet;
                scope.spawn(move || fleet.web(&format!("w{n}"), &["--network", "lan"]));
            }
        });
        assert_eq!(marks(), [true, true]);
        let script =
            "for n in 0 1 2 3 4 5; do until timeout 5 wget -qO- http://w$n/; do sleep 0.2; done; done";
        assert_eq!(fleet.shell(&["--network", "lan"], script).ok().stdout, "w0\nw1\nw2\nw3\nw4\nw5\n");
        // the others go on without one whose monitor is killed, and its name is free
        let monitor = Pid::from_raw(fleet.monitor("w5"));
        kill(monitor, Signal::SIGKILL).unwrap();
        eventually("it is seen to have ended", MINUTE, || {
            fleet.says(&["inspect", "-f", "{{.State.Status}}", "w5"]) == "exited"
        });
        fleet.says(&["start", "w5"]);
        let script = "until timeout 5 wget -qO- http://w5/; do sleep 0.2; done";
        assert_eq!(fleet.shell(&["--network", "lan"], script).ok().stdout, "w5\n");
        fleet.says(&["rm", "-f", "w0", "w1", "w2", "w3", "w4", "w5"]);
        // nobody is left who needs it
        eventually("the namespaces go", MINUTE, || marks() == [false, false]);
    }
    fleet.space.assert_nothing_runs();
}

#[test]
fn what_keeps_an_ordinary_users_networks_is_replaced() {
    let Some(space) = TestSpace::rootless() else { return };
    let fleet = Fleet::new(space);
    fleet.says(&["network", "create", "lan"]);
    fleet.web("web", &["--network", "lan", "-p", "80"]);
    let port = fleet.port("web", "80");
    let mark =
        |name: &str| std::fs::read_to_string(fleet.space.path("run/rbuild").join(name)).unwrap_or_default();
    let ground = || {
        let mark: Value = serde_json::from_str(&mark("ground.json")).unwrap_or_default();
        mark["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0)
    };
    let anchor = || mark("anchor").split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
    let helper = || children(ground()).first().map_or(0, |(pid, _)| *pid);
    let keeper = || children(fleet.monitor("web")).into_iter().find(|(_, name)| name == "rbuild-net");
    let keeper = || keeper().map_or(0, |(pid, _)| pid);
    let all: [(&str, &dyn Fn() -> i32); 4] =
        [("ground", &ground), ("anchor", &anchor), ("helper", &helper), ("keeper", &keeper)];
    for (what, pid) in all {
        let before = pid();
        assert_ne!(before, 0, "{what}");
        end(before);
        // a new container meets those that were there, and they meet it
        let script = "until timeout 5 wget -qO- http://web/; do sleep 0.2; done";
        assert_eq!(fleet.shell(&["--network", "lan"], script).ok().stdout, "web\n", "{what}");
        assert_eq!(get("127.0.0.1", port), "web\n", "{what}");
        eventually(&format!("there is another {what}"), MINUTE, || ![0, before].contains(&pid()));
        assert_ne!(helper(), 0, "{what}");
    }
    fleet.says(&["rm", "-f", "web"]);
    eventually("all is gone", MINUTE, || mark("anchor").is_empty() && mark("ground.json").is_empty());
    fleet.space.assert_nothing_runs();
}

#[test]
fn an_ordinary_users_containers_are_linked() {
    let Some(space) = TestSpace::rootless() else { return };
    let fleet = Fleet::new(space);
    fleet.web("web", &["--expose", "80", "-e", "COLOUR=red"]);
    let script = "until timeout 5 wget -qO- http://store/; do sleep 0.2; done; echo $STORE_PORT_80_TCP_PORT $STORE_ENV_COLOUR";
    assert_eq!(fleet.shell(&["--link", "web:store"], script).ok().stdout, "web\n80 red\n");
    // a way to the host's own loopback is given to a container alone
    let hosts = fleet.shell(&["--add-host", "up:host-gateway"], "grep -c up /etc/hosts").ok().stdout;
    assert_eq!(hosts, "1\n");
}
