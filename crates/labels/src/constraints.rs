//! Constraints on labels: ``Label(`tier`, `web`) && !LabelRegex(`env`, `^dev`)``, as Traefik's Docker provider has them.

use std::collections::BTreeMap;
use std::str::FromStr;

use regex::Regex;

/// How deep parentheses and `!` may be within each other.
const DEEPEST: usize = 64;

/// An expression that labels match or not.
#[derive(Debug, Clone)]
pub struct Constraints(Expression);

/// Why an expression is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at byte {offset})")]
pub struct ConstraintsError {
    /// Where in the text, in bytes from its start.
    pub offset: usize,
    /// What is wrong there.
    pub message: String,
}

#[derive(Debug, Clone)]
enum Expression {
    All(Box<Self>, Box<Self>),
    Any(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Label(String, String),
    LabelRegex(String, Regex),
}

impl Constraints {
    /// Whether labels match. A label that is not there is empty.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.matches(labels)
    }
}

impl Expression {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = |name: &String| labels.get(name).map_or("", String::as_str);
        match self {
            Self::All(left, right) => left.matches(labels) && right.matches(labels),
            Self::Any(left, right) => left.matches(labels) || right.matches(labels),
            Self::Not(inner) => !inner.matches(labels),
            Self::Label(name, expected) => value(name) == expected,
            Self::LabelRegex(name, expression) => expression.is_match(value(name)),
        }
    }
}

impl FromStr for Constraints {
    type Err = ConstraintsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut reader = Reader { text, at: 0, depth: 0 };
        let expression = reader.any()?;
        reader.spaces();
        match reader.rest() {
            "" => Ok(Self(expression)),
            _ => Err(reader.wrong("nothing more is expected here; `&&` and `||` join two expressions")),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn takes(&mut self, token: &str) -> bool {
        self.spaces();
        let there = self.rest().starts_with(token);
        if there {
            self.at += token.len();
        }
        there
    }

    fn expects(&mut self, token: &str) -> Result<(), ConstraintsError> {
        if self.takes(token) { Ok(()) } else { Err(self.wrong(format!("`{token}` is expected here"))) }
    }

    fn wrong(&self, message: impl Into<String>) -> ConstraintsError {
        ConstraintsError { offset: self.at, message: message.into() }
    }

    fn any(&mut self) -> Result<Expression, ConstraintsError> {
        let mut left = self.all()?;
        while self.takes("||") {
            left = Expression::Any(Box::new(left), Box::new(self.all()?));
        }
        Ok(left)
    }

    fn all(&mut self) -> Result<Expression, ConstraintsError> {
        let mut left = self.one()?;
        while self.takes("&&") {
            left = Expression::All(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Expression, ConstraintsError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.wrong("too many parentheses within each other"));
        }
        let one = if self.takes("!") {
            Expression::Not(Box::new(self.one()?))
        } else if self.takes("(") {
            let inner = self.any()?;
            self.expects(")")?;
            inner
        } else {
            self.function()?
        };
        self.depth -= 1;
        Ok(one)
    }

    fn function(&mut self) -> Result<Expression, ConstraintsError> {
        self.spaces();
        let start = self.at;
        let name: String = self.rest().chars().take_while(char::is_ascii_alphanumeric).collect();
        self.at += name.len();
        let known = ["Label", "LabelRegex"].iter().find(|known| known.eq_ignore_ascii_case(&name));
        let Some(known) = known else {
            self.at = start;
            return Err(self.wrong("`Label(name, value)` or `LabelRegex(name, expression)` is expected here"));
        };
        self.expects("(")?;
        let label = self.string()?;
        self.expects(",")?;
        self.spaces();
        let value_at = self.at;
        let value = self.string()?;
        self.expects(")")?;
        if *known == "Label" {
            return Ok(Expression::Label(label, value));
        }
        let expression = Regex::new(&value);
        let refused = |_| ConstraintsError { offset: value_at, message: format!("{value:?} is no regular expression") };
        Ok(Expression::LabelRegex(label, expression.map_err(refused)?))
    }

    fn string(&mut self) -> Result<String, ConstraintsError> {
        self.spaces();
        let quote = self.rest().chars().next().filter(|quote| matches!(quote, '`' | '"' | '\''));
        let Some(quote) = quote else { return Err(self.wrong("a text in `backticks` or \"quotes\" is expected here")) };
        let inner = &self.rest()[1..];
        let Some(length) = inner.find(quote) else { return Err(self.wrong("the quotes are not closed")) };
        let text = inner[..length].to_owned();
        self.at += length + 2;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str) -> bool {
        let labels = [("tier", "web"), ("env", "development")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        text.parse::<Constraints>().unwrap().matches(&labels.into())
    }

    #[test]
    fn labels_are_compared_and_matched() {
        assert!(holds("Label(`tier`, `web`)"));
        assert!(holds("Label(\"tier\",\"web\") && LabelRegex(`env`, `^dev`)"));
        assert!(!holds("Label(`tier`, `db`) || !Label(`nothing`, ``)"));
        assert!(holds("!(Label(`tier`, `db`) || Label(`env`, `test`)) && Label(`tier`, `web`)"));
        // `&&` binds more tightly.
        assert!(holds("Label(`tier`, `web`) || Label(`tier`, `db`) && Label(`tier`, `x`)"));
    }

    #[test]
    fn what_is_no_expression_is_refused_where_it_is_none() {
        for (text, offset) in [
            ("", 0),
            ("Labels(`a`,`b`)", 0),
            ("Label(`a`)", 9),
            ("Label(a, b)", 6),
            ("Label(`a`,`b`) Label(`a`,`b`)", 15),
            ("Label(`a`,`b", 10),
            ("LabelRegex(`a`, `(`)", 16),
            ("(Label(`a`,`b`)", 15),
        ] {
            let error = text.parse::<Constraints>().unwrap_err();
            assert_eq!(error.offset, offset, "{text}: {error}");
        }
        assert!("!".repeat(100_000).parse::<Constraints>().is_err());
    }
}
