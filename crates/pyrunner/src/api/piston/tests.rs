//! What is taken from Piston's clients, and in which words the rest is refused.
#![allow(clippy::unwrap_used)]

use super::*;

fn taken(body: &str) -> Result<ProgramBody, String> {
    let highest = Limits::default();
    let sent = read(body.as_bytes()).map_err(|problem| problem.detail)?;
    let program = || {
        sent.wanted()?;
        sent.check_files()?;
        sent.into_program(&highest, "default")
    };
    program().map_err(|problem| problem.detail)
}

fn refused(body: &str) -> String {
    taken(body).unwrap_err()
}

#[test]
fn the_first_text_is_the_program_and_the_rest_is_beside_it() {
    let program = taken(
        r#"{"language":"python","version":"*","args":["1"],"run_timeout":3000,"compile_timeout":10000,"compile_memory_limit":-1,
            "run_memory_limit":-1,"unknown":[1],"files":[{"content":"AP8","encoding":"base64"},{"name":"x/../my_code.py",
            "content":"print(1)"},{"name":"b","content":"00fF","encoding":"hex"},{"content":"é","encoding":"latin1"}]}"#,
    )
    .unwrap();
    assert_eq!((program.code.as_str(), program.stdin.as_deref()), ("print(1)", Some("\n")));
    let files = program.files.unwrap();
    let placed: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.content.as_str())).collect();
    assert_eq!(placed, [("file0.code", "AP8="), ("my_code.py", "print(1)"), ("b", "AP8="), ("file3.code", "é")]);
    let limits = program.limits.unwrap();
    assert_eq!((limits.wall_ms, limits.memory_bytes, limits.cpu_ms), (Some(3000), None, None));
}

#[test]
fn a_program_called_main_is_placed_once() {
    let body = r#"{"language":"py","version":"3","files":[{"name":"./main.py","content":"1"}],"stdin":"a\n"}"#;
    let program = taken(body).unwrap();
    assert_eq!((program.code.as_str(), program.stdin.as_deref(), program.files), ("1", Some("a\n"), Some(Vec::new())));
}

#[test]
fn what_is_wrong_is_told_in_its_words() {
    let whole = |rest: &str| format!(r#"{{"language":"python","version":"*","files":[{{"content":""}}]{rest}}}"#);
    for (body, message) in [
        ("{}".to_owned(), "language is required as a string"),
        (r#"{"language":7}"#.to_owned(), "language is required as a string"),
        (r#"{"language":"python"}"#.to_owned(), "version is required as a string"),
        (r#"{"language":"python","version":3}"#.to_owned(), "version is required as a string"),
        (r#"{"language":"python","version":"3"}"#.to_owned(), "files is required as an array"),
        (r#"{"language":"python","version":"3","files":{}}"#.to_owned(), "files is required as an array"),
        (r#"{"language":"python","version":"3","files":[{}]}"#.to_owned(), "files[0].content is required as a string"),
        (
            r#"{"language":"python","version":"3","files":[{"content":""},{"content":1}]}"#.to_owned(),
            "files[1].content is required as a string",
        ),
        (
            r#"{"language":"python","version":"3","files":[{"content":"","encoding":"hex"}]}"#.to_owned(),
            "files must include at least one utf8 encoded file",
        ),
        (r#"{"language":"python","version":"3","files":[]}"#.to_owned(), "files must include at least one utf8 encoded file"),
        (whole(r#","run_timeout":"3000""#), "If specified, run_timeout must be a number"),
        (whole(r#","run_timeout":10001"#), "run_timeout cannot exceed the configured limit of 10000"),
        (whole(r#","run_timeout":-1"#), "run_timeout must be non-negative"),
        (whole(r#","run_memory_limit":1e12"#), "run_memory_limit cannot exceed the configured limit of 268435456"),
    ] {
        assert_eq!(refused(&body), message, "{body}");
    }
    assert!(refused("{").starts_with("the body is not JSON"));
    assert!(refused("[]").starts_with("a JSON object is required"));
    let escaping = r#"{"language":"python","version":"3","files":[{"name":"../a","content":""}]}"#;
    assert_eq!(refused(escaping), "File path \"../a\" tries to escape parent directory");
}

#[test]
fn zero_means_the_servers_own_limit_and_small_ones_are_possible() {
    let body =
        r#"{"language":"py","version":"3","files":[{"content":""}],"run_timeout":0,"run_memory_limit":1,"run_cpu_time":0.5}"#;
    let limits = taken(body).unwrap().limits.unwrap();
    assert_eq!((limits.wall_ms, limits.cpu_ms, limits.memory_bytes), (None, Some(1), Some(Limits::LEAST_MEMORY)));
}

#[test]
fn images_are_runtimes() {
    let image = |name: &str, interpreter: &str| ImageInfo {
        name: name.to_owned(),
        interpreter: interpreter.to_owned(),
        ready: 1,
        slots: 1,
        trouble: None,
    };
    let images = [image("default", "cpython 3.11.2"), image("numpy", "cpython 3.13.0rc1"), image("late", "")];
    let runtimes: Vec<_> = images.iter().filter_map(|image| PistonRuntime::of(image, "default")).collect();
    let listed = serde_json::to_string(&runtimes).unwrap();
    assert_eq!(
        listed,
        r#"[{"language":"python","version":"3.11.2","aliases":["py","py3","python3"]},{"language":"python-numpy","version":"3.13.0","aliases":["numpy"]}]"#
    );
    let image_of = |language, version| chosen(runtimes.clone(), language, version).map(|runtime| runtime.image);
    assert_eq!(image_of("py", "^3.10").unwrap(), "default");
    assert_eq!(image_of("numpy", "*").unwrap(), "numpy");
    assert_eq!(image_of("python", "2").unwrap_err().detail, "python-2 runtime is unknown");
    assert_eq!(image_of("java", "*").unwrap_err().detail, "java-* runtime is unknown");
}
