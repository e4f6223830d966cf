//! `make bench-pyrunner`: PyRunner over HTTP with its history, beside a bare `python3 -c`, bubblewrap with Python, and a container
//! per call through Docker, in turn in one run.
//!
//! Callers ask again as soon as they have their answer, so with one caller both processors are at work as well: the time to an
//! answer is that of making the next sandbox. `pause` is one caller who waits 10 ms between calls, and sees the time to an
//! answer alone.
//!
//! Each call executes `print(42)` and its output is looked at. Peers are called without HTTP: a process is started and waited
//! for, or the engine is asked on one connection. Processor time per execution is what all processes of a server, its daemon
//! and its sandboxes have used, those that have ended included, from a full pool to a full pool again, so that the refill is in
//! it; the callers' own is not. (What threads of the kernel do later, such as taking namespaces down, is on nobody's account.)
//!
//! Figures are medians over the rounds, ratios are medians of the rounds' ratios. Nothing fails because it is slow. The last
//! line is `RESULT {json}`.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use coracle_benches::callers::{Call, Called, call};
use coracle_benches::interpreters::{
    Containers, PYTHON, WarmFork, bare, bubblewrapped, buried, killed, number as printed, starting, with_idle,
};
use coracle_benches::lineage::private;
use coracle_benches::options::{number, wanted};
use coracle_benches::processes::open_many_files;
use coracle_benches::pyrunner::{Part, PyRunner};
use coracle_benches::rounds::{Rounds, median};
use coracle_benches::scoreboard::{Goal, Scoreboard};
use serde_json::json;

/// How many callers there are at a time.
const CALLERS: [usize; 4] = [1, 2, 8, 64];

/// More containers at a time would measure how the engine is overwhelmed, for minutes.
const MOST_CONTAINERS: usize = 8;

/// How long one caller who is not in a hurry waits between an answer and the next question.
const PAUSE: Duration = Duration::from_millis(10);

/// The limit at which programs are killed.
const LIMIT: Duration = Duration::from_millis(200);

/// Programs that do not end by themselves. The first two are also given to a bare interpreter.
const ENDLESS: [&str; 3] =
    ["while True: pass", "import time; time.sleep(100)", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"];

/// A program that only computes, and prints the milliseconds of its quickest turn.
const COMPUTING: &str = "import time\ndef fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n\
                         def turn():\n    begun = time.perf_counter(); fibonacci(20); return time.perf_counter() - begun\n\
                         print(1000 * min(turn() for _ in range(60)))";

/// How often it is computed in a round, and how many sandboxes are missed.
const COMPUTATIONS: usize = 5;
const MISSES: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Contender {
    PyRunner,
    Bare,
    Bubblewrap,
    Docker,
    WarmFork,
}

impl Contender {
    const ALL: [Self; 5] = [Self::PyRunner, Self::Bare, Self::Bubblewrap, Self::Docker, Self::WarmFork];

    fn name(self) -> &'static str {
        match self {
            Self::PyRunner => "PyRunner over HTTP",
            Self::Bare => "python3 -c",
            Self::Bubblewrap => "bubblewrap + python3 -c",
            Self::Docker => "Docker, container per call",
            Self::WarmFork => "fork of a warm python3",
        }
    }

    fn most_callers(self) -> usize {
        match self {
            Self::PyRunner | Self::Bare | Self::Bubblewrap => usize::MAX,
            Self::Docker => MOST_CONTAINERS,
            // It answers one at a time.
            Self::WarmFork => 1,
        }
    }
}

/// Who takes part.
struct Field {
    pyrunner: PyRunner,
    /// One with a single sandbox, of which the next has to be made.
    scarce: PyRunner,
    bubblewrap: bool,
    docker: Option<Containers>,
    warm_fork: WarmFork,
    seconds: Duration,
}

/// Calls, and processor time for each of them in milliseconds where it is known.
struct Sample {
    called: Called,
    processor: f64,
    /// The same by the parts of PyRunner.
    parts: Vec<f64>,
}

/// Everything that was measured, round by round.
#[derive(Default)]
struct Measured {
    samples: BTreeMap<(usize, Contender), Vec<Sample>>,
    values: BTreeMap<&'static str, Rounds>,
}

