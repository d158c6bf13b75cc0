//! Environments: names and values in the order in which they were first set.
//!
//! A list and not a map, because the order reaches the image config and the process, and because a stage has few
//! variables.

/// Variables in order; a name is there once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Env(Vec<(String, String)>);

impl Env {
    /// Gives the value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Sets a variable; one that exists keeps its place.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Gives the names in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Gives all variables in order.
    pub(super) fn to_vec(&self) -> Vec<(String, String)> {
        self.0.clone()
    }
}

/// Cuts `NAME=value` of an image config; without `=` the value is empty.
pub(super) fn split_pair(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

/// Sets a variable in the `NAME=value` list of an image config, in place if it is there.
pub(super) fn set_in_config(env: &mut Vec<String>, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    match env.iter_mut().find(|old| split_pair(old).0 == name) {
        Some(old) => *old = pair,
        None => env.push(pair),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_again_keeps_the_place() {
        let mut env = Env::default();
        env.set("A", "1");
        env.set("B", "2");
        env.set("A", "3");
        assert_eq!(env.to_vec(), [("A".into(), "3".into()), ("B".into(), "2".into())]);
        assert_eq!((env.get("B"), env.get("C")), (Some("2"), None));

        let mut list = vec!["A=1".to_owned(), "BARE".to_owned(), "AB=2".to_owned()];
        set_in_config(&mut list, "BARE", "x=y");
        set_in_config(&mut list, "AB", "");
        set_in_config(&mut list, "N", "n");
        assert_eq!(list, ["A=1", "BARE=x=y", "AB=", "N=n"]);
    }
}
