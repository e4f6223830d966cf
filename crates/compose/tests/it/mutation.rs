//! Mutations of good texts, a bounded number of them, the same in every run. `CORACLE_FUZZ_ROUNDS` sets how many; `fuzz/` has
//! the same bodies for a fuzzer that is led by coverage.

use crate::bodies;

const TEMPLATES: &[&str] = &[
    "$A ${A} ${NONE:-${A}_${EMPTY:-x}} $$A",
    "${NONE:?say ${A}} ${EMPTY?} ${A:+p} ${NONE+q}",
    "{{ ${NONE:-{\"a\": {\"b\": [1]}}} }}",
    "postgres://$DOLLAR:${NONE-5432}/\n${A:-b}",
];
const ENVIRONMENTS: &[&str] = &[
    "# comment\nA=1\nexport B: two words # said\nC='single $A'\nD=\"double ${A}\\n\\0101\"\nE\nF=\n",
    "\u{FEFF}A=1\r\nB=\"over\nlines\"\r\nC=${B:-${A}}\r\n",
];
const SHORT_FORMS: &[&str] = &[
    "1h30m0.5s",
    "-1w2d",
    "1.5gb",
    "512 MiB",
    "sh -c 'echo \"$$HOME\"' a\\ b `id` $(x)",
    "127.0.0.1:8000-8002:80-82/udp",
    "[::1]:9000:9000",
    "./data:/data:ro,z",
    "C:\\data:D:\\data:nocopy",
    "name:/var/lib:rw,rslave",
];
const COMPOSE_FILES: &[&str] = &[
    "name: shop\nservices:\n  web:\n    image: nginx:${TAG:-1}\n    ports: [\"80:8080\", 443]\n    environment:\n      - A\n      - B=$$x\n    \
     depends_on: [db]\n    command: sh -c 'echo \"$$A\"'\n  db:\n    image: postgres\n    volumes: [data:/var/lib/postgresql]\nvolumes:\n  data:\n",
    "x-common: &common\n  restart: always\n  labels: {a: b, c: 1}\nservices:\n  one:\n    <<: *common\n    build: .\n    \
     healthcheck: {test: curl localhost, interval: 1m30s, retries: 3}\n  two:\n    extends: one\n    profiles: [debug]\n    \
     deploy: {replicas: 2, resources: {limits: {cpus: '0.5', memory: 50M}}}\n",
    "services:\n  s:\n    image: x\n    networks:\n      front: {aliases: [a, b]}\n    secrets: [key]\n    configs:\n      - {source: c, target: /c, mode: 0440}\n    \
     ulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}\n    tmpfs: /run\n    extra_hosts: [\"h:1.2.3.4\"]\n    devices: [/dev/a:/dev/b:rw]\n\
     networks:\n  front: {ipam: {config: [{subnet: 10.0.0.0/24}]}}\nsecrets:\n  key: {environment: A}\nconfigs:\n  c: {content: \"x $A\"}\n",
    "services:\n  s: !override\n    image: x\n    ports: !reset []\n---\nservices:\n  s:\n    image: |\n      y\n    stop_grace_period: 1.5s\n    mem_limit: 1gb\n",
];
/// What is put in: what readers disagree about.
const PIECES: &[&str] = &[
    "$", "{", "}", "${", "$$", ":-", ":?", "-", "+", "?", ":", "/", "=", "\n", "\r\n", " #", "'", "\"", "\\", "\\0", "\t", " ",
    "é", "\u{212A}", "0", "9", ".", ",", "[", "]", "export ", "A", "NONE", "`", "(", ")", ";", "h", "ms", "65535", "-80",
    "\u{0}", "&a ", "*a", "!reset ", "<<: ", "- ", "  ",
];

/// Pseudo-random numbers (xorshift), so that a failure comes again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }
}

/// Some places of a text changed: a piece put in, characters taken out or doubled, or a part of another text.
fn mutated(seeds: &[&str], chance: &mut Chance) -> String {
    let mut text: Vec<char> = seeds[chance.below(seeds.len())].chars().collect();
    for _ in 0..=chance.below(6) {
        let at = chance.below(text.len() + 1);
        match chance.below(4) {
            0 => drop(text.splice(at..at, PIECES[chance.below(PIECES.len())].chars())),
            1 => drop(text.drain(at..(at + 1 + chance.below(4)).min(text.len()).max(at))),
            2 => {
                let end = (at + chance.below(12)).min(text.len());
                let part: Vec<_> = text[at..end].to_vec();
                text.splice(at..at, part);
            }
            _ => {
                let other: Vec<char> = seeds[chance.below(seeds.len())].chars().collect();
                let from = chance.below(other.len() + 1);
                text.truncate(at);
                text.extend(&other[from..]);
            }
        }
    }
    text.into_iter().collect()
}

/// Feeds mutations of `seeds` to a body. Both sorts must be among them: all taken or all refused would mean a blunt mutation.
fn run(seeds: &[&str], usual_rounds: usize, body: impl Fn(&str) -> bool) {
    let rounds = std::env::var("CORACLE_FUZZ_ROUNDS").map_or(usual_rounds, |rounds| rounds.parse().unwrap());
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    let (mut taken, mut refused) = (0, 0);
    for seed in seeds {
        body(seed);
    }
    for _ in 0..rounds {
        let text = mutated(seeds, &mut chance);
        // The failing text is what a bug is found by.
        let told = Told(&text);
        *(if body(&text) { &mut taken } else { &mut refused }) += 1;
        std::mem::forget(told);
    }
    assert!(rounds < 100 || (taken > 0 && refused > 0), "{taken} taken, {refused} refused");
}

/// Says which text it was when the body panics.
struct Told<'t>(&'t str);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        #[expect(clippy::print_stderr, reason = "a test tells what broke it")]
        {
            eprintln!("the text was {:?}", self.0);
        }
    }
}

#[test]
fn templates() {
    run(TEMPLATES, 20_000, bodies::template);
}

#[test]
fn environment_files() {
    run(ENVIRONMENTS, 20_000, bodies::environment);
}

#[test]
fn short_forms() {
    run(SHORT_FORMS, 20_000, bodies::short_forms);
}

#[test]
fn compose_files() {
    run(COMPOSE_FILES, 4_000, bodies::compose_file);
}
