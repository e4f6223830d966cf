//! A manifest beside compose files: these say what runs, and the keys that the manifest has lie over them. Keys that it does
//! not have change nothing, whatever their defaults are.

use super::layer::{HttpLayer, Layer};
use super::{Manifest, ManifestErrors};
use crate::names::{AppName, HostPattern, ProcessName};
use crate::spec::{AppSpec, EngineKind, HttpSpec, NamedMiddleware};
use crate::stack::Exposure;

/// The keys of a manifest that lie over what compose files describe.
#[derive(Debug, Clone)]
pub struct Overlay {
    layer: Layer,
    /// Hosts of the app: those of the manifest, or in an environment the default one, since two environments that answer to
    /// the same hosts would take each other's requests.
    hosts: Option<Vec<HostPattern>>,
}

/// `[compose]`: which compose files describe the app, where the usual names are not meant. Words of lists are paths relative to
/// the tree, and names; none is empty or has a comma.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ComposeChoice {
    /// The files, in their order.
    pub files: Option<Vec<String>>,
    /// The profiles that are active.
    pub profiles: Option<Vec<String>>,
    /// The environment files that fill in variables, later ones winning.
    pub env_files: Option<Vec<String>>,
}

impl Manifest {
    /// Which compose files the manifest names, in an environment (`None`: without any overlay).
    pub fn compose(&self, environment: Option<&str>) -> ComposeChoice {
        let overlay = environment.and_then(|name| self.environments.get(name));
        overlay.map_or_else(|| self.base.compose.clone(), |overlay| self.base.under(overlay).compose)
    }

    /// Whether compose files describe the app where nobody names any: the manifest does, or there is one with a usual name and
    /// the manifest does not say by itself what runs.
    pub fn is_described_by_compose(&self, environment: Option<&str>, usual_file_is_there: bool) -> bool {
        self.compose(environment).files.is_some() || (usual_file_is_there && self.what_runs(environment).is_none())
    }

    /// What of the manifest says by itself what the app runs and how that is made, as it is written there: then compose files
    /// beside it describe something else, unless somebody names them. `None`: nothing does.
    pub fn what_runs(&self, environment: Option<&str>) -> Option<&'static str> {
        let overlay = environment.and_then(|name| self.environments.get(name));
        overlay.map_or_else(|| self.base.what_runs(), |overlay| self.base.under(overlay).what_runs())
    }

    /// The keys of an environment (`None`: without any overlay) that lie over what compose files describe of this app.
    pub fn beside_compose(&self, app: &AppName, environment: Option<&str>) -> Result<Overlay, ManifestErrors> {
        let Some(environment) = environment else {
            return Ok(Overlay { hosts: self.base.http.hosts.clone(), layer: self.base.clone() });
        };
        let Some(overlay) = self.environments.get(environment) else { return Err(self.unknown_environment(environment)) };
        let layer = self.base.under(overlay);
        let hosts = layer.http.hosts.clone().unwrap_or_else(|| HttpSpec::default_for(app).hosts);
        Ok(Overlay { layer, hosts: Some(hosts) })
    }
}

impl Layer {
    fn what_runs(&self) -> Option<&'static str> {
        let build = &self.build;
        let is_built = build.builder.is_some()
            || build.dockerfile.is_some()
            || build.target.is_some()
            || build.image.is_some()
            || build.root.is_some()
            || !build.args.is_empty();
        if !self.processes.is_empty() {
            Some("[processes]")
        } else if !self.services.is_empty() {
            Some("[services]")
        } else if is_built {
            Some("[build]")
        } else if self.engine == Some(EngineKind::Process) {
            Some("engine = \"process\"")
        } else {
            None
        }
    }
}

/// Sets the fields of the lower one that the upper one has.
macro_rules! set {
    ($lower:expr, $upper:expr, $($field:ident),+) => {
        $(if let Some(value) = &$upper.$field { $lower.$field = value.clone().into(); })+
    };
}

impl Overlay {
    /// The hosts that the app is reached at, if the manifest has a say in that.
    pub fn hosts(&self) -> Option<&[HostPattern]> {
        self.hosts.as_deref()
    }

