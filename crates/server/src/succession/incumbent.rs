//! One project on its way out.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use coracle_engine::{EngineError, Health, Predecessor, Predecessors};
use coracle_model::{AppName, ProcessName, ReleaseNumber, Span};
use coracle_orchestrator::{Incumbent, Standby};
use coracle_proxy::control::Status;
use futures::future::try_join_all;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::record::{Door, Kept, Record};
use super::redirect::Redirect;
use crate::proxy_process::ProxyProcess;

/// How long connections that are open when the proxy steps in have to end by themselves.
const OPEN: Duration = Duration::from_secs(10);

/// How long a project that is given its place back may take until it takes requests.
const RETURN: Span = Span::seconds(120);

/// How long what stands behind it may take to listen on a port that it exposes.
const BEHIND: Duration = Duration::from_secs(15);

/// How long requests that came through the proxy may take to end, once no more do.
const LAST_REQUESTS: Duration = Duration::from_secs(60);

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How long a connection may take to be taken.
const CONNECT: Duration = Duration::from_secs(1);

/// How long the last connections that were led to a temporary port may take to be accepted there.
const SETTLE: Duration = Duration::from_millis(500);

/// A project on its way out.
pub(super) struct Succession {
    predecessors: Arc<dyn Predecessors>,
    proxy: Option<Arc<ProxyProcess>>,
    /// Where its record lies.
    dir: PathBuf,
    record: Mutex<Record>,
    /// Whether the proxy stands in front of it while it goes.
    in_front: bool,
}

impl Succession {
    pub(super) fn new(
        predecessors: Arc<dyn Predecessors>,
        proxy: Option<Arc<ProxyProcess>>,
        dir: PathBuf,
        record: Record,
        in_front: bool,
    ) -> Self {
        Self { predecessors, proxy, dir, record: Mutex::new(record), in_front }
    }

