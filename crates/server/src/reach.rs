//! What an app reaches of the machine beyond itself, as its description asks for it. The administrator may give it; whoever has a
//! role in the app keeps what was given, and gives no more: a role in an app must not come to the machine.

use std::collections::BTreeSet;

use coracle_api::{Problem, ProblemKind};
use coracle_model::container::BindSource;
use coracle_model::{AppName, AppSpec, ContainerSettings, ProcessName, ProcessSpec};
use coracle_store::{Store, StoreError};

use crate::problems;

/// How many things are told in full.
const TOLD: usize = 20;

/// Refuses a description that reaches further than that of the active release.
pub(crate) async fn refuse_more(store: &Store, app: &AppName, spec: &AppSpec) -> Result<(), Problem> {
    let wanted = of(spec);
    if wanted.is_empty() {
        return Ok(());
    }
    let given = match active(store, app).await {
        Ok(active) => active.as_ref().map(of).unwrap_or_default(),
        Err(error) => return Err(problems::store(&error)),
    };
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

async fn active(store: &Store, app: &AppName) -> Result<Option<AppSpec>, StoreError> {
    match store.app(app).await {
        Ok(record) => match record.active {
            Some(number) => Ok(Some(store.release(app, number).await?.spec)),
            None => Ok(None),
        },
        Err(StoreError::NoSuchApp(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Everything of the machine that a description asks for, each with whom it is for.
fn of(spec: &AppSpec) -> BTreeSet<String> {
    let parts = spec.processes.iter().chain(&spec.services);
    parts.flat_map(|(name, part)| of_part(name, part)).collect()
}

fn of_part(name: &ProcessName, part: &ProcessSpec) -> Vec<String> {
    let mut reach = Reach { name, found: Vec::new() };
    for volume in &part.volumes {
        reach.named("the volume", volume.external.as_ref());
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
            labels: _,
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
            BindSource::Host(path) => Some(path),
            BindSource::Tree(_) | BindSource::Kept(_) => None,
        });
        self.named("of the machine's files", of_machine);
        // Nobody but this machine reaches loopback; everything else passes the proxy and the firewall by.
        let open = ports.iter().filter(|port| port.address.is_some_and(|address| !address.is_loopback()));
        self.named(
            "the machine's port",
            open.map(|port| port.host.map_or("of the engine's choice".to_owned(), |port| port.to_string())),
        );
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
    use super::*;
    use coracle_model::container::BindMount;

    fn spec(change: impl FnOnce(&mut ContainerSettings)) -> AppSpec {
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
        let refused = refuse_more(&store, &app, &great).await.unwrap_err();
        assert_eq!((refused.kind, refused.evidence.len()), (ProblemKind::Forbidden, 1));
        refuse_more(&store, &app, &spec(|_| ())).await.unwrap();
    }
}
