//! What of the coracle binary the engine runs: the hidden subcommands `shim` and `static`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("shim") => coracle_engine_process::shim_main(arguments),
        Some("static") => match arguments.nth(1) {
            Some(root) => {
                coracle_engine_process::static_site::serve_on_port(root.into()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
            }
            None => ExitCode::FAILURE,
        },
        _ => ExitCode::FAILURE,
    }
}
