//! The suite that every engine passes.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use coracle_engine::Engine;
use coracle_engine::conformance::{Capabilities, Fixture, Tree, python_tree};
use coracle_engine_process::{IsolationMode, ProcessEngine, ProcessOptions};
use coracle_model::{BuildPlan, InstanceId};

use crate::bench::{helper, is_root, owner, remove_groups};

struct ProcessFixture {
    dir: tempfile::TempDir,
    /// A package index of our own: what it is asked for is missing, or never comes.
    index: String,
}

impl ProcessFixture {
    async fn new() -> Option<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let index = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut hanging = Vec::new();
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut request = [0; 4096];
                let count = stream.read(&mut request).unwrap_or(0);
                if String::from_utf8_lossy(&request[..count]).contains("/hangs") {
                    hanging.push(stream);
                } else {
                    stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
                }
            }
        });
        Some(Self { dir: tempfile::tempdir().unwrap(), index })
    }

    fn homes(&self) -> [PathBuf; 2] {
        ["server", "stranger"].map(|name| self.dir.path().join(name))
    }

    fn engine(home: &Path) -> Engine {
        let options = ProcessOptions {
            owner: owner(home).parse().unwrap(),
            dir: home.to_owned(),
            program: helper(),
            isolation: IsolationMode::Auto,
        };
        ProcessEngine::open(options).unwrap().engine()
    }
}

#[async_trait]
impl Fixture for ProcessFixture {
    async fn open(&self) -> Engine {
        Self::engine(&self.homes()[0])
    }

    async fn stranger(&self) -> Engine {
        Self::engine(&self.homes()[1])
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { programs: true, memory_limit: is_root(), volumes: is_root(), descendants: true }
    }

    async fn tree(&self, tree: Tree, directory: &Path) -> Option<BuildPlan> {
        Some(python_tree(tree, directory, &self.index))
    }

    async fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for home in self.homes() {
            for part in ["instances", "slugs", "deps", "volumes", "cache"] {
                let entries = std::fs::read_dir(home.join(part)).into_iter().flatten().filter_map(Result::ok);
                left.extend(entries.map(|entry| entry.path().display().to_string()));
            }
            let groups = coracle_jail::Hierarchy::detect().children(&format!("coracle/{}", owner(&home)));
            left.extend(groups.into_iter().filter(|name| !name.ends_with("/supervisors")));
            let marker = format!("={}/instances/", home.display());
            left.extend(processes(|process| {
                let read =
                    |file: &str| String::from_utf8_lossy(&std::fs::read(process.join(file)).unwrap_or_default()).into_owned();
                read("environ").contains(&marker) || read("cmdline").contains(&home.display().to_string())
            }));
        }
        left
    }

    async fn readable_by_others(&self, id: &InstanceId) -> String {
        // All of the engine's files that others may read.
        let mut text = id.to_string();
        for entry in walkdir::WalkDir::new(self.dir.path()).into_iter().filter_map(Result::ok) {
            let mode = entry.metadata().map(|meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions())).unwrap_or(0);
            if entry.file_type().is_file() && mode & 0o044 != 0 && entry.path().to_string_lossy().contains("instances") {
                text.push_str(&String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap_or_default()));
            }
        }
        text
    }

    async fn tear_down(&self) {
        for home in self.homes() {
            remove_groups(&owner(&home));
        }
    }
}

/// The processes for which that is so.
fn processes(is_so: impl Fn(&Path) -> bool) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).map(|entry| entry.path());
    let numbered = all.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok()));
    numbered.filter(|path| is_so(path)).map(|path| path.display().to_string()).collect()
}

coracle_engine::conformance_tests!(ProcessFixture::new());
