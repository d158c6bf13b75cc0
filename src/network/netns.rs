//! Makes network namespaces that live by file descriptor alone.
//!
//! Nothing is mounted and no process is parked inside: when the last descriptor and the last process of a namespace
//! go (a killed rbuild included), the kernel takes it away with its interfaces.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use super::NetworkError;
use crate::sys::{
    netlink::{Netlink, Protocol},
    netlink_route,
};

/// The loopback is the first interface of every namespace.
pub(super) const LOOPBACK: u32 = 1;

/// Settings of a fresh namespace, as the docker engine makes them: any user may listen on low ports and ping. IPv6
/// stays off the outer interface, where no router would answer it; `::1` on the loopback is not affected.
const SETTINGS: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
];

/// A network namespace and a route socket in it.
pub(super) struct Netns {
    pub(super) fd: OwnedFd,
    pub(super) route: Netlink,
}

impl Netns {
    /// Opens one that exists.
    pub(super) fn open(path: &std::path::Path) -> io::Result<Self> {
        Self::of(File::open(path)?.into())
    }

    /// Takes one that is open.
    pub(super) fn of(fd: OwnedFd) -> io::Result<Self> {
        let route = inside(fd.as_fd(), || Netlink::open(Protocol::Route))??;
        Ok(Self { fd, route })
    }

    /// Makes an empty namespace; `ipv6` keeps IPv6 on its interfaces to come. The loopback is still down.
    ///
    /// A thread of its own enters the new namespace, opens what is needed and ends; no other thread notices.
    pub(super) fn new(ipv6: bool) -> Result<Self, NetworkError> {
        thread::scope(|scope| {
            let inside = thread::Builder::new()
                .name("netns".into())
                .stack_size(128 << 10)
                .spawn_scoped(scope, || enter_new(ipv6))?;
            inside.join().map_err(|_| io::Error::other("the helper thread panicked"))?
        })
        .map_err(NetworkError::setup("make a network namespace"))
    }
}

/// Runs something on a thread of its own in a network namespace.
pub(super) fn inside<T: Send>(netns: BorrowedFd<'_>, act: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let entered = thread::Builder::new().name("netns".into()).stack_size(128 << 10).spawn_scoped(
            scope,
            || -> io::Result<T> {
                setns(netns, CloneFlags::CLONE_NEWNET)?;
                Ok(act())
            },
        )?;
        entered.join().map_err(|_| io::Error::other("the helper thread panicked"))?
    })
}

fn enter_new(ipv6: bool) -> io::Result<Netns> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let fd = File::open("/proc/thread-self/ns/net")?.into();
    let settings = if ipv6 { &SETTINGS[..2] } else { &SETTINGS[..] };
    for (path, value) in settings {
        // They make more programs work and nothing depends on them: /proc may be read-only, IPv6 not built in.
        let _ = std::fs::write(path, value);
    }
    Ok(Netns { fd, route: Netlink::open(Protocol::Route)? })
}

/// A network namespace with nothing but a loopback interface: `--network none`.
#[derive(Debug)]
pub struct IsolatedNetwork {
    netns: OwnedFd,
}

impl IsolatedNetwork {
    /// Makes one, with the loopback up.
    ///
    /// # Errors
    /// [`NetworkError::Setup`]: the kernel refuses namespaces (no root and not in a user namespace).
    pub fn create() -> Result<Self, NetworkError> {
        let mut netns = Netns::new(true)?;
        run(&mut netns.route, &[netlink_route::link_up(LOOPBACK)])
            .map_err(NetworkError::setup("set the loopback interface up"))?;
        Ok(Self { netns: netns.fd })
    }

    /// The namespace, to be entered with setns(2).
    #[must_use]
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }
}

/// Sends the requests in one go and reports the first refusal.
pub(super) fn run(route: &mut Netlink, requests: &[crate::sys::netlink::Request]) -> io::Result<()> {
    // the kernel refuses a packet without a message
    if requests.is_empty() { Ok(()) } else { route.run(requests)?.into_iter().collect() }
}
