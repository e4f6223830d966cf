//! Tables with something changed at random: taken or refused, never the end of the proxy.

use coracle_lab::chance::Chance;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::backend::Backend;
use crate::env::{Env, soon};

const CASES: usize = 400;

fn good(address: std::net::SocketAddr, generation: u64) -> Value {
    json!({
        "generation": generation,
        "routes": [
            {"id": "a", "rule": "PathPrefix(`/`)", "service": "app"},
            {"id": "b", "rule": "Host(`b.example`) && (PathPrefix(`/x`) || !Method(`POST`))", "priority": 5, "service": "app"},
            {"id": "c", "rule": "HostRegexp(`^[a-z]+\\.example$`) && Header(`X`, `y`)", "service": "app", "listeners": ["http"]},
            {"id": "d", "rule": "Host(`a.example`, `{x:[a-z]+}.example`)", "dialect": "v2", "service": "closed", "tls": true}
        ],
        "services": {
            "app": {"admission": {"kind": "open"}, "targets": [{"id": "t", "address": address.to_string()}]},
            "closed": {"admission": {"kind": "open"}, "targets": []}
        }
    })
}

fn odd(chance: &mut Chance) -> Value {
    match chance.below(16) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(1e300),
        5 => json!(""),
        6 => json!("a".repeat(100_000)),
        7 => json!("\u{0}\r\n"),
        8 => json!([]),
        9 => json!({}),
        10 => json!(format!("{}Host(`a`){}", "(".repeat(5000), ")".repeat(5000))),
        11 => json!(format!("{}Path(`/`)", "!".repeat(50_000))),
        12 => json!("HostRegexp(`(((((a{1,500}){1,500}){1,500}){1,500}){1,500})`)"),
        13 => json!("Path(`/`) && ".repeat(5000) + "Path(`/`)"),
        14 => json!([[[[[[[[[[1]]]]]]]]]]),
        _ => json!(i64::MIN),
    }
}

/// Changes one value somewhere.
fn change(chance: &mut Chance, value: &mut Value) {
    let deeper = chance.below(4) > 0;
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let key = map.keys().nth(chance.below(map.len())).cloned().unwrap_or_default();
            match chance.below(8) {
                0 => drop(map.remove(&key)),
                1 => {
                    let odd = odd(chance);
                    map.insert(format!("{key}x"), odd);
                }
                2 => {
                    let copied = map[&key].clone();
                    map.insert(String::new(), copied);
                }
                _ => change(chance, map.get_mut(&key).unwrap()),
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = chance.below(items.len());
            match chance.below(6) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => change(chance, &mut items[at]),
            }
        }
        Value::String(text) if deeper => {
            let mut at = chance.below(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let pieces = ["(", ")", "`", "!", "&&", "||", ",", "\\", "{", "}", "[", "*", "\u{0}", "é", "Host(`x`)", "{a:("];
            text.insert_str(at, pieces[chance.below(pieces.len())]);
        }
        value => *value = odd(chance),
    }
}

/// The status that the proxy answers a table with.
async fn put(env: &Env, table: &[u8]) -> u16 {
    let mut stream = UnixStream::connect(&env.options.control_socket).await.unwrap();
    let head = format!("PUT /v1/table HTTP/1.1\r\nHost: proxy\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", table.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // It may have been refused before its end.
    drop(stream.write_all(table).await);
    let mut answer = Vec::new();
    drop(soon(stream.read_to_end(&mut answer)).await);
    String::from_utf8_lossy(&answer).get(9..12).and_then(|status| status.parse().ok()).expect("the control socket has answered")
}

#[tokio::test]
async fn any_table_is_taken_or_refused_and_the_last_good_one_serves_on() {
    let app = Backend::saying("hi").await;
    let env = Env::new().await;
    let mut chance = Chance::new(0x0074_ab1e_5eed_0001);
    let (mut taken, mut refused) = (0, 0);
    let mut generation = 1;
    assert_eq!(put(&env, good(app.address, generation).to_string().as_bytes()).await, 200);
    for number in 0..CASES {
        let mut table = good(app.address, generation + 1);
        for _ in 0..=chance.below(2) {
            change(&mut chance, &mut table);
        }
        let mut bytes = table.to_string().into_bytes();
        if chance.below(4) == 0 {
            let at = chance.below(bytes.len());
            bytes[at] = u8::try_from(chance.below(256)).unwrap();
        }
        match put(&env, &bytes).await {
            200 => {
                taken += 1;
                // Whatever it serves, it answers.
                assert!(matches!(env.get("h", "/").await.status, 200 | 404 | 502 | 503 | 504), "{number}");
                generation += 2;
                assert_eq!(put(&env, good(app.address, generation).to_string().as_bytes()).await, 200);
            }
            400 | 413 | 422 => refused += 1,
            other => panic!("{number}: {other} for {}", String::from_utf8_lossy(&bytes[..bytes.len().min(2000)])),
        }
        env.get("h", "/").await.is(200, "hi");
    }
    assert!(taken > 10 && refused > 100, "{taken} taken, {refused} refused");
}
