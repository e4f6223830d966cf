//! Templates as a tree: texts, and actions between `{{` and `}}`.

use super::TemplateError;
use super::functions::is_known;

/// How deep parentheses and blocks may be within each other.
const DEEPEST: usize = 32;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Text(String),
    Show(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { subject: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands, each of which gets what the one before came to as its last operand.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pipeline {
    /// The variable that keeps what it comes to.
    pub(crate) assigns: Option<String>,
    pub(crate) commands: Vec<Command>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Command {
    /// Without one, it is its only operand.
    pub(crate) function: Option<String>,
    pub(crate) operands: Vec<Operand>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    Text(String),
    Number(i64),
    Bool(bool),
    Nothing,
    /// `.A.B`; `$v.A.B` with a variable, whose name is empty for `$`.
    Field(Option<String>, Vec<String>),
    /// `(…).A.B`
    Inner(Pipeline, Vec<String>),
}

pub(crate) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut pieces = pieces(text)?.into_iter();
    let (nodes, end) = block(&mut pieces, 0)?;
    match end {
        None => Ok(nodes),
        Some(end) => Err(TemplateError::new(format!("`{{{{ {} }}}}` ends nothing", end.word))),
    }
}

enum Piece {
    Text(String),
    Action(String),
}

/// Texts and actions; `{{-` and `-}}` take away the white space around them, comments are nothing.
fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let (mut pieces, mut rest, mut trims) = (Vec::new(), text, false);
    loop {
        let (before, action) = match rest.split_once("{{") {
            Some((before, action)) => (before, Some(action)),
            None => (rest, None),
        };
        let before = if trims { before.trim_start() } else { before };
        let Some(action) = action else {
            pieces.push(Piece::Text(before.to_owned()));
            return Ok(pieces);
        };
        let trimmed = action.strip_prefix('-').filter(|after| after.starts_with(char::is_whitespace));
        pieces.push(Piece::Text(if trimmed.is_some() { before.trim_end() } else { before }.to_owned()));
        let action = trimmed.unwrap_or(action);
        let end = end_of_action(action).ok_or_else(|| TemplateError::new("`{{` is not closed by `}}`"))?;
        let (inner, after) = (&action[..end], &action[end + 2..]);
        let untrimmed = inner.strip_suffix('-').filter(|inner| inner.ends_with(char::is_whitespace));
        trims = untrimmed.is_some();
        let inner = untrimmed.unwrap_or(inner).trim();
        if !(inner.starts_with("/*") && inner.ends_with("*/")) {
            pieces.push(Piece::Action(inner.to_owned()));
        }
        rest = after;
    }
}

/// Where `}}` is, outside of quotes.
fn end_of_action(action: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (at, letter) in action.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if letter == '\\' => escaped = true,
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if matches!(letter, '"' | '`') => quote = Some(letter),
            None if action[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

/// By which a block ends: `end` or `else …`.
struct End {
    word: String,
    rest: String,
}

fn block(pieces: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<(Vec<Node>, Option<End>), TemplateError> {
    if depth > DEEPEST {
        return Err(TemplateError::new("too many blocks within each other"));
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) if text.is_empty() => continue,
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((&action, ""));
        match word {
            "end" | "else" => return Ok((nodes, Some(End { word: word.to_owned(), rest: rest.trim().to_owned() }))),
            "if" | "with" => nodes.push(branches(word, rest, pieces, depth)?),
            "range" | "define" | "template" | "block" | "break" | "continue" => {
                return Err(TemplateError::new(format!("`{word}` is not understood in default rules")));
            }
            _ => nodes.push(Node::Show(pipeline(&action)?)),
        }
    }
    Ok((nodes, None))
}

fn branches(word: &str, condition: &str, pieces: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<Node, TemplateError> {
    let condition = pipeline(condition)?;
    let unclosed = || TemplateError::new(format!("`{{{{ {word} }}}}` is not closed by `{{{{ end }}}}`"));
    let (then, end) = block(pieces, depth + 1)?;
    let end = end.ok_or_else(unclosed)?;
    let otherwise = match (end.word.as_str(), end.rest.split_once(char::is_whitespace)) {
        ("end", _) => Vec::new(),
        (_, Some((next @ ("if" | "with"), condition))) => vec![branches(next, condition, pieces, depth + 1)?],
        _ => match block(pieces, depth + 1)? {
            (otherwise, Some(end)) if end.word == "end" => otherwise,
            _ => return Err(unclosed()),
        },
    };
    Ok(match word {
        "if" => Node::If { condition, then, otherwise },
        _ => Node::With { subject: condition, then, otherwise },
    })
}

fn pipeline(text: &str) -> Result<Pipeline, TemplateError> {
    let tokens = tokens(text)?;
    let mut reader = Reader { tokens: &tokens, depth: 0 };
    let pipeline = reader.pipeline()?;
    match reader.tokens.first() {
        None => Ok(pipeline),
        Some(token) => Err(TemplateError::new(format!("{} is not expected in `{{{{ {text} }}}}`", token.describe()))),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Number(i64),
    /// `.A.B`, with the words; none for `.`.
    Path(Vec<String>),
    /// `$v.A`
    Variable(String, Vec<String>),
    Mark(&'static str),
}

impl Token {
    fn describe(&self) -> String {
        match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Text(text) => format!("{text:?}"),
            Self::Number(number) => format!("`{number}`"),
            Self::Path(path) => format!("`.{}`", path.join(".")),
            Self::Variable(name, _) => format!("`${name}`"),
            Self::Mark(mark) => format!("`{mark}`"),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
        let word = |text: &str| text.chars().take_while(|letter| is_name(*letter)).collect::<String>();
        let (token, after) = match first {
            '(' => (Token::Mark("("), &rest[1..]),
            ')' => (Token::Mark(")"), &rest[1..]),
            '|' => (Token::Mark("|"), &rest[1..]),
            ':' if rest.starts_with(":=") => (Token::Mark(":="), &rest[2..]),
            '=' => (Token::Mark(":="), &rest[1..]),
            '"' | '`' => quoted(rest, first)?,
            '.' => {
                let (path, after) = path(rest);
                (Token::Path(path), after)
            }
            '$' => {
                let name = word(&rest[1..]);
                let (path, after) = path(&rest[1 + name.len()..]);
                (Token::Variable(name, path), after)
            }
            '-' | '0'..='9' => {
                let digits = 1 + word(&rest[1..]).len();
                let number = rest[..digits].parse();
                let number = number.map_err(|_| TemplateError::new(format!("{:?} is no whole number", &rest[..digits])))?;
                (Token::Number(number), &rest[digits..])
            }
            letter if is_name(letter) => {
                let word = word(rest);
                let after = &rest[word.len()..];
                (Token::Word(word), after)
            }
            other => return Err(TemplateError::new(format!("`{other}` is not understood in `{{{{ {text} }}}}`"))),
        };
        // A path right behind a parenthesis is of what is within.
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

/// `.A.B` and what follows it.
fn path(mut rest: &str) -> (Vec<String>, &str) {
    let mut path = Vec::new();
    while let Some(after) = rest.strip_prefix('.') {
        let word: String = after.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
        rest = &after[word.len()..];
        if word.is_empty() {
            break;
        }
        path.push(word);
    }
    (path, rest)
}

fn quoted(rest: &str, quote: char) -> Result<(Token, &str), TemplateError> {
    let (mut text, mut letters) = (String::new(), rest.char_indices().skip(1));
    while let Some((at, letter)) = letters.next() {
        match letter {
            _ if letter == quote => return Ok((Token::Text(text), &rest[at + 1..])),
            '\\' if quote == '"' => match letters.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, escaped @ ('"' | '\\' | '\''))) => text.push(escaped),
                _ => return Err(TemplateError::new("unknown escape in a text; put it into backticks")),
            },
            _ => text.push(letter),
        }
    }
    Err(TemplateError::new("a text is not closed"))
}

struct Reader<'a> {
    tokens: &'a [Token],
    depth: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first.clone())
    }

    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        let assigns = match self.tokens {
            [Token::Variable(name, path), Token::Mark(":="), rest @ ..] if path.is_empty() && !name.is_empty() => {
                self.tokens = rest;
                Some(name.clone())
            }
            _ => None,
        };
        let mut commands = vec![self.command()?];
        while self.tokens.first() == Some(&Token::Mark("|")) {
            self.next();
            commands.push(self.command()?);
        }
        Ok(Pipeline { assigns, commands })
    }

    fn command(&mut self) -> Result<Command, TemplateError> {
        let mut function = None;
        let mut operands = Vec::new();
        loop {
            let operand = match self.tokens.first() {
                None | Some(Token::Mark(")" | "|" | ":=")) => break,
                Some(Token::Word(word)) if word == "true" || word == "false" => Operand::Bool(word == "true"),
                Some(Token::Word(word)) if word == "nil" => Operand::Nothing,
                Some(Token::Word(word)) if !is_known(word) => {
                    return Err(TemplateError::new(format!("there is no function `{word}`")));
                }
                Some(Token::Word(word)) if function.is_none() && operands.is_empty() => {
                    function = Some(word.clone());
                    self.next();
                    continue;
                }
                // A function among the operands has none of its own.
                Some(Token::Word(word)) => {
                    let command = Command { function: Some(word.clone()), operands: Vec::new() };
                    Operand::Inner(Pipeline { assigns: None, commands: vec![command] }, Vec::new())
                }
                Some(Token::Text(text)) => Operand::Text(text.clone()),
                Some(Token::Number(number)) => Operand::Number(*number),
                Some(Token::Path(path)) => Operand::Field(None, path.clone()),
                Some(Token::Variable(name, path)) => Operand::Field(Some(name.clone()), path.clone()),
                Some(Token::Mark(_)) => {
                    operands.push(self.inner()?);
                    continue;
                }
            };
            self.next();
            operands.push(operand);
        }
        match (&function, operands.len()) {
            (None, 0) => Err(TemplateError::new("a command is missing")),
            (None, 2..) => Err(TemplateError::new("something is passed to what is no function")),
            _ => Ok(Command { function, operands }),
        }
    }

    fn inner(&mut self) -> Result<Operand, TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(TemplateError::new("too many parentheses within each other"));
        }
        self.next();
        let inner = self.pipeline()?;
        if self.next() != Some(Token::Mark(")")) {
            return Err(TemplateError::new("`(` is not closed by `)`"));
        }
        self.depth -= 1;
        let path = match self.tokens.first() {
            Some(Token::Path(path)) if !path.is_empty() => path.clone(),
            _ => return Ok(Operand::Inner(inner, Vec::new())),
        };
        self.next();
        Ok(Operand::Inner(inner, path))
    }
}
