//! The grammar that both dialects share: calls of matchers, `!`, `&&`, `||` and parentheses. Which matchers there are, and
//! what they take, is not decided here.
//!
//! ```text
//! any  = all { "||" all }
//! all  = not { "&&" not }
//! not  = { "!" } ( "(" any ")" | name "(" [ text { "," text } [ "," ] ] ")" )
//! text = '`' … '`' | '"' … '"'
//! ```

use crate::RuleError;

/// A rule's text may be this long, in bytes. Thousands of host names fit.
pub(crate) const MAX_LENGTH: usize = 256 * 1024;
/// So many parentheses and `!` may stand within each other.
pub(crate) const MAX_DEPTH: usize = 64;

/// A rule as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// `a && b && …`, at least two.
    All(Vec<Node>),
    /// `a || b || …`, at least two.
    Any(Vec<Node>),
    /// `!a`.
    Not(Box<Node>),
    /// ``Name(`text`, …)``.
    Call(Call),
}

/// A matcher and what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) arguments: Vec<Argument>,
    /// Where its closing parenthesis stands.
    pub(crate) end: usize,
}

/// One text between quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) value: String,
    pub(crate) offset: usize,
}

/// Parses a whole rule.
pub(crate) fn parse(text: &str) -> Result<Node, RuleError> {
    if text.len() > MAX_LENGTH {
        return Err(RuleError::new(MAX_LENGTH, format!("the rule is longer than {MAX_LENGTH} bytes")));
    }
    let mut parser = Parser { text, at: 0, depth: 0 };
    parser.skip_space();
    if parser.rest().is_empty() {
        return Err(RuleError::new(parser.at, "the rule is empty; expected a matcher, as Host(`example.com`)"));
    }
    let node = parser.any()?;
    match parser.peek() {
        None => Ok(node),
        Some(')') => Err(parser.error("this `)` closes nothing")),
        Some(found) => Err(parser.error(format!("expected `&&`, `||` or the end, found {found:?}"))),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Node, RuleError> {
        let mut nodes = vec![self.all()?];
        while self.takes_operator("||")? {
            nodes.push(self.all()?);
        }
        Ok(one_or(nodes, Node::Any))
    }

    fn all(&mut self) -> Result<Node, RuleError> {
        let mut nodes = vec![self.not()?];
        while self.takes_operator("&&")? {
            nodes.push(self.not()?);
        }
        Ok(one_or(nodes, Node::All))
    }

    fn not(&mut self) -> Result<Node, RuleError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("more than {MAX_DEPTH} parentheses and `!` stand within each other")));
        }
        let node = match self.peek() {
            Some('!') => {
                self.at += 1;
                Node::Not(Box::new(self.not()?))
            }
            Some('(') => {
                let opened = self.at;
                self.at += 1;
                let node = self.any()?;
                match self.peek() {
                    Some(')') => self.at += 1,
                    Some(found) => return Err(self.error(format!("expected `&&`, `||` or `)`, found {found:?}"))),
                    None => return Err(self.error(format!("expected `)` for the `(` at byte {opened}"))),
                }
                node
            }
            Some(first) if first.is_ascii_alphabetic() || first == '_' => Node::Call(self.call()?),
            Some(found) => return Err(self.error(format!("expected a matcher, `!` or `(`, found {found:?}"))),
            None => return Err(self.error("expected a matcher, `!` or `(`, found the end")),
        };
        self.depth -= 1;
        Ok(node)
    }

    fn call(&mut self) -> Result<Call, RuleError> {
        let offset = self.at;
        let length = self.rest().bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let name = self.rest()[..length].to_owned();
        self.at += length;
        if self.peek() != Some('(') {
            return Err(self.error(format!("expected `(` after {name}")));
        }
        self.at += 1;
        let mut arguments = Vec::new();
        loop {
            match self.peek() {
                Some(')') => break,
                Some('`') => arguments.push(self.raw_text()?),
                Some('"') => arguments.push(self.quoted_text()?),
                Some(_) => return Err(self.error("expected a text between backticks or double quotes, or `)`")),
                None => return Err(self.error(format!("expected `)` for {name}(, found the end"))),
            }
            match self.peek() {
                Some(',') => self.at += 1,
                Some(')') => break,
                Some(found) => return Err(self.error(format!("expected `,` or `)`, found {found:?}"))),
                None => return Err(self.error(format!("expected `)` for {name}(, found the end"))),
            }
        }
        let end = self.at;
        self.at += 1;
        Ok(Call { name, offset, arguments, end })
    }

    /// Between backticks everything is as it is.
    fn raw_text(&mut self) -> Result<Argument, RuleError> {
        let offset = self.at;
        let inner = &self.text[offset + 1..];
        let Some(length) = inner.find('`') else {
            return Err(RuleError::new(offset, "this text has no closing backtick"));
        };
        let value = inner[..length].to_owned();
        self.at = offset + length + 2;
        Ok(Argument { value, offset })
    }

    /// Between double quotes a backslash begins an escape (as in Go: `\n`, `\"`, `\\`, `\x41`, `\101`, `\u0041`).
    fn quoted_text(&mut self) -> Result<Argument, RuleError> {
        let offset = self.at;
        let mut bytes = Vec::new();
        self.at += 1;
        loop {
            let Some(next) = self.rest().chars().next() else {
                return Err(RuleError::new(offset, "this text has no closing double quote"));
            };
            match next {
                '"' => break,
                '\n' => return Err(RuleError::new(offset, "this text has no closing double quote on its line")),
                '\\' => self.escape(&mut bytes)?,
                other => {
                    bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    self.at += other.len_utf8();
                }
            }
        }
        self.at += 1;
        let value = String::from_utf8(bytes).map_err(|_| RuleError::new(offset, "the escapes in this text make no UTF-8"))?;
        Ok(Argument { value, offset })
    }

    fn escape(&mut self, into: &mut Vec<u8>) -> Result<(), RuleError> {
        let wrong = |at| RuleError::new(at, "unknown escape between double quotes; between backticks none is needed");
        let start = self.at;
        let Some(kind) = self.text[start + 1..].chars().next() else { return Err(wrong(start)) };
        let simple = match kind {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' => Some(b'\\'),
            '"' => Some(b'"'),
            _ => None,
        };
        if let Some(byte) = simple {
            into.push(byte);
            self.at = start + 2;
            return Ok(());
        }
        let (digits_at, digits, radix) = match kind {
            'x' => (start + 2, 2, 16),
            'u' => (start + 2, 4, 16),
            'U' => (start + 2, 8, 16),
            '0'..='7' => (start + 1, 3, 8),
            _ => return Err(wrong(start)),
        };
        let number = self
            .text
            .get(digits_at..digits_at + digits)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|text| u32::from_str_radix(text, radix).ok())
            .ok_or_else(|| wrong(start))?;
        if matches!(kind, 'u' | 'U') {
            let character = char::from_u32(number).ok_or_else(|| wrong(start))?;
            into.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            into.push(u8::try_from(number).map_err(|_| wrong(start))?);
        }
        self.at = digits_at + digits;
        Ok(())
    }

    /// Whether `&&` or `||` comes next; it is taken then. One `&` or `|` alone is an error.
    fn takes_operator(&mut self, operator: &str) -> Result<bool, RuleError> {
        self.skip_space();
        if self.rest().starts_with(operator) {
            self.at += operator.len();
            return Ok(true);
        }
        match self.rest().as_bytes() {
            [b'&', b'&', ..] | [b'|', b'|', ..] => Ok(false),
            [b'&', ..] => Err(self.error("expected `&&`, found one `&`")),
            [b'|', ..] => Err(self.error("expected `||`, found one `|`")),
            _ => Ok(false),
        }
    }

    /// The next character that is no white space.
    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        self.at += self.rest().bytes().take_while(u8::is_ascii_whitespace).count();
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn error(&self, message: impl Into<String>) -> RuleError {
        RuleError::new(self.at, message)
    }
}

/// One part is itself; several are joined.
pub(crate) fn one_or<T>(mut parts: Vec<T>, join: impl FnOnce(Vec<T>) -> T) -> T {
    if parts.len() == 1 { parts.remove(0) } else { join(parts) }
}
