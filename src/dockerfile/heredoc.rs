//! Heredocs: finding the `<<NAME` markers of a line and reading the bodies below it.
//!
//! A marker is a word of the whole logical line as the expander splits it (so one inside quotes is none), and its
//! name is that word unquoted. The terminator is therefore not a slice of the file which pest's stack could hold:
//! pest reads the marker, and the bodies, which are plain lines up to the one that is the name, are cut here.
//! The escape character of markers is always `\`, whatever the directive says.

use super::ast::Heredoc;
use super::diagnostic::Diagnostic;
use super::grammar::{Rule, matched};
use super::span::{Span, Text};
use super::word::{Lexer, WordError};

/// Finds the markers of a logical line, in order; their bodies are still empty. A line that cannot be split into
/// words has none.
pub(super) fn markers(line: &Text) -> Result<Vec<Heredoc>, Diagnostic> {
    if !line.as_str().contains("<<") {
        return Ok(Vec::new());
    }
    let words = Lexer::for_marker(true, true).words_at(line.as_str(), &()).unwrap_or_default();
    let found = words.into_iter().filter_map(|(word, range)| {
        let place = line.span_of(range);
        match marker(&word, place) {
            Ok(found) => found.map(Ok),
            Err(error) => Some(Err(error.at(&Text::plain(word, place.start)).at(place))),
        }
    });
    found.collect()
}

/// Reads a word as a marker, if it is one.
pub(super) fn marker(word: &str, span: Span) -> Result<Option<Heredoc>, WordError> {
    if !word.contains("<<") {
        return Ok(None);
    }
    let Some(node) = matched(Rule::heredoc, word) else { return Ok(None) };
    let mut parts = node.into_inner().map(|part| part.as_str());
    let (fd, chomp, written) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let names = Lexer::for_marker(false, false).words(written, &())?;
    let [name] = names.as_slice() else { return Ok(None) };
    let quoted = Lexer::for_marker(true, false).words(written, &())?;
    let quotes = |words: &[String]| words.iter().flat_map(|word| word.matches(['\'', '"'])).count();
    Ok(Some(Heredoc {
        name: name.clone(),
        span,
        fd: fd.unwrap_or_default().parse().unwrap_or(0),
        expand: quotes(&names) == quotes(&quoted),
        chomp: chomp == Some("-"),
        content: Text::plain("", span.end),
    }))
}

/// Reads the body of a heredoc, which begins at `at`. Gives where the terminator's text and its line end.
pub(super) fn read_body(
    heredoc: &mut Heredoc,
    source: &str,
    at: usize,
) -> Result<(usize, usize), Diagnostic> {
    let mut line_start = at;
    for line in source[at..].split_inclusive('\n') {
        let bare = line.trim_end_matches(['\r', '\n']);
        let candidate = if heredoc.chomp { bare.trim_start_matches('\t') } else { bare };
        if candidate == heredoc.name {
            heredoc.content = Text::plain(&source[at..line_start], at);
            return Ok((line_start + bare.len(), line_start + line.len()));
        }
        line_start += line.len();
    }
    Err(unterminated(heredoc, source, at))
}

fn unterminated(heredoc: &Heredoc, source: &str, at: usize) -> Diagnostic {
    let help = format!("end it with a line that is exactly `{}`", heredoc.name);
    let error = Diagnostic::new("rbuild::unterminated_heredoc", "unterminated heredoc")
        .label(heredoc.span, "opened here")
        .help(&help);
    let near = source[at..].lines().scan(at, |start, line| {
        let here = *start;
        *start += line.len() + 1;
        Some((here, line))
    });
    match near.into_iter().find(|(_, line)| line.trim() == heredoc.name) {
        Some((start, line)) => {
            let error = error
                .label(Span::new(start, start + line.len()), "white space keeps this line from ending it");
            match !heredoc.chomp && line.starts_with('\t') {
                true => error.help(format!("{help}, or open it with `<<-` to allow tabs before it")),
                false => error,
            }
        }
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_markers() {
        type Found = (&'static str, u64, bool, bool);
        let cases: &[(&str, &[Found])] = &[
            ("RUN <<EOF", &[("EOF", 0, true, false)]),
            ("RUN <<-EOF cat", &[("EOF", 0, true, true)]),
            ("RUN 3<<EOF", &[("EOF", 3, true, false)]),
            ("RUN <<'EOF'", &[("EOF", 0, false, false)]),
            ("RUN <<\"E O F\"", &[("E O F", 0, false, false)]),
            ("RUN <<E\"O\"F", &[("EOF", 0, false, false)]),
            ("RUN <<\\EOF", &[("EOF", 0, true, false)]),
            ("RUN << EOF", &[("EOF", 0, true, false)]),
            ("RUN <<A cat >a && <<B cat >b", &[("A", 0, true, false), ("B", 0, true, false)]),
            ("RUN <<$A", &[("$A", 0, true, false)]),
            ("RUN echo '<<EOF'", &[]),
            ("RUN echo \"<<EOF\"", &[]),
            ("RUN echo \\<<EOF", &[]),
            ("RUN cat <<<EOF", &[]),
            ("RUN echo $((1<<2))", &[]),
            ("RUN <<- EOF", &[]),
            ("RUN x<<EOF", &[]),
            ("RUN it's <<EOF", &[]),
            ("RUN <<''", &[]),
            ("RUN <<", &[]),
        ];
        for (line, expected) in cases {
            let found = markers(&Text::plain(*line, 0)).expect("no error");
            let found: Vec<_> = found.iter().map(|h| (h.name.as_str(), h.fd, h.expand, h.chomp)).collect();
            assert_eq!(found, *expected, "{line}");
        }
    }

    #[test]
    fn markers_know_their_place() {
        let found = markers(&Text::plain("RUN cat 3<<-'E F' >x", 100)).expect("no error");
        assert_eq!(found[0].span, Span::new(108, 117));
    }

    #[test]
    fn bodies_end_at_the_name_alone() {
        let body = |marker_text: &str, source: &str| {
            let mut heredoc = marker(marker_text, Span::new(0, 0)).expect("no error").expect("a marker");
            read_body(&mut heredoc, source, 0).map(|(_, next)| (heredoc.content.to_string(), next)).ok()
        };
        assert_eq!(body("<<E", "a\nE \n E\nEE\nE\nx"), Some(("a\nE \n E\nEE\n".into(), 13)));
        assert_eq!(body("<<-E", "\ta\n\t\tE\n"), Some(("\ta\n".into(), 7)));
        assert_eq!(body("<<E", "a\r\nE\r\n"), Some(("a\r\n".into(), 6)));
        assert_eq!(body("<<E", "a\nE"), Some(("a\n".into(), 3)));
        assert_eq!(body("<<E", "a\n"), None);
        assert_eq!(body("<<E", ""), None);
    }
}
