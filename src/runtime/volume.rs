//! The little languages of `-v`, `--mount` and `--tmpfs`. Pure; paths are bytes.

use super::RunError;
use super::record::MountedImage;
use crate::sandbox::{BindOptions, Propagation, TmpfsOptions};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One mount that the user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRequest {
    /// Absolute path in the container, never its root.
    pub target: Vec<u8>,
    /// What is mounted.
    pub source: VolumeSource,
    /// Whether the container may only read it.
    pub readonly: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// A path of the host.
    Host {
        /// Absolute.
        path: PathBuf,
        /// Whether a missing one becomes a directory.
        create: bool,
        /// What is seen of mounts below it.
        #[serde(default)]
        options: BindOptions,
    },
    /// A named volume of the store.
    Named {
        /// Its name.
        name: VolumeName,
        /// Whether an empty one starts with what the image has there.
        seed: bool,
        /// What `--mount` says of it.
        #[serde(default)]
        extra: VolumeExtra,
    },
    /// A volume of this container's own.
    Anonymous {
        /// Whether it starts with what the image has there.
        seed: bool,
        /// What `--mount` says of it.
        #[serde(default)]
        extra: VolumeExtra,
    },
    /// An empty memory file system.
    Tmpfs(TmpfsOptions),
    /// The files of an image, read-only.
    Image {
        /// Its name.
        name: String,
        /// The path in it that is shown, empty for all of it.
        subpath: Vec<u8>,
        /// What the name means, once somebody has looked.
        image: Option<MountedImage>,
    },
}

/// What only `--mount` can say of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VolumeExtra {
    /// `volume-subpath`: the path in it that is shown, empty for all of it.
    #[serde(default)]
    pub subpath: Vec<u8>,
    /// `volume-label`: labels of one that is made.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `volume-opt`: options of one that is made.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// A volume's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, so also one safe path component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeName(String);

impl VolumeName {
    /// Reads a name.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        // the rule is that of containers
        text.parse::<super::ContainerName>().is_ok().then(|| Self(text.to_owned()))
    }

    /// Gives the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads a `-v` value: `TARGET`, `NAME:TARGET[:OPTIONS]` or `PATH:TARGET[:OPTIONS]`; a path that begins with a dot is
/// relative to `cwd`.
pub fn parse_volume(text: &[u8], cwd: &Path) -> Result<VolumeRequest, RunError> {
    let bad = |why: &str| RunError::flag("--volume", text, why);
    if text.contains(&0) {
        return Err(bad("it holds a NUL byte"));
    }
    let parts: Vec<&[u8]> = text.split(|b| *b == b':').collect();
    let (source, path, options) = match parts[..] {
        [path] => (None, path, &b""[..]),
        [source, path] => (Some(source), path, &b""[..]),
        [source, path, options] => (Some(source), path, options),
        _ => return Err(bad("it has more than three parts between colons")),
    };
    let target = target(path).map_err(|why| bad(&why))?;
    let options = VolumeOptions::parse(options).map_err(|why| bad(&why))?;
    let source = match source {
        None => VolumeSource::Anonymous { seed: !options.nocopy, extra: VolumeExtra::default() },
        Some(b"") => return Err(bad("what stands before the colon is empty")),
        Some(path) if path.starts_with(b"/") || path.starts_with(b".") => {
            if options.nocopy {
                return Err(bad("nocopy is for volumes, not for directories of the host"));
            }
            let propagation = options.propagation.unwrap_or_default();
            let bind = BindOptions { propagation, ..BindOptions::default() };
            VolumeSource::Host { path: host_path(path, cwd), create: true, options: bind }
        }
        Some(name) => {
            let name = VolumeName::parse(name).ok_or_else(|| {
                bad("that is no volume name; for a directory of the host write an absolute path or ./")
            })?;
            VolumeSource::Named { name, seed: !options.nocopy, extra: VolumeExtra::default() }
        }
    };
    if options.propagation.is_some_and(Propagation::follows) && !matches!(source, VolumeSource::Host { .. }) {
        return Err(bad("propagation is for directories of the host, not for volumes"));
    }
    Ok(VolumeRequest { target, source, readonly: options.readonly })
}

