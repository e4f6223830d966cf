//! What other apps have already: hosts, requests and ports of the machine.

use std::collections::BTreeSet;

use coracle_api::{Problem, ProblemKind};
use coracle_model::{AppName, AppSpec, stack};
use coracle_store::{Store, StoreError};

use super::{by_manifest, is_rule};
use crate::problems;

/// Stands for every host. Whoever has it gets what nobody else asks for.
pub(super) const ANY_HOST: &str = "*";

/// The hosts that a description names, in its settings and in the rules of its labels.
pub(super) fn hosts(spec: &AppSpec) -> BTreeSet<String> {
    let named = by_manifest(spec).flat_map(|http| http.hosts.iter().map(ToString::to_string));
    let labels = spec.parts().flat_map(|(_, part)| &part.container.labels);
    let rules = labels.filter(|(name, _)| is_rule(&name.to_ascii_lowercase()));
    let of_rules = rules.filter_map(|(_, rule)| coracle_labels::hosts_of_rule(rule).ok()).flat_map(|hosts| hosts.named);
    named.chain(of_rules).collect()
}

/// Refuses what another app has. Whose it is, is not told: people are not told what apps there are.
pub(super) async fn refuse(
    store: &Store,
    (app, parent): (&AppName, Option<&AppName>),
    spec: &AppSpec,
    own: &BTreeSet<String>,
) -> Result<(), Problem> {
    let told = |error: StoreError| problems::store(&error);
    let named = hosts(spec);
    let wanted: Vec<&String> = named.difference(own).filter(|host| *host != ANY_HOST).collect();
    let previews = store.previews(Some(app)).await.map_err(told)?;
    let is_related = |name: &AppName| name == app || parent == Some(name) || previews.iter().any(|its| its.app == *name);
    let active = store.active_releases().await.map_err(told)?;
    for other in active.iter().filter(|other| !is_related(&other.app)) {
        let requests = taken_host(&wanted, &other.spec).or_else(|| coracle_orchestrator::contested_with(spec, other));
        if let Some(what) = requests {
            let problem = Problem::new(ProblemKind::Forbidden, format!("{what} is taken"));
            return Err(problem.hint("choose another one: only the administrator lets apps share a host"));
        }
        if let Some(port) = stack::shared_port(spec, &other.spec) {
            let problem = Problem::new(ProblemKind::Conflict, format!("the port {port} of this machine is taken"));
            return Err(problem.hint("publish another one, or none: requests come by the proxy"));
        }
    }
    Ok(())
}

/// The host of these that another app has, in words. A part of its requests would bring its visitors' cookies with it.
fn taken_host(wanted: &[&String], other: &AppSpec) -> Option<String> {
    let taken = hosts(other);
    let host = wanted.iter().find(|host| taken.iter().any(|taken| share_names(taken, host)))?;
    Some(match host.starts_with('*') {
        true => format!("a host that {host} covers"),
        false => format!("the host {host}"),
    })
}

