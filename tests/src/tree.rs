//! The source tree of an app, as a developer has it: a copy of an example, changed line by line.

use std::path::{Path, PathBuf};

/// A copy of one of the examples, in a directory of its own.
#[derive(Debug)]
pub struct Tree {
    directory: PathBuf,
    example: PathBuf,
}

/// Ways in which a release of the Flask example can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breakage {
    /// Its dependencies cannot be installed.
    DoesNotBuild,
    /// Its program ends with an error as soon as it starts.
    ExitsAtStart,
    /// It starts, and its health path never says yes.
    NeverHealthy,
    /// Its health path says yes twice, and no from then on; everything else works.
    TurnsSick,
    /// Its release command fails.
    ReleaseCommandFails,
}

impl Breakage {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::DoesNotBuild, Self::ExitsAtStart, Self::NeverHealthy, Self::TurnsSick, Self::ReleaseCommandFails];

    /// What the failed deployment must show as evidence.
    pub fn evidence(self) -> &'static str {
        match self {
            Self::DoesNotBuild => "not a requirement",
            Self::ExitsAtStart => "the till is locked",
            Self::NeverHealthy => "503",
            Self::TurnsSick => "500",
            Self::ReleaseCommandFails => "no migration today",
        }
    }

    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::DoesNotBuild => "does not build",
            Self::ExitsAtStart => "exits at start",
            Self::NeverHealthy => "never becomes healthy",
            Self::TurnsSick => "turns sick after the switch",
            Self::ReleaseCommandFails => "release command fails",
        }
    }
}

impl Tree {
    /// A copy of `examples/NAME` at `directory`.
    pub fn example(name: &str, directory: PathBuf) -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        let tree = Self { directory, example };
        tree.reset();
        tree
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// As the example is.
    fn reset(&self) -> &Self {
        if self.directory.exists() {
            std::fs::remove_dir_all(&self.directory).unwrap();
        }
        copy(&self.example, &self.directory);
        self
    }

    /// Every file as it is now, by path.
    pub fn snapshot(&self) -> Snapshot {
        let mut files = Vec::new();
        gather(&self.directory, &mut files);
        Snapshot(files)
    }

    /// As it was.
    pub fn restore(&self, snapshot: Snapshot) -> &Self {
        std::fs::remove_dir_all(&self.directory).unwrap();
        for (path, content) in snapshot.0 {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        self
    }

    /// The text of a file.
    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.directory.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// Writes a file.
    pub fn write(&self, file: &str, text: impl AsRef<[u8]>) -> &Self {
        std::fs::write(self.directory.join(file), text).unwrap_or_else(|error| panic!("{file}: {error}"));
        self
    }

    /// Removes a file.
    pub fn remove(&self, file: &str) -> &Self {
        std::fs::remove_file(self.directory.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        self
    }

    /// Changes a piece of a file that must be there.
    pub fn change(&self, file: &str, from: &str, to: &str) -> &Self {
        let text = self.read(file);
        assert!(text.contains(from), "{file} does not contain {from:?}");
        self.write(file, text.replacen(from, to, 1))
    }

    /// Adds lines at the end of a file.
    pub fn append(&self, file: &str, lines: &str) -> &Self {
        self.write(file, format!("{}\n{lines}\n", self.read(file).trim_end()))
    }

    /// Adds a line to a table of the manifest, which is made if it is not there.
    pub fn manifest(&self, table: &str, line: &str) -> &Self {
        let head = format!("[{table}]\n");
        let text = self.read("coracle.toml");
        match text.contains(&head) {
            true => self.write("coracle.toml", text.replacen(&head, &format!("{head}{line}\n"), 1)),
            false => self.append("coracle.toml", &format!("\n{head}{line}")),
        }
    }

    /// Changes the one line: `VERSION = "v2"`, in every file that has it.
    pub fn version(&self, version: &str) -> &Self {
        let mut changed = false;
        for entry in std::fs::read_dir(&self.directory).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !name.ends_with(".py") {
                continue;
            }
            let text = self.read(&name);
            let Some(line) = text.lines().find(|line| line.starts_with("VERSION = ")) else { continue };
            self.change(&name, line, &format!("VERSION = {version:?}"));
            changed = true;
        }
        assert!(changed, "{} has no VERSION line", self.directory.display());
        self
    }

    /// Breaks a Flask example. [`Tree::restore`] mends it.
    pub fn breaks(&self, breakage: Breakage) -> &Self {
        const HEALTHY: &str = "    return \"ok\\n\"\n";
        match breakage {
            Breakage::DoesNotBuild => self.append("requirements.txt", "this is not a requirement"),
            Breakage::ExitsAtStart => self.append("shop.py", "raise RuntimeError('the till is locked')"),
            Breakage::NeverHealthy => self.change("shop.py", HEALTHY, "    return \"still asleep\\n\", 503\n"),
            Breakage::TurnsSick => self.change(
                "shop.py",
                HEALTHY,
                "    healthz.asked = getattr(healthz, \"asked\", 0) + 1\n    \
                 return (\"ok\\n\", 200) if healthz.asked <= 2 else (\"sick\\n\", 500)\n",
            ),
            Breakage::ReleaseCommandFails => self
                .write("release.py", "import sys\n\nsys.exit(\"no migration today\")\n")
                .manifest("deploy", "release_command = \"python release.py\""),
        }
    }
}

/// A tree at one moment.
#[derive(Debug)]
pub struct Snapshot(Vec<(PathBuf, Vec<u8>)>);

fn gather(directory: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => gather(&path, files),
            false => files.push((path.clone(), std::fs::read(path).unwrap())),
        }
    }
}

/// Copies files and directories. What a test run of an example has left is not part of it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.unwrap();
        if entry.file_name() == "__pycache__" {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
