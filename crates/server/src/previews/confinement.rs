//! What a preview is of what its branch describes: one of everything, reached at its own host, and nothing of anybody else's.

use coracle_model::{AppSpec, Exposure, HttpSpec, ProcessSpec};
use coracle_store::PreviewRecord;

use super::PreviewVariables;

/// How many releases a preview keeps.
const KEPT: u32 = 2;

/// Makes what a branch describes the description of its preview; answers with what that changed of what somebody may expect, one
/// sentence each. What reaches beyond the app is refused elsewhere, as of somebody who is not trusted.
pub(crate) fn confine(spec: &mut AppSpec, preview: &PreviewRecord, variables: PreviewVariables) -> Vec<String> {
    let mut notes = Vec::new();
    spec.app = preview.app.clone();
    (spec.previews, spec.adopted, spec.registry) = (None, None, None);
    spec.deploy.keep = spec.deploy.keep.min(KEPT);
    // What a preview is given stands for the secret of the same name.
    spec.secrets.retain(|name| !variables.contains_key(name));
    spec.env.extend(variables);
    set_host(&mut spec.http, preview);
    let mut taken = Vec::new();
    let AppSpec { processes, services, .. } = spec;
    for part in processes.values_mut() {
        part.replicas = part.replicas.min(1);
    }
    let mut ports = 0;
    for (name, part) in processes.iter_mut().chain(services) {
        ports += part.container.ports.len();
        part.container.ports.clear();
        part.container.labels.retain(|label, _| !label.to_ascii_lowercase().starts_with("traefik."));
        if let Some(host) = reached(part, preview, &mut taken, name.as_str()) {
            notes.push(format!("{name} is reached at {host}"));
        }
    }
    if ports > 0 {
        notes.push("ports of the machine are not published by a preview".to_owned());
    }
    notes
}

fn set_host(http: &mut HttpSpec, preview: &PreviewRecord) {
    http.hosts = vec![preview.host.clone()];
    http.canonical_host = None;
}

/// Has a part be reached at the preview's host; where two want the same paths of it, the later one at a name beneath it, which is
/// told.
fn reached(part: &mut ProcessSpec, preview: &PreviewRecord, taken: &mut Vec<String>, name: &str) -> Option<String> {
    if let Exposure::Labels { port } = part.exposure {
        part.exposure = Exposure::Http(Box::new(HttpSpec { port, ..HttpSpec::default_for(&preview.app) }));
    }
    let Exposure::Http(http) = &mut part.exposure else { return None };
    set_host(http, preview);
    if !taken.contains(&http.path_prefix) {
        taken.push(http.path_prefix.clone());
        return None;
    }
    let label: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    match format!("{label}.{}", preview.host).parse() {
        Ok(host) => http.hosts = vec![host],
        // Too long: nobody reaches it from outside.
        Err(_) => {
            part.exposure = Exposure::Hidden;
            return None;
        }
    }
    Some(format!("{label}.{}", preview.host))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use coracle_model::ProcessName;

    fn preview() -> PreviewRecord {
        let now = jiff::Timestamp::UNIX_EPOCH;
        PreviewRecord {
            app: "shop-x".parse().unwrap(),
            parent: "shop".parse().unwrap(),
            branch: "x".to_owned(),
            host: "x.preview.example".parse().unwrap(),
            commit: None,
            ttl: 60,
            created_at: now,
            pushed_at: now,
            expires_at: now,
        }
    }

    #[test]
    fn hosts_of_the_app_are_never_a_previews() {
        let mut spec = AppSpec::named("shop".parse().unwrap());
        spec.http.hosts = vec!["shop.example".parse().unwrap()];
        spec.http.canonical_host = Some("shop.example".parse().unwrap());
        spec.secrets = vec!["KEY".parse().unwrap(), "OTHER".parse().unwrap()];
        let http = |host: &str| Exposure::Http(Box::new(HttpSpec { hosts: vec![host.parse().unwrap()], ..spec.http.clone() }));
        let mut labelled = ProcessSpec { exposure: Exposure::Labels { port: Some(81) }, replicas: 3, ..ProcessSpec::default() };
        let rule = ("Traefik.http.routers.a.rule".to_owned(), "Host(`shop.example`)".to_owned());
        labelled.container.labels = [rule, ("com.example".to_owned(), "kept".to_owned())].into();
        let parts = [
            ("web", ProcessSpec { exposure: http("shop.example"), ..ProcessSpec::default() }),
            ("api", labelled),
            ("admin", ProcessSpec { exposure: http("admin.shop.example"), ..ProcessSpec::default() }),
            ("worker", ProcessSpec::default()),
        ];
        spec.processes = parts.into_iter().map(|(name, part)| (name.parse::<ProcessName>().unwrap(), part)).collect();
        let variables = [("KEY".parse().unwrap(), "of tests".to_owned())].into();
        let notes = confine(&mut spec, &preview(), variables);
        let mut hosts = Vec::new();
        for (name, part) in spec.parts() {
            assert!(part.replicas <= 1 && !part.container.labels.keys().any(|label| label.starts_with("Traefik")));
            if let Exposure::Http(http) = &part.exposure {
                assert_eq!(http.canonical_host, None);
                hosts.push(format!("{name} {}", http.hosts[0]));
            }
        }
        assert_eq!(hosts, ["admin x.preview.example", "api api.x.preview.example", "web web.x.preview.example"]);
        assert_eq!(spec.http.hosts[0].as_str(), "x.preview.example");
        assert_eq!((spec.secrets.len(), spec.env.len(), spec.app.as_str()), (1, 1, "shop-x"));
        assert_eq!(notes.len(), 2, "{notes:?}");
    }
}
