//! The pest parser made from `grammar/dockerfile.pest`, and the few calls that hide its calling conventions.

use pest::Parser;
use pest::iterators::{Pair, Pairs};

use super::span::Text;

#[derive(pest_derive::Parser)]
#[grammar = "../grammar/dockerfile.pest"]
struct Grammar;

pub(super) type Node<'i> = Pair<'i, Rule>;

/// The character that escapes and continues lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Escape {
    #[default]
    Backslash,
    Backtick,
}

impl Escape {
    pub(super) fn char(self) -> char {
        match self {
            Escape::Backslash => '\\',
            Escape::Backtick => '`',
        }
    }

    /// Chooses from a pair of rules: the one that reads with a backslash, the other with a backtick.
    pub(super) fn choose(self, one: Rule, other: Rule) -> Rule {
        match self {
            Escape::Backslash => one,
            Escape::Backtick => other,
        }
    }
}

/// Matches `rule` at the start of `input`; the match need not reach the end. Gives the node of the rule.
pub(super) fn matched(rule: Rule, input: &str) -> Option<Node<'_>> {
    Grammar::parse(rule, input).ok()?.next()
}

/// Matches a rule that accepts every text, as the comment in the grammar promises. Gives the nodes in it.
pub(super) fn within(rule: Rule, input: &str) -> Pairs<'_, Rule> {
    matched(rule, input).expect("the rule accepts every text").into_inner()
}

/// Gives the text of a node of `text`, with its places.
pub(super) fn text_of(text: &Text, node: &Node<'_>) -> Text {
    let span = node.as_span();
    text.slice(span.start()..span.end())
}
