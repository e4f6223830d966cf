//! snekbox's endpoint as its clients see it.

use serde_json::{Value, json};

use crate::host::{Host, possible};

#[test]
fn its_clients_find_what_they_know() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--rate", "0", "--cpu", "1s"]);
    let eval = |body: Value| {
        let answer = server.post("/eval", &body);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
        answer.json()
    };
    let program = "import sys, os\nprint('out')\nprint('err', file=sys.stderr)\nopen('made.txt', 'w').write('made')\n\
                   open('_hidden', 'w').write('')\nopen('given', 'a').write('!')\nos.symlink('/etc/passwd', 'link')";
    let answer =
        eval(json!({ "input": program, "files": [{ "path": "given", "content": "aGk=" }, { "path": "same", "content": "" }] }));
    insta::assert_snapshot!(serde_json::to_string_pretty(&answer).unwrap(), @r#"
    {
      "files": [
        {
          "content": "aGkh",
          "path": "given",
          "size": 3
        },
        {
          "content": "bWFkZQ==",
          "path": "made.txt",
          "size": 4
        }
      ],
      "returncode": 0,
      "stdout": "out\nerr\n"
    }
    "#);
    let simple = |stdout: &str, returncode: i32| json!({ "stdout": stdout, "returncode": returncode, "files": [] });
    assert_eq!(eval(json!({ "args": ["-c", "import sys; print(sys.argv[1:])", "a"] })), simple("['a']\n", 0));
    let main =
        json!([{ "path": "main.py", "content": "aW1wb3J0IGxpYg==" }, { "path": "lib.py", "content": "cHJpbnQoX19uYW1lX18p" }]);
    assert_eq!(eval(json!({ "args": ["main.py"], "files": main })), simple("lib\n", 0));
    // Anything else that an interpreter can be told is told to one.
    assert_eq!(eval(json!({ "args": ["-m", "main"], "files": main })), simple("lib\n", 0));
    assert_eq!(eval(json!({ "input": "print(__debug__)", "args": ["-O", "-c"] })), simple("False\n", 0));
    assert_eq!(eval(json!({ "input": "import main", "files": main })), simple("lib\n", 0));
    let timed = eval(json!({ "input": "1", "args": ["-m", "timeit", "-n", "10"] }));
    assert!(timed["stdout"].as_str().unwrap().starts_with("10 loops, best of 5:"), "{timed}");
    let nowhere = eval(json!({ "args": ["nowhere.py"] }));
    assert!(nowhere["returncode"] == 2 && nowhere["stdout"].as_str().unwrap().contains("can't open file"), "{nowhere}");
    // As a shell has it.
    assert_eq!(eval(json!({ "input": "import sys; sys.exit(3)" })), simple("", 3));
    assert_eq!(eval(json!({ "input": "import ctypes; ctypes.string_at(0)" }))["returncode"], 139);
    assert_eq!(eval(json!({ "input": "while True: pass" })), simple("", 137));
}

#[test]
fn it_refuses_in_its_own_words() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--rate", "0"]);
    let refused = server.post("/eval", &json!({ "stuff": "foo" }));
    insta::assert_snapshot!(format!("{} {}", refused.status, refused.text()), @r#"400 {"title":"Request data failed validation","description":"'input' or 'args' is a required property"}"#);
    let typed = server.call("POST", "/eval", &[("content-type", "application/xml")], b"{'input': 'foo'}");
    insta::assert_snapshot!(format!("{} {}", typed.status, typed.text()), @r#"415 {"title":"415 Unsupported Media Type","description":"application/xml is an unsupported media type."}"#);
    assert_eq!(server.get("/eval").status, 405);
    let options = server.call("OPTIONS", "/eval", &[], b"");
    assert_eq!((options.status, options.header("allow")), (200, Some("POST")));
}
