//! A daemon on its own, a client for one program, and the measurements: `sandbox daemon SOCKET`, `sandbox run SOCKET FILE`,
//! `sandbox bench SOCKET`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write;
use std::time::{Duration, Instant};

use coracle_sandbox::{Event, Execution, Image, Library, Sandbox, Source, daemon};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["daemon", socket, options @ ..] => serve(socket, options),
        ["run", socket, file] => client(run(socket, file)),
        ["bench", socket] => client(bench(socket, 2000)),
        ["bench", socket, count] => client(bench(socket, count.parse()?)),
        _ => Err("sandbox daemon SOCKET [NAME=VALUE]... | run SOCKET FILE | bench SOCKET [COUNT]".into()),
    }
}

fn serve(socket: &str, settings: &[&str]) -> Outcome {
    let mut options = daemon::Options::new(socket, Vec::new());
    let (mut slots, mut preload, mut packages, mut directory, mut library) = (8, Vec::new(), Vec::new(), None, None);
    for setting in settings {
        match setting.split_once('=').ok_or("settings are NAME=VALUE")? {
            ("cores", milli) => options.limits.cpu_milli = milli.parse()?,
            ("slots", number) => slots = number.parse()?,
            ("makers", number) => options.makers = number.parse()?,
            ("running", number) => options.most_running = number.parse()?,
            ("copies", number) => options.zygote_copies = number.parse()?,
            ("memory", bytes) => options.limits.memory_bytes = bytes.parse()?,
            ("pids", number) => options.limits.pids = number.parse()?,
            ("uid", number) => options.first_uid = number.parse()?,
            ("cpu", milliseconds) => options.limits.cpu = Duration::from_millis(milliseconds.parse()?),
            ("wall", milliseconds) => options.limits.wall = Duration::from_millis(milliseconds.parse()?),
            ("patience", milliseconds) => options.patience = Duration::from_millis(milliseconds.parse()?),
            ("mode", mode) => options.isolation = mode.parse()?,
            ("docker", socket) => options.docker = Some(socket.into()),
            ("permit", "weak-limits") => options.permitted.weak_limits = true,
            ("permit", "no-sandbox") => options.permitted.no_sandbox = true,
            ("preload", modules) => preload = modules.split(',').map(str::to_owned).collect(),
            ("packages", path) => packages.push(path.into()),
            ("library", path) => library = Some(Library::at(path)),
            ("directory", path) => directory = Some(path.into()),
            (other, _) => return Err(format!("there is no setting {other}").into()),
        }
    }
    if let Some(library) = library {
        (options.images, options.broken) = library.open_all(1)?;
    }
    let mut image = Image::find("default", Source::Host { python: None }, slots)?;
    image.preload = preload;
    image.packages = packages;
    options.images.push(image);
    if let Some(path) = directory {
        options.images.push(Image::find("directory", Source::Directory { path, python: None }, 1)?);
    }
    Ok(daemon::run(options)?)
}

fn client(work: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

async fn run(socket: &str, file: &str) -> Outcome {
    let sandbox = Sandbox::connect(socket).await?;
    let mut running = sandbox.execute(&Execution::new("default", std::fs::read(file)?)).await?;
    while let Some(event) = running.next().await? {
        match event {
            Event::Stdout(bytes) => std::io::stdout().write_all(&bytes)?,
            Event::Stderr(bytes) => std::io::stderr().write_all(&bytes)?,
            Event::End(end) => eprintln!("{end:?}"),
            Event::Started { .. } | Event::File(_) => {}
        }
    }
    Ok(())
}

async fn bench(socket: &str, count: usize) -> Outcome {
    let sandbox = Sandbox::connect(socket).await?;
    let daemon = sandbox.health().await?.pid;
    paced(&sandbox).await?;
    for callers in [1, 2, 8, 64] {
        let (before, start) = (cpu_of(daemon)?, Instant::now());
        let tasks: Vec<_> = (0..callers).map(|_| tokio::spawn(call(sandbox.clone(), count / callers))).collect();
        let (mut times, mut waits) = (Vec::new(), Vec::new());
        for task in tasks {
            for (time, queued) in task.await?.map_err(|error| format!("an execution: {error}"))? {
                times.push(time);
                waits.push(queued);
            }
        }
        waits.sort();
        let (wall, cpu) = (start.elapsed(), cpu_of(daemon)? - before);
        times.sort();
        let at = |share: f64| times.get(((times.len() - 1) as f64 * share) as usize).copied().unwrap_or_default();
        let per = cpu.div_f64(times.len() as f64);
        println!(
            "callers {callers:2}: p50 {:.2?} p90 {:.2?} p99 {:.2?}; {:.0}/s; {per:.2?} CPU each = {:.0} per core and second",
            at(0.5),
            at(0.9),
            at(0.99),
            times.len() as f64 / wall.as_secs_f64(),
            1.0 / per.as_secs_f64()
        );
        println!("            waiting for a slot: median {:.2?}, longest {:.2?}", waits[waits.len() / 2], waits[waits.len() - 1]);
    }
    kills(&sandbox).await?;
    computing(&sandbox).await?;
    memory(daemon)
}

/// One call every 20 ms, so that each finds all slots made and nothing being made.
async fn paced(sandbox: &Sandbox) -> Outcome {
    let execution = Execution::new("default", "print(42)");
    let mut times = Vec::new();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let start = Instant::now();
        drain(sandbox, &execution).await?;
        times.push(start.elapsed());
    }
    times.sort();
    println!("one every 20 ms: p10 {:.2?} p50 {:.2?} p90 {:.2?} p99 {:.2?}", times[20], times[100], times[180], times[198]);
    Ok(())
}

