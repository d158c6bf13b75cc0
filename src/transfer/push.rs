//! Push: what the registry lacks, then the manifest.
//!
//! Asked first is whether the name has the manifest already that would be sent; then nothing else is. A layer's bytes are
//! made only when the registry neither has its blob nor can take it from another of its repositories.

use super::error::TransferError;
use crate::digest::DiffId;
use crate::fault;
use crate::image::{ExportOptions, Image, Images, Outgoing, outgoing_index};
use crate::interrupt::Stop;
use crate::oci::Descriptor;
use crate::progress::{EventSink, Moving, Outcome};
use crate::reference::Reference;
use crate::registry::{Client, Offer, Upload};
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Layers that are sent at a time.
const AT_ONCE: usize = 4;

/// What a push works with.
pub struct Push<'a> {
    /// Asks the registry.
    pub client: &'a Client,
    /// Where the image is.
    pub images: &'a Images,
    /// How layers that were built here are compressed.
    pub options: &'a ExportOptions,
    /// Without tag, under its digest only.
    pub by_digest: bool,
    /// Hears of each layer.
    pub sink: Arc<dyn EventSink>,
    /// Ends it early; the name in the registry is then what it was.
    pub stop: &'a Stop,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest as the registry has it now.
    pub descriptor: Descriptor,
    /// How each layer came there, lowest first.
    pub layers: Vec<(Descriptor, Upload)>,
    /// Bytes of layers that were sent.
    pub sent: u64,
}

/// A layer that is in the registry now.
struct Brought {
    blob: Descriptor,
    how: Upload,
    /// In bytes.
    sent: u64,
}

