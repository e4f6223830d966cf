//! Functions of templates: Go's own, the common ones of sprig with their order of operands, and Traefik's `normalize`.

use regex::Regex;

use super::TemplateError;
use super::value::Value;
use crate::container::normalize;

const KNOWN: &[&str] = &[
    "add",
    "and",
    "camelcase",
    "cat",
    "coalesce",
    "contains",
    "default",
    "empty",
    "eq",
    "first",
    "ge",
    "gt",
    "hasPrefix",
    "hasSuffix",
    "html",
    "index",
    "int",
    "join",
    "kebabcase",
    "last",
    "le",
    "len",
    "list",
    "lower",
    "lt",
    "ne",
    "normalize",
    "nospace",
    "not",
    "or",
    "print",
    "printf",
    "println",
    "quote",
    "regexMatch",
    "regexReplaceAll",
    "repeat",
    "replace",
    "snakecase",
    "split",
    "splitList",
    "squote",
    "sub",
    "substr",
    "ternary",
    "title",
    "toString",
    "trim",
    "trimAll",
    "trimPrefix",
    "trimSuffix",
    "trunc",
    "untitle",
    "upper",
];

/// The most characters that `repeat` makes.
const LONGEST: usize = 4096;

pub(crate) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// Calls a function.
pub(crate) fn call(name: &str, operands: Vec<Value>) -> Result<Value, TemplateError> {
    let many = operands.len();
    let wrong = || TemplateError::new(format!("{name} cannot take {many} operands"));
    let mut given = Operands { function: name, rest: operands.into_iter() };
    let result = match name {
        "index" => index(&mut given)?,
        "default" => {
            let (usual, value) = (given.value()?, given.value().unwrap_or_default());
            if value.is_true() { value } else { usual }
        }
        "coalesce" => given.all().into_iter().find(Value::is_true).unwrap_or_default(),
        "empty" => Value::Bool(!given.value()?.is_true()),
        "not" => Value::Bool(!given.value()?.is_true()),
        "and" => first_or_last(given.all(), |value| !value.is_true()).ok_or_else(wrong)?,
        "or" => first_or_last(given.all(), Value::is_true).ok_or_else(wrong)?,
        "ternary" => {
            let (yes, no, condition) = (given.value()?, given.value()?, given.value()?);
            if condition.is_true() { yes } else { no }
        }
        "eq" => {
            let first = given.value()?;
            Value::Bool(given.all().contains(&first))
        }
        "ne" => Value::Bool(given.value()? != given.value()?),
        "lt" | "le" | "gt" | "ge" => compare(name, &given.value()?, &given.value()?)?,
        "len" => Value::Number(length(given.value()?)?),
        "list" => Value::List(given.all()),
        "first" => given.list()?.into_iter().next().unwrap_or_default(),
        "last" => given.list()?.into_iter().next_back().unwrap_or_default(),
        "join" => join(&mut given)?,
        "add" => given
            .all()
            .into_iter()
            .try_fold(0_i64, |sum, value| value.number(name).map(|n| sum.wrapping_add(n)))
            .map(Value::Number)?,
        "sub" => Value::Number(given.number()?.wrapping_sub(given.number()?)),
        "int" => Value::Number(given.value()?.number(name).unwrap_or(0)),
        "contains" | "hasPrefix" | "hasSuffix" | "regexMatch" => Value::Bool(asks(name, &mut given)?),
        "split" | "splitList" => {
            let (separator, text) = (given.text()?, given.text()?);
            Value::List(text.split(&separator).map(|part| Value::Text(part.to_owned())).collect())
        }
        "print" | "println" | "cat" | "printf" => Value::Text(printed(name, &mut given)?),
        _ => Value::Text(text_of(name, &mut given)?),
    };
    if given.rest.next().is_some() { Err(wrong()) } else { Ok(result) }
}

/// The operands of a call, from the first.
struct Operands<'a> {
    function: &'a str,
    rest: std::vec::IntoIter<Value>,
}

impl Operands<'_> {
    fn value(&mut self) -> Result<Value, TemplateError> {
        self.rest.next().ok_or_else(|| TemplateError::new(format!("{} takes more operands", self.function)))
    }

    fn text(&mut self) -> Result<String, TemplateError> {
        self.value()?.text(self.function)
    }

    fn number(&mut self) -> Result<i64, TemplateError> {
        self.value()?.number(self.function)
    }

    fn list(&mut self) -> Result<Vec<Value>, TemplateError> {
        self.value()?.list(self.function)
    }

    fn all(&mut self) -> Vec<Value> {
        self.rest.by_ref().collect()
    }

    fn regex(&mut self) -> Result<Regex, TemplateError> {
        let text = self.text()?;
        Regex::new(&text).map_err(|_| TemplateError::new(format!("{text:?} is no regular expression")))
    }
}

fn first_or_last(mut values: Vec<Value>, is_it: impl Fn(&Value) -> bool) -> Option<Value> {
    let at = values.iter().position(is_it).or_else(|| values.len().checked_sub(1))?;
    Some(values.swap_remove(at))
}

fn index(given: &mut Operands<'_>) -> Result<Value, TemplateError> {
    let start = given.value()?;
    given.all().into_iter().try_fold(start, |value, key| match value {
        Value::Map(mut entries) => Ok(entries.remove(&key.text("index")?).unwrap_or_default()),
        Value::List(mut values) => {
            let at = usize::try_from(key.number("index")?).ok().filter(|at| *at < values.len());
            at.map(|at| values.swap_remove(at)).ok_or_else(|| TemplateError::new("index: there are fewer elements"))
        }
        _ => Err(TemplateError::new("index takes labels or a list")),
    })
}

