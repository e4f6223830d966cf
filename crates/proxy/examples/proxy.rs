//! The proxy as a process of its own: `proxy ADDRESS CONTROL_SOCKET STATE_DIR DRAIN_MS [ACCESS_LOG]`. The tests start it.

use std::time::Duration;

use coracle_proxy::{AccessLog, ProxyOptions, run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: proxy ADDRESS CONTROL_SOCKET STATE_DIR DRAIN_MS [ACCESS_LOG]");
    let mut options = ProxyOptions::new(vec![next()?.parse()?], next()?.into(), next()?.into());
    options.drain = Duration::from_millis(next()?.parse()?);
    if let Some(path) = arguments.next() {
        options.access_log = AccessLog::File(path.into());
    }
    Ok(run(options)?)
}
