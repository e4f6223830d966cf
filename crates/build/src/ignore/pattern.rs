//! One pattern of an ignore file, compiled to a small automaton that is run without backtracking.

/// A pattern, anchored at both ends.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
    /// What every path it matches begins with.
    fixed_start: String,
}

#[derive(Debug, Clone)]
enum Token {
    Char(char),
    /// `?`: one character, but no slash.
    One,
    /// `*`: any number of characters, but no slash.
    Many,
    /// `**` within a pattern: nothing, or any number of whole folders with their slash.
    Folders,
    /// `**` at an end: anything.
    Anything,
    /// `[a-z]`
    Class {
        inverted: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, &'static str> {
        let text = clean(text);
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' if chars.next_if_eq(&'*').is_some() => {
                    let slash = chars.next_if_eq(&'/').is_some();
                    match (slash, chars.clone().next()) {
                        (_, None) => Token::Anything,
                        // Docker takes `**x`, alone of all forms, as "ends with x".
                        (false, Some(_)) if tokens.is_empty() && !chars.clone().any(is_special) => Token::Anything,
                        _ => Token::Folders,
                    }
                }
                '*' => Token::Many,
                '?' => Token::One,
                '[' => class(&mut chars)?,
                '\\' => Token::Char(chars.next().unwrap_or('\\')),
                c => Token::Char(c),
            });
        }
        let fixed_start = tokens.iter().map_while(|token| if let Token::Char(c) = token { Some(*c) } else { None }).collect();
        Ok(Self { tokens, fixed_start })
    }

    /// What every path it matches begins with.
    pub(super) fn fixed_start(&self) -> &str {
        &self.fixed_start
    }

    /// Whether it matches one path only.
    pub(super) fn is_fixed(&self) -> bool {
        self.tokens.iter().all(|token| matches!(token, Token::Char(_)))
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(&self.fixed_start) else { return false };
        if self.is_fixed() {
            return rest.is_empty() && !path.is_empty();
        }
        // `at[n]`: everything before token n has matched what was read so far.
        let mut at = vec![false; self.tokens.len() + 1];
        self.enter(&mut at, 0);
        for c in path.chars() {
            let mut next = vec![false; at.len()];
            for (n, token) in self.tokens.iter().enumerate().filter(|(n, _)| at[*n]) {
                let (stays, passes) = token.takes(c);
                if stays {
                    next[n] = true;
                }
                if passes {
                    self.enter(&mut next, n + 1);
                }
            }
            at = next;
        }
        at[self.tokens.len()]
    }

    /// Steps onto token n, and past it where it may match nothing.
    fn enter(&self, at: &mut [bool], n: usize) {
        for (n, here) in at.iter_mut().enumerate().skip(n) {
            *here = true;
            if !matches!(self.tokens.get(n), Some(Token::Many | Token::Folders | Token::Anything)) {
                break;
            }
        }
    }
}

impl Token {
    /// After reading the character: whether it may take more, and whether it may be done.
    fn takes(&self, c: char) -> (bool, bool) {
        match self {
            Self::Char(wanted) => (false, *wanted == c),
            Self::One => (false, c != '/'),
            Self::Many => (c != '/', c != '/'),
            Self::Folders => (true, c == '/'),
            Self::Anything => (true, true),
            Self::Class { inverted, ranges } => {
                let within = ranges.iter().any(|(first, last)| (*first..=*last).contains(&c));
                (false, c != '/' && within != *inverted)
            }
        }
    }
}

fn is_special(c: char) -> bool {
    matches!(c, '*' | '?' | '[' | ']' | '\\')
}

/// The rest of a class, whose `[` has been read.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, &'static str> {
    const OPEN: &str = "a [ has no ]";
    let inverted = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let first = match chars.next().ok_or(OPEN)? {
            ']' if !ranges.is_empty() => return Ok(Token::Class { inverted, ranges }),
            '\\' => chars.next().ok_or(OPEN)?,
            c => c,
        };
        let mut ahead = chars.clone();
        let last = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(last)) if last != ']' => {
                chars.nth(1);
                if last == '\\' { chars.next().ok_or(OPEN)? } else { last }
            }
            _ => first,
        };
        if last < first {
            return Err("a range in [ ] runs backwards");
        }
        ranges.push((first, last));
    }
}

/// As Go's `path.Clean`, and without the slash in front: patterns are anchored at the root anyway.
pub(super) fn clean(pattern: &str) -> String {
    let mut pieces: Vec<&str> = Vec::new();
    for piece in pattern.split('/') {
        match piece {
            "" | "." => {}
            ".." if pieces.last().is_some_and(|last| *last != "..") => {
                pieces.pop();
            }
            ".." if pattern.starts_with('/') => {}
            piece => pieces.push(piece),
        }
    }
    pieces.join("/")
}