    fn record(&self) -> Record {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn app(&self) -> AppName {
        self.record().app
    }

    fn change_record(&self, change: impl FnOnce(&mut Record)) -> Result<Record, EngineError> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut record);
        record.write(&self.dir).map_err(|error| EngineError::io("write down what is imported", &error))?;
        Ok(record.clone())
    }

    fn redirects(&self) -> Vec<Redirect> {
        let Record { app, doors, .. } = self.record();
        let led = |door: &Door| Some(Redirect { app: app.clone(), address: door.address, from: door.port, to: door.temporary? });
        doors.iter().filter_map(led).collect()
    }

    /// The containers that take requests, where they are now.
    async fn standbys(&self) -> Result<Vec<Standby>, EngineError> {
        let found = self.predecessors.list().await?;
        let standby = |kept: &Kept| {
            let container = found.iter().find(|container| container.id == kept.id && container.running)?;
            Some(Standby {
                part: kept.part.clone(),
                listeners: kept.listeners.clone(),
                name: kept.name.clone(),
                address: SocketAddr::new(*container.addresses.first()?, kept.target?),
            })
        };
        let record = self.record();
        Ok(record.containers.iter().filter(|kept| !kept.listeners.is_empty()).filter_map(standby).collect())
    }

    /// Waits until no connection to these ports is open that does not come through the proxy, for a while: those go on being
    /// the old containers' own, and what is asked on them later is lost.
    async fn until_direct_connections_end(&self) {
        let ports: BTreeSet<u16> = self.record().doors.iter().map(|door| door.port).collect();
        let give_up = Instant::now() + OPEN;
        while direct_connections(&ports) > 0 && Instant::now() < give_up {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until nobody waits in the proxy for the app any more, and nothing is under way to the project through it: whoever
    /// does is answered by the routes that are there now.
    async fn until_last_requests_end(&self, record: &Record) {
        let Some(proxy) = &self.proxy else { return };
        let give_up = Instant::now() + LAST_REQUESTS;
        while Instant::now() < give_up {
            match proxy.client().status().await {
                Ok(status) if is_busy(&status, record) => {}
                Ok(_) => return,
                Err(error) => tracing::warn!(%error, "cannot tell whether requests wait"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn change_entrances(&self, add: bool, record: &Record) -> Result<(), EngineError> {
        let Some(proxy) = &self.proxy else { return Ok(()) };
        let temporary = record.temporary_entrances();
        let changed = match add {
            true => proxy.change_entrances(&temporary, &[]).await,
            false => proxy.change_entrances(&[], &temporary).await,
        };
        changed.map_err(|error| failed("listen for the project's requests", error.to_string()))
    }

    /// Waits until a container that was started again does its work, as far as that can be told from outside: its check passes,
    /// or, if it has none, its port takes connections. One that people ask has to; what stands behind it may expose a port that
    /// nobody listens on, and is waited for only so long.
    async fn until_ready(&self, kept: &Kept) -> Result<(), EngineError> {
        let (began, give_up) = (Instant::now(), Instant::now() + RETURN.duration());
        loop {
            let found = self.predecessors.list().await?;
            let container = found.iter().find(|container| container.id == kept.id);
            if let Some(container) = container
                && container.running
            {
                let is_ready = match (container.health, kept.target) {
                    (Health::Healthy, None) => true,
                    (Health::Healthy | Health::Unchecked, Some(port)) => takes_connections(container, port).await,
                    (Health::Unchecked, None) => {
                        let port = container.ports.iter().find(|port| port.protocol == "tcp").map(|port| port.number);
                        let Some(port) = port else { return Ok(()) };
                        takes_connections(container, port).await || began.elapsed() > BEHIND
                    }
                    _ => false,
                };
                if is_ready {
                    return Ok(());
                }
            }
            if Instant::now() > give_up {
                return Err(EngineError::TimedOut { action: format!("start {} again", kept.name), limit: RETURN });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The proxy takes the ports themselves; then nobody has to be led there any more.
    async fn take_ports(&self, record: &Record) -> Result<(), EngineError> {
        let Some(proxy) = &self.proxy else { return Ok(()) };
        let give_up = Instant::now() + OPEN;
        // The engine lets go of a port a moment after the container's end.
        while let Err(error) = proxy.change_entrances(&record.entrances(), &[]).await {
            if Instant::now() > give_up {
                return Err(failed("have the project's ports", error.to_string()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let redirects = self.redirects();
        try_join_all(redirects.iter().map(Redirect::remove)).await?;
        if !redirects.is_empty() {
            tokio::time::sleep(SETTLE).await;
        }
        self.change_entrances(false, record).await
    }
}

#[async_trait]
impl Incumbent for Succession {
    async fn prepare(&self, release: ReleaseNumber) -> Result<Vec<Standby>, EngineError> {
        let ports: Vec<Option<u16>> = match self.in_front {
            true => self.record().doors.iter().map(|_| free_port().map(Some)).collect::<io::Result<_>>(),
            false => Ok(vec![None; self.record().doors.len()]),
        }
        .map_err(|error| EngineError::io("find a free port", &error))?;
        let record = self.change_record(|record| {
            record.release = Some(release);
            record.doors.iter_mut().zip(ports).for_each(|(door, port)| door.temporary = port);
        })?;
        if !self.in_front {
            return Ok(Vec::new());
        }
        let standbys = self.standbys().await?;
        let is_led = |door: &Door| standbys.iter().any(|standby| standby.listeners.contains(&door.listener));
        if !record.doors.iter().all(is_led) {
            return Err(failed(
                "lead requests to the project",
                "a container that publishes a port has no address of its own".to_owned(),
            ));
        }
        self.change_entrances(true, &record).await?;
        Ok(standbys)
    }

    async fn step_in(&self) -> Result<(), EngineError> {
        try_join_all(self.redirects().iter().map(Redirect::install)).await?;
        self.until_direct_connections_end().await;
        Ok(())
    }

    fn runs(&self, parts: &BTreeSet<ProcessName>) -> BTreeSet<ProcessName> {
        let record = self.record();
        record.containers.iter().map(|kept| kept.part.clone()).filter(|part| parts.contains(part)).collect()
    }

    async fn stop(&self, parts: Option<&BTreeSet<ProcessName>>) -> Result<(), EngineError> {
        let record = self.record();
        let meant = record.containers.iter().filter(|kept| parts.is_none_or(|parts| parts.contains(&kept.part)));
        let stops = meant.map(|kept| self.predecessors.stop(&kept.id, Duration::from_millis(kept.grace_ms)));
        try_join_all(stops).await.map(drop)
    }

    async fn give_back(&self) -> Result<Vec<Standby>, EngineError> {
        let record = self.record();
        let (front, behind): (Vec<&Kept>, Vec<&Kept>) = record.containers.iter().partition(|kept| !kept.listeners.is_empty());
        for group in [behind, front] {
            try_join_all(group.iter().map(|kept| self.predecessors.start(&kept.id, &kept.restart))).await?;
            try_join_all(group.iter().map(|kept| self.until_ready(kept))).await?;
        }
        self.standbys().await
    }

    async fn step_out(&self) -> Result<(), EngineError> {
        let (record, redirects) = (self.record(), self.redirects());
        try_join_all(redirects.iter().map(Redirect::remove)).await?;
        if !redirects.is_empty() {
            tokio::time::sleep(SETTLE).await;
            self.until_last_requests_end(&record).await;
        }
        self.change_entrances(false, &record).await?;
        record.remove(&self.dir).map_err(|error| EngineError::io("forget what was imported", &error))
    }

    async fn succeed(&self) -> Result<(), EngineError> {
        let record = self.record();
        // Those whose ports are wanted first: without a rule that leads around them, nobody answers until they are gone.
        let fronts: BTreeSet<ProcessName> =
            record.containers.iter().filter(|kept| !kept.listeners.is_empty()).map(|kept| kept.part.clone()).collect();
        self.stop(Some(&fronts)).await?;
        self.take_ports(&record).await?;
        self.stop(None).await?;
        if record.remove_old {
            try_join_all(record.containers.iter().map(|kept| self.predecessors.remove(&kept.id))).await?;
        }
        record.remove(&self.dir).map_err(|error| EngineError::io("forget what was imported", &error))
    }
}

fn failed(action: &str, cause: String) -> EngineError {
    EngineError::Failed { action: action.to_owned(), cause }
}

/// A port that nobody has at this moment.
fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind(("0.0.0.0", 0))?.local_addr()?.port())
}

/// Whether requests for the app wait in the proxy, or are under way to the project's containers.
fn is_busy(status: &Status, record: &Record) -> bool {
    let of_app = |service: &str| {
        service == record.app.as_str() || service.strip_prefix(record.app.as_str()).is_some_and(|rest| rest.starts_with('.'))
    };
    let of_project = |target: &str| target.strip_prefix(record.app.as_str()).is_some_and(|rest| rest.starts_with('/'));
    status.waiting.iter().any(|waiting| of_app(&waiting.service.0))
        || status.targets.iter().any(|target| of_project(&target.id.0) && target.in_flight > 0)
}

async fn takes_connections(container: &Predecessor, port: u16) -> bool {
    match container.addresses.first() {
        Some(address) => matches!(tokio::time::timeout(CONNECT, TcpStream::connect((*address, port))).await, Ok(Ok(_))),
        None => true,
    }
}

/// How many connections from elsewhere the kernel knows to these ports that it leads past the proxy, and how many from this
/// machine Docker's own program has. What cannot be read counts as none.
fn direct_connections(ports: &BTreeSet<u16>) -> usize {
    let tracked = std::fs::read_to_string("/proc/net/nf_conntrack").unwrap_or_default();
    let sockets: String =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect();
    tracked.lines().filter(|line| is_led_past(line, ports)).count() + sockets.lines().filter(|line| is_open(line, ports)).count()
}

/// `… tcp 6 431999 ESTABLISHED src=… dst=… sport=… dport=8080 src=172.20.0.2 dst=… sport=80 …`: the answer comes from elsewhere
/// than the machine was asked.
fn is_led_past(line: &str, ports: &BTreeSet<u16>) -> bool {
    let values = |name: &str| -> Vec<&str> { line.split_whitespace().filter_map(|word| word.strip_prefix(name)).collect() };
    let asked = values("dport=").first().and_then(|port| port.parse().ok());
    let (asked_at, answers) = (values("dst="), values("src="));
    line.contains("ESTABLISHED")
        && asked.is_some_and(|port| ports.contains(&port))
        && asked_at.first().zip(answers.get(1)).is_some_and(|(at, from)| at != from)
}

/// `0: 0100007F:1F90 0100007F:D2C4 01 …`: established, and the port is this machine's end.
fn is_open(line: &str, ports: &BTreeSet<u16>) -> bool {
    let words: Vec<&str> = line.split_whitespace().take(4).collect();
    let [_, local, _, state] = words[..] else { return false };
    let port = local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    state == "01" && port.is_some_and(|port| ports.contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_go_past_the_proxy_are_told_from_those_that_do_not() {
        let ports = BTreeSet::from([8080]);
        let past = "ipv4 2 tcp 6 431999 ESTABLISHED src=10.0.0.9 dst=10.0.0.1 sport=40000 dport=8080 src=172.20.0.2 dst=10.0.0.9 sport=80 dport=40000 [ASSURED]";
        assert!(is_led_past(past, &ports));
        assert!(!is_led_past(&past.replace("172.20.0.2", "10.0.0.1"), &ports), "led to another port of the machine");
        assert!(!is_led_past(&past.replace("ESTABLISHED", "TIME_WAIT"), &ports));
        assert!(!is_led_past(&past.replace("dport=8080", "dport=81"), &ports));
        let open = "   1: 0100007F:1F90 0100007F:D2C4 01 00000000:00000000 00:00000000 00000000     0        0 1 1";
        assert!(is_open(open, &ports));
        assert!(!is_open(&open.replace(" 01 ", " 0A "), &ports) && !is_open(&open.replace("1F90", "1F91"), &ports));
        assert!(!is_open("  sl  local_address rem_address   st", &ports));
    }
}
