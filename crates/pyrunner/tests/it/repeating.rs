//! Requests that are sent again, and several at once.

use rustix::process::Signal;
use serde_json::json;

use crate::host::{Answer, Host, possible, until};

const KEY: (&str, &str) = ("Idempotency-Key", "\"abc\"");

#[test]
fn the_same_request_is_carried_out_once() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let program = json!({"code": "import os; print(os.urandom(8).hex())"});
    let first = server.post_with("/execute", &[KEY], &program);
    let again = server.post_with("/execute", &[("Idempotency-Key", "abc")], &program);
    assert_eq!((first.status, &first.body), (200, &again.body));
    assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), (None, Some("true")));
    server.post_with("/execute", &[KEY], &json!({"code": ""})).is_problem(422, "another request");
    assert_ne!(server.post_with("/execute", &[("Idempotency-Key", "other")], &program).body, first.body);
    let token = server.key(&["somebody"]);
    let theirs = server.post_with("/execute", &[KEY, ("Authorization", &format!("Bearer {token}"))], &program);
    assert_ne!(theirs.body, first.body, "a key belongs to its owner");
    server.post_with("/execute?stream=1", &[KEY], &program).is_problem(400, "a stream cannot");
    server.post_with("/execute", &[("Idempotency-Key", "")], &program).is_problem(400, "1 to 255");
    // What was refused may be sent again.
    server.post_with("/execute", &[("Idempotency-Key", "x")], &json!({"code": "", "image": "nowhere"})).is_problem(422, "image");
    server.post_with("/execute", &[("Idempotency-Key", "x")], &json!({"code": "", "image": "nowhere"})).is_problem(422, "image");
    let job = server.post_with("/jobs", &[KEY], &program);
    job.is_problem(422, "another request");
    let jobs = [0; 2].map(|_| server.post_with("/jobs", &[("Idempotency-Key", "job")], &program));
    assert_eq!((jobs[0].status, jobs[1].status), (202, 202));
    assert_eq!(
        (jobs[0].json()["id"].clone(), jobs[0].header("location")),
        (jobs[1].json()["id"].clone(), jobs[1].header("location"))
    );
}

#[test]
fn what_was_begun_under_a_key_goes_on_without_its_client_and_is_answered_later() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let program = json!({"code": "import time; time.sleep(4); print('kept')"}).to_string();
    let gone = server.send("POST", "/execute", &[KEY], program.as_bytes());
    server.until_running(1);
    let meanwhile = server.call("POST", "/execute", &[KEY], program.as_bytes());
    meanwhile.is_problem(409, "still being carried out");
    assert!(meanwhile.header("retry-after").is_some());
    drop(gone);
    let answer = until("it is answered", || {
        Some(server.call("POST", "/execute", &[KEY], program.as_bytes())).filter(|answer| answer.status == 200)
    });
    assert_eq!((answer.json()["output"].as_str(), answer.header("idempotent-replayed")), (Some("kept\n"), Some("true")));
}

#[test]
fn a_batch_has_an_answer_for_each() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let programs = json!({"executions": [
        {"code": "print(1)"}, {"cod": ""}, {"code": "1/0"}, {"code": "print(2)", "limits": {"pids": 9999}}, {"code": "print(3)"},
    ]});
    let answer = server.post("/batch", &programs);
    assert_eq!(answer.status, 200);
    let results = answer.json()["results"].as_array().unwrap().clone();
    assert_eq!((&results[0]["output"], &results[4]["output"]), (&json!("1\n"), &json!("3\n")));
    assert_eq!((&results[1]["problem"]["status"], &results[3]["problem"]["status"]), (&json!(400), &json!(422)));
    assert_eq!((&results[2]["reason"], results.len()), (&json!("exit_nonzero"), 5));
}

#[test]
fn many_callers_at_once_get_each_their_own_answer() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let mut waiting: Vec<_> = (0..40)
        .map(|number| {
            let body = json!({"code": format!("print({number} ** 2)")}).to_string();
            server.send("POST", "/execute", &[], body.as_bytes())
        })
        .collect();
    for (number, stream) in waiting.iter_mut().enumerate() {
        let answer = Answer::read(stream);
        assert_eq!(
            (answer.status, answer.json()["output"].clone()),
            (200, json!(format!("{}\n", number * number))),
            "{}",
            answer.text()
        );
    }
    server.signal(Signal::TERM);
}
