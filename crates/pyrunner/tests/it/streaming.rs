//! Executions told as they happen.

use std::io::Read;
use std::net::TcpStream;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::host::{Host, PATIENCE, possible};

#[test]
fn a_stream_tells_everything_and_characters_whole() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let code = "import os, time\nfor piece in (b'a\\xe2', b'\\x82\\xac', b'\\xff'):\n    os.write(1, piece); time.sleep(.05)\n\
                os.write(2, b'E'); open('f', 'w').write('x'); os._exit(3)";
    let body = json!({"code": code, "collect": ["f"]});
    let answer = server.post("/execute?stream=1", &body);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    let text = answer.text();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"start"), Some(&"end")), "{text}");
    let data = |kind: &str| {
        events.iter().filter(|event| event["type"] == kind).map(|event| event["data"].as_str().unwrap()).collect::<String>()
    };
    assert_eq!((data("stdout").as_str(), data("stderr").as_str()), ("a€\u{fffd}", "E"));
    assert!(events.iter().any(|event| event["file"]["name"] == "f"), "{text}");
    let result = &events.last().unwrap()["result"];
    assert_eq!((&result["exit_code"], &result["id"], &result["stdout"]), (&json!(3), &events[0]["id"], &json!("")));
}

#[test]
fn events_are_server_sent_when_they_are_accepted() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let answer = server.post_with("/execute", &[("Accept", "text/event-stream")], &json!({"code": "print('a\\n\\nb')"}));
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let text = answer.text();
    assert!(text.starts_with("event: start\ndata: {") && text.ends_with("}\n\n"), "{text}");
    // How output is cut into events is chance; each is one, whatever lines it holds.
    let mut told = String::new();
    for event in text.split_terminator("\n\n") {
        let (name, data) = event.strip_prefix("event: ").and_then(|event| event.split_once("\ndata: ")).unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], name, "{text}");
        told.push_str(if name == "stdout" { data["data"].as_str().unwrap() } else { "" });
    }
    assert_eq!(told, "a\n\nb\n", "{text}");
    // What is wrong from the beginning is no stream.
    server.post_with("/execute", &[("Accept", "text/event-stream")], &json!({})).is_problem(400, "code");
}

#[test]
fn a_stream_whose_reader_leaves_ends_its_program() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let body = json!({"code": "import time\nwhile True: print('x', flush=True); time.sleep(.01)"}).to_string();
    let mut stream = server.send("POST", "/execute?stream=1", &[], body.as_bytes());
    stream.read_exact(&mut [0; 400]).unwrap();
    drop(stream);
    server.until_running(0);
}

fn open(server: &Host, headers: &[(&'static str, &str)]) -> Result<WebSocket<TcpStream>, String> {
    use tungstenite::client::IntoClientRequest;
    let mut request = format!("ws://{}/ws", server.address).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    tungstenite::client(request, stream).map(|(socket, _)| socket).map_err(|error| error.to_string())
}

fn say(socket: &mut WebSocket<TcpStream>, message: &Value) {
    socket.send(Message::text(message.to_string())).unwrap();
}

/// The next event; `None` when the server has closed.
fn hear(socket: &mut WebSocket<TcpStream>) -> Option<Value> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// Hears until the program has written this, in however many events.
#[track_caller]
fn hear_text(socket: &mut WebSocket<TcpStream>, expected: &str) {
    let mut heard = String::new();
    while heard.len() < expected.len() {
        let event = hear(socket).unwrap();
        assert_eq!(event["type"], "stdout", "after {heard:?}: {event}");
        heard.push_str(event["data"].as_str().unwrap());
    }
    assert_eq!(heard, expected);
}

#[test]
fn a_program_can_be_typed_at() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let mut socket = open(&server, &[]).unwrap();
    say(&mut socket, &json!({"code": "while True:\n    print('you said', input(), flush=True)", "stdin": "first\n"}));
    assert_eq!(hear(&mut socket).unwrap()["type"], "start");
    hear_text(&mut socket, "you said first\n");
    say(&mut socket, &json!({"type": "stdin", "data": "héllo\n"}));
    hear_text(&mut socket, "you said héllo\n");
    socket.send(Message::binary(b"bytes\n".to_vec())).unwrap();
    hear_text(&mut socket, "you said bytes\n");
    say(&mut socket, &json!({"type": "stdin_end"}));
    let mut last = hear(&mut socket).unwrap();
    while last["type"] == "stderr" {
        last = hear(&mut socket).unwrap();
    }
    assert_eq!((&last["type"], &last["result"]["reason"]), (&json!("end"), &json!("exit_nonzero")), "{last}");
    assert_eq!(hear(&mut socket), None);
}

#[test]
fn an_interactive_program_ends_by_cancelling_leaving_or_nonsense() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let endless = json!({"code": "import time; print('on', flush=True); time.sleep(9)"});
    let mut socket = open(&server, &[]).unwrap();
    say(&mut socket, &endless);
    say(&mut socket, &json!({"type": "cancel"}));
    let last = std::iter::from_fn(|| hear(&mut socket)).last().unwrap();
    assert_eq!(last["result"]["reason"], "cancelled", "{last}");
    let mut socket = open(&server, &[]).unwrap();
    say(&mut socket, &endless);
    server.until_running(1);
    drop(socket);
    server.until_running(0);
    let mut socket = open(&server, &[]).unwrap();
    say(&mut socket, &endless);
    say(&mut socket, &json!({"type": "dance"}));
    let last = std::iter::from_fn(|| hear(&mut socket)).last().unwrap();
    assert_eq!((&last["type"], &last["problem"]["status"]), (&json!("error"), &json!(400)), "{last}");
    server.until_running(0);
    let mut socket = open(&server, &[]).unwrap();
    say(&mut socket, &json!({"cod": ""}));
    assert_eq!(hear(&mut socket).unwrap()["problem"]["kind"], "bad_request");
}

#[test]
fn pages_of_other_sites_may_not_open_it() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--origins", "https://friend.example"]);
    let own = format!("http://{}", server.address);
    assert!(open(&server, &[("origin", &own)]).is_ok());
    assert!(open(&server, &[("origin", "https://friend.example")]).is_ok());
    let refused = open(&server, &[("origin", "https://evil.example")]).unwrap_err();
    assert!(refused.contains("403"), "{refused}");
    server.get("/ws").is_problem(400, "WebSocket");
}

#[test]
fn a_pages_script_sends_its_key_as_a_subprotocol() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--anonymous", "false"]);
    let token = server.key(&["page"]);
    let refused = open(&server, &[]).unwrap_err();
    assert!(refused.contains("401"), "{refused}");
    let refused = open(&server, &[("sec-websocket-protocol", &format!("pyrunner, pyrunner.key.{token}0"))]).unwrap_err();
    assert!(refused.contains("401"), "{refused}");
    // The client checks that one was chosen that it had offered; it is not the key.
    let mut socket = open(&server, &[("sec-websocket-protocol", &format!("pyrunner, pyrunner.key.{token}"))]).unwrap();
    say(&mut socket, &json!({"code": "print(1)"}));
    let last = std::iter::from_fn(|| hear(&mut socket)).last().unwrap();
    assert_eq!(last["result"]["reason"], "ok", "{last}");
}
