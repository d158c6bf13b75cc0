//! `--cache-to` and `--cache-from`: what the comma separated texts of buildx mean. Pure.
//!
//! The meaning of each key is BuildKit's ("Cache storage backends"). Different here: a failing export is no failure of
//! the build unless `ignore-error=false` says so, a local cache drops what nothing leads to unless `reset=false`, and
//! `mounts=true` takes cache mounts along.

use super::s3::Bucket;
use crate::digest::Digest;
use crate::image::split_csv;
use crate::layer::Compression;
use crate::reference::Reference;
use std::path::PathBuf;

const TYPES: &str = "registry, local, inline or s3";
/// Tag of a local cache.
const LATEST: &str = "latest";

/// A text that names no cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{flag} {text:?}: {why}")]
pub struct SpecError {
    flag: &'static str,
    text: String,
    why: String,
}

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Where {
    /// A repository.
    Registry(Reference),
    /// A directory.
    Local {
        /// Of the layout.
        dir: PathBuf,
        /// Which entry.
        tag: String,
        /// Which manifest, in place of the entry.
        digest: Option<Digest>,
    },
    /// A bucket.
    S3(Box<Bucket>),
    /// The image itself.
    Inline,
}

/// Which results a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Files of the image's own layers; of all else the ids.
    #[default]
    Min,
    /// Files of all results.
    Max,
}

/// One `--cache-from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportSpec {
    pub(super) at: Where,
    /// Whether cache mounts are taken.
    pub(super) mounts: bool,
}

/// One `--cache-to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSpec {
    pub(super) at: Where,
    pub(super) mode: Mode,
    /// A manifest, not an index.
    pub(super) image_manifest: bool,
    /// OCI's media types, not Docker's.
    pub(super) oci_types: bool,
    pub(super) compression: Compression,
    /// Also of layers that are compressed otherwise already.
    pub(super) force_compression: bool,
    /// A failure is a warning.
    pub(super) ignore_error: bool,
    /// Of a local cache: what nothing leads to goes.
    pub(super) reset: bool,
    pub(super) mounts: bool,
}

impl ImportSpec {
    /// Reads the value of one `--cache-from`; a text without `=` is the name of an image or cache in a registry.
    ///
    /// # Errors
    /// An unknown type or key, or a value that its key does not take.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let fail = |why| SpecError { flag: "--cache-from", text: text.to_owned(), why };
        import(text).map_err(fail)
    }
}

impl ExportSpec {
    /// Reads the value of one `--cache-to`.
    ///
    /// # Errors
    /// As [`ImportSpec::parse`].
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let fail = |why| SpecError { flag: "--cache-to", text: text.to_owned(), why };
        export(text).map_err(fail)
    }

    /// Whether the record goes into the image itself.
    pub fn is_inline(&self) -> bool {
        self.at == Where::Inline
    }
}

/// The fields of a text, taken one by one; what is left is unknown.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn read(text: &str) -> Result<Self, String> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for field in split_csv(text)? {
            let (key, value) =
                field.split_once('=').ok_or_else(|| format!("{field:?} has no '=': expected key=value"))?;
            let key = key.trim().to_ascii_lowercase();
            if fields.iter().any(|(known, _)| *known == key) {
                return Err(format!("{key} is given twice"));
            }
            fields.push((key, value.to_owned()));
        }
        Ok(Self(fields))
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(at).1)
    }

    fn need(&mut self, key: &str) -> Result<String, String> {
        self.take(key).filter(|value| !value.is_empty()).ok_or_else(|| format!("{key} is missing"))
    }

    fn flag(&mut self, key: &str, usual: bool) -> Result<bool, String> {
        let Some(value) = self.take(key) else { return Ok(usual) };
        match value.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" => Ok(true),
            "0" | "f" | "false" => Ok(false),
            _ => Err(format!("{key}={value}: expected true or false")),
        }
    }

    fn end(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(format!("unknown key {key:?} for this type")),
        }
    }

    /// Where it is; `folder` is what a local cache calls its directory.
    fn at(&mut self, kind: &str, folder: &str) -> Result<Where, String> {
        match kind {
            "registry" => {
                let name = self.need("ref")?;
                Ok(Where::Registry(name.parse().map_err(|e| format!("ref: {e}"))?))
            }
            "local" => {
                let dir = PathBuf::from(self.need(folder)?);
                let tag = self.take("tag").filter(|tag| !tag.is_empty()).unwrap_or_else(|| LATEST.to_owned());
                let digest = self.take("digest").map(|text| text.parse::<Digest>());
                let digest = digest.transpose().map_err(|e| format!("digest: {e}"))?;
                Ok(Where::Local { dir, tag, digest })
            }
            "s3" => Ok(Where::S3(Box::new(Bucket::read(&mut |key| self.take(key))?))),
            "gha" | "azblob" => Err(format!("type={kind} is not available: {TYPES}")),
            other => Err(format!("unknown type {other:?}: {TYPES}")),
        }
    }
}

fn import(text: &str) -> Result<ImportSpec, String> {
    if !text.contains('=') {
        return Ok(ImportSpec {
            at: Where::Registry(text.parse().map_err(|e| format!("{e}"))?),
            mounts: true,
        });
    }
    let mut fields = Fields::read(text)?;
    let kind = fields.need("type")?;
    if kind == "inline" {
        return Err("the record of an image is read with type=registry,ref=IMAGE".to_owned());
    }
    let at = fields.at(&kind, "src")?;
    let mounts = fields.flag("mounts", true)?;
    fields.end()?;
    Ok(ImportSpec { at, mounts })
}

