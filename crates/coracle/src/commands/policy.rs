//! `coracle policy`: what the policy says of this directory. Nothing is built, and no server is asked.

use std::path::{Path, PathBuf};

use clap::Args;
use coracle_api::{Finding, PolicyLevel};
use coracle_build::{DockerIgnore, PlanError};
use coracle_compose::deploy;
use coracle_model::policy::Rule;
use coracle_model::{AppSpec, BuildPlan, EngineKind};
use coracle_policy::{Policy, ServerPolicy, Subject, explain, parts};
use serde::Serialize;

use super::deploy::compose_file;
use super::{DONE, ExitCode};
use crate::context::{Context, MANIFEST, directory_name, nameless, overlay_of, spec_of};
use crate::failure::Failure;
use crate::output::{Style, findings};

/// The exit code when something would end a deployment.
const BLOCKED: ExitCode = 1;

/// Say what the policy has against the app in this directory
///
/// Looks at what would be sent to the server and says what can be known without a build and without a server: a deployment
/// looks at the image as well, knows the app's configuration and what the server's administrator says. Ends with 1 if
/// something would end a deployment.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle policy
  coracle policy ./shop --json
  coracle policy --list                 the rules, and what coracle.toml here says of each")]
pub(crate) struct Arguments {
    /// The directory of the app
    #[arg(default_value = ".", hide_default_value = true)]
    path: PathBuf,
    /// Explain each rule, and say how much it weighs here
    #[arg(long)]
    list: bool,
}

/// What was found, for scripts.
#[derive(Debug, Serialize)]
struct Report {
    findings: Vec<Finding>,
    blocked: bool,
}

/// A rule, for scripts.
#[derive(Debug, Serialize)]
struct Explained {
    rule: &'static str,
    looks_for: &'static str,
    why: &'static str,
    by_default: &'static str,
    /// What coracle.toml says; nothing if it says nothing.
    level: Option<PolicyLevel>,
    reason: Option<String>,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let root = arguments.path.as_path();
    if !root.is_dir() {
        return Err(Failure::usage(format!("{} is not a directory", root.display())).hint("coracle policy [PATH]"));
    }
    let policy = policy_of(root)?;
    if arguments.list {
        list(&policy, context);
        return Ok(DONE);
    }
    let (root, looking) = (root.to_owned(), context.clone());
    let found = tokio::task::spawn_blocking(move || found(&root, &policy, &looking)).await;
    let found = found.map_err(|error| Failure::failed(format!("looking at the directory broke off: {error}")))??;
    let report = Report { blocked: found.iter().any(|finding| finding.level == PolicyLevel::Block), findings: found };
    context.output.document(&report);
    for finding in &report.findings {
        findings::lines(finding, &context.output).iter().for_each(|line| context.output.line(line));
    }
    if report.findings.is_empty() {
        context.output.line("nothing is said against it");
    }
    context.output.remark("what an image says of itself, and its history, is looked at when it is deployed");
    Ok(if report.blocked { BLOCKED } else { DONE })
}

fn list(policy: &Policy, context: &Context) {
    let output = &context.output;
    let explained = Rule::ALL.map(|rule| {
        let (it, said) = (explain(rule), policy.setting(rule));
        let level = said.map(|said| said.level.into());
        let reason = said.and_then(|said| said.reason.clone());
        Explained { rule: rule.as_str(), looks_for: it.looks_for, why: it.why, by_default: it.by_default, level, reason }
    });
    output.document(&explained);
    let paint = output.paint();
    for rule in &explained {
        let level = match rule.level {
            Some(PolicyLevel::Off) => "off, by coracle.toml",
            Some(PolicyLevel::Warn) => "warn, by coracle.toml",
            Some(PolicyLevel::Block) => "block, by coracle.toml",
            None => rule.by_default,
        };
        let reason = rule.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        output.line(format!("{} ({level}{reason})", paint.with(Style::Bold, rule.rule)));
        output.line(format!("  looks for  {}", rule.looks_for));
        output.line(format!("  since      {}", rule.why));
    }
}

/// The `[policy]` of the manifest.
fn policy_of(root: &Path) -> Result<Policy, Failure> {
    let path = root.join(MANIFEST);
    let Some(text) = crate::project_file::manifest(&path)? else { return Ok(Policy::default()) };
    Policy::parse(&text)
        .map_err(|mistakes| Failure::usage(format!("{} has mistakes", path.display())).excerpt(mistakes.to_string()))
}

fn found(root: &Path, policy: &Policy, context: &Context) -> Result<Vec<Finding>, Failure> {
    let environment = context.global.environment.as_deref();
    let by_compose = compose_file(root, environment)?.is_some();
    let rules = if by_compose { coracle_build::compose_ignore } else { coracle_build::source_ignore };
    let ignore = rules(root).map_err(|error| Failure::usage(error.to_string()))?;
    let (spec, plan, engine) = match by_compose {
        true => (of_compose(root, context)?, None, EngineKind::Docker),
        false => planned(root, &ignore, context)?,
    };
    let parts = parts(root, &spec, plan.as_ref(), engine);
    let subject = Subject { root, ignore: &ignore, parts, config: &[] };
    Ok(policy.judge(&ServerPolicy::default(), subject.observe()).into_iter().map(Into::into).collect())
}

/// What is built of the directory, on the engine that it asks for, else on docker.
fn planned(root: &Path, ignore: &DockerIgnore, context: &Context) -> Result<(AppSpec, Option<BuildPlan>, EngineKind), Failure> {
    let app = context.global.app.clone().or_else(|| directory_name(root));
    let spec = match spec_of(root, context.global.environment.as_deref(), app.clone())? {
        Some(spec) => spec,
        None => AppSpec::named(app.ok_or_else(nameless)?),
    };
    let engine = spec.engine.unwrap_or(EngineKind::Docker);
    if spec.is_stack() {
        return Ok((spec, None, engine));
    }
    let plan = coracle_build::plan_without(root, ignore, &spec, engine).map_err(|error| match error {
        PlanError::Unsuitable { message, hint } => Failure::failed(message).hint(hint),
        error => Failure::failed(error.to_string()),
    })?;
    Ok((spec, Some(plan), engine))
}

/// What compose files describe.
fn of_compose(root: &Path, context: &Context) -> Result<AppSpec, Failure> {
    let app = context.global.app.clone().or_else(|| directory_name(root)).ok_or_else(nameless)?;
    let tree = root.canonicalize().map_err(|error| Failure::failed(format!("cannot read {}: {error}", root.display())))?;
    let options = coracle_compose::Options {
        files: Vec::new(),
        project_dir: Some(tree.clone()),
        project_name: Some(app.to_string()),
        profiles: Vec::new(),
        env_files: Vec::new(),
        environment: Default::default(),
        working_dir: tree.clone(),
        stdin: None,
        within: Some(tree.clone()),
    };
    let loaded = coracle_compose::load(&options).map_err(|error| {
        let hint = error.hint.clone().unwrap_or_default();
        Failure::failed(error.to_string()).hint(hint)
    })?;
    let overlay = overlay_of(root, context.global.environment.as_deref(), &app)?;
    let hosts = overlay.as_ref().and_then(|overlay| overlay.hosts().map(<[_]>::to_vec));
    let mut made = deploy::app_spec(&loaded, deploy::Surroundings { app, tree: &tree, closed: None, hosts });
    if let Some(overlay) = overlay {
        overlay.lay_over(&mut made.spec);
    }
    Ok(made.spec)
}
