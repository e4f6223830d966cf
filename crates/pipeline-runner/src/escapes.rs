//! What of a text is read, and what a terminal acts on.

/// A text, taken apart: letters, tabs and ends of lines, and the colours between them (SGR sequences, ECMA-48 section 8.3.117). All
/// other control characters and escape sequences are left out.
pub(crate) struct Reading {
    /// What is read.
    pub(crate) plain: String,
    /// Colours, each with its place in `plain`.
    colours: Vec<(usize, String)>,
}

impl Reading {
    pub(crate) fn of(text: &str) -> Self {
        let mut reading = Self { plain: String::with_capacity(text.len()), colours: Vec::new() };
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            let length = sequence(rest);
            if length == 0 {
                if matches!(letter, '\t' | '\n') || !letter.is_control() {
                    reading.plain.push(letter);
                }
                rest = &rest[letter.len_utf8()..];
                continue;
            }
            let (sequence, after) = rest.split_at(length);
            if is_colour(sequence) {
                reading.colours.push((reading.plain.len(), sequence.to_owned()));
            }
            rest = after;
        }
        reading
    }

    /// The text with its colours, and with `***` for these places, which are in order and do not overlap.
    pub(crate) fn without(&self, hidden: &[std::ops::Range<usize>]) -> String {
        let plain = &self.plain;
        let (mut text, mut at) = (String::with_capacity(plain.len()), 0);
        let mut colours = self.colours.iter().peekable();
        let end = plain.len()..plain.len();
        for range in hidden.iter().chain([&end]) {
            while let Some((place, colour)) = colours.next_if(|(place, _)| *place <= range.start) {
                text.push_str(&plain[at..*place]);
                text.push_str(colour);
                at = *place;
            }
            text.push_str(&plain[at..range.start]);
            text.push_str(if range.is_empty() { "" } else { "***" });
            // What began or ended inside is so behind it.
            while let Some((_, colour)) = colours.next_if(|(place, _)| *place < range.end) {
                text.push_str(colour);
            }
            at = range.end;
        }
        text
    }
}

/// How long the escape sequence is that a text begins with; 0 if it begins with none. (ECMA-48 section 5: CSI ends with a byte from
/// `@` to `~`, control strings with BEL or ST. ECMA-35 section 13.2: bytes from blank to `/` stand before the last one.)
fn sequence(text: &str) -> usize {
    let mut letters = text.chars();
    let (kind, begun) = match (letters.next(), letters.next()) {
        (Some('\x1b'), Some(kind)) => (kind, 1 + kind.len_utf8()),
        (Some('\x1b'), None) => return 1,
        // The same in one letter.
        (Some(letter @ '\u{80}'..='\u{9f}'), _) => (char::from(letter as u8 - 0x40), letter.len_utf8()),
        _ => return 0,
    };
    let rest = &text[begun..];
    let length = match kind {
        '[' => rest.find(|letter| ('@'..='~').contains(&letter)).map(|at| at + 1),
        ']' | 'P' | 'X' | '^' | '_' => {
            let ends = ["\x07", "\x1b\\", "\u{9c}"].into_iter().filter_map(|end| Some(rest.find(end)? + end.len()));
            ends.min()
        }
        ' '..='/' => rest.find(|letter| ('0'..='~').contains(&letter)).map(|at| at + 1),
        // Of everything else the first letter is no text, and that the second is none is not sure.
        _ => return text.chars().next().map_or(0, char::len_utf8),
    };
    length.map_or(text.len(), |length| begun + length)
}

fn is_colour(sequence: &str) -> bool {
    let inner = sequence.strip_prefix("\x1b[").and_then(|rest| rest.strip_suffix('m'));
    inner.is_some_and(|inner| inner.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_terminal_acts_on_colours_alone_stay() {
        for (text, left) in [
            ("plain\ttext ü\n", "plain\ttext ü\n"),
            ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
            ("\x1b]0;title\x07a\x1b]0;title\x1b\\b\u{9d}0;title\u{9c}c", "abc"),
            ("\x1b[2J\x1b[?25la\u{9b}1mb", "ab"),
            ("a\rb\x08c\x07\0d", "abcd"),
            ("a\x1b(Bb\x1bcd", "abcd"),
            ("a\x1b\0[1mb", "a[1mb"),
            ("a\x1b[", "a"),
            ("a\x1b[12", "a"),
            ("a\x1b", "a"),
            ("\x1b[é~x", "x"),
        ] {
            assert_eq!(Reading::of(text).without(&[]), left, "{text:?}");
        }
    }

    #[test]
    fn colours_inside_of_what_is_hidden_come_behind_it() {
        let reading = Reading::of("a\x1b[1mb\x1b[0mc\x1b[2md");
        assert_eq!(reading.without(std::slice::from_ref(&(1..3))), "a\x1b[1m***\x1b[0m\x1b[2md");
        assert_eq!(reading.without(&[0..2, 2..4]), "***\x1b[1m\x1b[0m***\x1b[2m");
    }
}
