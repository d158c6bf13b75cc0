//! The options of `RUN --mount=` as they are given, and what their type makes of them.
//!
//! Options come in any order, the type among them, so all are taken first and checked at the end.

use super::diagnostic::Diagnostic;
use super::mount::{BindMount, CacheMount, Mount, SecretMount, Sharing, SshMount, TmpfsMount};
use super::span::{Span, Text};

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
pub(super) struct Options {
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
    /// Takes a field without a value.
    pub(super) fn set_bare(&mut self, field: &Text, key: &str) -> Result<(), Diagnostic> {
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

    /// Takes a field with its expanded value.
    pub(super) fn set(
        &mut self,
        field: &Text,
        key: &str,
        written: &Text,
        value: String,
    ) -> Result<(), Diagnostic> {
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

    /// Makes the mount, now that the type is known.
    pub(super) fn finish(self, whole: &Text) -> Result<Mount, Diagnostic> {
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

pub(super) fn bad_value(place: Span, message: String) -> Diagnostic {
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

pub(super) fn boolean(value: &str) -> Option<bool> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
