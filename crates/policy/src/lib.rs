//! Policy: what may be said against a release before it serves, and whether that ends its deployment.
//!
//! [`Subject`] is what is looked at: a tree, what is built and run of it, what its image says of itself, what is secret.
//! [`Subject::observe`] asks every rule; [`Policy::judge`] says what each observation leads to, by the app's own word
//! (`[policy]` in `coracle.toml`), that of the server ([`ServerPolicy`]), or the default.
//!
//! Nothing is run, asked of an engine or written; of the disk, only the tree that is handed in is read. No text that comes out
//! has the value of a secret or a control character in it.

mod dockerfile;
mod key_format;
mod observation;
mod reading;
mod rules;
mod settings;
mod shell;
mod subject;
mod walk;

pub use observation::Observation;
pub use rules::{Explanation, explain};
pub use settings::{Policy, ServerPolicy, ServerSetting, Setting};
pub use subject::{Part, Subject, parts};
