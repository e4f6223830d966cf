//! The door of the part that receives requests, where parts have no port of their own choice: it stays where it is while what
//! stands behind it is replaced, and connections wait as long as nothing does.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a connection waits for something to stand behind the door.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is tried meanwhile.
const INTERVAL: Duration = Duration::from_millis(50);

/// What a browser is told when nothing comes.
const NOTHING: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 47\r\n\r\nNothing answers here; see what coracle dev says";

/// A listening socket and what stands behind it. Dropping it ends everything.
pub(crate) struct Front {
    address: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
    _doorkeeper: JoinSet<()>,
}

impl Front {
    /// Listens on a port of the loopback address.
    pub(crate) async fn open(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let (target, seen) = watch::channel(None);
        let mut doorkeeper = JoinSet::new();
        doorkeeper.spawn(keep(listener, seen));
        Ok(Self { address, target, _doorkeeper: doorkeeper })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections go there. Those that are open stay with whom they have.
    pub(crate) fn lead_to(&self, target: Option<SocketAddr>) {
        self.target.send_replace(target);
    }
}

async fn keep(listener: TcpListener, target: watch::Receiver<Option<SocketAddr>>) {
    // Connections end with the door.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(connections.spawn(pass(client, target.clone()))),
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be taken");
                    tokio::time::sleep(INTERVAL).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass(mut client: TcpStream, target: watch::Receiver<Option<SocketAddr>>) {
    let reached = tokio::time::timeout(PATIENCE, reach(target)).await;
    let ended = match reached {
        Ok(mut server) => copy_bidirectional(&mut client, &mut server).await.map(drop),
        Err(_) => client.write_all(NOTHING).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

async fn reach(mut target: watch::Receiver<Option<SocketAddr>>) -> TcpStream {
    loop {
        let now = *target.borrow_and_update();
        if let Some(address) = now
            && let Ok(server) = TcpStream::connect(address).await
        {
            return server;
        }
        // It may have been replaced, or be about to listen. Without the door itself this task is gone.
        tokio::time::timeout(INTERVAL, target.changed()).await.ok();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn connections_wait_until_something_stands_behind_the_door() {
        let front = Front::open(0).await.unwrap();
        let mut client = TcpStream::connect(front.address()).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        front.lead_to(Some(server.local_addr().unwrap()));
        let (mut taken, _) = server.accept().await.unwrap();
        let mut word = [0; 4];
        taken.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"ping");
        taken.write_all(b"pong").await.unwrap();
        drop(taken);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "pong");
    }

    #[test]
    fn the_length_that_is_told_is_the_length_of_the_text() {
        let text = std::str::from_utf8(NOTHING).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
