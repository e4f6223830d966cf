//! Connections that say nothing, too little or too much.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::host::{Answer, Host, PATIENCE, possible};

fn connect(server: &Host, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(sent).unwrap();
    stream
}

/// Reads until the server closes.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("it is not closed: {error}"),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

#[test]
fn whoever_begins_many_requests_and_ends_none_keeps_nobody_out() {
    if !possible() {
        return;
    }
    // From one address eight of 32, however many are tried; the others are told at once.
    let server = Host::start(&["--connections", "32", "--trusted-proxies", "127.0.0.2"]);
    let mut begun: Vec<TcpStream> = (0..40).map(|_| connect(&server, b"GET /health HT")).collect();
    let told: Vec<String> = begun.iter_mut().skip(8).map(rest).collect();
    assert!(
        told.iter().all(|told| told.starts_with("HTTP/1.1 429 ") && told.contains("8 connections from one address")),
        "{told:?}"
    );
    // Who comes by another way is served meanwhile.
    let other = socket_from([127, 0, 0, 2], &server);
    assert_eq!(health(other), 200);
    // Those that began are told too, when they have had their time, and then there is room again.
    for one in begun.iter_mut().take(8) {
        let told = rest(one);
        assert!(told.starts_with("HTTP/1.1 408 ") && told.contains("did not arrive within 5 s"), "{told}");
    }
    assert_eq!(server.get("/health").status, 200);
}

/// A connection from an address of this machine.
fn socket_from(address: [u8; 4], server: &Host) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &std::net::SocketAddr::from((address, 0))).unwrap();
    connect(&socket, &server.address).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn health(mut stream: TcpStream) -> u16 {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    Answer::read(&mut stream).status
}

#[test]
fn a_head_that_stops_is_not_waited_for_on_a_used_connection_either() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    let mut stream = connect(&server, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (mut read, mut room) = (String::new(), [0; 4096]);
    while !read.ends_with('}') {
        let bytes = stream.read(&mut room).unwrap();
        assert!(bytes > 0, "{read}");
        read.push_str(&String::from_utf8_lossy(&room[..bytes]));
    }
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: lo").unwrap();
    let told = rest(&mut stream);
    assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
}

#[test]
fn open_websockets_are_connections() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--connections", "8", "--trusted-proxies", "127.0.0.2"]);
    let ask =
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let open = |sent: &[u8]| {
        let mut stream = connect(&server, sent);
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        (String::from_utf8_lossy(&start).into_owned(), stream)
    };
    let sockets = [open(ask), open(ask)];
    assert!(sockets.iter().all(|(start, _)| start == "HTTP/1.1 101"), "{sockets:?}");
    let (third, _) = open(ask);
    assert_eq!(third, "HTTP/1.1 429");
    drop(sockets);
    crate::host::until("there is room again", || (open(ask).0 == "HTTP/1.1 101").then_some(()));
}

#[test]
fn who_sends_too_much_can_read_why() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--max-body", "64KiB"]);
    let body = vec![b' '; 1 << 20];
    for path in ["/execute", "/batch", "/jobs"] {
        // All of it can be sent, and the connection is good for another request.
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = connect(&server, head.as_bytes());
        stream.write_all(&body).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let told = rest(&mut stream);
        assert!(told.starts_with("HTTP/1.1 413 ") && told.contains("larger than 65536 bytes"), "{path}: {told}");
        assert!(told.contains("HTTP/1.1 200 ") && told.ends_with('}'), "{path}: {told}");
    }
    // Who asks first is told without sending it.
    let ask = "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\
               Content-Length: 8388608\r\nConnection: close\r\n\r\n";
    let told = rest(&mut connect(&server, ask.as_bytes()));
    assert!(told.starts_with("HTTP/1.1 413 ") && !told.contains("100 Continue"), "{told}");
}
