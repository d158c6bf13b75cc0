//! Messages between rbuild and its helper process: bytes, with descriptors riding beside them.
//!
//! A [`SharedFd`] in a message is written as its place in the list of descriptors that travel with it (SCM_RIGHTS).
//! The list is kept by the thread for the time of one encode or decode, since serde has no room for a companion.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// An open file that several owners use and that can cross to the helper process.
#[derive(Debug, Clone)]
pub struct SharedFd(Arc<OwnedFd>);

impl From<OwnedFd> for SharedFd {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl From<Arc<OwnedFd>> for SharedFd {
    fn from(fd: Arc<OwnedFd>) -> Self {
        Self(fd)
    }
}

impl SharedFd {
    /// Takes the descriptor out, as a copy when others use it too.
    pub(super) fn into_owned(self) -> std::io::Result<OwnedFd> {
        Arc::try_unwrap(self.0).or_else(|shared| shared.as_fd().try_clone_to_owned())
    }
}

impl AsFd for SharedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

thread_local! {
    static RIDERS: RefCell<Option<Vec<SharedFd>>> = const { RefCell::new(None) };
}

impl Serialize for SharedFd {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let place = RIDERS.with_borrow_mut(|riders| {
            let riders = riders.as_mut()?;
            riders.push(self.clone());
            u32::try_from(riders.len() - 1).ok()
        });
        place
            .ok_or_else(|| serde::ser::Error::custom("a descriptor only travels over a socket"))?
            .serialize(s)
    }
}

impl<'de> Deserialize<'de> for SharedFd {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let place = u32::deserialize(d)?;
        RIDERS
            .with_borrow(|riders| riders.as_ref()?.get(place as usize).cloned())
            .ok_or_else(|| serde::de::Error::custom("descriptor missing from the message"))
    }
}

/// Packs a message; the second part must travel beside the first.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<(Vec<u8>, Vec<SharedFd>), postcard::Error> {
    RIDERS.set(Some(Vec::new()));
    let bytes = postcard::to_stdvec(message);
    let riders = RIDERS.take().unwrap_or_default();
    Ok((bytes?, riders))
}

/// Unpacks what [`encode`] packed.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], riders: Vec<OwnedFd>) -> Result<T, postcard::Error> {
    RIDERS.set(Some(riders.into_iter().map(SharedFd::from).collect()));
    let message = postcard::from_bytes(bytes);
    RIDERS.set(None);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_keep_their_place() {
        let open = || SharedFd::from(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let (bytes, riders) = encode(&(7u8, open(), "text".to_owned(), open())).unwrap();
        assert_eq!(riders.len(), 2);
        let fds = riders.iter().map(|r| r.as_fd().try_clone_to_owned().unwrap()).collect();
        let back: (u8, SharedFd, String, SharedFd) = decode(&bytes, fds).unwrap();
        assert_eq!((back.0, back.2.as_str()), (7, "text"));
        assert!(decode::<(u8, SharedFd, String, SharedFd)>(&bytes, Vec::new()).is_err());
    }

    #[test]
    fn a_descriptor_cannot_be_written_to_a_file() {
        let fd = SharedFd::from(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        assert!(serde_json::to_string(&fd).is_err());
    }
}
