//! Registries: who one is to them, what a reference means there, what is pushed to them, and what their refusals mean. The
//! engine does the talking, so that its own configuration of certificates, mirrors and proxies holds.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{RemoveImageOptionsBuilder, TagImageOptionsBuilder};
use coracle_engine::{BuildError, EngineError, OutputSink, RegistryTrouble, Stream};
use coracle_model::text::one_line;
use coracle_model::{ArtifactId, ImageReference, Logins, PinnedImage, RegistryHost, RegistryLogin};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};

use super::message::{Message, Messages};
use super::pull::local_id;
use crate::client::{Client, is_disk_full, is_unreachable, message, status, timely, unavailable};
use crate::wire;

/// Characters of a registry's words that are passed on.
const TOLD: usize = 300;

/// How many steps of a push are told for each layer: what is in between is a bar that moves.
const STEPS: [&str; 4] = ["Layer already exists", "Pushed", "Mounted from", "Waiting"];

/// What is shown to a reference's registry.
pub(super) fn credentials(logins: &Logins, reference: &ImageReference) -> Option<DockerCredentials> {
    logins.of(reference.host()).map(|login| shown(reference.host(), login))
}

fn shown(host: &RegistryHost, login: &RegistryLogin) -> DockerCredentials {
    DockerCredentials {
        username: Some(login.username.clone()),
        password: Some(login.password.expose().to_owned()),
        serveraddress: Some(host.server_address().to_owned()),
        ..DockerCredentials::default()
    }
}

/// The header that shows a build every registry's credentials (`X-Registry-Config`); `None` if there are none.
pub(super) fn config_header(logins: &Logins) -> Option<String> {
    let all: HashMap<&str, DockerCredentials> =
        logins.iter().map(|(host, login)| (host.server_address(), shown(host, login))).collect();
    if all.is_empty() { None } else { serde_json::to_vec(&all).ok().map(|json| URL_SAFE.encode(json)) }
}

/// The header that shows one registry its credentials (`X-Registry-Auth`); engines want an empty object rather than nothing.
fn auth_header(credentials: Option<&DockerCredentials>) -> String {
    let json = credentials.and_then(|credentials| serde_json::to_vec(credentials).ok());
    URL_SAFE.encode(json.unwrap_or_else(|| b"{}".to_vec()))
}

/// A refusal, sorted into what it means.
pub(super) fn refused(action: &'static str, what: impl ToString, text: &str) -> BuildError {
    BuildError::Registry { action, what: what.to_string(), trouble: trouble(text), said: said(text) }
}

/// What an engine's words about a registry mean. Docker answers most of what goes wrong there with 500, so the words are all
/// there is.
fn trouble(text: &str) -> RegistryTrouble {
    let text = text.to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if any(&["server gave http response to https client"]) {
        RegistryTrouble::Plain
    } else if any(&["x509:", "certificate", "tls: ", "remote error: tls"]) {
        RegistryTrouble::Untrusted
    } else if any(&["toomanyrequests", "too many requests"]) {
        RegistryTrouble::TooOften
    } else if any(&["no matching manifest", "does not match the specified platform", "no match for platform"]) {
        RegistryTrouble::OtherPlatforms { has: vec!["others".to_owned()], wanted: "another".to_owned() }
    } else if any(&[
        "dial tcp",
        "no such host",
        "connection refused",
        "connection reset",
        "i/o timeout",
        "deadline exceeded",
        "tls handshake timeout",
        "no route to host",
        "network is unreachable",
        ": eof",
        "client.timeout",
    ]) {
        RegistryTrouble::Unreachable
    } else if any(&[
        "unauthorized",
        "denied",
        "no basic auth credentials",
        "authentication required",
        "status: 401",
        "status: 403",
        "incorrect username or password",
    ]) {
        RegistryTrouble::Denied
    } else if any(&["manifest unknown", "not found", "name unknown", "does not exist"]) {
        RegistryTrouble::Missing
    } else {
        RegistryTrouble::Other
    }
}

