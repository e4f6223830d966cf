//! What the command line says to people: results on standard output, everything else on standard error.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the one place that prints")]

use std::error::Error;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

/// A result.
pub(crate) fn result(text: impl std::fmt::Display) {
    println!("{text}");
}

/// Something for people to know.
pub(crate) fn note(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// A failure with its causes and, where there is one, the next step; its exit code is 1.
pub(crate) fn failure(error: &dyn Error, hint: Option<&str>) -> ExitCode {
    eprintln!("error: {error}");
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Many errors quote their cause already.
        if !told.contains(&error.to_string()) {
            eprintln!("  because: {error}");
        }
        told = error.to_string();
        cause = error.source();
    }
    if let Some(hint) = hint {
        eprintln!("  hint: {hint}");
    }
    ExitCode::FAILURE
}

/// The log goes to standard error; `RUST_LOG` chooses what is in it.
pub(crate) fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    if log.try_init().is_err() {
        note("the log could not be started");
    }
}
