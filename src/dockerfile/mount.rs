//! The value of `RUN --mount=`: comma separated options, typed once their variables are expanded.
//!
//! Variables expand in every value but `from`, and which options are allowed depends on the expanded `type`, so
//! reading happens twice: while parsing the value is cut into fields and `from` is read (the stages a step needs
//! must be known before any variable is), and [`RawMount::expand`] makes the typed [`Mount`] later.

use super::ast::Device;
use super::csv;
use super::diagnostic::Diagnostic;
use super::span::{Span, Text};
use super::word::WordError;

/// A `--mount` value before its variables are expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMount {
    /// The whole value.
    pub text: Text,
    /// The fields of the comma separated value, quotes removed.
    pub fields: Vec<Text>,
    /// The value of the last `from` field; never holds a variable.
    pub from: Option<Text>,
}

/// A mount of a RUN step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// Files of the context, a stage or an image.
    Bind(BindMount),
    /// A directory that outlives the build.
    Cache(CacheMount),
    /// An empty directory in memory.
    Tmpfs(TmpfsMount),
    /// A secret as file, environment variable or both.
    Secret(SecretMount),
    /// A socket of an ssh agent.
    Ssh(SshMount),
}

/// `type=bind`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct BindMount {
    /// Stage, named context or image; the build context when absent.
    pub from: Option<String>,
    /// Path in it; the whole of it when empty.
    pub source: String,
    /// Where it appears; relative to the working directory. May be empty, which is the working directory.
    pub target: String,
    /// Whether writes fail; else they are discarded after the step.
    pub read_only: bool,
}

/// `type=cache`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CacheMount {
    /// Identity; the cleaned target when absent.
    pub id: Option<String>,
    /// What a new cache starts with: stage, named context or image; empty when absent.
    pub from: Option<String>,
    /// Path in `from`.
    pub source: String,
    /// Where it appears; relative to the working directory.
    pub target: String,
    /// What happens when two steps want it at once.
    pub sharing: Sharing,
    /// Whether writes fail.
    pub read_only: bool,
    /// Mode of a new cache directory (octal 0755 when absent).
    pub mode: Option<u32>,
    /// Owner of a new cache directory (0 when absent).
    pub uid: Option<u32>,
    /// Group of a new cache directory (0 when absent).
    pub gid: Option<u32>,
}

/// `sharing=` of a cache mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Sharing {
    /// All steps write to it at the same time.
    #[default]
    Shared,
    /// A second step gets a new one.
    Private,
    /// A second step waits.
    Locked,
}

/// `type=tmpfs`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TmpfsMount {
    /// Where it appears; relative to the working directory.
    pub target: String,
    /// Limit in bytes.
    pub size: Option<u64>,
    /// Whether writes fail.
    pub read_only: bool,
}

/// `type=secret`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SecretMount {
    /// Name of the secret: `id`, else `source`, else the last part of the target; not empty.
    pub id: String,
    /// File that holds it: the target, else `/run/secrets/<last part of id>`; absent when only `env` is given.
    pub target: Option<String>,
    /// Environment variable that holds it.
    pub env: Option<String>,
    /// Whether the step fails without it.
    pub required: bool,
    /// Mode of the file (octal 0400 when absent).
    pub mode: Option<u32>,
    /// Owner of the file (0 when absent).
    pub uid: Option<u32>,
    /// Group of the file (0 when absent).
    pub gid: Option<u32>,
}

/// `type=ssh`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SshMount {
    /// Name of the agent; `default` when not given.
    pub id: String,
    /// Path of the socket; the engine chooses when absent.
    pub target: Option<String>,
    /// Whether the step fails without it.
    pub required: bool,
    /// Mode of the socket (octal 0600 when absent).
    pub mode: Option<u32>,
    /// Owner of the socket (0 when absent).
    pub uid: Option<u32>,
    /// Group of the socket (0 when absent).
    pub gid: Option<u32>,
}

/// The names of the options, the usual ones first.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// Expands one option value; a word of its own.
pub type Expand<'a> = dyn FnMut(&str) -> Result<String, WordError> + 'a;

impl RawMount {
    /// Returns the place of the value.
    pub fn span(&self) -> Span {
        self.text.span()
    }

