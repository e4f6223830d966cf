//! An open-loop load generator: requests leave at their appointed times whether or not earlier ones were answered, as
//! customers do. Everything that is not a whole 2xx answer is a failure and is kept with its details.
//!
//! It does not repeat requests. The one exception is a request of which not a byte has left, because the pooled connection
//! it was meant for had been closed before: that one goes out on another connection, as every HTTP client does it.

mod report;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use report::{Failure, FailureKind, Report};

type Connection = SendRequest<Full<Bytes>>;

/// What to ask, how often, and how.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where the proxy listens.
    pub address: SocketAddr,
    /// The host that is asked for.
    pub host: String,
    /// What is asked for.
    pub path: String,
    /// How many requests a second.
    pub per_second: u32,
    /// Every n-th request opens a connection of its own and closes it; 0 is none.
    pub fresh_every: usize,
    /// Every n-th request is a POST of [`Load::POSTED`] bytes to `/orders`; 0 is none.
    pub post_every: usize,
    /// How long an answer may take.
    pub patience: Duration,
}

impl Load {
    /// The size of a POST's body.
    pub const POSTED: usize = 4096;
    /// More unanswered requests than this, and the generator gives up on those that would come next.
    const MOST_OPEN: usize = 5000;
    /// A pooled connection that has rested this long is closed rather than used.
    const LONGEST_REST: Duration = Duration::from_secs(1);

    /// `per_second` requests a second for `/` of `host`, a fifth of them on connections of their own, a tenth of them POSTs.
    pub fn on(address: SocketAddr, host: impl Into<String>, per_second: u32) -> Self {
        let path = "/".to_owned();
        Self { address, host: host.into(), path, per_second, fresh_every: 5, post_every: 10, patience: Duration::from_secs(30) }
    }

    /// The same, without POSTs.
    #[must_use]
    pub fn only_get(self) -> Self {
        Self { post_every: 0, ..self }
    }

    /// The same, for another page.
    #[must_use]
    pub fn of_page(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }

    /// Begins. Dropping what comes back ends it.
    pub fn start(self) -> RunningLoad {
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            load: self,
            began: Instant::now(),
            open: AtomicUsize::new(0),
            pool: Mutex::new(Vec::new()),
            report: Mutex::new(Report::default()),
        });
        let ticker = tokio::spawn(tick(Arc::clone(&shared), stop.clone()));
        RunningLoad { shared, stop, ticker: Some(ticker) }
    }
}

/// A load that runs until it is stopped.
#[derive(Debug)]
pub struct RunningLoad {
    shared: Arc<Shared>,
    stop: CancellationToken,
    ticker: Option<JoinHandle<()>>,
}

impl RunningLoad {
    /// What has happened so far.
    pub fn so_far(&self) -> Report {
        self.shared.report().clone()
    }

