//! Pull: the manifest for a platform, then its layers, several at a time, each unpacked while it comes.
//!
//! Layers are unpacked in order, lowest first, because each stands on the one below; they are fetched beside that, a few
//! at a time. A lock by the blob's name lets one of several processes fetch it, the others find it. Nothing is visible
//! before it was checked (see `image::Receiver`), so a pull can end at any moment.

use super::choose::{Chosen, choose};
use super::error::TransferError;
use super::spool::Spool;
use crate::digest::{Digest, ImageId, ResultId};
use crate::fault;
use crate::image::{CONFIG_LIMIT, Images, Loaded, Receiver, chain_ids};
use crate::interrupt::{Pump, Stop};
use crate::oci::{Descriptor, ImageConfig};
use crate::platform::Platform;
use crate::progress::{EventSink, Moving, Outcome};
use crate::reference::Reference;
use crate::registry::{Client, RegistryError, Resolved, registry_error};
use crate::store::{LockKind, Store};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Layers that are fetched at a time, as docker does.
const AT_ONCE: usize = 4;
/// Bytes that travel at once.
const BLOCK: usize = 256 << 10;

/// What a pull works with.
pub struct Pull<'a> {
    /// Asks the registry.
    pub client: &'a Client,
    /// Where blobs go.
    pub store: &'a Store,
    /// Where the image goes.
    pub images: &'a Images,
    /// The platform that somebody asked for; without it this machine's.
    pub platform: Option<&'a Platform>,
    /// Hears of each layer.
    pub sink: Arc<dyn EventSink>,
    /// Set to stop.
    pub stop: &'a Stop,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// What the name led to: the digest of a manifest or of an index.
    pub digest: Digest,
    /// Whether the name was this image's before.
    pub up_to_date: bool,
    /// Bytes of layers that were fetched.
    pub fetched: u64,
}

/// A layer on its way.
struct Coming<'a> {
    blob: &'a Descriptor,
    spool: Spool,
    step: usize,
    failure: Mutex<Option<TransferError>>,
}

impl Coming<'_> {
    /// Joins how fetching and unpacking ended: what the network says explains more than what the unpacker makes of it.
    fn ended(&self, unpacked: Result<ResultId, TransferError>) -> Result<ResultId, TransferError> {
        let arrived = self.spool.wait();
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (failure, unpacked) {
            (Some(TransferError::Interrupted), Err(unpacked)) if arrived.is_err() => Err(unpacked),
            (Some(failure), _) => Err(failure),
            (None, unpacked) => unpacked,
        }
    }
}