    /// Reads a mount that stands on the command line, and makes sure that it can be expanded.
    ///
    /// # Errors
    /// As [`RawMount::expand`]; the places in the error mean nothing.
    pub fn of_command_line(value: &str) -> Result<Self, Diagnostic> {
        let raw = Self::read(Text::detached(value))?;
        let mount = raw.expand(&mut |text| Ok(text.to_owned()))?;
        let target = match &mount {
            Mount::Bind(bind) => &bind.target,
            Mount::Cache(cache) => &cache.target,
            Mount::Tmpfs(tmpfs) => &tmpfs.target,
            Mount::Secret(_) | Mount::Ssh(_) => return Ok(raw),
        };
        if !target.starts_with('/') {
            // the steps have different working directories
            let error =
                Diagnostic::new("rbuild::mount_target", format!("its target {target:?} is not absolute"));
            return Err(error.at(raw.span()).help("write target=/path"));
        }
        Ok(raw)
    }

    /// Cuts the value of a `--mount` flag into fields.
    pub(super) fn read(text: Text) -> Result<Self, Diagnostic> {
        let fields = csv::fields(&text, "--mount")?;
        let mut from = None;
        for field in &fields {
            let (key, Some(value)) = split(field) else { continue };
            if key != "from" {
                continue;
            }
            let dollar = value.as_str().find('$');
            if dollar.is_some_and(|at| at + 1 < value.as_str().len()) {
                let message = "'from' doesn't support variable expansion, define alias stage instead";
                return Err(Diagnostic::new("rbuild::variable_in_from", message)
                    .at(value.span())
                    .help(format!("add FROM {value} AS name above the stage and write from=name")));
            }
            from = Some(value).filter(|value| !value.is_empty());
        }
        Ok(RawMount { text, fields, from })
    }

    /// Expands the variables in the values and makes the typed mount.
    ///
    /// Fails for unknown keys, keys that do not belong to the type and values that are none.
    pub fn expand(&self, expand: &mut Expand<'_>) -> Result<Mount, Diagnostic> {
        let mut options = Options::default();
        for field in &self.fields {
            let (key, value) = split(field);
            match value {
                None => options.set_bare(field, &key)?,
                Some(value) => {
                    let expanded = expand(value.as_str()).map_err(|error| error.at(&value))?;
                    options.set(field, &key, &value, expanded)?;
                }
            }
        }
        options.finish(&self.text)
    }
}

/// Splits `key=value`; the key in lower case.
fn split(field: &Text) -> (String, Option<Text>) {
    match field.as_str().find('=') {
        None => (field.as_str().to_lowercase(), None),
        Some(at) => (field.as_str()[..at].to_lowercase(), Some(field.slice(at + 1..field.as_str().len()))),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Default)]
enum Type {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Type {
    const NAMES: [(&str, Type); 5] = [
        ("bind", Type::Bind),
        ("cache", Type::Cache),
        ("tmpfs", Type::Tmpfs),
        ("secret", Type::Secret),
        ("ssh", Type::Ssh),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, own)| *own == self).map_or("bind", |(name, _)| name)
    }
}

/// All options as given, before the type decides which of them mean something.
#[derive(Debug, Default)]
struct Options {
    kind: Type,
    from: String,
    source: String,
    target: String,
    read_only: Option<bool>,
    id: String,
    sharing: Option<(Sharing, Span)>,
    required: bool,
    size: Option<u64>,
    mode: Option<(u32, Span)>,
    uid: Option<(u32, Span)>,
    gid: Option<(u32, Span)>,
    env: Option<String>,
}

impl Options {
    fn set_bare(&mut self, field: &Text, key: &str) -> Result<(), Diagnostic> {
        match key {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => {
                self.only_for(field, key, &[Type::Secret, Type::Ssh])?;
                self.required = true;
            }
            _ => {
                let message = format!("invalid field '{field}' must be a key=value pair");
                return Err(Diagnostic::new("rbuild::mount", message)
                    .at(field.span())
                    .help("options are separated by commas: type=cache,target=/path")
                    .did_you_mean(key, ["readonly", "ro", "readwrite", "rw", "required"]));
            }
        }
        Ok(())
    }

