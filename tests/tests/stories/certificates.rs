//! An app with a name of its own: its certificate comes by itself, and whoever asks for it in another way is led to it.

use std::time::Duration;

use coracle_lab::clients::{Shown, connect, truster};
use coracle_lab::pebble::{HTTP_PORT, Lab, Manners, TLS_PORT, is_missing};
use coracle_model::EngineKind;
use coracle_tests::{Env, Settings, browser, engine, eventually};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MANIFEST: &str = r#"
[http]
hosts = ["lighthouse.example", "www.lighthouse.example"]
canonical_host = "lighthouse.example"
middlewares = ["mark"]

[middlewares.mark.headers.custom_response_headers]
X-Keeper = "ann"
"#;

/// A server whose proxy listens where pebble looks for answers.
async fn server(lab: &Lab) -> Env {
    let mut settings = Settings::of(EngineKind::Process);
    settings.http = Some((lab.address, HTTP_PORT).into());
    let arguments = [
        ("--https", format!("{}:{TLS_PORT}", lab.address)),
        ("--acme-directory", lab.directory()),
        ("--acme-ca", lab.ca_file().display().to_string()),
        ("--acme-email", "ann@lighthouse.example".to_owned()),
    ];
    settings.arguments = arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    // Nobody else knows these names.
    settings.arguments.extend(["--acme".to_owned(), "--acme-no-preflight".to_owned()]);
    let env = Env::prepare(settings);
    env.start_server().await;
    env
}

/// An answer over TLS, head and body, by a client that trusts the authority alone; and which certificate it was shown.
async fn over_tls(lab: &Lab, host: &str, path: &str) -> Result<(String, Shown), String> {
    let config = truster(&lab.root().await, &[b"http/1.1"]);
    let stream = connect(config, (lab.address, TLS_PORT).into(), host).await;
    let mut stream = stream.map_err(|error| format!("{host}: {error}"))?;
    let shown = Shown::on(&stream);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
    Ok((String::from_utf8_lossy(&answer).into_owned(), shown))
}

async fn location(env: &Env, host: &str, path: &str) -> String {
    let answer = browser::ask(env.address(), host, Method::GET, path, String::new()).await.unwrap();
    assert_eq!(answer.status, 301, "{host}{path}: {answer:?}");
    answer.headers["location"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_of_its_own_is_certified_at_once_and_everybody_is_led_to_it() {
    if is_missing() || !engine::can_tell(EngineKind::Process, "certificates") {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    let env = server(&lab).await;
    let lighthouse = env.app("static");
    lighthouse.tree.append("coracle.toml", MANIFEST);
    lighthouse.deploy_as_it_is().await.succeeds();

    // Nobody does anything more for it.
    let served = || async { over_tls(&lab, "lighthouse.example", "/").await };
    eventually("a certificate that is trusted", Duration::from_secs(40), async || served().await.map(drop)).await;
    let (page, first) = served().await.unwrap();
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("Light v1 is on"), "{page}");
    assert!(page.to_ascii_lowercase().contains("x-keeper: ann"), "{page}");
    assert_eq!(first.names, ["lighthouse.example"]);

    let here = format!("https://lighthouse.example:{TLS_PORT}");
    assert_eq!(location(&env, "lighthouse.example", "/tower?lit=1").await, format!("{here}/tower?lit=1"));
    assert_eq!(location(&env, "www.lighthouse.example", "/").await, format!("{here}/"));
    let www = || async { over_tls(&lab, "www.lighthouse.example", "/tower").await };
    eventually("the other certificate", Duration::from_secs(40), async || www().await.map(drop)).await;
    let (page, _) = www().await.unwrap();
    assert!(page.starts_with("HTTP/1.1 301") && page.contains(&format!("{here}/tower\r\n")), "{page}");

    let told: serde_json::Value = serde_json::from_str(&env.coracle(&["certs", "--json"]).await.succeeds().stdout).unwrap();
    let told = told.as_array().unwrap().iter().map(|it| json!([it["name"], it["apps"], it["source"], it["state"]]));
    let expected = ["lighthouse.example", "www.lighthouse.example"].map(|name| json!([name, ["lighthouse"], "acme", "active"]));
    assert_eq!(told.collect::<Vec<_>>(), expected);
    env.coracle(&["certs"]).await.succeeds().says("lighthouse.example").says("active");
    env.coracle(&["domains"]).await.succeeds().says("active (acme)");
    env.coracle(&["routes"]).await.succeeds().says("lighthouse/mark");

    env.restart_server().await;
    assert_eq!(served().await.unwrap().1, first);
    assert_eq!(lab.orders(), 2, "each name was ordered once");

    env.coracle(&["destroy", "-y", "-a", "lighthouse"]).await.succeeds();
    eventually("nobody is certified", Duration::from_secs(20), async || match served().await {
        Ok((page, _)) => Err(page),
        Err(_) => Ok(()),
    })
    .await;
    env.coracle(&["certs"]).await.succeeds().says("no certificates");
    env.leaves_nothing().await;
}
