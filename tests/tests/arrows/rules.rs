//! What each crate may use of ours, and which dependencies are kept in one place. Changing the architecture begins here.

/// A crate of the workspace.
pub struct Rule {
    pub name: &'static str,
    /// Which of our crates it may depend on.
    pub may_use: &'static [&'static str],
    /// Why not more.
    pub because: &'static str,
}

pub const CRATES: &[Rule] = &[
    Rule {
        name: "coracle-model",
        may_use: &["coracle-toml-reading", "coracle-proxy-table"],
        because: "the words of the domain stand on nothing but the grammar that people write them in, and a middleware of the \
                  proxy is such a word: plain data",
    },
    Rule {
        name: "coracle-toml-reading",
        may_use: &["coracle-proxy-table"],
        because: "it reads what two files have in common, the proxy's middlewares included, and knows neither file",
    },
    Rule { name: "coracle-regular-file", may_use: &["coracle-model"], because: "it reads files, whatever is in them" },
    Rule { name: "coracle-proxy-table", may_use: &[], because: "the proxy's table is plain data about nothing of ours" },
    Rule {
        name: "coracle-jail",
        may_use: &[],
        because: "the jail knows processes, not apps: a sandbox of its own will use it too",
    },
    Rule { name: "coracle-proxy-http", may_use: &[], because: "messages are bytes: who sends them and why is not its affair" },
    Rule { name: "coracle-proxy-rules", may_use: &[], because: "a rule says yes or no, whoever asks" },
    Rule {
        name: "coracle-proxy-config",
        may_use: &["coracle-toml-reading", "coracle-proxy-table", "coracle-proxy-rules"],
        because: "it turns a file into a table, and starts nothing",
    },
    Rule {
        name: "coracle-proxy-middleware",
        may_use: &["coracle-proxy-table", "coracle-proxy-http"],
        because: "a middleware sees one request and its answer, never who carries them",
    },
    Rule {
        name: "coracle-certs",
        may_use: &["coracle-lab"],
        because: "certificates are for names, whatever is served under them; the lab is its tests' alone",
    },
    Rule {
        name: "coracle-lab",
        may_use: &["coracle-certs"],
        because: "tests of several crates stand on it, and it knows only what they all have",
    },
    Rule {
        name: "coracle-proxy",
        may_use: &[
            "coracle-proxy-table",
            "coracle-proxy-http",
            "coracle-proxy-rules",
            "coracle-proxy-middleware",
            "coracle-certs",
            "coracle-lab",
        ],
        because: "the data plane knows no apps",
    },
    Rule {
        name: "coracle-labels",
        may_use: &["coracle-proxy-table", "coracle-proxy-rules"],
        because: "labels become a part of a table; who carries them and who serves it is not its affair",
    },
    Rule {
        name: "coracle-compose",
        may_use: &["coracle-model", "coracle-regular-file"],
        because: "it reads files and starts nothing",
    },
    Rule {
        name: "coracle-sandbox",
        may_use: &["coracle-jail"],
        because: "a sandbox knows programs and limits, not who sent them",
    },
    Rule {
        name: "coracle-pyrunner",
        may_use: &["coracle-sandbox", "coracle-pyrunner-store"],
        because: "PyRunner is a program of its own, which Coracle deploys like any other",
    },
    Rule {
        name: "coracle-build",
        may_use: &["coracle-model", "coracle-regular-file"],
        because: "it decides what to build and knows no engine",
    },
    Rule { name: "coracle-store", may_use: &["coracle-model"], because: "durable state takes no decisions" },
    Rule {
        name: "coracle-pyrunner-store",
        may_use: &[],
        because: "it keeps what PyRunner hands it, and knows neither sandboxes nor apps",
    },
    Rule { name: "coracle-engine", may_use: &["coracle-model"], because: "the seam names nobody on either side of it" },
    Rule {
        name: "coracle-engine-docker",
        may_use: &["coracle-model", "coracle-build", "coracle-engine"],
        because: "an engine implements the seam and knows nobody who uses it",
    },
    Rule {
        name: "coracle-engine-process",
        may_use: &["coracle-model", "coracle-build", "coracle-engine", "coracle-jail"],
        because: "an engine implements the seam and knows nobody who uses it",
    },
    Rule {
        name: "coracle-pipeline",
        may_use: &["coracle-model", "coracle-toml-reading"],
        because: "steps, their order and their keys are words and sums; whoever runs them stands elsewhere",
    },
    Rule {
        name: "coracle-probe",
        may_use: &["coracle-model", "coracle-engine"],
        because: "it asks instances whether they are well, whoever wants to know",
    },
    Rule {
        name: "coracle-pipeline-runner",
        may_use: &["coracle-model", "coracle-build", "coracle-engine", "coracle-pipeline", "coracle-probe"],
        because: "steps run alike on a server and on a laptop: it knows an engine, and neither releases nor a store",
    },
    Rule {
        name: "coracle-policy",
        may_use: &["coracle-model", "coracle-toml-reading", "coracle-regular-file", "coracle-build"],
        because: "it says what is wrong with a release; whoever asks an engine, and whoever tells people, stands elsewhere",
    },
    Rule {
        name: "coracle-orchestrator",
        may_use: &[
            "coracle-model",
            "coracle-build",
            "coracle-store",
            "coracle-engine",
            "coracle-proxy-table",
            "coracle-labels",
            "coracle-pipeline",
            "coracle-pipeline-runner",
            "coracle-probe",
            "coracle-policy",
        ],
        because: "it names no concrete engine, and of the proxy it knows the proxy-table alone",
    },
    Rule {
        name: "coracle-dev",
        may_use: &["coracle-model", "coracle-regular-file", "coracle-build", "coracle-compose", "coracle-engine"],
        because: "whoever develops needs no server, and the engine is handed in",
    },
    Rule { name: "coracle-api", may_use: &["coracle-model"], because: "a client needs nothing of the server" },
    Rule {
        name: "coracle-git-door",
        may_use: &["coracle-model"],
        because: "it knows repositories and pushes; whoever decides about them stands behind it",
    },
    Rule {
        name: "coracle-ssh-door",
        may_use: &["coracle-model", "coracle-git-door"],
        because: "it knows SSH and how git asks over it; who comes and what they may do is said to it",
    },
    Rule {
        name: "coracle-forge",
        may_use: &["coracle-model"],
        because: "it reads and verifies what forges say, and tells them something; what comes of it is decided elsewhere",
    },
    Rule {
        name: "coracle-server",
        may_use: &[
            "coracle-model",
            "coracle-build",
            "coracle-compose",
            "coracle-store",
            "coracle-engine",
            "coracle-engine-docker",
            "coracle-engine-process",
            "coracle-jail",
            "coracle-proxy-table",
            "coracle-proxy",
            "coracle-labels",
            "coracle-pipeline",
            "coracle-policy",
            "coracle-orchestrator",
            "coracle-api",
            "coracle-git-door",
            "coracle-ssh-door",
            "coracle-forge",
        ],
        because: "it wires the control plane together, and nothing above it",
    },
    Rule {
        name: "coracle",
        may_use: &[
            "coracle-model",
            "coracle-regular-file",
            "coracle-build",
            "coracle-compose",
            "coracle-policy",
            "coracle-api",
            "coracle-git-door",
            "coracle-server",
            "coracle-proxy",
            "coracle-proxy-config",
            "coracle-dev",
            "coracle-pipeline",
            "coracle-pipeline-runner",
            "coracle-engine",
            "coracle-engine-docker",
            "coracle-engine-process",
            "coracle-jail",
        ],
        because: "commands talk to the API, and state and decisions are the server's; `dev` and `ci run` \
                  alone ask no server and bring the engine for their session",
    },
    Rule {
        name: "coracle-tests",
        may_use: &["coracle-model", "coracle-api", "coracle-lab"],
        because: "stories stand where a user stands: outside",
    },
    Rule {
        name: "coracle-conformance",
        may_use: &["coracle-model", "coracle-proxy-table", "coracle-tests", "coracle-compose", "coracle-labels"],
        because: "cases are fed through what anybody can reach",
    },
    Rule {
        name: "coracle-benches",
        may_use: &["coracle-model", "coracle-proxy-table", "coracle-tests"],
        because: "measurements stand outside too, beside those of the peers",
    },
];

