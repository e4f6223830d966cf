//! What `docker login` has kept on this machine: in Docker's configuration itself, or with a helper that it names.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_model::RegistryHost;
use serde::Deserialize;

use crate::failure::Failure;

/// The part of `config.json` that is about logins (docker/cli, `cli/config/configfile`).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    identitytoken: String,
}

/// What a helper answers (`docker-credential-helpers`).
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The name and the password for a registry.
pub(super) fn login(host: &RegistryHost) -> Result<(String, String), Failure> {
    let path = path()?;
    let place = path.display();
    let text = std::fs::read(&path).map_err(|error| Failure::failed(format!("cannot read {place}: {error}")))?;
    // What serde has to say about it might quote it.
    let config: Config = serde_json::from_slice(&text).map_err(|error| {
        Failure::failed(format!("{place} is not what Docker writes: line {}, column {}", error.line(), error.column()))
    })?;
    if let Some((key, helper)) = helper(&config, host) {
        return ask(&helper, &key);
    }
    let auth = config.auths.iter().find(|(key, auth)| is(key, host) && !(auth.auth.is_empty() && auth.identitytoken.is_empty()));
    match auth {
        Some((_, auth)) => decoded(auth).ok_or_else(|| {
            Failure::failed(format!("what {place} has for {host} is no name and password")).hint("log in by hand")
        }),
        None => Err(Failure::failed(format!("{place} has no login to {host}"))
            .hint(format!("docker login {host}, or coracle registry login {host} without --from-docker-config"))),
    }
}

fn path() -> Result<PathBuf, Failure> {
    if let Some(directory) = std::env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(directory).join("config.json"));
    }
    let home = std::env::var_os("HOME").filter(|value| !value.is_empty());
    let home = home.ok_or_else(|| Failure::failed("neither DOCKER_CONFIG nor HOME says where Docker's configuration is"))?;
    Ok(PathBuf::from(home).join(".docker/config.json"))
}

fn is(key: &str, host: &RegistryHost) -> bool {
    key.parse::<RegistryHost>().is_ok_and(|known| known == *host)
}

/// The helper that knows the registry, and by which name.
fn helper(config: &Config, host: &RegistryHost) -> Option<(String, String)> {
    if let Some((key, helper)) = config.helpers.iter().find(|(key, _)| is(key, host)) {
        return Some((key.clone(), helper.clone()));
    }
    let store = config.store.clone()?;
    let key = config.auths.keys().find(|key| is(key, host)).cloned();
    Some((key.unwrap_or_else(|| host.server_address().to_owned()), store))
}

fn decoded(auth: &Auth) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(auth.auth.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    let password = password.trim_matches('\0');
    (!name.is_empty() && !password.is_empty()).then(|| (name.to_owned(), password.to_owned()))
}

/// Asks a helper as Docker does: a program of a fixed name, the registry on its standard input.
fn ask(helper: &str, key: &str) -> Result<(String, String), Failure> {
    let plain = !helper.is_empty() && helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let program = format!("docker-credential-{helper}");
    let failed = |why: &str| Failure::failed(format!("{program} does not tell the login to {key}: {why}")).hint("log in by hand");
    if !plain {
        return Err(Failure::failed("Docker's configuration names a helper that cannot be one"));
    }
    let asking = Command::new(&program).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut asking = asking.map_err(|error| failed(&error.to_string()))?;
    if let Some(mut input) = asking.stdin.take() {
        input.write_all(key.as_bytes()).map_err(|error| failed(&error.to_string()))?;
    }
    let answer = asking.wait_with_output().map_err(|error| failed(&error.to_string()))?;
    let answer: Answer = match answer.status.success() {
        true => serde_json::from_slice(&answer.stdout).map_err(|_| failed("its answer is not what Docker expects"))?,
        false => return Err(failed("it knows none")),
    };
    match answer.username.as_str() {
        "<token>" => Err(failed("it has an identity token, which is no password")),
        _ => Ok((answer.username, answer.secret)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_docker_wrote_is_read() {
        let text = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{}"}},"a.b:5000":{{}}}}}}"#,
            STANDARD.encode("ana:se:same")
        );
        let config: Config = serde_json::from_str(&text).unwrap();
        let hub = RegistryHost::hub();
        let (_, auth) = config.auths.iter().find(|(key, _)| is(key, &hub)).unwrap();
        assert_eq!(decoded(auth), Some(("ana".to_owned(), "se:same".to_owned())));
        assert_eq!(decoded(&config.auths["a.b:5000"]), None);
        assert_eq!(helper(&config, &hub), None);
    }

    #[test]
    fn a_registrys_own_helper_goes_before_the_store() {
        let config: Config =
            serde_json::from_str(r#"{"auths":{"a.b":{}},"credsStore":"pass","credHelpers":{"c.d":"cloud"}}"#).unwrap();
        let of = |host: &str| helper(&config, &host.parse().unwrap()).unwrap();
        assert_eq!(of("c.d"), ("c.d".to_owned(), "cloud".to_owned()));
        assert_eq!(of("a.b"), ("a.b".to_owned(), "pass".to_owned()));
        assert_eq!(of("docker.io").0, "https://index.docker.io/v1/");
        assert!(ask("x; rm -rf /", "a.b").is_err());
    }
}
