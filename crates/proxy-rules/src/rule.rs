//! A rule: its text, and what it says of requests and about hosts.

use std::fmt;
use std::sync::Arc;

use crate::expression::{Expression, is_known};
use crate::matcher::{HostName, Matcher};
use crate::request::{Request, plain_host};
use crate::syntax::{self, Node};
use crate::{Facts, RuleError, requirement};

/// Which grammar a rule is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Traefik 3: one value per matcher, regular expressions as they are. Ours.
    #[default]
    V3,
    /// Traefik 2: several values per matcher, `{name:regexp}` in hosts and paths, `key=value` in queries.
    V2,
}

/// A rule, parsed and compiled. Two are equal if they ask the same in the same order; clones share what they are made of.
///
/// `Display` writes it in v3, in one canonical way. The little of v2 that v3 cannot say (a query's first value; host names
/// that are none) is written as it was given.
#[derive(Debug, Clone)]
pub struct Rule {
    text: Arc<str>,
    dialect: Dialect,
    pub(crate) expression: Arc<Expression>,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression
    }
}

impl Eq for Rule {}

impl Rule {
    /// Parses a rule and compiles its regular expressions. Refuses texts of more than 256 KiB, more than 64 parentheses and
    /// `!` within each other, and regular expressions that compile to more than 1 MiB.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, RuleError> {
        let node = syntax::parse(text)?;
        let expression = Expression::build(&node, dialect)?;
        Ok(Self { text: text.into(), dialect, expression: Arc::new(expression) })
    }

    /// Whether a request matches. Allocates nothing unless its path or query is percent-encoded.
    pub fn matches(&self, facts: &impl Facts) -> bool {
        self.expression.is_match(&Request::new(facts))
    }

    /// The literal host names (no wildcards, no addresses' brackets) that requests may have for it to match: those that
    /// certificates are needed for. Lower case, each once, in the order of the text.
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts = Vec::new();
        literal_hosts(&self.expression, true, &mut hosts);
        hosts
    }

    /// The wildcard names (`*.shop.example`) that requests may come below for it to match, as certificates have them: `*.` is
    /// one label. Lower case, each once, in the order of the text.
    pub fn wildcards(&self) -> Vec<String> {
        let mut parents = Vec::new();
        wildcard_parents(&self.expression, true, &mut parents);
        parents.into_iter().map(|parent| format!("*.{parent}")).collect()
    }

    /// The hosts of which a request must have one for the rule to match it: names and addresses, and patterns (`*.shop.example`
    /// for one label before a name, `**.shop.example` for any number of them). Lower case, each once. `None` if it matches
    /// requests whatever their host, or tells hosts by an expression.
    pub fn demanded_hosts(&self) -> Option<Vec<String>> {
        requirement::named_hosts(&self.expression)
    }

    /// Its text's length in characters: what orders rules without a priority of their own, the longest first. The stars of a
    /// `**.` do not count, so that it comes after the `*.` of the same name.
    pub fn priority(&self) -> i64 {
        let stars = 2 * double_wildcards(&self.expression);
        i64::try_from(self.text.chars().count().saturating_sub(stars)).unwrap_or(i64::MAX)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What [`Rule::text`] is written in.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The canonical text in v3; `None` if v3 cannot say it.
    pub fn in_v3(&self) -> Option<String> {
        let mut text = String::new();
        self.expression.write_v3(&mut text).then_some(text)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.in_v3() {
            Some(text) => f.write_str(&text),
            None => f.write_str(self.text.trim()),
        }
    }
}

fn literal_hosts(expression: &Expression, positive: bool, into: &mut Vec<String>) {
    match expression {
        Expression::All(parts) | Expression::Any(parts) => {
            parts.iter().for_each(|part| literal_hosts(part, positive, into));
        }
        Expression::Not(part) => literal_hosts(part, !positive, into),
        Expression::Is(Matcher::Host(HostName::Exact(name))) if positive && !into.contains(name) => into.push(name.clone()),
        Expression::Is(_) => {}
    }
}

fn wildcard_parents<'a>(expression: &'a Expression, positive: bool, into: &mut Vec<&'a str>) {
    match expression {
        Expression::All(parts) | Expression::Any(parts) => {
            parts.iter().for_each(|part| wildcard_parents(part, positive, into));
        }
        Expression::Not(part) => wildcard_parents(part, !positive, into),
        Expression::Is(Matcher::Host(HostName::OneBelow(parent))) if positive && !into.contains(&parent.as_str()) => {
            into.push(parent);
        }
        Expression::Is(_) => {}
    }
}

fn double_wildcards(expression: &Expression) -> usize {
    match expression {
        Expression::All(parts) | Expression::Any(parts) => parts.iter().map(double_wildcards).sum(),
        Expression::Not(part) => double_wildcards(part),
        Expression::Is(Matcher::Host(HostName::AnyBelow(_))) => 1,
        Expression::Is(_) => 0,
    }
}

/// The names in the `Host(…)` of a text that need not be a whole rule of either dialect: names of matchers are checked, what
/// they are given is not. Lower case, in the order of the text; none of those under a `!`.
pub fn domains(text: &str) -> Result<Vec<String>, RuleError> {
    let mut names = Vec::new();
    named_hosts(&syntax::parse(text)?, true, &mut names)?;
    Ok(names)
}

fn named_hosts(node: &Node, positive: bool, into: &mut Vec<String>) -> Result<(), RuleError> {
    match node {
        Node::All(nodes) | Node::Any(nodes) => nodes.iter().try_for_each(|node| named_hosts(node, positive, into)),
        Node::Not(node) => named_hosts(node, !positive, into),
        Node::Call(call) if !is_known(&call.name) => {
            Err(RuleError::new(call.offset, format!("no matcher is called {}", call.name)))
        }
        Node::Call(call) => {
            if positive && call.name.eq_ignore_ascii_case("Host") {
                into.extend(call.arguments.iter().map(|argument| plain_host(&argument.value).to_ascii_lowercase()));
            }
            Ok(())
        }
    }
}
