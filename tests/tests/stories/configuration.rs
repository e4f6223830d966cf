//! Configuration and secrets.

use coracle_tests::Env;

const SECRET: &str = "n0b0dy-may-see-this";

on_both_engines! {
    async fn changed_configuration_is_a_release_of_its_own(env: Env) {
        let shop = env.app("flask");
        shop.deploy("v1").await;
        let load = shop.load(50).start();

        shop.coracle(&["config", "set", "GREETING=Ahoy; $(id) \"there\""]).await.succeeds();
        shop.get("/").await.says("Ahoy; $(id) \"there\" from v1");
        assert_eq!(shop.active().await, Some(2));
        shop.coracle(&["config", "get", "GREETING"]).await.succeeds().says("Ahoy");

        shop.coracle(&["rollback"]).await.succeeds();
        shop.get("/").await.says("Hello from v1");

        shop.coracle(&["config", "set", "GREETING=Servus"]).await.succeeds();
        shop.deploy("v2").await;
        shop.get("/").await.says("Servus from v2");
        load.stop().await.lost_nothing();
        env.leaves_nothing().await;
    }

    async fn without_its_secrets_an_app_is_not_even_built(env: Env) {
        let shop = env.app("flask");
        let manifest = shop.tree.read("coracle.toml");
        shop.tree.write("coracle.toml", format!("secrets = [\"TILL_KEY\"]\n{manifest}"));
        let refused = shop.deploy_as_it_is().await;
        assert!(refused.code != Some(0), "{refused}");
        refused.shows("TILL_KEY").shows("coracle secrets set TILL_KEY");
        assert!(!refused.lines.iter().any(|line| line.contains("building")), "{refused}");

        std::fs::write(env.path("till.txt"), SECRET).unwrap();
        let file = env.path("till.txt");
        shop.coracle(&["secrets", "set", "TILL_KEY", "--file", file.to_str().unwrap()]).await.succeeds();
        std::fs::remove_file(file).unwrap();
        shop.tree.change("shop.py", "from {VERSION}\\n\"", "from {VERSION} with {len(os.environ['TILL_KEY'])}\\n\"");
        let deployed = shop.deploy("v1").await;
        shop.get("/").await.says(&format!("from v1 with {}", SECRET.len()));

        // It is nowhere to be seen but in the environment of the app.
        assert!(!deployed.to_string().contains(SECRET));
        for words in [&["secrets"][..], &["config"], &["config", "--json"], &["secrets", "--json"], &["status", "--json"]] {
            shop.coracle(words).await.succeeds().does_not_say(SECRET);
        }
        shop.coracle(&["logs", "-n", "all"]).await.does_not_say(SECRET);
        assert!(!env.server_log().contains(SECRET));
        assert!(env.belongings().processes.iter().all(|process| !process.command.contains(SECRET)));
        let found = coracle_tests::belongings::files_with(env.state(), SECRET);
        assert!(found.is_empty(), "{found:?}");
        for image in env.belongings().images {
            let history = std::process::Command::new("docker").args(["history", "--no-trunc", &image]).output().unwrap();
            assert!(!String::from_utf8_lossy(&history.stdout).contains(SECRET));
            let config = std::process::Command::new("docker").args(["image", "inspect", &image]).output().unwrap();
            assert!(!String::from_utf8_lossy(&config.stdout).contains(SECRET));
        }
        env.leaves_nothing().await;
    }
}
