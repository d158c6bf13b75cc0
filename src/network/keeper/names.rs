//! Which names a container can find, and which addresses they have at this moment.
//!
//! The truth is in the files of the running containers ([`Lives`]); they are read for each question, so a container that
//! came or went a moment ago is known or forgotten without anybody being told.

use std::net::IpAddr;

use crate::network::live::{Endpoint, LiveNetwork, Lives};

/// The names that one container can find.
pub(super) struct Names {
    lives: Lives,
    /// The id of the container that asks.
    id: String,
}

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A container has it; perhaps it has no address of the wanted kind.
    Here(Vec<IpAddr>),
    /// It is not a container's.
    Elsewhere,
    /// It is not a container's, and the asking one is in no network with a way out.
    Nowhere,
}

impl Names {
    pub(super) fn new(lives: Lives, id: String) -> Self {
        Self { lives, id }
    }

    /// Finds the addresses of a name in the networks of the container.
    pub(super) fn addresses(&self, name: &str) -> Found {
        let all = self.lives.all();
        let Some(own) = all.iter().find(|live| live.id == self.id) else { return Found::Elsewhere };
        let mut ips = Vec::new();
        let mut found = false;
        for place in own.endpoints.iter().filter(|e| e.named) {
            for (other, endpoint) in members(&all, place) {
                if is_called(own, place, other, endpoint, name) {
                    found = true;
                    ips.extend(endpoint.v4.map(|(ip, _)| IpAddr::V4(ip)));
                    ips.extend(endpoint.v6.map(|(ip, _)| IpAddr::V6(ip)));
                }
            }
        }
        if found { Found::Here(ips) } else { beyond(own) }
    }

    /// Finds the name of an address in the networks of the container.
    pub(super) fn name(&self, ip: IpAddr) -> Result<String, Found> {
        let all = self.lives.all();
        let Some(own) = all.iter().find(|live| live.id == self.id) else { return Err(Found::Elsewhere) };
        for place in own.endpoints.iter().filter(|e| e.named) {
            for (other, endpoint) in members(&all, place) {
                let ips = [endpoint.v4.map(|n| n.0.into()), endpoint.v6.map(|n| n.0.into())];
                if ips.contains(&Some(ip)) {
                    return Ok(format!("{}.{}", other.name, endpoint.network));
                }
            }
        }
        Err(beyond(own))
    }
}

/// Whether somebody else can be asked.
fn beyond(own: &LiveNetwork) -> Found {
    let out = own.rootless || own.way_out(true).is_some() || own.way_out(false).is_some();
    if out { Found::Elsewhere } else { Found::Nowhere }
}

fn members<'a>(
    all: &'a [LiveNetwork],
    place: &'a Endpoint,
) -> impl Iterator<Item = (&'a LiveNetwork, &'a Endpoint)> {
    all.iter().filter_map(|live| Some((live, live.endpoint(&place.network_id)?)))
}

/// Whether `other` is known to `own` by a name, in the network that both are in.
fn is_called(own: &LiveNetwork, place: &Endpoint, other: &LiveNetwork, at: &Endpoint, name: &str) -> bool {
    let bare = name
        .len()
        .checked_sub(place.network.len() + 1)
        .filter(|cut| name[*cut..].starts_with('.') && name[*cut + 1..].eq_ignore_ascii_case(&place.network))
        .map(|cut| &name[..cut]);
    let is =
        |known: &str| known.eq_ignore_ascii_case(name) || bare.is_some_and(|b| known.eq_ignore_ascii_case(b));
    let linked = place.links.iter().filter(|link| is(&link.alias));
    other.names(at).any(is)
        || linked.into_iter().any(|link| {
            link.target == other.name
                || other.id == link.target
                || (link.target.len() >= 6 && other.id.starts_with(&link.target))
        })
        || (own.id == other.id && own.hostname.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Link;

    fn place(network: &str, ip: [u8; 4], aliases: &[&str], way_out: bool) -> Endpoint {
        Endpoint {
            network: network.into(),
            network_id: format!("id-{network}"),
            endpoint_id: String::new(),
            aliases: aliases.iter().map(|a| (*a).to_owned()).collect(),
            links: vec![Link { target: "db".into(), alias: "store".into(), name: None }],
            v4: Some((ip.into(), 24)),
            v6: None,
            gateway: way_out.then(|| [10, 0, 0, 1].into()),
            gateway6: None,
            mac: None,
            inside: "eth0".into(),
            outside: "v".into(),
            gw_priority: 0,
            named: network != "bridge",
        }
    }

    fn live(name: &str, digit: &str, endpoints: Vec<Endpoint>) -> LiveNetwork {
        let id = digit.repeat(64);
        LiveNetwork { hostname: id[..12].into(), id, name: name.into(), endpoints, ..LiveNetwork::default() }
    }

    #[test]
    fn names_are_found_in_common_networks_only() {
        let dir = tempfile::tempdir().unwrap();
        let lives = Lives::new(dir.path());
        let all = [
            live("web", "a", vec![place("front", [10, 0, 0, 2], &["www"], true)]),
            live(
                "app",
                "b",
                vec![place("front", [10, 0, 0, 3], &["www"], true), place("back", [10, 1, 0, 3], &[], false)],
            ),
            live("db", "c", vec![place("back", [10, 1, 0, 4], &[], false)]),
            live("old", "d", vec![place("bridge", [10, 2, 0, 4], &[], true)]),
        ];
        let _held: Vec<_> = all.iter().map(|l| lives.hold(&l.id).unwrap()).collect();
        all.iter().for_each(|l| lives.write(l).unwrap());
        let ask = |who: &LiveNetwork, name: &str| Names::new(lives.clone(), who.id.clone()).addresses(name);
        let here = |ips: &[[u8; 4]]| Found::Here(ips.iter().map(|ip| IpAddr::from(*ip)).collect());
        let [web, app, db, old] = &all;
        assert_eq!(ask(web, "app"), here(&[[10, 0, 0, 3]]));
        assert_eq!(ask(web, "APP.Front"), here(&[[10, 0, 0, 3]]));
        assert_eq!(ask(web, "bbbbbbbbbbbb"), here(&[[10, 0, 0, 3]]));
        assert_eq!(ask(web, "db"), Found::Elsewhere);
        assert_eq!(ask(app, "db"), here(&[[10, 1, 0, 4]]));
        assert_eq!(ask(app, "store"), here(&[[10, 1, 0, 4]]));
        assert_eq!(ask(db, "app"), here(&[[10, 1, 0, 3]]));
        assert_eq!(ask(db, "example.org"), Found::Nowhere);
        assert_eq!(ask(old, "web"), Found::Elsewhere);
        let Found::Here(mut both) = ask(app, "www") else { panic!("an alias") };
        both.sort();
        assert_eq!(both, [IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 3])]);
        let names = Names::new(lives.clone(), app.id.clone());
        assert_eq!(names.name([10, 1, 0, 4].into()).as_deref(), Ok("db.back"));
        assert_eq!(names.name([10, 9, 0, 4].into()), Err(Found::Elsewhere));
    }
}
