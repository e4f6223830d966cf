//! Splitting a command line into words: the quoting and parameter expansion of the POSIX shell language (POSIX.1-2017,
//! XCU sections 2.2 and 2.6.2), and nothing else of it.

use std::iter::Peekable;
use std::str::Chars;

use super::{CommandError, CommandLine, LONGEST, Piece, Word};
use crate::names::EnvName;

/// Words that are the shell's own when they stand first: there is no program of that name that would do the same.
pub(super) const SHELL_WORDS: [&str; 21] = [
    "!", ".", ":", "alias", "case", "cd", "eval", "export", "for", "function", "if", "read", "set", "source", "trap", "ulimit",
    "umask", "unset", "until", "while", "{",
];

/// Reads a whole command line.
pub(super) fn read(text: &str) -> Result<CommandLine, CommandError> {
    if text.len() > LONGEST {
        return Err(CommandError::TooLong);
    }
    if text.contains('\0') {
        return Err(CommandError::NulByte);
    }
    let mut reader = Reader { rest: text.chars().peekable(), at: 1 };
    let mut line = CommandLine { assignments: Vec::new(), words: Vec::new() };
    let mut exec = false;
    while reader.skip_to_word()? {
        let started = reader.at;
        let name = if line.words.is_empty() && !exec { reader.assignment_name() } else { None };
        if let Some(name) = name {
            let (value, _) = reader.word(Place::Assignment)?;
            line.assignments.push((name, value));
            continue;
        }
        let (word, plain) = reader.word(Place::Word)?;
        match (&plain, line.words.is_empty()) {
            // `exec` replaces the shell by the program; without a shell that is what happens anyway.
            (Some(text), true) if text == "exec" && !exec => exec = true,
            (Some(text), true) if SHELL_WORDS.contains(&text.as_str()) => {
                return Err(CommandError::NeedsShell { what: text.clone(), at: started });
            }
            _ => line.words.push(word),
        }
    }
    if line.words.is_empty() { Err(CommandError::Empty) } else { Ok(line) }
}

