//! `--output`: where a build's result goes and in which form, from the comma separated text of buildx.
//!
//! Pure. The meaning of each key is BuildKit's ("Exporters"); what rbuild cannot do is refused here, at the beginning,
//! and not after the build.

use super::export::{ExportFormat, ExportOptions};
use super::notes::{Place, parse_place};
use crate::layer::compress::Compression;
use crate::reference::Reference;
use std::path::PathBuf;

/// Where bytes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dest {
    /// `-`.
    Stdout,
    /// A file or directory.
    Path(PathBuf),
}

/// What becomes of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputKind {
    /// It is kept in the image store under the build's names (`type=image`, and `type=docker` without `dest`).
    Store,
    /// It is kept as cache only (`type=cacheonly`).
    CacheOnly,
    /// The image or its files go out.
    Export(ExportFormat, Dest),
}

/// One `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSpec {
    /// What becomes of the result.
    pub kind: OutputKind,
    /// `name=`: names in addition to those of `--tag`.
    pub names: Vec<Reference>,
    /// How it is written.
    pub options: ExportOptions,
    /// Whether it also goes to the registries of its names (`type=registry`, `push=true`).
    pub push: Option<PushKind>,
}

/// How an image goes to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PushKind {
    /// Under its digest only, without tag.
    pub by_digest: bool,
    /// The registry needs neither https nor a certificate.
    pub insecure: bool,
}

/// A text that is no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--output {text:?}: {why}")]
pub struct ParseOutputError {
    text: String,
    why: String,
}

const TYPES: &str = "image, registry, docker, oci, tar, local or cacheonly";
/// Keys that BuildKit has and that say nothing here: attestations and the containerd store.
const WITHOUT_MEANING: [&str; 5] =
    ["unpack", "store", "dangling-name-prefix", "name-canonical", "attestation-prefix"];

impl OutputSpec {
    /// Reads the value of one `--output`. A bare path is `type=local,dest=PATH`, a bare `-` is `type=tar,dest=-`.
    ///
    /// # Errors
    /// An unknown type or key, a value that its key does not take, or a missing `dest`.
    pub fn parse(text: &str) -> Result<Self, ParseOutputError> {
        parse(text).map_err(|why| ParseOutputError { text: text.to_owned(), why })
    }
}

#[derive(Default)]
struct Fields {
    kind: Option<String>,
    dest: Option<Dest>,
    names: Vec<Reference>,
    archive: Option<bool>,
    delete: bool,
    compression: Option<String>,
    level: Option<i32>,
    options: ExportOptions,
    push: bool,
    push_kind: PushKind,
}

fn parse(text: &str) -> Result<OutputSpec, String> {
    let fields = split_csv(text)?;
    if let [bare] = &fields[..]
        && !bare.contains('=')
    {
        return Ok(bare_dest(bare));
    }
    let mut found = Fields::default();
    for field in &fields {
        let (key, value) =
            field.split_once('=').ok_or_else(|| format!("{field:?} has no '=': expected key=value"))?;
        found.take(key.trim().to_ascii_lowercase().as_str(), value)?;
    }
    found.finish()
}

fn bare_dest(dest: &str) -> OutputSpec {
    let (format, dest) = match dest {
        "-" => (ExportFormat::Tar, Dest::Stdout),
        path => (ExportFormat::Local { delete: false }, Dest::Path(path.into())),
    };
    let options = ExportOptions::default();
    OutputSpec { kind: OutputKind::Export(format, dest), names: Vec::new(), options, push: None }
}