/// Whether there are names that both hosts stand for, each of which may be a pattern. `*.a` counts as every name below `a`:
/// cookies reach those.
fn share_names(one: &str, other: &str) -> bool {
    let parent = |host: &str| host.strip_prefix("**.").or_else(|| host.strip_prefix("*.")).map(|parent| format!(".{parent}"));
    match (parent(one), parent(other)) {
        (None, None) => one == other,
        (Some(below), None) => other.ends_with(&below),
        (None, Some(below)) => one.ends_with(&below),
        (Some(one), Some(other)) => one.ends_with(&other) || other.ends_with(&one),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use coracle_model::container::{PublishedPort, Transport};
    use coracle_model::{Artifact, ArtifactId, DeploymentKind, EngineKind, Exposure, Origin, ProcessName, ReleaseNumber};
    use coracle_store::NewRelease;

    use super::super::refuse_more;
    use super::super::tests::spec;
    use super::*;

    #[test]
    fn hosts_are_named_in_settings_and_rules() {
        let mut spec = spec(|settings| {
            let rule = "Host(`Api.example`) && (PathPrefix(`/v1`) || Host(\"b.example\"))".to_owned();
            settings.labels.insert("traefik.http.routers.api.rule".to_owned(), rule);
        });
        spec.http.hosts = vec!["shop.example".parse().unwrap()];
        let hosts: Vec<String> = hosts(&spec).into_iter().collect();
        assert_eq!(hosts, ["api.example", "b.example", "shop.example"]);
    }

    #[test]
    fn patterns_share_names_with_what_they_cover() {
        for (one, other, shared) in [
            ("a.b", "a.b", true),
            ("a.b", "b", false),
            ("*.b", "a.b", true),
            ("*.b", "x.a.b", true),
            ("*.b", "b", false),
            ("*.b", "ab", false),
            ("*.b", "*.a.b", true),
            ("**.b", "*.b", true),
            ("*.a", "*.b", false),
            ("*", "a.b", false),
        ] {
            assert_eq!((share_names(one, other), share_names(other, one)), (shared, shared), "{one} {other}");
        }
    }

    /// A store with the app `brk`, which labels route.
    async fn with_brk(dir: &Path) -> Store {
        let store = Store::open(dir).await.unwrap();
        let mut brk = spec(|settings| {
            settings.labels.insert("traefik.http.routers.brk.rule".to_owned(), "Host(`brk.localhost`)".to_owned());
        });
        brk.app = "brk".parse().unwrap();
        brk.http.hosts = Vec::new();
        brk.processes.get_mut(&ProcessName::web()).unwrap().container.ports = vec![loopback_port()];
        brk.processes.get_mut(&ProcessName::web()).unwrap().exposure = Exposure::Labels { port: None };
        activate(&store, brk).await;
        store
    }

    fn loopback_port() -> PublishedPort {
        PublishedPort { target: 80, protocol: Transport::Tcp, host: Some(8000), address: None }
    }

    async fn activate(store: &Store, spec: AppSpec) {
        let app = spec.app.clone();
        let artifact = Artifact::new(EngineKind::Docker, ArtifactId::new("image"));
        store.ensure_app(&app).await.unwrap();
        let deployment = store.begin_deployment(&app, DeploymentKind::Deploy).await.unwrap();
        let origin = Origin::Deploy { commit: None };
        let new = NewRelease {
            app: app.clone(),
            number: ReleaseNumber::FIRST,
            artifact,
            artifacts: [].into(),
            spec,
            origin,
            env: Vec::new(),
        };
        store.create_release(new).await.unwrap();
        store.activate(deployment.id, &[]).await.unwrap();
    }

    #[tokio::test]
    async fn the_hosts_of_others_are_taken_and_nobody_is_told_whose_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let store = with_brk(dir.path()).await;
        let app = "shop".parse().unwrap();
        let at = |host: &str| {
            let mut spec = spec(|_| ());
            spec.http.hosts = vec![host.parse().unwrap()];
            spec
        };
        let by_rule = |rule: &str| {
            let mut spec = spec(|settings| {
                settings.labels.insert("traefik.http.routers.r.rule".to_owned(), rule.to_owned());
            });
            spec.processes.get_mut(&ProcessName::web()).unwrap().exposure = Exposure::Labels { port: None };
            spec
        };
        for (wanted, detail) in [
            (at("brk.localhost"), "the host brk.localhost is taken"),
            (at("*.localhost"), "a host that *.localhost covers is taken"),
            (by_rule("Host(`*.localhost`)"), "a host that *.localhost covers is taken"),
            (by_rule("Host(\"brk.localhost\") && PathPrefix(\"/login\")"), "the host brk.localhost is taken"),
        ] {
            let refused = refuse_more(&store, &app, &wanted, EngineKind::Docker).await.unwrap_err();
            assert_eq!((refused.kind, refused.detail.as_str()), (ProblemKind::Forbidden, detail));
            assert!(!format!("{refused:?}").contains("app brk") && !format!("{refused:?}").contains("-a brk"), "{refused:?}");
        }
        let published = spec(|settings| settings.ports = vec![loopback_port()]);
        let refused = refuse_more(&store, &app, &published, EngineKind::Docker).await.unwrap_err();
        assert_eq!(refused.detail, "the port 8000/tcp of this machine is taken");
        let refused = refuse_more(&store, &app, &at("*"), EngineKind::Docker).await.unwrap_err();
        assert!(refused.detail.contains("requests of every host"), "{}", refused.detail);
        for good in [at("shop.localhost"), at("*.shop.localhost"), by_rule("Host(`www.localhost`) && Path(`/`)")] {
            refuse_more(&store, &app, &good, EngineKind::Docker).await.unwrap();
        }
    }
}