    fn set(&mut self, field: &Text, key: &str, written: &Text, value: String) -> Result<(), Diagnostic> {
        let place = written.span();
        let invalid = |value: &str| {
            bad_value(place, format!("invalid value for {key}: {value}"))
                .help(format!("write {key}=true or {key}=false"))
        };
        let number = |value: &str, radix, help| {
            number(value, radix)
                .map(|number| (number, place))
                .ok_or_else(|| bad_value(place, format!("invalid value {value} for {key}")).help(help))
        };
        match key {
            "type" => self.kind = kind(&value, place)?,
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "readonly" | "ro" => self.read_only = Some(boolean(&value).ok_or_else(|| invalid(&value))?),
            "readwrite" | "rw" => self.read_only = Some(!boolean(&value).ok_or_else(|| invalid(&value))?),
            "required" => {
                self.only_for(field, key, &[Type::Secret, Type::Ssh])?;
                self.required = boolean(&value).ok_or_else(|| invalid(&value))?;
            }
            "size" => {
                self.only_for(field, key, &[Type::Tmpfs])?;
                self.size = Some(
                    size(&value)
                        .ok_or_else(|| invalid(&value).help("write a number of bytes, or 64k, 100m, 1g"))?,
                );
            }
            "id" => self.id = value,
            "sharing" => self.sharing = Some((sharing(&value, place)?, field.span())),
            "mode" => self.mode = Some(number(&value, 8, "write the mode in octal: mode=0755")?),
            "uid" => self.uid = Some(number(&value, 10, "write a number")?),
            "gid" => self.gid = Some(number(&value, 10, "write a number")?),
            "env" => self.env = Some(value),
            _ => {
                return Err(Diagnostic::new("rbuild::mount", format!("unexpected key '{key}' in '{field}'"))
                    .at(field.span_of_key())
                    .help(format!("the keys are {}", KEYS[..12].join(", ")))
                    .did_you_mean(key, KEYS));
            }
        }
        Ok(())
    }

    fn only_for(&self, field: &Text, key: &str, kinds: &[Type]) -> Result<(), Diagnostic> {
        if kinds.contains(&self.kind) {
            return Ok(());
        }
        let names: Vec<String> = kinds.iter().map(|kind| format!("type={}", kind.name())).collect();
        Err(Diagnostic::new(
            "rbuild::mount",
            format!("unexpected key '{key}' for mount type '{}'", self.kind.name()),
        )
        .at(field.span())
        .help(format!("`{key}` belongs to {}, which must stand before it", names.join(" and "))))
    }

    fn finish(self, whole: &Text) -> Result<Mount, Diagnostic> {
        self.check_types(whole)?;
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let value = |option: Option<(u32, Span)>| option.map(|(value, _)| value);
        let (mode, uid, gid) = (value(self.mode), value(self.uid), value(self.gid));
        Ok(match self.kind {
            Type::Bind => Mount::Bind(BindMount {
                from: text(&self.from),
                source: self.source,
                target: self.target,
                read_only: self.read_only.unwrap_or(true),
            }),
            Type::Cache => Mount::Cache(CacheMount {
                id: text(&self.id),
                from: text(&self.from),
                source: self.source,
                target: self.target,
                sharing: self.sharing.map(|(sharing, _)| sharing).unwrap_or_default(),
                read_only: self.read_only.unwrap_or(false),
                mode,
                uid,
                gid,
            }),
            Type::Tmpfs => Mount::Tmpfs(TmpfsMount {
                target: self.target,
                size: self.size.filter(|size| *size > 0),
                read_only: self.read_only.unwrap_or(false),
            }),
            Type::Secret => Mount::Secret(self.secret()),
            Type::Ssh => Mount::Ssh(SshMount {
                id: text(&self.id).unwrap_or_else(|| "default".into()),
                target: text(&self.target),
                required: self.required,
                mode,
                uid,
                gid,
            }),
        })
    }

    fn secret(self) -> SecretMount {
        let last = |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        let named = [self.id, self.source].into_iter().find(|name| !name.is_empty());
        let id = named.unwrap_or_else(|| last(&self.target));
        let target = match (self.target.is_empty(), &self.env) {
            (false, _) => Some(self.target),
            (true, None) => Some(format!("/run/secrets/{}", last(&id))),
            (true, Some(_)) => None,
        };
        SecretMount {
            target,
            env: self.env,
            required: self.required,
            mode: self.mode.map(|(value, _)| value),
            uid: self.uid.map(|(value, _)| value),
            gid: self.gid.map(|(value, _)| value),
            id,
        }
    }

    fn check_types(&self, whole: &Text) -> Result<(), Diagnostic> {
        let error = |place: Span, message: String| Err(Diagnostic::new("rbuild::mount", message).at(place));
        let name = self.kind.name();
        if matches!(self.kind, Type::Bind | Type::Tmpfs) {
            let owners = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
            if let Some((key, Some((_, place)))) = owners.into_iter().find(|(_, value)| value.is_some()) {
                return error(place, format!("{key} not allowed for {name:?} type mounts"))
                    .map_err(|error| error.help(format!("only cache, secret and ssh mounts take `{key}`")));
            }
        }
        if self.kind == Type::Secret {
            self.check_secret(whole)?;
        }
        if let Some((_, place)) = self.sharing.filter(|_| self.kind != Type::Cache) {
            return error(place, format!("invalid cache sharing set for {name} mount"))
                .map_err(|error| error.help("`sharing` belongs to type=cache"));
        }
        if self.kind == Type::Ssh && !self.source.is_empty() {
            return error(whole.span(), "ssh does not support source".into())
                .map_err(|error| error.help("the agent or key is given with --ssh; name it with id=name"));
        }
        Ok(())
    }

