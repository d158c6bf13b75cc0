//! Paths inside an image, joined and cleaned as text.
//!
//! Nothing here looks at a file system: links are resolved when the op runs, in the root that it runs on.

/// Makes a path absolute and clean: no empty, `.` or `..` part, no trailing slash. `..` stops at the root.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Joins a path to the working directory and cleans it.
pub(super) fn join(cwd: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("{cwd}/{path}")) }
}

/// Gives the working directory as it is stored in the config: a relative path is joined and cleaned, an absolute
/// one stays as it was written (BuildKit keeps `/app/` so).
pub(super) fn working_dir(cwd: &str, path: &str) -> String {
    match path {
        "" => clean(cwd),
        path if path.starts_with('/') => path.to_owned(),
        path => join(cwd, path),
    }
}

/// Gives the destination of a COPY or ADD: absolute and clean, with a trailing slash where the text says that it is
/// a directory (`x/`, `x/.`, `.` or nothing at all).
pub(super) fn destination(cwd: &str, path: &str) -> String {
    let is_dir = path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/.");
    let joined = join(cwd, path);
    if is_dir && joined != "/" { joined + "/" } else { joined }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_and_cleaned() {
        for (cwd, path, want) in [
            ("/", "a", "/a"),
            ("/a/b", "../c/./d//e/", "/a/c/d/e"),
            ("/a", "/b/..", "/"),
            ("/a", "../../..", "/"),
            ("/a", "", "/a"),
            ("/a", "..x/...", "/a/..x/..."),
        ] {
            assert_eq!(join(cwd, path), want, "{cwd} {path}");
        }
    }

    #[test]
    fn destinations_keep_their_slash() {
        for (cwd, path, want) in [
            ("/w", "f", "/w/f"),
            ("/w", "f/", "/w/f/"),
            ("/w", ".", "/w/"),
            ("/w", "./", "/w/"),
            ("/w", "", "/w/"),
            ("/", ".", "/"),
            ("/w", "/", "/"),
            ("/w", "/d/.", "/d/"),
            ("/w", "..", "/"),
            ("/w/x", "../y/", "/w/y/"),
        ] {
            assert_eq!(destination(cwd, path), want, "{cwd} {path}");
        }
    }

    #[test]
    fn absolute_working_dirs_stay_as_written() {
        for (cwd, path, want) in
            [("/", "rel", "/rel"), ("/rel", "/app/", "/app/"), ("/x//y/", "z/..", "/x/y"), ("/x/", "", "/x")]
        {
            assert_eq!(working_dir(cwd, path), want, "{cwd} {path}");
        }
    }
}
