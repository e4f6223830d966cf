//! Targets that wear one out: they answer without ever coming to an end.

use std::time::Duration;

use coracle_proxy::table::{Admission, ServiceId};

use crate::backend::Backend;
use crate::env::{Env, soon, table};

#[tokio::test]
async fn interim_answers_without_end_are_no_answer() {
    let app = Backend::talking(|mut conn| async move {
        conn.head().await;
        // Until the proxy has enough of it.
        while tokio::io::AsyncWriteExt::write_all(&mut conn.stream, b"HTTP/1.1 103 Early Hints\r\n\r\n").await.is_ok() {}
    })
    .await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let mut wire = env.connect().await;
    wire.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut hints = 0;
    let last = loop {
        let answer = soon(wire.answer()).await;
        if answer.status != 103 {
            break answer;
        }
        hints += 1;
    };
    assert_eq!((last.status, hints), (502, 100));
}

/// A byte now and then does not buy an answer time.
#[tokio::test]
async fn a_head_that_trickles_in_is_late() {
    let app = Backend::talking(|mut conn| async move {
        conn.head().await;
        conn.send("HTTP/1.1 200 OK\r\nX: ").await;
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        while tokio::io::AsyncWriteExt::write_all(&mut conn.stream, b"x").await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    let mut env = Env::new().await;
    let mut limited = table(&[("*", "/", "app")], &[("app", Admission::Open, &[("t", app.address)])]);
    limited.services.get_mut(&ServiceId("app".into())).unwrap().response_timeout_ms = Some(100);
    env.publish(limited).await;
    let answer = env.get("h", "/").await;
    assert_eq!(answer.status, 504);
    assert_eq!(env.in_flight().await, 0);
}
