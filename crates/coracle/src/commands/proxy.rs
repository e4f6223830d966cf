//! `coracle proxy`: the data plane. The server starts it, and it outlives the server.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use coracle_model::Span;
use coracle_proxy::{AccessLog, EncodedCharacters, ListenerOptions, ProxyOptions, Trust};

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::log;

/// Run the proxy, which brings requests to the apps (the server starts it by itself)
///
/// It serves by the last table it was told, whether a server runs or not. A second one takes over the sockets of the first
/// without refusing a connection. SIGTERM lets open requests end and stops it; SIGHUP opens the access log again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle proxy --http 0.0.0.0:80 --control-socket /run/coracle/proxy.sock --state-dir /var/lib/coracle/proxy")]
pub(crate) struct Arguments {
    /// Where to take requests; may be given more than once
    #[arg(long, value_name = "ADDR:PORT", required_unless_present_any = ["https", "listen"])]
    http: Vec<SocketAddr>,
    /// Where to take requests over TLS; may be given more than once
    #[arg(long, value_name = "ADDR:PORT")]
    https: Vec<SocketAddr>,
    /// Where to take requests, under a name by which routes can ask for it; `tls` and `proxy-protocol=CIDR` may follow
    ///
    /// `--http ADDR` is `--listen http=ADDR`, and `--https ADDR` is `--listen https=ADDR,tls`. With `proxy-protocol`,
    /// connections from those addresses have to begin with the PROXY header (v1 or v2).
    #[arg(long, value_name = "NAME=ADDR:PORT[,...]", value_parser = listener)]
    listen: Vec<ListenerOptions>,
    /// Believe this address or range in what it says about its clients (X-Forwarded-For and its like)
    #[arg(long, value_name = "CIDR")]
    trust: Vec<String>,
    /// Pass this field on to apps although a client's Connection field names it; may be given more than once
    #[arg(long, value_name = "NAME")]
    connection_field: Vec<String>,
    /// Tell apps the client's scheme in X-Scheme and X-Forwarded-Scheme as well
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    forwarded_scheme: bool,
    /// Add the client to the X-Forwarded-For of a proxy that is believed
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    forwarded_append: bool,
    /// The percent-encoded characters that paths may have, of slash, backslash, nul, semicolon, percent, question-mark, hash;
    /// all but nul if not given
    #[arg(long, value_name = "LIST", value_parser = encoded_characters)]
    encoded_characters: Option<EncodedCharacters>,
    /// The Unix socket on which it is told its table
    #[arg(long, value_name = "PATH")]
    control_socket: PathBuf,
    /// Where it keeps its last table
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Write a line of JSON per request to this file; `-` is standard output
    #[arg(long, value_name = "PATH")]
    access_log: Option<PathBuf>,
    /// How long open requests may take to end when it stops or is replaced
    #[arg(long, value_name = "TIME", default_value = "30s")]
    drain: Span,
    /// Threads that serve requests
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
}

/// Does it. Not in a runtime: the proxy makes its own.
pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    log::to_standard_error(&context.output);
    let mut options = ProxyOptions::new(arguments.http, arguments.control_socket, arguments.state_dir);
    options.listeners.extend(arguments.https.into_iter().map(ListenerOptions::https));
    options.listeners.extend(arguments.listen);
    options.forwarding.trust = Trust::parse(&arguments.trust).map_err(|error| Failure::usage(format!("--trust: {error}")))?;
    options.forwarding.scheme_fields = arguments.forwarded_scheme;
    options.forwarding.append_peer = arguments.forwarded_append;
    options.connection_fields = arguments.connection_field;
    options.encoded_characters = arguments.encoded_characters.unwrap_or_default();
    options.drain = arguments.drain.duration();
    options.workers = arguments.workers.into();
    options.access_log = match arguments.access_log {
        None => AccessLog::Off,
        Some(path) if path.as_os_str() == "-" => AccessLog::Stdout,
        Some(path) => AccessLog::File(path),
    };
    coracle_proxy::run(options).map(|()| DONE).map_err(|error| Failure::failed(format!("the proxy does not start: {error}")))
}

/// Reads the names of characters, separated by commas; nothing for none.
fn encoded_characters(text: &str) -> Result<EncodedCharacters, String> {
    let mut allowed = EncodedCharacters::strict();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        *match name {
            "slash" => &mut allowed.slash,
            "backslash" => &mut allowed.backslash,
            "nul" => &mut allowed.nul,
            "semicolon" => &mut allowed.semicolon,
            "percent" => &mut allowed.percent,
            "question-mark" => &mut allowed.question_mark,
            "hash" => &mut allowed.hash,
            _ => return Err(format!("{name:?} is none of slash, backslash, nul, semicolon, percent, question-mark, hash")),
        } = true;
    }
    Ok(allowed)
}

/// Reads `NAME=ADDR:PORT[,tls][,proxy-protocol=CIDR]...`.
fn listener(text: &str) -> Result<ListenerOptions, String> {
    let (name, rest) = text.split_once('=').ok_or("expected NAME=ADDR:PORT")?;
    let mut parts = rest.split(',');
    let address = parts.next().unwrap_or_default();
    let address = address.parse().map_err(|_invalid| format!("{address:?} is not an address with a port"))?;
    let mut listener = ListenerOptions { name: name.to_owned(), ..ListenerOptions::http(address) };
    let mut ranges = Vec::new();
    for part in parts {
        match part.split_once('=') {
            None if part == "tls" => listener.tls = true,
            Some(("proxy-protocol", range)) => ranges.push(range),
            _ => return Err(format!("{part:?} is neither `tls` nor `proxy-protocol=CIDR`")),
        }
    }
    if !ranges.is_empty() {
        listener.proxy_protocol = Some(Trust::parse(ranges).map_err(|error| error.to_string())?);
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn listeners_are_read() {
        let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
        assert_eq!(listener("http=127.0.0.1:80").unwrap(), ListenerOptions::http(address));
        let edge = listener("edge=127.0.0.1:80,tls,proxy-protocol=10.0.0.0/8,proxy-protocol=::1").unwrap();
        assert!(edge.tls && edge.name == "edge");
        assert_eq!(edge.proxy_protocol, Some(Trust::parse(["10.0.0.0/8", "::1"]).unwrap()));
        for bad in ["127.0.0.1:80", "x=localhost", "x=127.0.0.1:80,ssl", "x=127.0.0.1:80,proxy-protocol=all"] {
            assert!(listener(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn encoded_characters_are_named() {
        assert_eq!(encoded_characters(""), Ok(EncodedCharacters::strict()));
        let all_but_nul = encoded_characters("slash,backslash,semicolon,percent,question-mark,hash");
        assert_eq!(all_but_nul, Ok(EncodedCharacters::default()));
        assert!(encoded_characters("slash,space").is_err());
    }
}
