//! Rows about programs: what is executed and what must come of it, and requests that must be taken or refused. They go to a
//! real server over HTTP, by its own API and, where a row was written for another program's, by that one's.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::cases::{Row, text};
use crate::pyrunner::PyRunner;
use crate::report::Verdict;
use crate::wire::Answer;

/// Time from start to end, as the server grants it when nothing is asked for.
const WALL: Duration = Duration::from_secs(10);

/// What a program that was executed left behind.
#[derive(Debug)]
struct Done {
    answer: Value,
    took: Duration,
}

pub(crate) async fn verdict(row: &Row, server: &PyRunner) -> Verdict {
    if text(row, "code").is_none() {
        return asked(row, server).await;
    }
    let before = match row["expect"].get("host") {
        Some(_) => Some(server.settled().await.map_err(|error| format!("{error:#}"))?),
        None => None,
    };
    for time in 1..=row["repeat"].as_u64().unwrap_or(1) {
        let done = execute(row, server).await?;
        check(&row["expect"], &done).map_err(|why| format!("{why}, the {time}. time, in {}", shortened(&done.answer)))?;
    }
    match before {
        Some(before) => server.quiet(before).await.map_err(|error| format!("{error:#}")),
        None => Ok(()),
    }
}

/// The start of an answer; a program may have written much.
fn shortened(answer: &Value) -> String {
    let whole = answer.to_string();
    let end = (0..=whole.len().min(600)).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
    whole[..end].to_owned()
}

async fn execute(row: &Row, server: &PyRunner) -> Result<Done, String> {
    let mut body = Map::new();
    for name in ["code", "stdin", "args", "env", "limits"] {
        if let Some(value) = row.get(name).filter(|value| !value.is_null()) {
            body.insert(name.to_owned(), value.clone());
        }
    }
    let files = match &row["files"] {
        Value::Object(files) => files.iter().map(|(name, content)| json!({ "name": name, "content": content })).collect(),
        Value::Array(files) => files.clone(),
        _ => Vec::new(),
    };
    body.insert("files".to_owned(), Value::Array(files));
    body.insert("collect".to_owned(), json!(["**"]));
    let started = Instant::now();
    let answer = send(server, "POST", "/execute", Some("application/json"), &Value::Object(body).to_string()).await?;
    if answer.status != 200 {
        return Err(format!("it was not executed: {} {}", answer.status, answer.body));
    }
    let value = serde_json::from_str(&answer.body).map_err(|error| format!("the answer is not JSON: {error}"))?;
    Ok(Done { answer: value, took: started.elapsed() })
}

async fn send(server: &PyRunner, method: &str, path: &str, media_type: Option<&str>, body: &str) -> Result<Answer, String> {
    server.ask(method, path, media_type, body.as_bytes()).await.map_err(|error| format!("{error:#}"))
}

/// Everything that a row expects; what is not understood is not passed over.
fn check(expect: &Value, done: &Done) -> Verdict {
    let expect = expect.as_object().ok_or("the row expects nothing")?;
    expect.iter().try_for_each(|(what, value)| expectation(what, value, done))
}

fn expectation(what: &str, value: &Value, done: &Done) -> Verdict {
    let answer = &done.answer;
    match what {
        "outcome" => outcome(value.as_str().unwrap_or_default(), answer),
        "exit_code" => is(what, value, &answer["exit_code"]),
        "exit_code_in" => {
            let codes = ways_to_tell(answer);
            let expected = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let found = expected.iter().filter_map(Value::as_i64).any(|code| codes.contains(&code));
            if found { Ok(()) } else { Err(format!("expected one of the exit codes {value}, got {codes:?}")) }
        }
        "signal" => is(what, value, &answer["signal"]),
        "within" => within(value.as_str().unwrap_or_default(), done.took),
        // What is left on the machine is looked at when everything else has been.
        "host" => Ok(()),
        _ => match what.split_once("_not_contain") {
            Some((of, "" | "s")) => contains(of, value, answer, false),
            _ => match what.strip_suffix("_contains").or_else(|| what.strip_suffix("_contain")) {
                Some(of) => contains(of, value, answer, true),
                None if matches!(what, "stdout" | "stderr" | "output") => is(what, value, &answer[what]),
                None => Err(format!("the row expects {what}, which is not understood here")),
            },
        },
    }
}

fn is(what: &str, expected: &Value, got: &Value) -> Verdict {
    if expected == got { Ok(()) } else { Err(format!("expected {what} {expected}, got {got}")) }
}

/// One of the words that `_or_` stands between.
fn outcome(expected: &str, answer: &Value) -> Verdict {
    let reason = answer["reason"].as_str().unwrap_or_default();
    let truncated = ["stdout", "stderr"].iter().any(|stream| answer["truncated"][stream] == true);
    let holds = |word: &str| match word {
        "ok" => reason == "ok",
        "error" => matches!(reason, "exit_nonzero" | "signal"),
        "signal" | "crash" => reason == "signal",
        "timeout" => matches!(reason, "timeout" | "cpu_limit"),
        "oom" | "memory" => reason == "oom",
        "output_limit" | "truncated" => truncated || reason == "output_limit",
        "file_error" => answer["truncated"]["files"] == true,
        _ => false,
    };
    if expected.split("_or_").any(holds) { Ok(()) } else { Err(format!("expected outcome {expected}, got {reason}")) }
}