impl Push<'_> {
    /// Brings an image under a name into its registry; of one for several platforms all, and their index.
    ///
    /// # Errors
    /// Access is denied, a layer is missing or damaged here, or no usable answer: the name there is what it was.
    pub fn image(&self, image: &Image, name: &Reference) -> Result<Pushed, TransferError> {
        match &image.several {
            None => self.one(image, name, self.by_digest, 0),
            Some(_) => self.several(image, name),
        }
    }

    /// Brings one image; its layers are shown as steps behind the first so many.
    fn one(
        &self,
        image: &Image,
        name: &Reference,
        by_digest: bool,
        steps: usize,
    ) -> Result<Pushed, TransferError> {
        let outgoing = self.images.outgoing(image, self.options)?;
        if let Some(done) = self.unchanged(&outgoing, name, by_digest)? {
            return Ok(done);
        }
        let siblings = self.siblings(name)?;
        let layers = self.layers(&outgoing, name, &siblings, steps)?;
        self.config(&outgoing, name)?;
        let listed = layers.iter().map(|layer| layer.blob.clone()).collect();
        let (descriptor, bytes) = outgoing.manifest(listed)?;
        fault::point("push.before_manifest");
        match by_digest {
            true => self.client.put_manifest(&name.with_digest(&descriptor.digest), &descriptor, &bytes)?,
            false => self.client.put_manifest(name, &descriptor, &bytes)?,
        }
        fault::point("push.manifest_sent");
        let sent = layers.iter().map(|layer| layer.sent).sum();
        let layers = layers.into_iter().map(|layer| (layer.blob, layer.how)).collect();
        Ok(Pushed { descriptor, layers, sent })
    }

    /// Brings all images of an index, each under its digest, and at last the index.
    fn several(&self, image: &Image, name: &Reference) -> Result<Pushed, TransferError> {
        let members = self.images.members(image)?;
        if let Some(done) = self.unchanged_index(image, &members, name)? {
            return Ok(done);
        }
        let mut done = Pushed { descriptor: image.target().clone(), layers: Vec::new(), sent: 0 };
        let mut manifests = Vec::with_capacity(members.len());
        for (_, member) in &members {
            let pushed = self.one(member, name, true, done.layers.len())?;
            manifests.push(pushed.descriptor);
            done.layers.extend(pushed.layers);
            done.sent += pushed.sent;
        }
        let (descriptor, bytes) = outgoing_index(image, &members, &manifests, self.options);
        match self.by_digest {
            true => self.client.put_manifest(&name.with_digest(&descriptor.digest), &descriptor, &bytes)?,
            false => self.client.put_manifest(name, &descriptor, &bytes)?,
        }
        Ok(Pushed { descriptor, ..done })
    }

    /// Says whether the name in the registry is this index's already, as [`Push::unchanged`].
    fn unchanged_index(
        &self,
        image: &Image,
        members: &[(Descriptor, Image)],
        name: &Reference,
    ) -> Result<Option<Pushed>, TransferError> {
        let (mut manifests, mut layers) = (Vec::new(), Vec::new());
        for (_, member) in members {
            let outgoing = self.images.outgoing(member, self.options)?;
            let Some(known) = known_layers(&outgoing) else { return Ok(None) };
            manifests.push(outgoing.manifest(known.clone())?.0);
            layers.extend(known.into_iter().map(|layer| (layer, Upload::Present)));
        }
        let (descriptor, _) = outgoing_index(image, members, &manifests, self.options);
        let there = self.is_there(&descriptor, name, self.by_digest);
        Ok(there.then_some(Pushed { descriptor, layers, sent: 0 }))
    }

    /// Says whether a name, or none but the digest, leads to a manifest already.
    fn is_there(&self, wanted: &Descriptor, name: &Reference, by_digest: bool) -> bool {
        let asked = if by_digest { name.with_digest(&wanted.digest) } else { name.clone() };
        // somebody may be allowed to write and not to read
        matches!(self.client.head(&asked), Ok(Some(there)) if there.digest == wanted.digest)
    }

    /// Says whether the name in the registry is this image's already.
    fn unchanged(
        &self,
        outgoing: &Outgoing<'_>,
        name: &Reference,
        by_digest: bool,
    ) -> Result<Option<Pushed>, TransferError> {
        let Some(known) = known_layers(outgoing) else { return Ok(None) };
        let (descriptor, _) = outgoing.manifest(known.clone())?;
        if !self.is_there(&descriptor, name, by_digest) {
            return Ok(None);
        }
        let layers = known.into_iter().map(|layer| (layer, Upload::Present)).collect();
        Ok(Some(Pushed { descriptor, layers, sent: 0 }))
    }

    /// Finds for each layer another repository of the same registry that should have it: where an image with this layer
    /// has a name.
    fn siblings(&self, name: &Reference) -> Result<HashMap<DiffId, String>, TransferError> {
        let mut found = HashMap::new();
        for image in self.images.list()?.images {
            let other = image
                .names
                .iter()
                .find(|other| other.registry() == name.registry() && other.repository() != name.repository());
            let Some(other) = other else { continue };
            for diff in &image.config.rootfs.diff_ids {
                found.entry(diff.clone()).or_insert_with(|| other.repository().to_owned());
            }
        }
        Ok(found)
    }

    fn config(&self, outgoing: &Outgoing<'_>, name: &Reference) -> Result<(), TransferError> {
        let (descriptor, bytes) = outgoing.config();
        let bytes = bytes.to_vec();
        let open =
            move || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(bytes.clone()))) };
        self.client.upload(name, &descriptor, None, &open)?;
        Ok(())
    }

    /// Brings all layers there, some at a time; gives them with the bytes that were sent, lowest first.
    fn layers(
        &self,
        outgoing: &Outgoing<'_>,
        name: &Reference,
        siblings: &HashMap<DiffId, String>,
        steps: usize,
    ) -> Result<Vec<Brought>, TransferError> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let done: Mutex<Vec<(usize, Brought)>> = Mutex::default();
        let failure: Mutex<Option<TransferError>> = Mutex::new(None);
        let work = || {
            while !stop.load(Ordering::Relaxed) && !self.stop.is_asked() {
                let layer = next.fetch_add(1, Ordering::Relaxed);
                if layer >= outgoing.layers() {
                    return;
                }
                match self.layer(outgoing, layer, name, siblings, steps) {
                    Ok(sent) => done.lock().unwrap_or_else(PoisonError::into_inner).push((layer, sent)),
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..outgoing.layers().min(AT_ONCE) {
                scope.spawn(work);
            }
        });
        self.stop.check().map_err(|_| TransferError::Interrupted)?;
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(layer, _)| *layer);
        Ok(done.into_iter().map(|(_, sent)| sent).collect())
    }

    fn layer(
        &self,
        outgoing: &Outgoing<'_>,
        layer: usize,
        name: &Reference,
        siblings: &HashMap<DiffId, String>,
        steps: usize,
    ) -> Result<Brought, TransferError> {
        let known = outgoing.known(layer);
        let (blob, size) = match &known {
            Some(known) => (&known.digest, known.size),
            None => (&outgoing.diff_id(layer).0, outgoing.size(layer)),
        };
        let step = Arc::new(Moving::begin(&self.sink, steps + layer + 1, "push", blob, size));
        let brought = self.bring(outgoing, layer, known, name, siblings, &step);
        step.end(match &brought {
            Ok(Brought { how: Upload::Sent, .. }) => Outcome::Done,
            Ok(_) => Outcome::Cached,
            Err(_) if self.stop.is_asked() => Outcome::Cancelled,
            Err(error) => Outcome::Failed(error.to_string()),
        });
        brought.map_err(|source| TransferError::Layer {
            name: name.familiar(),
            layer: outgoing.diff_id(layer).0.clone(),
            source: Box::new(source),
        })
    }

    fn bring(
        &self,
        outgoing: &Outgoing<'_>,
        layer: usize,
        known: Option<Descriptor>,
        name: &Reference,
        siblings: &HashMap<DiffId, String>,
        step: &Arc<Moving>,
    ) -> Result<Brought, TransferError> {
        let sibling = siblings.get(outgoing.diff_id(layer)).map(String::as_str);
        let mut session = None;
        if let Some(known) = &known {
            match self.client.offer(name, &known.digest, sibling)? {
                Offer::Taken(how) => return Ok(Brought { blob: known.clone(), how, sent: 0 }),
                Offer::Wanted(begun) => session = begun,
            }
        }
        let ready = outgoing.ready(layer)?;
        let blob = ready.descriptor.clone();
        if known.is_none_or(|known| known.digest != blob.digest) {
            match self.client.offer(name, &blob.digest, sibling)? {
                Offer::Taken(how) => return Ok(Brought { blob, how, sent: 0 }),
                Offer::Wanted(begun) => session = begun,
            }
        }
        let (client, name, step) = (self.client.clone(), name.clone(), step.clone());
        let (sent, bytes) = (blob.size, blob.clone());
        let send = move || {
            let open = || -> io::Result<Box<dyn Read + Send>> {
                Ok(Box::new(Watched { inner: ready.open()?, done: 0, step: step.clone() }))
            };
            client.put_blob(&name, &bytes, session, &open)
        };
        self.stop.or(send)??;
        fault::point("push.layer_sent");
        Ok(Brought { blob, how: Upload::Sent, sent })
    }
}

/// Lists the blobs of all layers, if they are known without being made.
fn known_layers(outgoing: &Outgoing<'_>) -> Option<Vec<Descriptor>> {
    (0..outgoing.layers()).map(|layer| outgoing.known(layer)).collect()
}

/// Tells how far a layer is.
struct Watched {
    inner: Box<dyn Read + Send>,
    done: u64,
    step: Arc<Moving>,
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.done += n as u64;
        self.step.moved(self.done);
        Ok(n)
    }
}
