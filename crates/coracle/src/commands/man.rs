//! `coracle man`: manual pages.

use std::path::PathBuf;

use clap::Args;
use clap_mangen::Man;

use super::{DONE, ExitCode};
use crate::arguments::definition;
use crate::context::Context;
use crate::failure::Failure;

/// Print the manual page, or write the pages of all commands to a directory
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle man | man -l -
  coracle man /usr/local/share/man/man1")]
pub(crate) struct Arguments {
    /// The directory to write all pages to
    directory: Option<PathBuf>,
}

/// Does it.
pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    match arguments.directory {
        Some(directory) => {
            let failed = |error| Failure::failed(format!("cannot write to {}: {error}", directory.display()));
            std::fs::create_dir_all(&directory).map_err(failed)?;
            clap_mangen::generate_to(definition(), &directory).map_err(failed)?;
            context.output.tell(format!("wrote the pages to {}", directory.display()));
        }
        None => {
            let mut page = Vec::new();
            let failed = |error| Failure::failed(format!("cannot lay out the page: {error}"));
            Man::new(definition()).render(&mut page).map_err(failed)?;
            context.output.pass_out(&page);
        }
    }
    Ok(DONE)
}
