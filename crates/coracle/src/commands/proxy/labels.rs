//! `coracle proxy labels`: what containers' labels come to.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use coracle_api::LabelProblem;
use coracle_server::discovery::{Preview, preview};
use coracle_server::labels::Entrance;
use serde_json::{Value, json};

use crate::commands::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::labelling::LabelArguments;
use crate::output::{Columns, Style, columns::Cell};

/// The most bytes of containers that are read.
const LONGEST: u64 = 64 << 20;

/// Tell what the Traefik labels of containers come to: routers, services, middlewares, and what is left out
///
/// Of the containers that this machine's server discovers; or, with --containers, of those in what `docker inspect` printed, for
/// a server that listens for TLS and orders certificates. Nothing is changed. With --json it is all of it, in Traefik's words.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle proxy labels
  docker inspect $(docker ps -q) | coracle proxy labels --containers -
  coracle proxy labels --containers inspected.json --exposed-by-default --json")]
pub(super) struct Arguments {
    /// What `docker inspect` printed for the containers; - for standard input
    #[arg(long, value_name = "FILE")]
    containers: Option<PathBuf>,
    #[command(flatten)]
    labels: LabelArguments,
}

/// Does it.
pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let (mut said, problems) = match &arguments.containers {
        Some(file) => previewed(file, &arguments.labels)?,
        None => discovered(&arguments.labels, context).await?,
    };
    if context.output.manner().json {
        said["problems"] = json!(problems);
        context.output.json_line(&said);
        return Ok(DONE);
    }
    let routers: Vec<Value> = rows(&said);
    context.output.list(&routers, "no routers", routers_table);
    if !problems.is_empty() {
        context.output.line("");
        context.output.list(&problems, "", problems_table);
    }
    Ok(DONE)
}

fn previewed(file: &Path, labels: &LabelArguments) -> Result<(Value, Vec<LabelProblem>), Failure> {
    let text = read(file).map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
    let entrance = Entrance { tls_port: Some(443), acme: true, redirect: true };
    let preview = preview(&text, &labels.options()?, entrance);
    let Preview { mut configuration, table, problems } =
        preview.map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
    configuration["table"] = json!(table);
    let problems = problems.into_iter().map(|problem| LabelProblem {
        kind: problem.kind.as_str().to_owned(),
        containers: problem.containers,
        about: problem.about,
        message: problem.message,
    });
    Ok((configuration, problems.collect()))
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    match file == Path::new("-") {
        true => std::io::stdin().lock().take(LONGEST).read_to_string(&mut text)?,
        false => std::fs::File::open(file)?.take(LONGEST).read_to_string(&mut text)?,
    };
    Ok(text)
}

async fn discovered(labels: &LabelArguments, context: &Context) -> Result<(Value, Vec<LabelProblem>), Failure> {
    if let Some(option) = labels.typed().first() {
        let hint = "the server's own were said when it was started; name a file by --containers to try others";
        return Err(Failure::usage(format!("{option} is nothing to ask a server")).hint(hint));
    }
    let discovery = context.client()?.discovery().await?;
    if !discovery.on {
        return Err(Failure::failed("this server discovers no containers")
            .hint("it was started with --no-discover or --engine process; --containers tells what labels would do"));
    }
    if let Some(failure) = &discovery.failure {
        context.output.remark(format!("containers cannot be looked at now: {failure}"));
    }
    Ok((discovery.configuration, discovery.problems))
}

/// The routers, each with its name and with what its service leads to.
fn rows(said: &Value) -> Vec<Value> {
    let routers = said["routers"].as_object().into_iter().flatten();
    routers.map(|(name, router)| json!({ "name": name, "router": router, "servers": servers(said, router) })).collect()
}

fn servers(said: &Value, router: &Value) -> Vec<String> {
    let service = router["service"].as_str().unwrap_or_default();
    let service = service.strip_suffix("@docker").unwrap_or(service);
    let servers = said["services"][service]["loadBalancer"]["servers"].as_array();
    servers.into_iter().flatten().filter_map(|server| server["url"].as_str().map(str::to_owned)).collect()
}

fn routers_table(rows: &[Value]) -> Columns {
    let texts = |value: &Value| {
        let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.collect::<Vec<_>>().join(", ")
    };
    let mut columns = Columns::new(&["router", "rule", "from", "on the way", "service", "servers"]);
    for row in rows {
        let router = &row["router"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        columns.row([
            text(&row["name"]).into(),
            text(&router["rule"]).into(),
            texts(&router["entryPoints"]).into(),
            texts(&router["middlewares"]).into(),
            text(&router["service"]).into(),
            texts(&row["servers"]).into(),
        ]);
    }
    columns
}

fn problems_table(problems: &[LabelProblem]) -> Columns {
    let mut columns = Columns::new(&["problem", "containers", "about", "what"]);
    for problem in problems {
        let style = if problem.kind == "ignored" { Style::Dim } else { Style::Red };
        columns.row([
            Cell::styled(problem.kind.clone(), style),
            problem.containers.join(", ").into(),
            problem.about.clone().unwrap_or_default().into(),
            problem.message.clone().into(),
        ]);
    }
    columns
}
