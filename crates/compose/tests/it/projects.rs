//! A project in a folder of its own, and short ways to ask about it.

use std::collections::BTreeMap;
use std::path::Path;

use coracle_compose::{ComposeError, Loaded, Options, load};
use serde_json::Value;
use tempfile::TempDir;

/// Files on disk, and how they are loaded.
pub struct Folder {
    parent: TempDir,
    /// The options, with the folder as working directory; tests change what they are about.
    pub options: Options,
}

impl Folder {
    /// A folder named `proj` with these files in it.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().canonicalize().unwrap().join("proj");
        std::fs::create_dir(&root).unwrap();
        for (name, text) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let environment = BTreeMap::from([("HOME".to_owned(), "/home/jo".to_owned())]);
        Self { parent, options: Options { working_dir: root, environment, ..Options::default() } }
    }

    pub fn path(&self) -> &Path {
        &self.options.working_dir
    }

    pub fn files(mut self, files: &[&str]) -> Self {
        self.options.files = files.iter().map(Into::into).collect();
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.options.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn profile(mut self, profile: &str) -> Self {
        self.options.profiles.push(profile.to_owned());
        self
    }

    pub fn try_load(&self) -> Result<Loaded, ComposeError> {
        assert!(self.parent.path().exists());
        load(&self.options)
    }

    pub fn load(&self) -> Loaded {
        self.try_load().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The model, the folder's path written as `$DIR`.
    pub fn value(&self) -> Value {
        let text = self.load().value.to_string().replace(&*self.path().to_string_lossy(), "$DIR");
        serde_json::from_str(&text).unwrap()
    }

    /// The error, as a person sees it, the folder's path written as `$DIR`.
    pub fn error(&self) -> String {
        match self.try_load() {
            Ok(loaded) => panic!("this was taken: {}", loaded.value),
            Err(error) => error.to_string().replace(&*self.path().to_string_lossy(), "$DIR"),
        }
    }
}

/// One file, by its text.
pub fn one(text: &str) -> Folder {
    Folder::with(&[("compose.yaml", text)])
}

/// A service `s` with this body.
pub fn service(body: &str) -> Folder {
    one(&format!("services:\n  s:\n    image: x\n{}", indented(body)))
}

/// A file and one that is put over it.
pub fn two(base: &str, over: &str) -> Folder {
    Folder::with(&[("a.yaml", base), ("b.yaml", over)]).files(&["a.yaml", "b.yaml"])
}

/// As [`two`], each the body of a service `s`.
pub fn over(base: &str, later: &str) -> Folder {
    let body = |text: &str| format!("services:\n  s:\n    image: x\n{}", indented(text));
    two(&body(base), &body(later))
}

fn indented(body: &str) -> String {
    body.lines().map(|line| format!("    {line}\n")).collect()
}

/// What became of service `s`.
pub fn s(folder: &Folder) -> Value {
    folder.value()["services"]["s"].clone()
}
