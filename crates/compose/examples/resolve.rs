//! Prints the resolved model of a compose project, as `docker compose config` does.
//!
//! `cargo run -p coracle-compose --example resolve -- [--yaml] [--profile P]... [-p NAME] [FILE]...`

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example is a program")]

use std::process::ExitCode;

use coracle_compose::{Options, load};

fn main() -> ExitCode {
    let mut options = Options {
        environment: std::env::vars().collect(),
        working_dir: std::env::current_dir().unwrap_or_default(),
        ..Options::default()
    };
    let mut yaml = false;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--yaml" => yaml = true,
            "--profile" => options.profiles.extend(words.next()),
            "--env-file" => options.env_files.extend(words.next().map(Into::into)),
            "-p" => options.project_name = words.next(),
            _ => options.files.push(word.into()),
        }
    }
    match load(&options) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                eprintln!("warning: {warning}");
            }
            if yaml {
                print!("{}", loaded.to_yaml());
            } else {
                println!("{:#}", loaded.value);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