    /// How long it has lasted.
    pub fn elapsed(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// Sends nothing more, waits for the answers that are still due, and reports.
    pub async fn stop(mut self) -> Report {
        self.stop.cancel();
        if let Some(ticker) = self.ticker.take() {
            // It ends by itself: every request has a deadline.
            ticker.await.expect("the load generator itself failed");
        }
        let mut report = self.so_far();
        report.lasted = self.shared.began.elapsed();
        report
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(ticker) = self.ticker.take() {
            ticker.abort();
        }
    }
}

#[derive(Debug)]
struct Shared {
    load: Load,
    began: Instant,
    open: AtomicUsize,
    pool: Mutex<Vec<(Connection, Instant)>>,
    report: Mutex<Report>,
}

/// Sends requests at their appointed times.
async fn tick(shared: Arc<Shared>, stop: CancellationToken) {
    let requests = TaskTracker::new();
    for number in 0_usize.. {
        let due = shared.began + Duration::from_secs_f64(number as f64 / f64::from(shared.load.per_second));
        tokio::select! {
            () = sleep_until(due) => {}
            () = stop.cancelled() => break,
        }
        let task = Arc::clone(&shared);
        requests.spawn(async move { task.one(number, due).await });
    }
    requests.close();
    requests.wait().await;
}

impl Shared {
    fn report(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn one(&self, number: usize, due: Instant) {
        let every = |n: usize| n > 0 && number % n == n - 1;
        let (fresh, post) = (every(self.load.fresh_every), every(self.load.post_every));
        let outcome = if self.open.fetch_add(1, Ordering::Relaxed) >= Load::MOST_OPEN {
            Err((FailureKind::Flooded, format!("{} requests are still unanswered", Load::MOST_OPEN)))
        } else {
            let patience = self.load.patience;
            timeout(patience, self.ask(fresh, post))
                .await
                .unwrap_or_else(|_| Err((FailureKind::Timeout, format!("no answer within {patience:?}"))))
        };
        self.open.fetch_sub(1, Ordering::Relaxed);
        let at = due.duration_since(self.began);
        let mut report = self.report();
        match outcome {
            Ok(text) => report.answered(text, at, due.elapsed()),
            Err((kind, details)) => {
                let connection = if fresh { "fresh" } else { "kept" };
                let method = if post { "POST" } else { "GET" };
                report.failed(Failure { at, kind, details: format!("{method} on a {connection} connection: {details}") });
            }
        }
    }

    fn request(&self, fresh: bool, post: bool) -> Request<Full<Bytes>> {
        let (path, body) = match post {
            true => ("/orders", Bytes::from(vec![b'x'; Load::POSTED])),
            false => (self.load.path.as_str(), Bytes::new()),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = if post { http::Method::POST } else { http::Method::GET };
        *request.uri_mut() = path.parse().expect("a path");
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.load.host.parse().expect("a host"));
        if fresh {
            headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        request
    }

    /// One request and its whole answer, as the text that tells answers apart.
    async fn ask(&self, fresh: bool, post: bool) -> Result<String, (FailureKind, String)> {
        let mut request = self.request(fresh, post);
        let (answer, connection) = loop {
            let pooled = if fresh { None } else { self.pooled() };
            let used = pooled.is_some();
            let mut connection = match pooled {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            match connection.try_send_request(request).await {
                Ok(answer) => break (answer, connection),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if used => request = unsent,
                    _ => return Err((FailureKind::Reset, describe(error.error()))),
                },
            }
        };
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| (FailureKind::Truncated, describe(&error)))?.to_bytes();
        let text = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
        if !status.is_success() {
            return Err((FailureKind::Status(status.as_u16()), text));
        }
        if post && !text.contains(&format!("\"bytes\":{}", Load::POSTED)) {
            return Err((FailureKind::Truncated, format!("the app saw another body than was sent: {text}")));
        }
        if !fresh {
            self.pool().push((connection, Instant::now()));
        }
        Ok(text)
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.pool.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The connection that was used last, so that the others may grow old and be closed.
    fn pooled(&self) -> Option<Connection> {
        let mut pool = self.pool();
        pool.retain(|(connection, since)| !connection.is_closed() && since.elapsed() < Load::LONGEST_REST);
        let ready = pool.iter().rposition(|(connection, _)| connection.is_ready())?;
        Some(pool.remove(ready).0)
    }

    async fn connect(&self) -> Result<Connection, (FailureKind, String)> {
        let stream = TcpStream::connect(self.load.address).await.map_err(|error| (FailureKind::Refused, error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| (FailureKind::Refused, error.to_string()))?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| (FailureKind::Refused, describe(&error)))?;
        // It ends when its sender is dropped or the other side closes; what went wrong reaches the sender as well.
        tokio::spawn(async move { drop(driver.await) });
        Ok(sender)
    }
}

/// An error with its causes, on one line.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers requests one after the other: every tenth with `bad`, if anything, and then hangs up.
    async fn backend(bad: Option<&'static str>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let mut buffer = [0; 8192];
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        if count.fetch_add(1, Ordering::Relaxed) % 10 == 9 {
                            stream.write_all(bad.unwrap_or_default().as_bytes()).await.unwrap();
                            return;
                        }
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    }
                });
            }
        });
        address
    }

    async fn fifty(address: SocketAddr) -> Report {
        let running = Load::on(address, "shop.localhost", 500).only_get().start();
        timeout(Duration::from_secs(20), async {
            while running.so_far().succeeded() + running.so_far().failed_count() < 50 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        running.stop().await
    }

    #[tokio::test]
    async fn a_server_error_is_counted_and_kept() {
        let report = fifty(backend(Some("HTTP/1.1 503 Gone\r\ncontent-length: 4\r\n\r\nbusy")).await).await;
        assert!(report.failures[&FailureKind::Status(503)] >= 5, "{report}");
        assert!(report.examples[0].details.contains("busy"), "{report}");
        assert!(report.latency(0.5) <= report.latency(0.99) && report.latency(1.0) > Duration::ZERO);
    }

    #[tokio::test]
    async fn a_connection_that_breaks_off_is_counted() {
        let report = fifty(backend(None).await).await;
        assert!(report.failures[&FailureKind::Reset] >= 5, "{report}");
    }

    #[tokio::test]
    async fn half_an_answer_is_no_answer() {
        let report = fifty(backend(Some("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nha")).await).await;
        assert!(report.failures[&FailureKind::Truncated] >= 5, "{report}");
    }

    #[tokio::test]
    async fn nobody_listening_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let report = fifty(address).await;
        assert_eq!(report.failures.keys().collect::<Vec<_>>(), [&FailureKind::Refused]);
        assert!(std::panic::catch_unwind(|| report.lost_nothing()).is_err());
    }
}