fn main() {
    open_many_files();
    let directory = tempfile::tempdir().unwrap();
    let docker = Containers::find();
    let bubblewrap = Command::new("bwrap").arg("--version").output();
    let field = Field {
        pyrunner: PyRunner::start(&[]),
        scarce: PyRunner::start(&["--slots", "1"]),
        bubblewrap: bubblewrap.is_ok(),
        docker: docker.clone().ok(),
        warm_fork: WarmFork::start(directory.path()),
        seconds: Duration::from_secs(number("SECONDS", 2)),
    };
    introduce(&field, &bubblewrap.map_err(|error| error.to_string()), &docker);
    let (rounds, mut measured) = (number("ROUNDS", 5), Measured::default());
    // The round before the first warms everything up and is not counted.
    for round in 0..=rounds {
        let into = if round == 0 { &mut Measured::default() } else { &mut measured };
        field.round(round as usize, into);
        println!("round {round} of {rounds}{}; load {}", if round == 0 { ": all are warm now" } else { "" }, load());
    }
    print_samples(&measured);
    println!("history: {}\n", field.pyrunner.readiness()["history"]);
    let board = scores(&measured);
    println!("{board}\nRESULT {}", board.json());
}

/// Who is measured, and who is not and why.
fn introduce(field: &Field, bubblewrap: &Result<std::process::Output, String>, docker: &Result<Containers, String>) {
    let first_line = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned();
    let readiness = field.pyrunner.readiness();
    let text = |name: &str| readiness[name].as_str().unwrap_or("unknown").to_owned();
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("machine      {processors} processors, load {}", load());
    println!("PyRunner     isolation {}, {}, because {}", text("isolation"), text("cgroups"), text("why"));
    let version = Command::new(PYTHON).arg("--version").output().map(|output| first_line(&output.stdout));
    println!("python3      {} at {PYTHON}", version.unwrap());
    match bubblewrap {
        Ok(output) => println!("bubblewrap   {}", first_line(&output.stdout)),
        Err(why) => println!("bubblewrap   LEFT OUT: {why}"),
    }
    match docker {
        Ok(docker) => println!("Docker       {}; not with more than {MOST_CONTAINERS} callers", docker.told()),
        Err(why) => println!("Docker       LEFT OUT: {why}"),
    }
    println!();
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

impl Field {
    /// One round: who begins changes from round to round.
    fn round(&self, round: usize, into: &mut Measured) {
        let mut turn = Contender::ALL;
        turn.rotate_left(round % Contender::ALL.len());
        for callers in CALLERS.into_iter().filter(|callers| wanted(&format!("c{callers}"))) {
            for contender in turn {
                let sample = (callers <= contender.most_callers()).then(|| self.measure(contender, callers)).flatten();
                into.samples.entry((callers, contender)).or_default().extend(sample);
            }
        }
        let ours_first = round.is_multiple_of(2);
        if wanted("pause") {
            self.unhurried(ours_first, into);
        }
        if wanted("miss") {
            into.add("miss", self.miss());
        }
        if wanted("cpu") {
            into.add("cpu", computing(ours_first));
        }
        if wanted("slot") {
            into.add("slot", (self.pyrunner.slot() / 1e6, with_idle(|idle| private(idle.pid()) as f64) / 1e6));
        }
        if wanted("kill") {
            into.add("kill", self.kill());
        }
    }

    /// So many callers for a while; nothing if this contender does not take part.
    fn measure(&self, contender: Contender, callers: usize) -> Option<Sample> {
        let prepare: Box<dyn Fn() -> Result<Call<'static>, String> + Sync> = match contender {
            Contender::PyRunner => Box::new(|| self.pyrunner.asking()),
            Contender::Bare => Box::new(|| Ok(starting(bare))),
            Contender::Bubblewrap => self.bubblewrap.then(|| Box::new(|| Ok(starting(bubblewrapped))))?,
            Contender::Docker => {
                let docker = self.docker.as_ref()?;
                Box::new(|| docker.asking())
            }
            Contender::WarmFork => Box::new(|| self.warm_fork.asking()),
        };
        let used = || match contender {
            Contender::PyRunner => {
                self.pyrunner.until_full();
                self.pyrunner.processor().map(|(_, used)| used).to_vec()
            }
            Contender::Bare => vec![buried()],
            Contender::WarmFork => vec![self.warm_fork.processor()],
            // bubblewrap does not wait for what it has started, so nobody is told. The engine works for others too.
            Contender::Bubblewrap | Contender::Docker => Vec::new(),
        };
        let before = used();
        let called = call(callers, self.seconds, Duration::ZERO, &*prepare);
        let spent = used().into_iter().zip(before).map(|(after, before)| after.saturating_sub(before).as_secs_f64() * 1000.0);
        let parts: Vec<f64> = spent.map(|spent| spent / called.count() as f64).collect();
        let processor = if parts.is_empty() { f64::NAN } else { parts.iter().sum() };
        Some(Sample { called, processor, parts })
    }

    /// One caller who waits a little between calls: how long an answer takes where the next sandbox is made meanwhile.
    fn unhurried(&self, ours_first: bool, into: &mut Measured) {
        let ours = || call(1, self.seconds, PAUSE, &|| self.pyrunner.asking());
        let peer = || call(1, self.seconds, PAUSE, &|| Ok(starting(bare)));
        let (ours, peer) = in_turn(ours_first, ours, peer);
        assert_eq!((ours.failed, peer.failed), (0, 0), "{:?} {:?}", ours.failure, peer.failure);
        into.add("pause_p50", (ours.at(0.5), peer.at(0.5)));
        into.add("pause_p99", (ours.at(0.99), peer.at(0.99)));
    }

    /// A program that has to wait for its sandbox to be made, and a bare interpreter, each time one after the other: medians.
    fn miss(&self) -> (f64, f64) {
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for _ in 0..MISSES {
            ours.extend(self.scarce.missed().unwrap());
            peer.push(call(1, Duration::ZERO, Duration::ZERO, &|| Ok(starting(bare))).at(0.5));
        }
        if ours.len() < MISSES / 2 {
            println!("miss: only {} of {MISSES} programs had to wait", ours.len());
        }
        (median(ours.into_iter()), median(peer.into_iter()))
    }

    /// How late endless programs are known to be dead, the latest, and a bare interpreter that somebody kills.
    fn kill(&self) -> (f64, f64) {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let ours = ENDLESS.iter().map(|code| milliseconds(self.pyrunner.killed(code, LIMIT).unwrap()));
        let peer = ENDLESS.iter().take(2).map(|code| milliseconds(killed(code, LIMIT)));
        (ours.fold(0.0, f64::max), peer.fold(0.0, f64::max))
    }
}

