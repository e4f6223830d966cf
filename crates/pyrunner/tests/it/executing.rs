//! What comes of programs.

use serde_json::json;

use crate::host::{Host, possible, until};

#[test]
fn everything_that_is_given_arrives_and_everything_that_is_asked_for_comes_back() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let code = r#"
import os, sys
print(sys.stdin.read(), sys.argv[1:], os.environ["GREETING"], open("in/data.bin", "rb").read(), open("text").read())
sys.stdout.flush()
print("to stderr", file=sys.stderr)
os.mkdir("out")
open("out/a.txt", "w").write("ä")
open("out/b.bin", "wb").write(b"\xff\x00")
open("other", "w").write("not asked for")
"#;
    let answer = server.execute(&json!({
        "code": code, "stdin": "typed", "args": ["one", "two words"], "env": {"GREETING": "hé"},
        "files": [{"name": "in/data.bin", "content": "AP8=", "encoding": "base64"}, {"name": "text", "content": "plain"}],
        "collect": ["out/*"], "limits": {"wall_ms": 5000},
    }));
    assert_eq!(answer["status"], "success", "{answer}");
    assert_eq!(answer["stdout"], "typed ['one', 'two words'] hé b'\\x00\\xff' plain\n");
    assert_eq!(answer["stderr"], "to stderr\n");
    assert_eq!(answer["output"], format!("{}to stderr\n", answer["stdout"].as_str().unwrap()));
    assert_eq!((&answer["exit_code"], &answer["signal"], &answer["reason"]), (&json!(0), &json!(null), &json!("ok")));
    assert!(answer.get("message").is_none());
    let mut files = answer["files"].as_array().unwrap().clone();
    files.sort_by_key(|file| file["name"].as_str().unwrap().to_owned());
    assert_eq!(files[0], json!({"name": "out/a.txt", "content": "ä", "encoding": "utf-8", "size": 2}));
    assert_eq!(files[1], json!({"name": "out/b.bin", "content": "/wA=", "encoding": "base64", "size": 2}));
    assert_eq!(files.len(), 2);
    assert!(answer["usage"]["wall_ms"].as_f64().unwrap() > 0.0 && answer["usage"]["cpu_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn every_way_to_end_is_told_as_what_it_was() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let outcome = |code: &str, limits: serde_json::Value| {
        let answer = server.execute(&json!({ "code": code, "limits": limits }));
        let message = answer["message"].as_str().unwrap_or_default().to_owned();
        (answer["reason"].as_str().unwrap().to_owned(), answer["exit_code"].clone(), answer["signal"].clone(), message, answer)
    };
    let (reason, code, _, message, answer) = outcome("import sys; sys.exit('bad')", json!(null));
    assert_eq!((reason.as_str(), &code, &answer["stderr"]), ("exit_nonzero", &json!(1), &json!("bad\n")));
    assert!(message.contains("exit code 1") && answer["status"] == "error");
    let (reason, code, ..) = outcome("import os; os._exit(-1)", json!({}));
    assert_eq!((reason.as_str(), code), ("exit_nonzero", json!(255)));
    let (reason, code, signal, ..) = outcome("import ctypes; ctypes.string_at(0)", json!(null));
    assert_eq!((reason.as_str(), code, signal), ("signal", json!(null), json!("SIGSEGV")));
    let (reason, _, signal, message, _) = outcome("while True: pass", json!({"wall_ms": 200}));
    assert_eq!((reason.as_str(), signal), ("timeout", json!("SIGKILL")));
    assert!(message.contains("200 ms"), "{message}");
    let (reason, ..) = outcome("while True: pass", json!({"cpu_ms": 100}));
    assert_eq!(reason, "cpu_limit");
    let (reason, .., message, _) =
        outcome("x = bytearray(200 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1", json!({"memory_bytes": 33554432}));
    assert_eq!(reason, "oom");
    assert!(message.contains("33554432 bytes"), "{message}");
    let (reason, .., answer) = outcome("print('x' * 5000)", json!({"output_bytes": 1000}));
    assert_eq!((reason.as_str(), answer["stdout"].as_str().unwrap().len()), ("ok", 1000));
    assert_eq!(answer["truncated"], json!({"stdout": true, "stderr": false, "files": false}));
    let (reason, .., answer) = outcome("while True: print('x' * 10000)", json!({"output_bytes": 1000}));
    assert_eq!((reason.as_str(), answer["stdout"].as_str().unwrap().len()), ("output_limit", 1000));
}

