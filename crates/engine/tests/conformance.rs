//! The fake passes the suite that the real engines pass, as far as it has programs to run.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use coracle_engine::conformance::{Capabilities, Fixture, Tree, dockerfile_tree};
use coracle_engine::fake::{BuildScript, FakeEngine, Script};
use coracle_engine::{Engine, Exit, Stream};
use coracle_model::{BuildPlan, EngineKind, InstanceId, OwnerId};

struct FakeFixture {
    fake: FakeEngine,
}

impl FakeFixture {
    async fn new() -> Option<Self> {
        let fake = FakeEngine::new(EngineKind::Docker);
        fake.install(program);
        Some(Self { fake })
    }

    fn strange() -> OwnerId {
        "0123456789ab".parse().unwrap()
    }
}

#[async_trait]
impl Fixture for FakeFixture {
    async fn open(&self) -> Engine {
        self.fake.engine()
    }

    async fn stranger(&self) -> Engine {
        self.fake.engine_of(Self::strange())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { programs: false, memory_limit: false, volumes: false, descendants: false }
    }

    async fn tree(&self, tree: Tree, directory: &Path) -> Option<BuildPlan> {
        let (lines, step) = (vec!["no such luck".to_owned()], "RUN luck".to_owned());
        match tree {
            Tree::Program(_) => {}
            Tree::Fails => self.fake.script_build(1, BuildScript::Fails { lines, step, code: 7 }),
            Tree::Hangs => self.fake.script_build(1, BuildScript::Hangs),
        }
        Some(dockerfile_tree(tree, directory))
    }

    async fn leftovers(&self) -> Vec<String> {
        let inventories = [self.fake.inventory(), self.fake.inventory_of(&Self::strange())];
        inventories.iter().filter(|inventory| !inventory.is_empty()).map(|inventory| format!("{inventory:?}")).collect()
    }

    async fn readable_by_others(&self, _: &InstanceId) -> String {
        String::new()
    }
}

/// What `program.py` does, as far as a script can.
fn program(argv: &[String], env: &[(String, String)]) -> Option<Script> {
    let words: Vec<_> = argv.iter().map(String::as_str).collect();
    let value = |wanted: &str| env.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let greeting = || value("GREETING").unwrap_or_else(|| "hello".to_owned());
    let exits = |exit: Exit| Script::ends(exit);
    let env_line = || {
        let json = |text: &String| serde_json::Value::from(text.as_str()).to_string();
        let members: Vec<_> = env.iter().map(|(name, value)| format!("{}: {}", json(name), json(value))).collect();
        format!("{{{}}}", members.join(", "))
    };
    Some(match words.get(2).copied() {
        _ if words.first() == Some(&"no-such-program") => Script::cannot_start("there is no such program"),
        // The image's own command.
        None | Some("serve") => Script::serves().answers(greeting()).prints(Stream::Stdout, &["serving"]),
        Some("prints") => {
            let lines = |word: &str, count: &str| -> Vec<String> {
                (0..count.parse().unwrap()).map(|number: u32| format!("{word} {number}")).collect()
            };
            let (out, err) = (lines("out", words[3]), lines("err", words[4]));
            let exit = exits(Exit { code: words[5].parse().ok(), ..Exit::default() });
            exit.prints(Stream::Stdout, &out).prints(Stream::Stderr, &err)
        }
        Some("ticks") => Script::never_listens().ticking(Duration::from_millis(20)),
        Some("stubborn") => Script::never_listens().ignoring_term().prints(Stream::Stdout, &["staying"]),
        Some("signals") => exits(Exit { signal: words[3].parse().ok(), ..Exit::default() }),
        Some("env") => exits(Exit { code: Some(0), ..Exit::default() }).prints(Stream::Stdout, &[env_line()]),
        Some("env-and-stay") => Script::never_listens().prints(Stream::Stdout, &[env_line()]),
        Some(other) => panic!("program.py {other} is not scripted"),
    })
}

coracle_engine::conformance_tests!(FakeFixture::new());
