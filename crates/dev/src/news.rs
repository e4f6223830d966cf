//! What is told while a folder is developed.

use std::sync::Arc;

use coracle_engine::{OutputLine, OutputSink, Stream, Tail};

/// Something worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// What was done, or what is waited for.
    Note(String),
    /// Something went wrong, and the session goes on.
    Trouble(String),
    /// A line that a part wrote.
    Line {
        /// Who wrote it.
        voice: Voice,
        /// Where to.
        stream: Stream,
        /// The text, as it was written.
        text: String,
    },
    /// A line of a build.
    Build {
        /// The part that is built.
        voice: Voice,
        /// The text.
        text: String,
    },
}

/// Who a line is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voice {
    /// The part's name, with the number of the copy if there are several.
    pub name: String,
    /// The place of the part among the parts, for a colour that stays.
    pub place: usize,
}

/// Takes news as they come. Cheap to clone; must not block.
#[derive(Clone)]
pub struct Tell(Arc<dyn Fn(News) + Send + Sync>);

impl Tell {
    /// Hands all news to `take`.
    pub fn new(take: impl Fn(News) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    pub(crate) fn news(&self, news: News) {
        (self.0)(news);
    }

    pub(crate) fn note(&self, text: impl Into<String>) {
        self.news(News::Note(text.into()));
    }

    pub(crate) fn trouble(&self, text: impl Into<String>) {
        self.news(News::Trouble(text.into()));
    }

    /// A sink for the output of a build.
    pub(crate) fn build(&self, voice: Voice, tail: Tail) -> OutputSink {
        let tell = self.clone();
        OutputSink::new(move |OutputLine { text, .. }| {
            tail.push(&text);
            tell.news(News::Build { voice: voice.clone(), text });
        })
    }
}
