//! What a service is given that reaches beyond its container. It is what the file asks for, so it is done; and it is told, since
//! whoever gets into such a service has more than that service.

use super::Maker;
use crate::service::Service;

/// Sockets by which an engine is commanded, by the ends of their paths.
const ENGINE_SOCKETS: [&str; 3] = ["/docker.sock", "/podman.sock", "/containerd.sock"];

/// Capabilities that come to all of them (capabilities(7)).
const GREAT_CAPABILITIES: [&str; 8] =
    ["ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "DAC_READ_SEARCH", "BPF", "SYS_BOOT"];

/// Directories that hold the machine's own configuration, or its engine's state.
const GREAT_DIRECTORIES: [&str; 9] = ["/", "/etc", "/var", "/var/lib", "/var/lib/docker", "/var/run", "/run", "/root", "/proc"];

/// Images, by the last piece of their names, that look for containers themselves and lead requests to them.
const PROXIES: [&str; 5] =
    ["traefik", "nginx-proxy", "acme-companion", "caddy-docker-proxy", "docker-letsencrypt-nginx-proxy-companion"];

impl Maker<'_> {
    /// Tells what a service is given of the machine.
    pub(super) fn note_power(&mut self, name: &str, service: &Service) {
        let mut given: Vec<String> = Vec::new();
        let mut is_given = |is: bool, what: &str| given.extend(is.then(|| what.to_owned()));
        is_given(service.privileged, "every right there is (`privileged`)");
        is_given(service.pid.as_deref() == Some("host"), "every process of the machine (`pid: host`)");
        is_given(service.ipc.as_deref() == Some("host"), "the machine's shared memory (`ipc: host`)");
        is_given(service.userns_mode.as_deref() == Some("host"), "the machine's own users (`userns_mode: host`)");
        let great = service.cap_add.iter().map(|word| word.to_ascii_uppercase().trim_start_matches("CAP_").to_owned());
        let great: Vec<String> = great.filter(|word| GREAT_CAPABILITIES.contains(&word.as_str())).collect();
        is_given(!great.is_empty(), &format!("the capabilities {}", great.join(", ")));
        let devices: Vec<&str> = service.devices.iter().map(|device| device.source.as_str()).collect();
        is_given(!devices.is_empty(), &format!("the devices {}", devices.join(", ")));
        for source in service.volumes.iter().filter(|mount| mount.kind == "bind").filter_map(|mount| mount.source.as_deref()) {
            let is_socket = ENGINE_SOCKETS.iter().any(|end| source.ends_with(end));
            is_given(is_socket, &format!("the engine's socket {source}, even where it is mounted read-only"));
            let directory = if source == "/" { source } else { source.trim_end_matches('/') };
            is_given(
                GREAT_DIRECTORIES.contains(&directory),
                &format!("the machine's {directory}, the server's secrets included if they lie there"),
            );
        }
        if !given.is_empty() {
            self.notes.push(format!("{name} is given {}: whoever gets into it may own the machine", given.join("; ")));
        }
    }

    /// Tells of a service whose work Coracle does itself.
    pub(super) fn note_proxy(&mut self, name: &str, service: &Service) {
        let image = service.image.as_deref().unwrap_or_default();
        let bare = image.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let bare = bare.split(':').next().unwrap_or_default();
        if PROXIES.contains(&bare) {
            self.notes.push(format!(
                "{name} looks for containers itself, as Coracle's own proxy does: that reads traefik labels, has the ports and gets the \
                 certificates, so leave {name} out"
            ));
        }
    }
}
