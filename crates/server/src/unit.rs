//! The systemd unit that `coracle server unit` prints.

use std::net::SocketAddr;
use std::path::Path;

use crate::proxy_process::{AcmeOptions, listening_arguments};

/// What the unit is for.
#[derive(Debug, Clone)]
pub struct UnitOptions<'a> {
    /// The `coracle` binary, by its absolute path.
    pub program: &'a Path,
    /// Where the server keeps its state.
    pub state_dir: &'a Path,
    /// Where the proxy takes requests.
    pub http: &'a [SocketAddr],
    /// Where it takes requests over TLS.
    pub https: &'a [SocketAddr],
    /// How certificates are ordered, if they are.
    pub acme: Option<&'a AcmeOptions>,
    /// Where the API listens beside its Unix socket.
    pub api_tcp: Option<SocketAddr>,
    /// Where git is served over SSH.
    pub ssh: Option<SocketAddr>,
    /// What else the server is started with.
    pub more: &'a [String],
    /// The user to run as; `None` is root.
    pub user: Option<&'a str>,
}

/// The text of the unit.
pub fn render(options: &UnitOptions<'_>) -> String {
    let mut command =
        vec![path_text(options.program), "server".into(), "run".into(), "--state".into(), path_text(options.state_dir)];
    let listening = listening_arguments(options.http, options.https, options.acme);
    command.extend(listening.iter().map(|argument| argument.to_string_lossy().into_owned()));
    if let Some(address) = options.api_tcp {
        command.extend(["--api-tcp".to_owned(), address.to_string()]);
    }
    if let Some(address) = options.ssh {
        command.extend(["--ssh".to_owned(), address.to_string()]);
    }
    command.extend_from_slice(options.more);
    let command: Vec<String> = command.iter().map(|argument| quoted(argument)).collect();
    let user = options.user.map(|user| format!("User={}\n", user.replace('%', "%%"))).unwrap_or_default();
    // Ports below 1024 are root's alone, unless this is given.
    let low_port =
        options.http.iter().chain(options.https).chain(&options.ssh).any(|address| (1..1024).contains(&address.port()));
    let capability = if options.user.is_some() && low_port { "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" } else { "" };
    format!(
        "\
[Unit]
Description=Coracle: the control plane
Documentation=man:coracle(1)
After=network-online.target docker.service
Wants=network-online.target

[Service]
Type=exec
ExecStart={command}
{user}{capability}Restart=always
RestartSec=1
TimeoutStopSec=45
# The proxy and the process engine's instances live in this unit's cgroup and must outlive the server: stopping the unit
# ends the server alone. (`coracle server stop --all` ends the proxy too.)
KillMode=process
# The process engine limits instances by cgroups of its own below this unit's.
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
# Inherited by everything the server starts, so only what no app can need: no further hardening here; instances are
# confined one by one.
NoNewPrivileges=yes
LockPersonality=yes
# Where a running server writes nothing.
ProtectKernelModules=yes

[Install]
WantedBy=multi-user.target
",
        command = command.join(" "),
    )
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

/// An argument as systemd reads it back (systemd.service(5), "Command lines"; systemd.unit(5), "Specifiers").
fn quoted(argument: &str) -> String {
    let escaped = argument.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:[],=+@".contains(&byte);
    if !argument.is_empty() && argument.bytes().all(plain) { argument.to_owned() } else { format!("\"{escaped}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(http: &[SocketAddr], user: Option<&str>) -> String {
        let (program, state_dir) = (Path::new("/opt/my apps/coracle"), Path::new("/var/lib/100%$x"));
        let more = ["--default-rule".to_owned(), "Host(`{{ .Name }}.100%`)".to_owned()];
        render(&UnitOptions { program, state_dir, http, https: &[], acme: None, api_tcp: None, ssh: None, more: &more, user })
    }

    #[test]
    fn the_server_is_restarted_and_what_it_started_is_left_alone() {
        let text = unit(&[SocketAddr::from(([0, 0, 0, 0], 80))], None);
        for line in ["KillMode=process", "Restart=always", "Delegate=yes", "Type=exec"] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in {text}");
        }
        assert!(!text.contains("User="));
    }

    #[test]
    fn arguments_survive_systemds_reading() {
        let text = unit(&[SocketAddr::from(([0, 0, 0, 0], 80))], Some("me"));
        let command = r#"ExecStart="/opt/my apps/coracle" server run --state "/var/lib/100%%$$x" --http 0.0.0.0:80 --default-rule "Host(`{{ .Name }}.100%%`)""#;
        assert!(text.lines().any(|line| line == command), "{text}");
        assert!(text.contains("User=me\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"));
    }
}
