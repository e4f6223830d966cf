//! What an app reaches of the machine beyond itself, as its description asks for it. The administrator may give it; whoever has a
//! role in the app keeps what was given, and gives no more: a role in an app must not come to the machine.

use std::collections::BTreeSet;

use coracle_api::{Problem, ProblemKind};
use coracle_model::container::{BindMount, BindSource};
use coracle_model::stack::BuildExtras;
use coracle_model::{
    AppName, AppSpec, ContainerSettings, EngineKind, Exposure, HttpSpec, ProcessName, ProcessSource, ProcessSpec, Release,
};
use coracle_proxy_table::Middleware;
use coracle_store::{Store, StoreError};

use crate::problems;

mod taken;

/// How many things are told in full.
const TOLD: usize = 20;

/// What is given to read is given with less than what may be written to.
const TO_READ: &str = ", to read";

/// Where containers are what keeps apps apart, this is a way out of them.
const PROCESSES: &str = "the app: the process engine, which runs it on the machine itself";

/// Refuses a description that reaches further than that of the active release. `usual` is what apps run on that do not say it.
pub(crate) async fn refuse_more(store: &Store, app: &AppName, spec: &AppSpec, usual: EngineKind) -> Result<(), Problem> {
    let active = active(store, app).await.map_err(|error| problems::store(&error))?;
    let parent = store.preview(app).await.map_err(|error| problems::store(&error))?.map(|preview| preview.parent);
    let own = active.as_ref().map(|release| taken::hosts(&release.spec)).unwrap_or_default();
    taken::refuse(store, (app, parent.as_ref()), spec, &own).await?;
    let mut wanted = of(spec);
    if usual != EngineKind::Process && spec.engine == Some(EngineKind::Process) {
        wanted.insert(PROCESSES.to_owned());
    }
    let lent = lent(store, app, spec).await.map_err(|error| problems::store(&error))?;
    wanted.extend(lent.then(|| pushes(spec)).flatten());
    if wanted.is_empty() {
        return Ok(());
    }
    let mut given = active.as_ref().map(|release| of(&release.spec)).unwrap_or_default();
    given.extend(active.as_ref().and_then(|release| pushes(&release.spec)));
    // A preview runs on what the app itself runs on and asks whom that asks, and is given nothing else of what that was given.
    let beside = match &parent {
        Some(parent) => self::active(store, parent).await.map_err(|error| problems::store(&error))?,
        None => None,
    };
    if active.iter().chain(&beside).any(|release| release.artifact.engine == EngineKind::Process) {
        given.insert(PROCESSES.to_owned());
    }
    given.extend(beside.iter().flat_map(|release| asked(&release.spec)));
    let lesser: Vec<String> = given.iter().map(|given| format!("{given}{TO_READ}")).collect();
    given.extend(lesser);
    let more: Vec<String> = wanted.difference(&given).cloned().collect();
    let detail = match more.as_slice() {
        [] => return Ok(()),
        [only] => format!("only the administrator lets an app reach beyond itself: {only}"),
        several => {
            format!("only the administrator lets an app reach beyond itself, and this asks for {} such things", several.len())
        }
    };
    let hint = "leave it out, or have the administrator deploy it once: what was given is kept";
    Err(Problem::new(ProblemKind::Forbidden, detail).hint(hint).evidence(more.into_iter().take(TOLD).collect()))
}

/// Whether images would be pushed with the server's login, which may write to more than this app's images.
pub(crate) async fn lent(store: &Store, app: &AppName, spec: &AppSpec) -> Result<bool, StoreError> {
    let Some(registry) = &spec.registry else { return Ok(false) };
    let has = |logins: Vec<coracle_store::LoginRecord>| logins.iter().any(|login| login.host == *registry.push.host());
    Ok(!has(store.registry_logins(Some(app)).await?) && has(store.registry_logins(None).await?))
}

fn pushes(spec: &AppSpec) -> Option<String> {
    spec.registry.as_ref().map(|registry| format!("the app: images pushed to {} with the server's login", registry.push))
}