/// Words from outside, as they may be shown: printable, and not too many.
fn said(text: &str) -> String {
    one_line(text, TOLD).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a reference means at its registry now.
pub(super) async fn resolve(client: &Client, reference: &ImageReference, logins: &Logins) -> Result<PinnedImage, BuildError> {
    const ACTION: &str = "fetch";
    let asked = timely(client.docker.inspect_registry_image(&reference.exact(), credentials(logins, reference))).await;
    let found = asked.map_err(|error| match &error {
        bollard::errors::Error::RequestTimeoutError => refused(ACTION, reference, "i/o timeout"),
        error if is_unreachable(error) => client.error(format!("look up {reference}"), error).into(),
        error => refused(ACTION, reference, &message(error)),
    })?;
    let wanted = client.facts.platform();
    let has: Vec<String> = found
        .platforms
        .iter()
        .filter_map(|platform| Some(format!("{}/{}", platform.os.as_ref()?, platform.architecture.as_ref()?)))
        .filter(|platform| platform != "unknown/unknown" && platform.len() > 1 && !platform.starts_with('/'))
        .collect();
    if !has.is_empty() && !has.contains(&wanted) {
        let has = has.iter().map(|platform| said(platform)).take(10).collect();
        let trouble = RegistryTrouble::OtherPlatforms { has, wanted };
        return Err(BuildError::Registry { action: ACTION, what: reference.to_string(), trouble, said: String::new() });
    }
    let digest = found.descriptor.digest.unwrap_or_default();
    reference.pinned(&digest).map_err(|error| refused(ACTION, reference, &error.to_string()))
}

/// Hears whether a registry takes credentials. The engine asks it as it does for images.
pub(super) async fn check_login(client: &Client, host: &RegistryHost, login: &RegistryLogin) -> Result<(), BuildError> {
    const ACTION: &str = "log in to";
    let body = serde_json::json!({
        "username": login.username,
        "password": login.password.expose(),
        "serveraddress": host.server_address(),
    });
    let request = Request::post(format!("/v{}/auth", client.facts.api_version))
        .header("Host", "docker")
        .header("Content-Type", "application/json")
        .body(Full::new(body.to_string().into()).map_err(|never| match never {}).boxed())
        .map_err(|error| BuildError::CannotBuild(error.to_string()))?;
    let asking = async {
        let answer = wire::send(&client.socket, request).await?;
        let status = answer.status;
        Ok::<_, std::io::Error>((status, answer.text().await?))
    };
    let asked = tokio::time::timeout(crate::client::ORDINARY, asking).await;
    let (status, text) =
        asked.map_err(|_| refused(ACTION, host, "i/o timeout"))?.map_err(|error| unavailable(error.to_string()))?;
    if status.is_success() {
        return Ok(());
    }
    let text = wire::refusal(&text);
    match trouble(&text) {
        RegistryTrouble::Other if status == StatusCode::UNAUTHORIZED => Err(refused(ACTION, host, "unauthorized")),
        _ => Err(refused(ACTION, host, &text)),
    }
}

/// Pushes an image under a tag and answers where it is then. The name is taken off the machine again, or given back to what
/// bore it before.
pub(super) async fn push(
    client: &Client,
    artifact: &ArtifactId,
    to: &ImageReference,
    logins: &Logins,
    output: &OutputSink,
) -> Result<PinnedImage, BuildError> {
    let name = to.exact();
    let _turn = client.pulls.take(&name).await;
    let before = local_id(client, &name).await?;
    tag(client, artifact.as_str(), to).await?;
    let pushed = send(client, to, logins, output).await;
    match before {
        Some(before) => tag(client, &before, to).await?,
        None => forget(client, &name).await,
    }
    pushed
}

async fn tag(client: &Client, image: &str, to: &ImageReference) -> Result<(), BuildError> {
    let options = TagImageOptionsBuilder::default().repo(&to.repository().to_string()).tag(to.tag().unwrap_or("latest")).build();
    let tagged = timely(client.docker.tag_image(image, Some(options))).await;
    tagged.map_err(|error| match status(&error) {
        Some(404) => EngineError::NoSuchArtifact(ArtifactId::new(image)).into(),
        _ => client.error(format!("name image {to}"), &error).into(),
    })
}

/// Takes a name off an image that has others.
pub(super) async fn forget(client: &Client, name: &str) {
    let options = RemoveImageOptionsBuilder::default().noprune(true).build();
    if let Err(error) = timely(client.docker.remove_image(name, Some(options), None)).await {
        tracing::debug!(name, error = message(&error), "the image keeps this name");
    }
}

async fn send(client: &Client, to: &ImageReference, logins: &Logins, output: &OutputSink) -> Result<PinnedImage, BuildError> {
    const ACTION: &str = "push";
    output.line(Stream::Stdout, format!("Pushing image {to}"));
    let tag = to.tag().unwrap_or("latest").to_owned();
    let uri = format!("/v{}/images/{}/push{}", client.facts.api_version, to.repository(), wire::query(&[("tag", tag)]));
    let request = Request::post(uri)
        .header("Host", "docker")
        .header("X-Registry-Auth", auth_header(credentials(logins, to).as_ref()))
        .body(wire::empty())
        .map_err(|error| BuildError::CannotBuild(error.to_string()))?;
    let mut answer = wire::send(&client.socket, request).await.map_err(|error| unavailable(error.to_string()))?;
    if !answer.status.is_success() {
        let text = wire::refusal(&answer.text().await.unwrap_or_default());
        return Err(refused(ACTION, to, &text));
    }
    let (mut messages, mut digest) = (Messages::default(), None);
    while let Some(frame) = answer.body.frame().await {
        let Ok(data) = frame.map_err(|error| unavailable(error.to_string()))?.into_data() else { continue };
        for message in messages.push(&data)? {
            if let Some(failure) = message.failure() {
                return Err(match is_disk_full(&failure.text) {
                    true => client.disk_full().into(),
                    false => refused(ACTION, to, &failure.text),
                });
            }
            digest = digest_of(&message).or(digest);
            if let Some(line) = progress_of(&message) {
                output.line(Stream::Stdout, line);
            }
        }
    }
    let digest = digest.ok_or_else(|| refused(ACTION, to, "the engine ended the push without the image's digest"))?;
    to.pinned(&digest).map_err(|error| refused(ACTION, to, &error.to_string()))
}

/// The digest that ends a push: told beside it, or (Podman) in a line of its own.
fn digest_of(message: &Message) -> Option<String> {
    let told = message.aux.as_ref().and_then(|aux| aux.get("Digest")?.as_str());
    let in_words = || {
        let (_, rest) = message.status.as_deref()?.split_once("digest: ")?;
        rest.split_whitespace().next()
    };
    told.or_else(in_words).map(str::to_owned)
}

/// What people are told of a push: each layer's end, and what is about the whole.
fn progress_of(message: &Message) -> Option<String> {
    let status = said(message.status.as_deref()?);
    match &message.id {
        None => (!status.is_empty()).then_some(status),
        Some(layer) => STEPS[..3].iter().any(|step| status.starts_with(step)).then(|| format!("{}: {status}", said(layer))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use coracle_model::Secret;

    use super::*;

    #[test]
    fn what_engines_say_of_registries_is_understood() {
        use RegistryTrouble::{Denied, Missing, Other, Plain, TooOften, Unreachable, Untrusted};
        for (text, expected) in [
            (r#"Get "https://172.17.0.1:5777/v2/": x509: certificate signed by unknown authority"#, Untrusted),
            (r#"Get "https://r/v2/": tls: failed to verify certificate: x509: certificate is valid for a, not b"#, Untrusted),
            (r#"Get "https://r/v2/": http: server gave HTTP response to HTTPS client"#, Plain),
            ("manifest unknown: manifest unknown", Missing),
            ("manifest for 172.17.0.1:5777/a/b:1 not found: manifest unknown: manifest unknown", Missing),
            ("name unknown: repository name not known to registry", Missing),
            ("unauthorized: authentication required", Denied),
            ("login attempt to https://172.17.0.1:5777/v2/ failed with status: 401 Unauthorized", Denied),
            (r#"Head "https://172.17.0.1:5777/v2/a/b/manifests/1": no basic auth credentials"#, Denied),
            ("denied: requested access to the resource is denied", Denied),
            ("pull access denied for a/b, repository does not exist or may require 'docker login': denied: …", Denied),
            (r#"Get "https://r/v2/": unauthorized: incorrect username or password"#, Denied),
            (r#"Get "https://172.17.0.1:5778/v2/": dial tcp 172.17.0.1:5778: connect: connection refused"#, Unreachable),
            (r#"Get "https://nowhere.invalid/v2/": dial tcp: lookup nowhere.invalid: no such host"#, Unreachable),
            (r#"Get "https://r/v2/": net/http: TLS handshake timeout"#, Unreachable),
            (r#"Get "https://r/v2/": net/http: request canceled (Client.Timeout exceeded while awaiting headers)"#, Unreachable),
            ("toomanyrequests: You have reached your pull rate limit", TooOften),
            ("received unexpected HTTP status: 500 Internal Server Error", Other),
        ] {
            assert_eq!(trouble(text), expected, "{text}");
        }
        let platform = trouble("no matching manifest for linux/amd64 in the manifest list entries");
        assert!(matches!(platform, RegistryTrouble::OtherPlatforms { .. }));
    }

    #[test]
    fn words_from_outside_cannot_steer_a_terminal() {
        let text = format!("denied: \u{1b}[2J\u{7}hello\r\n{}", "x".repeat(1000));
        let said = said(&text);
        assert!(said.starts_with("denied: \u{fffd}[2J\u{fffd}hello xxx") && said.chars().count() <= TOLD, "{said}");
    }

    #[test]
    fn pushes_are_told_by_layers_and_end_with_a_digest() {
        let message = |text: &str| serde_json::from_str::<Message>(text).unwrap();
        let told = |text| progress_of(&message(text));
        assert_eq!(
            told(r#"{"status":"The push refers to repository [r/a]"}"#).as_deref(),
            Some("The push refers to repository [r/a]")
        );
        assert_eq!(told(r#"{"status":"Pushing","progressDetail":{"current":512},"id":"abc"}"#), None);
        assert_eq!(told(r#"{"status":"Pushed","id":"abc"}"#).as_deref(), Some("abc: Pushed"));
        assert_eq!(told(r#"{"progressDetail":{},"aux":{"Tag":"1","Digest":"sha256:00","Size":1}}"#), None);
        let digest = |text| digest_of(&message(text));
        assert_eq!(digest(r#"{"aux":{"Tag":"1","Digest":"sha256:00","Size":1}}"#).as_deref(), Some("sha256:00"));
        assert_eq!(digest(r#"{"status":"1: digest: sha256:11 size: 528"}"#).as_deref(), Some("sha256:11"));
        assert_eq!(digest(r#"{"status":"Preparing","id":"abc"}"#), None);
    }

    #[test]
    fn each_registry_is_shown_its_own_credentials_alone() {
        let login = |name: &str| RegistryLogin { username: name.to_owned(), password: Secret::new("sesame") };
        let logins: Logins =
            [("a.b:5000".parse().unwrap(), login("ana")), (RegistryHost::hub(), login("ben"))].into_iter().collect();
        let of = |text: &str| credentials(&logins, &text.parse().unwrap()).and_then(|it| it.username);
        assert_eq!(of("a.b:5000/x").as_deref(), Some("ana"));
        assert_eq!(of("nginx").as_deref(), Some("ben"));
        assert_eq!(of("a.b/x"), None);
        let header = URL_SAFE.decode(config_header(&logins).unwrap()).unwrap();
        let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(header["https://index.docker.io/v1/"]["username"], "ben");
        assert_eq!(config_header(&Logins::default()), None);
        assert_eq!(auth_header(None), URL_SAFE.encode("{}"));
    }
}
