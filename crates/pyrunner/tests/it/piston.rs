//! Piston's endpoints as its clients see them.

use serde_json::{Value, json};

use crate::host::{Host, possible};

/// What differs from run to run, as what it is.
fn shape(mut answer: Value) -> String {
    answer["version"] = json!(answer["version"].as_str().unwrap().split('.').filter(|part| part.parse::<u32>().is_ok()).count());
    for name in ["memory", "cpu_time", "wall_time"] {
        answer["run"][name] = json!(answer["run"][name].is_u64());
    }
    serde_json::to_string_pretty(&answer).unwrap()
}

#[test]
fn its_clients_find_what_they_know() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--rate", "0", "--wall", "10s"]);
    let runtimes = server.get("/api/v2/runtimes");
    assert_eq!((runtimes.status, runtimes.header("content-type")), (200, Some("application/json")));
    let runtime = &runtimes.json()[0];
    let version = runtime["version"].as_str().unwrap();
    assert_eq!(*runtime, json!({ "language": "python", "version": version, "aliases": ["py", "py3", "python3"] }));

    let execute = |rest: Value| {
        let mut body = json!({ "language": "py", "version": version });
        body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        let answer = server.post("/api/v2/execute", &body);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
        answer.json()
    };
    let program = "import sys, lib\nprint(lib.x, sys.argv[1:], repr(sys.stdin.read()), open('my_code.py').read(4))\n\
                   sys.stdout.flush()\nsys.exit('bye')";
    let files =
        json!([{ "name": "lib.py", "content": "eCA9IDQy", "encoding": "base64" }, { "name": "my_code.py", "content": program }]);
    let answer = execute(json!({ "files": files, "args": ["1", "zwei"], "stdin": "in", "run_timeout": 9000,
        "compile_timeout": 10000, "compile_memory_limit": -1, "run_memory_limit": -1 }));
    insta::assert_snapshot!(shape(answer), @r#"
    {
      "language": "python",
      "run": {
        "code": 1,
        "cpu_time": true,
        "memory": true,
        "message": "Exited with error status 1",
        "output": "42 ['1', 'zwei'] 'in\\n' impo\nbye\n",
        "signal": null,
        "status": "RE",
        "stderr": "bye\n",
        "stdout": "42 ['1', 'zwei'] 'in\\n' impo\n",
        "wall_time": true
      },
      "version": 3
    }
    "#);
    let answer = execute(json!({ "files": [{ "content": "while True: pass" }], "run_timeout": 300 }));
    insta::assert_snapshot!(shape(answer), @r#"
    {
      "language": "python",
      "run": {
        "code": null,
        "cpu_time": true,
        "memory": true,
        "message": "Time limit exceeded (wall clock)",
        "output": "",
        "signal": "SIGKILL",
        "status": "TO",
        "stderr": "",
        "stdout": "",
        "wall_time": true
      },
      "version": 3
    }
    "#);
    let crash = execute(json!({ "files": [{ "content": "import ctypes; ctypes.string_at(0)" }] }));
    assert_eq!(
        (&crash["run"]["signal"], &crash["run"]["code"], &crash["run"]["status"]),
        (&json!("SIGSEGV"), &Value::Null, &json!("SG"))
    );
    let flood = execute(json!({ "files": [{ "content": "print('x' * 2_000_000)" }] }));
    assert_eq!((&flood["run"]["status"], &flood["run"]["message"]), (&json!("OL"), &json!("stdout length exceeded")));
    assert_eq!(flood["run"]["stdout"].as_str().unwrap().len(), 1 << 20);
}

#[test]
fn it_refuses_in_its_own_words() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--rate", "3"]);
    let said = |answer: &crate::host::Answer| (answer.status, answer.json());
    let json_type = [("content-type", "application/json")];
    let refused = server.call("POST", "/api/v2/execute", &json_type, b"{");
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json().as_object().unwrap().keys().collect::<Vec<_>>(), ["message"]);
    let typed = server.call("POST", "/api/v2/execute", &[("content-type", "text/plain")], b"{}");
    assert_eq!(said(&typed), (415, json!({ "message": "requests must be of type application/json" })));
    let unknown = server.post("/api/v2/execute", &json!({ "language": "python", "version": "2", "files": [{ "content": "" }] }));
    assert_eq!(said(&unknown), (400, json!({ "message": "python-2 runtime is unknown" })));
    // The fourth call of three: the gate's refusal is told in the same way, and when it may be tried again.
    let late = server.post("/api/v2/execute", &json!({}));
    assert_eq!((late.status, late.header("content-type")), (429, Some("application/json")));
    assert!(late.json()["message"].as_str().unwrap().contains("calls an hour"), "{late:?}");
    assert!(
        late.header("retry-after").is_some_and(|seconds| seconds != "0") && late.header("ratelimit-remaining") == Some("0"),
        "{late:?}"
    );
    // What costs nothing is not counted.
    assert_eq!(server.get("/api/v2/runtimes").status, 200);
}
