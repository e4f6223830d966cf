//! The arrows between crates, checked over `cargo metadata`: who may depend on whom, where the heavy dependencies live,
//! and that every licence is one we allow. A forbidden arrow is printed with the reason it is forbidden for.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod arrows {
    pub mod licence;
    pub mod rules;
}

use std::collections::BTreeSet;

use arrows::{licence, rules};
use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand};

/// The whole workspace, resolved as `Cargo.lock` says, without touching the network.
fn workspace() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .features(CargoOpt::AllFeatures)
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .unwrap()
}

/// Every direct dependency of our crates, of any kind, on any platform.
fn edges(metadata: &Metadata) -> BTreeSet<(String, String)> {
    let members = metadata.workspace_packages();
    let direct = members.iter().flat_map(|package| {
        let from = package.name.to_string();
        package.dependencies.iter().map(move |dependency| (from.clone(), dependency.name.clone()))
    });
    direct.collect()
}

#[test]
fn every_arrow_is_an_allowed_one() {
    let edges = edges(&workspace());
    let offences: Vec<_> = edges.iter().filter_map(|(from, to)| rules::offence(from, to)).collect();
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn the_lab_is_for_tests_alone() {
    for package in workspace().workspace_packages() {
        let used = package.dependencies.iter().find(|it| it.name == "coracle-lab" && it.kind != DependencyKind::Development);
        assert!(used.is_none(), "{} needs coracle-lab outside its tests", package.name);
    }
}

#[test]
fn the_rules_know_every_crate_and_name_none_that_is_gone() {
    let ours: BTreeSet<String> = workspace().workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let known: BTreeSet<String> = rules::CRATES.iter().map(|rule| rule.name.to_owned()).collect();
    assert_eq!(ours, known, "tests/tests/arrows/rules.rs lists the crates and what each may use");
}

#[test]
fn nothing_banned_is_in_the_lock_file_and_every_licence_is_allowed() {
    let metadata = workspace();
    let mut offences = Vec::new();
    for package in &metadata.packages {
        offences.extend(rules::banned(&package.name).map(|why| format!("{}: {why}", package.name)));
        let licence = package.license.as_deref().unwrap_or("none");
        if !licence::allowed(licence) {
            offences.push(format!("{} {}: licence {licence} is not among {:?}", package.name, package.version, licence::ALLOWED));
        }
    }
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn a_forbidden_arrow_is_told_with_its_reason() {
    for (from, to, reason) in [
        ("coracle-orchestrator", "coracle-engine-docker", "names no concrete engine"),
        ("coracle-orchestrator", "coracle-proxy", "proxy-table"),
        ("coracle-proxy", "coracle-model", "knows no apps"),
        ("coracle-engine", "bollard", "engine-docker alone"),
        ("coracle-server", "sqlx", "two programs' stores"),
        ("coracle-model", "tokio", "no I/O"),
    ] {
        let offence = rules::offence(from, to).unwrap_or_else(|| panic!("{from} → {to} was let through"));
        assert!(offence.contains(reason), "{offence}");
    }
    assert_eq!(rules::offence("coracle-server", "coracle-engine-docker"), None);
}
