//! Places that every process finds again: repositories of registries, whose address and credentials are the user's
//! configuration.
//!
//! ```text
//! registry:docker.io/library/debian     a repository
//! empty                                 the layer of a step that changed nothing; it is nowhere and everywhere
//! ```

use crate::oci::Descriptor;
use crate::reference::Reference;
use crate::registry::{Client, Flags, Settings};
use crate::snapshot::LayerProvider;
use std::io::{self, Read};
use std::sync::OnceLock;

/// How the place of a repository begins.
const REGISTRY: &str = "registry:";
/// The place of the layer with nothing in it.
pub(super) const EMPTY: &str = "empty";
/// That layer: the two blocks of zeros at the end of a tar.
pub(super) const EMPTY_TAR: [u8; 1024] = [0; 1024];

/// Names the repository of an image as a place of layers.
pub fn place_of(name: &Reference) -> String {
    format!("{REGISTRY}{}", name.name())
}

/// Fetches layers from such places. The client is made when the first is wanted.
#[derive(Debug, Default)]
pub struct Lasting {
    flags: Flags,
    client: OnceLock<Client>,
}

impl Lasting {
    /// Reaches registries as a command line says.
    pub fn new(flags: Flags) -> Self {
        Self { flags, client: OnceLock::new() }
    }

    fn client(&self) -> io::Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let made = Client::new(Settings::with_flags(&self.flags).map_err(io::Error::other)?);
        Ok(self.client.get_or_init(|| made))
    }
}

impl LayerProvider for Lasting {
    fn open(&self, place: &str, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        if place == EMPTY {
            return Ok(Box::new(io::Cursor::new(EMPTY_TAR)));
        }
        let name = place.strip_prefix(REGISTRY).and_then(|name| name.parse::<Reference>().ok());
        let name = name.ok_or_else(|| io::Error::other(format!("{place} is no place that is known here")))?;
        Ok(Box::new(self.client()?.blob(&name, blob).map_err(io::Error::other)?))
    }
}
