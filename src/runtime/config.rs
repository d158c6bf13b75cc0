//! What runs in a container: the image's config with the command line laid over it. Pure.

use super::RunError;
use super::env::{self, DEFAULT_PATH, EnvChange};
use super::signals;
use crate::network::ContainerPort;
use crate::oci::Config;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the command line says about the process.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--entrypoint`; an empty one clears the image's.
    pub entrypoint: Option<Vec<u8>>,
    /// What stands behind the image.
    pub args: Vec<Vec<u8>>,
    /// `--env-file` lines, then `-e` flags, each in order.
    pub env: Vec<EnvChange>,
    /// `-w`.
    pub workdir: Option<Vec<u8>>,
    /// `-u`.
    pub user: Option<String>,
    /// `--stop-signal`.
    pub stop_signal: Option<String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `-t`.
    pub terminal: bool,
}

/// What runs, as whom, where, with which environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Program and arguments; never empty.
    #[serde(with = "super::text::list")]
    pub argv: Vec<Vec<u8>>,
    /// How many of these words are the entrypoint; the rest is the command.
    #[serde(default)]
    pub entrypoint_words: usize,
    /// `NAME=VALUE` entries. `HOME` is added later, from the container's passwd file.
    #[serde(with = "super::text::list")]
    pub env: Vec<Vec<u8>>,
    /// Absolute.
    #[serde(with = "super::text")]
    pub workdir: Vec<u8>,
    /// `user[:group]`, names or numbers; empty for root.
    pub user: String,
    /// Paths that get an anonymous volume.
    #[serde(with = "super::text::list")]
    pub volumes: Vec<Vec<u8>>,
    /// Ports that the image says it serves.
    pub exposed: Vec<ContainerPort>,
    /// Image's first, then the command line's.
    pub labels: BTreeMap<String, String>,
    /// What ends the process politely.
    pub stop_signal: i32,
}

impl ContainerConfig {
    /// Lays the command line over the image's config. `hostname` is what `HOSTNAME` says.
    ///
    /// # Errors
    /// There is nothing to run, or a value makes no sense.
    pub fn new(image: &Config, over: &Overrides, hostname: &str) -> Result<Self, RunError> {
        let (entrypoint_words, argv) = argv(image, over);
        if argv.is_empty() {
            return Err(RunError::NoCommand);
        }
        let mut labels = image.labels.clone();
        labels.extend(over.labels.clone());
        Ok(Self {
            argv,
            entrypoint_words,
            env: environment(image, over, hostname),
            workdir: workdir(image, over)?,
            user: over.user.clone().unwrap_or_else(|| image.user.clone()),
            volumes: image.volumes.keys().map(|path| path.clone().into_bytes()).collect(),
            exposed: image.exposed_ports.keys().filter_map(|port| port.parse().ok()).collect(),
            labels,
            stop_signal: stop_signal(image, over)?,
        })
    }
}

/// Entrypoint, then the arguments given, else the image's CMD. An entrypoint of the command line drops the image's CMD.
/// Gives also how many words the entrypoint has.
fn argv(image: &Config, over: &Overrides) -> (usize, Vec<Vec<u8>>) {
    let bytes = |list: &Option<Vec<String>>| -> Vec<Vec<u8>> {
        list.iter().flatten().map(|word| word.clone().into_bytes()).collect()
    };
    let (mut argv, cmd) = match &over.entrypoint {
        Some(word) if word.is_empty() => (Vec::new(), Vec::new()),
        Some(word) => (vec![word.clone()], Vec::new()),
        None => (bytes(&image.entrypoint), bytes(&image.cmd)),
    };
    let entrypoint = argv.len();
    argv.extend(if over.args.is_empty() { cmd } else { over.args.clone() });
    (entrypoint, argv)
}

fn environment(image: &Config, over: &Overrides, hostname: &str) -> Vec<Vec<u8>> {
    let mut base =
        vec![format!("PATH={DEFAULT_PATH}").into_bytes(), format!("HOSTNAME={hostname}").into_bytes()];
    if over.terminal {
        base.push(b"TERM=xterm".to_vec());
    }
    let own = image.env.iter().map(|entry| match entry.split_once('=') {
        Some((name, value)) => (name.as_bytes().to_vec(), Some(value.as_bytes().to_vec())),
        None => (entry.as_bytes().to_vec(), Some(Vec::new())),
    });
    let own: Vec<EnvChange> = own.filter(|(name, _)| !name.is_empty()).collect();
    env::merge(base, own.iter().chain(&over.env))
}

fn workdir(image: &Config, over: &Overrides) -> Result<Vec<u8>, RunError> {
    match &over.workdir {
        Some(dir) if !dir.starts_with(b"/") => {
            Err(RunError::flag("--workdir", dir, "it needs to be an absolute path in the container"))
        }
        Some(dir) => Ok(dir.clone()),
        // an image may hold anything
        None => Ok([b"/", image.working_dir.trim_start_matches('/').as_bytes()].concat()),
    }
}

fn stop_signal(image: &Config, over: &Overrides) -> Result<i32, RunError> {
    match (&over.stop_signal, &image.stop_signal) {
        (Some(text), _) => signals::parse(text)
            .ok_or_else(|| RunError::flag("--stop-signal", text, "there is no such signal")),
        (None, Some(text)) => Ok(signals::parse(text).unwrap_or(signals::TERM)),
        (None, None) => Ok(signals::TERM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|w| (*w).to_owned()).collect())
    }

    fn bytes(list: &[&str]) -> Vec<Vec<u8>> {
        list.iter().map(|w| w.as_bytes().to_vec()).collect()
    }

    type Case<'a> =
        (Option<&'a [&'a str]>, Option<&'a [&'a str]>, Option<&'a str>, &'a [&'a str], &'a [&'a str]);

    #[test]
    fn the_command_line_of_a_container() {
        let cases: &[Case<'_>] = &[
            (None, Some(&["sh"]), None, &[], &["sh"]),
            (None, Some(&["sh"]), None, &["ls", "-l"], &["ls", "-l"]),
            (Some(&["e", "1"]), Some(&["c"]), None, &[], &["e", "1", "c"]),
            (Some(&["e", "1"]), Some(&["c"]), None, &["x"], &["e", "1", "x"]),
            (Some(&["e"]), None, None, &[], &["e"]),
            (Some(&["e", "1"]), Some(&["c"]), Some("mine"), &[], &["mine"]),
            (Some(&["e"]), Some(&["c"]), Some("mine"), &["x"], &["mine", "x"]),
            (Some(&["e"]), Some(&["c"]), Some(""), &["x"], &["x"]),
            (Some(&["e"]), Some(&["c"]), Some(""), &[], &[]),
            (None, None, None, &[], &[]),
            (Some(&[]), Some(&[]), None, &[], &[]),
        ];
        for (entrypoint, cmd, flag, args, want) in cases {
            let image = Config {
                entrypoint: entrypoint.and_then(words),
                cmd: cmd.and_then(words),
                ..Config::default()
            };
            let over = Overrides {
                entrypoint: flag.map(|f| f.as_bytes().to_vec()),
                args: bytes(args),
                ..Overrides::default()
            };
            assert_eq!(argv(&image, &over).1, bytes(want), "{entrypoint:?} {cmd:?} {flag:?} {args:?}");
            let made = ContainerConfig::new(&image, &over, "h");
            assert_eq!(made.is_ok(), !want.is_empty());
        }
    }

    #[test]
    fn the_command_line_wins_over_the_image_over_the_defaults() {
        let image = Config {
            cmd: words(&["x"]),
            env: ["A=image", "PATH=/bin", "B=image", "odd"].map(str::to_owned).to_vec(),
            working_dir: "srv".into(),
            user: "app".into(),
            stop_signal: Some("SIGUSR1".into()),
            labels: BTreeMap::from([("l".into(), "image".into()), ("m".into(), "image".into())]),
            volumes: BTreeMap::from([("/data".into(), serde_json::Map::new())]),
            ..Config::default()
        };
        let plain = ContainerConfig::new(&image, &Overrides::default(), "box").unwrap();
        assert_eq!(plain.env, bytes(&["PATH=/bin", "HOSTNAME=box", "A=image", "B=image", "odd="]));
        assert_eq!(
            (plain.workdir.as_slice(), plain.user.as_str(), plain.stop_signal),
            (&b"/srv"[..], "app", 10)
        );
        assert_eq!(plain.volumes, bytes(&["/data"]));
        let over = Overrides {
            env: vec![
                (b"A".to_vec(), Some(b"flag".to_vec())),
                (b"B".to_vec(), None),
                (b"HOSTNAME".to_vec(), Some(b"me".to_vec())),
            ],
            workdir: Some(b"/w".to_vec()),
            user: Some("0:0".into()),
            stop_signal: Some("int".into()),
            labels: BTreeMap::from([("l".into(), "flag".into())]),
            terminal: true,
            ..Overrides::default()
        };
        let made = ContainerConfig::new(&image, &over, "box").unwrap();
        assert_eq!(made.env, bytes(&["PATH=/bin", "HOSTNAME=me", "TERM=xterm", "A=flag", "odd="]));
        assert_eq!((made.workdir.as_slice(), made.user.as_str(), made.stop_signal), (&b"/w"[..], "0:0", 2));
        assert_eq!(made.labels["l"], "flag");
        assert_eq!(made.labels["m"], "image");
    }

    #[test]
    fn wrong_values_are_refused() {
        let image = Config { cmd: words(&["x"]), ..Config::default() };
        for over in [
            Overrides { workdir: Some(b"relative".to_vec()), ..Overrides::default() },
            Overrides { stop_signal: Some("SIGNOPE".into()), ..Overrides::default() },
        ] {
            assert!(matches!(ContainerConfig::new(&image, &over, "h"), Err(RunError::Flag { .. })));
        }
    }
}