fn export(text: &str) -> Result<ExportSpec, String> {
    let text = if text == "inline" { "type=inline" } else { text };
    if !text.contains('=') {
        return Err(format!("write type=...: {TYPES}"));
    }
    let mut fields = Fields::read(text)?;
    let kind = fields.need("type")?;
    let at = if kind == "inline" { Where::Inline } else { fields.at(&kind, "dest")? };
    if matches!(at, Where::Local { digest: Some(_), .. }) {
        return Err("digest names a cache to read; one that is written has a tag".to_owned());
    }
    let mode = match fields.take("mode").as_deref() {
        None | Some("min") => Mode::Min,
        Some("max") if at == Where::Inline => return Err("an inline record is always of mode=min".to_owned()),
        Some("max") => Mode::Max,
        Some(other) => return Err(format!("mode={other}: expected min or max")),
    };
    let spec = ExportSpec {
        mode,
        image_manifest: fields.flag("image-manifest", true)?,
        oci_types: fields.flag("oci-mediatypes", true)?,
        compression: compression(&mut fields)?,
        force_compression: fields.flag("force-compression", false)?,
        ignore_error: fields.flag("ignore-error", true)?,
        reset: fields.flag("reset", true)?,
        mounts: fields.flag("mounts", false)?,
        at,
    };
    fields.end()?;
    if spec.mounts && spec.is_inline() {
        return Err("an image carries no cache mounts: use another type for mounts=true".to_owned());
    }
    if !spec.oci_types && matches!(spec.compression, Compression::Zstd(_)) {
        return Err("compression=zstd needs OCI media types: leave oci-mediatypes=false out".to_owned());
    }
    Ok(spec)
}

fn compression(fields: &mut Fields) -> Result<Compression, String> {
    let name = fields.take("compression");
    let level = fields.take("compression-level");
    let (lowest, highest) = if name.as_deref() == Some("zstd") { (0, 22) } else { (0, 9) };
    let level = match level {
        None => None,
        Some(text) => match text.parse::<i32>() {
            Ok(level) if (lowest..=highest).contains(&level) => Some(level),
            _ => return Err(format!("compression-level={text}: expected {lowest} to {highest}")),
        },
    };
    match name.as_deref() {
        None | Some("gzip") => Ok(Compression::Gzip(level.map_or(6, i32::unsigned_abs))),
        Some("zstd") => Ok(Compression::Zstd(level.unwrap_or(0))),
        Some("uncompressed") => Ok(Compression::None),
        Some("estargz") => Err("compression=estargz is not available: gzip, zstd or uncompressed".to_owned()),
        Some(other) => Err(format!("compression={other}: expected uncompressed, gzip or zstd")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_read() {
        let from = |text: &str| ImportSpec::parse(text).unwrap().at;
        assert_eq!(from("r.io/a:1"), Where::Registry("r.io/a:1".parse().unwrap()));
        assert_eq!(from("type=registry,ref=a"), Where::Registry("a:latest".parse().unwrap()));
        let local = |tag: &str| Where::Local { dir: "d,e".into(), tag: tag.into(), digest: None };
        assert_eq!(from("type=local,\"src=d,e\""), local("latest"));
        assert_eq!(from("type=local,\"src=d,e\",tag=x"), local("x"));
        let to =
            ExportSpec::parse("type=registry,ref=a,mode=max,compression=zstd,compression-level=3").unwrap();
        assert_eq!((to.mode, to.compression, to.ignore_error), (Mode::Max, Compression::Zstd(3), true));
        let to = ExportSpec::parse("type=local,dest=d,ignore-error=false,reset=0,mounts=true").unwrap();
        assert!(!to.ignore_error && !to.reset && to.mounts && to.compression == Compression::Gzip(6));
        assert!(ExportSpec::parse("type=inline").unwrap().is_inline());
        assert!(ExportSpec::parse("inline").unwrap().is_inline());
    }

    #[test]
    fn wrong_ones_are_refused_and_explained() {
        for (text, part) in [
            ("type=registry", "ref is missing"),
            ("type=registry,ref=UPPER", "ref:"),
            ("type=local", "dest is missing"),
            ("type=local,src=x", "dest is missing"),
            ("type=local,dest=x,digest=sha256:1", "digest:"),
            ("type=gha", "not available"),
            ("type=tape", "unknown type \"tape\""),
            ("ref=x", "type is missing"),
            ("x", "write type="),
            ("type=local,dest=x,mode=most", "min or max"),
            ("type=local,dest=x,mode=max,mode=min", "given twice"),
            ("type=local,dest=x,compression=lzma", "expected uncompressed"),
            ("type=local,dest=x,compression-level=10", "0 to 9"),
            ("type=local,dest=x,compression=zstd,oci-mediatypes=false", "zstd needs"),
            ("type=local,dest=x,scope=y", "unknown key \"scope\""),
            ("type=inline,mode=max", "always of mode=min"),
            ("type=inline,mounts=true", "no cache mounts"),
            ("type=s3,region=r", "bucket is missing"),
        ] {
            let error = ExportSpec::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            ("type=local,dest=x", "src is missing"),
            ("type=inline", "type=registry"),
            ("type=local,src=x,mode=max", "unknown key \"mode\""),
            ("UPPER", "lower case"),
        ] {
            let error = ImportSpec::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
