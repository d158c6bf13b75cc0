//! A client for registries: the distribution-spec and what Docker's registries do beside it.
//!
//! It knows names, digests, bytes and HTTP. It does not know what an image is made of, what the store has, or who asks:
//! documents are bytes with a descriptor here, and rooms above decide what they fetch and keep. All is blocking; who
//! wants several blobs at once uses several threads with clones of one [`Client`], which share connections and tokens.
//!
//! ```text
//! Client::new(Settings::from_env()?)
//! client.resolve(&name)                  -> Resolved { descriptor, bytes }   manifest or index, checked
//! client.head(&name)                     -> Option<Descriptor>
//! client.manifest(&repository, &desc)    -> Resolved                         what an index points at
//! client.tags(&repository)               -> Vec<String>
//! client.blob(&repository, &desc)        -> BlobReader: Read + Send          bounded, checked at its end, resumes
//! client.blob_bytes(&repository, &desc, limit) -> Vec<u8>                    for small ones
//! client.has_blob(&repository, &digest)  -> bool
//! client.upload(&repository, &desc, from, &open) -> Upload                   only if missing; mount; send
//! client.offer(&repository, &digest, from)       -> Offer                    the same in two parts, for those who make
//! client.put_blob(&repository, &desc, session, &open)                        the bytes only when they are wanted
//! client.put_manifest(&name, &desc, bytes)
//! ```
//!
//! Nothing that a registry says is trusted: answers are bounded in length and time, each byte is counted and summed, and
//! credentials stay with the scheme, host and port that they are for (see `transport`).

pub mod challenge;
mod client;
mod credential;
mod download;
mod endpoint;
mod error;
mod helper;
mod search;
mod settings;
mod token;
mod transport;
mod upload;
mod url;

pub use client::{Client, MANIFEST_LIMIT, Resolved};
pub use credential::{Credential, CredentialFiles, Kept};
pub use download::{BlobReader, registry_error};
pub use error::RegistryError;
pub use search::{Repository, registry_name};
pub use settings::{Flags, Settings};
pub use upload::{Offer, Session, Upload};