    fn check_secret(&self, whole: &Text) -> Result<(), Diagnostic> {
        let error = |message: &str, help: &str| {
            Err(Diagnostic::new("rbuild::mount", message).at(whole.span()).help(help))
        };
        if !self.from.is_empty() {
            return error("secret mount should not have a from", "secrets are given with --secret");
        }
        if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
            return error(
                "invalid secret mount. one of source, target required",
                "name the secret: type=secret,id=name",
            );
        }
        if !self.source.is_empty() && !self.id.is_empty() {
            return error("both source and id can't be set", "write id=name");
        }
        Ok(())
    }
}

impl Text {
    /// The key of a `key=value` field.
    fn span_of_key(&self) -> Span {
        self.span_of(0..self.as_str().find('=').unwrap_or(self.as_str().len()))
    }
}

fn bad_value(place: Span, message: String) -> Diagnostic {
    Diagnostic::new("rbuild::bad_value", message).at(place)
}

fn kind(value: &str, place: Span) -> Result<Type, Diagnostic> {
    let lower = value.to_lowercase();
    let found = Type::NAMES.iter().find(|(name, _)| *name == lower).map(|(_, kind)| *kind);
    found.ok_or_else(|| {
        let names = Type::NAMES.map(|(name, _)| name);
        bad_value(place, format!("unsupported mount type {value:?}"))
            .help(format!("it may be {}", names.join(", ")))
            .did_you_mean(&lower, names)
    })
}

fn sharing(value: &str, place: Span) -> Result<Sharing, Diagnostic> {
    match value.to_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        other => {
            let names = ["shared", "private", "locked"];
            Err(bad_value(place, format!("unsupported sharing value {value:?}"))
                .help(format!("it may be {}", names.join(", ")))
                .did_you_mean(other, names))
        }
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn number(value: &str, radix: u32) -> Option<u32> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| u32::from_str_radix(value, radix).ok())?
}

