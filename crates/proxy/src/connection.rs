//! One client connection: from its first byte to its end, whatever it speaks.
//!
//! While nothing is there to be read, it is a socket and a few numbers: no buffers, no heads.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use coracle_proxy_http::{Arrival, parse_proxy_header};
use tokio::net::TcpStream;

use crate::buffer::{Input, SMALL};
use crate::deadline::Deadline;
use crate::exchange::{self, Caller, Outcome};
use crate::h1::H1Client;
use crate::h2;
use crate::heads::Heads;
use crate::listener::Peer;
use crate::refusal::Refusal;
use crate::stream::ClientStream;
use crate::tls::{Protocol, Session};
use crate::tunnel::{self, Tunnel};
use crate::worker::Counted;

/// Serves a connection until it ends, by itself or because a deadline has passed.
pub(crate) async fn serve(stream: TcpStream, peer: Peer, counted: Counted) {
    let tunnel = {
        let _enrolled = poll_fn(|cx| Poll::Ready(counted.enrol(cx.waker()))).await;
        let deadline = Deadline::new();
        let mut work = pin!(talk(stream, &peer, &counted, &deadline));
        deadline.watch(work.as_mut()).await
    };
    if let Some(tunnel) = tunnel {
        // What HTTP has needed is given back: a tunnel may last for days.
        tokio::spawn(tunnel::run(tunnel, counted));
    }
}

async fn talk(mut stream: TcpStream, peer: &Peer, counted: &Counted, deadline: &Deadline) -> Option<Tunnel> {
    let plane = &counted.seat.plane;
    let mut input = Input::default();
    let mut from = peer.address.ip();
    if peer.listener.proxy_protocol.as_ref().is_some_and(|trust| trust.covers(from)) {
        deadline.set(plane.limits.header_read);
        from = read_proxy_header(&mut stream, &mut input, deadline).await?.unwrap_or(from);
    }
    let Ok(admitted) = plane.clients.admit(from.to_canonical()) else {
        tracing::debug!(client = %from, "a client has too many connections");
        return None;
    };
    let arrival = Arrival::new(from, peer.listener.tls);
    let forwarding = plane.forwarding();
    let caller = Caller { seat: &counted.seat, peer, arrival: &arrival, forwarding: &forwarding, server_name: None, deadline };
    let tunnel = if let (Some(tls), true) = (&plane.tls, peer.listener.tls) {
        deadline.set(plane.limits.header_read);
        let counts = (&plane.metrics.handshakes, counted.seat.index);
        let session = Box::pin(tls.accept(stream, input, deadline, counts)).await?;
        speak_tls(session, caller, counted).await
    } else {
        let mut client = H1Client::new(ClientStream::Plain(stream), &plane.limits);
        client.wire.input = input;
        speak_h1(client, &caller, counted).await
    };
    // It goes on being one of the client's connections.
    tunnel.map(|tunnel| Tunnel { admitted, ..tunnel })
}

/// What was agreed on during the handshake.
async fn speak_tls(session: Session, caller: Caller<'_>, counted: &Counted) -> Option<Tunnel> {
    let Session { stream, protocol, server_name } = session;
    let caller = Caller { server_name: server_name.as_deref(), ..caller };
    match protocol {
        Protocol::Http1 => speak_h1(H1Client::new(stream, &caller.seat.plane.limits), &caller, counted).await,
        Protocol::Http2 => {
            Box::pin(h2::serve(stream, Vec::new(), &caller, counted)).await;
            None
        }
    }
}

/// Whom the PROXY header names; nothing if there is none in time or it is malformed.
async fn read_proxy_header(stream: &mut TcpStream, input: &mut Input, deadline: &Deadline) -> Option<Option<std::net::IpAddr>> {
    let header = poll_fn(|cx| {
        loop {
            match parse_proxy_header(input.filled()) {
                Ok(Some(header)) => return Poll::Ready(Some(header)),
                Ok(None) => (),
                Err(_) => return Poll::Ready(None),
            }
            match input.poll_fill(cx, stream, SMALL, SMALL) {
                Poll::Ready(Ok(count)) if count > 0 => (),
                Poll::Pending if !deadline.has_passed() => return Poll::Pending,
                _ => return Poll::Ready(None),
            }
        }
    });
    let header = header.await?;
    input.consume(header.len);
    Some(header.addresses.map(|(source, _)| source.ip()))
}

/// One request after the other; or HTTP/2, if that is what the first one turns out to be.
async fn speak_h1(mut client: H1Client, caller: &Caller<'_>, counted: &Counted) -> Option<Tunnel> {
    let mut is_first = true;
    loop {
        caller.deadline.set(caller.seat.plane.limits.idle);
        let head = client.next(caller.deadline).await?;
        if std::mem::take(&mut is_first) && client.wire.input.filled().starts_with(h2::PREFACE_HEAD) {
            let before = client.wire.input.into_rest();
            // Apart, so that connections of HTTP/1.1 do not carry its size.
            Box::pin(h2::serve(client.wire.stream, before, caller, counted)).await;
            return None;
        }
        let mut heads = Heads::take();
        let parsed = match head.and_then(|length| client.read(length, &mut heads.pair().request)) {
            Ok(parsed) => parsed,
            Err(error) => {
                client.give_up();
                exchange::refuse(caller, heads.pair(), &Refusal::Malformed(error), &mut client).await;
                client.close(caller.deadline).await;
                return None;
            }
        };
        match exchange::answer(caller, heads.pair(), &parsed, &mut client).await {
            Outcome::Answered if client.can_go_on() => (),
            Outcome::Answered => {
                client.close(caller.deadline).await;
                return None;
            }
            Outcome::Broken => return None,
            Outcome::Changed { server, from_server, upgraded, passage } => {
                let from_client = client.wire.input.into_rest();
                return Some(Tunnel {
                    client: client.wire.stream,
                    server,
                    from_client,
                    from_server,
                    upgraded,
                    passage,
                    admitted: None,
                });
            }
        }
    }
}
