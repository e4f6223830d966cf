//! A service as a part of an app: what its container asks for.

use coracle_model::container::{
    Confinement, ContainerSettings, ExternalNetwork, HealthCheck, HealthTest, Logging, RestartPolicy, Tmpfs, Ulimit,
};
use coracle_model::{ByteSize, Condition, Cpus, Dependency, Exposure, Limits, PrivateText, ProcessSpec};

use super::Maker;
use crate::service::{self, Service};

/// No limit: more processes than the kernel has numbers for.
const ANY_PIDS: u32 = 4_194_304;

impl Maker<'_> {
    /// The part of the app that a service is. Who reaches it is decided when all are known.
    pub(super) fn part(&mut self, name: &str, service: &Service) -> ProcessSpec {
        let source = self.source(name, service);
        let limits = self.limits(name, service);
        let replicas = service.deploy.as_ref().and_then(|deploy| deploy.replicas).or(service.scale).unwrap_or(1);
        let replicas = u16::try_from(replicas).unwrap_or(u16::MAX);
        if replicas > 100 {
            self.wrong(&["services", name, "deploy", "replicas"], "at most 100 instances run of one process");
        }
        let mut container = self.settings(name, service);
        let volumes = self.mounts(name, service, &mut container);
        self.files(name, service, &mut container);
        ProcessSpec {
            command: None,
            replicas,
            limits,
            volumes,
            source,
            container: Box::new(container),
            depends_on: self.dependencies(name, service),
            exposure: Exposure::Hidden,
            task: false,
        }
    }

    fn dependencies(
        &mut self,
        name: &str,
        service: &Service,
    ) -> std::collections::BTreeMap<coracle_model::ProcessName, Dependency> {
        let mut all = std::collections::BTreeMap::new();
        for (on, how) in &service.depends_on {
            let condition = match how.condition.as_str() {
                "service_healthy" => Condition::Healthy,
                "service_completed_successfully" => Condition::Completed,
                "service_started" | "" => Condition::Started,
                other => {
                    self.cannot(&["services", name, "depends_on", on, "condition"], format!("{other:?} is not honoured"));
                    Condition::Started
                }
            };
            if let Some(on) = self.names.get(on) {
                all.insert(on.clone(), Dependency { condition, required: how.required, restart: how.restart });
            }
        }
        all
    }

    fn limits(&mut self, name: &str, service: &Service) -> Limits {
        let limits = service.deploy.as_ref().and_then(|deploy| deploy.resources.limits.as_ref());
        let memory = limits.and_then(|limits| limits.memory.as_deref()).or(service.mem_limit.as_deref());
        let path = ["services", name, "mem_limit"];
        let memory = memory.and_then(|text| self.size(&path, text)).filter(|size| size.get() > 0);
        let quota = service.cpu_quota.filter(|quota| *quota > 0);
        // The kernel's usual period is a tenth of a second.
        let of_quota =
            quota.map(|quota| quota as f64 / service.cpu_period.filter(|period| *period > 0).unwrap_or(100_000) as f64);
        let cpus = limits.and_then(|limits| limits.cpus).or(service.cpus).or(of_quota).filter(|cpus| *cpus > 0.0);
        let pids = limits.and_then(|limits| limits.pids).or(service.pids_limit);
        let pids = match pids {
            None | Some(0) => Limits::default().pids,
            Some(pids) => u32::try_from(pids).unwrap_or(ANY_PIDS),
        };
        Limits { memory, cpus: cpus.map(|cpus| Cpus::milli((cpus * 1000.0).round().max(1.0) as u32)), pids, ..Limits::default() }
    }

    pub(super) fn size(&mut self, path: &[&str], text: &str) -> Option<ByteSize> {
        let bytes = self.read(path, crate::size::parse(text))?;
        Some(ByteSize::bytes(u64::try_from(bytes).unwrap_or(0)))
    }

    fn settings(&mut self, name: &str, service: &Service) -> ContainerSettings {
        let path = |key| ["services", name, key];
        let reserved = service.deploy.as_ref().and_then(|deploy| deploy.resources.reservations.as_ref());
        let reserved = reserved.and_then(|reserved| reserved.memory.as_deref()).or(service.mem_reservation.as_deref());
        let (aliases, networks) = self.networks(name, service);
        ContainerSettings {
            confinement: Confinement::Engine,
            entrypoint: service.entrypoint.clone(),
            arguments: service.command.clone(),
            env: self.environment(service),
            user: service.user.clone(),
            working_dir: service.working_dir.clone(),
            read_only: service.read_only,
            privileged: service.privileged,
            cap_add: service.cap_add.clone(),
            cap_drop: service.cap_drop.clone(),
            security_opt: service.security_opt.clone(),
            ulimits: service.ulimits.iter().map(|(name, limit)| (name.clone(), ulimit(limit))).collect(),
            shm_size: service.shm_size.as_deref().and_then(|size| self.size(&path("shm_size"), size)),
            init: service.init,
            stop_signal: service.stop_signal.clone(),
            stop_grace_period: self.span(&path("stop_grace_period"), service.stop_grace_period.as_deref()),
            tmpfs: service.tmpfs.iter().map(|text| tmpfs(text)).collect(),
            hostname: service.hostname.clone(),
            domainname: service.domainname.clone(),
            aliases: self.own_names(name, service, aliases),
            extra_hosts: service.extra_hosts.iter().map(|host| host.replacen('=', ":", 1)).collect(),
            dns: service.dns.clone(),
            dns_search: service.dns_search.clone(),
            dns_opt: service.dns_opt.clone(),
            labels: service.labels.clone(),
            health: self.health(name, service),
            restart: self.restart(name, service),
            networks,
            sysctls: service.sysctls.clone(),
            devices: service.devices.iter().map(device).collect(),
            group_add: service.group_add.clone(),
            tty: service.tty,
            stdin_open: service.stdin_open,
            logging: service.logging.as_ref().map(|logging| Logging {
                driver: logging.driver.clone().unwrap_or_else(|| "json-file".to_owned()),
                options: logging.options.clone(),
            }),
            memory_reservation: reserved.and_then(|size| self.size(&path("mem_reservation"), size)),
            memory_swap: service.memswap_limit.as_deref().and_then(|size| size.parse().ok()),
            cpu_shares: service.cpu_shares,
            cpuset: service.cpuset.clone(),
            oom_score_adj: (service.oom_score_adj != 0).then_some(service.oom_score_adj),
            pid: self.shared(name, "pid", service.pid.as_deref()),
            ipc: self.shared(name, "ipc", service.ipc.as_deref()),
            userns: service.userns_mode.clone(),
            runtime: service.runtime.clone(),
            ..ContainerSettings::default()
        }
    }

    /// A variable without a value has that of the configuration, or none.
    fn environment(&self, service: &Service) -> std::collections::BTreeMap<String, PrivateText> {
        let value = |(name, value): (&String, &Option<String>)| {
            let value = value.as_ref().or_else(|| self.project.environment.get(name))?;
            Some((name.clone(), PrivateText::new(value.as_str())))
        };
        service.environment.iter().filter_map(value).collect()
    }

    /// Every name under which the file's other services may know this one.
    fn own_names(&self, name: &str, service: &Service, mut aliases: Vec<String>) -> Vec<String> {
        let known = self.names.get(name).map(ToString::to_string);
        let own = [Some(name.to_owned()), service.container_name.clone(), service.hostname.clone()];
        aliases.extend(own.into_iter().flatten());
        aliases.sort();
        aliases.dedup();
        aliases.retain(|alias| Some(alias) != known.as_ref());
        aliases
    }

    /// The names that a service has in the project's networks, and the networks of others that it joins.
    fn networks(&mut self, name: &str, service: &Service) -> (Vec<String>, Vec<ExternalNetwork>) {
        let (mut aliases, mut others) = (Vec::new(), Vec::new());
        for (network, attachment) in &service.networks {
            let attachment = attachment.clone().unwrap_or_default();
            let is_own = self.project.networks.get(network).is_none_or(|network| !network.external);
            for (key, address) in [("ipv4_address", &attachment.ipv4_address), ("ipv6_address", &attachment.ipv6_address)] {
                if is_own && address.is_some() {
                    let path = ["services", name, "networks", network, key];
                    self.cannot(&path, "two releases run at once, and an address is one's own; use names");
                }
            }
            match self.project.networks.get(network).filter(|network| network.external) {
                Some(network) => others.push(ExternalNetwork {
                    name: network.name.clone(),
                    aliases: attachment.aliases,
                    address: attachment.ipv4_address.or(attachment.ipv6_address).and_then(|address| address.parse().ok()),
                }),
                None => aliases.extend(attachment.aliases),
            }
        }
        (aliases, others)
    }

    fn shared(&mut self, name: &str, key: &'static str, mode: Option<&str>) -> Option<String> {
        match mode {
            Some(text) if text.contains(':') => {
                self.cannot(&["services", name, key], "containers of a release come and go one by one");
                None
            }
            other => other.map(str::to_owned),
        }
    }

    fn health(&mut self, name: &str, service: &Service) -> Option<HealthCheck> {
        let check = service.healthcheck.as_ref()?;
        let path = |key| ["services", name, "healthcheck", key];
        let test = match check.test.split_first() {
            _ if check.disable => HealthTest::Disabled,
            None => HealthTest::OfImage,
            Some((kind, rest)) => match kind.as_str() {
                "NONE" => HealthTest::Disabled,
                "CMD" => HealthTest::Exec(rest.to_vec()),
                "CMD-SHELL" => HealthTest::Shell(rest.join(" ")),
                _ => {
                    self.wrong(&path("test"), "must begin with NONE, CMD or CMD-SHELL");
                    return None;
                }
            },
        };
        Some(HealthCheck {
            test,
            interval: self.span(&path("interval"), check.interval.as_deref()),
            timeout: self.span(&path("timeout"), check.timeout.as_deref()),
            retries: check.retries.and_then(|retries| u32::try_from(retries).ok()),
            start_period: self.span(&path("start_period"), check.start_period.as_deref()),
            start_interval: self.span(&path("start_interval"), check.start_interval.as_deref()),
        })
    }

    /// What nobody says anything about is kept running: that is what deploying it means.
    fn restart(&mut self, name: &str, service: &Service) -> RestartPolicy {
        let deployed = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref());
        if let Some(policy) = deployed {
            let most = policy.max_attempts.and_then(|most| u32::try_from(most).ok());
            return match policy.condition.as_deref() {
                Some("none") => RestartPolicy::Never,
                Some("on-failure") => RestartPolicy::OnFailure(most),
                None | Some("" | "any") => RestartPolicy::Always,
                Some(other) => {
                    let path = ["services", name, "deploy", "restart_policy", "condition"];
                    self.wrong(&path, format!("{other:?} is none of none, on-failure, any"));
                    RestartPolicy::Always
                }
            };
        }
        match service.restart.as_deref() {
            None | Some("always" | "unless-stopped") => RestartPolicy::Always,
            Some("no" | "") => RestartPolicy::Never,
            Some("on-failure") => RestartPolicy::OnFailure(None),
            Some(other) => match other.strip_prefix("on-failure:").map(str::parse) {
                Some(Ok(most)) => RestartPolicy::OnFailure(Some(most)),
                _ => {
                    self.wrong(&["services", name, "restart"], format!("{other:?} is not a restart policy"));
                    RestartPolicy::Always
                }
            },
        }
    }
}

fn ulimit(limit: &service::Ulimit) -> Ulimit {
    match *limit {
        service::Ulimit::Single(both) => Ulimit { soft: both, hard: both },
        service::Ulimit::Range { soft, hard } => Ulimit { soft, hard },
    }
}

fn tmpfs(text: &str) -> Tmpfs {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    Tmpfs { path: path.to_owned(), options: options.to_owned() }
}

fn device(device: &service::Device) -> String {
    let target = device.target.as_ref().unwrap_or(&device.source);
    format!("{}:{target}:{}", device.source, device.permissions.as_deref().unwrap_or("rwm"))
}
