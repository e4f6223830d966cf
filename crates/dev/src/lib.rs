//! Development of one folder: what it describes is built, started, watched and reloaded, and taken down again.
//!
//! A [`Stack`] is what should run: from a compose file ([`translation`]) or from the processes of a source tree
//! ([`source_tree`]). A [`Session`] makes it so on an engine, keeps it so while files change, and stops what it started.
//! Everything it creates bears the [`Folder`]'s own owner id; nothing else is looked for or touched, and no server is asked.
//!
//! It names no engine, knows no arguments and prints nothing: whoever runs it hands it an engine, two words for stopping
//! ([`Stops`]) and somebody to tell ([`Tell`]).

mod dependents;
mod error;
mod folder;
mod follower;
mod front;
mod making;
mod news;
mod ports;
mod session;
pub mod source_tree;
mod stack;
mod starting;
mod sync;
pub mod translation;
mod watch;

pub use error::DevError;
pub use folder::{Folder, Holding, take_down};
pub use making::{copy_tree, limits};
pub use news::{News, Tell, Voice};
pub use session::{Options, Outcome, Reload, Session, Stops};
pub use stack::{Action, FolderBuild, NamedSource, Part, Rule, Source, Stack};