/// The settings by which a description is reached through the proxy, apart from labels.
fn by_manifest(spec: &AppSpec) -> impl Iterator<Item = &HttpSpec> {
    let of_parts = spec.parts().filter_map(|(_, part)| match &part.exposure {
        Exposure::Http(http) => Some(&**http),
        _ => None,
    });
    std::iter::once(&spec.http).chain(of_parts)
}

async fn active(store: &Store, app: &AppName) -> Result<Option<Release>, StoreError> {
    match store.app(app).await {
        Ok(record) => match record.active {
            Some(number) => Ok(Some(store.release(app, number).await?)),
            None => Ok(None),
        },
        Err(StoreError::NoSuchApp(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Everything of the machine that a description asks for, each with whom it is for.
fn of(spec: &AppSpec) -> BTreeSet<String> {
    let every = by_manifest(spec).any(|http| http.hosts.iter().any(|host| host.as_str() == taken::ANY_HOST));
    let every = every.then(|| format!("the app: requests of every host, {}", taken::ANY_HOST));
    spec.parts().flat_map(|(name, part)| of_part(name, part)).chain(nested(spec)).chain(every).chain(asked(spec)).collect()
}

/// Whom the proxy is to ask about requests, as its manifest says. It reaches what the app does not.
fn asked(spec: &AppSpec) -> Vec<String> {
    let middlewares = by_manifest(spec).flat_map(|http| &http.middlewares);
    let addresses = middlewares.filter_map(|own| match &own.middleware {
        Middleware::ForwardAuth(auth) => Some(&auth.address),
        _ => None,
    });
    addresses.map(|address| format!("the app: the proxy asks {address} about requests")).collect()
}

/// Mounts from within what containers write to: they could put a link there before it is mounted again.
fn nested(spec: &AppSpec) -> Vec<String> {
    let binds: Vec<&BindMount> = spec.parts().flat_map(|(_, part)| &part.container.binds).collect();
    let lies_in = |inner: &BindSource, outer: &BindSource| {
        let pieces = |path: &str| path.split('/').filter(|piece| !matches!(*piece, "" | "." | "..")).map(str::to_owned).collect();
        let (inner, outer): (Vec<String>, Vec<String>) = match (inner, outer) {
            (BindSource::Tree(inner), BindSource::Tree(outer)) | (BindSource::Kept(inner), BindSource::Kept(outer)) => {
                (pieces(inner), pieces(outer))
            }
            _ => return false,
        };
        inner.len() > outer.len() && inner.starts_with(&outer)
    };
    let nested = binds.iter().filter(|inner| binds.iter().any(|outer| !outer.read_only && lies_in(&inner.source, &outer.source)));
    nested.map(|inner| format!("the app: at {}, a mount from within a folder that containers write to", inner.path)).collect()
}

/// Whether a label says which requests come.
fn is_rule(label: &str) -> bool {
    label.starts_with("traefik.") && label.ends_with(".rule")
}

/// What a label asks for if it takes more than the requests of hosts that it names, or has the proxy ask others. A rule that cannot
/// be read might be read one day.
fn wide(label: &str, value: &str) -> Option<String> {
    let lower = label.to_ascii_lowercase();
    let reaches = lower.starts_with("traefik.")
        && (lower.ends_with(".priority")
            || (lower.contains(".loadbalancer.") && lower.ends_with(".url"))
            || lower.contains(".forwardauth."));
    if !is_rule(&lower) {
        return reaches.then(|| format!("{label}={value}"));
    }
    match coracle_labels::hosts_of_rule(value) {
        Ok(hosts) => (reaches || hosts.and_others).then(|| format!("{label}={value}")),
        Err(why) => Some(format!("{label}={value}, which cannot be read: {why}")),
    }
}

fn of_part(name: &ProcessName, part: &ProcessSpec) -> Vec<String> {
    let mut reach = Reach { name, found: Vec::new() };
    for volume in &part.volumes {
        let to_read = if volume.read_only { TO_READ } else { "" };
        reach.named("the volume", volume.external.as_ref().map(|volume| format!("{volume}{to_read}")));
    }
    if let Some(ProcessSource::Build(build)) = &part.source {
        reach.build(&build.extras);
    }
    reach.container(&part.container);
    reach.found
}

struct Reach<'a> {
    name: &'a ProcessName,
    found: Vec<String>,
}

impl Reach<'_> {
    fn named(&mut self, what: &str, which: impl IntoIterator<Item = impl std::fmt::Display>) {
        self.found.extend(which.into_iter().map(|which| format!("{}: {what} {which}", self.name)));
    }

    /// Of a build, too, every setting stands here.
    fn build(&mut self, extras: &BuildExtras) {
        let BuildExtras {
            network,
            // What stays within the build, is a limit of it, or is an image that any Dockerfile may begin from. Files are of the tree,
            // and secrets of that or of the app's own.
            inline: _,
            contexts: _,
            cache_from: _,
            secrets: _,
            labels: _,
            extra_hosts: _,
            shm_size: _,
            platform: _,
            no_cache: _,
            pull: _,
        } = extras;
        let usual = |network: &&String| matches!(network.as_str(), "" | "none" | "default" | "bridge");
        self.named("built in the network", network.as_ref().filter(|network| !usual(network)));
    }

    /// Every setting stands here, so that a new one is thought about.
    fn container(&mut self, settings: &ContainerSettings) {
        let ContainerSettings {
            privileged,
            cap_add,
            security_opt,
            binds,
            ports,
            networks,
            sysctls,
            devices,
            oom_score_adj,
            pid,
            ipc,
            userns,
            runtime,
            logging,
            labels,
            // What stays within the container, or is a limit of it.
            confinement: _,
            entrypoint: _,
            arguments: _,
            env: _,
            config: _,
            user: _,
            working_dir: _,
            read_only: _,
            cap_drop: _,
            ulimits: _,
            shm_size: _,
            init: _,
            stop_signal: _,
            stop_grace_period: _,
            tmpfs: _,
            anonymous_volumes: _,
            files: _,
            hostname: _,
            domainname: _,
            aliases: _,
            extra_hosts: _,
            dns: _,
            dns_search: _,
            dns_opt: _,
            health: _,
            restart: _,
            group_add: _,
            tty: _,
            stdin_open: _,
            memory_reservation: _,
            memory_swap: _,
            cpu_shares: _,
            cpuset: _,
        } = settings;
        self.named("every right there is", privileged.then_some("(privileged)"));
        self.named("the capability", cap_add);
        let loosened = security_opt.iter().filter(|option| !option.starts_with("no-new-privileges"));
        self.named("the security option", loosened);
        let of_machine = binds.iter().filter_map(|bind| match &bind.source {
            BindSource::Host(path) => {
                let spread = bind.propagation.as_deref().filter(|word| !matches!(*word, "private" | "rprivate"));
                let spread = spread.map(|word| format!(" ({word})")).unwrap_or_default();
                Some(format!("{path}{spread}{}", if bind.read_only { TO_READ } else { "" }))
            }
            BindSource::Tree(_) | BindSource::Kept(_) => None,
        });
        self.named("of the machine's files", of_machine);
        // Nobody but this machine reaches loopback; everything else passes the proxy and the firewall by.
        let open = ports.iter().filter(|port| port.address.is_some_and(|address| !address.is_loopback()));
        self.named(
            "the machine's port",
            open.map(|port| {
                let number = port.host.map_or("of the engine's choice".to_owned(), |port| port.to_string());
                let address = port.address.filter(|address| !address.is_unspecified());
                let address = address.map(|address| format!(" of {address}")).unwrap_or_default();
                format!("{number}/{}{address}", port.protocol)
            }),
        );
        self.named("requests, by the label", labels.iter().filter_map(|(name, value)| wide(name, value)));
        self.named("the network", networks.iter().map(|network| &network.name));
        self.named("the kernel's parameter", sysctls.keys().filter(|name| !name.starts_with("net.")));
        self.named("the device", devices);
        self.named("to be spared when memory runs short, by", oom_score_adj.filter(|adjustment| *adjustment < 0));
        self.named("processes of", pid);
        let kept_apart = |word: &&String| !matches!(word.as_str(), "private" | "shareable" | "none");
        self.named("shared memory of", ipc.as_ref().filter(kept_apart));
        self.named("users of", userns);
        self.named("the runtime", runtime);
        self.named("output by the driver", logging.as_ref().map(|logging| &logging.driver).filter(|driver| !is_local(driver)));
    }
}

/// Drivers that keep what an app writes where the engine keeps it anyway.
fn is_local(driver: &str) -> bool {
    matches!(driver, "json-file" | "local" | "journald" | "none")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use coracle_model::stack::PartBuild;

    use super::*;

    pub(super) fn spec(change: impl FnOnce(&mut ContainerSettings)) -> AppSpec {
        let mut spec = AppSpec::named("shop".parse().unwrap());
        let mut part = ProcessSpec::default();
        change(&mut part.container);
        spec.processes.insert(ProcessName::web(), part);
        spec
    }

    fn bind(source: BindSource) -> BindMount {
        BindMount { source, path: "/x".to_owned(), read_only: true, propagation: None }
    }

    #[test]
    fn what_belongs_to_the_machine_is_named_and_what_is_the_apps_own_is_not() {
        assert_eq!(of(&spec(|_| ())), BTreeSet::new());
        let own = spec(|settings| {
            settings.binds = vec![bind(BindSource::Tree("conf".to_owned())), bind(BindSource::Kept("data".to_owned()))];
            settings.cap_drop = vec!["ALL".to_owned()];
            settings.security_opt = vec!["no-new-privileges:true".to_owned()];
            settings.ipc = Some("private".to_owned());
        });
        assert_eq!(of(&own), BTreeSet::new());
        let great = spec(|settings| {
            settings.privileged = true;
            settings.cap_add = vec!["SYS_ADMIN".to_owned()];
            settings.security_opt = vec!["seccomp=unconfined".to_owned()];
            settings.binds = vec![bind(BindSource::Host("/var/run/docker.sock".to_owned()))];
            settings.devices = vec!["/dev/kvm".to_owned()];
            settings.pid = Some("host".to_owned());
            settings.userns = Some("host".to_owned());
        });
        let named = of(&great);
        for what in
            ["privileged", "SYS_ADMIN", "seccomp=unconfined", "docker.sock", "/dev/kvm", "processes of host", "users of host"]
        {
            assert!(named.iter().any(|line| line.starts_with("web: ") && line.contains(what)), "{what}: {named:?}");
        }
        assert_eq!(named.len(), 7);
    }

    #[tokio::test]
    async fn an_app_that_nobody_was_given_anything_for_may_not_ask() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let app = "shop".parse().unwrap();
        let great = spec(|settings| settings.privileged = true);
        let usual = EngineKind::Docker;
        let refused = refuse_more(&store, &app, &great, usual).await.unwrap_err();
        assert_eq!((refused.kind, refused.evidence.len()), (ProblemKind::Forbidden, 1));
        refuse_more(&store, &app, &spec(|_| ()), usual).await.unwrap();
        let mut bare = spec(|_| ());
        bare.engine = Some(EngineKind::Process);
        let refused = refuse_more(&store, &app, &bare, usual).await.unwrap_err();
        assert!(refused.detail.contains("the process engine"), "{}", refused.detail);
        refuse_more(&store, &app, &bare, EngineKind::Process).await.unwrap();
    }

    #[test]
    fn what_may_be_written_to_is_more_than_what_may_be_read() {
        let host = |read_only, propagation: Option<&str>| {
            let source = BindSource::Host("/srv".to_owned());
            let bind = BindMount { source, path: "/x".to_owned(), read_only, propagation: propagation.map(str::to_owned) };
            of(&spec(|settings| settings.binds = vec![bind])).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(host(true, Some("rprivate")), ["web: of the machine's files /srv, to read"]);
        assert_eq!(host(false, None), ["web: of the machine's files /srv"]);
        assert_eq!(host(true, Some("rshared")), ["web: of the machine's files /srv (rshared), to read"]);
    }

    #[test]
    fn what_lies_within_what_is_written_to_is_told() {
        let mounted = |outer_read_only, inner: &str| {
            let tree = |path: &str, read_only| BindMount { read_only, ..bind(BindSource::Tree(path.to_owned())) };
            of(&spec(|settings| settings.binds = vec![tree("./conf", outer_read_only), tree(inner, true)])).len()
        };
        assert_eq!(mounted(false, "conf/token"), 1);
        assert_eq!(mounted(true, "conf/token"), 0);
        assert_eq!(mounted(false, "config"), 0);
    }

    #[test]
    fn labels_take_the_requests_of_named_hosts_only() {
        for (label, value, wide) in [
            ("traefik.http.routers.x.rule", "Host(`a.example`) && PathPrefix(`/api`)", false),
            ("traefik.http.routers.x.rule", "Host(`a.example`) || Host(`b.example`)", false),
            ("traefik.http.routers.x.rule", "PathPrefix(`/`)", true),
            ("traefik.http.routers.x.rule", "Host(`a.example`) || PathPrefix(`/`)", true),
            ("traefik.http.routers.x.rule", "HostRegexp(`.*`)", true),
            ("traefik.http.routers.x.rule", "!Host(`a.example`)", true),
            ("traefik.http.routers.x.priority", "9000", true),
            ("Traefik.http.services.x.loadbalancer.server.url", "http://127.0.0.1:9", true),
            ("traefik.http.services.x.loadbalancer.server.port", "80", false),
            ("traefik.http.middlewares.x.forwardauth.address", "http://10.0.0.1", true),
            ("com.example.rule", "anything", false),
            ("traefik.http.routers.x.rule", "Host(\"a.example\") && PathPrefix(\"/api\")", false),
            ("traefik.http.routers.x.rule", "Host(`a.example`) && !Path(`/api`)", false),
            ("traefik.http.routers.x.rule", "Host(`a.example`, `b.example`)", false),
            ("traefik.http.routers.x.rule", "PathRegexp(`^/(host()|)|^/`)", true),
            ("traefik.http.routers.x.rule", "PathPrefix(`/host(`) || Header(`host(`, `host(`)", true),
            ("traefik.http.routers.x.rule", "Host(`a.example`", true),
        ] {
            assert_eq!(super::wide(label, value).is_some(), wide, "{label}={value}");
        }
    }

    #[test]
    fn builds_and_the_manifest_ask_for_what_is_beyond_the_app_too() {
        let built = |network: &str| {
            let mut spec = spec(|_| ());
            let extras = BuildExtras { network: Some(network.to_owned()), ..BuildExtras::default() };
            let build = PartBuild { extras, ..PartBuild::default() };
            spec.processes.get_mut(&ProcessName::web()).unwrap().source = Some(ProcessSource::Build(Box::new(build)));
            of(&spec).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(built("host"), ["web: built in the network host"]);
        assert_eq!(built("container:other"), ["web: built in the network container:other"]);
        assert!(built("none").is_empty() && built("default").is_empty());
        let manifest = r#"
            [http]
            hosts = ["*"]
            middlewares = ["auth"]
            [middlewares.auth.forward-auth]
            address = "http://127.0.0.1:9/"
        "#;
        let manifest = coracle_model::Manifest::parse(manifest).unwrap();
        let asked = of(&manifest.resolve(Some("shop".parse().unwrap()), None).unwrap());
        let wanted = ["the app: requests of every host, *", "the app: the proxy asks http://127.0.0.1:9/ about requests"];
        assert_eq!(asked.into_iter().collect::<Vec<_>>(), wanted);
    }
}
