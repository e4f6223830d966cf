//! What a person should know of a project that can be loaded all the same.

use indexmap::IndexSet;

/// Warnings in the order in which they arose, each once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings {
    texts: IndexSet<String>,
}

/// So many different warnings are kept; who has more does not read them.
const MAX_WARNINGS: usize = 1_000;

impl Warnings {
    pub(crate) fn add(&mut self, text: String) {
        if self.texts.len() < MAX_WARNINGS {
            self.texts.insert(text);
        }
    }

    pub(crate) fn into_texts(self) -> Vec<String> {
        self.texts.into_iter().collect()
    }
}
