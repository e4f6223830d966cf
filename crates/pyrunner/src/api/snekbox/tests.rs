//! What is taken from snekbox's clients, and how it is carried out.
#![allow(clippy::unwrap_used)]

use super::*;

fn taken(body: &str) -> Result<(ProgramBody, Files), String> {
    let sent: Result<SnekboxBody, _> = read_json(body.as_bytes());
    sent.and_then(SnekboxBody::into_program).map_err(|problem| problem.detail)
}

fn called_with(args: &[&str], files: &[(&str, &str)]) -> Called {
    let files = files.iter().map(|(path, content)| ((*path).to_owned(), content.as_bytes().to_vec())).collect();
    called(args.iter().map(|argument| (*argument).to_owned()).collect(), &files)
}

#[test]
fn arguments_are_the_interpreters() {
    let program = called_with(&["-c", "print(1)", "a"], &[]);
    assert_eq!((program.call, program.code.as_str(), program.args), (Call::Program, "print(1)", vec!["a".to_owned()]));
    let program = called_with(&["./x/../lib.py", "a"], &[("lib.py", "import sys")]);
    assert_eq!((program.call, program.code.as_str(), program.args), (Call::Program, "import sys", vec!["a".to_owned()]));
    for args in [&["-m", "timeit"][..], &["-c"], &["nowhere.py"], &["-O", "-c", "1"], &[]] {
        let program = called_with(args, &[]);
        assert_eq!((program.call, program.args.len()), (Call::Interpreter, args.len()), "{args:?}");
    }
    // A file with the program's own name is either the program or beside another one.
    let files = [("main.py", "1"), ("lib.py", "2")];
    assert_eq!(called_with(&["main.py"], &files).call, Call::Program);
    assert_eq!(called_with(&["lib.py"], &files).call, Call::Interpreter);
    assert_eq!(called_with(&["-c", "import main"], &files).call, Call::Interpreter);
}

#[test]
fn input_is_the_last_argument() {
    let (program, _) = taken(r#"{"input":"print(1)"}"#).unwrap();
    assert_eq!((program.code.as_str(), program.args), ("print(1)", Some(Vec::new())));
    let (program, _) = taken(r#"{"input":"pass","args":["","-m","timeit"]}"#).unwrap();
    assert_eq!(program.args, Some(["-m", "timeit", "pass"].map(str::to_owned).into()));
}

#[test]
fn a_file_with_the_programs_name_gets_it_when_the_program_has_made_way() {
    let body = r#"{"args":["-m","main"],"files":[{"path":"main.py","content":"MQ=="},{"path":".main.py"}]}"#;
    let (program, _) = taken(body).unwrap();
    let names: Vec<_> = program.files.unwrap().into_iter().map(|file| file.name).collect();
    assert_eq!(names, [".main.py", ".main.py_"]);
    assert!(program.code.contains(r#"os.rename(".main.py_", "main.py")"#), "{}", program.code);
    let (program, _) = taken(r#"{"args":["main.py"],"files":[{"path":"main.py","content":"MQ=="}]}"#).unwrap();
    assert_eq!((program.code.as_str(), program.files), ("1", Some(Vec::new())));
}

#[test]
fn what_cannot_be_taken_is_told() {
    for (body, told) in [
        (r#"{"stuff":"foo"}"#, "'input' or 'args'"),
        (r#"{"input":400}"#, "input: invalid type"),
        (r#"{"args":400}"#, "args: invalid type"),
        (r#"{"args":[],"files":[215]}"#, "files[0]"),
        (r#"{"input":"","files":[{"path":"/a"}]}"#, "must be relative"),
        (r#"{"input":"","files":[{"path":"a\u0000b"}]}"#, "NUL"),
        (r#"{"input":"","files":[{"path":"dir/../../secret"}]}"#, "beyond root"),
        (r#"{"input":"","files":[{"path":"a","content":"A"}]}"#, "Invalid base64"),
        (r#"{"input":"","files":[{"content":"A"}]}"#, "missing field `path`"),
    ] {
        let refused = taken(body).unwrap_err();
        assert!(refused.contains(told), "{body}: {refused}");
    }
}

#[test]
fn files_come_back_when_they_are_new_or_changed_and_not_hidden() {
    let given = Files::from([("in".to_owned(), b"same".to_vec()), ("both".to_owned(), b"old".to_vec())]);
    let shown = |name: &str, content: &str| {
        let file = CollectedFile {
            name: name.to_owned(),
            name_base64: None,
            content: content.to_owned(),
            encoding: Encoding::Utf8,
            size: content.len(),
        };
        SnekboxOutput::of(file, &given).map(|file| file.content)
    };
    assert_eq!(shown("both", "new").as_deref(), Some("bmV3"));
    assert_eq!(shown("_dir/a.txt", "a").as_deref(), Some("YQ=="));
    for (name, content) in [("in", "same"), (".a", ""), ("a/.b/c", ""), ("d/_e", ""), ("__pycache__/lib.pyc", "")] {
        assert_eq!(shown(name, content), None, "{name}");
    }
}
