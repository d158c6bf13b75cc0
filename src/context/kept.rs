//! The bytes in which the stat digests of a context are kept between builds: one flat file, read whole, searched in place.
//!
//! Nothing is unpacked or allocated for an entry that is only compared, so a build that changes nothing pays for its
//! look-ups by a few memory reads a file. The file is replaced whole, carries a checksum, and may be lost at any time.
//!
//! ```text
//! magic | checksum of all that follows | five counts
//! directories: path, first entry, number of entries      sorted by path
//! entries: content id, stamp, name, flags                sorted by name in each directory
//! devices | attributes of few entries | bytes of the names
//! ```

use super::{Stamp, memo::Known};
use crate::digest::ContentId;
use crate::tree::Mtime;
use std::collections::HashMap;
use std::ops::Range;

/// Another form has another magic; a file of another form counts as none.
const MAGIC: &[u8; 8] = b"rbctx001";
const HEAD: usize = 8 + 32 + 5 * 8;
const DIR: usize = 24;
const ENTRY: usize = 80;
const DEVICE: usize = 8;
const ATTRS: usize = 16;
/// Flag: the content id is known.
const NAMED: u8 = 1;
/// Flag: has attributes.
const HAS_ATTRS: u8 = 2;

/// Extended attributes that a build sees.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What was kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    dirs: usize,
    entries: usize,
    devices: usize,
    attrs: usize,
}

