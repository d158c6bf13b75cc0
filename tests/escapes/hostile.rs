//! Writes archives that no honest tool writes: raw tar headers, and Docker archives around such layers.

use crate::common::archive::sha256;
use serde_json::{Value, json};

/// A tar in the making.
#[derive(Clone, Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Any entry: type, name, link target, mode, body.
    pub(crate) fn entry(
        self,
        kind: u8,
        name: impl AsRef<[u8]>,
        link: impl AsRef<[u8]>,
        mode: u32,
        body: &[u8],
    ) -> Self {
        let (name, link) = (name.as_ref(), link.as_ref());
        let tar = self.long(b'L', name).long(b'K', link);
        let size = format!("{:011o}\0", body.len());
        tar.raw_header(kind, name, link, mode, size.as_bytes()).body(body)
    }

    pub(crate) fn file(self, name: impl AsRef<[u8]>, body: &str) -> Self {
        self.entry(b'0', name, "", 0o644, body.as_bytes())
    }

    pub(crate) fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.entry(b'5', name, "", 0o755, b"")
    }

    pub(crate) fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(b'2', name, target, 0o777, b"")
    }

    pub(crate) fn hardlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(b'1', name, target, 0o644, b"")
    }

    /// A PAX header for the next entry.
    pub(crate) fn pax(self, key: &str, value: &[u8]) -> Self {
        let mut length = key.len() + value.len() + 4;
        while format!("{length}").len() + key.len() + value.len() + 3 != length {
            length += 1;
        }
        let record = [format!("{length} {key}=").as_bytes(), value, b"\n"].concat();
        self.entry(b'x', "pax", "", 0o644, &record)
    }

    /// A header whose size field says what it likes (12 bytes).
    pub(crate) fn raw_header(mut self, kind: u8, name: &[u8], link: &[u8], mode: u32, size: &[u8]) -> Self {
        let mut block = [0u8; 512];
        let mut put = |at: usize, most: usize, bytes: &[u8]| {
            let len = bytes.len().min(most);
            block[at..at + len].copy_from_slice(&bytes[..len]);
        };
        put(0, 100, name);
        put(100, 8, format!("{mode:07o}\0").as_bytes());
        put(108, 8, b"0000000\0");
        put(116, 8, b"0000000\0");
        put(124, 12, size);
        put(136, 12, b"00000000000\0");
        put(148, 8, b"        ");
        put(156, 1, &[kind]);
        put(157, 100, link);
        put(257, 8, b"ustar  \0");
        // device 1:1 is the machine's memory
        put(329, 8, b"0000001\0");
        put(337, 8, b"0000001\0");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
        self
    }

    /// A body with its padding.
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Without the marks of the end, as if cut off at a block.
    pub(crate) fn unfinished(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    fn long(self, kind: u8, text: &[u8]) -> Self {
        if text.len() <= 100 {
            return self;
        }
        let with_end = [text, b"\0"].concat();
        let size = format!("{:011o}\0", with_end.len());
        self.raw_header(kind, b"././@LongLink", b"", 0o644, size.as_bytes()).body(&with_end)
    }
}

/// The config of an image of these layers; its command is `/bin/sh`.
pub(crate) fn config(layers: &[Vec<u8>]) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"), "os": "linux",
        "config": { "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": diff_ids.iter().map(|_| json!({ "created_by": "an attacker" })).collect::<Vec<_>>(),
    })
}

/// A Docker archive of an image called `evil:1`.
pub(crate) fn docker_archive(config: &Value, layers: &[Vec<u8>]) -> Vec<u8> {
    let names: Vec<String> = (0..layers.len()).map(|n| format!("layer{n}.tar")).collect();
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["evil:1"], "Layers": names }]);
    let mut tar =
        Tar::new().file("manifest.json", &manifest.to_string()).file("config.json", &config.to_string());
    for (name, layer) in names.iter().zip(layers) {
        tar = tar.entry(b'0', name, "", 0o644, layer);
    }
    tar.end()
}
