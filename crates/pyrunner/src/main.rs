//! The pyrunner binary: reads what was typed, does it, and ends with the right exit code.

mod commands;
mod output;

use std::process::ExitCode;

use clap::Parser;

use commands::CommandLine;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match CommandLine::try_parse() {
        Ok(line) => commands::run(line.command),
        Err(answer) => {
            // Help and versions are no mistakes.
            let code = if answer.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
            answer.print().map(|()| code).unwrap_or(ExitCode::FAILURE)
        }
    }
}
