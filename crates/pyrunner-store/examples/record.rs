//! What history costs: nanoseconds per `record()` on the hot path, and records per second written, waited for and not.
//!
//! ```text
//! cargo run --release -p coracle-pyrunner-store --example record -- LOCATION [RECORDS]
//! ```
//!
//! LOCATION is the path of a new file or the URL of an empty PostgreSQL database; one with history in it is refused, because
//! all of it is deleted in the end. Records are small (like `print(42)`), then large (a kilobyte of code and one of output).
#![allow(clippy::print_stdout, reason = "the figures are what it is for")]

use std::time::{Duration, Instant};

use coracle_pyrunner_store::{KeyLimits, NewKey, Policy, Record, Recorder, RecorderOptions, Role, Scope, Store};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// How many callers of `record_durably` wait at once.
const CALLERS: usize = 32;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let location = arguments.next().ok_or("give a path or a URL of PostgreSQL")?;
    let count: usize = arguments.next().map_or(Ok(20_000), |count| count.parse())?;
    let store = Store::open(&location).await?;
    if store.history_size().await?.records > 0 {
        return Err(format!("{} holds history already; give a new one", store.describe()).into());
    }
    println!("{}, {count} records", store.describe());
    for size in [10, 1000] {
        println!("\n{size} bytes of code and of output:");
        hot_path(&store, count, size).await?;
        durable(&store, count / 10, size).await?;
    }
    reads(&store).await
}

fn records(count: usize, size: usize) -> Outcome<Vec<Record>> {
    let one = |index: usize| {
        let mut record = Record::new(format!("key{}", index % 10), vec![b'c'; size])?;
        record.stdout = vec![b'o'; size].into();
        record.exit_code = Some(0);
        Ok(record)
    };
    (0..count).map(one).collect()
}

async fn hot_path(store: &Store, count: usize, size: usize) -> Outcome<()> {
    let room = RecorderOptions { queue_records: count, queue_bytes: 1 << 30, ..RecorderOptions::default() };
    let recorder = Recorder::start(store.clone(), room);
    let mut costs = Vec::with_capacity(count);
    let records = records(count, size)?;
    let begin = Instant::now();
    let cpu = cpu_time();
    for record in records {
        let begin = Instant::now();
        recorder.record(record)?;
        costs.push(begin.elapsed());
    }
    if !recorder.flush(Duration::from_secs(300)).await {
        return Err("not written within 300 s".into());
    }
    let took = begin.elapsed();
    costs.sort();
    let at = |share: f64| costs[((costs.len() - 1) as f64 * share) as usize].as_nanos();
    println!("record(): p50 {} ns, p99 {} ns, p99.9 {} ns, worst {} ns", at(0.5), at(0.99), at(0.999), at(1.0));
    println!("written: {:.0} records/s, {:.1} µs of CPU each in this process", rate(count, took), per(cpu_time() - cpu, count));
    recorder.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

async fn durable(store: &Store, count: usize, size: usize) -> Outcome<()> {
    for callers in [1, CALLERS] {
        let recorder = Recorder::start(store.clone(), RecorderOptions::default());
        let begin = Instant::now();
        let each = count / callers;
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let recorder = recorder.clone();
                let records = records(each, size);
                let records = records.map_err(|error| error.to_string());
                tokio::spawn(async move {
                    let mut waits = Vec::new();
                    for record in records? {
                        let begin = Instant::now();
                        recorder.record_durably(record).await.map_err(|error| error.to_string())?;
                        waits.push(begin.elapsed());
                    }
                    Ok::<_, String>(waits)
                })
            })
            .collect();
        let mut waits = Vec::new();
        for task in tasks {
            waits.extend(task.await??);
        }
        let took = begin.elapsed();
        waits.sort();
        let (p50, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
        println!("record_durably() by {callers}: {:.0} records/s, p50 {p50:.2?}, p99 {p99:.2?}", rate(waits.len(), took));
        recorder.shutdown(Duration::from_secs(10)).await;
    }
    Ok(())
}

async fn reads(store: &Store) -> Outcome<()> {
    let scope = Scope::Owner("key1".to_owned());
    let begin = Instant::now();
    let (mut cursor, mut pages) = (None, 0);
    loop {
        let page = store.page(&scope, cursor, 50, 200).await?;
        pages += 1;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    println!("\na page of 50: {:.2?} on average of {pages}", begin.elapsed() / pages);
    let limits = KeyLimits::default();
    let (key, token) = store.add_key(NewKey { name: "measured".to_owned(), role: Role::User, limits, expires_at: None }).await?;
    let begin = Instant::now();
    for _ in 0..1000 {
        store.key_of(token.expose()).await?;
    }
    println!("looking up a key: {:.2?} on average of 1000", begin.elapsed() / 1000);
    store.revoke_key(&key.id).await?;
    let policy = Policy { history_records: Some(0), ..Policy::default() };
    let begin = Instant::now();
    let swept = store.sweep(&policy).await?;
    println!("deleting them all: {:.0} records/s", rate(usize::try_from(swept.records)?, begin.elapsed()));
    Ok(())
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn per(cpu: Duration, count: usize) -> f64 {
    cpu.as_secs_f64() * 1e6 / count as f64
}

/// Processor time of this process so far, in steps of 10 ms: fields 14 and 15 of proc_pid_stat(5).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
