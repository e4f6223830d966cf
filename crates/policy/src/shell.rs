//! A shell's text as the commands in it, as far as one can tell without running it.

/// The most commands of one text that are looked at.
const MOST: usize = 2000;

/// One command and its line, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Simple {
    pub(crate) words: Vec<String>,
    pub(crate) line: u32,
}

/// Words that stand before a command and are none.
const RESERVED: [&str; 11] = ["if", "then", "else", "elif", "while", "until", "do", "!", "{", "(", "case"];

/// The commands of a text, in order: what stands between separators, without quotes and redirections (POSIX.1-2017, XCU
/// section 2.3). Variables stay as they are written.
pub(crate) fn commands(text: &str) -> Vec<Simple> {
    let mut reader = Reader { done: Vec::new(), words: Vec::new(), word: None, line: 1, began: 1 };
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if reader.done.len() >= MOST {
            break;
        }
        match c {
            '\\' => match chars.next() {
                Some('\n') => reader.line += 1,
                Some(next) => reader.push(next),
                None => {}
            },
            '\'' => {
                reader.word.get_or_insert_default();
                for c in chars.by_ref().take_while(|c| *c != '\'') {
                    reader.push(c);
                }
            }
            '"' => {
                reader.word.get_or_insert_default();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    let c = if c == '\\' { chars.next().unwrap_or(c) } else { c };
                    reader.push(c);
                }
            }
            '#' if reader.word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '\n' => {
                reader.end_command();
                reader.line += 1;
            }
            ';' | '|' | '&' | '(' | ')' => reader.end_command(),
            '<' | '>' => {
                // `2>&1 file`: neither the number nor the target is a word of the command.
                if reader.word.as_ref().is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit())) {
                    reader.word = None;
                }
                reader.end_word();
                while chars.next_if(|c| matches!(c, '<' | '>' | '&' | ' ')).is_some() {}
                while chars.next_if(|c| !c.is_whitespace() && !matches!(c, ';' | '|' | '&')).is_some() {}
            }
            c if c.is_whitespace() => reader.end_word(),
            c => reader.push(c),
        }
    }
    reader.end_command();
    reader.done
}

struct Reader {
    done: Vec<Simple>,
    words: Vec<String>,
    word: Option<String>,
    line: u32,
    /// The line of the command's first word.
    began: u32,
}

impl Reader {
    fn push(&mut self, c: char) {
        if c == '\n' {
            self.line += 1;
        }
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        if self.words.is_empty() {
            if RESERVED.contains(&word.as_str()) {
                return;
            }
            self.began = self.line;
        }
        self.words.push(word);
    }

    fn end_command(&mut self) {
        self.end_word();
        if !self.words.is_empty() {
            self.done.push(Simple { words: std::mem::take(&mut self.words), line: self.began });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(u32, String)> {
        commands(text).into_iter().map(|it| (it.line, it.words.join("|"))).collect()
    }

    #[test]
    fn commands_are_found_between_separators() {
        let text = "set -e # all\nif [ -n \"$X\" ]; then\n  A=1 exec flask \\\n    run --host '0 0' 2>&1 >log\nfi";
        let expected = [(1, "set|-e"), (2, "[|-n|$X|]"), (3, "A=1|exec|flask|run|--host|0 0"), (5, "fi")];
        assert_eq!(words(text), expected.map(|(line, text)| (line, text.to_owned())));
        assert_eq!(words("a && b||c; (d)"), ["a", "b", "c", "d"].map(|text| (1, text.to_owned())));
        assert_eq!(words("a '"), [(1, "a|".to_owned())]);
    }
}
