//! `pyrunner run`.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::host::possible;

fn run(arguments: &[&str], typed: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyrunner"));
    command.arg("run").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that reads nothing may have ended before.
    child.stdin.take().unwrap().write_all(typed.as_bytes()).ok();
    let done = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

#[test]
fn a_program_runs_as_if_python_ran_it() {
    if !possible() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |code: &str| {
        let path = directory.path().join("program.py");
        std::fs::write(&path, code).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let echo = file("import sys\nprint(sys.stdin.read().upper(), sys.argv[1:])\nprint('bad', file=sys.stderr)\nsys.exit(7)");
    assert_eq!(run(&[&echo, "--", "-x", "y"], "typed"), (Some(7), "TYPED ['-x', 'y']\n".to_owned(), "bad\n".to_owned()));
    assert_eq!(run(&["-"], "print('from a pipe')").1, "from a pipe\n");
    assert_eq!(run(&[&file("import ctypes; ctypes.string_at(0)")], "").0, Some(139));
    let (code, _, told) = run(&["--wall", "200ms", &file("while True: pass")], "");
    assert!(code == Some(137) && told.contains("timeout"), "{code:?} {told}");
    let (code, _, told) = run(&["/nowhere/at/all.py"], "");
    assert!(code == Some(1) && told.contains("/nowhere/at/all.py"), "{told}");
    assert_eq!(run(&["--wall", "soon", &echo], "").0, Some(2));
}
