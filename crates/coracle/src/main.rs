//! The coracle binary: reads what was typed, does it, and ends with the right exit code.
//!
//! It decides nothing about apps: clients ask the server's API, and the two planes live in crates of their own.

mod acme;
mod address;
mod arguments;
mod commands;
mod context;
mod failure;
mod folder;
mod follow;
mod git;
mod hook;
mod labelling;
mod output;
mod packing;
mod peer;
mod project_file;
mod remotes;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use coracle_engine_process::{shim_main, static_site};
use coracle_git_door::errand;
use coracle_git_door::hook::Hook;
use tokio::runtime::{Builder, Runtime};

use arguments::{CommandLine, Global};
use commands::Command;
use context::Context;
use failure::Failure;
use output::{Manner, Output};

/// Threads of a server: as many as the smallest machine has cores. Its work is done by engines and builds.
const SERVER_THREADS: usize = 2;

/// Bytes of stack of each of them, of which only what is used is ever there: builds that are not optimised use much.
const SERVER_STACK: usize = 8 << 20;

/// How long what still runs in the background may hold up the end of the process.
const LEAVE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    if let Some(code) = beside_an_instance() {
        return code;
    }
    if let Some(hook) = std::env::args_os().next().and_then(|program| Hook::of(&program)) {
        return hook::main(hook);
    }
    if std::env::args_os().next().is_some_and(|program| errand::is_ssh(&program)) {
        return become_ssh();
    }
    let line = match CommandLine::try_parse_from(arguments::familiar(std::env::args_os())) {
        Ok(line) => line,
        Err(answer) => return show(&answer),
    };
    let output = Arc::new(Output::standard(Manner::found(&line.global)));
    match run(line.command, line.global, Arc::clone(&output)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// What stands beside each instance of the process engine: there may be hundreds of them, so they come before everything that
/// costs memory, and the shim forks, so it comes before every thread.
fn beside_an_instance() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    match words.next().as_deref().and_then(OsStr::to_str) {
        Some("shim") => Some(shim_main(words)),
        Some("static") => Some(serve_files(words)),
        _ => None,
    }
}

/// `coracle static --root DIR`: serves a static site on `$PORT`.
fn serve_files(mut words: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let output = Output::standard(Manner::plain());
    let failure = match (words.next(), words.next(), words.next()) {
        (Some(option), Some(root), None) if option == "--root" => match static_site::serve_on_port(PathBuf::from(root)) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => Failure::failed(format!("the site cannot be served: {error}")),
        },
        _ => Failure::usage("this command is for Coracle itself"),
    };
    output.failure(&failure);
    ExitCode::from(failure.exit_code())
}

/// Git fetches from somewhere, and wants `ssh`.
fn become_ssh() -> ExitCode {
    let error = errand::become_ssh(std::env::args_os().skip(1));
    let failure = Failure::failed(format!("ssh cannot be started: {error}")).hint("install OpenSSH's client on the server");
    Output::standard(Manner::plain()).failure(&failure);
    ExitCode::from(failure.exit_code())
}

fn run(command: Command, global: Global, output: Arc<Output>) -> Result<u8, Failure> {
    let directory =
        std::env::current_dir().map_err(|error| Failure::failed(format!("the current directory cannot be entered: {error}")))?;
    let context = Context { global, output, directory };
    if let Command::Proxy(arguments) = command {
        return commands::proxy::run(*arguments, &context);
    }
    if let Command::Dial(arguments) = command {
        return commands::dial::run(arguments, &context);
    }
    let runtime = runtime(&command).map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let result = runtime.block_on(command.run(&context));
    runtime.shutdown_timeout(LEAVE);
    result
}

fn runtime(command: &Command) -> std::io::Result<Runtime> {
    if command.serves() {
        Builder::new_multi_thread().worker_threads(SERVER_THREADS).thread_stack_size(SERVER_STACK).enable_all().build()
    } else {
        Builder::new_current_thread().enable_all().build()
    }
}

/// Help, version, or a mistake in what was typed: clap has the words for it.
fn show(answer: &clap::Error) -> ExitCode {
    let output = Output::standard(Manner::found(&Global::default()));
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