fn host_path(path: &[u8], cwd: &Path) -> PathBuf {
    let path = Path::new(OsStr::from_bytes(path));
    // `.` components are of no use in messages; `..` stays, since a link may stand before it
    cwd.join(path).components().collect()
}

fn target(path: &[u8]) -> Result<Vec<u8>, String> {
    let shown = String::from_utf8_lossy(path);
    if !path.starts_with(b"/") {
        return Err(format!("invalid mount path {shown:?}: it must be absolute"));
    }
    let clean = crate::tree::TreePath::clean(path);
    if clean.is_root() {
        return Err("the target cannot be /".into());
    }
    Ok([b"/", clean.as_bytes()].concat())
}

#[derive(Debug, Default)]
struct VolumeOptions {
    readonly: bool,
    nocopy: bool,
    propagation: Option<Propagation>,
}

impl VolumeOptions {
    /// One word of each class at most.
    fn parse(text: &[u8]) -> Result<Self, String> {
        let mut out = Self::default();
        let mut seen = Vec::new();
        for word in text.split(|b| *b == b',').filter(|word| !word.is_empty()) {
            let class = match word {
                b"ro" | b"rw" => "access",
                b"nocopy" => "nocopy",
                // nothing is labelled, as by docker without --selinux-enabled
                b"z" | b"Z" => "label",
                b"private" | b"rprivate" | b"slave" | b"rslave" | b"shared" | b"rshared" => "propagation",
                b"consistent" | b"cached" | b"delegated" | b"default" => "consistency",
                other => return Err(format!("unknown option {:?}", String::from_utf8_lossy(other))),
            };
            if seen.contains(&class) {
                return Err(format!("more than one option says what the {class} is"));
            }
            seen.push(class);
            out.readonly |= word == b"ro";
            out.nocopy |= word == b"nocopy";
            out.propagation = std::str::from_utf8(word).ok().and_then(Propagation::parse).or(out.propagation);
        }
        Ok(out)
    }
}

/// Says whether a `-v` value asks for an SELinux label, which nobody gives.
#[must_use]
pub fn wants_label(text: &[u8]) -> bool {
    let options = text.split(|b| *b == b':').nth(2).unwrap_or_default();
    options.split(|b| *b == b',').any(|word| matches!(word, b"z" | b"Z"))
}

/// Reads a `--tmpfs` value: `TARGET[:OPTIONS]`.
pub fn parse_tmpfs(text: &[u8]) -> Result<VolumeRequest, RunError> {
    let bad = |why: &str| RunError::flag("--tmpfs", text, why);
    let (path, options) = match text.iter().position(|b| *b == b':') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &b""[..]),
    };
    let target = target(path).map_err(|why| bad(&why))?;
    let (mut tmpfs, mut readonly) = (TmpfsOptions::default(), false);
    let options = std::str::from_utf8(options).map_err(|_| bad("the options are not UTF-8"))?;
    for word in options.split(',').filter(|word| !word.is_empty()) {
        let (key, value) = word.split_once('=').map_or((word, None), |(k, v)| (k, Some(v)));
        match (key, value) {
            ("rw", None) => readonly = false,
            ("ro", None) => readonly = true,
            ("exec", None) => tmpfs.exec = true,
            ("noexec", None) => tmpfs.exec = false,
            ("suid", None) => tmpfs.suid = true,
            ("nosuid", None) => tmpfs.suid = false,
            ("dev", None) => tmpfs.dev = true,
            ("nodev", None) => tmpfs.dev = false,
            ("size", Some(v)) => {
                tmpfs.size = Some(bytes(v).ok_or_else(|| bad("size is a number of bytes such as 64m"))?)
            }
            ("mode", Some(v)) => tmpfs.mode = Some(octal(v).ok_or_else(|| bad("mode is an octal number"))?),
            ("uid", Some(v)) => tmpfs.uid = id(v).ok_or_else(|| bad("uid is a number"))?,
            ("gid", Some(v)) => tmpfs.gid = id(v).ok_or_else(|| bad("gid is a number"))?,
            _ => return Err(bad(&format!("unknown option {word:?}"))),
        }
    }
    Ok(VolumeRequest { target, source: VolumeSource::Tmpfs(tmpfs), readonly })
}