    /// Lays the keys over an app that compose files describe. Answers with what of them cannot count, one sentence each.
    pub fn lay_over(&self, spec: &mut AppSpec) -> Vec<String> {
        let mut notes = Vec::new();
        let layer = &self.layer;
        set!(spec.deploy, layer.deploy, strategy, release_command, drain, timeout, watch, grace, keep);
        set!(spec.build, layer.build, memory, cpus);
        spec.env.extend(layer.env.clone());
        let more = layer.secrets.iter().flatten().filter(|name| !spec.secrets.contains(name)).cloned().collect::<Vec<_>>();
        spec.secrets.extend(more);
        spec.previews = layer.previews.clone().map(Box::new);
        // Refused where it is checked: there is no one image to push.
        spec.registry = layer.registry.clone().into_spec();
        self.lay_http(spec, &mut notes);
        self.lay_parts(spec, &mut notes);
        if layer.engine == Some(EngineKind::Process) {
            notes.push("engine = \"process\" of coracle.toml does not count: compose files run in containers".to_owned());
        }
        if layer.what_runs() == Some("[build]") {
            notes.push(
                "[build] of coracle.toml does not count but for memory and cpus: compose files say what is built".to_owned(),
            );
        }
        notes
    }

    fn lay_http(&self, spec: &mut AppSpec, notes: &mut Vec<String>) {
        let http = &self.layer.http;
        if let Some(hosts) = &self.hosts {
            spec.http.hosts = hosts.clone();
        }
        let front_hosts = spec.http.hosts.clone();
        self.set_for_all(&mut spec.http);
        set_for_front(http, &mut spec.http);
        let mut reached = 0;
        let parts = spec.processes.values_mut().chain(spec.services.values_mut());
        for part in parts {
            let Exposure::Http(own) = &mut part.exposure else { continue };
            reached += 1;
            self.set_for_all(own);
            if own.hosts == front_hosts {
                set_for_front(http, own);
            }
        }
        if reached == 0 && (self.hosts.is_some() || *http != HttpLayer::default()) {
            notes.push("[http] of coracle.toml has no effect: no service is reached by a published port".to_owned());
        }
    }

    /// What is true of every host of the app.
    fn set_for_all(&self, own: &mut HttpSpec) {
        let http = &self.layer.http;
        set!(own, http, tls, redirect);
        if let Some(names) = &http.middlewares {
            let named = names.iter().filter_map(|name| {
                let middleware = self.layer.middlewares.get(name)?.clone();
                Some(NamedMiddleware { name: name.clone(), middleware })
            });
            own.middlewares = named.collect();
        }
    }

    fn lay_parts(&self, spec: &mut AppSpec, notes: &mut Vec<String>) {
        for (name, own) in &self.layer.processes {
            let part = match spec.processes.get_mut(name) {
                Some(part) => part,
                None => match spec.services.get_mut(name) {
                    Some(part) => part,
                    None => {
                        notes.push(format!("[processes.{name}] of coracle.toml has no effect: no service is called {name}"));
                        continue;
                    }
                },
            };
            set!(part, own, command, replicas);
            set!(part.limits, own, memory, cpus, pids);
            if own.volumes.is_some() {
                notes.push(beside(name, "volumes"));
            }
        }
        for name in self.layer.services.keys() {
            notes.push(format!("[services.{name}] of coracle.toml does not count: compose files say which services there are"));
        }
    }
}

/// What is true of the part only that is the app to the world.
fn set_for_front(http: &HttpLayer, own: &mut HttpSpec) {
    set!(own, http, path_prefix, strip_prefix, port, health, canonical_host);
}