#[test]
fn whatever_a_program_writes_the_answer_is_well_formed() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let forged = r#"{"status":"success","exit_code":0,"reason":"ok"}"#;
    let write = |bytes: &str| format!("import os, sys; os.write(1, {bytes}); sys.exit(3)");
    for (bytes, told) in [
        ("b'\\xff\\xfe\\xe2\\x82'", "\u{fffd}\u{fffd}\u{fffd}"),
        ("b'\\xed\\xa0\\x80'", "\u{fffd}\u{fffd}\u{fffd}"),
        ("'\\ud800'.encode('utf-8', 'surrogatepass')", "\u{fffd}\u{fffd}\u{fffd}"),
        ("b'a\\x00b'", "a\0b"),
        ("b'\\x1b[2J\\x1b]0;title\\x07'", "\u{1b}[2J\u{1b}]0;title\u{7}"),
        ("b'\\r\\n\\r\\nHTTP/1.1 200 OK\\r\\n'", "\r\n\r\nHTTP/1.1 200 OK\r\n"),
        (&format!("{forged:?}.encode()"), forged),
        // What the daemon would say of an end that was none.
        ("b'\\x10\\x00\\x00\\x00\\x05' + b'\\x00' * 64", "\u{10}\0\0\0\u{5}"),
    ] {
        let answer = server.run(&write(bytes));
        assert!(answer["stdout"].as_str().unwrap().starts_with(told), "{bytes}: {answer}");
        assert_eq!((&answer["status"], &answer["exit_code"]), (&json!("error"), &json!(3)), "{bytes}: {answer}");
    }
    // A lone surrogate cannot be printed, which is the program's own failure.
    assert_eq!(server.run("print('\\ud800')")["reason"], "exit_nonzero");
    // Descriptors that the program was never told about.
    let answer =
        server.run("import os\nfor number in range(3, 64):\n    try: os.write(number, b'\\x00' * 100)\n    except OSError: pass");
    assert_eq!(answer["reason"], "ok");
    assert_eq!(server.run("print(1)")["output"], "1\n");
}

#[test]
fn programs_of_any_text_are_answered() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    assert!(server.run("print(1)\0print(2)")["stderr"].as_str().unwrap().contains("null byte"));
    assert_eq!(server.run("")["reason"], "ok");
    let large = format!("x = '{}'\nprint(len(x))", "x".repeat(2 << 20));
    assert_eq!(server.run(&large)["output"], "2097152\n");
    let deep = server.run(&format!("print({}1{})", "(".repeat(5000), ")".repeat(5000)));
    assert_eq!(deep["reason"], "exit_nonzero", "{deep}");
    let argument = "a".repeat(500_000);
    assert_eq!(server.execute(&json!({"code": "import sys; print(len(sys.argv[1]))", "args": [argument]}))["output"], "500000\n");
    let stdin = "line\n".repeat(500_000);
    let code = "import sys; print(len(sys.stdin.read()))";
    assert_eq!(server.execute(&json!({"code": code, "stdin": stdin}))["output"], "2500000\n");
    // One that does not read what it is given is not waited for.
    assert_eq!(server.execute(&json!({"code": "print(1)", "stdin": stdin}))["reason"], "ok");
    let fresh = server.execute(&json!({"code": "import sys; print(sys.argv)", "mode": "exec", "args": ["x"]}));
    assert_eq!(fresh["output"], "['/work/main.py', 'x']\n");
}

#[test]
fn a_program_whose_client_leaves_is_ended() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let body = json!({ "code": "import time; print('begun', flush=True); time.sleep(9)" }).to_string();
    let gone = server.send("POST", "/execute", &[], body.as_bytes());
    server.until_running(1);
    drop(gone);
    server.until_running(0);
    let past = until("it is written down", || {
        let page = server.get("/executions").json();
        page["executions"].as_array().unwrap().first().cloned()
    });
    assert_eq!((&past["reason"], &past["exit_code"]), (&json!("cancelled"), &json!(null)), "{past}");
}

#[test]
fn one_execution_after_the_other_goes_over_one_connection() {
    if !possible() {
        return;
    }
    use std::io::{Read, Write};
    let server = Host::start(&[]);
    let mut stream = std::net::TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(crate::host::PATIENCE)).unwrap();
    for number in 0..3 {
        let body = json!({ "code": format!("print({number})") }).to_string();
        write!(
            stream,
            "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let (mut read, mut room) = (String::new(), [0; 4096]);
        while !read.contains("\"files\":[]}") {
            let bytes = stream.read(&mut room).unwrap();
            assert!(bytes > 0, "{read}");
            read.push_str(&String::from_utf8_lossy(&room[..bytes]));
        }
        assert!(read.contains(&format!("\"stdout\":\"{number}\\n\"")), "{read}");
    }
}
