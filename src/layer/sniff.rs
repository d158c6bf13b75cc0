//! Telling an archive from other files by its first bytes.

use super::compress::Format;

/// A tar header is one block of this many bytes.
pub const BLOCK: usize = 512;

/// Says whether a block is a tar header: its checksum is right, in one of the two ways in which old tars have written it.
pub fn is_tar_header(block: &[u8; BLOCK]) -> bool {
    let field = &block[148..156];
    let text: Vec<u8> = field.iter().copied().filter(|b| *b != 0 && *b != b' ').collect();
    let Some(want) = std::str::from_utf8(&text).ok().and_then(|t| i64::from_str_radix(t, 8).ok()) else {
        return false;
    };
    let sum = |signed: bool| -> i64 {
        let byte = |b: u8| if signed { i64::from(b as i8) } else { i64::from(b) };
        let bytes = block.iter().enumerate();
        bytes.map(|(at, b)| if (148..156).contains(&at) { 32 } else { byte(*b) }).sum()
    };
    block.iter().any(|b| *b != 0) && (want == sum(false) || want == sum(true))
}

/// Says whether a stream that begins so is an archive or something compressed; one block is enough.
pub fn begins_archive(head: &[u8]) -> bool {
    Format::of(head) != Format::Plain
        || head.get(..BLOCK).and_then(|b| b.try_into().ok()).is_some_and(is_tar_header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_from_text() {
        let mut header = tar::Header::new_gnu();
        header.set_path("a").unwrap();
        header.set_size(0);
        header.set_cksum();
        assert!(is_tar_header(header.as_bytes()) && begins_archive(header.as_bytes()));
        assert!(begins_archive(&[0x1f, 0x8b, 8]) && begins_archive(b"BZh9") && begins_archive(b"\xfd7zXZ\0"));
        assert!(!begins_archive(b"FROM busybox\n") && !begins_archive(b""));
        assert!(!begins_archive(&[b'#'; BLOCK]) && !begins_archive(&[0; BLOCK]));
        assert!(!begins_archive(&header.as_bytes()[..300]));
    }
}
