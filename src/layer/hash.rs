//! Names the bytes of a regular file.

use crate::digest::ContentId;
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};

/// Read at once; large enough that blake3 can use all cores on one block.
const BLOCK: usize = 1 << 20;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Hashes an open file from its present offset to its end with blake3, a large one on all cores; gives its length too.
///
/// Reads rather than maps: a file that somebody cuts off while it is mapped kills the process.
pub fn hash_file(file: &File) -> io::Result<(ContentId, u64)> {
    BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => {
            buffer.resize(BLOCK, 0);
            hash_with(file, &mut buffer)
        }
        // this thread waits inside another file's hash and was given our work meanwhile
        Err(_) => hash_with(file, &mut vec![0; BLOCK]),
    })
}

fn hash_with(mut file: &File, buffer: &mut [u8]) -> io::Result<(ContentId, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    loop {
        let n = fill(&mut file, buffer)?;
        size += n as u64;
        if n == buffer.len() {
            hasher.update_rayon(&buffer[..n]);
        } else {
            hasher.update(&buffer[..n]);
            return Ok((hasher.finalize().into(), size));
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match file.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}