/// Reads a `--mount` value: comma separated `KEY=VALUE` fields, quoted as in CSV where they hold a comma.
pub fn parse_mount(text: &[u8], cwd: &Path) -> Result<VolumeRequest, RunError> {
    let bad = |why: String| RunError::flag("--mount", text, why);
    let mut fields = MountFields::default();
    for field in csv(text).ok_or_else(|| bad("a quote is not closed, or stands inside a field".into()))? {
        fields.take(&field).map_err(bad)?;
    }
    fields.finish(cwd).map_err(bad)
}

#[derive(Debug, Default)]
struct MountFields {
    kind: Option<String>,
    source: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    readonly: bool,
    create: bool,
    bind: BindOptions,
    /// `bind-recursive=readonly`.
    deep: bool,
    nocopy: bool,
    subpath: Vec<u8>,
    volume: VolumeExtra,
    tmpfs: TmpfsOptions,
    /// A key that only one type has, with that type.
    only: Option<(&'static str, &'static str)>,
}

impl MountFields {
    fn take(&mut self, field: &[u8]) -> Result<(), String> {
        let shown = String::from_utf8_lossy(field).into_owned();
        if field.trim_ascii() != field {
            return Err(format!("blanks around {:?}", shown.trim()));
        }
        let (key, value) = match field.iter().position(|b| *b == b'=') {
            Some(at) => (&field[..at], Some(&field[at + 1..])),
            None => (field, None),
        };
        if key.trim_ascii_end() != key || value.is_some_and(|v| v.trim_ascii_start() != v) {
            return Err(format!("blanks around the = in {shown:?}"));
        }
        let key = String::from_utf8_lossy(key).to_ascii_lowercase();
        let text = value.map(|v| String::from_utf8_lossy(v).into_owned());
        let need =
            || value.filter(|v| !v.is_empty()).map(<[u8]>::to_vec).ok_or(format!("{key} needs a value"));
        let on = || match text.as_deref() {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("{key}={other}: expected true or false")),
        };
        match key.as_str() {
            "type" => self.kind = Some(String::from_utf8_lossy(&need()?).to_ascii_lowercase()),
            "source" | "src" => self.source = Some(need()?),
            "target" | "dst" | "destination" => self.target = Some(need()?),
            "readonly" | "ro" => self.readonly = on()?,
            "bind-create-src" => (self.create, self.only) = (on()?, Some(("bind-create-src", "bind"))),
            "bind-propagation" => {
                let word = text.unwrap_or_default().to_ascii_lowercase();
                self.bind.propagation =
                    Propagation::parse(&word).ok_or_else(|| format!("invalid propagation mode: {word}"))?;
                self.only = Some(("bind-propagation", "bind"));
            }
            "bind-recursive" | "bind-nonrecursive" => {
                match (key.as_str(), text.as_deref()) {
                    // a read-only mount is so with all that is below it
                    ("bind-recursive", Some("enabled")) => {}
                    ("bind-recursive", Some("readonly")) => self.deep = true,
                    ("bind-recursive", Some("writable")) => self.bind.shallow = true,
                    ("bind-recursive", Some("disabled")) => self.bind.alone = true,
                    ("bind-nonrecursive", _) => self.bind.alone = on()?,
                    _ => return Err(format!("{shown:?}: expected enabled, disabled, writable or readonly")),
                }
                self.only = Some(("bind-recursive", "bind"));
            }
            "volume-nocopy" => (self.nocopy, self.only) = (on()?, Some(("volume-nocopy", "volume"))),
            "tmpfs-size" => {
                let size =
                    text.as_deref().and_then(bytes).ok_or("tmpfs-size is a number of bytes such as 64m")?;
                (self.tmpfs.size, self.only) = (Some(size), Some(("tmpfs-size", "tmpfs")));
            }
            "tmpfs-mode" => {
                let mode = text.as_deref().and_then(octal).ok_or("tmpfs-mode is an octal number")?;
                (self.tmpfs.mode, self.only) = (Some(mode), Some(("tmpfs-mode", "tmpfs")));
            }
            "consistency" => {}
            "volume-driver" if text.as_deref() == Some("local") => {
                self.only = Some(("volume-driver", "volume"))
            }
            "volume-driver" => return Err(format!("{shown}: there is only the driver local")),
            "volume-subpath" => {
                let path = need()?;
                if path.starts_with(b"/") || path.split(|b| *b == b'/').any(|part| part == b"..") {
                    return Err(format!("{shown}: the path must stay inside the volume"));
                }
                (self.volume.subpath, self.only) = (path, Some(("volume-subpath", "volume")));
            }
            "volume-label" | "volume-opt" => {
                let pair = text.unwrap_or_default();
                let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
                let (list, only) = match key.as_str() {
                    "volume-label" => (&mut self.volume.labels, "volume-label"),
                    _ => (&mut self.volume.options, "volume-opt"),
                };
                list.insert(name.to_owned(), value.to_owned());
                self.only = Some((only, "volume"));
            }
            "image-subpath" => {
                let path = need()?;
                if path.starts_with(b"/") || path.split(|b| *b == b'/').any(|part| part == b"..") {
                    return Err(format!("{shown}: the path must stay inside the image"));
                }
                (self.subpath, self.only) = (path, Some(("image-subpath", "image")));
            }
            _ => return Err(format!("unknown key {key:?}")),
        }
        Ok(())
    }

    fn finish(self, cwd: &Path) -> Result<VolumeRequest, String> {
        let kind = self.kind.as_deref().unwrap_or("volume");
        if let Some((key, only)) = self.only.filter(|(_, only)| *only != kind) {
            return Err(format!("{key} is for type={only}"));
        }
        let target = target(&self.target.ok_or("target is required")?)?;
        let needs = |value: &str, other: &str| {
            Err(format!("option 'bind-recursive={value}' requires '{other}' to be specified in conjunction"))
        };
        match (self.bind.shallow, self.deep) {
            (true, _) if !self.readonly => return needs("writable", "readonly"),
            (_, true) if !self.readonly => return needs("readonly", "readonly"),
            (_, true) if self.bind.propagation.follows() => {
                return needs("readonly", "bind-propagation=rprivate");
            }
            _ => {}
        }
        let source = match (kind, self.source) {
            ("bind", None) => return Err("source is required for type=bind".into()),
            ("bind", Some(path)) => {
                VolumeSource::Host { path: host_path(&path, cwd), create: self.create, options: self.bind }
            }
            ("volume", None) if !self.volume.subpath.is_empty() => {
                return Err("volume-subpath needs a source: a new volume has no paths".into());
            }
            ("volume", None) => VolumeSource::Anonymous { seed: !self.nocopy, extra: self.volume },
            ("volume", Some(name)) => {
                let name =
                    VolumeName::parse(&name).ok_or("source is no volume name; use type=bind for a path")?;
                VolumeSource::Named { name, seed: !self.nocopy, extra: self.volume }
            }
            ("tmpfs", None) => VolumeSource::Tmpfs(self.tmpfs),
            ("tmpfs", Some(_)) => return Err("type=tmpfs takes no source".into()),
            ("image", None) => return Err("source is required for type=image".into()),
            ("image", Some(name)) => {
                let name = String::from_utf8(name).map_err(|_| "the name of the image is not UTF-8")?;
                VolumeSource::Image { name, subpath: self.subpath, image: None }
            }
            ("npipe" | "cluster", _) => return Err(format!("type={kind} is not available")),
            (other, _) => {
                return Err(format!("unknown type {other:?}: expected bind, volume, tmpfs or image"));
            }
        };
        let readonly = self.readonly || matches!(source, VolumeSource::Image { .. });
        Ok(VolumeRequest { target, source, readonly })
    }
}

