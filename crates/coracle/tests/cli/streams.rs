//! What programs write, and what happens when nobody reads it.

use std::io::{BufRead, BufReader, Read};

use serde_json::json;

use crate::program::Desk;
use crate::scripted::Scripted;

const NDJSON: &str = "application/x-ndjson";

#[test]
fn run_passes_both_streams_and_the_exit_code_through() {
    let server = Scripted::start(|_, answer| {
        answer.stream(NDJSON);
        answer.say("{\"output\":{\"stream\":\"stdout\",\"text\":\"to out\"}}\n\n{\"output\":{\"stream\":\"stderr\",\"text\":\"to err\"}}\n");
        answer.say("{\"exit\":{\"code\":42,\"signal\":null,\"out_of_memory\":false}}\n");
    });
    let ended = Desk::new().coracle(&["run", "-a", "shop", &server.option(), "--", "python", "-c", "1;2", "--json"]);
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(42), "to out\n", "to err\n"));
    let request = server.heard();
    assert_eq!(request.line, "POST /v1/apps/shop/run");
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&request.body).unwrap(),
        json!({"argv": ["python", "-c", "1;2", "--json"]})
    );
}

#[test]
fn a_program_that_was_killed_ends_like_in_a_shell_and_a_lost_one_fails() {
    for (line, code, told) in [
        ("{\"exit\":{\"code\":null,\"signal\":9,\"out_of_memory\":true}}\n", 137, "out of memory"),
        ("{\"output\":{\"stream\":\"stdout\",\"text\":\"x\"}}\n", 1, "lost before the program ended"),
    ] {
        let server = Scripted::start(move |_, answer| {
            answer.stream(NDJSON);
            answer.say(line);
        });
        Desk::new().coracle(&["exec", "-i", "shop.v1.web.1", &server.option(), "--", "true"]).code(code).err_has(told);
        assert_eq!(server.heard().line, "POST /v1/apps/shop/exec");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_logs_without_a_word() {
    let server = Scripted::start(|_, answer| {
        answer.stream(NDJSON);
        let line =
            json!({"instance": "shop.v1.web.1", "at": "2026-11-21T00:00:00Z", "stream": "stdout", "text": "x".repeat(1000)});
        while answer.say(&format!("{line}\n")) {}
    });
    let desk = Desk::new();
    let mut child = desk.command(&["logs", "-f", "-a", "shop", &server.option()]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    drop(out);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn log_options_reach_the_server() {
    let server = Scripted::start(|_, answer| answer.stream(NDJSON));
    let desk = Desk::new();
    for (words, asked) in [
        (&["logs"][..], "GET /v1/apps/shop/logs?tail=100"),
        (&["logs", "-n", "5", "-p", "worker"], "GET /v1/apps/shop/logs?process=worker&tail=5"),
        (&["logs", "--since", "2026-11-21T00:00:00Z"], "GET /v1/apps/shop/logs?since=2026-11-21T00%3A00%3A00Z"),
    ] {
        desk.coracle(&[words, &["-a", "shop", &server.option()]].concat()).code(0);
        assert_eq!(server.heard().line, asked);
    }
}
