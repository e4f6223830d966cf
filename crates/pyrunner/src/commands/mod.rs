//! What can be typed; one file for each command.

mod bench;
mod child;
mod doctor;
mod image;
mod keys;
mod run;
mod serve;
mod settings;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Executes untrusted Python, each program in a sandbox of its own that is used once.
#[derive(Debug, Parser)]
#[command(name = "pyrunner", version, max_term_width = 100)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the API
    Serve(Box<serve::Serve>),
    /// Execute one program and end with its exit code
    Run(run::Run),
    /// Measure how quick a server is: one that runs, or one of its own
    Bench(bench::Bench),
    /// Make, show and revoke API keys
    Keys(keys::Keys),
    /// Say what this machine offers for sandboxes, and which way is chosen
    Doctor(doctor::Doctor),
    /// Make, show and remove images: packages, Docker images, directories
    Image(image::ImageCommand),
}

pub(crate) fn run(command: Command) -> ExitCode {
    match command {
        Command::Serve(serve) => serve::run(&serve),
        Command::Run(run) => run::run(&run),
        Command::Bench(bench) => bench::run(&bench),
        Command::Keys(keys) => keys::run(&keys),
        Command::Doctor(doctor) => doctor::run(&doctor),
        Command::Image(image) => image::run(&image),
    }
}
