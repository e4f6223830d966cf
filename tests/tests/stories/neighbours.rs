//! What is not ours is left alone: containers, images, networks and volumes of others, and other servers on the machine.

use std::process::Command;

use coracle_model::EngineKind;
use coracle_tests::Env;
use coracle_tests::engine::can_tell;

fn docker(words: &[&str]) -> String {
    let output = Command::new("docker").args(words).output().unwrap();
    assert!(output.status.success(), "docker {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Removes what the story made beside Coracle, however it ends.
struct Foreign {
    name: String,
}

impl Foreign {
    /// A container, a volume, a network and an image tag that look as much like ours as they can without being ours.
    fn make(image: &str) -> Self {
        let name = format!("coracle-story-{}", std::process::id());
        docker(&["volume", "create", "--label", "dev.coracle.app=shop", &name]);
        docker(&["network", "create", "--label", "dev.coracle.app=shop", &name]);
        docker(&["tag", image, &format!("{name}:latest")]);
        let mount = format!("{name}:/data");
        docker(&[
            "run",
            "-d",
            "--name",
            &name,
            "--network",
            &name,
            "-v",
            &mount,
            "--label",
            "dev.coracle.app=shop",
            "--label",
            "dev.coracle.owner=deadbeef",
            image,
            "python",
            "-c",
            "import signal; signal.pause()",
        ]);
        Self { name }
    }

    fn is_untouched(&self) {
        assert_eq!(docker(&["inspect", "-f", "{{.State.Running}}", &self.name]), "true");
        docker(&["network", "inspect", &self.name]);
        docker(&["volume", "inspect", &self.name]);
        docker(&["image", "inspect", &format!("{}:latest", self.name)]);
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let image = format!("{}:latest", self.name);
        for words in
            [&["rm", "-f", &self.name][..], &["network", "rm", &self.name], &["volume", "rm", &self.name], &["rmi", &image]]
        {
            drop(Command::new("docker").args(words).output());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_others_are_left_alone_even_if_they_run_our_image() {
    if !can_tell(EngineKind::Docker, "neighbours: containers of others") {
        return;
    }
    let env = Env::start(EngineKind::Docker).await;
    let shop = env.app("flask");
    shop.tree.manifest("deploy", "keep = 1");
    shop.deploy("v1").await;
    let image = env.belongings().images.into_iter().next().unwrap();
    let foreign = Foreign::make(&image);
    for version in ["v2", "v3", "v4"] {
        shop.deploy(version).await;
        foreign.is_untouched();
    }
    env.restart_server().await;
    shop.settles().await;
    foreign.is_untouched();
    shop.coracle(&["-y", "destroy"]).await.succeeds();
    foreign.is_untouched();
    drop(foreign);
    env.leaves_nothing().await;
}

on_both_engines! {
    async fn two_servers_with_an_app_of_the_same_name_do_not_see_each_other(env: Env) {
        let other = Env::start(env.engine()).await;
        let (ours, theirs) = (env.app("flask"), other.app("flask"));
        ours.deploy("ours").await;
        theirs.deploy("theirs").await;
        ours.get("/").await.says("from ours");
        theirs.get("/").await.says("from theirs");
        ours.deploy("ours-2").await;
        env.leaves_nothing().await;
        theirs.get("/").await.says("from theirs");
        theirs.settles().await;
        other.leaves_nothing().await;
    }
}
