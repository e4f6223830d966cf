//! Something that a rule saw, before anybody has said how much it weighs.

use coracle_model::policy::{Rule, SourcePlace};
use coracle_model::text::one_line;

/// Characters of the longest text out of a repository that is repeated.
const LONGEST: usize = 100;

/// What a rule saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The rule.
    pub rule: Rule,
    /// What is the case, in a sentence.
    pub what: String,
    /// Where.
    pub place: Option<SourcePlace>,
    /// What to do about it.
    pub mend: String,
    /// Whether it is wrong beyond doubt, so that the deployment ends unless somebody says otherwise.
    pub surely: bool,
}

impl Observation {
    pub(crate) fn new(rule: Rule, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { rule, what: what.into(), place: None, mend: mend.into(), surely: false }
    }

    pub(crate) fn at(self, file: impl AsRef<str>, line: impl Into<Option<u32>>) -> Self {
        Self { place: Some(SourcePlace { file: plain(file.as_ref()), line: line.into() }), ..self }
    }

    /// The same, without these texts.
    pub(crate) fn without(mut self, hidden: &[&str]) -> Self {
        let hide = |text: &mut String| {
            for secret in hidden.iter().filter(|secret| text.contains(**secret)).collect::<Vec<_>>() {
                *text = text.replace(*secret, "…");
            }
        };
        hide(&mut self.what);
        hide(&mut self.mend);
        if let Some(place) = &mut self.place {
            hide(&mut place.file);
        }
        self
    }
}

/// A text of somebody else's, on one line, without what a terminal would act on, and not endless.
pub(crate) fn plain(text: &str) -> String {
    one_line(text, LONGEST)
}