/// Milliseconds of a computation in a sandbox and bare, in turn: medians. The server is a new one each time, because how quick an
/// interpreter computes depends on where in memory it happens to be, and all sandboxes of a zygote are in the same place.
fn computing(ours_first: bool) -> (f64, f64) {
    // The share of the processor is no part of the question.
    let server = PyRunner::start(&["--slots", "1", "--cores", "64"]);
    let inside = || {
        let answer = server.execute(&json!({ "code": COMPUTING })).unwrap();
        answer["stdout"].as_str().and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| panic!("{answer}"))
    };
    let outside = || printed(&mut bare(COMPUTING));
    let pairs: Vec<(f64, f64)> = (0..COMPUTATIONS).map(|_| in_turn(ours_first, inside, outside)).collect();
    (median(pairs.iter().map(|pair| pair.0)), median(pairs.iter().map(|pair| pair.1)))
}

/// Both, one after the other.
fn in_turn<T>(ours_first: bool, ours: impl FnOnce() -> T, peer: impl FnOnce() -> T) -> (T, T) {
    if ours_first {
        let ours = ours();
        return (ours, peer());
    }
    let peer = peer();
    (ours(), peer)
}

impl Measured {
    fn add(&mut self, name: &'static str, (ours, peer): (f64, f64)) {
        self.values.entry(name).or_default().add(ours, peer);
    }