impl Fields {
    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "type" => self.kind = Some(value.to_owned()),
            "dest" if value == "-" => self.dest = Some(Dest::Stdout),
            "dest" if value.is_empty() => return Err("dest is empty".into()),
            "dest" => self.dest = Some(Dest::Path(value.into())),
            "name" => {
                for name in value.split(',').filter(|n| !n.is_empty()) {
                    self.names.push(name.parse().map_err(|e| format!("name: {e}"))?);
                }
            }
            "tar" => self.archive = Some(boolean(key, value)?),
            "platform-split" => self.options.split = Some(boolean(key, value)?),
            "mode" => self.delete = choice(key, value, &["copy", "delete"])? == 1,
            "compression" => self.compression = Some(value.to_owned()),
            "compression-level" => {
                let level = value.parse().map_err(|_| format!("compression-level={value}: not a number"))?;
                self.level = Some(level);
            }
            "force-compression" => self.options.force_compression = boolean(key, value)?,
            "rewrite-timestamp" => self.options.rewrite_timestamp = boolean(key, value)?,
            "oci-mediatypes" | "oci-artifact" => drop(boolean(key, value)?),
            "push" => self.push = boolean(key, value)?,
            "push-by-digest" => self.push_kind.by_digest = boolean(key, value)?,
            "registry.insecure" => self.push_kind.insecure = boolean(key, value)?,
            "context" => return Err("context= names a Docker engine; rbuild works without one".into()),
            _ if WITHOUT_MEANING.contains(&key) => {}
            _ => return self.annotation(key, value),
        }
        Ok(())
    }

    /// `annotation.KEY` and `annotation-manifest.KEY` go into the manifest, `annotation-index.KEY` into the index,
    /// `annotation-manifest-descriptor.KEY` into the entry of the index; with `[platform]` before the dot only for it.
    fn annotation(&mut self, key: &str, value: &str) -> Result<(), String> {
        let unknown = || {
            format!(
                "unknown key {key:?} (type, dest, name, tar, compression, compression-level, force-compression, \
                 rewrite-timestamp, mode, annotation.KEY)"
            )
        };
        // a platform may hold dots, too
        let from = key.find(']').unwrap_or(0);
        let dot = from + key[from..].find('.').ok_or_else(unknown)?;
        let (place, name) = (&key[..dot], &key[dot + 1..]);
        let place = match place.strip_prefix("annotation") {
            Some("") => (Place::Manifest, None),
            Some(place) => {
                let place = place.strip_prefix('-').map_or_else(|| format!("manifest{place}"), str::to_owned);
                parse_place(&place).ok_or_else(unknown)?
            }
            None => return Err(unknown()),
        };
        self.options.notes.add(place.0, place.1, name, value);
        Ok(())
    }

    fn finish(mut self) -> Result<OutputSpec, String> {
        let kind = self.kind.take().ok_or_else(|| format!("type is missing: {TYPES}"))?;
        self.options.compression = self.compression()?;
        self.push |= kind == "registry";
        let archive = self.archive.unwrap_or(true);
        let delete = self.delete;
        let dest = self.dest.take();
        let file = |format| match &dest {
            Some(dest) => OutputKind::Export(format, dest.clone()),
            None => OutputKind::Export(format, Dest::Stdout),
        };
        let kind = match kind.as_str() {
            "image" | "registry" if dest.is_some() => {
                return Err(format!("type={kind} has no dest: use type=oci or type=docker"));
            }
            "image" | "registry" => OutputKind::Store,
            "docker" if dest.is_none() => OutputKind::Store,
            "docker" => file(ExportFormat::Docker { archive }),
            "oci" => file(ExportFormat::Oci { archive }),
            "tar" => file(ExportFormat::Tar),
            "local" => match &dest {
                Some(Dest::Path(_)) => file(ExportFormat::Local { delete }),
                _ => return Err("type=local needs dest=DIRECTORY".into()),
            },
            "cacheonly" => OutputKind::CacheOnly,
            other => return Err(format!("unknown type {other:?}: {TYPES}")),
        };
        if !archive && matches!(kind, OutputKind::Export(_, Dest::Stdout)) {
            return Err("tar=false writes a directory and needs dest=DIRECTORY".into());
        }
        if self.push && kind != OutputKind::Store {
            return Err("push=true goes with type=image".into());
        }
        let push = self.push.then_some(self.push_kind);
        Ok(OutputSpec { kind, names: self.names, options: self.options, push })
    }

    fn compression(&self) -> Result<Option<Compression>, String> {
        compression(self.compression.as_deref(), self.level)
    }
}

/// Reads a kind of compression and its level; without both it is left to who compresses.
///
/// # Errors
/// The text of what is wrong with them.
pub fn compression(name: Option<&str>, level: Option<i32>) -> Result<Option<Compression>, String> {
    {
        let (lowest, highest) = if name == Some("zstd") { (0, 22) } else { (0, 9) };
        if let Some(level) = level.filter(|l| !(lowest..=highest).contains(l)) {
            return Err(format!("compression-level={level}: expected {lowest} to {highest}"));
        }
        match name {
            None if level.is_none() => Ok(None),
            None | Some("gzip") => Ok(Some(Compression::Gzip(level.map_or(6, |l| l as u32)))),
            Some("zstd") => Ok(Some(Compression::Zstd(level.unwrap_or(0)))),
            Some("uncompressed") => Ok(Some(Compression::None)),
            Some("estargz") => Err("compression=estargz is not available: gzip, zstd or uncompressed".into()),
            Some(other) => Err(format!("compression={other}: expected uncompressed, gzip or zstd")),
        }
    }
}

fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(format!("{key}={value}: expected true or false")),
    }
}

fn choice(key: &str, value: &str, choices: &[&str]) -> Result<usize, String> {
    let at = choices.iter().position(|c| *c == value);
    at.ok_or_else(|| format!("{key}={value}: expected {}", choices.join(" or ")))
}

