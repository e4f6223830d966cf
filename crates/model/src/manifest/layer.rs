//! What a manifest says, and only that: every key may be missing. An environment's layer lies over the manifest's own.

use std::collections::BTreeMap;

use coracle_proxy_table::Middleware;

use super::beside_compose::ComposeChoice;
use super::services::ServiceLayer;
use crate::command::CommandLine;
use crate::image::Repository;
use crate::names::{AppName, EnvName, HostPattern, ProcessName};
use crate::preview::PreviewPolicy;
use crate::quantity::{ByteSize, Cpus, Span};
use crate::registry::RegistrySpec;
use crate::spec::{
    AppSpec, BuildSpec, BuilderChoice, DeployPolicy, EngineKind, HttpSpec, NamedMiddleware, ProcessSpec, Redirect, Strategy,
    TlsMode, VolumeMount,
};

/// The keys of a manifest, or of one environment in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Layer {
    pub(super) app: Option<AppName>,
    pub(super) engine: Option<EngineKind>,
    pub(super) build: BuildLayer,
    pub(super) http: HttpLayer,
    pub(super) deploy: DeployLayer,
    pub(super) processes: BTreeMap<ProcessName, ProcessLayer>,
    pub(super) services: BTreeMap<ProcessName, ServiceLayer>,
    pub(super) env: BTreeMap<EnvName, String>,
    pub(super) registry: RegistryLayer,
    pub(super) secrets: Option<Vec<EnvName>>,
    pub(super) middlewares: BTreeMap<String, Middleware>,
    pub(super) compose: ComposeChoice,
    /// Of the manifest itself; an environment has none.
    pub(super) previews: Option<PreviewPolicy>,
}

/// `[build]`
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct BuildLayer {
    pub(super) builder: Option<BuilderChoice>,
    pub(super) dockerfile: Option<String>,
    pub(super) target: Option<String>,
    pub(super) args: BTreeMap<String, String>,
    pub(super) secrets: Option<Vec<EnvName>>,
    pub(super) image: Option<String>,
    pub(super) root: Option<String>,
    pub(super) memory: Option<ByteSize>,
    pub(super) cpus: Option<Cpus>,
}

