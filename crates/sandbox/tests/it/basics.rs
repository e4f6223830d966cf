//! What a program gets and what comes back.

use std::time::Duration;

use coracle_sandbox::{Event, Execution, InputFile, Mode, Reason, Stdin};

use crate::host::{Host, finish, until_said};

#[tokio::test]
async fn a_program_gets_its_input_arguments_variables_and_files() {
    let Some(host) = Host::start(&["slots=2"]).await else { return };
    for mode in [Mode::Zygote, Mode::Exec] {
        let mut execution = Execution::new(
            "default",
            "import os, sys\nprint(sys.argv, os.environ['NAME'], open('data/in.txt').read(), sys.stdin.read(), __name__, __file__)\n\
             print('err', file=sys.stderr)",
        );
        execution.mode = mode;
        execution.stdin = Stdin::Bytes("zwölf\n".into());
        execution.args = vec!["a b".to_owned(), "'$(id)`".to_owned(), String::new()];
        execution.env = vec![("NAME".to_owned(), "wert=1".to_owned())];
        execution.files = vec![InputFile { path: "data/in.txt".to_owned(), content: b"content".to_vec() }];
        let done = host.run(&execution).await;
        done.says("['/work/main.py', 'a b', \"'$(id)`\", ''] wert=1 content zwölf\n __main__ /work/main.py\n");
        assert_eq!(done.err, b"err\n");
        assert_eq!((done.end.exit_code, done.end.signal), (Some(0), None));
        assert!(done.end.usage.cpu > Duration::ZERO && done.end.usage.wall > Duration::ZERO, "{:?}", done.end);
        assert!(done.end.usage.memory_peak > 100_000, "{:?}", done.end);
    }
    host.quiet().await;
}

#[tokio::test]
async fn ends_are_those_of_an_interpreter() {
    let Some(host) = Host::start(&["slots=2"]).await else { return };
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("main.py");
    let mut python = std::process::Command::new("/usr/bin/python3");
    python.arg(&main).env_clear().env("LANG", "C.UTF-8").current_dir(directory.path());
    for code in [
        "1/0",
        "def f():\n    return [][1]\nf()",
        "print('x'",
        "  x = 1",
        "import sys; sys.exit('bye')",
        "import sys; sys.exit(-1)",
        "import sys; sys.exit(256 + 7)",
        "import sys; sys.exit()",
        "import sys; sys.exit((1, 2))",
        "import os; os._exit(9)",
        "raise SystemExit(3)",
        "raise KeyError('ü') from ValueError(2)",
        "class A:\n    def __del__(self): print('deleted')\na = A()",
        "import atexit; atexit.register(print, 'late'); print('early')",
        "f = open('out.txt', 'w'); f.write('kept')\nimport atexit; atexit.register(lambda: (f.flush(), print(open('out.txt').read())))",
        "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.02), print('thread'))).start()\nprint('main')",
        "import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__)\n1/0",
        "import sys\nsys.stdout.write('no newline')",
        "print(1, flush=True)\nimport os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import threading\nt = threading.Thread(target=lambda: 1/0, name='T')\nt.start(); t.join()\nprint('on')",
        "import sys; sys.stdout.close()",
        "print(f'{0.1 + 0.2} {[1, 2]!r:>10}', 'ünï', chr(0), sep='|')",
        "import json, re, math\nprint(json.dumps({'a': [1, None]}), re.sub('a+', 'b', 'caat'), math.pi)",
        "print(__name__, __file__ != '', __builtins__.__name__, sorted(globals()))",
        "import sys; print(sys.path[0] == __file__.rsplit('/', 1)[0], sys.flags.isolated, sys.stdout.encoding, sys.stdin.encoding)",
        "try:\n    input()\nexcept EOFError as e: print(type(e).__name__)",
        "print(chr(0xd800))",
    ] {
        std::fs::write(&main, code).unwrap();
        let expected = python.stdin(std::process::Stdio::null()).output().unwrap();
        let done = host.python(code).await;
        let place = directory.path().to_str().unwrap();
        let seen = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(place, "/work");
        assert_eq!(done.text(), seen(&expected.stdout), "stdout of {code}");
        // Names that an exec'd module has and __main__ run from a file has not, and the reverse, are told apart elsewhere.
        assert_eq!(seen(&done.err), seen(&expected.stderr), "stderr of {code}");
        assert_eq!(done.end.exit_code, expected.status.code(), "{code}: {}", done.whole());
        assert_eq!(done.end.signal, std::os::unix::process::ExitStatusExt::signal(&expected.status), "{code}");
    }
}

