//! What expressions in templates come to.

use std::collections::BTreeMap;
use std::fmt;

use super::TemplateError;

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Value {
    #[default]
    Nothing,
    Text(String),
    Number(i64),
    Bool(bool),
    List(Vec<Self>),
    /// Labels: what is not there is nothing.
    Map(BTreeMap<String, Self>),
    /// What a template is about: what is not there is a mistake.
    Fields(BTreeMap<String, Self>),
}

impl Value {
    /// As Go's templates have it: neither nothing nor empty nor zero.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Text(text) => !text.is_empty(),
            Self::Number(number) => *number != 0,
            Self::Bool(value) => *value,
            Self::List(values) => !values.is_empty(),
            Self::Map(entries) => !entries.is_empty(),
            Self::Fields(_) => true,
        }
    }

    pub(crate) fn text(self, function: &str) -> Result<String, TemplateError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Nothing => Ok(String::new()),
            Self::Number(number) => Ok(number.to_string()),
            Self::Bool(value) => Ok(value.to_string()),
            _ => Err(TemplateError::new(format!("{function} takes a text"))),
        }
    }

    pub(crate) fn number(self, function: &str) -> Result<i64, TemplateError> {
        match &self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
        .ok_or_else(|| TemplateError::new(format!("{function} takes a number")))
    }

    pub(crate) fn list(self, function: &str) -> Result<Vec<Self>, TemplateError> {
        match self {
            Self::List(values) => Ok(values),
            _ => Err(TemplateError::new(format!("{function} takes a list"))),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A label that is not there is an empty text in Go, since labels are texts.
            Self::Nothing => Ok(()),
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::List(values) => {
                let words: Vec<String> = values.iter().map(Self::to_string).collect();
                write!(f, "[{}]", words.join(" "))
            }
            Self::Map(entries) | Self::Fields(entries) => {
                let words: Vec<String> = entries.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                write!(f, "map[{}]", words.join(" "))
            }
        }
    }
}
