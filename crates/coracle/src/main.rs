//! The coracle binary: reads what was typed, does it, and ends with the right exit code.
//!
//! It decides nothing about apps: clients ask the server's API, and the two planes live in crates of their own.

mod address;
mod arguments;
mod commands;
mod context;
mod failure;
mod follow;
mod git;
mod output;
mod packing;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use arguments::CommandLine;
use commands::{Command, Threads};
use context::Context;
use failure::Failure;
use output::{Manner, Output};

/// How long what still runs in the background may hold up the end of the process.
const LEAVE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let line = match CommandLine::try_parse_from(arguments::split_colon(std::env::args_os())) {
        Ok(line) => line,
        Err(answer) => return show(&answer),
    };
    let global = line.global;
    let output = Output::standard(Manner::found(global.json, global.quiet, global.verbose, global.no_color));
    match run(line.command, global, output) {
        Ok(code) => ExitCode::from(code),
        Err(code) => ExitCode::from(code),
    }
}

fn run(command: Command, global: arguments::Global, output: Output) -> Result<u8, u8> {
    let report = |failure: Failure| {
        output.failure(&failure);
        failure.exit_code()
    };
    let directory = std::env::current_dir()
        .map_err(|error| report(Failure::failed(format!("the current directory cannot be entered: {error}"))))?;
    let runtime = runtime(command.threads()).map_err(|error| report(Failure::failed(format!("cannot start: {error}"))))?;
    let context = Context { global, output, directory };
    let result = runtime.block_on(command.run(&context));
    runtime.shutdown_timeout(LEAVE);
    result.map_err(|failure| {
        context.output.failure(&failure);
        failure.exit_code()
    })
}

fn runtime(threads: Threads) -> std::io::Result<tokio::runtime::Runtime> {
    match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        Threads::Workers(count) => tokio::runtime::Builder::new_multi_thread().worker_threads(count).enable_all().build(),
    }
}

/// Help, version, or a mistake in what was typed: clap has the words for it.
fn show(answer: &clap::Error) -> ExitCode {
    let output = Output::standard(Manner::found(false, false, false, false));
    let text = answer.render();
    let text = if output.manner().colour { text.ansi().to_string() } else { text.to_string() };
    if answer.use_stderr() {
        output.pass_err(text.as_bytes());
        ExitCode::from(2)
    } else {
        output.pass_out(text.as_bytes());
        ExitCode::SUCCESS
    }
}
