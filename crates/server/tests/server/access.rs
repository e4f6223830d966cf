//! Who may use the API.

use coracle_api::{Client, Endpoint, ProblemKind};
use coracle_model::Secret;
use tokio::net::TcpStream;

use crate::harness::{Env, mode, raw_over};

#[tokio::test]
async fn over_tcp_only_the_token_opens() {
    let env = Env::start_with(|options| options.api_tcp = Some("127.0.0.1:0".parse().unwrap())).await;
    let address = env.api_tcp.unwrap();
    let file = env.state_dir().join("token");
    assert_eq!(mode(&file), 0o600);
    let token = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    let client = |token: &str| Client::new(Endpoint::Tcp { url: format!("http://{address}"), token: Secret::new(token) });

    client(&token).version().await.unwrap();
    for wrong in ["", "x", &token[1..], &token.to_uppercase(), &format!("{token}0")] {
        let error = client(wrong).apps().await.unwrap_err();
        assert_eq!(error.kind(), Some(ProblemKind::Unauthorized), "{wrong:?}: {error:?}");
        assert!(error.hint().unwrap().contains("token"));
    }
    for headers in [&[][..], &[("Authorization", "Basic eDp5")], &[("Authorization", token.as_str())]] {
        for path in ["/v1/version", "/v1/openapi.json", "/nothing"] {
            let stream = TcpStream::connect(address).await.unwrap();
            let (status, answer) = raw_over(stream, "GET", path, headers, b"").await;
            assert_eq!(status, 401, "{path}: {answer}");
            assert!(answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
        }
    }
}

#[tokio::test]
async fn the_socket_is_private_and_tcp_is_closed_unless_asked_for() {
    let env = Env::start().await;
    assert_eq!(mode(&env.state_dir().join("api.sock")), 0o600);
    assert_eq!(mode(&env.state_dir()), 0o700);
    assert_eq!(env.api_tcp, None);
    assert!(!env.state_dir().join("token").exists());
}

#[tokio::test]
async fn the_doctor_speaks_plainly() {
    let env = Env::start().await;
    let doctor = env.client.doctor().await.unwrap();
    for name in ["docker", "user", "cgroups", "python3", "disk space", "state directory"] {
        let check =
            doctor.checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check {name}: {doctor:?}"));
        assert!(!check.detail.is_empty());
    }
    let version = env.client.version().await.unwrap();
    assert_eq!((version.api.as_str(), version.http.len(), version.proxy), ("v1", 1, None));
}
