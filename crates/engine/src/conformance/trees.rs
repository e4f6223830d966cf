//! Source trees for builds of every kind.

use std::path::Path;

use coracle_model::BuildPlan;
use coracle_model::plan::{PythonApp, PythonDependencies, Recipe, Serving};

const PROGRAM: &str = include_str!("app/program.py");
const DOCKERFILE: &str = include_str!("app/Dockerfile");
const PROCFILE: &str = include_str!("app/Procfile");

/// What a build of the tree does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// It makes the test program; trees with different numbers make different artifacts.
    Program(u32),
    /// A step of it prints `no such luck` and fails, or fails in its own words where it cannot be told what to print.
    Fails,
    /// It does not end within minutes.
    Hangs,
}

/// The tree for engines that build Dockerfiles. Its base image is `python:3.11-slim`.
pub fn dockerfile_tree(tree: Tree, directory: &Path) -> BuildPlan {
    let program = |code: &str| format!("FROM python:3.11-slim\nRUN [\"python3\", \"-u\", \"-c\", \"{code}\"]\n");
    let dockerfile = match tree {
        Tree::Program(_) => DOCKERFILE.to_owned(),
        Tree::Fails => program("print('no such luck'); raise SystemExit(7)"),
        Tree::Hangs => program("print('begun'); import time; time.sleep(600)"),
    };
    write(directory, "Dockerfile", &dockerfile);
    write_program(tree, directory);
    let recipe = Recipe::Dockerfile { path: "Dockerfile".to_owned(), target: None, args: [].into(), extras: Box::default() };
    BuildPlan {
        recipe,
        processes: [].into(),
        release_command: None,
        reason: "found Dockerfile".to_owned(),
        serving: Serving::default(),
    }
}

/// The tree for engines that build Python without Docker. `index` is the URL of a server of the fixture's own, without a
/// slash at its end, that answers `/missing…` with 404 and never answers `/hangs…`.
pub fn python_tree(tree: Tree, directory: &Path, index: &str) -> BuildPlan {
    write_program(tree, directory);
    let requirement = match tree {
        Tree::Program(_) => None,
        Tree::Fails => Some(format!("luck @ {index}/missing/luck-1.0.tar.gz\n")),
        Tree::Hangs => Some(format!("luck @ {index}/hangs/luck-1.0.tar.gz\n")),
    };
    let dependencies = match requirement {
        None => PythonDependencies::None,
        Some(requirement) => {
            write(directory, "requirements.txt", &requirement);
            PythonDependencies::Requirements { files: vec!["requirements.txt".to_owned()] }
        }
    };
    let web = PROCFILE.trim_end().split_once(": ").map(|(name, command)| (name.parse().unwrap(), command.parse().unwrap()));
    BuildPlan {
        recipe: Recipe::Python(PythonApp::new(dependencies)),
        processes: web.into_iter().collect(),
        release_command: None,
        reason: "found Procfile".to_owned(),
        serving: Serving::default(),
    }
}

fn write_program(tree: Tree, directory: &Path) {
    write(directory, "program.py", PROGRAM);
    write(directory, "Procfile", PROCFILE);
    if let Tree::Program(number) = tree {
        write(directory, "program.py", &format!("{PROGRAM}\n# {number}\n"));
    }
}

fn write(directory: &Path, name: &str, content: &str) {
    std::fs::write(directory.join(name), content).unwrap();
}
