//! What is measured: who is asked, how, and how it is counted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_tests::websocket::WebSocket;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::contenders::{Certificate, Circumstances, Contender, Kind, table};
use crate::load::{Answered, Asking, How};
use crate::origin::Origin;
use crate::processes::Placement;

/// How many WebSockets are open at a time.
pub const SOCKETS: usize = 1000;
/// A measurement counts at once if the proxy had to wait for the processor for less than this share of the time.
const UNDISTURBED: f64 = 0.03;
/// How often a disturbed one is taken at most.
const ATTEMPTS: usize = 3;
/// How many routes the table has that is swapped a hundred times a second.
const SWAPPED_ROUTES: usize = 100;

/// One measurement: the name of the scenario, and who was measured.
pub type Name = (&'static str, Kind);

/// What a proxy did in one measurement.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// What the client saw.
    pub answered: Answered,
    /// Processor time per request in microseconds, all threads and processes of the proxy together.
    pub processor: f64,
    /// The share of the time in which the proxy could have run, but something else on the machine did.
    pub disturbed: f64,
}

/// All proxies, running side by side; only one of them is asked at a time.
#[derive(Debug)]
pub struct Field {
    directory: PathBuf,
    origin: Origin,
    certificate: Certificate,
    placement: Placement,
    tls: bool,
    /// With the access log off, and on.
    contenders: BTreeMap<(Kind, bool), Contender>,
    /// How long each measurement takes, in seconds.
    pub seconds: u64,
}

impl Field {
    /// Starts all of them, ours with TLS if anything over TLS is to be measured.
    pub async fn start(directory: &Path, placement: Placement, tls: bool, seconds: u64) -> Self {
        let origin = Origin::start(&directory.join("origin")).await;
        let certificate = Certificate::make(directory);
        let directory = directory.to_owned();
        let mut field = Self { directory, origin, certificate, placement, tls, contenders: BTreeMap::new(), seconds };
        for kind in Kind::ALL {
            for access_log in [false, true] {
                let contender = field.another(kind, access_log, if access_log { "with-log" } else { "without-log" }).await;
                field.contenders.insert((kind, access_log), contender);
            }
        }
        field
    }

    /// A proxy of its own beside those that run all the time.
    async fn another(&self, kind: Kind, access_log: bool, directory: &str) -> Contender {
        let (origin, placement, certificate) = (&self.origin, self.placement, &self.certificate);
        let circumstances = Circumstances { origin, placement, certificate, tls: self.tls, access_log };
        Contender::start(kind, &self.directory.join(kind.name()).join(directory), circumstances).await
    }

    /// Asks one of them, and sees what it takes. Where the proxies have a processor to themselves and something else ran on it
    /// meanwhile, it is asked again, and the measurement that was disturbed least counts.
    pub async fn measure(&self, kind: Kind, asking: &Asking, access_log: bool) -> Sample {
        let mut best = self.measure_once(kind, asking, access_log).await;
        for _ in 1..ATTEMPTS {
            if best.disturbed < UNDISTURBED || !self.placement.is_pinned() {
                break;
            }
            let again = self.measure_once(kind, asking, access_log).await;
            // What failed has failed, whichever counts.
            let failed = best.answered.failed + again.answered.failed;
            best = if again.disturbed < best.disturbed { again } else { best };
            best.answered.failed = failed;
        }
        best
    }

    async fn measure_once(&self, kind: Kind, asking: &Asking, access_log: bool) -> Sample {
        let contender = &self.contenders[&(kind, access_log)];
        let address = if asking.tls { contender.tls } else { contender.http };
        let family = contender.family();
        let before = family.scheduled();
        let answered = asking.ask(address, self.seconds, &self.directory).await;
        let spent = family.scheduled_since(&before);
        let processor = spent.running as f64 / 1000.0 / answered.requests;
        let disturbed = spent.waiting as f64 / 1e9 / answered.seconds;
        Sample { answered, processor, disturbed }
    }

    /// Ours with so many routes, asked for them at random.
    pub async fn with_routes(&self, routes: usize) -> Sample {
        let ours = &self.contenders[&(Kind::Coracle, false)];
        ours.publish(&table(&self.origin, routes, 0)).await;
        let asking = Asking { how: How::Hosts(routes), tls: false, connections: 64, path: "/" };
        let sample = self.measure(Kind::Coracle, &asking, false).await;
        ours.publish(&table(&self.origin, 0, 0)).await;
        sample
    }

    /// Ours with a table of a hundred routes, which is replaced a hundred times a second if `swapping`.
    pub async fn with_swaps(&self, swapping: bool) -> (Sample, u64) {
        let ours = &self.contenders[&(Kind::Coracle, false)];
        ours.publish(&table(&self.origin, SWAPPED_ROUTES, 0)).await;
        let asking = Asking { how: How::Hosts(SWAPPED_ROUTES), tls: false, connections: 64, path: "/" };
        let measured = self.measure(Kind::Coracle, &asking, false);
        let mut swaps = 0;
        // One route more or less, so that no two tables in a row are the same. Written beforehand: the clients' processor is not to
        // be busy with what the other measurement does not do.
        let tables = [0, 1].map(|more| serde_json::to_vec(&table(&self.origin, SWAPPED_ROUTES + more, more as u64)).unwrap());
        let sample = if swapping {
            let swap = async {
                let mut ticks = interval(Duration::from_millis(10));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                loop {
                    ticks.tick().await;
                    ours.publish_json(tables[(swaps % 2) as usize].clone()).await;
                    swaps += 1;
                }
            };
            tokio::select! {
                sample = measured => sample,
                () = swap => unreachable!("it swaps for as long as it is measured"),
            }
        } else {
            measured.await
        };
        ours.publish(&table(&self.origin, 0, 0)).await;
        (sample, swaps)
    }

    /// Resident memory of a proxy that has just started and answered one request, in megabytes.
    pub async fn idle(&self, kind: Kind) -> f64 {
        let fresh = self.another(kind, false, "idle").await;
        sleep(Duration::from_millis(500)).await;
        fresh.family().resident() as f64 / 1e6
    }

    /// Resident memory of the proxy that has been asked all the time, in megabytes.
    pub fn after_load(&self, kind: Kind) -> f64 {
        self.contenders[&(kind, false)].family().resident() as f64 / 1e6
    }

    /// What an open WebSocket takes of a proxy's memory, in kilobytes, after a few messages.
    ///
    /// # Panics
    /// If a WebSocket does not echo.
    pub async fn sockets(&self, kind: Kind) -> f64 {
        let fresh = self.another(kind, false, "sockets").await;
        // What the first of them takes once and for all is not what each of them takes.
        let first = open(&fresh).await;
        sleep(Duration::from_millis(300)).await;
        let before = fresh.family().proportional() as f64;
        let mut sockets = Vec::with_capacity(SOCKETS);
        for _ in 0..SOCKETS {
            sockets.push(open(&fresh).await);
        }
        sleep(Duration::from_secs(1)).await;
        let taken = fresh.family().proportional() as f64 - before;
        drop((first, sockets));
        taken / SOCKETS as f64 / 1000.0
    }
}

async fn open(contender: &Contender) -> WebSocket {
    let mut socket = WebSocket::connect(contender.http, "ws.localhost", "/").await.unwrap();
    for word in
        ["one", "two", "a hundred bytes or so, which is what a usual message of a chat or of a live view has in it, give or take"]
    {
        socket.echoes(word).await.unwrap();
    }
    socket
}