fn compare(name: &str, left: &Value, right: &Value) -> Result<Value, TemplateError> {
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.cmp(right),
        (Value::Text(left), Value::Text(right)) => left.cmp(right),
        _ => return Err(TemplateError::new(format!("{name} compares two numbers or two texts"))),
    };
    Ok(Value::Bool(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    }))
}

fn length(value: Value) -> Result<i64, TemplateError> {
    let length = match &value {
        Value::Text(text) => text.len(),
        Value::List(values) => values.len(),
        Value::Map(entries) => entries.len(),
        _ => return Err(TemplateError::new("len takes a text, a list or labels")),
    };
    Ok(i64::try_from(length).unwrap_or(i64::MAX))
}

fn join(given: &mut Operands<'_>) -> Result<Value, TemplateError> {
    let (separator, values) = (given.text()?, given.list()?);
    Ok(Value::Text(values.iter().map(Value::to_string).collect::<Vec<_>>().join(&separator)))
}

fn asks(name: &str, given: &mut Operands<'_>) -> Result<bool, TemplateError> {
    if name == "regexMatch" {
        return Ok(given.regex()?.is_match(&given.text()?));
    }
    let (part, text) = (given.text()?, given.text()?);
    Ok(match name {
        "contains" => text.contains(&part),
        "hasPrefix" => text.starts_with(&part),
        _ => text.ends_with(&part),
    })
}

/// What functions make that write their operands down.
fn printed(name: &str, given: &mut Operands<'_>) -> Result<String, TemplateError> {
    if name == "printf" {
        return formatted(given);
    }
    let words: Vec<String> = given.all().iter().map(Value::to_string).collect();
    Ok(match name {
        "print" => words.concat(),
        "cat" => words.join(" "),
        _ => words.join(" ") + "\n",
    })
}

/// `printf` with `%s`, `%v`, `%d`, `%q` and `%%`.
fn formatted(given: &mut Operands<'_>) -> Result<String, TemplateError> {
    let format = given.text()?;
    let (mut text, mut letters) = (String::new(), format.chars());
    while let Some(letter) = letters.next() {
        match (letter, if letter == '%' { letters.next() } else { None }) {
            ('%', Some('%')) => text.push('%'),
            ('%', Some('s' | 'v')) => text.push_str(&given.value()?.to_string()),
            ('%', Some('d')) => text.push_str(&given.number()?.to_string()),
            ('%', Some('q')) => text.push_str(&format!("{:?}", given.text()?)),
            ('%', other) => return Err(TemplateError::new(format!("printf does not know %{}", other.unwrap_or(' ')))),
            (letter, _) => text.push(letter),
        }
    }
    Ok(text)
}

/// What functions make that change a text, which is their last operand.
fn text_of(name: &str, given: &mut Operands<'_>) -> Result<String, TemplateError> {
    let text = match name {
        "trimPrefix" | "trimSuffix" | "trimAll" => {
            let (part, text) = (given.text()?, given.text()?);
            match name {
                "trimPrefix" => text.strip_prefix(&part).unwrap_or(&text).to_owned(),
                "trimSuffix" => text.strip_suffix(&part).unwrap_or(&text).to_owned(),
                _ => text.trim_matches(|letter| part.contains(letter)).to_owned(),
            }
        }
        "replace" => {
            let (old, new, text) = (given.text()?, given.text()?, given.text()?);
            text.replace(&old, &new)
        }
        "regexReplaceAll" => {
            let (expression, text, replacement) = (given.regex()?, given.text()?, given.text()?);
            expression.replace_all(&text, replacement.as_str()).into_owned()
        }
        "trunc" => {
            let (count, text) = (given.number()?, given.text()?);
            let (length, kept) = (text.chars().count(), usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX));
            match count < 0 {
                true => text.chars().skip(length.saturating_sub(kept)).collect(),
                false => text.chars().take(kept).collect(),
            }
        }
        "substr" => {
            let (from, to, text) = (given.number()?, given.number()?, given.text()?);
            let from = usize::try_from(from).unwrap_or(0);
            let count = usize::try_from(to).map_or(usize::MAX, |to| to.saturating_sub(from));
            text.chars().skip(from).take(count).collect()
        }
        "repeat" => {
            let (count, text) = (usize::try_from(given.number()?).unwrap_or(0), given.text()?);
            if count.saturating_mul(text.len()) > LONGEST {
                return Err(TemplateError::new("repeat: the text becomes too long"));
            }
            text.repeat(count)
        }
        _ => changed(name, given.text()?),
    };
    Ok(text)
}

fn changed(name: &str, text: String) -> String {
    let words = || text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    match name {
        "normalize" => normalize(&text),
        "lower" => text.to_lowercase(),
        "upper" => text.to_uppercase(),
        "trim" => text.trim().to_owned(),
        "nospace" => text.chars().filter(|letter| !letter.is_whitespace()).collect(),
        "quote" => format!("{text:?}"),
        "squote" => format!("'{text}'"),
        "title" => text.split(' ').map(|word| capital(word, char::to_ascii_uppercase)).collect::<Vec<_>>().join(" "),
        "untitle" => text.split(' ').map(|word| capital(word, char::to_ascii_lowercase)).collect::<Vec<_>>().join(" "),
        "kebabcase" => words().map(str::to_lowercase).collect::<Vec<_>>().join("-"),
        "snakecase" => words().map(str::to_lowercase).collect::<Vec<_>>().join("_"),
        "camelcase" => words().map(|word| capital(word, char::to_ascii_uppercase)).collect(),
        // `toString`, and `html`: a rule is no page.
        _ => text,
    }
}

fn capital(word: &str, change: impl Fn(&char) -> char) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| std::iter::once(change(&first)).chain(letters).collect())
}
