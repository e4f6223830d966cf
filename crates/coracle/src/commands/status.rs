//! `coracle status`: how an app stands.

use clap::Args;
use coracle_api::{AppState, AppStatus};
use jiff::Timestamp;

use super::{DONE, ExitCode, ps};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::text::harmless;
use crate::output::{Style, moment};

/// Show how the app stands
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle status
  coracle status -a shop --json")]
pub(crate) struct Arguments {}

/// Does it.
pub(crate) async fn run(_: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let app = context.app()?;
    let status = context.client()?.app(&app).await?;
    context.output.document(&status);
    show(&status, context, Timestamp::now());
    Ok(DONE)
}

/// The colour of a state.
pub(crate) fn style_of(state: AppState) -> Style {
    match state {
        AppState::Running => Style::Green,
        AppState::Degraded | AppState::NotDeployed | AppState::Stopped => Style::Yellow,
        AppState::Down => Style::Red,
    }
}

fn show(status: &AppStatus, context: &Context, now: Timestamp) {
    let output = &context.output;
    let paint = output.paint();
    let fact = |name: &str, value: String| output.line(format!("{} {value}", paint.with(Style::Dim, format!("{name:<11}"))));
    fact("app", paint.with(Style::Bold, status.name.as_str()));
    fact("state", paint.with(style_of(status.state), status.state.as_str()));
    if let Some(release) = &status.release {
        let age = moment::ago(release.created_at, now);
        fact("release", format!("{} ({}, {}), {age}", release.number, harmless(&release.description), release.engine));
    }
    for url in &status.urls {
        fact("url", harmless(url).into_owned());
    }
    for process in &status.processes {
        fact("process", format!("{} {} of {}", process.name, process.running, process.wanted));
    }
    for service in &status.services {
        let image = service.image.as_deref().map(|image| format!("{}, ", harmless(image))).unwrap_or_default();
        fact("service", format!("{} {image}since {}: {}", service.name, service.release, ps::words(service.state.as_ref(), now)));
    }
    if let Some(deployment) = &status.deployment {
        fact("deployment", format!("{} of {} is in {}", deployment.kind, deployment.to, deployment.phase));
    }
    if let Some(waiting) = &status.waiting {
        fact("waiting", format!("{} waits for approval: coracle approve {}", waiting.to, waiting.id));
    }
    if !status.instances.is_empty() {
        output.line("");
        let table = ps::table(&status.instances, &status.services, now).render(output.manner().width, paint);
        output.line(table.trim_end());
    }
    match status.state {
        // What waits is told above, with what is to be typed.
        AppState::NotDeployed if status.waiting.is_some() => {}
        AppState::NotDeployed => output.remark(format!("next: {}", context.global.command("deploy"))),
        AppState::Down | AppState::Degraded => output.remark(format!("next: coracle logs -a {}", status.name)),
        AppState::Running | AppState::Stopped => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use coracle_api::{Exit, Health, InstanceState, InstanceStatus, ProcessStatus, ServiceStatus};

    use super::*;
    use crate::arguments::Global;
    use crate::output::Manner;
    use crate::output::testing::pages;

    #[test]
    fn an_app_that_limps_shows_what_ended_and_where_to_look() {
        let instance = |id: &str, state| {
            let id: coracle_model::InstanceId = id.parse().unwrap();
            InstanceStatus { process: id.process.clone(), release: id.release, id, state }
        };
        let status = AppStatus {
            name: "shop".parse().unwrap(),
            state: AppState::Degraded,
            release: None,
            hosts: vec!["shop.localhost".into()],
            urls: vec!["http://shop.localhost:8080".into()],
            processes: vec![ProcessStatus { name: "web".parse().unwrap(), wanted: 2, running: 1 }],
            services: vec![
                ServiceStatus {
                    name: "cache".parse().unwrap(),
                    image: Some("redis:7".into()),
                    release: "v3".parse().unwrap(),
                    state: None,
                },
                ServiceStatus {
                    name: "db".parse().unwrap(),
                    image: Some("postgres:16".into()),
                    release: "v1".parse().unwrap(),
                    state: Some(InstanceState::Running { health: Health::Healthy, since: Timestamp::UNIX_EPOCH }),
                },
            ],
            instances: vec![
                instance("shop.v3.web.1", InstanceState::Running { health: Health::Healthy, since: Timestamp::UNIX_EPOCH }),
                instance("shop.v3.web.2", InstanceState::Exited { exit: Exit { code: Some(1), ..Exit::default() } }),
            ],
            deployment: None,
            waiting: None,
            created_at: Timestamp::UNIX_EPOCH,
        };
        let (output, out, err) = pages(Manner::plain());
        let context = Context { global: Global::default(), output: Arc::new(output), directory: "/".into() };
        show(&status, &context, Timestamp::from_second(61).unwrap());
        insta::assert_snapshot!(out.text(), @r"
        app         shop
        state       degraded
        url         http://shop.localhost:8080
        process     web 1 of 2
        service     cache redis:7, since v3: is not there
        service     db postgres:16, since v1: running for 1 min, healthy

        INSTANCE       STATE    HEALTH   SINCE        KEEPS DATA
        shop.v3.web.1  running  healthy  1 min
        shop.v3.web.2  exited            exit code 1
        ");
        assert_eq!(err.text(), "next: coracle logs -a shop\n");
    }
}