/// Where a word stands, which decides what is special in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The program or an argument: `*`, `?` and `[` would be file name patterns.
    Word,
    /// The value of an assignment: no patterns, no splitting.
    Assignment,
    /// Between double quotes.
    Quotes,
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    /// The position of the next character, from 1.
    at: usize,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        self.at += 1;
        self.rest.next()
    }

    /// The characters to come, without taking them.
    fn ahead(&self) -> impl Iterator<Item = char> {
        self.rest.clone()
    }

    /// Skips blanks and comments; answers whether a word follows.
    fn skip_to_word(&mut self) -> Result<bool, CommandError> {
        loop {
            match self.peek() {
                None => return Ok(false),
                Some(' ' | '\t') => {}
                Some('\\') if self.ahead().nth(1) == Some('\n') => {
                    self.next();
                }
                Some('#') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.next();
                    }
                    continue;
                }
                Some('\n' | '\r') => {
                    return if self.ahead().all(char::is_whitespace) {
                        Ok(false)
                    } else {
                        Err(CommandError::NeedsShell { what: "a second line".to_owned(), at: self.at })
                    };
                }
                Some(_) => return Ok(true),
            }
            self.next();
        }
    }

    /// Takes `NAME=` if that is what comes next.
    fn assignment_name(&mut self) -> Option<EnvName> {
        let name: String = self.ahead().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let followed = self.ahead().nth(name.len()) == Some('=');
        let parsed = name.parse().ok().filter(|_| followed)?;
        for _ in 0..=name.len() {
            self.next();
        }
        Some(parsed)
    }

    /// Takes one word. The second answer is its text if nothing in it was quoted or a variable.
    fn word(&mut self, place: Place) -> Result<(Word, Option<String>), CommandError> {
        let mut word = Word(Vec::new());
        let mut plain = true;
        if self.peek() == Some('~') {
            return Err(CommandError::NeedsShell { what: "~".to_owned(), at: self.at });
        }
        while let Some(c) = self.peek() {
            let at = self.at;
            match c {
                ' ' | '\t' | '\n' => break,
                '\r' if self.ahead().nth(1).is_none_or(|c| c == '\n') => break,
                '\'' => {
                    plain = false;
                    self.single_quotes(&mut word)?;
                }
                '"' => {
                    plain = false;
                    self.double_quotes(&mut word)?;
                }
                '\\' => {
                    plain = false;
                    self.next();
                    match self.next() {
                        Some('\n') => {}
                        Some(c) => push_char(&mut word, c),
                        None => return Err(CommandError::Unclosed { quote: '\\', at }),
                    }
                }
                '$' => {
                    plain = false;
                    let piece = self.dollar(place)?;
                    push(&mut word, piece);
                }
                '|' | '&' | ';' | '<' | '>' | '(' | ')' | '`' => return Err(self.needs_shell(c)),
                '*' | '?' | '[' if place == Place::Word => return Err(CommandError::Pattern { what: c, at }),
                _ => {
                    self.next();
                    push_char(&mut word, c);
                }
            }
        }
        let text = match word.0.as_slice() {
            [Piece::Text(text)] if plain => Some(text.clone()),
            _ => None,
        };
        if word.0.is_empty() {
            word.0.push(Piece::Text(String::new()));
        }
        Ok((word, text))
    }

    /// An operator of the shell; doubled ones are named whole.
    fn needs_shell(&self, operator: char) -> CommandError {
        let doubled = matches!(operator, '|' | '&' | ';' | '<' | '>') && self.ahead().nth(1) == Some(operator);
        let what = std::iter::repeat_n(operator, if doubled { 2 } else { 1 }).collect();
        CommandError::NeedsShell { what, at: self.at }
    }

    fn single_quotes(&mut self, word: &mut Word) -> Result<(), CommandError> {
        let at = self.at;
        self.next();
        push(word, Piece::Text(String::new()));
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(c) => push_char(word, c),
                None => return Err(CommandError::Unclosed { quote: '\'', at }),
            }
        }
    }

    fn double_quotes(&mut self, word: &mut Word) -> Result<(), CommandError> {
        let at = self.at;
        self.next();
        if self.peek() == Some('"') {
            push(word, Piece::Text(String::new()));
        }
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    self.next();
                    return Ok(());
                }
                '`' => return Err(self.needs_shell('`')),
                '$' => {
                    let piece = self.dollar(Place::Quotes)?;
                    push(word, piece);
                }
                '\\' => {
                    self.next();
                    match self.next() {
                        Some('\n') => {}
                        Some(c @ ('$' | '`' | '"' | '\\')) => push_char(word, c),
                        Some(c) => {
                            push_char(word, '\\');
                            push_char(word, c);
                        }
                        None => break,
                    }
                }
                _ => {
                    self.next();
                    push_char(word, c);
                }
            }
        }
        Err(CommandError::Unclosed { quote: '"', at })
    }

    /// What a `$` stands for.
    fn dollar(&mut self, place: Place) -> Result<Piece, CommandError> {
        let at = self.at;
        self.next();
        let quoted = place != Place::Word;
        match self.peek() {
            Some('(') => Err(CommandError::NeedsShell { what: "$(".to_owned(), at }),
            Some('{') => {
                self.next();
                self.braces(place, at)
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let name = self.variable_name();
                let name = name.parse().map_err(|_| CommandError::Variable { text: cut(&name), at })?;
                Ok(Piece::Variable { name, default: None, quoted })
            }
            Some(c @ ('0'..='9' | '@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                Err(CommandError::Variable { text: c.to_string(), at })
            }
            // `$'…'` and `$"…"` are other kinds of quotes in some shells and a dollar sign before quotes in others.
            Some(c @ ('\'' | '"')) if place != Place::Quotes => Err(CommandError::Variable { text: c.to_string(), at }),
            _ => Ok(Piece::Text("$".to_owned())),
        }
    }

    fn variable_name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
            self.next();
        }
        name
    }

    /// The inside of `${…}`.
    fn braces(&mut self, place: Place, at: usize) -> Result<Piece, CommandError> {
        let text = self.variable_name();
        let unknown = |more: &str| CommandError::Variable { text: cut(&format!("{{{text}{more}")), at };
        let name: EnvName = text.parse().map_err(|_| unknown("…}"))?;
        let default = match (self.next(), self.peek()) {
            (Some('}'), _) => None,
            (Some(':'), Some('-')) => {
                self.next();
                Some(self.default_value(place, at)?)
            }
            (Some(':'), Some(c)) => return Err(unknown(&format!(":{c}…}}"))),
            (Some(c), Some(_)) => return Err(unknown(&format!("{c}…}}"))),
            (_, _) => return Err(CommandError::Unclosed { quote: '{', at }),
        };
        Ok(Piece::Variable { name, default, quoted: place != Place::Word })
    }

    /// The `d` of `${NAME:-d}`: plain text, in which a backslash takes away the meaning of the next character.
    fn default_value(&mut self, place: Place, at: usize) -> Result<String, CommandError> {
        let mut value = String::new();
        let quotes = place == Place::Quotes;
        while let Some(c) = self.next() {
            match (c, self.peek()) {
                ('}', _) => return Ok(value),
                ('$' | '`' | '"', _) => return Err(CommandError::Default { at }),
                ('\'', _) if !quotes => return Err(CommandError::Default { at }),
                ('\\', Some(next @ ('}' | '\\' | '$' | '`' | '"'))) => {
                    self.next();
                    value.push(next);
                }
                ('\\', Some('\n')) => {
                    self.next();
                }
                // A blank that was escaped would have to stay in one word with its neighbours: that is what quotes are for.
                ('\\', Some(next)) if !quotes && next.is_whitespace() => return Err(CommandError::Default { at }),
                ('\\', Some(next)) if !quotes => {
                    self.next();
                    value.push(next);
                }
                _ => value.push(c),
            }
        }
        Err(CommandError::Unclosed { quote: '{', at })
    }
}

fn push_char(word: &mut Word, c: char) {
    match word.0.last_mut() {
        Some(Piece::Text(text)) => text.push(c),
        _ => word.0.push(Piece::Text(c.to_string())),
    }
}

/// Adds a piece, joining text to text.
fn push(word: &mut Word, piece: Piece) {
    match (word.0.last_mut(), piece) {
        (Some(Piece::Text(text)), Piece::Text(more)) => text.push_str(&more),
        (_, piece) => word.0.push(piece),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}
