//! Why a file cannot be used.

use coracle_toml_reading::Mistakes;

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{file}: {reason}")]
    Unreadable {
        /// The file's name.
        file: String,
        /// What the system says.
        reason: String,
    },
    /// It says something wrong.
    #[error("{}", .mistakes.to_text(.file))]
    Mistaken {
        /// The file's name.
        file: String,
        /// All that is wrong.
        mistakes: Mistakes,
    },
}