impl Pull<'_> {
    /// Brings what a name means into the store, and gives it that name.
    ///
    /// # Errors
    /// There is no such image, not for this platform, or a part of it does not arrive or is not what it should be: then the
    /// name is what it was before.
    pub fn image(&self, name: &Reference) -> Result<Pulled, TransferError> {
        let (client, asked) = (self.client.clone(), name.clone());
        let found = self.stop.or(move || client.resolve(&asked))??;
        self.resolved(name, found)
    }

    /// As [`Pull::image`] for what a name has been resolved to.
    ///
    /// # Errors
    /// As [`Pull::image`].
    pub fn resolved(&self, name: &Reference, found: Resolved) -> Result<Pulled, TransferError> {
        let receiver = self.images.receiver()?;
        let digest = found.descriptor.digest.clone();
        let wanted = self.platform.cloned().unwrap_or_else(Platform::host);
        let (client, asked) = (self.client.clone(), name.clone());
        let (chosen, config_bytes) = self.stop.or(move || {
            let chosen = choose(&client, &asked, found, &wanted)?;
            let config = client.blob_bytes(&asked, &chosen.manifest.config, CONFIG_LIMIT)?;
            Ok::<_, TransferError>((chosen, config))
        })??;
        let config = receiver.config(&config_bytes, &chosen.manifest)?;
        if chosen.descriptor.digest == digest {
            self.check_platform(name, &config)?;
        }
        let fetched = self.layers(name, &chosen, &config, &receiver)?;
        fault::point("pull.before_finish");
        let before = self.images.resolve(&name.to_string()).ok().map(|image| image.descriptor.digest);
        let up_to_date = before.as_ref() == Some(&chosen.descriptor.digest);
        // a name with tag and digest is kept as the digest's, as docker does
        let kept = match name.digest() {
            Some(digest) => name.with_digest(digest),
            None => name.clone(),
        };
        let Loaded { id, .. } =
            receiver.finish(&chosen.descriptor, &chosen.bytes, &config_bytes, Some(&kept), &digest)?;
        Ok(Pulled { id, digest, up_to_date, fetched })
    }

    /// An image that stands alone under its name is for the platform of its config, whatever was asked for.
    fn check_platform(&self, name: &Reference, config: &ImageConfig) -> Result<(), TransferError> {
        let Some(wanted) = self.platform else { return Ok(()) };
        let (os, architecture) = (config.os.clone(), config.architecture.clone());
        let own = Platform { os, architecture, variant: config.variant.clone() };
        let own: Platform = own.to_string().parse().unwrap_or(own);
        if own.os.is_empty() || own.architecture.is_empty() || wanted.runs(&own) {
            return Ok(());
        }
        let (wanted, has) = (wanted.to_string(), own.to_string());
        Err(TransferError::Platform { name: name.familiar(), wanted, has })
    }

    /// Brings all layers; gives the bytes that were fetched.
    fn layers(
        &self,
        name: &Reference,
        chosen: &Chosen,
        config: &ImageConfig,
        receiver: &Receiver<'_>,
    ) -> Result<u64, TransferError> {
        let blobs = &chosen.manifest.layers;
        let chain = chain_ids(config);
        let missing: Vec<&Descriptor> =
            chain.iter().zip(blobs).filter(|(c, b)| !receiver.has_layer(c, b)).map(|(_, b)| b).collect();
        let mut coming: HashMap<&Digest, Coming<'_>> = HashMap::new();
        let mut order = Vec::new();
        for blob in missing {
            let step = order.len() + 1;
            coming.entry(&blob.digest).or_insert_with(|| {
                order.push(&blob.digest);
                Coming { blob, spool: Spool::default(), step, failure: Mutex::new(None) }
            });
        }
        let total: u64 = coming.values().map(|c| c.blob.size).sum();
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            while let Some(digest) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.fetch(name, &coming[digest], receiver, &stop);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..order.len().min(AT_ONCE) {
                scope.spawn(work);
            }
            let mut parent = ResultId::scratch();
            let layers = blobs.iter().zip(&config.rootfs.diff_ids).zip(&chain);
            for ((blob, diff_id), chain) in layers {
                let done = match coming.get(&blob.digest) {
                    None => Ok(ResultId::chain(chain)),
                    Some(layer) => {
                        let bytes = Box::new(layer.spool.reader());
                        let unpacked = receiver.unpack(&parent, chain, diff_id, blob, bytes);
                        // of a layer that is wrong the rest need not come
                        stop.fetch_or(unpacked.is_err(), Ordering::Relaxed);
                        fault::point("pull.layer_unpacked");
                        layer
                            .ended(unpacked.map_err(TransferError::from))
                            .and_then(|_| Ok(receiver.check(&parent, chain, diff_id, blob)?))
                    }
                };
                parent = done.map_err(|source| {
                    stop.store(true, Ordering::Relaxed);
                    layer_error(name, blob, source)
                })?;
            }
            Ok(total)
        })
    }

    /// Fetches one blob into the store, or finds it there.
    fn fetch(&self, name: &Reference, layer: &Coming<'_>, receiver: &Receiver<'_>, stop: &AtomicBool) {
        let step = Moving::begin(&self.sink, layer.step, "pull", &layer.blob.digest, layer.blob.size);
        match self.fetch_blob(name, layer, receiver, stop, &step) {
            Ok(found) => {
                step.end(if found { Outcome::Cached } else { Outcome::Done });
                layer.spool.end(Ok(()));
            }
            Err(error) => {
                let text = error.to_string();
                let outcome = match error {
                    TransferError::Interrupted => Outcome::Cancelled,
                    _ => Outcome::Failed(text.clone()),
                };
                step.end(outcome);
                *layer.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                layer.spool.end(Err(text));
            }
        }
    }

    /// Gives whether the blob was there.
    fn fetch_blob(
        &self,
        name: &Reference,
        layer: &Coming<'_>,
        receiver: &Receiver<'_>,
        stop: &AtomicBool,
        step: &Moving,
    ) -> Result<bool, TransferError> {
        let stopped = || stop.load(Ordering::Relaxed) || self.stop.is_asked();
        let blob = layer.blob;
        if stopped() {
            return Err(TransferError::Interrupted);
        }
        let _once = self.store.lock(&format!("blob-{}", blob.digest.encoded()), LockKind::Exclusive)?;
        if receiver.has_blob(blob) {
            layer.spool.begin(self.store.blobs().open(&blob.digest)?);
            layer.spool.grown(blob.size);
            return Ok(true);
        }
        let (client, repository, wanted) = (self.client.clone(), name.clone(), blob.clone());
        let mut source = Pump::start(self.stop, move || {
            Ok(Box::new(client.blob(&repository, &wanted).map_err(std::io::Error::other)?))
        });
        let mut writer = self.store.blobs().writer()?;
        layer.spool.begin(writer.share()?);
        let mut buffer = vec![0; BLOCK];
        loop {
            let read = source.read(&mut buffer);
            if stopped() {
                return Err(TransferError::Interrupted);
            }
            let n = read.map_err(registry_error)?;
            if n == 0 {
                break;
            }
            let kept = writer.write_all(&buffer[..n]);
            kept.map_err(|source| RegistryError::Local { action: "keep a layer", source })?;
            layer.spool.grown(writer.size());
            step.moved(writer.size());
        }
        writer.finish(Some((&blob.digest, blob.size)))?;
        fault::point("pull.layer_fetched");
        Ok(false)
    }
}

fn layer_error(name: &Reference, blob: &Descriptor, source: TransferError) -> TransferError {
    match source {
        TransferError::Interrupted => TransferError::Interrupted,
        source => TransferError::Layer {
            name: name.familiar(),
            layer: blob.digest.clone(),
            source: Box::new(source),
        },
    }
}
