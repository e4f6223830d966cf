//! Bodies that nobody who means well would send: to the reading of them, many a second, and to a real server, which must
//! answer each in time and never say that the fault is its own.

use std::time::{Duration, Instant};

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};

use crate::bodies;
use crate::host::{Host, possible};

/// How long each of the two goes on.
const TIME: Duration = Duration::from_secs(3);
/// How long a server may take for an answer: what a program may, and what waiting may.
const ANSWER: Duration = Duration::from_secs(30);
const AT_ONCE: u64 = 8;

/// What changes what was sent before; where its chance begins is told with what fails.
struct Chance {
    source: TestRng,
}

impl Chance {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self { source: TestRng::from_seed(RngAlgorithm::ChaCha, &bytes) }
    }

    fn below(&mut self, most: usize) -> usize {
        (self.source.next_u64() % most.max(1) as u64) as usize
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Requests as they should be, one for each endpoint that takes a program.
fn proper() -> Vec<(&'static str, Value)> {
    let program = json!({ "code": "print(1)", "stdin": "x", "args": ["a"], "env": { "A": "b" }, "collect": ["**/*.txt"],
        "files": [{ "name": "d/a.txt", "content": "aGk=", "encoding": "base64" }, { "name": "b", "content": "é" }],
        "limits": { "wall_ms": 200, "cpu_ms": 100, "memory_bytes": 67108864, "pids": 8, "output_bytes": 100 },
        "image": "default", "mode": "zygote" });
    let mut job = program.clone();
    job["callback_url"] = json!("http://127.0.0.1:9/");
    vec![
        ("/execute?stream=1", program.clone()),
        ("/batch", json!({ "executions": [program.clone(), { "code": "1" }] })),
        ("/jobs", job),
        ("/execute", program),
        ("/eval", json!({ "input": "print(1)", "args": ["-c"], "files": [{ "path": "a/b", "content": "aGk=" }] })),
        (
            "/api/v2/execute",
            json!({ "language": "python", "version": "3.x", "files": [{ "name": "a.py", "content": "print(1)", "encoding": "utf8" }],
                "stdin": "", "args": ["1"], "run_timeout": 200, "compile_timeout": 1, "run_memory_limit": 1e8, "run_cpu_time": 10.5 }),
        ),
    ]
}

/// Values that are another thing than what is wanted, or too much of it.
fn strange(chance: &mut Chance) -> Value {
    let many = chance.below(3000);
    match chance.below(14) {
        0 => Value::Null,
        1 => json!(-1),
        2 => json!(u64::MAX),
        3 => json!(1e308),
        4 => json!(0.5),
        5 => json!(true),
        6 => json!("\0"),
        7 => json!("../../../etc/passwd"),
        8 => json!("a/".repeat(many)),
        9 => json!("\u{202e}\u{1b}[2J\u{ffff}".repeat(many / 100)),
        10 => json!(vec![""; many]),
        11 => (0..many % 120).fold(json!(0), |inner, _| json!([inner])),
        12 => Value::Object((0..many).map(|number| (number.to_string(), json!(number))).collect()),
        _ => json!(["**/".repeat(many / 10)]),
    }
}

/// Every value within, by its JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(number, item)| places(item, &format!("{at}/{number}"), found)),
        Value::Object(items) => items.iter().for_each(|(name, item)| places(item, &format!("{at}/{name}"), found)),
        _ => {}
    }
}

/// A request as it should not be: values replaced, members added, then perhaps its bytes changed.
fn hostile(chance: &mut Chance, proper: &Value) -> Vec<u8> {
    let mut value = proper.clone();
    for _ in 0..=chance.below(2) {
        let mut all = Vec::new();
        places(&value, "", &mut all);
        let place = chance.one(&all).clone();
        let new = strange(chance);
        if let Some(old) = value.pointer_mut(&place) {
            match old {
                Value::Object(members) if chance.below(3) == 0 => drop(members.insert("other".to_owned(), new)),
                old => *old = new,
            }
        }
    }
    let mut bytes = value.to_string().into_bytes();
    for _ in 0..chance.below(4) {
        let at = chance.below(bytes.len());
        match chance.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, *chance.one(b"\"\\{}[],:\x00\xff\xed0-e")),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            3 => drop(bytes.splice(at..at, br"\ud800".iter().copied())),
            _ => drop(bytes.splice(at..at, "[".repeat(200).bytes())),
        }
    }
    bytes
}

fn seed() -> u64 {
    std::env::var("HOSTILE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

#[test]
fn any_body_is_an_execution_or_the_requests_fault() {
    let (mut chance, proper) = (Chance::new(seed()), proper());
    let (started, mut read, mut taken) = (Instant::now(), 0, 0);
    while started.elapsed() < TIME {
        let (_, one) = chance.one(&proper);
        let bytes = hostile(&mut chance, one);
        taken += usize::from(bodies::body(&bytes) > 0);
        read += 1;
    }
    // Changing bodies so that all are refused at once would try nothing.
    assert!(taken * 50 > read, "{taken} of {read} were taken");
}

#[test]
fn a_server_answers_whatever_is_sent() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--wall", "3s", "--body-timeout", "5s"]);
    server.run("print(1)");
    let api = server.part("api");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let server = &server;
        let threads: Vec<_> = (0..AT_ONCE).map(|number| scope.spawn(move || send_all(server, seed() + number))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.contains(&200) && statuses.contains(&400), "{statuses:?}");
    assert_eq!(server.part("api"), api, "the API was started again: {}", server.log());
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert_eq!(server.run("print(42)")["stdout"], "42\n");
}

/// Sends one after the other and answers the statuses.
fn send_all(server: &Host, seed: u64) -> Vec<u16> {
    let (mut chance, proper) = (Chance::new(seed), proper());
    let (started, mut statuses) = (Instant::now(), Vec::new());
    while started.elapsed() < TIME {
        let (path, one) = chance.one(&proper);
        let body = hostile(&mut chance, one);
        let asked = Instant::now();
        let answer = server.call("POST", path, &[("Content-Type", "application/json")], &body);
        let about = || format!("seed {seed}: {path} {}", String::from_utf8_lossy(&body[..body.len().min(400)]));
        assert!(asked.elapsed() < ANSWER, "{}: late", about());
        // What broke off says so in its last line.
        let fault = answer.text().contains("urn:pyrunner:problem:internal");
        assert!((answer.status < 500 || answer.status == 503) && !fault, "{}: {} {}", about(), answer.status, answer.text());
        statuses.push(answer.status);
    }
    statuses
}