/// Reads a size as docker does: a decimal number, an optional blank, an optional unit (`b`, `k`, `m`, `g`, `t`, `p`,
/// also `kb` and `kib`), counted in powers of 1024.
fn size(text: &str) -> Option<u64> {
    let split = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')? + 1;
    let (digits, unit) = text.split_at(split);
    let digits = digits.strip_suffix(' ').unwrap_or(digits);
    if !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let unit = unit.to_ascii_lowercase();
    let short = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b').filter(|short| !short.is_empty()));
    let power = match short.unwrap_or(&unit) {
        "" if unit.is_empty() => 0,
        "b" if unit == "b" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = digits.parse::<f64>().ok()? * 1024_f64.powi(power);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    (bytes.is_finite() && bytes < 9.2e18).then_some(bytes as u64)
}

/// Reads the value of `--device`: a CDI name and `required`.
pub(super) fn device(value: &Text) -> Result<Device, Diagnostic> {
    let mut device = Device { name: String::new(), required: false, span: value.span() };
    for field in csv::fields(value, "--device")? {
        let (key, setting) = split(&field);
        match (key.as_str(), setting) {
            ("required", None) => device.required = true,
            ("required", Some(setting)) => {
                device.required = boolean(setting.as_str()).ok_or_else(|| {
                    bad_value(setting.span(), format!("invalid value for required: {setting}"))
                })?;
            }
            ("name", Some(_)) if !device.name.is_empty() => {
                return Err(bad_value(field.span(), format!("device name already set to {}", device.name)));
            }
            ("name", Some(setting)) => device.name = setting.to_string(),
            _ if device.name.is_empty() => device.name = field.to_string(),
            (_, None) => {
                return Err(bad_value(
                    field.span(),
                    format!("invalid field '{field}' must be a key=value pair"),
                ));
            }
            (key, Some(_)) => {
                return Err(bad_value(field.span(), format!("unexpected key '{key}' in '{field}'"))
                    .help("write --device=NAME or --device=NAME,required")
                    .did_you_mean(key, ["name", "required"]));
            }
        }
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::word::Lexer;

    fn mount(value: &str) -> Result<Mount, String> {
        let env: std::collections::BTreeMap<String, String> = [("D".to_owned(), "/dir".to_owned())].into();
        let lexer = Lexer::new('\\');
        let raw = RawMount::read(Text::plain(value, 0)).map_err(|error| error.to_string())?;
        raw.expand(&mut |word| lexer.word(word, &env).map(|expanded| expanded.text))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn reads_each_type() {
        assert_eq!(
            mount("target=$D,src=a,from=s"),
            Ok(Mount::Bind(BindMount {
                from: Some("s".into()),
                source: "a".into(),
                target: "/dir".into(),
                read_only: true
            }))
        );
        assert_eq!(
            mount("dst=/a,rw"),
            Ok(Mount::Bind(BindMount { target: "/a".into(), ..BindMount::default() }))
        );
        assert_eq!(
            mount("TYPE=Cache,Target=/a,sharing=LOCKED,mode=0700,uid=1,gid=2,id=x"),
            Ok(Mount::Cache(CacheMount {
                id: Some("x".into()),
                target: "/a".into(),
                sharing: Sharing::Locked,
                mode: Some(0o700),
                uid: Some(1),
                gid: Some(2),
                ..CacheMount::default()
            }))
        );
        let tmpfs = |size| Ok(Mount::Tmpfs(TmpfsMount { target: "/t".into(), size, read_only: false }));
        assert_eq!(mount("type=tmpfs,target=/t,size=64m"), tmpfs(Some(64 << 20)));
        assert_eq!(mount("type=tmpfs,target=/t"), tmpfs(None));
        assert_eq!(
            mount("type=ssh,required"),
            Ok(Mount::Ssh(SshMount { id: "default".into(), required: true, ..SshMount::default() }))
        );
    }

    #[test]
    fn secrets_find_their_names() {
        let cases = [
            ("id=a", "a", Some("/run/secrets/a"), None),
            ("source=a/b", "a/b", Some("/run/secrets/b"), None),
            ("target=/x/y", "y", Some("/x/y"), None),
            ("id=a,env=E", "a", None, Some("E")),
            ("id=a,env=E,target=/f", "a", Some("/f"), Some("E")),
        ];
        for (options, id, target, env) in cases {
            let expected = SecretMount {
                id: id.into(),
                target: target.map(Into::into),
                env: env.map(Into::into),
                ..SecretMount::default()
            };
            assert_eq!(mount(&format!("type=secret,{options}")), Ok(Mount::Secret(expected)), "{options}");
        }
    }

    #[test]
    fn refuses_wrong_options() {
        let cases = [
            ("type=bnd", "unsupported mount type \"bnd\""),
            ("target", "invalid field 'target' must be a key=value pair"),
            ("tagret=/a", "unexpected key 'tagret' in 'tagret=/a'"),
            ("from=$X,target=/a", "'from' doesn't support variable expansion, define alias stage instead"),
            ("required,type=secret,id=a", "unexpected key 'required' for mount type 'bind'"),
            ("type=cache,target=/a,size=1m", "unexpected key 'size' for mount type 'cache'"),
            ("type=tmpfs,target=/a,size=1x", "invalid value for size: 1x"),
            ("type=tmpfs,mode=0700,target=/a", "mode not allowed for \"tmpfs\" type mounts"),
            ("type=cache,mode=9,target=/a", "invalid value 9 for mode"),
            ("type=cache,uid=-1,target=/a", "invalid value -1 for uid"),
            ("type=cache,sharing=all,target=/a", "unsupported sharing value \"all\""),
            ("sharing=locked,target=/a", "invalid cache sharing set for bind mount"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,src=b", "both source and id can't be set"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=ssh,src=a", "ssh does not support source"),
            ("ro=maybe,target=/a", "invalid value for ro: maybe"),
            ("a\"b", "failed to parse the comma separated value of --mount"),
            ("target=${X:?gone}", "failed to process \"${X:?gone}\": X: gone"),
        ];
        for (value, message) in cases {
            assert_eq!(mount(value), Err(message.to_owned()), "{value}");
        }
    }

    #[test]
    fn reads_sizes() {
        let cases = [
            ("0", Some(0)),
            ("10", Some(10)),
            ("1k", Some(1024)),
            ("1.5 KiB", Some(1536)),
            ("2GB", Some(2 << 30)),
            ("1b", Some(1)),
            ("1bb", None),
            ("1kk", None),
            ("k", None),
            ("-1", None),
            ("1.2.3", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(size(text), expected, "{text:?}");
        }
    }

    #[test]
    fn reads_devices() {
        let device = |text: &str| {
            device(&Text::plain(text, 0)).map(|d| (d.name, d.required)).map_err(|e| e.to_string())
        };
        assert_eq!(device("vendor.com/dev=foo,required"), Ok(("vendor.com/dev=foo".into(), true)));
        assert_eq!(device("name=a,required=false"), Ok(("a".into(), false)));
        assert_eq!(device("a,name=b"), Err("device name already set to a".into()));
    }
}
