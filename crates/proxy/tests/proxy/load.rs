//! Everything at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::env::{Env, Wire, ids};

/// Clients that count everything but 200.
pub struct Load {
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    pub answered: Arc<AtomicUsize>,
    failures: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Load {
    /// Half of the clients keep their connections, the other half open one per request; every fourth request is an upload.
    pub fn on(http: std::net::SocketAddr, clients: usize) -> Self {
        let load = Self { stop: CancellationToken::new(), tasks: Vec::new(), answered: Arc::default(), failures: Arc::default() };
        let tasks = (0..clients).map(|number| {
            let (stop, answered, failures) = (load.stop.clone(), load.answered.clone(), load.failures.clone());
            tokio::spawn(async move {
                let mut kept: Option<Wire> = None;
                let mut round = number;
                while !stop.is_cancelled() {
                    round += 1;
                    let wire = match kept.take() {
                        Some(wire) => Ok(wire),
                        None => Wire::try_to(http).await,
                    };
                    let result = match wire {
                        Ok(wire) => one(wire, round % 4 == 0).await,
                        Err(error) => Err(format!("connecting: {error}")),
                    };
                    match result {
                        Ok(wire) => {
                            answered.fetch_add(1, Ordering::SeqCst);
                            kept = wire.filter(|_| number % 2 == 0);
                        }
                        Err(failure) => failures.lock().unwrap().push(failure),
                    }
                }
            })
        });
        let tasks = tasks.collect();
        Self { tasks, ..load }
    }

    pub async fn end(self) -> usize {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        let failures = self.failures.lock().unwrap();
        let answered = self.answered.load(Ordering::SeqCst);
        assert!(failures.is_empty(), "{} of {answered} failed: {:?}", failures.len(), &failures[..failures.len().min(5)]);
        answered
    }
}

/// One request; the connection, if it may be used again.
async fn one(mut wire: Wire, upload: bool) -> Result<Option<Wire>, String> {
    let request = match upload {
        true => "POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        false => "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    };
    let answer = async {
        tokio::io::AsyncWriteExt::write_all(&mut wire.stream, request.as_bytes()).await?;
        wire.try_answer(false).await
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.map_err(|_| "no answer".to_owned())?;
    let answer = answer.map_err(|error| format!("upload={upload}: {error}"))?;
    if answer.status != 200 {
        return Err(format!("upload={upload}: {answer:?}"));
    }
    Ok((answer.header("connection") != Some("close")).then_some(wire))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_tables_under_load_lose_nothing() {
    let mut env = Env::new().await;
    let mut old = Backend::saying("0").await;
    env.serve(&[("v0", old.address)]).await;
    let load = Load::on(env.http(), 16);
    for version in 1..=200 {
        let new = Backend::saying("n").await;
        env.serve(&[(&format!("v{version}"), new.address)]).await;
        let drained = env.client().drain(&ids(&[&format!("v{}", version - 1)]), Duration::from_secs(10)).await.unwrap();
        assert_eq!(drained.cut_off, 0);
        // Killed for real: whoever still talks to it fails.
        drop(std::mem::replace(&mut old, new));
    }
    let answered = load.end().await;
    assert!(answered > 500, "{answered} requests are no load");
    let status = env.client().status().await.unwrap();
    assert_eq!((status.generation, status.targets.len()), (201, 1));
}
