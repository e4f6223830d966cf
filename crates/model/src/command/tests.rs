#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

fn lookup(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("5000".to_owned()),
        "OPTS" => Some(" --workers 2  --reload ".to_owned()),
        "EMPTY" => Some(String::new()),
        "HOSTILE" => Some("; rm -rf / $(id) *".to_owned()),
        _ => None,
    }
}

fn argv(text: &str) -> Vec<String> {
    text.parse::<CommandLine>().unwrap_or_else(|error| panic!("{text}: {error}")).expand(&lookup).1
}

fn refused(text: &str) -> String {
    match text.parse::<CommandLine>() {
        Ok(command) => panic!("{text:?} was taken as {command:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn words_are_split_as_a_shell_splits_them() {
    let cases: &[(&str, &[&str])] = &[
        ("gunicorn app:app", &["gunicorn", "app:app"]),
        ("  a \t b  ", &["a", "b"]),
        ("a 'b c' \"d e\" f\\ g", &["a", "b c", "d e", "f g"]),
        ("a '' \"\" b''c", &["a", "", "", "bc"]),
        (r#"a "x\"y" 'x\y' "x\y" "\\""#, &["a", "x\"y", r"x\y", r"x\y", r"\"]),
        ("web.py first.Procfile # a comment", &["web.py", "first.Procfile"]),
        ("a b#c '#d'", &["a", "b#c", "#d"]),
        ("exec gunicorn -b :$PORT", &["gunicorn", "-b", ":5000"]),
        ("'exec' a", &["exec", "a"]),
        ("a \\\n b", &["a", "b"]),
        ("a 'x\ny'\n", &["a", "x\ny"]),
        ("a\r\n", &["a"]),
        ("uvicorn 'app[x]' \"*\" \\?", &["uvicorn", "app[x]", "*", "?"]),
        ("a 5$ $ \"$\" x$/y", &["a", "5$", "$", "$", "x$/y"]),
        ("a {} b=c --x=~/y", &["a", "{}", "b=c", "--x=~/y"]),
    ];
    for (text, expected) in cases {
        assert_eq!(&argv(text), expected, "{text}");
    }
}

#[test]
fn variables_are_filled_in_and_unquoted_ones_split() {
    let cases: &[(&str, &[&str])] = &[
        ("a $PORT ${PORT} x${PORT}y $PORT.b", &["a", "5000", "5000", "x5000y", "5000.b"]),
        ("a '$PORT' \\$PORT", &["a", "$PORT", "$PORT"]),
        ("a ${NO:-8080} ${EMPTY:-1} ${PORT:-2}", &["a", "8080", "1", "5000"]),
        ("a $NO $EMPTY b", &["a", "b"]),
        ("a \"$NO\" \"$EMPTY\" b", &["a", "", "", "b"]),
        ("a $OPTS b", &["a", "--workers", "2", "--reload", "b"]),
        ("a x${OPTS}y", &["a", "x", "--workers", "2", "--reload", "y"]),
        ("a \"$OPTS\"", &["a", " --workers 2  --reload "]),
        ("a ${NO:-x y} \"${NO:-x y}\" ${NO:-} ${NO:-\\}}", &["a", "x", "y", "x y", "}"]),
        ("a ''$NO", &["a", ""]),
        ("$NO", &[""]),
    ];
    for (text, expected) in cases {
        assert_eq!(&argv(text), expected, "{text}");
    }
}

#[test]
fn a_hostile_value_is_only_ever_an_argument() {
    assert_eq!(argv("a \"$HOSTILE\""), ["a", "; rm -rf / $(id) *"]);
    assert_eq!(argv("a $HOSTILE"), ["a", ";", "rm", "-rf", "/", "$(id)", "*"]);
}

#[test]
fn assignments_belong_to_the_command_and_are_not_seen_by_its_words() {
    let command: CommandLine = "FOO=bar PORT=1 BOTH=\"$FOO $PORT\" STAR=* gunicorn $FOO $PORT A=b".parse().unwrap();
    let (env, argv) = command.expand(&lookup);
    let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(env, [("BOTH", "bar 1"), ("FOO", "bar"), ("PORT", "1"), ("STAR", "*")]);
    assert_eq!(argv, ["gunicorn", "5000", "A=b"]);
}

#[test]
fn what_needs_a_shell_is_refused_with_the_way_out() {
    for text in [
        "a | b",
        "a && b",
        "a || b",
        "a; b",
        "a & ",
        "a > f",
        "a < f",
        "a 2>&1",
        "`a`",
        "a `b`",
        "a $(b)",
        "a \"$(b)\"",
        "a \"`b`\"",
        "(a)",
        "cd x",
        "export A=b",
        "! a",
        "~/bin/x",
        "a ~",
        "A=~/x b",
        "a *.py",
        "a b?",
        "a [x]",
        "a\nb",
        "a $((1+1))",
    ] {
        let error = refused(text);
        assert!(error.contains("script") && error.contains(r#"["sh", "-c", "…"]"#), "{text}: {error}");
    }
    assert_eq!(
        refused("npm run build && npm start"),
        "&& at character 15 needs a shell, and commands run without one: put the line into a script, or write it as \
         [\"sh\", \"-c\", \"…\"] in coracle.toml"
    );
}

#[test]
fn half_commands_are_refused() {
    for text in [
        "",
        "  ",
        "# only a comment",
        "A=b",
        "exec",
        "a 'b",
        "a \"b",
        "a \\",
        "a ${",
        "a ${X",
        "a ${X:",
        "a ${X:-",
        "a ${X:-y",
        "a ${}",
        "a ${1}",
        "a $1",
        "a $@",
        "a $?",
        "a $$",
        "a ${X:?y}",
        "a ${X+y}",
        "a ${#X}",
        "a ${X:-$Y}",
        "a ${X:-'y'}",
        "a $'x'",
        "a\0b",
    ] {
        refused(text);
    }
    refused(&"a".repeat(LONGEST + 1));
    refused(&format!("a ${}", "X".repeat(200)));
}

#[test]
fn a_literal_vector_is_not_expanded() {
    let command = CommandLine::literal(vec!["sh".into(), "-c".into(), "echo $PORT && *".into()]).unwrap();
    assert_eq!(command.expand(&lookup).1, ["sh", "-c", "echo $PORT && *"]);
    assert_eq!(command.to_string(), "sh -c 'echo $PORT && *'");
    for bad in [vec![], vec![String::new()], vec!["a\0".to_owned()]] {
        assert!(CommandLine::literal(bad).is_err());
    }
}

#[test]
fn a_command_survives_its_serialized_form() {
    let command: CommandLine = "A=1 gunicorn \"$X\" ${Y:-z}".parse().unwrap();
    let json = serde_json::to_string(&command).unwrap();
    assert_eq!(serde_json::from_str::<CommandLine>(&json).unwrap(), command);
}

/// What a real shell makes of these words, as arguments of a program.
fn as_the_shell_splits(words: &str) -> Option<Vec<String>> {
    let mut shell = std::process::Command::new("/bin/sh");
    // `-f`: no file name patterns, which ours does not know either.
    shell.args(["-f", "-c", &format!("exec /usr/bin/printf '%s\\0' {words}")]).env_clear();
    for name in ["PORT", "OPTS", "EMPTY", "HOSTILE"] {
        shell.env(name, lookup(name).unwrap());
    }
    let output = shell.stderr(std::process::Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.split_terminator('\0').map(str::to_owned).collect())
}

proptest! {
    #[test]
    fn what_is_taken_is_what_a_shell_would_make_of_it(
        words in r#"([ab =:/\-,é]|['"]|\\[ab $"'\\}]|#|\$(PORT|OPTS|NO|EMPTY|HOSTILE)|\$\{(PORT|NO|OPTS)(:-[a \-b]{0,3})?\}|\$){0,12}"#,
    ) {
        let words = format!("x {words}");
        if let Ok(command) = words.parse::<CommandLine>() {
            prop_assert_eq!(Some(command.expand(&lookup).1), as_the_shell_splits(&words), "{}", words);
        }
    }

    #[test]
    fn reading_never_panics_and_what_is_read_survives_a_round_trip(text in ".{0,60}") {
        if let Ok(command) = text.parse::<CommandLine>() {
            prop_assert_eq!(command.to_string().parse::<CommandLine>(), Ok(command));
        }
    }

    #[test]
    fn so_it_is_with_text_made_of_what_is_special(text in r#"([ab =$\{\}:\-'"\\#~.!\n\r]|\$\{A:-|exec |\$A|cd ){0,14}"#) {
        if let Ok(command) = text.parse::<CommandLine>() {
            let (_, argv) = command.expand(&lookup);
            prop_assert!(!argv.is_empty());
            prop_assert_eq!(command.to_string().parse::<CommandLine>(), Ok(command));
        }
    }

    #[test]
    fn literal_vectors_survive_a_round_trip(argv in prop::collection::vec("[^\0]{1,8}", 1..5)) {
        let command = CommandLine::literal(argv.clone()).unwrap();
        let again: CommandLine = command.to_string().parse().unwrap();
        prop_assert_eq!(again.expand(&lookup).1, argv);
    }
}
