//! The platform itself is stopped, crashed and replaced, and the apps' customers do not notice.

use std::time::Duration;

use coracle_tests::belongings::signal;
use coracle_tests::websocket::{Message, WebSocket};
use coracle_tests::{Env, eventually};
use rustix::process::Signal;

on_both_engines! {
    async fn a_restart_of_the_server_loses_no_request_and_no_websocket(env: Env) {
        let (shop, parrot) = (env.app("flask"), env.app("websocket"));
        shop.deploy("v1").await;
        parrot.deploy("v1").await;
        let load = shop.load(100).start();
        let mut socket = WebSocket::connect(env.address(), &parrot.host(), "/echo").await.unwrap();
        assert_eq!(socket.next().await.unwrap(), Message::Text("parrot v1".into()));
        let address = env.address();

        env.restart_server().await;
        socket.echoes("after a restart").await.unwrap();
        env.kill_server().await;
        // Down: traffic flows.
        shop.get("/").await.says("from v1");
        socket.echoes("while it is down").await.unwrap();
        env.start_server().await;
        socket.echoes("after a crash").await.unwrap();

        assert_eq!(env.address(), address);
        shop.deploy("v2").await;
        shop.get("/").await.says("from v2");
        load.stop().await.lost_nothing();
        env.leaves_nothing().await;
    }

    async fn an_upgrade_of_server_and_proxy_loses_no_request_and_lets_websockets_end(env: Env) {
        let (shop, parrot) = (env.app("flask"), env.app("websocket"));
        shop.deploy("v1").await;
        parrot.deploy("v1").await;
        let load = shop.load(100).start();
        let mut socket = WebSocket::connect(env.address(), &parrot.host(), "/echo").await.unwrap();
        assert_eq!(socket.next().await.unwrap(), Message::Text("parrot v1".into()));
        let before = env.belongings().proxy().expect("the proxy runs");

        env.install_another_build();
        env.restart_server().await;
        let after = eventually("there is another proxy", Duration::from_secs(20), async || {
            let others: Vec<_> = env.belongings().proxies().into_iter().filter(|pid| *pid != before).collect();
            others.first().copied().ok_or_else(|| "only the old one".to_owned())
        })
        .await;
        assert_ne!(before, after);
        // The old one carries on with what is open on it, and ends with it.
        socket.echoes("carried by the old proxy").await.unwrap();
        drop(socket);
        eventually("the old proxy has gone", Duration::from_secs(60), async || {
            let proxies = env.belongings().proxies();
            if proxies == [after] { Ok(()) } else { Err(format!("{proxies:?}")) }
        })
        .await;

        shop.deploy("v2").await;
        shop.get("/").await.says("from v2");
        load.stop().await.lost_nothing();
        env.leaves_nothing().await;
    }

    async fn a_proxy_that_dies_is_started_again_with_its_table(env: Env) {
        let shop = env.app("flask");
        shop.deploy("v1").await;
        signal(env.belongings().proxy().unwrap(), Signal::KILL);
        eventually("the app is reached again", Duration::from_secs(20), async || {
            match coracle_tests::browser::get(env.address(), &shop.host(), "/").await {
                Ok(answer) if answer.status.is_success() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        shop.deploy("v2").await;
        env.leaves_nothing().await;
    }
}
