//! Mutations of good frames, a bounded number of them, the same in every run, at the reader and at a daemon.
//! `CORACLE_FUZZ_ROUNDS` sets how many.

pub mod bodies;

use std::io::Write;

use bytes::BytesMut;
use coracle_sandbox::wire::{Request, Submission};
use coracle_sandbox::{Event, Execution, InputFile, Stdin};

use crate::host::Host;

fn rounds() -> u64 {
    std::env::var("CORACLE_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(200_000)
}

/// Pseudo-random numbers (xorshift), so that a failure comes again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap_or(0)
    }

    /// A copy with a few bytes changed, put in, taken out or doubled, or a length that lies.
    fn mutate(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=self.below(4) {
            let place = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[place] = self.below(256) as u8,
                1 => bytes.insert(place, self.below(256) as u8),
                2 => drop(bytes.remove(place)),
                3 => bytes.truncate(place.max(1)),
                4 => {
                    let lie = [0_u32, 1, 0x7fff_ffff, u32::MAX, 64 << 20][self.below(5)].to_le_bytes();
                    let end = (place + 4).min(bytes.len());
                    bytes[place..end].copy_from_slice(&lie[..end - place]);
                }
                _ => bytes.extend_from_slice(&good[self.below(good.len())..]),
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        bytes
    }
}

fn good() -> Vec<Vec<u8>> {
    let mut execution = Execution::new("default", "print(1)");
    execution.args = vec!["a".to_owned(), String::new()];
    execution.env = vec![("K".to_owned(), "v".to_owned())];
    execution.files = vec![InputFile { path: "f".to_owned(), content: vec![0, 255] }];
    execution.collect = vec!["*".to_owned()];
    execution.limits.pids = Some(3);
    let mut typed = execution.clone();
    typed.stdin = Stdin::Interactive;
    let requests = [
        Request::Execute(Submission::of(&execution)),
        Request::Execute(Submission::of(&typed)),
        Request::Stdin(b"typed".to_vec().into()),
        Request::StdinEnd,
        Request::Cancel,
        Request::Images,
        Request::Health,
    ];
    let frame = |request: &Request| {
        let mut frame = BytesMut::new();
        request.encode(&mut frame);
        frame.to_vec()
    };
    requests.iter().map(frame).collect()
}

#[test]
fn mutated_frames_are_read_or_refused() {
    let (good, mut dice) = (good(), Dice(0x9e37_79b9_7f4a_7c15));
    for round in 0..rounds() {
        let frame = &good[dice.below(good.len())];
        let mut bytes = dice.mutate(frame);
        if round % 3 == 0 {
            let other = dice.below(good.len());
            bytes.extend(dice.mutate(&good[other]));
        }
        bodies::stream(&bytes);
        // The same payload under every kind, so that all readers of both sides are met.
        let payload = bytes::Bytes::copy_from_slice(bytes.get(5..).unwrap_or_default());
        bodies::both(dice.below(10) as u8, &payload);
    }
}

/// A daemon that is told nonsense answers it or hangs up, and goes on serving. Jobs that make no sense end the one slot that
/// reads them.
#[tokio::test]
async fn a_daemon_survives_whatever_it_is_told() {
    let Some(host) = Host::start(&["slots=4", "cores=2000", "wall=300"]).await else { return };
    let (good, mut dice) = (good(), Dice(42));
    for _ in 0..(rounds() / 1000).clamp(100, 2000) {
        let frame = &good[dice.below(good.len())];
        let bytes = dice.mutate(frame);
        let mut stream = std::os::unix::net::UnixStream::connect(host.directory().join("socket")).unwrap();
        // A daemon that has hung up already takes no more, which is an answer too.
        stream.write_all(&bytes).ok();
        if dice.below(2) == 0 {
            stream.shutdown(std::net::Shutdown::Write).ok();
        }
    }
    let mut running = host.sandbox.execute(&Execution::new("default", "print(42)")).await.unwrap();
    let mut said = Vec::new();
    while let Some(event) = running.next().await.unwrap() {
        if let Event::Stdout(bytes) = event {
            said.extend_from_slice(&bytes);
        }
    }
    assert_eq!(said, b"42\n");
    host.quiet().await;
}
