//! `make bench-proxy`: our proxy beside HAProxy and nginx, one worker each, in turn before the same origin.
//!
//! Where there are two processors or more, the proxies have the first one to themselves, and the clients and the origin the
//! others; `PIN=0` leaves it to the kernel. On a machine with two processors that others used as well, the ratios of
//! `cpu_us_c64` in six rounds lay 6 % and 17 % apart with this, and 29 % and 37 % without; a p99 without it is the scheduler's.
//! What was disturbed even so (the last column: the share of the time in which the proxy could have run, but something else
//! did) is measured again, up to twice, and the least disturbed counts.
//!
//! Figures are medians over the rounds, ratios are medians of the rounds' ratios. Processor time is what the kernel's
//! scheduler has counted (`schedstat`) for all threads and child processes of a proxy, divided by the requests that its
//! client has counted. `handshakes` is processor time per connection with a full TLS 1.3 handshake and one request, not a
//! rate: the client's half of a handshake costs more than the proxy's, so that a rate would measure the client.
//!
//! The last line is `RESULT {json}`.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use coracle_benches::contenders::Kind;
use coracle_benches::load::{Asking, How};
use coracle_benches::options::{number, wanted};
use coracle_benches::origin::LARGE;
use coracle_benches::processes::{Placement, open_many_files};
use coracle_benches::rounds::{Rounds, median};
use coracle_benches::scenarios::{Field, Sample};
use coracle_benches::scoreboard::{Goal, Scoreboard};

