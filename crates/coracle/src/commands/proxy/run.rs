//! `coracle proxy` without a question: the data plane. The server starts it, and it outlives the server; or it stands alone.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use coracle_model::Span;
use coracle_proxy::certs::{GivenFiles, check_given};
use coracle_proxy::{AccessLog, EncodedCharacters, ListenerOptions, ProxyOptions, StartError, Trust};

use super::config_file::{self, ConfigFile};
use crate::acme::AcmeArguments;
use crate::commands::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::log;

/// How one begins.
const EXAMPLE: &str = "coracle proxy --config proxy.toml";

/// What it is run with.
#[derive(Debug, Args)]
pub(super) struct Running {
    /// Serve by this file alone; it is watched, and one with a mistake is refused
    #[arg(long, value_name = "FILE", conflicts_with = "acme")]
    config: Option<PathBuf>,
    /// Look whether the file can be served by, and do nothing else
    #[arg(long, requires = "config")]
    check: bool,
    /// Where to take requests; may be given more than once
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "config")]
    http: Vec<SocketAddr>,
    /// Where to take requests over TLS; may be given more than once
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "config")]
    https: Vec<SocketAddr>,
    /// Where to take requests, under a name by which routes can ask for it; `tls` and `proxy-protocol=CIDR` may follow
    ///
    /// `--http ADDR` is `--listen http=ADDR`, and `--https ADDR` is `--listen https=ADDR,tls`. With `proxy-protocol`,
    /// connections from those addresses have to begin with the PROXY header (v1 or v2).
    #[arg(long, value_name = "NAME=ADDR:PORT[,...]", value_parser = listener, conflicts_with = "config")]
    listen: Vec<ListenerOptions>,
    /// Believe this address or range in what it says about its clients (X-Forwarded-For and its like)
    #[arg(long, value_name = "CIDR", conflicts_with = "config")]
    trust: Vec<String>,
    /// Pass this field on to apps although a client's Connection field names it; may be given more than once
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    connection_field: Vec<String>,
    /// Tell apps the client's scheme in X-Scheme and X-Forwarded-Scheme as well
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set, conflicts_with = "config")]
    forwarded_scheme: bool,
    /// Add the client to the X-Forwarded-For of a proxy that is believed
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, conflicts_with = "config")]
    forwarded_append: bool,
    /// Tell apps this name in X-Forwarded-Server
    #[arg(long, value_name = "NAME", value_parser = forwarded_server, conflicts_with = "config")]
    forwarded_server: Option<String>,
    /// The percent-encoded characters that paths may have, of slash, backslash, nul, semicolon, percent, question-mark, hash;
    /// all but nul if not given
    #[arg(long, value_name = "LIST", value_parser = encoded_characters, conflicts_with = "config")]
    encoded_characters: Option<EncodedCharacters>,
    #[command(flatten)]
    acme: AcmeArguments,
    /// A certificate of your own: a chain and its key, as PEM files; may be given more than once
    #[arg(long, value_name = "CERT:KEY", value_parser = given, conflicts_with = "config")]
    certificate: Vec<GivenFiles>,
    /// Where metrics are served to whoever can connect, as plain HTTP; the control socket has them anyway
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "config")]
    metrics: Option<SocketAddr>,
    /// The Unix socket on which it is told its table
    #[arg(long, value_name = "PATH")]
    control_socket: Option<PathBuf>,
    /// Where it keeps its last table and certificates
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Write a line of JSON per request to this file; `-` is standard output
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    access_log: Option<PathBuf>,
    /// How long open requests may take to end when it stops or is replaced
    #[arg(long, value_name = "TIME", default_value = "30s", conflicts_with = "config")]
    drain: Span,
    /// Threads that serve requests
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256), conflicts_with = "config")]
    workers: u16,
}

/// Does it. Not in a runtime: the proxy makes its own.
pub(super) fn run(arguments: Running, context: &Context) -> Result<ExitCode, Failure> {
    log::to_standard_error(&context.output);
    match &arguments.config {
        Some(path) => run_by_file(path.clone(), arguments, context),
        None => run_by_arguments(arguments),
    }
}

