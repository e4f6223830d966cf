//! Connections to targets, also to those whose queue of new connections is full for the moment.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the first connection is waited for; each further one is given twice as long.
const FIRST: Duration = Duration::from_millis(250);

/// Connects, for as long as the caller waits.
///
/// A kernel whose queue is full drops what asks for a connection, and the kernel here asks again after one second, then after two
/// more (RFC 6298, section 2). Small servers have queues of five. So after a quarter of a second a new connection is begun.
///
/// # Errors
///
/// Whatever the target or the network says; a silence is none.
pub(crate) async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let mut patience = FIRST;
    loop {
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(connected) => return connected,
            Err(_elapsed) => patience *= 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokio::net::TcpSocket;
    use tokio::time::Instant;

    use super::*;

    /// The local ports from which a connection to `address` is asked for and has not been answered (proc(5), `/proc/net/tcp`).
    fn asking(address: SocketAddr) -> Vec<String> {
        const SYN_SENT: &str = "02";
        let to = format!("0100007F:{:04X}", address.port());
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let columns = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        columns.filter(|socket| socket[2] == to && socket[3] == SYN_SENT).map(|socket| socket[1].to_owned()).collect()
    }

    #[tokio::test]
    async fn a_queue_that_was_full_is_tried_again() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queued.push(connected.unwrap());
        }
        let dialling = tokio::spawn(dial(address));
        let mut tried = HashSet::new();
        let patience = Instant::now() + Duration::from_secs(20);
        while tried.len() < 3 {
            assert!(Instant::now() < patience, "only {tried:?}");
            tried.extend(asking(address));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!dialling.is_finished(), "the queue is not full");
        let accepting = tokio::spawn(async move {
            let mut accepted = Vec::new();
            loop {
                accepted.push(listener.accept().await.unwrap());
            }
        });
        timeout(Duration::from_secs(20), dialling).await.unwrap().unwrap().unwrap();
        accepting.abort();
    }

    #[tokio::test]
    async fn a_refusal_is_told_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(dial(address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
