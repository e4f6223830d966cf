//! Hostile input gets a clear error and changes nothing.

use std::io::Write;

use bytes::Bytes;
use coracle_api::{ClientError, DeployOptions, DeploymentEvent, Problem, Source};
use coracle_model::EngineKind;
use coracle_tests::engine::can_tell;
use coracle_tests::{Env, browser};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Method;
use tar::{EntryType, Header};

/// Nothing has been made: no app, no process, no file beside the server's own.
async fn nothing_happened(env: &Env) {
    let apps = env.client().apps().await.unwrap();
    assert!(apps.iter().all(|app| app.release.is_none()), "{apps:?}");
    let there = env.belongings().of_apps(&[env.server_pid()]);
    assert!(there.is_empty(), "{there:#?}");
    assert!(!env.path("pwned").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_none_are_refused() {
    let env = Env::start(EngineKind::Process).await;
    let shop = env.app("flask");
    let pwned = env.path("pwned");
    let names = ["../etc", "a/b", "shop;touch pwned", "$(touch pwned)", "shöp", "SHOP", "-rf", "", "a\nb", &"a".repeat(300)];
    for name in names {
        let refused = shop.coracle(&["deploy", &format!("--app={name}")]).await;
        assert_eq!(refused.code, Some(2), "{name:?}: {refused}");
        let escaped: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for path in [format!("/v1/apps/{escaped}"), format!("/v1/apps/{escaped}/logs"), format!("/v1/apps/{escaped}/releases")] {
            let answer = browser::ask_socket(&env.state().join("api.sock"), Method::GET, &path, "").await.unwrap();
            assert!(answer.status.is_client_error(), "{path}: {answer:?}");
        }
    }
    shop.tree.change("coracle.toml", "app = \"shop\"", "app = \"../../shop\"");
    let refused = shop.deploy_as_it_is().await;
    assert_eq!(refused.code, Some(2), "{refused}");
    refused.shows("coracle.toml").shows("../../shop");
    assert!(!pwned.exists());
    nothing_happened(&env).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_with_mistakes_are_refused_with_their_place() {
    let env = Env::start(EngineKind::Process).await;
    let shop = env.app("static");
    let endless = format!("app = \"{}\"\n", "x".repeat(1 << 20));
    for (manifest, shown) in [
        ("app = \"shop\"\n[htpp]\nport = 1\n", &["http", "2"][..]),
        ("app = \"shop\"\n[http]\nhelth = \"/\"\n", &["health", "3"]),
        ("app = \"shop\"\n[http]\nport = \"eighty\"\n", &["port", "3"]),
        ("app = \"shop\"\n[http]\nport = 70000\n", &["port"]),
        ("app = [1]\n", &["app"]),
        ("app = \"shop\"\n[deploy]\ndrain = \"forever\"\n", &["drain", "forever"]),
        ("app = \"shop\"\n[deploy]\nrelease_command = \"a | b\"\n", &["release_command"]),
        ("app = \"shop\nnot toml", &["coracle.toml"]),
        (&endless, &["coracle.toml"]),
    ] {
        shop.tree.write("coracle.toml", manifest);
        let refused = shop.deploy_as_it_is().await;
        assert_eq!(refused.code, Some(2), "{refused}");
        for text in shown {
            refused.shows(text);
        }
        assert!(refused.stderr.len() < 10_000, "an error of {} bytes", refused.stderr.len());
    }
    nothing_happened(&env).await;
}

/// One entry of an archive, with a name that no well-behaved program writes.
fn entry(name: &str, kind: EntryType, link: &str) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o777);
    header.set_size(0);
    if kind == EntryType::Char {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    }
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..name.len()].copy_from_slice(name.as_bytes());
    gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    header
}

fn archive(headers: impl Iterator<Item = Header>) -> Bytes {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    for header in headers {
        gzip.write_all(header.as_bytes()).unwrap();
    }
    gzip.write_all(&[0; 1024]).unwrap();
    gzip.finish().unwrap().into()
}

/// Sends an archive as it is, and answers why it was refused.
async fn refused(env: &Env, archive: Bytes) -> Problem {
    let app = "shop".parse().unwrap();
    let answer = env.client().deploy(&app, &DeployOptions::default(), Source::from_bytes(archive)).await;
    let problem = async |error: ClientError| error.problem().cloned().unwrap_or_else(|| panic!("{error}: {}", env.server_log()));
    let mut events = match answer {
        Err(error) => return problem(error).await,
        Ok(events) => events,
    };
    while let Some(event) = events.next().await {
        match event {
            Err(error) => return problem(error).await,
            Ok(DeploymentEvent::Ended { problem: Some(problem), .. }) => return problem,
            Ok(_) => {}
        }
    }
    panic!("it was not refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_that_reach_outside_are_refused() {
    let env = Env::start(EngineKind::Process).await;
    let pwned = env.path("pwned");
    let absolute = pwned.to_str().unwrap();
    let file = |name: &str| entry(name, EntryType::Regular, "");
    for (what, headers) in [
        ("an absolute path", vec![file(absolute)]),
        ("a path upwards", vec![file("a/../../../../../../../../tmp/pwned")]),
        (
            "a symlink out, written through",
            vec![entry("out", EntryType::Symlink, env.path("").to_str().unwrap()), file("out/pwned")],
        ),
        ("a hard link out", vec![entry("shadow", EntryType::Link, "/etc/shadow")]),
        ("a device", vec![entry("null", EntryType::Char, "")]),
        ("a pipe", vec![entry("pipe", EntryType::Fifo, "")]),
    ] {
        let problem = refused(&env, archive(headers.into_iter())).await;
        assert!((400..500).contains(&problem.status), "{what}: {problem:?}");
        nothing_happened(&env).await;
    }
    let problem = refused(&env, Bytes::from_static(b"this is no archive")).await;
    assert!((400..500).contains(&problem.status), "{problem:?}");
    nothing_happened(&env).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_without_end_are_refused() {
    let env = Env::start(EngineKind::Process).await;
    let many = tokio::task::spawn_blocking(|| {
        archive((0..1_000_000).map(|number| entry(&format!("f{number}"), EntryType::Regular, "")))
    });
    let problem = refused(&env, many.await.unwrap()).await;
    assert!((400..500).contains(&problem.status), "{problem:?}");

    // A bomb: one file of 8 GiB of nothing.
    let bomb = tokio::task::spawn_blocking(|| {
        let mut header = entry("bomb", EntryType::Regular, "");
        header.set_size(8 << 30);
        header.set_cksum();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(header.as_bytes()).unwrap();
        let nothing = vec![0; 1 << 20];
        for _ in 0..8 << 10 {
            gzip.write_all(&nothing).unwrap();
        }
        Bytes::from(gzip.finish().unwrap())
    });
    let problem = refused(&env, bomb.await.unwrap()).await;
    assert!((400..508).contains(&problem.status), "{problem:?}");
    nothing_happened(&env).await;
    // It is none the worse for it.
    let lighthouse = env.app("static");
    lighthouse.deploy_as_it_is().await.succeeds();
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_dockerfile_is_named() {
    if !can_tell(EngineKind::Docker, "hostile: a missing Dockerfile") {
        return;
    }
    let env = Env::start(EngineKind::Docker).await;
    let shop = env.app("flask");
    shop.tree.manifest("build", "dockerfile = \"deploy/Dockerfile.prod\"");
    let refused = shop.deploy_as_it_is().await;
    assert!(refused.code != Some(0), "{refused}");
    refused.shows("deploy/Dockerfile.prod");
    nothing_happened(&env).await;
}
