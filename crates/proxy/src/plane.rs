//! What every connection shares: the snapshot that is served by, and all that outlives it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_proxy_http::{EncodedCharacters, Fields, Forwarding, Trust};
use coracle_proxy_table::{Admission, Table};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::AccessLog;
use crate::balance::{Asker, Balancer};
use crate::chains::Kept;
use crate::health::{Check, Checks};
use crate::hold::{Gates, Place, Wanted};
use crate::listener::Listener;
use crate::metrics::Metrics;
use crate::options::{Limits, ProxyOptions};
use crate::pool::PoolLimits;
use crate::refusal::Refusal;
use crate::request_id::RequestIds;
use crate::route::{RequestFacts, Route};
use crate::router::{BadTable, Snapshot};
use crate::service::Service;
use crate::target::{Count, InFlight, Registry, Target};
use crate::tls::Tls;
use crate::worker::{Job, Worker};

/// The data plane's shared state.
pub(crate) struct Plane {
    pub(crate) limits: Limits,
    pub(crate) log: AccessLog,
    pub(crate) ids: RequestIds,
    pub(crate) targets: Registry,
    pub(crate) gates: Gates,
    pub(crate) metrics: Metrics,
    pub(crate) clients: Arc<Clients>,
    pub(crate) workers: Box<[Worker]>,
    /// Counts connections, also those that have been upgraded.
    pub(crate) connections: TaskTracker,
    /// Each connection takes what there is when it begins.
    forwarding: Mutex<Arc<Forwarding>>,
    /// Fields named by `Connection` that are passed on all the same.
    pub(crate) connection_fields: Vec<String>,
    pub(crate) encoded_characters: EncodedCharacters,
    pub(crate) middlewares: Kept,
    checks: Checks,
    /// There if a listener speaks TLS.
    pub(crate) tls: Option<Tls>,
    snapshot: Mutex<Arc<Snapshot>>,
    closing: AtomicBool,
    tasks: TaskTracker,
    kill: CancellationToken,
}

/// A table that can be served by.
pub(crate) struct Prepared(Arc<Snapshot>);

/// Where a request goes.
pub(crate) enum Decision {
    /// To this target.
    Go { route: Arc<Route>, in_flight: InFlight },
    /// Nowhere before it has passed the middlewares of this route.
    Pass { route: Arc<Route> },
    /// Nowhere yet.
    Wait { route: Arc<Route>, place: Place, at_most: Duration },
    /// Nowhere.
    Refuse { route: Option<Arc<Route>>, refusal: Refusal },
}

/// What a request's route is found by.
#[derive(Clone, Copy)]
pub(crate) enum Way<'w> {
    /// The request, as the client sent it.
    Facts(&'w RequestFacts<'w>),
    /// The route whose middlewares it has passed, which may have changed it: rules cannot be asked again. If the table has
    /// changed meanwhile, its route of the same id.
    Known(&'w Arc<Route>),
}

/// What has been done about a request before.
#[derive(Clone, Copy)]
pub(crate) struct Before<'b> {
    /// Targets that did not answer it.
    pub(crate) tried: &'b [Arc<Target>],
    /// It has waited for its turn.
    pub(crate) called: bool,
    /// Its header fields.
    pub(crate) fields: &'b Fields,
}

