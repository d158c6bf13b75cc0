//! What is linked into rbuild, and what unsafe code is its own: `cargo deny check` with deny.toml says more (it knows
//! advisories, and texts of licences); this runs wherever the tests run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(checkout().join(path)).expect("a text of the checkout")
}

/// A package that a build takes: name, version, licence, and what else cargo says of it.
type Package = (String, String, String, String);

/// Every package that a build for Linux with our features takes, without those of tests alone.
fn packages() -> BTreeSet<Package> {
    let told = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--target=x86_64-unknown-linux-gnu", "--edges=normal,build"])
        .args(["--prefix=none", "--no-dedupe", "--format={p}|{l}"])
        .current_dir(checkout())
        .output()
        .expect("cargo runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told = String::from_utf8(told.stdout).expect("UTF-8");
    let package = |line: &str| {
        let (package, licence) = line.split_once('|').expect("two parts");
        let mut words = package.splitn(3, ' ').map(str::to_owned);
        let mut next = || words.next().unwrap_or_default();
        (next(), next().trim_start_matches('v').to_owned(), licence.to_owned(), next())
    };
    told.lines().map(package).collect()
}

/// The texts in quotes of one list in deny.toml.
fn listed(name: &str) -> Vec<String> {
    let file = read("deny.toml");
    let (_, rest) = file.split_once(&format!("\n{name} = [")).expect("the list");
    let (list, _) = rest.split_once("\n]").expect("its end");
    let code = list.lines().filter(|line| !line.trim_start().starts_with('#'));
    code.filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect()
}

/// Says whether an SPDX expression can be satisfied with what is allowed: `AND` binds closer than `OR`, and crates of
/// old write `/` for `OR`.
fn satisfied(expression: &str, allowed: &[String]) -> bool {
    let text = expression.replace('/', " OR ");
    if let (Some(open), Some(close)) = (text.find('('), text.find(')')) {
        let inner = if satisfied(&text[open + 1..close], allowed) { &allowed[0] } else { "none" };
        return satisfied(&format!("{}{inner}{}", &text[..open], &text[close + 1..]), allowed);
    }
    let known = |licence: &str| allowed.iter().any(|a| a == licence.trim());
    text.split(" OR ").any(|part| part.split(" AND ").all(known))
}

#[test]
fn expressions_of_licences_are_understood() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    for (text, want) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT/Apache-2.0", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("(GPL-3.0 OR X) AND ISC", false),
    ] {
        assert_eq!(satisfied(text, &allowed), want, "{text}");
    }
}

#[test]
fn licences_and_sources_are_allowed_and_nothing_comes_twice() {
    let (allowed, twice) = (listed("allow"), listed("skip"));
    let mut names = BTreeMap::new();
    for (name, version, licence, more) in packages() {
        assert!(satisfied(&licence, &allowed), "{name} {version} has the licence {licence:?}, see deny.toml");
        let known = name == "rbuild" || more.is_empty() || more == "(proc-macro)";
        assert!(known, "{name} {version} comes from {more}, not from the registry");
        let skipped = twice.iter().any(|skip| {
            let (crate_name, series) = skip.split_once('@').expect("name@series");
            name == crate_name && format!("{version}.").starts_with(&format!("{series}."))
        });
        let before = if skipped { None } else { names.insert(name.clone(), version.clone()) };
        assert_eq!(before, None, "{name} {version} comes twice, see deny.toml");
    }
    assert!(names.len() > 100, "{} packages were looked at", names.len());
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn each_unsafe_block_has_its_place_its_reason_and_its_line_in_the_inventory() {
    let mut files = Vec::new();
    sources(&checkout().join("src"), &mut files);
    let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a source");
        let lines: Vec<&str> = text.lines().collect();
        let mut function = "";
        for (at, line) in lines.iter().enumerate() {
            if let Some((_, rest)) = line
                .split_once("fn ")
                .filter(|(before, _)| before.trim_start().is_empty() || before.starts_with("pub"))
            {
                function = rest.split(['(', '<']).next().unwrap_or_default();
            }
            let code = line.split("//").next().unwrap_or_default();
            if !code.contains("unsafe {") && !code.contains("unsafe fn") && !code.contains("unsafe impl") {
                continue;
            }
            assert!(path.starts_with(checkout().join("src/sys")), "unsafe code in {}", path.display());
            let above = &lines[at.saturating_sub(4)..at];
            assert!(
                above.iter().any(|line| line.contains("// SAFETY: ")),
                "{}:{} gives no reason",
                path.display(),
                at + 1
            );
            let file = path.file_name().expect("a name").to_string_lossy().into_owned();
            *found.entry((file, function.to_owned())).or_default() += 1;
        }
    }
    let inventory = read("docs/unsafe.md");
    let listed: BTreeMap<(String, String), usize> = inventory
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let names: Vec<&str> = line.split('`').collect();
            let count = line.split('|').nth(2).expect("a count").trim().parse().expect("a number");
            ((names[1].to_owned(), names[3].to_owned()), count)
        })
        .collect();
    assert_eq!(found, listed, "docs/unsafe.md lists what there is");
}
