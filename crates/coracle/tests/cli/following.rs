//! A deployment as the client lives through it: to its end, through a broken connection, and against Ctrl-C.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::program::{Desk, Running};
use crate::scripted::{Answer, Scripted};

const SSE: &str = "text/event-stream";

fn deployment() -> Value {
    json!({"id": 12, "app": "shop", "kind": "deploy", "to": 4, "from": 3, "phase": "validate", "outcome": null,
        "started_at": "2026-11-21T00:00:00Z", "finished_at": null})
}

fn phase(name: &str) -> Value {
    json!({"event": "phase", "phase": name})
}

/// From the beginning into the build.
fn building(answer: &mut Answer) {
    answer.stream(SSE);
    answer.event(&json!({"event": "began", "deployment": deployment()}));
    answer.event(&phase("validate"));
    answer.event(&phase("build"));
    answer.event(&json!({"event": "output", "stream": "stdout", "text": "Collecting flask"}));
}

/// From the switch on.
fn switching(answer: &mut Answer) {
    answer.event(&phase("switch"));
    answer.event(
        &json!({"event": "live", "hosts": ["shop.localhost"], "urls": ["http://shop.localhost:8080"], "elapsed_ms": 1100}),
    );
}

fn ended(answer: &mut Answer) {
    answer.event(&json!({"event": "ended", "outcome": {"kind": "succeeded"}, "problem": null}));
}

fn shop() -> Desk {
    Desk::with_shop(&[("app.py", "print(1)\n"), ("Procfile", "web: python3 app.py\n")])
}

#[test]
fn a_deployment_is_followed_to_its_end() {
    let server = Scripted::start(|_, answer| {
        building(answer);
        switching(answer);
        ended(answer);
    });
    let ended = shop().coracle(&["deploy", &server.option()]);
    ended.code(0).out_has("Collecting flask").out_has("✓ v4 of shop is live at http://shop.localhost:8080 (1.1 s)");
    let request = server.heard();
    assert_eq!(request.line, "POST /v1/apps/shop/deployments");
    assert_eq!(request.body.get(..2), Some(&[0x1f, 0x8b][..]), "the source is a gzip archive");
}

#[test]
fn a_failed_deployment_is_exit_code_1_with_evidence_and_a_hint() {
    let server = Scripted::start(|_, answer| {
        building(answer);
        answer.event(&json!({"event": "ended", "outcome": {"kind": "failed", "phase": "build", "cause": "x", "evidence": []},
            "problem": {"type": "urn:coracle:problem:deployment-failed", "title": "-", "status": 422, "kind": "deployment-failed",
                "detail": "build failed: pip ended with exit code 1", "hint": "v3 serves", "evidence": ["No matching distribution"]}}));
    });
    let desk = shop();
    let option = server.option();
    let ended = desk.coracle(&["deploy", &option]);
    ended.code(1).err_has("error: build failed: pip").err_has("│ No matching distribution").err_has("next: v3 serves");
    let ended = desk.coracle(&["deploy", "--json", "-q", &option]);
    assert_eq!(ended.code(1).json()["error"]["evidence"], json!(["No matching distribution"]));
}

#[test]
fn a_connection_that_breaks_is_picked_up_again_and_nothing_is_told_twice() {
    let server = Scripted::start(|request, answer| {
        building(answer);
        if request.line.starts_with("GET /v1/deployments/12/events") {
            switching(answer);
            ended(answer);
        }
    });
    let ended = shop().coracle(&["deploy", &server.option()]);
    ended.code(0).out_has("the connection broke").out_has("✓ v4 of shop is live");
    assert_eq!(ended.out.matches("Collecting flask").count(), 1, "{ended:?}");
}

#[test]
fn a_connection_that_breaks_before_anything_is_known_says_where_to_look() {
    let server = Scripted::start(|_, answer| answer.stream(SSE));
    shop()
        .coracle(&["deploy", &server.option()])
        .code(1)
        .err_has("lost before the deployment ended")
        .err_has("coracle deployments");
}

#[test]
fn ctrl_c_calls_it_off_and_waits_for_the_outcome() {
    let server = Scripted::start(|request, answer| {
        if request.line == "POST /v1/deployments/12/cancel" {
            return answer.json(202, &deployment());
        }
        building(answer);
        answer.wait();
        answer.event(&json!({"event": "ended", "outcome": {"kind": "cancelled", "phase": "build"}, "problem": null}));
    });
    let desk = shop();
    let mut running = Running::start(desk.command(&["deploy", &server.option()]));
    running.shows("Collecting flask");
    assert_eq!(server.heard().line, "POST /v1/apps/shop/deployments");
    running.interrupt();
    assert_eq!(server.heard().line, "POST /v1/deployments/12/cancel");
    server.go();
    running.end().code(1).out_has("calling it off").err_has("called off during build; nothing has changed");
}

#[test]
fn ctrl_c_after_the_switch_lets_it_finish() {
    let server = Scripted::start(|_, answer| {
        building(answer);
        switching(answer);
        answer.wait();
        ended(answer);
    });
    let desk = shop();
    let mut running = Running::start(desk.command(&["deploy", &server.option()]));
    running.shows("live at http://shop.localhost:8080 after");
    running.interrupt();
    running.shows("already live, finishing");
    server.go();
    running.end().code(0).out_has("✓ v4 of shop is live");
    assert_eq!(server.heard().line, "POST /v1/apps/shop/deployments");
    assert!(server.heard_nothing_else());
}

#[test]
fn a_second_ctrl_c_leaves() {
    let cancels = AtomicUsize::new(0);
    let server = Scripted::start(move |request, answer| {
        if request.line.ends_with("/cancel") {
            cancels.fetch_add(1, Ordering::Relaxed);
            return answer.json(202, &deployment());
        }
        building(answer);
        answer.wait_for_hang_up();
    });
    let desk = shop();
    let mut running = Running::start(desk.command(&["deploy", &server.option()]));
    running.shows("Collecting flask");
    running.interrupt();
    running.shows("calling it off");
    assert_eq!(
        (server.heard().line.as_str(), server.heard().line.as_str()),
        ("POST /v1/apps/shop/deployments", "POST /v1/deployments/12/cancel")
    );
    running.interrupt();
    running.end().code(1).err_has("left before it ended").err_has("coracle deployments -a shop");
}

#[test]
fn detached_returns_when_it_has_begun() {
    let server = Scripted::start(|_, answer| {
        building(answer);
        answer.wait_for_hang_up();
    });
    let ended = shop().coracle(&["deploy", "--detach", "--json", &server.option()]);
    assert_eq!(ended.code(0).json()["deployment"]["id"], 12);
    assert_eq!(server.heard().line, "POST /v1/apps/shop/deployments?detach=true");
}

#[test]
fn a_plan_changes_nothing_and_says_so() {
    let server =
        Scripted::start(|_, answer| answer.json(200, &json!({"steps": ["blue-green: no process has a writable volume"]})));
    shop().coracle(&["deploy", "--plan", &server.option()]).code(0).out_has("blue-green").err_has("nothing was changed");
    assert_eq!(server.heard().line, "POST /v1/apps/shop/deployments/plan");
}