/// A dependency of others that only some of our crates may have.
struct Kept {
    dependency: &'static str,
    by: &'static [&'static str],
    because: &'static str,
}

const KEPT: &[Kept] = &[
    Kept { dependency: "bollard", by: &["coracle-engine-docker"], because: "Docker's types stay in engine-docker alone" },
    Kept {
        dependency: "sqlx",
        by: &["coracle-store", "coracle-pyrunner-store"],
        because: "SQL stays in the two programs' stores",
    },
    Kept { dependency: "chacha20poly1305", by: &["coracle-store"], because: "secrets are sealed and opened in store alone" },
    Kept {
        dependency: "axum",
        by: &["coracle-server", "coracle-engine-process", "coracle-pyrunner"],
        because: "the API's handlers live in server, the server of static sites in engine-process, PyRunner's API in pyrunner; \
                  the proxy is hyper alone",
    },
    Kept {
        dependency: "regex",
        by: &["coracle-proxy-rules", "coracle-proxy-middleware", "coracle-labels", "coracle-tests"],
        because: "nothing else matches by regular expressions (of the tests, published schemas do)",
    },
    Kept { dependency: "russh", by: &["coracle-ssh-door"], because: "SSH is spoken at one door alone" },
    Kept { dependency: "clap", by: &["coracle", "coracle-pyrunner"], because: "arguments are resolved in the binary" },
];

/// No I/O and no runtime in these: they are words and data.
const PURE: &[&str] = &[
    "coracle-model",
    "coracle-toml-reading",
    "coracle-proxy-table",
    "coracle-proxy-http",
    "coracle-proxy-rules",
    "coracle-pipeline",
];
const IMPURE: &[&str] = &["tokio", "hyper", "hyper-util", "futures", "async-trait", "rustix", "libc", "tempfile", "walkdir"];

/// What may not appear at all, at any depth.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "TLS is rustls with ring"),
    ("aws-lc-sys", "TLS is rustls with ring; this one needs cmake"),
    ("rusqlite", "a second SQLite beside sqlx's"),
    ("serde_yaml", "unmaintained"),
    ("pingora", "its server wants to own the process"),
];

/// Why `from` may not depend on `to`; `None` if it may.
pub fn offence(from: &str, to: &str) -> Option<String> {
    let rule = CRATES.iter().find(|rule| rule.name == from);
    let because = if to == "coracle" || to.starts_with("coracle-") {
        match rule {
            Some(rule) if rule.may_use.contains(&to) => return None,
            Some(rule) => rule.because,
            None => "the rules do not know this crate yet",
        }
    } else if PURE.contains(&from) && IMPURE.contains(&to) {
        "no I/O and no runtime there"
    } else {
        KEPT.iter().find(|kept| kept.dependency == to && !kept.by.contains(&from))?.because
    };
    Some(format!("{from} → {to} is forbidden: {because}"))
}

/// Why a package may not appear in the lock file; `None` if it may.
pub fn banned(package: &str) -> Option<&'static str> {
    BANNED.iter().find(|(name, _)| *name == package).map(|(_, why)| *why)
}