/// `[registry]`
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct RegistryLayer {
    pub(super) push: Option<Repository>,
    pub(super) required: Option<bool>,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct HttpLayer {
    pub(super) hosts: Option<Vec<HostPattern>>,
    pub(super) path_prefix: Option<String>,
    pub(super) strip_prefix: Option<bool>,
    pub(super) port: Option<u16>,
    pub(super) health: Option<String>,
    pub(super) tls: Option<TlsMode>,
    pub(super) redirect: Option<Redirect>,
    pub(super) canonical_host: Option<HostPattern>,
    /// Names of some that the manifest has.
    pub(super) middlewares: Option<Vec<String>>,
}

/// `[deploy]`
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct DeployLayer {
    pub(super) strategy: Option<Strategy>,
    pub(super) release_command: Option<CommandLine>,
    pub(super) drain: Option<Span>,
    pub(super) timeout: Option<Span>,
    pub(super) watch: Option<Span>,
    pub(super) grace: Option<Span>,
    pub(super) keep: Option<u32>,
}

/// `[processes.NAME]`
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ProcessLayer {
    pub(super) command: Option<CommandLine>,
    pub(super) replicas: Option<u16>,
    pub(super) memory: Option<ByteSize>,
    pub(super) cpus: Option<Cpus>,
    pub(super) pids: Option<u32>,
    pub(super) volumes: Option<Vec<VolumeMount>>,
    pub(super) delegate_cgroup: Option<bool>,
}

/// Takes the field of the upper layer if it is set.
macro_rules! lay_over {
    ($lower:expr, $upper:expr, $($field:ident),+) => {
        $(if $upper.$field.is_some() { $lower.$field = $upper.$field.clone(); })+
    };
}

impl Layer {
    /// This layer with another on top. Single values and lists of the upper one replace, tables are merged by key.
    ///
    /// Hosts are not handed down: two environments that answer to the same host would take each other's requests.
    pub(super) fn under(&self, upper: &Self) -> Self {
        let mut all = self.clone();
        lay_over!(all, upper, app, engine, secrets);
        lay_over!(all.build, upper.build, builder, target, secrets, root, memory, cpus);
        if upper.build.image.is_some() {
            (all.build.dockerfile, all.build.target) = (None, None);
            all.build.args.clear();
            all.build.secrets = None;
        }
        if upper.build.image.is_some() || upper.build.dockerfile.is_some() || upper.build.builder.is_some() {
            all.build.image = upper.build.image.clone();
        }
        lay_over!(all.build, upper.build, dockerfile);
        all.build.args.extend(upper.build.args.clone());
        lay_over!(all.http, upper.http, path_prefix, strip_prefix, port, health, tls, redirect, canonical_host, middlewares);
        all.http.hosts = upper.http.hosts.clone();
        lay_over!(all.deploy, upper.deploy, strategy, release_command, drain, timeout, watch, grace, keep);
        for (name, process) in &upper.processes {
            let lower = all.processes.entry(name.clone()).or_default();
            lay_over!(lower, process, command, replicas, memory, cpus, pids, volumes, delegate_cgroup);
        }
        for (name, service) in &upper.services {
            all.services.entry(name.clone()).or_default().lay(service);
        }
        lay_over!(all.compose, upper.compose, files, profiles, env_files);
        all.env.extend(upper.env.clone());
        lay_over!(all.registry, upper.registry, push, required);
        all.middlewares.extend(upper.middlewares.clone());
        // What runs in an environment is not what branches are previewed beside.
        all.previews = None;
        all
    }

    /// The app, with every default filled in.
    pub(super) fn into_spec(self, app: AppName) -> AppSpec {
        let mut secrets = self.secrets.unwrap_or_default();
        let of_services = self.services.values().flat_map(ServiceLayer::secrets);
        let more: Vec<_> = of_services.filter(|name| !secrets.contains(name)).cloned().collect();
        secrets.extend(more);
        let of_build = self.build.secrets.iter().flatten();
        let more: Vec<_> = of_build.filter(|name| !secrets.contains(name)).cloned().collect();
        secrets.extend(more);
        AppSpec {
            http: self.http.into_spec(&app, &self.middlewares),
            app,
            engine: self.engine,
            build: self.build.into_spec(),
            deploy: self.deploy.into_spec(),
            processes: self.processes.into_iter().map(|(name, process)| (name, process.into_spec())).collect(),
            services: self.services.into_iter().map(|(name, service)| (name, service.into_spec())).collect(),
            services_only: false,
            env: self.env,
            secrets,
            registry: self.registry.into_spec(),
            adopted: None,
            previews: self.previews.map(Box::new),
        }
    }
}

impl BuildLayer {
    fn into_spec(self) -> BuildSpec {
        BuildSpec {
            builder: self.builder.unwrap_or_default(),
            dockerfile: self.dockerfile,
            target: self.target,
            args: self.args,
            secrets: self.secrets.unwrap_or_default(),
            image: self.image,
            root: self.root,
            memory: self.memory,
            cpus: self.cpus,
        }
    }
}

impl RegistryLayer {
    pub(super) fn into_spec(self) -> Option<RegistrySpec> {
        Some(RegistrySpec { push: self.push?, required: self.required.unwrap_or(true), own_login: false })
    }
}

impl HttpLayer {
    fn into_spec(self, app: &AppName, middlewares: &BTreeMap<String, Middleware>) -> HttpSpec {
        let default = HttpSpec::default_for(app);
        HttpSpec {
            hosts: self.hosts.unwrap_or(default.hosts),
            path_prefix: self.path_prefix.unwrap_or(default.path_prefix),
            strip_prefix: self.strip_prefix.unwrap_or(default.strip_prefix),
            port: self.port,
            health: self.health,
            tls: self.tls.unwrap_or_default(),
            redirect: self.redirect,
            canonical_host: self.canonical_host,
            middlewares: self
                .middlewares
                .unwrap_or_default()
                .into_iter()
                .filter_map(|name| middlewares.get(&name).cloned().map(|middleware| NamedMiddleware { name, middleware }))
                .collect(),
        }
    }
}

impl DeployLayer {
    fn into_spec(self) -> DeployPolicy {
        let default = DeployPolicy::default();
        DeployPolicy {
            strategy: self.strategy,
            release_command: self.release_command,
            drain: self.drain.unwrap_or(default.drain),
            timeout: self.timeout.unwrap_or(default.timeout),
            watch: self.watch.unwrap_or(default.watch),
            grace: self.grace.unwrap_or(default.grace),
            keep: self.keep.unwrap_or(default.keep),
        }
    }
}

impl ProcessLayer {
    fn into_spec(self) -> ProcessSpec {
        let mut spec = ProcessSpec { command: self.command, ..ProcessSpec::default() };
        spec.replicas = self.replicas.unwrap_or(spec.replicas);
        spec.limits.memory = self.memory;
        spec.limits.cpus = self.cpus;
        spec.limits.pids = self.pids.unwrap_or(spec.limits.pids);
        spec.limits.delegate_cgroup = self.delegate_cgroup.unwrap_or_default();
        spec.volumes = self.volumes.unwrap_or_default();
        spec
    }
}
