//! A target that keeps every byte it is sent, and reads them as strictly as can be.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncReadExt;

use super::oracle::{self, Message, Read, Side};
use crate::backend::{Backend, Conn};

/// What has come.
#[derive(Debug, Default)]
pub struct Log {
    pub messages: Vec<Message>,
    /// What could be read in two ways, with the bytes.
    pub complaints: Vec<String>,
}

/// The target.
pub struct Recorder {
    pub backend: Backend,
    log: Arc<Mutex<Log>>,
    open: Arc<AtomicUsize>,
}

impl Recorder {
    /// Answers each request by its target, its `X-Probe` and the length of its body.
    pub async fn start() -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let open = Arc::new(AtomicUsize::new(0));
        let (kept, count) = (Arc::clone(&log), Arc::clone(&open));
        let backend = Backend::talking(move |conn| {
            count.fetch_add(1, Ordering::SeqCst);
            let (log, open) = (Arc::clone(&kept), Arc::clone(&count));
            async move {
                record(conn, &log).await;
                open.fetch_sub(1, Ordering::SeqCst);
            }
        })
        .await;
        Self { backend, log, open }
    }

    /// What has come since the last time.
    pub fn take(&self) -> Log {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

async fn record(mut conn: Conn, log: &Mutex<Log>) {
    loop {
        match oracle::read(&conn.buffer, Side::Proxy) {
            Err(complaint) => {
                let bytes = String::from_utf8_lossy(&conn.buffer).into_owned();
                log.lock().unwrap().complaints.push(format!("{complaint} in {bytes:?}"));
                return;
            }
            Ok(Read::Whole(message, length)) => {
                conn.buffer.drain(..length);
                let text = format!("{}|{}|{}", message.target, message.first("x-probe").unwrap_or("-"), message.body.len());
                let is_head = message.method == "HEAD";
                log.lock().unwrap().messages.push(message);
                let body = if is_head { "" } else { &text };
                conn.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", text.len())).await;
            }
            Ok(Read::Partial) => match conn.stream.read_buf(&mut conn.buffer).await {
                Ok(count) if count > 0 => (),
                _ => return,
            },
        }
    }
}
