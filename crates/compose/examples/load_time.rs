//! How long a project of many services takes to load: `cargo run --release -p coracle-compose --example load_time -- [SERVICES]`.

#![allow(clippy::print_stdout, reason = "an example is a program")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use coracle_compose::{Options, load};

/// Loads whose median is told.
const ROUNDS: usize = 21;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let services: usize = std::env::args().nth(1).map_or(Ok(200), |count| count.parse())?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("compose.yaml"), project(services))?;
    let options = Options { working_dir: folder.path().to_path_buf(), ..Options::default() };
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let loaded = load(&options)?;
        times.push(start.elapsed());
        assert_eq!(loaded.project.services.len(), services);
    }
    times.sort_unstable();
    println!("{services} services: median {:.1} ms of {ROUNDS} loads", times[ROUNDS / 2].as_secs_f64() * 1e3);
    Ok(())
}

/// Services with ports, volumes, variables, a health check, a chain of dependencies, and what they share in an anchor.
fn project(services: usize) -> String {
    let mut text =
        "name: many\nx-common: &common\n  restart: unless-stopped\n  logging: {driver: json-file}\nservices:\n".to_owned();
    for number in 0..services {
        let after = if number == 0 { "[]".to_owned() } else { format!("[s{}]", number - 1) };
        let port = 1024 + number % 60_000;
        let written = write!(
            text,
            "  s{number}:\n    <<: *common\n    image: registry.example.com/app:${{TAG:-{number}}}\n    depends_on: {after}\n    \
             ports: [\"127.0.0.1:{port}:80\"]\n    environment: {{A: 1, B: $$x, C: \"${{C:-c}}\"}}\n    \
             volumes: [data:/data, ./conf{number}:/conf:ro]\n    healthcheck: {{test: [CMD, check], interval: 10s}}\n"
        );
        written.unwrap_or_default();
    }
    text + "volumes:\n  data: {}\n"
}