    fn of(&self, callers: usize, contender: Contender) -> &[Sample] {
        self.samples.get(&(callers, contender)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Ours and a peer's, round by round, of what `value` takes from each sample.
    fn compare(&self, callers: usize, peer: Contender, value: fn(&Sample) -> f64) -> Rounds {
        let ours = self.of(callers, Contender::PyRunner).iter().map(value);
        ours.zip(self.of(callers, peer).iter().map(value)).collect()
    }
}

fn p50(sample: &Sample) -> f64 {
    sample.called.at(0.5)
}

fn p99(sample: &Sample) -> f64 {
    sample.called.at(0.99)
}

fn per_core(sample: &Sample) -> f64 {
    1000.0 / sample.processor
}

fn print_samples(measured: &Measured) {
    if measured.samples.is_empty() {
        return;
    }
    println!(
        "\n{:<9}{:<28}{:>10}{:>10}{:>12}{:>12}{:>14}{:>9}{:>8}",
        "callers", "", "p50 ms", "p99 ms", "calls/s", "CPU ms/call", "per core and s", "calls", "failed"
    );
    for callers in CALLERS {
        for contender in Contender::ALL {
            let samples = measured.of(callers, contender);
            if samples.is_empty() {
                continue;
            }
            let at = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
            let (p50, p99, rate) = (at(p50), at(p99), at(|sample| sample.called.rate()));
            let calls: usize = samples.iter().map(|sample| sample.called.count()).sum();
            let failed: usize = samples.iter().map(|sample| sample.called.failed).sum();
            let known = |value: f64, digits: usize| if value.is_nan() { "?".to_owned() } else { format!("{value:.digits$}") };
            let (processor, per_core) = (known(at(|sample| sample.processor), 2), known(at(per_core), 0));
            let name = contender.name();
            println!(
                "{callers:<9}{name:<28}{p50:>10.2}{p99:>10.2}{rate:>12.1}{processor:>12}{per_core:>14}{calls:>9}{failed:>8}"
            );
            if let Some(why) = samples.iter().find_map(|sample| sample.called.failure.as_ref()) {
                println!("         the first that failed: {why}");
            }
        }
    }
    for callers in CALLERS {
        let samples = measured.of(callers, Contender::PyRunner);
        let at = |part: Part| median(samples.iter().filter_map(|sample| sample.parts.get(part as usize).copied()));
        let told: Vec<String> = Part::ALL.into_iter().map(|part| format!("{} {:.2}", part.name(), at(part))).collect();
        if !samples.is_empty() {
            println!("CPU ms of PyRunner per call, callers {callers}: {}", told.join(", "));
        }
    }
    println!();
}

fn scores(measured: &Measured) -> Scoreboard {
    use Contender::{Bare, Bubblewrap, Docker, WarmFork};
    use Goal::{AtLeast, AtMost, Nothing, OverAtMost, RatioAtMost};
    let mut board = Scoreboard::default();
    let mut add = |name: &str, what: &str, rounds, goal| board.add(name, what, rounds, goal);
    for callers in CALLERS {
        let (p50_goal, p99_goal) = if callers == 1 { (AtMost(1.0), AtMost(3.0)) } else { (Nothing, Nothing) };
        let name = |what: &str| format!("{what}_c{callers}");
        add(&name("p50_ms"), "p50 in ms; python3 -c", measured.compare(callers, Bare, p50), p50_goal);
        add(&name("p99_ms"), "p99 in ms; python3 -c", measured.compare(callers, Bare, p99), p99_goal);
        add(&name("p50_bwrap"), "p50 in ms; bubblewrap", measured.compare(callers, Bubblewrap, p50), Nothing);
        let rate: fn(&Sample) -> f64 = |sample| sample.called.rate();
        add(&name("rate"), "calls a second; python3 -c", measured.compare(callers, Bare, rate), Nothing);
    }
    let of = |name| measured.values.get(name).cloned().unwrap_or_default();
    add("per_core_s", "calls per CPU second, 8 callers; python3 -c", measured.compare(8, Bare, per_core), AtLeast(250.0));
    let cpu: fn(&Sample) -> f64 = |sample| sample.processor;
    add("cpu_ms_call", "CPU ms per call, 8 callers; python3 -c", measured.compare(8, Bare, cpu), Nothing);
    // Ours goes over HTTP and is written down, and is compared all the same.
    let forked = measured.compare(1, WarmFork, p50);
    add("over_warm_fork_ms", "p50 in ms, 1 caller; a fork of a warm python3", forked, OverAtMost(0.2));
    add("p50_ms_pause", "p50 in ms, 1 caller, 10 ms between calls; python3 -c", of("pause_p50"), AtMost(1.0));
    add("p99_ms_pause", "p99 in ms, 1 caller, 10 ms between calls; python3 -c", of("pause_p99"), AtMost(3.0));
    add("pool_miss_ms", "ms when no sandbox waits; python3 -c", of("miss"), AtMost(5.0));
    add("cpu_bound_ratio", "ms of a computation; python3 -c", of("cpu"), RatioAtMost(1.01));
    add("slot_mb", "private MB of a waiting sandbox; an idle python3", of("slot"), AtMost(3.0));
    add("kill_over_ms", "ms after the time limit, latest; kill(2) on python3", of("kill"), AtMost(50.0));
    add("container_per_call_ms", "p50 in ms, 1 caller; a container per call", measured.compare(1, Docker, p50), Nothing);
    board
}