/// How long after its limit a program's end is known.
async fn kills(sandbox: &Sandbox) -> Outcome {
    let mut over = Vec::new();
    for code in [
        "while True: pass",
        "import time; time.sleep(100)",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    ] {
        for _ in 0..5 {
            let mut execution = Execution::new("default", code);
            let limit = Duration::from_millis(150);
            execution.limits.wall = Some(limit);
            let start = Instant::now();
            drain(sandbox, &execution).await?;
            over.push(start.elapsed().saturating_sub(limit));
        }
    }
    over.sort();
    println!("killed after the limit: median {:.2?}, latest {:.2?}", over[over.len() / 2], over[over.len() - 1]);
    Ok(())
}

/// A program that only computes, in a sandbox and bare: its processor time in each.
async fn computing(sandbox: &Sandbox) -> Outcome {
    let code = "import time\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)\n\
                def g():\n    b = time.process_time(); f(24); return time.process_time() - b\nprint(min(g() for _ in range(25)))";
    let execution = Execution::new("default", code);
    let inside: f64 = String::from_utf8(drain(sandbox, &execution).await?.0)?.trim().parse()?;
    let bare = std::process::Command::new("/usr/bin/python3").args(["-c", code]).output()?;
    let bare: f64 = String::from_utf8(bare.stdout)?.trim().parse()?;
    println!("computing: {inside:.4} s inside, {bare:.4} s bare: {:.3}", inside / bare);
    Ok(())
}

/// Private memory of the waiting slots, both processes of each.
fn memory(daemon: u32) -> Outcome {
    let children = std::fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children"))?;
    let (mut workers, mut total) = (0, 0);
    for child in children.split_whitespace().skip(1) {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{child}/smaps_rollup")) else { continue };
        let field = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let zygote = std::fs::read_to_string(format!("/proc/{child}/status"))?.contains("\nUid:\t0");
        let python = std::fs::read_to_string(format!("/proc/{child}/comm"))?.starts_with("python");
        if !(zygote && python) {
            total += field("Private_Dirty:") + field("Private_Clean:");
            workers += u64::from(python);
        }
    }
    println!("{workers} waiting slots: {} kB of private memory each", total / workers.max(1));
    Ok(())
}

/// Runs a program and answers its output and how long it waited.
async fn drain(sandbox: &Sandbox, execution: &Execution) -> Result<(Vec<u8>, Duration), Box<dyn std::error::Error>> {
    let mut running = sandbox.execute(execution).await?;
    let (mut output, mut waited) = (Vec::new(), Duration::ZERO);
    while let Some(event) = running.next().await? {
        match event {
            Event::Stdout(bytes) => output.extend_from_slice(&bytes),
            Event::Started { queued } => waited = queued,
            _ => {}
        }
    }
    Ok((output, waited))
}

async fn call(sandbox: Sandbox, count: usize) -> Result<Vec<(Duration, Duration)>, String> {
    let execution = Execution::new("default", "print(42)");
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        let (output, queued) = drain(&sandbox, &execution).await.map_err(|error| error.to_string())?;
        times.push((start.elapsed(), queued));
        if output != b"42\n" {
            return Err(format!("answered {:?}", String::from_utf8_lossy(&output)));
        }
    }
    Ok(times)
}

/// What the daemon, its children that live and those that it has buried have used.
fn cpu_of(daemon: u32) -> Result<Duration, Box<dyn std::error::Error>> {
    let mut ticks = times(daemon, 4)?;
    let children = std::fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children"))?;
    for child in children.split_whitespace() {
        // One that has ended meanwhile is among the buried.
        ticks += times(child.parse()?, 2).unwrap_or(0);
    }
    Ok(Duration::from_millis(ticks * 10))
}

/// The first so many of utime, stime, cutime and cstime (proc_pid_stat(5)).
fn times(process: u32, count: usize) -> Result<u64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = text.rsplit_once(')').ok_or("no stat")?.1.split_whitespace().skip(11).take(count);
    Ok(fields.map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()?.iter().sum())
}
