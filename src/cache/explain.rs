//! Why a step has to run: the first words of an answer, from the parts of two keys.

use super::key::KeyPart;
use std::collections::BTreeMap;

/// Longest value shown, in characters.
const SHOWN: usize = 60;

/// Compares the parts of an earlier key at the same place with those of now and names what differs, one line each.
pub fn explain(before: &[KeyPart], now: &[KeyPart]) -> Vec<String> {
    let (old, new) = (grouped(before), grouped(now));
    let mut lines = Vec::new();
    for (name, value) in &new {
        match old.get(name) {
            None => lines.push(format!("{name}: new, {}", short(value))),
            Some(was) if was != value => lines.push(format!("{name}: {} → {}", short(was), short(value))),
            Some(_) => {}
        }
    }
    lines.extend(
        old.iter().filter(|(name, _)| !new.contains_key(*name)).map(|(name, _)| format!("{name}: gone")),
    );
    lines
}

fn grouped(parts: &[KeyPart]) -> BTreeMap<&str, Vec<&str>> {
    let mut out: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for part in parts {
        out.entry(&part.name).or_default().push(&part.value);
    }
    out
}

fn short(values: &[&str]) -> String {
    let text = values.join(" ");
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    format!("{:?}…", text.chars().take(SHOWN).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_named() {
        let part = |n: &str, v: &str| KeyPart { name: n.into(), value: v.into() };
        let before = [part("base", "1"), part("env A", "1"), part("arg", "x"), part("arg", "y")];
        let now =
            [part("base", "1"), part("env A", "2"), part("env B", "3"), part("arg", "x"), part("arg", "y")];
        assert_eq!(explain(&before, &now), ["env A: \"1\" → \"2\"", "env B: new, \"3\""]);
        assert_eq!(explain(&now, &before), ["env A: \"2\" → \"1\"", "env B: gone"]);
        assert!(explain(&now, &now).is_empty());
    }
}