impl Kept {
    /// Takes the bytes of a file; what is damaged in any way is as good as nothing.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self::checked(bytes).unwrap_or_default()
    }

    /// Says whether bytes are whole.
    pub(super) fn is_whole(bytes: Vec<u8>) -> bool {
        Self::checked(bytes).is_some()
    }

    fn checked(bytes: Vec<u8>) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (sum, rest) = rest.split_at_checked(32)?;
        if blake3::hash(rest).as_bytes() != sum {
            return None;
        }
        let count = |at: usize| usize::try_from(u64_at(&bytes, 40 + 8 * at)).ok();
        if bytes.len() < HEAD {
            return None;
        }
        let (dirs, entries, devices, attrs, names) = (count(0)?, count(1)?, count(2)?, count(3)?, count(4)?);
        let kept = Self { dirs, entries, devices, attrs, bytes };
        // the checksum fits, so whoever wrote it meant these numbers; they are still not believed
        let parts = [(dirs, DIR), (entries, ENTRY), (devices, DEVICE), (attrs, ATTRS), (names, 1)];
        let mut total = HEAD;
        for (count, size) in parts {
            total = total.checked_add(count.checked_mul(size)?)?;
        }
        (total == kept.bytes.len()).then_some(kept)
    }

    /// Says how many entries there are; they are numbered from 0.
    pub(super) fn len(&self) -> usize {
        self.entries
    }

    /// Says how many directories there are; they are numbered from 0.
    pub(super) fn dirs(&self) -> usize {
        self.dirs
    }

    fn dir_at(&self, number: usize) -> &[u8] {
        let at = HEAD + number * DIR;
        &self.bytes[at..at + DIR]
    }

    fn entry(&self, number: usize) -> &[u8] {
        let at = HEAD + self.dirs * DIR + number * ENTRY;
        &self.bytes[at..at + ENTRY]
    }

    fn text(&self, offset: u64, len: u64) -> &[u8] {
        let names =
            HEAD + self.dirs * DIR + self.entries * ENTRY + self.devices * DEVICE + self.attrs * ATTRS;
        let names = &self.bytes[names..];
        let whole = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
        whole.and_then(|(from, len)| names.get(from..from.checked_add(len)?)).unwrap_or_default()
    }

    /// Gives the path of a directory.
    pub(super) fn dir_path(&self, number: usize) -> &[u8] {
        let dir = self.dir_at(number);
        self.text(u64_at(dir, 0), u32_at(dir, 8).into())
    }

    /// Gives the numbers of a directory's entries.
    pub(super) fn dir_entries(&self, number: usize) -> Range<usize> {
        let dir = self.dir_at(number);
        let first = (u32_at(dir, 12) as usize).min(self.entries);
        first..first.saturating_add(u32_at(dir, 16) as usize).min(self.entries)
    }

    /// Gives the numbers of the entries of the directory with this path; none if nothing is kept of it.
    pub(super) fn dir(&self, path: &[u8]) -> Range<usize> {
        let at = search(0..self.dirs, |number| self.dir_path(number).cmp(path));
        at.map_or(0..0, |number| self.dir_entries(number))
    }

    /// Finds a name among the entries of a directory.
    pub(super) fn find(&self, dir: Range<usize>, name: &[u8]) -> Option<usize> {
        search(dir, |number| self.name(number).cmp(name))
    }

    /// Gives the first entry of a directory, or of a part of it, that is not before a name.
    pub(super) fn first_from(&self, dir: Range<usize>, name: &[u8]) -> usize {
        let (mut low, mut high) = (dir.start, dir.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.name(middle) < name { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Gives the name of an entry.
    pub(super) fn name(&self, number: usize) -> &[u8] {
        let entry = self.entry(number);
        self.text(u32_at(entry, 68).into(), u16::from_le_bytes([entry[72], entry[73]]).into())
    }

    /// Says whether an entry is about this state of its file.
    pub(super) fn is_of(&self, number: usize, stamp: &Stamp) -> bool {
        self.stamp(number) == *stamp
    }

    /// Gives the state that an entry is about.
    pub(super) fn stamp(&self, number: usize) -> Stamp {
        let entry = self.entry(number);
        let device = usize::from(u16::from_le_bytes([entry[74], entry[75]]));
        let at = HEAD + self.dirs * DIR + self.entries * ENTRY + device * DEVICE;
        let device = if device < self.devices { u64_at(&self.bytes, at) } else { u64::MAX };
        Stamp {
            size: u64_at(entry, 32),
            inode: (device, u64_at(entry, 40)),
            mtime: time(u64_at(entry, 48) as i64),
            ctime: time(u64_at(entry, 56) as i64),
            mode: u32_at(entry, 64),
        }
    }

    /// Gives the content id of an entry, if it is known.
    pub(super) fn content(&self, number: usize) -> Option<ContentId> {
        let entry = self.entry(number);
        let id = entry.first_chunk::<32>().filter(|_| entry[76] & NAMED != 0)?;
        Some(ContentId(*id))
    }

    /// Gives the attributes of an entry; `None` if they cannot be read.
    pub(super) fn attrs(&self, number: usize) -> Option<Xattrs> {
        if self.entry(number)[76] & HAS_ATTRS == 0 {
            return Some(Vec::new());
        }
        let top = HEAD + self.dirs * DIR + self.entries * ENTRY + self.devices * DEVICE;
        let row = |at: usize| &self.bytes[top + at * ATTRS..top + (at + 1) * ATTRS];
        let at = search(0..self.attrs, |at| (u32_at(row(at), 0) as usize).cmp(&number))?;
        postcard::from_bytes(self.text(u64_at(row(at), 8), u32_at(row(at), 4).into())).ok()
    }

    /// Gives all that is known of an entry but its attributes.
    pub(super) fn known(&self, number: usize) -> Known {
        Known { stamp: self.stamp(number), content: self.content(number), at_rest: true }
    }
}

fn search(range: Range<usize>, order: impl Fn(usize) -> std::cmp::Ordering) -> Option<usize> {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        match order(middle) {
            std::cmp::Ordering::Equal => return Some(middle),
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

const NANOS: i64 = 1_000_000_000;

fn time(nanos: i64) -> Mtime {
    Mtime { secs: nanos.div_euclid(NANOS), nanos: u32::try_from(nanos.rem_euclid(NANOS)).unwrap_or(0) }
}

fn nanos(time: Mtime) -> Option<i64> {
    time.secs.checked_mul(NANOS)?.checked_add(time.nanos.into())
}

/// Puts a new file together: directories in the order of their paths, in each the entries in the order of their names.
#[derive(Default)]
pub(super) struct Writer {
    dirs: Vec<u8>,
    entries: Vec<u8>,
    devices: Vec<u64>,
    device_numbers: HashMap<u64, u16>,
    attrs: Vec<u8>,
    names: Vec<u8>,
    first: usize,
    open: Option<(usize, usize)>,
}

impl Writer {
    /// Makes room for about so many entries.
    pub(super) fn with_capacity(entries: usize) -> Self {
        Self { entries: Vec::with_capacity(entries * ENTRY), ..Self::default() }
    }

    /// Begins a directory.
    pub(super) fn dir(&mut self, path: &[u8]) {
        self.end_dir();
        self.open = Some((self.names.len(), path.len()));
        self.names.extend_from_slice(path);
        self.first = self.entries.len() / ENTRY;
    }

    fn end_dir(&mut self) {
        let Some((offset, len)) = self.open.take() else { return };
        let count = self.entries.len() / ENTRY - self.first;
        self.dirs.extend_from_slice(&(offset as u64).to_le_bytes());
        for number in [len, self.first, count, 0] {
            self.dirs.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
    }

    /// Adds an entry to the directory; what has no place in the form is left out, and read again next time.
    pub(super) fn entry(&mut self, name: &[u8], known: &Known, attrs: &Xattrs) {
        let stamp = &known.stamp;
        let times = nanos(stamp.mtime).zip(nanos(stamp.ctime));
        let place = u32::try_from(self.names.len()).ok().zip(u16::try_from(name.len()).ok());
        let (Some((mtime, ctime)), Some((offset, len)), Some(device)) =
            (times, place, self.device(stamp.inode.0))
        else {
            return;
        };
        let number = self.entries.len() / ENTRY;
        self.names.extend_from_slice(name);
        let mut flags = 0;
        if known.content.is_some() {
            flags |= NAMED;
        }
        if !attrs.is_empty() {
            flags |= HAS_ATTRS;
            let packed = postcard::to_stdvec(attrs).expect("plain data always packs");
            self.attrs.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
            self.attrs.extend_from_slice(&u32::try_from(packed.len()).unwrap_or(0).to_le_bytes());
            self.attrs.extend_from_slice(&(self.names.len() as u64).to_le_bytes());
            self.names.extend_from_slice(&packed);
        }
        let out = &mut self.entries;
        out.extend_from_slice(&known.content.map_or([0; 32], |id| id.0));
        for number in [stamp.size, stamp.inode.1, mtime as u64, ctime as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&stamp.mode.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&device.to_le_bytes());
        out.extend_from_slice(&[flags, 0, 0, 0]);
    }

    fn device(&mut self, device: u64) -> Option<u16> {
        if let Some(number) = self.device_numbers.get(&device) {
            return Some(*number);
        }
        let number = u16::try_from(self.devices.len()).ok()?;
        self.devices.push(device);
        self.device_numbers.insert(device, number);
        Some(number)
    }

    /// Gives the bytes.
    #[cfg(test)]
    pub(super) fn finish(self) -> Vec<u8> {
        self.hand_out(|parts| parts.concat())
    }

    /// Hands out the bytes in the parts that they are in.
    pub(super) fn hand_out<T>(mut self, take: impl FnOnce(&[&[u8]]) -> T) -> T {
        self.end_dir();
        let counts = [
            self.dirs.len() / DIR,
            self.entries.len() / ENTRY,
            self.devices.len(),
            self.attrs.len() / ATTRS,
            self.names.len(),
        ];
        let counts: Vec<u8> = counts.iter().flat_map(|count| (*count as u64).to_le_bytes()).collect();
        let devices: Vec<u8> = self.devices.iter().flat_map(|device| device.to_le_bytes()).collect();
        let body: [&[u8]; 6] = [&counts, &self.dirs, &self.entries, &devices, &self.attrs, &self.names];
        let mut sum = blake3::Hasher::new();
        for part in body {
            sum.update(part);
        }
        let sum = sum.finalize();
        let [counts, dirs, entries, devices, attrs, names] = body;
        take(&[MAGIC, sum.as_bytes(), counts, dirs, entries, devices, attrs, names])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(n: u8) -> Known {
        let at = |secs| Mtime { secs, nanos: u32::from(n) };
        let stamp = Stamp {
            size: u64::from(n),
            mtime: at(-5),
            ctime: at(1_700_000_000),
            inode: (u64::from(n % 3), 7),
            mode: 0o100_644,
        };
        Known { stamp, content: n.is_multiple_of(2).then_some(ContentId([n; 32])), at_rest: true }
    }

    fn sample() -> Vec<u8> {
        let mut writer = Writer::default();
        writer.dir(b"");
        writer.entry(b"a", &known(1), &Vec::new());
        writer.entry(b"b", &known(2), &vec![(b"user.x".to_vec(), b"1".to_vec())]);
        writer.dir(b"a");
        writer.dir(b"a/\xff");
        writer.entry(b"f", &known(4), &Vec::new());
        writer.finish()
    }

    #[test]
    fn what_is_written_is_found() {
        let kept = Kept::new(sample());
        assert_eq!((kept.len(), kept.dirs()), (3, 3));
        assert_eq!((kept.dir(b""), kept.dir(b"a"), kept.dir(b"a/\xff")), (0..2, 2..2, 2..3));
        assert_eq!(kept.dir(b"none"), 0..0);
        assert_eq!(kept.find(0..2, b"b"), Some(1));
        assert_eq!(kept.find(0..2, b"f"), None);
        for (number, n) in [(0, 1), (1, 2), (2, 4)] {
            assert_eq!(kept.known(number), known(n));
            assert!(kept.is_of(number, &known(n).stamp) && !kept.is_of(number, &known(n + 1).stamp));
        }
        assert_eq!(kept.attrs(0).unwrap(), []);
        assert_eq!(kept.attrs(1).unwrap(), [(b"user.x".to_vec(), b"1".to_vec())]);
    }

    #[test]
    fn damage_is_as_good_as_nothing() {
        let bytes = sample();
        for cut in 0..bytes.len() {
            assert_eq!(Kept::new(bytes[..cut].to_vec()).len(), 0);
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(Kept::new(bad).len(), 0, "byte {at}");
        }
        // with a right checksum, too
        for at in 40..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x81;
            let sum = blake3::hash(&bad[40..]);
            bad[8..40].copy_from_slice(sum.as_bytes());
            let kept = Kept::new(bad);
            for number in 0..kept.dirs() {
                kept.dir(kept.dir_path(number));
                for entry in kept.dir_entries(number) {
                    let _ = (kept.name(entry), kept.known(entry), kept.attrs(entry));
                }
            }
        }
    }

    #[test]
    fn what_has_no_place_is_left_out() {
        let mut odd = known(1);
        odd.stamp.mtime.secs = i64::MAX;
        let mut writer = Writer::default();
        writer.dir(b"");
        writer.entry(b"odd", &odd, &Vec::new());
        writer.entry(b"p", &known(2), &Vec::new());
        let kept = Kept::new(writer.finish());
        assert_eq!((kept.len(), kept.name(0)), (1, &b"p"[..]));
    }
}
