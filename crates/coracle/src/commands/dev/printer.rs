//! News on the terminal: each line behind the name of who wrote it, in a colour that stays.

use std::sync::Arc;

use coracle_dev::{News, Stack, Tell, Voice};
use coracle_engine::Stream;
use serde_json::json;

use crate::output::text::{harmless, harmless_colours};
use crate::output::{Output, Style};

/// What Coracle itself says stands behind this name.
const OWN: &str = "dev";

/// Prints news. Names are as wide as the longest one of the stack.
pub(super) fn tell(output: Arc<Output>, stack: &Stack) -> Tell {
    let several = |name| stack.spec.processes.get(name).is_some_and(|part: &coracle_model::ProcessSpec| part.replicas > 1);
    let widths = stack.parts.iter().map(|(name, part)| part.title.chars().count() + if several(name) { 2 } else { 0 });
    let width = widths.max().unwrap_or(0).max(OWN.len());
    Tell::new(move |news| print(&output, width, &news))
}

fn print(output: &Output, width: usize, news: &News) {
    if output.manner().json {
        return output.record(&match news {
            News::Note(text) => json!({ "note": text }),
            News::Trouble(text) => json!({ "trouble": text }),
            News::Line { voice, stream, text } => json!({ "service": voice.name, "stream": stream, "text": text }),
            News::Build { voice, text } => json!({ "build": voice.name, "text": text }),
        });
    }
    let paint = output.paint();
    let prefix = |name: &str, style| paint.with(style, format!("{name:width$} |"));
    match news {
        News::Note(text) => output.tell(format!("{} {}", prefix(OWN, Style::Dim), paint.with(Style::Dim, harmless(text)))),
        News::Trouble(text) => output.remark(format!("{} {}", prefix(OWN, Style::Red), paint.with(Style::Red, harmless(text)))),
        News::Line { voice, stream, text } => {
            let text = if output.manner().colour { harmless_colours(text) } else { harmless(text) };
            let line = format!("{} {text}\n", prefix(&voice.name, colour(voice)));
            match stream {
                Stream::Stdout => output.pass_out(line.as_bytes()),
                Stream::Stderr => output.pass_err(line.as_bytes()),
            }
        }
        News::Build { voice, text } => {
            output.tell(format!("{} {}", prefix(&voice.name, colour(voice)), paint.with(Style::Dim, harmless(text))));
        }
    }
}

fn colour(voice: &Voice) -> Style {
    Style::Process(voice.place)
}
