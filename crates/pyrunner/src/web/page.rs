//! The document, with a program and what came of it in it. Every text goes through [`escaped`].

use std::borrow::Cow;

use coracle_sandbox::Limits;

use crate::answer::{ExecutionAnswer, ReasonWord, Stream, Usage};
use crate::program::milliseconds;

const TEMPLATE: &str = include_str!("index.html");

/// What the page shows.
#[derive(Debug)]
pub(super) struct Page {
    limits: Limits,
    code: String,
    stdin: String,
    /// Markup: pieces of output.
    output: String,
    last: Option<Stream>,
    verdict: Option<Verdict>,
    usage: Option<Usage>,
    key_wanted: bool,
}

#[derive(Debug)]
struct Verdict {
    good: bool,
    text: String,
}

impl Page {
    /// Nothing yet.
    pub(super) fn empty(limits: Limits) -> Self {
        let (code, stdin, output) = (String::new(), String::new(), String::new());
        Self { limits, code, stdin, output, last: None, verdict: None, usage: None, key_wanted: false }
    }

    /// What was sent stays where it was typed.
    pub(super) fn with_program(mut self, code: &str, stdin: &str) -> Self {
        (self.code, self.stdin) = (code.to_owned(), stdin.to_owned());
        self
    }

    /// Adds something that the program wrote.
    pub(super) fn write(&mut self, stream: Stream, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.last != Some(stream) {
            self.close();
            self.output.push_str(if stream == Stream::Stdout { "<span class=\"stdout\">" } else { "<span class=\"stderr\">" });
            self.last = Some(stream);
        }
        self.output.push_str(&escaped(text));
    }

    fn close(&mut self) {
        if self.last.take().is_some() {
            self.output.push_str("</span>");
        }
    }

    /// How it ended.
    pub(super) fn ended(&mut self, answer: &ExecutionAnswer) {
        self.close();
        let cut = if answer.truncated.stdout || answer.truncated.stderr { " Output was cut." } else { "" };
        let text = match (&answer.message, answer.reason) {
            (None, ReasonWord::Ok) => "Done, exit code 0.".to_owned(),
            (message, reason) => {
                let message = message.clone().unwrap_or_else(|| format!("{reason:?}"));
                let mut letters = message.chars();
                let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
                format!("{first}{}.", letters.as_str())
            }
        };
        self.verdict = Some(Verdict { good: answer.reason == ReasonWord::Ok, text: text + cut });
        self.usage = Some(answer.usage);
    }

    /// Why it was not executed.
    pub(super) fn refused(&mut self, text: String, key_wanted: bool) {
        self.close();
        self.verdict = Some(Verdict { good: false, text });
        self.key_wanted = key_wanted;
    }

    /// The document.
    pub(super) fn html(&self) -> String {
        fill(TEMPLATE, |name| self.value(name))
    }

    fn value(&self, name: &str) -> Cow<'_, str> {
        let open = |wanted: bool| Cow::Borrowed(if wanted { " open" } else { "" });
        let number = |number: u64| Cow::Owned(number.to_string());
        let used = self.usage.unwrap_or_default();
        let (wall, cpu) = (milliseconds(self.limits.wall), milliseconds(self.limits.cpu));
        match name {
            "code" => escaped(&self.code),
            "stdin" => escaped(&self.stdin),
            "output" => Cow::Borrowed(&self.output),
            "verdict" => self.verdict.as_ref().map(|verdict| escaped(&verdict.text)).unwrap_or_default(),
            "verdict_kind" => match &self.verdict {
                Some(verdict) if verdict.good => Cow::Borrowed("good"),
                Some(_) => Cow::Borrowed("bad"),
                None => Cow::Borrowed(""),
            },
            "stdin_open" => open(!self.stdin.is_empty()),
            "key_open" => open(self.key_wanted),
            "usage_hidden" => Cow::Borrowed(if self.usage.is_none() { " hidden" } else { "" }),
            "wall_ms" => number(wall),
            "cpu_ms" => number(cpu),
            "memory_bytes" => number(self.limits.memory_bytes),
            "wall_used" => number(used.wall_ms.round() as u64),
            "cpu_used" => number(used.cpu_ms.round() as u64),
            "memory_used" => number(used.memory_peak),
            "wall_text" => Cow::Owned(format!("{} of {}", time(used.wall_ms), time(wall as f64))),
            "cpu_text" => Cow::Owned(format!("{} of {}", time(used.cpu_ms), time(cpu as f64))),
            "memory_text" => Cow::Owned(format!("{} of {}", size(used.memory_peak), size(self.limits.memory_bytes))),
            _ => Cow::Borrowed(""),
        }
    }
}

/// Puts values where their names are in a template, once: a value that looks like a name stays what it is.
fn fill<'a>(template: &str, value: impl Fn(&str) -> Cow<'a, str>) -> String {
    let mut filled = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        filled.push_str(&value(name));
        rest = after;
    }
    filled + rest
}

/// Text that is no markup, in elements and in quoted attributes (HTML Living Standard, section 13.3).
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'', '\0', '\r']) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // A parser would drop or change them.
            '\0' => safe.push('\u{fffd}'),
            '\r' => safe.push_str("&#13;"),
            other => safe.push(other),
        }
    }
    Cow::Owned(safe)
}

fn time(milliseconds: f64) -> String {
    if milliseconds < 1000.0 { format!("{milliseconds:.1} ms") } else { format!("{:.1} s", milliseconds / 1000.0) }
}

fn size(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_the_template_has_a_value() {
        let page = Page::empty(Limits::default()).with_program("code!", "stdin!");
        let html = page.html();
        assert!(!html.contains("{{") && !html.contains("}}"), "{html}");
        for expected in
            ["\ncode!</textarea>", "\nstdin!</textarea>", "data-wall-ms=\"10000\"", "<details open>", "<dl id=\"usage\" hidden>"]
        {
            assert!(html.contains(expected), "{expected} in {html}");
        }
    }

    #[test]
    fn nothing_that_is_shown_is_markup_or_a_name_of_the_template() {
        let hostile = "</textarea><script>alert(1)</script>{{code}}'\"&\0";
        let mut page = Page::empty(Limits::default()).with_program(hostile, hostile);
        page.write(Stream::Stdout, hostile);
        page.write(Stream::Stderr, hostile);
        page.refused(hostile.to_owned(), true);
        let html = page.html();
        let safe = "&lt;/textarea&gt;&lt;script&gt;alert(1)&lt;/script&gt;{{code}}&#39;&quot;&amp;\u{fffd}";
        assert_eq!(html.matches(safe).count(), 5, "{html}");
        assert!(!html.contains("<script>"), "{html}");
        assert!(html.contains(&format!("<span class=\"stdout\">{safe}</span><span class=\"stderr\">{safe}</span></pre>")));
    }

    #[test]
    fn pieces_of_one_stream_are_one() {
        let mut page = Page::empty(Limits::default());
        page.write(Stream::Stdout, "a");
        page.write(Stream::Stdout, "b");
        page.write(Stream::Stderr, "c");
        page.close();
        assert_eq!(page.output, "<span class=\"stdout\">ab</span><span class=\"stderr\">c</span>");
    }
}