fn beside(process: &ProcessName, key: &str) -> String {
    format!("{key} of [processes.{process}] in coracle.toml does not count: the compose file says what keeps data")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::quantity::Span;
    use crate::spec::{ProcessSpec, Strategy};

    fn spec() -> AppSpec {
        let mut spec = AppSpec::named("shop".parse().unwrap());
        spec.deploy.keep = 3;
        spec.deploy.drain = Span::seconds(7);
        let at = |host: &str| {
            let http = HttpSpec { hosts: vec![host.parse().unwrap()], ..spec.http.clone() };
            ProcessSpec { exposure: Exposure::Http(Box::new(http)), ..ProcessSpec::default() }
        };
        spec.processes = [("web", "shop.localhost"), ("admin", "admin.shop.localhost")]
            .map(|(name, host)| (name.parse().unwrap(), at(host)))
            .into();
        spec
    }

    fn laid(text: &str, environment: Option<&str>) -> (AppSpec, Vec<String>) {
        let mut spec = spec();
        let app = spec.app.clone();
        let overlay = Manifest::parse(text).unwrap().beside_compose(&app, environment).unwrap();
        let notes = overlay.lay_over(&mut spec);
        (spec, notes)
    }

    fn http<'a>(spec: &'a AppSpec, name: &str) -> &'a HttpSpec {
        match &spec.processes[&name.parse().unwrap()].exposure {
            Exposure::Http(http) => http,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_that_are_written_count_and_defaults_do_not() {
        let (same, notes) = laid("app = \"shop\"\n", None);
        assert_eq!((same, notes), (spec(), vec![]));
        let text =
            "app = \"shop\"\n[deploy]\nstrategy = \"recreate\"\ngrace = \"3s\"\n[http]\nhealth = \"/up\"\nredirect = \"off\"\n";
        let (laid, notes) = laid(text, None);
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!((laid.deploy.strategy, laid.deploy.grace), (Some(Strategy::Recreate), Span::seconds(3)));
        assert_eq!((laid.deploy.keep, laid.deploy.drain), (3, Span::seconds(7)));
        assert_eq!(http(&laid, "web").health.as_deref(), Some("/up"));
        assert_eq!((http(&laid, "admin").health.as_deref(), http(&laid, "admin").redirect.is_some()), (None, true));
    }

    #[test]
    fn processes_are_laid_over_services_of_that_name_and_what_cannot_count_is_told() {
        let text = "[processes.web]\nreplicas = 2\nmemory = \"64M\"\n[processes.wbe]\nreplicas = 3\n\
                    [services.db]\nimage = \"postgres:15\"\n";
        let (laid, notes) = laid(text, None);
        let web = &laid.processes[&"web".parse().unwrap()];
        assert_eq!((web.replicas, web.limits.memory), (2, Some(crate::quantity::ByteSize::mib(64))));
        assert!(web.command.is_none() && laid.services.is_empty());
        assert_eq!(notes.len(), 2, "{notes:?}");
    }

    #[test]
    fn an_environment_is_reached_at_hosts_of_its_own() {
        let text = "[http]\nhosts = [\"shop.example\"]\n[environments.staging.deploy]\nkeep = 2\n";
        let app = "shop-staging".parse().unwrap();
        let manifest = Manifest::parse(text).unwrap();
        let hosts = |environment| manifest.beside_compose(&app, environment).unwrap().hosts.unwrap()[0].to_string();
        assert_eq!((hosts(None), hosts(Some("staging"))), ("shop.example".into(), "shop-staging.localhost".into()));
        assert!(manifest.beside_compose(&app, Some("stagin")).is_err());
    }

    #[test]
    fn what_runs_is_said_by_processes_services_builds_and_the_engine() {
        let said = |text: &str, environment| Manifest::parse(text).unwrap().what_runs(environment);
        assert_eq!(said("app = \"a\"\n[http]\nport = 1\n[env]\nA = \"b\"\n[build]\nmemory = \"1G\"\n", None), None);
        assert_eq!(said("[processes.web]\nreplicas = 2\n", None), Some("[processes]"));
        assert_eq!(said("[services.db]\nimage = \"x\"\n", None), Some("[services]"));
        assert_eq!(said("[build]\ndockerfile = \"x\"\n", None), Some("[build]"));
        assert_eq!(said("engine = \"process\"\n", None), Some("engine = \"process\""));
        assert_eq!(said("engine = \"docker\"\n", None), None);
        let staged = "[environments.staging.processes.web]\nreplicas = 2\n";
        assert_eq!((said(staged, None), said(staged, Some("staging"))), (None, Some("[processes]")));
    }
}
