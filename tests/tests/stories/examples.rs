//! The examples do what their READMEs say.

use std::time::Duration;

use coracle_tests::websocket::{Message, WebSocket};
use coracle_tests::{Env, eventually};

on_both_engines! {
    async fn the_kitchen_cooks_through_a_migration_and_loses_no_order(env: Env) {
        let kitchen = env.app("worker");
        let deployed = kitchen.deploy("v1").await;
        assert!(deployed.lines.iter().any(|line| line.contains("applied 0002_open_orders.sql")), "{deployed}");
        for dish in ["soup", "pie"] {
            kitchen.post("/orders", &format!("dish={dish}")).await.has_status(201);
        }
        cooked(&kitchen, 2).await;

        // The volume is written to, so requests are held while old gives way to new; not one of them fails.
        let load = kitchen.load(20).only_get().start();
        kitchen.tree.write("migrations/0003_note.sql", "ALTER TABLE orders ADD COLUMN note TEXT;\n");
        let deployed = kitchen.deploy("v2").await;
        assert!(deployed.lines.iter().any(|line| line.contains("holding requests")), "{deployed}");
        assert!(deployed.lines.iter().any(|line| line.contains("applied 0003_note.sql")), "{deployed}");
        let report = load.stop().await;
        report.lost_nothing();
        kitchen.get("/").await.says("\"version\":\"v2\"");
        kitchen.get("/").await.says("soup");
        kitchen.post("/orders", "dish=cake").await.has_status(201);
        cooked(&kitchen, 3).await;
        kitchen.coracle(&["logs", "-p", "worker", "-n", "all"]).await.succeeds().says("cook v2 is at the stove").says("cake is ready");

        // A migration that fails changes nothing.
        kitchen.tree.write("migrations/0004_bad.sql", "ALTER TABLE absent ADD COLUMN more TEXT;\n").version("v3");
        kitchen.deploy_as_it_is().await.fails().shows("no such table");
        kitchen.get("/").await.says("\"version\":\"v2\"");
        kitchen.settles().await;
        env.leaves_nothing().await;
    }

    async fn the_lighthouse_is_served_as_it_is(env: Env) {
        let lighthouse = env.app("static");
        lighthouse.deploy_as_it_is().await.succeeds();
        let page = lighthouse.get("/").await;
        page.says("Light v1 is on");
        assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"), "{page:?}");
        let style = lighthouse.get("/style.css").await;
        assert!(style.headers["content-type"].to_str().unwrap().starts_with("text/css"), "{style:?}");
        let missing = lighthouse.get("/harbour").await;
        missing.has_status(404);
        assert!(missing.body.contains("Fog"), "{missing:?}");
        for outside in ["/../coracle.toml", "/%2e%2e/coracle.toml", "/..%2fcoracle.toml", "//etc/passwd"] {
            let answer = lighthouse.get(outside).await;
            assert!(!answer.status.is_success() && !answer.body.contains("builder"), "{outside}: {answer:?}");
        }

        let load = lighthouse.load(80).only_get().start();
        lighthouse.tree.change("public/index.html", "Light v1", "Light v2");
        lighthouse.deploy_as_it_is().await.succeeds();
        lighthouse.get("/").await.says("Light v2 is on");
        lighthouse.coracle(&["rollback"]).await.succeeds();
        lighthouse.get("/").await.says("Light v1 is on");
        load.stop().await.lost_nothing();
        env.leaves_nothing().await;
    }

    async fn the_parrot_repeats_and_counts_while_it_is_replaced(env: Env) {
        let parrot = env.app("websocket");
        parrot.deploy("v1").await;
        let mut socket = WebSocket::connect(env.address(), &parrot.host(), "/echo").await.unwrap();
        assert_eq!(socket.next().await.unwrap(), Message::Text("parrot v1".into()));
        socket.echoes("hello").await.unwrap();
        socket.echoes(&"long ".repeat(10_000)).await.unwrap();
        let mut ticks = coracle_tests::browser::follow(env.address(), &parrot.host(), "/ticks").await.unwrap();
        assert!(ticks.next_piece().await.unwrap().is_some_and(|tick| tick.contains("data: 1")));

        let load = parrot.load(40).only_get().start();
        parrot.deploy("v2").await;
        // The old connection ends, as the README says; a new one reaches the new release.
        eventually("the old WebSocket has ended", Duration::from_secs(30), async || match socket.next().await {
            Ok(Message::Close(_)) | Err(_) => Ok(()),
            Ok(Message::Text(text)) => Err(text),
        })
        .await;
        let mut socket = WebSocket::connect(env.address(), &parrot.host(), "/echo").await.unwrap();
        assert_eq!(socket.next().await.unwrap(), Message::Text("parrot v2".into()));
        load.stop().await.lost_nothing();
        env.leaves_nothing().await;
    }
}

/// Waits until so many orders are cooked.
async fn cooked(kitchen: &coracle_tests::App, count: usize) {
    eventually("the orders are cooked", Duration::from_secs(20), async || {
        let body = kitchen.get("/").await.body;
        if body.matches("\"cooked_by\":\"cook").count() == count { Ok(()) } else { Err(body) }
    })
    .await;
}