#[tokio::test]
async fn output_arrives_while_the_program_runs_and_input_while_it_waits() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    let mut execution = Execution::new("default", "name = input('who? ')\nprint('hello', name)\nprint('end', input())");
    execution.stdin = Stdin::Interactive;
    let mut running = host.sandbox.execute(&execution).await.unwrap();
    until_said(&mut running, "who? ").await;
    running.write("you\nno").await.unwrap();
    until_said(&mut running, "hello you\n").await;
    running.write("w\n").await.unwrap();
    until_said(&mut running, "end now\n").await;
    finish(running).await.is(Reason::Ok);
}

#[tokio::test]
async fn cancelling_ends_it_and_so_does_leaving() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    let forever = Execution::new("default", "import time\nprint('on', flush=True)\nwhile True: time.sleep(1)");
    let mut running = host.sandbox.execute(&forever).await.unwrap();
    until_said(&mut running, "on").await;
    running.cancel().await.unwrap();
    finish(running).await.is(Reason::Cancelled);
    let mut running = host.sandbox.execute(&forever).await.unwrap();
    until_said(&mut running, "on").await;
    drop(running);
    host.quiet().await;
    host.python("print(1)").await.says("1\n");
}

#[tokio::test]
async fn output_beyond_the_limit_is_cut_and_told_per_stream() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    let mut execution = Execution::new("default", "import sys\nsys.stdout.write('x' * 5000)\nsys.stderr.write('y' * 999)");
    execution.limits.output_bytes = Some(1000);
    let done = host.run(&execution).await;
    done.is(Reason::Ok);
    assert_eq!((done.out.len(), done.err.len()), (1000, 999));
    assert!(done.end.truncated.stdout && !done.end.truncated.stderr, "{:?}", done.end);
    // The limit to the byte is no truncation.
    execution.code = b"import sys\nsys.stdout.write('x' * 1000)".to_vec();
    assert!(!host.run(&execution).await.end.truncated.stdout);
}

#[tokio::test]
async fn bytes_are_passed_on_as_they_are() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    let code = "import os\nos.write(1, bytes(range(256)) + b'\\x1b[2J\\xed\\xa0\\x80')";
    let done = host.python(code).await;
    let expected: Vec<u8> = (0..=255).chain(*b"\x1b[2J\xed\xa0\x80").collect();
    assert_eq!(done.out, expected);
}

#[tokio::test]
async fn random_numbers_are_not_those_of_the_neighbour() {
    let Some(host) = Host::start(&["slots=3", "preload=random,uuid,tempfile"]).await else { return };
    let code = "import random, uuid, tempfile, os, secrets\n\
                print(random.random(), uuid.uuid4(), tempfile.mktemp(), secrets.token_hex(), os.urandom(8))";
    let (one, other) = (host.python(code).await.text(), host.python(code).await.text());
    for (one, other) in one.split_whitespace().zip(other.split_whitespace()) {
        assert_ne!(one, other);
    }
}

#[tokio::test]
async fn unusable_requests_are_refused_with_a_reason() {
    let Some(host) = Host::start(&["slots=1", "patience=200", "running=1"]).await else { return };
    let refused = |execution: Execution| {
        let sandbox = host.sandbox.clone();
        async move { sandbox.execute(&execution).await.unwrap_err().to_string() }
    };
    assert_eq!(refused(Execution::new("nosuch", "1")).await, "there is no image \"nosuch\"; there is default");
    let mut execution = Execution::new("default", "1");
    execution.args = vec!["a\0b".to_owned()];
    assert!(refused(execution).await.contains("contains NUL"));
    for path in ["../x", "/etc/x", "a//b", "", "a/./b", "a\0b"] {
        let mut execution = Execution::new("default", "1");
        execution.files = vec![InputFile { path: path.to_owned(), content: Vec::new() }];
        assert!(refused(execution).await.contains("is no path"), "{path:?}");
    }
    host.python("print(1)").await.says("1\n");
}

#[tokio::test]
async fn one_connection_serves_one_execution_after_another() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    for number in 0..5 {
        let done = host.python(&format!("print({number})")).await;
        done.says(&format!("{number}\n"));
    }
    let mut running = host.sandbox.execute(&Execution::new("default", "print(1)")).await.unwrap();
    let mut kinds = Vec::new();
    while let Some(event) = running.next().await.unwrap() {
        kinds.push(match event {
            Event::Started { .. } => "started",
            Event::Stdout(_) => "stdout",
            Event::Stderr(_) => "stderr",
            Event::File(_) => "file",
            Event::End(_) => "end",
        });
    }
    assert_eq!(kinds, ["started", "stdout", "end"]);
    assert_eq!(running.next().await.unwrap(), None);
}