fn run_by_file(path: PathBuf, arguments: Running, context: &Context) -> Result<ExitCode, Failure> {
    let config = config_file::read(&path).map_err(Failure::usage)?;
    if arguments.check {
        let (listeners, routes) = (config.listeners.len(), config.table.routes.len());
        context.output.tell(format!("{} is good: listeners: {listeners}, routes: {routes}", path.display()));
        return Ok(DONE);
    }
    let options = config_file::options(&config, arguments.control_socket, arguments.state_dir).map_err(Failure::usage)?;
    match coracle_proxy::run_with(options, ConfigFile::watch(path.clone(), config.clone())) {
        Ok(()) => Ok(DONE),
        Err(StartError::FirstTable(error)) => Err(Failure::usage(config_file::explain(&path, &config, &error))),
        Err(error) => Err(not_started(&error)),
    }
}

/// What is missing on the command line of a proxy that has no file.
fn missing(what: &str) -> Failure {
    let failure = Failure::usage(format!("what to serve by? Without --config, {what} needed"));
    failure.hint(format!("a proxy that stands alone is started by `{EXAMPLE}`"))
}

fn run_by_arguments(arguments: Running) -> Result<ExitCode, Failure> {
    if arguments.http.is_empty() && arguments.https.is_empty() && arguments.listen.is_empty() {
        return Err(missing("--http, --https or --listen, --control-socket and --state-dir are"));
    }
    let control_socket = arguments.control_socket.ok_or_else(|| missing("--control-socket is"))?;
    let state_dir = arguments.state_dir.ok_or_else(|| missing("--state-dir is"))?;
    let mut options = ProxyOptions::new(arguments.http, control_socket, state_dir);
    options.listeners.extend(arguments.https.into_iter().map(ListenerOptions::https));
    options.listeners.extend(arguments.listen);
    options.forwarding.trust = Trust::parse(&arguments.trust).map_err(|error| Failure::usage(format!("--trust: {error}")))?;
    options.forwarding.scheme_fields = arguments.forwarded_scheme;
    options.forwarding.append_peer = arguments.forwarded_append;
    options.forwarding.server = arguments.forwarded_server.map(String::into_boxed_str);
    options.connection_fields = arguments.connection_field;
    options.encoded_characters = arguments.encoded_characters.unwrap_or_default();
    for given in &arguments.certificate {
        check_given(given).map_err(|error| Failure::usage(format!("--certificate: {error}")))?;
    }
    options.certificates.given = arguments.certificate;
    options.certificates.acme = arguments.acme.of_proxy();
    options.metrics = arguments.metrics;
    options.drain = arguments.drain.duration();
    options.workers = arguments.workers.into();
    options.access_log = match arguments.access_log {
        None => AccessLog::Off,
        Some(path) if path.as_os_str() == "-" => AccessLog::Stdout,
        Some(path) => AccessLog::File(path),
    };
    coracle_proxy::run(options).map(|()| DONE).map_err(|error| not_started(&error))
}

fn not_started(error: &StartError) -> Failure {
    Failure::failed(format!("the proxy does not start: {error}"))
}

/// Reads the names of characters, separated by commas; nothing for none.
fn encoded_characters(text: &str) -> Result<EncodedCharacters, String> {
    let names = text.split(',').filter(|name| !name.is_empty());
    EncodedCharacters::named(names)
        .map_err(|name| format!("{name:?} is none of slash, backslash, nul, semicolon, percent, question-mark, hash"))
}

/// Reads what can be the value of a field.
fn forwarded_server(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err("expected printable ASCII characters without spaces".to_owned()) }
}

/// Reads `CERT:KEY`.
fn given(text: &str) -> Result<GivenFiles, String> {
    let (cert, key) =
        text.split_once(':').filter(|(cert, key)| !cert.is_empty() && !key.is_empty()).ok_or("expected CERT:KEY")?;
    Ok(GivenFiles { cert: cert.into(), key: key.into(), default: false })
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
