//! What a monitor has an eye on while its container runs: that the processes which keep its network are there, and where
//! the containers are that it is linked to.
//!
//! A killed keeper takes published ports and the name server along, a killed ground the way out of all the user's
//! networks. Both are replaced: the namespaces are still there, since monitors hold them open. What dies again and
//! again is left alone; the container has no published ports then, which `ps` and `inspect` show.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
};

use super::{Membership, helper_job};
use crate::network::{NetworkError, ground::Ground, keeper::Keeper, live::Lives};

/// So often within [`SPAN`] something is replaced.
const MOST: usize = 5;
const SPAN: Duration = Duration::from_secs(60);

/// What has to be watched beside the keepers.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The process that keeps the ground, until it cannot be replaced.
    ground: Option<OwnedFd>,
    /// Changes among the running containers, for whoever has links.
    others: Option<OwnedFd>,
    /// When something was replaced.
    replaced: Vec<Instant>,
}

impl Watch {
    /// Whether something may be replaced once more.
    fn once_more(&mut self) -> bool {
        self.replaced.retain(|at| at.elapsed() < SPAN);
        self.replaced.push(Instant::now());
        self.replaced.len() <= MOST
    }
}

impl Membership {
    /// Begins, when the container is in its networks.
    pub(super) fn begin_watch(&mut self) {
        self.watch.ground = self.ground.as_ref().and_then(|ground| ground.keeper());
        if !self.links().is_empty() && self.watch.others.is_none() {
            // without it a link goes on with the address that it has
            self.watch.others = Lives::new(&self.request.dir).watch().ok();
        }
    }

    /// What becomes readable when [`Membership::look_after`] has something to do.
    pub fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let keepers = self.keepers.iter().filter_map(Keeper::ended);
        let others = [&self.watch.ground, &self.watch.others].into_iter().flatten();
        keepers.chain(others.map(AsFd::as_fd))
    }

    /// Replaces what has died, and looks where the containers are that this one is linked to.
    pub fn look_after(&mut self) {
        let lives = Lives::new(&self.request.dir);
        if let Some(others) = self.watch.others.as_ref().filter(|fd| is_ready(fd.as_fd())) {
            drain(others);
            self.link_again(&lives.all());
        }
        if self.watch.ground.as_ref().is_some_and(|fd| is_ready(fd.as_fd())) {
            self.replace_ground();
        }
        if self.keepers.iter().filter_map(Keeper::ended).any(is_ready) {
            let replaced = self.watch.once_more() && self.replace_keepers(&lives).is_ok();
            if !replaced {
                self.dismiss();
                // who reads it sees no ports
                let _ = lives.write(&self.live);
            }
        }
    }

    fn replace_keepers(&mut self, lives: &Lives) -> Result<(), NetworkError> {
        self.dismiss();
        if self.private.is_none() {
            return self.keep(lives);
        }
        let netns = format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd());
        let mut job = helper_job(&self.request, Some(netns.into()));
        job.publish = self.to_publish();
        let (keeper, reply) = Keeper::start(&job)?;
        self.keepers.push(keeper);
        self.live.ports = reply.ports;
        lives.write(&self.live)
    }

    /// Finds the ground that another monitor has made a keeper for, or does so.
    fn replace_ground(&mut self) {
        self.watch.ground = None;
        let Some(old) = &self.ground else { return };
        if !self.watch.once_more() {
            return;
        }
        if let Ok(new) = Ground::join(&self.request.env)
            && new.is_same(old)
        {
            self.watch.ground = new.keeper();
            self.ground = Some(Arc::new(new));
        }
    }
}

fn is_ready(fd: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&now)).is_ok_and(|n| n > 0)
}

/// Takes away what there is to read.
fn drain(events: &OwnedFd) {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
    let mut reader = inotify::Reader::new(events, &mut buffer);
    while reader.next().is_ok() {}
}
