//! The log of a server or proxy: lines on standard error, for a person, the journal or, with `--json`, a collector.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::Output;

/// From here on, what the planes log goes to standard error. `RUST_LOG` says how much; otherwise it is `info`, or as quiet
/// or talkative as the output is.
pub(crate) fn to_standard_error(output: &Output) {
    let manner = output.manner();
    let usual = match (manner.quiet, manner.verbose) {
        (true, _) => LevelFilter::WARN,
        (_, true) => LevelFilter::DEBUG,
        _ => LevelFilter::INFO,
    };
    let filter = EnvFilter::builder().with_default_directive(usual.into()).from_env_lossy();
    let colour = manner.colour && stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(colour)
        // A log that cannot be written must not end the plane that writes it.
        .log_internal_errors(false);
    let set = if manner.json { subscriber.json().try_init() } else { subscriber.try_init() };
    // Only a second call can fail, and then the first one holds.
    set.ok();
}