/// Splits as Go's csv reader does: a field in quotation marks may hold commas, and `""` in it is one mark.
pub(crate) fn split_csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        if !rest.starts_with('"') && field.contains('"') {
            return Err("a quotation mark inside of a field: put it around the whole field".into());
        }
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(format!("expected a comma before {after:?}")),
        }
    }
}

fn quoted_field(mut rest: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    loop {
        let (part, after) = rest.split_once('"').ok_or("a quotation mark is not closed")?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(_) => field.push('"'),
            None => return Ok((field, after)),
        }
        rest = &after[1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Platform;

    fn export(text: &str) -> (ExportFormat, Dest, ExportOptions) {
        let spec = OutputSpec::parse(text).unwrap();
        let OutputKind::Export(format, dest) = spec.kind else { panic!("{text}: {:?}", spec.kind) };
        (format, dest, spec.options)
    }

    #[test]
    fn outputs_are_read() {
        let path = |p: &str| Dest::Path(p.into());
        assert_eq!(export("out").0, ExportFormat::Local { delete: false });
        assert_eq!(export("a b/out").1, path("a b/out"));
        assert_eq!((export("-").0, export("-").1), (ExportFormat::Tar, Dest::Stdout));
        assert_eq!(export("type=oci,dest=x.tar").0, ExportFormat::Oci { archive: true });
        assert_eq!(export("type=oci,dest=x,tar=false").0, ExportFormat::Oci { archive: false });
        assert_eq!(export("type=docker,dest=-").1, Dest::Stdout);
        assert_eq!(export("type=tar").1, Dest::Stdout);
        assert_eq!(export("type=local,dest=x,mode=delete").0, ExportFormat::Local { delete: true });
        assert_eq!(export("\"dest=a,b\",type=tar").1, path("a,b"));
        assert_eq!(OutputSpec::parse("type=docker").unwrap().kind, OutputKind::Store);
        assert_eq!(OutputSpec::parse("type=cacheonly").unwrap().kind, OutputKind::CacheOnly);
        let push = |text: &str| OutputSpec::parse(text).unwrap().push;
        assert_eq!(push("type=image,push=true"), Some(PushKind::default()));
        let kind = PushKind { by_digest: true, insecure: true };
        assert_eq!(push("type=registry,name=x,push-by-digest=true,registry.insecure=true"), Some(kind));
        assert_eq!(push("type=image,name=x"), None);
        let spec = OutputSpec::parse("type=image,\"name=a,b:1\",push=false").unwrap();
        assert_eq!(spec.names.iter().map(Reference::familiar).collect::<Vec<_>>(), ["a:latest", "b:1"]);
    }

    #[test]
    fn options_are_read() {
        let (_, _, options) = export(
            "type=oci,dest=x,compression=zstd,compression-level=19,rewrite-timestamp=true,annotation.a.b=c=d",
        );
        assert_eq!(options.compression, Some(Compression::Zstd(19)));
        assert!(options.rewrite_timestamp && !options.force_compression);
        let amd: Platform = "linux/amd64".parse().unwrap();
        assert_eq!(options.notes.manifest(&amd).get("a.b").map(String::as_str), Some("c=d"));
        let (_, _, options) = export("type=oci,dest=x,compression-level=1,annotation-index[linux/amd64].k=v");
        assert_eq!(options.compression, Some(Compression::Gzip(1)));
        assert_eq!(options.notes.index().get("k").map(String::as_str), Some("v"));
        let (_, _, options) = export(
            "type=oci,dest=x,annotation-manifest-descriptor[linux/arm64].a.b=v,annotation[linux/amd64].k=v",
        );
        assert!(options.notes.descriptor(&amd).is_empty() && options.notes.manifest(&amd).contains_key("k"));
    }

    #[test]
    fn wrong_outputs_are_refused_and_explained() {
        for (text, part) in [
            ("dest=x", "type is missing"),
            ("type=zip,dest=x", "unknown type \"zip\""),
            ("type=oci,dset=x", "unknown key \"dset\""),
            ("type=oci,dest", "has no '='"),
            ("type=oci,dest=", "dest is empty"),
            ("type=local", "needs dest"),
            ("type=local,dest=-", "needs dest"),
            ("type=oci,tar=false", "needs dest"),
            ("type=oci,tar=maybe,dest=x", "expected true or false"),
            ("type=oci,dest=x,compression=lzma", "expected uncompressed, gzip or zstd"),
            ("type=oci,dest=x,compression=gzip,compression-level=10", "expected 0 to 9"),
            ("type=oci,dest=x,push=true", "goes with type=image"),
            ("type=registry,dest=x", "has no dest"),
            ("type=image,name=UPPER", "lower case"),
            ("type=oci,\"dest=x", "not closed"),
            ("type=oci,dest=\"x\"", "around the whole field"),
            ("\"type=oci\"x", "expected a comma"),
            ("type=local,dest=x,mode=move", "copy or delete"),
        ] {
            let error = OutputSpec::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