fn main() {
    open_many_files();
    // Before there are other threads, which have what this one has.
    let placement = Placement::choose(std::env::var("PIN").as_deref() != Ok("0"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(bench(placement));
}

/// A scenario in which all proxies are asked the same.
struct Scenario {
    name: &'static str,
    title: &'static str,
    asking: Asking,
    access_log: bool,
}

fn scenarios() -> Vec<Scenario> {
    let scenario = |name, title, how, tls, connections| {
        let path = if name == "large" { "/large" } else { "/" };
        Scenario { name, title, asking: Asking { how, tls, connections, path }, access_log: name == "c64_log" }
    };
    vec![
        scenario("c1", "1 connection, small body", How::KeepAlive, false, 1),
        scenario("c64", "64 connections, small body", How::KeepAlive, false, 64),
        scenario("c64_log", "the same, with an access log", How::KeepAlive, false, 64),
        scenario("tls", "64 connections over TLS", How::KeepAlive, true, 64),
        scenario("handshakes", "a TLS handshake for each request", How::NewConnections, true, 8),
        scenario("h2", "HTTP/2 over TLS, 8 × 8 streams", How::Http2(8), true, 8),
        scenario("large", "16 connections, 1 MB bodies", How::KeepAlive, false, 16),
    ]
}

/// Everything that was measured, by scenario and proxy, round by round.
#[derive(Default)]
struct Measured {
    samples: BTreeMap<(&'static str, Kind), Vec<Sample>>,
    values: BTreeMap<(&'static str, Kind), Vec<f64>>,
}

async fn bench(placement: Placement) {
    let directory = tempfile::tempdir().unwrap();
    let tls = scenarios().iter().any(|scenario| scenario.asking.tls && wanted(scenario.name));
    let field = Field::start(directory.path(), placement, tls, number("SECONDS", 3)).await;
    let (rounds, mut measured) = (number("ROUNDS", 5), Measured::default());
    // The round before the first warms everything up and is not counted.
    for round in 0..=rounds {
        let into = if round == 0 { &mut Measured::default() } else { &mut measured };
        run(&field, round as usize, into).await;
        println!("round {round} of {rounds}{}", if round == 0 { ": all are warm now" } else { "" });
    }
    if wanted("rss") {
        for kind in Kind::ALL {
            measured.values.insert(("rss_after", kind), vec![field.after_load(kind)]);
        }
    }
    print_samples(&measured);
    let board = scores(&measured);
    println!("{board}\nRESULT {}", board.json());
}

/// One round: who begins changes from round to round.
async fn run(field: &Field, round: usize, into: &mut Measured) {
    let mut turn = Kind::ALL;
    turn.rotate_left(round % Kind::ALL.len());
    for scenario in scenarios().iter().filter(|scenario| wanted(scenario.name)) {
        for kind in turn {
            let sample = field.measure(kind, &scenario.asking, scenario.access_log).await;
            into.samples.entry((scenario.name, kind)).or_default().push(sample);
        }
    }
    if wanted("routes") {
        let mut counts = [("routes_1", 1), ("routes_1k", 1000), ("routes_10k", 10_000)];
        counts.rotate_left(round % 3);
        for (name, count) in counts {
            into.samples.entry((name, Kind::Coracle)).or_default().push(field.with_routes(count).await);
        }
    }
    if wanted("swap") {
        for swapping in if round.is_multiple_of(2) { [true, false] } else { [false, true] } {
            let (sample, swaps) = field.with_swaps(swapping).await;
            let name = if swapping { "swap" } else { "no_swap" };
            into.samples.entry((name, Kind::Coracle)).or_default().push(sample);
            into.values.entry(("swaps", Kind::Coracle)).or_default().push(swaps as f64);
        }
    }
    for kind in turn {
        if wanted("ws") {
            into.values.entry(("ws", kind)).or_default().push(field.sockets(kind).await);
        }
        if wanted("rss") {
            into.values.entry(("rss", kind)).or_default().push(field.idle(kind).await);
        }
    }
}

fn print_samples(measured: &Measured) {
    let titles = scenarios().into_iter().map(|scenario| (scenario.name, scenario.title));
    let more = [
        ("routes_1", "1 route, asked at random"),
        ("routes_1k", "1,000 routes, asked at random"),
        ("routes_10k", "10,000 routes, asked at random"),
        ("no_swap", "100 routes, asked at random"),
        ("swap", "the same, 100 new tables a second"),
    ];
    println!(
        "\n{:<34}{:<10}{:>12}{:>10}{:>10}{:>12}{:>8}{:>11}",
        "", "", "requests/s", "p50 µs", "p99 µs", "CPU µs/req", "failed", "disturbed"
    );
    for (name, title) in titles.chain(more) {
        for kind in Kind::ALL {
            let Some(samples) = measured.samples.get(&(name, kind)) else { continue };
            let at = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
            let rate = at(|sample| sample.answered.requests / sample.answered.seconds);
            let (p50, p99) = (at(|sample| sample.answered.p50), at(|sample| sample.answered.p99));
            let failed: f64 = samples.iter().map(|sample| sample.answered.failed).sum();
            let processor = at(|sample| sample.processor);
            let disturbed = 100.0 * at(|sample| sample.disturbed);
            println!(
                "{title:<34}{:<10}{rate:>12.0}{p50:>10.0}{p99:>10.0}{processor:>12.2}{failed:>8.0}{disturbed:>10.1}%",
                kind.name()
            );
        }
    }
    println!();
}

impl Measured {
    /// Ours and a peer's, round by round, of what `value` takes from each sample.
    fn compare(&self, ours: (&'static str, Kind), peer: (&'static str, Kind), value: impl Fn(&Sample) -> f64) -> Rounds {
        let of = |name| self.samples.get(&name).map(Vec::as_slice).unwrap_or_default().iter().map(&value);
        of(ours).zip(of(peer)).collect()
    }

    /// Ours and a peer's of what is no sample.
    fn values(&self, name: &'static str, peer: Kind) -> Rounds {
        let of = |kind| self.values.get(&(name, kind)).cloned().unwrap_or_default();
        of(Kind::Coracle).into_iter().zip(of(peer)).collect()
    }
}

fn scores(measured: &Measured) -> Scoreboard {
    use Goal::{AtMost, Nothing, RatioAtLeast, RatioAtMost};
    let processor = |sample: &Sample| sample.processor;
    let p99 = |sample: &Sample| sample.answered.p99;
    let rate = |sample: &Sample| sample.answered.requests / sample.answered.seconds;
    let megabytes = |sample: &Sample| LARGE as f64 / sample.processor;
    let against = |name, peer, value: &dyn Fn(&Sample) -> f64| measured.compare((name, Kind::Coracle), (name, peer), value);
    let (ha, nginx, us) = (Kind::HaProxy, Kind::Nginx, Kind::Coracle);
    let mut board = Scoreboard::default();
    let mut both = |name: &str, what: &str, scenario, value: &dyn Fn(&Sample) -> f64, goal| {
        board.add(name, &format!("{what}; HAProxy"), against(scenario, ha, value), goal);
        board.add(&format!("{name}_nginx"), &format!("{what}; nginx"), against(scenario, nginx, value), Nothing);
    };
    both("cpu_us_c64", "CPU µs per request, 64 connections", "c64", &processor, RatioAtMost(1.0));
    both("p99_c64", "p99 in µs, 64 connections", "c64", &p99, RatioAtMost(1.2));
    both("cpu_us_c1", "CPU µs per request, 1 connection", "c1", &processor, Nothing);
    both("p99_c1", "p99 in µs, 1 connection", "c1", &p99, Nothing);
    both("cpu_us_c64_log", "CPU µs per request with an access log", "c64_log", &processor, Nothing);
    both("cpu_us_tls", "CPU µs per request over TLS", "tls", &processor, RatioAtMost(1.1));
    both("handshakes", "CPU µs per TLS handshake", "handshakes", &processor, RatioAtMost(1.1));
    both("handshakes_per_s", "TLS handshakes per second", "handshakes", &rate, Nothing);
    both("cpu_us_h2", "CPU µs per request over HTTP/2", "h2", &processor, Nothing);
    board.add("large_body", "MB per CPU second, 1 MB bodies; nginx", against("large", nginx, &megabytes), RatioAtLeast(0.9));
    board.add("large_body_haproxy", "the same; HAProxy", against("large", ha, &megabytes), Nothing);
    for (name, goal) in [("routes_1k", Nothing), ("routes_10k", RatioAtMost(1.05))] {
        let compared = measured.compare((name, us), ("routes_1", us), processor);
        board.add(name, "CPU µs per request; our own with 1 route", compared, goal);
    }
    let swap_p99 = measured.compare(("swap", us), ("no_swap", us), p99);
    board.add("swap_p99", "p99 in µs with 100 swaps a second; our own without", swap_p99, RatioAtMost(1.1));
    board.add("swap_failed", "requests lost in all; our own without", failed(measured), AtMost(0.0));
    board.add("ws_kb", "kB per open WebSocket; HAProxy", measured.values("ws", ha), AtMost(12.0));
    board.add("ws_kb_nginx", "kB per open WebSocket; nginx", measured.values("ws", nginx), Nothing);
    board.add("rss_mb", "MB resident when idle; HAProxy", measured.values("rss", ha), AtMost(15.0));
    board.add("rss_mb_nginx", "MB resident when idle; nginx", measured.values("rss", nginx), Nothing);
    board.add("rss_mb_after", "MB resident after all of this; HAProxy", measured.values("rss_after", ha), Nothing);
    board
}

/// Requests lost over all rounds, with swaps and without.
fn failed(measured: &Measured) -> Rounds {
    let us = Kind::Coracle;
    let lost = |sample: &Sample| sample.answered.failed;
    let all = |name| measured.samples.get(&(name, us)).map(|samples| samples.iter().map(lost).sum::<f64>());
    all("swap").zip(all("no_swap")).into_iter().collect()
}