/// Cuts a line at its commas; a field in double quotes may hold commas, and `""` in it is a quote.
fn csv(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut fields, mut rest) = (Vec::new(), text);
    loop {
        let mut field = Vec::new();
        if let Some(mut quoted) = rest.strip_prefix(b"\"") {
            loop {
                let at = quoted.iter().position(|b| *b == b'"')?;
                field.extend_from_slice(&quoted[..at]);
                quoted = &quoted[at + 1..];
                match quoted.strip_prefix(b"\"") {
                    Some(more) => {
                        field.push(b'"');
                        quoted = more;
                    }
                    None => break,
                }
            }
            rest = quoted;
        } else {
            let end = rest.iter().position(|b| *b == b',').unwrap_or(rest.len());
            field.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
            if field.contains(&b'"') {
                return None;
            }
        }
        fields.push(field);
        match rest.split_first() {
            None => return Some(fields),
            Some((b',', more)) => rest = more,
            Some(_) => return None,
        }
    }
}

/// Reads a number of bytes with the units `b k m g`, powers of 1024.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= i32::MAX as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(path: &str, create: bool) -> VolumeSource {
        VolumeSource::Host { path: path.into(), create, options: BindOptions::default() }
    }

    fn named(name: &str, seed: bool) -> VolumeSource {
        VolumeSource::Named {
            name: VolumeName::parse(name.as_bytes()).unwrap(),
            seed,
            extra: VolumeExtra::default(),
        }
    }

    #[test]
    fn volumes() {
        for (text, target, source, readonly) in [
            ("/c", "/c", VolumeSource::Anonymous { seed: true, extra: VolumeExtra::default() }, false),
            ("data:/c", "/c", named("data", true), false),
            ("data:/c:ro,nocopy", "/c", named("data", false), true),
            ("/h:/c", "/c", host("/h", true), false),
            ("/h:/c/:ro", "/c", host("/h", true), true),
            ("/h/./x:/c/../d:rw,cached,rprivate", "/d", host("/h/x", true), false),
            ("./h:/c", "/c", host("/work/h", true), false),
            (".:/c", "/c", host("/work", true), false),
            ("../h:/c", "/c", host("/work/../h", true), false),
        ] {
            let got = parse_volume(text.as_bytes(), Path::new("/work")).unwrap();
            let want = VolumeRequest { target: target.as_bytes().to_vec(), source, readonly };
            assert_eq!(got, want, "{text}");
        }
        for (text, why) in [
            ("", "absolute"),
            ("/c:ro", "absolute"),
            ("/h:c", "absolute"),
            ("/h:/", "cannot be /"),
            ("/h:/c/..", "cannot be /"),
            (":/c", "empty"),
            ("/h:/c:ro:rw", "three parts"),
            ("/h:/c:what", "unknown option"),
            ("/h:/c:ro,rw", "more than one"),
            ("/h:/c:nocopy", "volumes"),
            ("vol:/c:rshared", "directories of the host"),
            ("/h:/c:shared,slave", "more than one"),
            ("a/b:/c", "no volume name"),
            ("x:/c", "no volume name"),
        ] {
            let error = parse_volume(text.as_bytes(), Path::new("/work")).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn mounts() {
        let tmpfs = TmpfsOptions { size: Some(1 << 20), mode: Some(0o1770), ..TmpfsOptions::default() };
        let options = BindOptions { propagation: Propagation::RShared, ..BindOptions::default() };
        let shared = VolumeSource::Host { path: "/h".into(), create: false, options };
        for (text, target, source, readonly) in [
            ("target=/c", "/c", VolumeSource::Anonymous { seed: true, extra: VolumeExtra::default() }, false),
            ("type=volume,src=data,dst=/c,ro", "/c", named("data", true), true),
            ("source=data,destination=/c,volume-nocopy", "/c", named("data", false), false),
            ("type=bind,source=/h,target=/c,readonly=false", "/c", host("/h", false), false),
            (
                "type=bind,src=h,dst=/c,bind-create-src,bind-propagation=rprivate",
                "/c",
                host("/work/h", true),
                false,
            ),
            ("type=tmpfs,dst=/c,tmpfs-size=1m,tmpfs-mode=1770", "/c", VolumeSource::Tmpfs(tmpfs), false),
            ("type=bind,\"src=/a,\"\"b\",dst=/c", "/c", host("/a,\"b", false), false),
            (
                "type=image,src=app:1,dst=/c,image-subpath=a/b",
                "/c",
                VolumeSource::Image { name: "app:1".into(), subpath: b"a/b".to_vec(), image: None },
                true,
            ),
            ("type=bind,src=/h,dst=/c,bind-propagation=rshared", "/c", shared, false),
        ] {
            let got = parse_mount(text.as_bytes(), Path::new("/work")).unwrap();
            let want = VolumeRequest { target: target.as_bytes().to_vec(), source, readonly };
            assert_eq!(got, want, "{text}");
        }
        for (text, why) in [
            ("", "unknown key"),
            ("type=bind,dst=/c", "source is required"),
            ("type=bind,src=/h", "target is required"),
            ("type=what,dst=/c", "unknown type"),
            ("type=image,dst=/c", "source is required"),
            ("type=image,src=x,dst=/c,image-subpath=../y", "inside the image"),
            ("type=bind,src=/x,dst=/c,image-subpath=y", "type=image"),
            ("type=cluster,src=x,dst=/c", "not available"),
            ("type=bind,src=/h,dst=/c,bind-recursive=writable", "requires 'readonly'"),
            ("type=bind,src=/h,dst=/c,ro,bind-recursive=readonly,bind-propagation=rslave", "rprivate"),
            ("type=tmpfs,src=/h,dst=/c", "no source"),
            ("type=tmpfs,dst=/c,volume-nocopy", "type=volume"),
            ("type=bind, src=/h,dst=/c", "blanks"),
            ("type=bind,src= /h,dst=/c", "blanks"),
            ("type=bind,src=/h,dst=/c,ro=maybe", "true or false"),
            ("type=bind,src=/h,dst=/c,bind-propagation=what", "invalid propagation mode: what"),
            ("type=bind,\"src=/h,dst=/c", "quote"),
            ("src=v,dst=/c,volume-subpath=../x", "inside the volume"),
            ("dst=/c,volume-subpath=x", "needs a source"),
            ("type=bind,src=/h,dst=/c,volume-label=a=b", "type=volume"),
            ("dst=/c,volume-driver=nfs", "only the driver local"),
        ] {
            let error = parse_mount(text.as_bytes(), Path::new("/work")).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn volumes_have_more_in_the_long_form() {
        let text = b"src=vol,dst=/c,volume-subpath=a/b,volume-label=k=v,volume-label=l,volume-opt=type=tmpfs,volume-driver=local";
        let VolumeSource::Named { extra, .. } = parse_mount(text, Path::new("/")).unwrap().source else {
            panic!("a named volume")
        };
        assert_eq!(extra.subpath, b"a/b");
        assert_eq!((extra.labels["k"].as_str(), extra.labels["l"].as_str()), ("v", ""));
        assert_eq!(extra.options["type"], "tmpfs");
    }

    #[test]
    fn memory() {
        let got = parse_tmpfs(b"/run").unwrap();
        assert_eq!((got.target.as_slice(), got.readonly), (&b"/run"[..], false));
        assert_eq!(got.source, VolumeSource::Tmpfs(TmpfsOptions::default()));
        let got = parse_tmpfs(b"/run:ro,exec,size=64m,mode=0700,uid=5,gid=6").unwrap();
        let want = TmpfsOptions {
            size: Some(64 << 20),
            mode: Some(0o700),
            uid: 5,
            gid: 6,
            exec: true,
            suid: false,
            dev: false,
        };
        assert_eq!((got.source, got.readonly), (VolumeSource::Tmpfs(want), true));
        for bad in ["", "run", "/", "/run:size=x", "/run:mode=9", "/run:what", "/run:uid=-1"] {
            assert!(parse_tmpfs(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let all = [parse_volume(&text, Path::new("/w")), parse_mount(&text, Path::new("/w")), parse_tmpfs(&text)];
            for request in all.into_iter().flatten() {
                prop_assert!(request.target.starts_with(b"/") && request.target.len() > 1);
                prop_assert!(!request.target.split(|b| *b == b'/').any(|part| part == b".."));
            }
        }
    }
}