impl Plane {
    /// Serves nothing yet. The workers are told their jobs by what is returned beside it.
    pub(crate) fn new(
        options: &ProxyOptions,
        log: AccessLog,
        ids: RequestIds,
        tls: Option<Tls>,
    ) -> (Arc<Self>, Vec<mpsc::UnboundedReceiver<Job>>) {
        let count = options.workers.max(1);
        let (workers, jobs): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| {
                let (tell, told) = mpsc::unbounded_channel();
                (Worker::new(tell), told)
            })
            .unzip();
        let plane = Self {
            limits: options.limits,
            log,
            ids,
            targets: Registry::new(count),
            gates: Gates::default(),
            metrics: Metrics::new(count),
            clients: Arc::new(Clients { most: options.max_connections_per_client, connections: Mutex::default() }),
            workers: workers.into(),
            connections: TaskTracker::new(),
            forwarding: Mutex::new(Arc::new(options.forwarding.clone())),
            connection_fields: options.connection_fields.clone(),
            encoded_characters: options.encoded_characters,
            middlewares: Kept::default(),
            checks: Checks::default(),
            tls,
            snapshot: Mutex::new(Arc::new(Snapshot::empty())),
            closing: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            kill: CancellationToken::new(),
        };
        (Arc::new(plane), jobs)
    }

    /// What targets are told about clients, and who is believed about them.
    pub(crate) fn forwarding(&self) -> Arc<Forwarding> {
        Arc::clone(&self.forwarding.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Believes others from now on, on connections that begin later.
    pub(crate) fn believe(&self, trust: Trust) {
        let mut forwarding = self.forwarding.lock().unwrap_or_else(PoisonError::into_inner);
        if forwarding.trust != trust {
            *forwarding = Arc::new(Forwarding { trust, ..Forwarding::clone(&forwarding) });
        }
    }

    /// The snapshot that is served by.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a table ready to be served by; one that cannot be changes nothing.
    pub(crate) fn prepare(&self, table: impl Into<Arc<Table>>) -> Result<Prepared, BadTable> {
        let table = table.into();
        let (turn, before) = (table.generation, self.snapshot());
        let snapshot = Snapshot::compile(table, &before, &self.middlewares, &self.metrics, |id, plan| {
            let targets: Vec<_> = plan.targets.iter().map(|target| self.targets.obtain(target, plan.protocol)).collect();
            let gate = match plan.admission {
                Admission::Hold { .. } => Some(self.gates.held(id)),
                Admission::Open => self.gates.remaining(id),
                Admission::Closed { .. } => None,
            };
            let known = before.service(id);
            if let Some(known) = known
                && before.table.services.get(id) == Some(plan)
                && known.has(&targets, gate.as_ref())
            {
                return Arc::clone(known);
            }
            let balancer = Balancer::new(plan, targets, known.map(|service| &service.balancer), self.workers.len(), turn);
            Arc::new(Service::new(plan, balancer, gate))
        })?;
        Ok(Prepared(Arc::new(snapshot)))
    }

    /// Replaces the table. When it returns, every request that was sent by the one before is counted in flight, and every
    /// later one goes by this one. One caller at a time, from the preparation on.
    ///
    /// Each worker has a reference of its own to the snapshot, behind a lock that it holds from looking a route up to
    /// counting the request in flight. So whoever has put the new snapshot there comes either before that, and the request
    /// goes by the new one, or after it, and the request is counted. Nothing depends on the order of memory accesses but
    /// what a lock guarantees; and as nobody else takes a worker's lock while no table is installed, it costs the two
    /// uncontended atomic operations that a check of a generation number and its repetition would come close to.
    pub(crate) fn install(&self, Prepared(snapshot): Prepared) {
        let mut before =
            vec![std::mem::replace(&mut *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner), Arc::clone(&snapshot))];
        for worker in &self.workers {
            before.push(std::mem::replace(&mut *worker.snapshot(), Arc::clone(&snapshot)));
        }
        // Before all else: those who come from now on wait behind those who wait already.
        let to_release = self.gates.settle(|id| match snapshot.table.services.get(id).map(|service| &service.admission) {
            Some(Admission::Hold { .. }) => Wanted::Shut,
            Some(Admission::Open) => Wanted::Open,
            Some(Admission::Closed { .. }) | None => Wanted::Gone,
        });
        for gate in to_release {
            self.spawn(gate.release());
        }
        if let Some(tls) = &self.tls {
            tls.want(before.first().map(|before| &*before.table), &snapshot.table);
        }
        if let Some(before) = before.first() {
            self.middlewares.trusts.sweep([&before.table, &snapshot.table]);
        }
        // Taking a large table apart takes a while: not under a worker's lock.
        drop(before);
        self.watch_over(&snapshot);
        let needed: HashSet<*const Target> = snapshot.targets().map(Arc::as_ptr).collect();
        self.targets.sweep(|target| needed.contains(&Arc::as_ptr(target)));
        self.metrics.sweep(snapshot.table.routes.len(), |route| snapshot.route(route).is_some());
    }

    /// Where a request goes that came in there. It is counted in flight before the snapshot can be replaced, so whoever
    /// drains a target after a new table sees every request that the old one sent there.
    pub(crate) fn decide(&self, worker: usize, way: Way<'_>, listener: &Listener, before: Before<'_>) -> Decision {
        let snapshot = self.workers[worker].snapshot();
        let (found, passed) = match way {
            Way::Facts(facts) => (snapshot.find(facts, listener), false),
            Way::Known(route) => (snapshot.route(&route.id), true),
        };
        let Some(route) = found else { return Decision::Refuse { route: None, refusal: Refusal::NoRoute } };
        if route.chain.is_some() && !passed {
            return Decision::Pass { route: Arc::clone(route) };
        }
        let refuse = |refusal| Decision::Refuse { route: Some(Arc::clone(route)), refusal };
        let Some(service) = &route.service else { return refuse(Refusal::NoRoute) };
        match &service.admission {
            Admission::Open => self.send_to(worker, route, service, before),
            Admission::Hold { deadline_ms, max_waiting } => {
                match service.gate.as_ref().and_then(|gate| gate.join(*max_waiting)) {
                    Some(place) => {
                        Decision::Wait { route: Arc::clone(route), place, at_most: Duration::from_millis(*deadline_ms) }
                    }
                    None => refuse(Refusal::TooManyWaiting),
                }
            }
            Admission::Closed { message, retry_after_s } => {
                refuse(Refusal::Closed { message: message.clone(), retry_after_s: *retry_after_s })
            }
        }
    }

    /// Has the targets of a table asked for their health, as their services want it.
    fn watch_over(&self, snapshot: &Snapshot) {
        for (plan, service) in snapshot.services() {
            service.balancer.targets().iter().for_each(|target| target.standing.set_slow_start(plan.slow_start_ms));
        }
        let checked = snapshot.services().filter_map(|(plan, service)| Some((Check::of(plan)?, service)));
        let targets =
            checked.flat_map(|(check, service)| service.balancer.targets().iter().map(move |target| (target, check.clone())));
        self.checks.settle(targets, &self.limits);
    }

    fn send_to(&self, worker: usize, route: &Arc<Route>, service: &Service, before: Before<'_>) -> Decision {
        let route = Arc::clone(route);
        if let Some(gate) = &service.gate
            && !before.called
            && before.tried.is_empty()
            && let Some(place) = gate.queue_up()
        {
            return Decision::Wait { route, place, at_most: self.limits.response_header };
        }
        let asker = Asker { worker, tried: before.tried, fields: before.fields, clock: Instant::now };
        match service.balancer.pick(asker) {
            Some(target) => Decision::Go { in_flight: InFlight::begin(target, worker, Count::Plain), route },
            None if before.tried.is_empty() => Decision::Refuse { route: Some(route), refusal: Refusal::NoTarget },
            None => Decision::Refuse { route: Some(route), refusal: Refusal::BadGateway },
        }
    }

    /// How many upstream connections are kept, and for how long.
    pub(crate) fn pool_limits(&self) -> PoolLimits {
        PoolLimits { idle: self.limits.upstream_idle, count: self.limits.upstream_idle_count }
    }

    /// Polls every connection once.
    pub(crate) fn wake_all(&self) {
        self.workers.iter().for_each(Worker::wake_all);
    }

    /// From now on each answer asks its client to close the connection; clients that speak HTTP/2 are told at once.
    pub(crate) fn close_connections(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    /// Whether connections are being closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Runs a task that belongs to the plane as a whole, on the runtime of the caller.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let kill = self.kill.clone();
        self.tasks.spawn(async move {
            kill.run_until_cancelled(task).await;
        });
    }

    /// Waits until no such task and no connection is left.
    pub(crate) async fn until_idle(&self) {
        self.connections.close();
        self.connections.wait().await;
        self.checks.end();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends all tasks of the plane.
    pub(crate) fn kill_tasks(&self) {
        self.checks.end();
        self.kill.cancel();
    }
}

/// How sparsely the map of clients may be filled before it gives memory back.
const SPARSE: usize = 8;

/// Counts connections per client address, if there is a limit.
pub(crate) struct Clients {
    most: Option<usize>,
    connections: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of a client, whatever becomes of it.
pub(crate) struct Client {
    clients: Arc<Clients>,
    ip: IpAddr,
}

impl Clients {
    /// One more connection of that client; nothing if it has too many. Without a limit nobody is counted.
    pub(crate) fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Option<Client>, TooMany> {
        let Some(most) = self.most else { return Ok(None) };
        let ip = holder(ip);
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.get(&ip).copied().unwrap_or_default();
        if count >= most {
            return Err(TooMany);
        }
        connections.insert(ip, count + 1);
        Ok(Some(Client { clients: Arc::clone(self), ip }))
    }
}

/// Whose connections are counted together: an IPv6 client has a whole /64 to choose its addresses from.
fn holder(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
    }
}

/// The client has as many connections as it may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Drop for Client {
    fn drop(&mut self) {
        let mut connections = self.clients.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connections.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.ip);
                // What a flood from many addresses took is given back.
                if connections.len() < connections.capacity() / SPARSE {
                    let room = 2 * connections.len();
                    connections.shrink_to(room);
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use coracle_proxy_table::{RouteId, ServiceId};

    use super::*;

    /// One that serves nothing, and nobody works for.
    pub(crate) fn plane(workers: usize) -> Arc<Plane> {
        let mut options = ProxyOptions::new(Vec::new(), "control".into(), "state".into());
        options.workers = workers;
        options.max_connections_per_client = Some(2);
        Plane::new(&options, AccessLog::default(), RequestIds::new().unwrap(), None).0
    }

    #[test]
    fn a_client_has_its_share_of_connections() {
        let plane = plane(1);
        let ip = "192.0.2.1".parse().unwrap();
        let first = plane.clients.admit(ip).unwrap();
        let second = plane.clients.admit(ip).unwrap();
        assert!(plane.clients.admit(ip).is_err());
        assert!(plane.clients.admit("192.0.2.2".parse().unwrap()).is_ok());
        drop(first);
        let third = plane.clients.admit(ip).unwrap();
        drop((second, third));
        assert!(plane.clients.connections.lock().unwrap().is_empty());
    }

    #[test]
    fn addresses_of_one_network_are_one_client_and_many_clients_leave_no_memory() {
        let plane = plane(1);
        let admit = |ip: String| plane.clients.admit(ip.parse().unwrap());
        let (_first, _second) = (admit("2001:db8::1".into()).unwrap(), admit("2001:db8::2".into()).unwrap());
        assert!(admit("2001:db8::3".into()).is_err());
        assert!(admit("2001:db8:0:1::1".into()).is_ok());
        let many: Vec<_> = (0..10_000).map(|n| admit(format!("10.0.{}.{}", n / 256, n % 256)).unwrap()).collect();
        drop(many);
        let connections = plane.clients.connections.lock().unwrap();
        assert!(connections.len() == 1 && connections.capacity() < 100, "{}", connections.capacity());
    }

    #[tokio::test]
    async fn what_has_not_changed_is_not_made_anew() {
        let plane = plane(1);
        let service = |port| {
            let target = coracle_proxy_table::Target::new("t", ([127, 0, 0, 1], port).into());
            coracle_proxy_table::Service::new(Admission::Open, vec![target])
        };
        let route = |id: &str| coracle_proxy_table::Route::new(id, format!("Host(`{id}.example`)"), ServiceId(id.into()));
        let table = |port| Table {
            routes: vec![route("a"), route("b")],
            services: [("a", 1), ("b", port)].map(|(id, port)| (ServiceId(id.into()), service(port))).into(),
            ..Table::default()
        };
        let installed = |table| {
            plane.install(plane.prepare(table).unwrap());
            plane.snapshot()
        };
        let is_same = |one: &Snapshot, other: &Snapshot, id: &str| {
            let of = |snapshot: &Snapshot| Arc::clone(snapshot.route(&RouteId(id.into())).unwrap());
            Arc::ptr_eq(&of(one), &of(other))
        };
        let (first, second, third) = (installed(table(2)), installed(table(2)), installed(table(3)));
        assert!(is_same(&first, &second, "a") && is_same(&first, &second, "b"));
        assert!(is_same(&second, &third, "a") && !is_same(&second, &third, "b"));
        // A target that was given up is another one, even if its service has not changed.
        third.targets().for_each(|target| plane.targets.forget(target));
        assert!(!is_same(&third, &installed(table(3)), "a"));
    }
}
