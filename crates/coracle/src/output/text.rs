//! Text for terminals: colours, and texts of others made harmless. A log line may have been written by an attacker; it must
//! not move the cursor, set the window's title or answer back as input.

use std::borrow::Cow;

use coracle_model::text::is_harmless;

/// How a text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Headings and names that matter.
    Bold,
    /// What matters less.
    Dim,
    /// Good.
    Green,
    /// Worth a look.
    Yellow,
    /// Bad.
    Red,
    /// Names of things.
    Cyan,
    /// One of a few colours that tell processes apart.
    Process(usize),
}

impl Style {
    fn code(self) -> &'static str {
        const PROCESSES: [&str; 6] = ["36", "33", "35", "32", "34", "96"];
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "1;31",
            Self::Cyan => "36",
            Self::Process(n) => PROCESSES[n % PROCESSES.len()],
        }
    }
}

/// Applies styles, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    /// The text in a style.
    pub(crate) fn with(self, style: Style, text: impl AsRef<str>) -> String {
        let text = text.as_ref();
        if self.0 { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text.to_owned() }
    }
}

/// The text without control characters other than tabs, and without what turns the direction of writing.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    if text.chars().all(allowed) { Cow::Borrowed(text) } else { Cow::Owned(filter(text, false)) }
}

/// The same, but colours (SGR sequences, ECMA-48 section 8.3.117) stay, and end with the line.
pub(crate) fn harmless_colours(text: &str) -> Cow<'_, str> {
    if text.chars().all(allowed) {
        return Cow::Borrowed(text);
    }
    let mut clean = filter(text, true);
    if clean.contains('\x1b') {
        clean.push_str("\x1b[0m");
    }
    Cow::Owned(clean)
}

fn allowed(c: char) -> bool {
    c == '\t' || is_harmless(c)
}

fn filter(text: &str, colours: bool) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '\x1b' {
            let (sequence, after) = split_escape(rest);
            if colours && is_colour(sequence) {
                clean.push_str(sequence);
            }
            rest = after;
        } else {
            if allowed(c) {
                clean.push(c);
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    clean
}

/// Splits a text that begins with ESC after its first escape sequence (ECMA-48: CSI ends with a byte from `@` to `~`, OSC
/// and its like with BEL or ST; everything else is two characters long).
fn split_escape(text: &str) -> (&str, &str) {
    let end = match text.as_bytes().get(1) {
        Some(b'[') => text.bytes().skip(2).position(|b| (0x40..=0x7e).contains(&b)).map_or(text.len(), |at| at + 3),
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            let bell = text.find('\x07').map(|at| at + 1);
            let terminator = text[2..].find("\x1b\\").map(|at| at + 4);
            [bell, terminator].into_iter().flatten().min().unwrap_or(text.len())
        }
        _ => 1,
    };
    // CSI may have been cut in the middle of a character that is not ASCII.
    let end = (end..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text.split_at(end)
}

fn is_colour(sequence: &str) -> bool {
    sequence
        .strip_prefix("\x1b[")
        .and_then(|rest| rest.strip_suffix('m'))
        .is_some_and(|inner| inner.bytes().all(|b| b.is_ascii_digit() || b == b';' || b == b':'))
}

/// The first `columns` columns of a text, the last of them `…` if something was cut. Counts characters, which is exact for
/// everything Coracle names.
pub(crate) fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    if text.chars().count() <= columns {
        return Cow::Borrowed(text);
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    Cow::Owned(kept + "…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        for (hostile, clean) in [
            ("plain\ttext ü", "plain\ttext ü"),
            ("\x1b]0;title\x07after", "after"),
            ("\x1b]0;title\x1b\\after", "after"),
            ("\x1b[2J\x1b[Hgone", "gone"),
            ("a\rb\x08c\x07", "abc"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b[", ""),
            ("\x1b[é~x", "x"),
            ("\x1b", ""),
            ("fix/\u{202e}niam\u{2066}\u{2028}", "fix/niam"),
        ] {
            assert_eq!(harmless(hostile), clean, "{hostile:?}");
        }
    }

    #[test]
    fn colours_may_stay_and_end_with_the_line() {
        assert_eq!(harmless_colours("\x1b[31mred\x1b[2J"), "\x1b[31mred\x1b[0m");
        assert_eq!(harmless_colours("\x1b[?25lx"), "x");
        assert_eq!(harmless_colours("plain"), "plain");
        assert_eq!(harmless_colours("\u{202e}niam"), "niam");
    }

    #[test]
    fn cut_texts_say_so() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abc", 3), "abc");
    }
}
