//! Keys of a service that are valid and that Coracle does not honour, each with the reason.

use super::Maker;
use crate::service::Service;

const MACHINE: &str = "is a setting of the machine that Coracle does not pass on";
const CPU: &str = "use `cpus`";

impl Maker<'_> {
    /// Notes everything that a service asks for in vain.
    pub(super) fn note_unsupported(&mut self, name: &str, service: &Service) {
        let Service { cpu_count, cpu_percent, cpu_rt_period, cpu_rt_runtime, .. } = service;
        let keys: [(&str, bool, &str); 27] = [
            ("annotations", !service.annotations.is_empty(), MACHINE),
            ("blkio_config", service.blkio_config.is_some(), MACHINE),
            ("cgroup", service.cgroup.is_some(), MACHINE),
            ("cgroup_parent", service.cgroup_parent.is_some(), MACHINE),
            ("cpu_count", cpu_count.is_some(), CPU),
            ("cpu_percent", cpu_percent.is_some(), CPU),
            ("cpu_rt_period", cpu_rt_period.is_some(), MACHINE),
            ("cpu_rt_runtime", cpu_rt_runtime.is_some(), MACHINE),
            ("credential_spec", service.credential_spec.is_some(), "is for Windows"),
            ("device_cgroup_rules", !service.device_cgroup_rules.is_empty(), MACHINE),
            (
                "external_links",
                !service.external_links.is_empty(),
                "join the other project's network instead (`networks`, external)",
            ),
            ("gpus", !service.gpus.is_empty(), MACHINE),
            ("isolation", service.isolation.is_some(), "is for Windows"),
            ("mac_address", service.mac_address.is_some(), "two releases run at once, and an address is one's own"),
            ("mem_swappiness", service.mem_swappiness.is_some(), MACHINE),
            ("models", !service.models.is_empty(), "Coracle runs no language models"),
            ("network_mode", has_network_mode(service), "a release's containers share a network of their own"),
            ("oom_kill_disable", service.oom_kill_disable, MACHINE),
            ("pull_refresh_after", service.pull_refresh_after.is_some(), "images change with releases, not with time"),
            ("post_start", !service.post_start.is_empty(), "run it in the container's own entrypoint"),
            ("pre_stop", !service.pre_stop.is_empty(), "handle the stop signal instead"),
            ("provider", service.provider.is_some(), "is for plugins of Compose"),
            ("storage_opt", !service.storage_opt.is_empty(), MACHINE),
            ("use_api_socket", service.use_api_socket, "a container that speaks to the engine is root on the machine"),
            ("uts", service.uts.is_some(), MACHINE),
            ("volumes_from", !service.volumes_from.is_empty(), "name the volumes in both services"),
            (
                "platform",
                service.platform.as_deref().is_some_and(is_foreign) && service.build.is_none(),
                "images are fetched for the machine they run on",
            ),
        ];
        for (key, _, why) in keys.iter().filter(|(_, is_used, _)| *is_used) {
            self.cannot(&["services", name, key], *why);
        }
        let Some(deploy) = &service.deploy else { return };
        let path = |key| ["services", name, "deploy", key];
        if !matches!(deploy.mode.as_deref(), None | Some("replicated")) {
            self.cannot(&path("mode"), "there is one machine; say how many with `replicas`");
        }
        if deploy.endpoint_mode.is_some() {
            self.cannot(&path("endpoint_mode"), "is for Swarm");
        }
        for (key, is_used) in
            [("update_config", deploy.update_config.is_some()), ("rollback_config", deploy.rollback_config.is_some())]
        {
            if is_used {
                self.cannot(&path(key), "a release replaces the one before it whole, and only once it is healthy");
            }
        }
        let restart = deploy.restart_policy.as_ref();
        if restart.is_some_and(|policy| policy.delay.is_some() || policy.window.is_some()) {
            self.cannot(
                &path("restart_policy"),
                "restarts wait longer each time, by Coracle's own measure; leave delay and window out",
            );
        }
        let placement = &deploy.placement;
        if !placement.constraints.is_empty() || !placement.preferences.is_empty() || placement.max_replicas_per_node > 0 {
            self.cannot(&path("placement"), "there is one machine");
        }
        let reserved = deploy.resources.reservations.as_ref();
        if reserved.is_some_and(|reserved| !reserved.devices.is_empty() || !reserved.generic_resources.is_empty()) {
            self.cannot(&["services", name, "deploy", "resources", "reservations", "devices"], MACHINE);
        }
    }
}

/// Whether a platform is another than that of this machine.
fn is_foreign(platform: &str) -> bool {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut pieces = platform.split('/');
    (pieces.next(), pieces.next()) != (Some("linux"), Some(machine))
}

fn has_network_mode(service: &Service) -> bool {
    !matches!(service.network_mode.as_deref(), None | Some("" | "bridge" | "default"))
}
