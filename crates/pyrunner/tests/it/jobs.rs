//! Jobs: executed when there is room, told by a call back, and kept when the server ends.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::host::{Host, PATIENCE, possible, until};

fn settled(server: &Host, id: &str) -> Value {
    until("the job ends", || {
        let job = server.get(&format!("/jobs/{id}")).json();
        (job["state"] != "queued" && job["state"] != "running").then_some(job)
    })
}

fn id(answer: &crate::host::Answer) -> String {
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(format!("/jobs/{id}").as_str()));
    id
}

/// Takes one request, answers this status, and gives back the request's body.
fn hear(listener: &TcpListener, status: &str) -> Value {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut heard, mut room) = (Vec::new(), [0; 4096]);
    loop {
        let bytes = stream.read(&mut room).unwrap();
        heard.extend_from_slice(&room[..bytes]);
        let text = String::from_utf8_lossy(&heard).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("POST /told?x=1 HTTP/1.1\r\n"), "{head}");
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        if body.len() >= length.unwrap().parse().unwrap() {
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nLocation: http://127.0.0.1:1/\r\n\r\n").unwrap();
            return serde_json::from_str(body).unwrap();
        }
    }
}

#[test]
fn a_job_is_executed_and_its_end_is_told_until_it_is_heard() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--callback-networks", "127.0.0.0/8"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/told?x=1", listener.local_addr().unwrap());
    let id = id(&server.post("/jobs", &json!({"code": "print('from a job')", "callback_url": url})));
    let job = settled(&server, &id);
    assert_eq!((&job["state"], &job["result"]["output"]), (&json!("done"), &json!("from a job\n")), "{job}");
    // Nobody is sent elsewhere, and who does not answer well is told again.
    let first = hear(&listener, "302 Found");
    let second = hear(&listener, "204 No Content");
    assert_eq!((&first["id"], &first["result"]["output"]), (&json!(id), &json!("from a job\n")));
    assert_eq!(second["result"], first["result"]);
    let told = until("it is written down", || {
        let job = server.get(&format!("/jobs/{id}")).json();
        (job["callback"]["state"] == "delivered").then_some(job)
    });
    assert_eq!(told["callback"]["attempts"], 2);
}

#[test]
fn nobody_inside_is_called_back() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    for url in [
        "http://127.0.0.1/",
        "http://127.1:8080/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://0.0.0.0/",
        "http://[fd00::1]/",
        "http://[64:ff9b::7f00:1]/",
        "ftp://example.org/",
        "http://user@8.8.8.8/",
        "file:///etc/passwd",
        "nonsense",
    ] {
        let answer = server.post("/jobs", &json!({"code": "", "callback_url": url}));
        answer.is_problem(422, "callback_url");
    }
    // Names of the network inside cannot be asked for: one that is there and one that is not are told alike, and no address is.
    let told = |url: &str| {
        let answer = server.post("/jobs", &json!({"code": "", "callback_url": url}));
        answer.is_problem(422, "public address");
        assert!(!answer.text().contains("127.0.0"), "{}", answer.text());
        answer.json()
    };
    assert_eq!(told("http://localhost/"), told("http://no-such-name.invalid/"));
}

#[test]
fn a_job_can_be_cancelled_before_and_while_it_runs() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--jobs", "1"]);
    let slow = json!({"code": "import time; time.sleep(9)"});
    let running = id(&server.post("/jobs", &slow));
    server.until_running(1);
    let waiting = id(&server.post("/jobs", &slow));
    let cancel = |id: &str| server.call("DELETE", &format!("/jobs/{id}"), &[], b"");
    assert_eq!((cancel(&waiting).status, settled(&server, &waiting)["state"].clone()), (200, json!("cancelled")));
    assert_eq!((cancel(&running).status, settled(&server, &running)["state"].clone()), (202, json!("cancelled")));
    server.until_running(0);
    assert_eq!(cancel(&running).status, 200);
    server.post("/jobs", &json!({"code": 1})).is_problem(400, "code");
}

#[test]
fn a_job_that_a_stopped_server_has_not_finished_is_finished_by_the_next() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--jobs", "1", "--drain", "1s"]);
    let jobs = [0; 3].map(|number| {
        let code = format!("import time; time.sleep({}); print('done')", if number == 0 { 3 } else { 0 });
        id(&server.post("/jobs", &json!({ "code": code })))
    });
    server.until_running(1);
    let state = server.state.clone();
    assert_eq!(server.stop(), 0);
    let server = Host::start_in(state, &[]);
    for job in jobs {
        let job = settled(&server, &job);
        assert_eq!((&job["state"], &job["result"]["output"]), (&json!("done"), &json!("done\n")), "{job}");
    }
}
