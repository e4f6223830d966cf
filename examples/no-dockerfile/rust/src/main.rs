//! A lamp that tells its version.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

const VERSION: &str = "v1";

/// Answers one request.
fn answer(mut guest: TcpStream) -> std::io::Result<()> {
    let (mut bytes, mut length) = ([0; 8192], 0);
    loop {
        let read = guest.read(&mut bytes[length..])?;
        length += read;
        let mut headers = [httparse::EMPTY_HEADER; 64];
        match httparse::Request::new(&mut headers).parse(&bytes[..length]) {
            Ok(httparse::Status::Complete(_)) => break,
            Ok(httparse::Status::Partial) if read > 0 => {}
            _ => return guest.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        }
    }
    let page = format!("{VERSION} by Rust\n");
    write!(guest, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}", page.len())
}

fn main() -> std::io::Result<()> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let door = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    for guest in door.incoming().flatten() {
        std::thread::spawn(move || answer(guest));
    }
    Ok(())
}
