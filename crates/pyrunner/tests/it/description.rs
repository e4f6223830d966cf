//! What the server says about itself.

use serde_json::{Value, json};

use crate::host::{Host, possible, until};

#[test]
fn the_description_is_true() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let described = server.get("/openapi.json").json();
    let mut names = Vec::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            names.push(operation["operationId"].as_str().unwrap().to_owned());
            let filled = path.replace("{id}", "00000000-0000-7000-8000-000000000000");
            let answer = server.call(&method.to_uppercase(), &filled, &[], b"");
            let there = answer.status != 405 && (answer.status != 404 || path.contains("{id}"));
            assert!(there, "{method} {path}: {} {}", answer.status, answer.text());
            let told = &operation["responses"];
            assert!(
                told.get(answer.status.to_string()).is_some() || told.get("default").is_some(),
                "{method} {path}: {}",
                answer.status
            );
            // What is not described is not there.
            for other in ["GET", "PUT", "PATCH", "DELETE"] {
                if methods.get(other.to_lowercase()).is_none() && !(other == "GET" && path == "/") {
                    assert_eq!(server.call(other, &filled, &[], b"").status, 405, "{other} {path}");
                }
            }
        }
    }
    for name in ["execute", "execute_batch", "submit_job", "show_job", "cancel_job", "interact", "list_executions", "health"] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    let answer = &described["components"]["schemas"]["ExecutionAnswer"]["properties"];
    let real = server.run("import sys; sys.exit(1)");
    for field in real.as_object().unwrap().keys() {
        assert!(answer.get(field).is_some(), "{field} is not described");
    }
    let program = &described["components"]["schemas"]["ProgramBody"]["properties"];
    assert!(
        ["code", "stdin", "args", "env", "files", "collect", "limits", "image", "mode"]
            .iter()
            .all(|field| program.get(field).is_some())
    );
}

#[test]
fn runtimes_limits_readiness_and_numbers_are_told() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--wall", "3s", "--memory", "64MiB", "--cores", "0.25"]);
    server.run("print(1)");
    let runtimes = server.get("/runtimes").json();
    let first = &runtimes["runtimes"][0];
    assert_eq!((&first["image"], &first["language"], &first["default"]), (&json!("default"), &json!("python"), &json!(true)));
    let version =
        server.run("import sys; print('%d.%d.%d' % sys.version_info[:3])")["output"].as_str().unwrap().trim().to_owned();
    assert_eq!(first["version"], version);
    let limits = server.get("/limits").json();
    assert_eq!((&limits["execution"]["wall_ms"], &limits["execution"]["memory_bytes"]), (&json!(3000), &json!(67108864)));
    assert_eq!((&limits["execution"]["cores"], &limits["calls_per_hour"]), (&json!(0.25), &json!(0)));
    let ready = server.get("/ready");
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
    assert!(ready.json()["isolation"].is_string() && ready.json()["troubles"] == json!([]), "{}", ready.text());
    let metrics = until("all is counted", || {
        let text = server.get("/metrics").text();
        text.contains("pyrunner_executions_total{reason=\"ok\"} 2").then_some(text)
    });
    assert!(metrics.ends_with("# EOF\n") && metrics.contains("pyrunner_history_dropped 0"), "{metrics}");
    assert_eq!(server.get("/health").json()["status"], Value::from("healthy"));
}
