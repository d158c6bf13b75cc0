//! The value of `RUN --mount=`: comma separated options, typed once their variables are expanded.
//!
//! Variables expand in every value but `from`, and which options are allowed depends on the expanded `type`, so
//! reading happens twice: while parsing the value is cut into fields and `from` is read (the stages a step needs
//! must be known before any variable is), and [`RawMount::expand`] makes the typed [`Mount`] later.

use super::ast::Device;
use super::csv;
use super::diagnostic::Diagnostic;
use super::mount_options::{Options, bad_value, boolean};
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
    fn reads_devices() {
        let device = |text: &str| {
            device(&Text::plain(text, 0)).map(|d| (d.name, d.required)).map_err(|e| e.to_string())
        };
        assert_eq!(device("vendor.com/dev=foo,required"), Ok(("vendor.com/dev=foo".into(), true)));
        assert_eq!(device("name=a,required=false"), Ok(("a".into(), false)));
        assert_eq!(device("a,name=b"), Err("device name already set to a".into()));
    }
}