/// An exit code as ours, as a shell has it, and as Python's subprocess has it.
fn ways_to_tell(answer: &Value) -> Vec<i64> {
    let number =
        answer["message"].as_str().and_then(|message| message.split_once("(signal ")?.1.trim_end_matches(')').parse().ok());
    let killed = matches!(answer["reason"].as_str(), Some("timeout" | "cpu_limit" | "oom" | "output_limit")).then_some(9);
    match (answer["exit_code"].as_i64(), number.or(killed)) {
        (Some(code), _) => vec![code],
        (None, Some(signal)) => vec![128 + signal, -signal],
        (None, None) => Vec::new(),
    }
}

/// `limit + 2 s`, or `3 s`.
fn within(bound: &str, took: Duration) -> Verdict {
    let seconds: f64 = bound.split_whitespace().filter_map(|word| word.trim_end_matches('s').parse::<f64>().ok()).sum();
    let limit = if bound.contains("limit") { WALL } else { Duration::ZERO };
    let most = limit + Duration::from_secs_f64(seconds);
    if took <= most { Ok(()) } else { Err(format!("expected an answer within {bound}, it took {took:?}")) }
}

/// Whether a text, or each one of several, is or is not in a stream, or in any file that came back.
fn contains(of: &str, value: &Value, answer: &Value, wanted: bool) -> Verdict {
    let text = match of {
        "stdout" | "stderr" | "output" => answer[of].as_str().unwrap_or_default().to_owned(),
        "files" => answer["files"].to_string(),
        _ => return Err(format!("the row expects something of {of}, which is not understood here")),
    };
    let parts = match value {
        Value::Array(parts) => parts.iter().collect(),
        part => vec![part],
    };
    for part in parts.into_iter().filter_map(Value::as_str) {
        if text.contains(part) != wanted {
            let expected = if wanted { "with" } else { "without" };
            return Err(format!("expected {of} {expected} {part:?}"));
        }
    }
    Ok(())
}

/// A request that must be answered with a status. One that says nothing about which API it is for goes to each.
async fn asked(row: &Row, server: &PyRunner) -> Verdict {
    let expected = row["expect_status"].as_u64().ok_or("the row expects no status")?;
    let requests = match text(row, "path") {
        Some(path) => with_file(path),
        None => as_written(row),
    };
    for (method, path, media_type, body) in requests {
        let answer = send(server, &method, path, media_type.as_deref(), &body).await?;
        if u64::from(answer.status) != expected {
            return Err(format!("{method} {path}: expected status {expected}, got {}: {}", answer.status, answer.body));
        }
    }
    Ok(())
}

type Sent = (String, &'static str, Option<String>, String);

/// A program with a file at this path.
fn with_file(path: &str) -> Vec<Sent> {
    let ours = json!({ "code": "pass", "files": [{ "name": path, "content": "" }] });
    let others = json!({ "input": "pass", "files": [{ "path": path, "content": "" }] });
    let sent = |path, body: Value| ("POST".to_owned(), path, Some("application/json".to_owned()), body.to_string());
    vec![sent("/execute", ours), sent("/eval", others)]
}

fn as_written(row: &Row) -> Vec<Sent> {
    let body =
        text(row, "body").map_or_else(|| row["body"].as_object().map(|_| row["body"].to_string()), |body| Some(body.to_owned()));
    let method = text(row, "method").unwrap_or(if body.is_some() { "POST" } else { "GET" });
    let fields: Value = body.as_deref().and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default();
    let endpoints: &[&'static str] = if fields.get("code").is_some() {
        &["/execute"]
    } else if fields.get("input").is_some() || fields.get("args").is_some() || method == "OPTIONS" {
        &["/eval"]
    } else {
        &["/execute", "/eval"]
    };
    let media_type = text(row, "content_type").map(str::to_owned);
    let sent = |path: &&'static str| (method.to_owned(), *path, media_type.clone(), body.clone().unwrap_or_default());
    endpoints.iter().map(sent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(answer: Value) -> Done {
        Done { answer, took: Duration::from_secs(11) }
    }

    #[test]
    fn what_is_expected_is_looked_at_and_nothing_is_passed_over() {
        let crashed = done(json!({ "reason": "signal", "exit_code": null, "message": "ended by SIGSEGV (signal 11)",
            "stdout": "a\n", "truncated": {}, "files": [] }));
        for holds in [
            json!({ "outcome": "error", "exit_code_in": [139] }),
            json!({ "outcome": "ok_or_signal", "exit_code_in": [-11], "stdout": "a\n" }),
            json!({ "within": "limit + 2 s", "stdout_contains": ["a"], "stdout_not_contains": "b", "files_not_contain": "c" }),
        ] {
            assert_eq!(check(&holds, &crashed), Ok(()), "{holds}");
        }
        for fails in [
            json!({ "outcome": "ok" }),
            json!({ "outcome": "nonsense" }),
            json!({ "exit_code_in": [137] }),
            json!({ "exit_code": 0 }),
            json!({ "within": "5 s" }),
            json!({ "stdout": "a" }),
            json!({ "stdout_contains": ["a", "b"] }),
            json!({ "stdout_not_contains": "a" }),
            json!({ "colour": "red" }),
            json!({ "colour_contains": "red" }),
        ] {
            assert!(check(&fails, &crashed).is_err(), "{fails}");
        }
    }

    #[test]
    fn requests_go_where_they_were_written_for() {
        let paths =
            |row: Value| as_written(&row).into_iter().map(|(method, path, ..)| format!("{method} {path}")).collect::<Vec<_>>();
        assert_eq!(paths(json!({ "body": "{\"input\":\"\"}" })), ["POST /eval"]);
        assert_eq!(paths(json!({ "body": "{\"code\":7}" })), ["POST /execute"]);
        assert_eq!(paths(json!({ "body": "{\"stuff\":1}" })), ["POST /execute", "POST /eval"]);
        assert_eq!(paths(json!({ "body": null })), ["GET /execute", "GET /eval"]);
    }
}
