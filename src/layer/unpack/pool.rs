//! Writes and hashes small files on a few threads, while the next headers are read.

use super::disk;
use crate::digest::ContentId;
use crate::layer::LayerError;
use crate::tree::{Meta, TreePath};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Files up to this many bytes go through memory to another thread.
pub(super) const SMALL: u64 = 256 << 10;
/// Files handed over together, so that waking a thread is worth it.
const BATCH: usize = 16;
/// Batches that may wait; with the above it bounds the memory to tens of MiB.
const WAITING: usize = 8;

/// A file to be made.
pub(super) struct Job {
    pub(super) body: usize,
    pub(super) dir: Arc<OwnedFd>,
    pub(super) path: TreePath,
    pub(super) meta: Meta,
    pub(super) bytes: Vec<u8>,
}

/// The way to the threads.
pub(super) struct Writers<'a> {
    jobs: Option<SyncSender<Vec<Job>>>,
    batch: Vec<Job>,
    sent: usize,
    shared: &'a Shared,
}

#[derive(Default)]
struct Shared {
    failed: AtomicBool,
    error: Mutex<Option<LayerError>>,
    done: Mutex<Done>,
    finished: Condvar,
}

#[derive(Default)]
struct Done {
    /// Files, whether their contents have been fetched or not.
    files: usize,
    contents: Vec<(usize, ContentId)>,
}

/// Runs `work` with writers; the first error of either side is the result.
pub(super) fn with_writers<T>(
    chown: bool,
    work: impl FnOnce(&mut Writers<'_>) -> Result<T, LayerError>,
) -> Result<T, LayerError> {
    let shared = Shared::default();
    let (jobs, queue) = sync_channel::<Vec<Job>>(WAITING);
    let queue = Mutex::new(queue);
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(1, 4));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| serve(&queue, &shared, chown));
        }
        let mut writers = Writers { jobs: Some(jobs), batch: Vec::new(), sent: 0, shared: &shared };
        let result = work(&mut writers);
        // closes the queue, so that the threads end
        writers.jobs = None;
        result
    })
}

fn serve(queue: &Mutex<Receiver<Vec<Job>>>, shared: &Shared, chown: bool) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = next else { return };
        let mut done = Vec::with_capacity(batch.len());
        for job in batch {
            let content = ContentId::from(blake3::hash(&job.bytes));
            // after a failure the rest is only counted off
            if !shared.failed.load(Ordering::Relaxed)
                && let Err(e) = disk::write_small(&job.dir, &job.path, &job.meta, &job.bytes, chown)
            {
                shared.failed.store(true, Ordering::Relaxed);
                shared.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            }
            done.push((job.body, content));
        }
        let mut all = shared.done.lock().unwrap_or_else(PoisonError::into_inner);
        all.files += done.len();
        all.contents.extend(done);
        drop(all);
        shared.finished.notify_all();
    }
}

impl Writers<'_> {
    /// Hands a file over.
    pub(super) fn submit(&mut self, job: Job) -> Result<(), LayerError> {
        self.batch.push(job);
        if self.batch.len() < BATCH {
            return Ok(());
        }
        self.send();
        if self.shared.failed.load(Ordering::Relaxed) { self.wait() } else { Ok(()) }
    }

    fn send(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if let (Some(jobs), false) = (&self.jobs, batch.is_empty()) {
            self.sent += batch.len();
            // the threads live until the queue is closed
            let _ = jobs.send(batch);
        }
    }

    /// Waits until all files are on disk, or some could not be made.
    pub(super) fn wait(&mut self) -> Result<(), LayerError> {
        self.send();
        let mut done = self.lock();
        while done.files < self.sent {
            done = self.shared.finished.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
        drop(done);
        match self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Gives the content of files that are done, by body number, each once; waits for none.
    pub(super) fn contents(&self) -> Vec<(usize, ContentId)> {
        std::mem::take(&mut self.lock().contents)
    }

    fn lock(&self) -> MutexGuard<'_, Done> {
        self.shared.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
