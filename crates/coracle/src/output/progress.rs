//! A deployment as a person sees it happen: on a terminal one line that is redrawn (phase, time, last line of output), in a
//! pipe plain lines; and what is left of it at the end.

use std::time::Duration;

use coracle_api::{Deployment, DeploymentEvent, DeploymentKind, Finding, Outcome, Phase, Problem, ProblemKind};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::Output;
use super::findings;
use super::moment;
use super::text::{Style, harmless};
use crate::failure::Failure;

/// Shows the events of one deployment.
pub(crate) struct Progress<'a> {
    output: &'a Output,
    bar: Option<ProgressBar>,
    record: Record,
}

/// What a deployment has told so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// The deployment, once it has its number.
    pub(crate) deployment: Option<Deployment>,
    /// The phases that were begun, and when.
    phases: Vec<(Phase, Duration)>,
    findings: Vec<Finding>,
    live: Option<Live>,
    ended: Option<Ended>,
}

#[derive(Debug, Clone)]
struct Live {
    urls: Vec<String>,
    elapsed_ms: u64,
}

#[derive(Debug, Clone)]
struct Ended {
    at: Duration,
    outcome: Option<Outcome>,
    problem: Option<Problem>,
}

/// What a deployment led to, for scripts.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// The deployment as it was recorded.
    pub(crate) deployment: Deployment,
    /// How it ended.
    pub(crate) outcome: Option<Outcome>,
    /// What the policy says against the release.
    pub(crate) findings: Vec<Finding>,
    /// Where the app can be reached.
    pub(crate) urls: Vec<String>,
    /// Milliseconds from its beginning to the new release getting the requests.
    pub(crate) live_after_ms: Option<u64>,
    /// How long each phase took.
    pub(crate) phases: Vec<PhaseTime>,
}

/// How long a phase took, as seen from here.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct PhaseTime {
    /// The phase.
    pub(crate) phase: Phase,
    /// Milliseconds.
    pub(crate) elapsed_ms: u64,
}

impl<'a> Progress<'a> {
    /// Begins to show.
    pub(crate) fn new(output: &'a Output) -> Self {
        let manner = output.manner();
        let bar = (manner.live && !manner.quiet).then(spinner);
        Self { output, bar, record: Record::default() }
    }

    /// What was told so far.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// What is being done while no event has come yet.
    pub(crate) fn doing(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(what.to_owned());
        }
    }

    /// Shows an event that came `at` this time after the beginning.
    pub(crate) fn take(&mut self, event: DeploymentEvent, at: Duration) {
        match &event {
            DeploymentEvent::Began { deployment } => self.line(&beginning(deployment)),
            DeploymentEvent::Phase { phase } => self.phase(*phase),
            DeploymentEvent::Note { text } => self.line(&format!("  {}", harmless(text))),
            // What was told with an earlier release is summed up by a note.
            DeploymentEvent::Finding { known: true, .. } => {}
            DeploymentEvent::Finding { finding, known: false } => {
                findings::lines(finding, self.output).iter().for_each(|line| self.line(&format!("  {line}")));
            }
            DeploymentEvent::Output { text, .. } => self.program_line(text),
            DeploymentEvent::Healthy { instance } => self.detail(&format!("{instance} is healthy")),
            DeploymentEvent::Live { urls, elapsed_ms, .. } => self.live(urls, *elapsed_ms),
            DeploymentEvent::Ended { .. } => {}
        }
        self.record.take(event, at);
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.tell(text)),
            None => self.output.tell(text),
        }
    }

    /// Says how it ended: the summary, or the failure that is to be reported.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.record.verdict()?;
        for line in self.record.summary_lines(self.output) {
            self.output.tell(line);
        }
        if let Some(summary) = self.record.summary() {
            self.output.document(&summary);
        }
        Ok(())
    }

    fn phase(&self, phase: Phase) {
        if let (Phase::Approval, Some(deployment)) = (phase, &self.record.deployment) {
            // It may take a day: it stays to be read.
            self.line(&format!("{} waiting for approval: coracle approve {}", self.output.manner().mark, deployment.id));
        }
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(doing(phase));
                bar.set_message("");
            }
            None if phase == Phase::Approval => {}
            None => self.line(&format!("{} {}", self.output.manner().mark, doing(phase))),
        }
    }

    /// A line of a build or a release command: passes by on a terminal, stays in a pipe and with `-v`.
    fn program_line(&self, text: &str) {
        let text = harmless(text);
        match &self.bar {
            Some(bar) if !self.output.manner().verbose => bar.set_message(text.trim().replace('\t', " ")),
            _ => self.line(&self.output.paint().with(Style::Dim, format!("    {text}"))),
        }
    }

    fn detail(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => self.line(&format!("    {text}")),
        }
    }

    fn live(&self, urls: &[String], elapsed_ms: u64) {
        let after = moment::length(Duration::from_millis(elapsed_ms));
        self.detail(&format!("{} after {after}", reached(urls)));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Record {
    fn take(&mut self, event: DeploymentEvent, at: Duration) {
        match event {
            DeploymentEvent::Began { deployment } => self.deployment = Some(deployment),
            DeploymentEvent::Phase { phase } => {
                // A stream that is followed again tells everything from the beginning.
                if self.phases.last().is_none_or(|(last, _)| *last < phase) {
                    self.phases.push((phase, at));
                }
            }
            // A stream that is followed again tells everything from the beginning.
            DeploymentEvent::Finding { finding, .. } if !self.findings.contains(&finding) => self.findings.push(finding),
            DeploymentEvent::Finding { .. } => {}
            DeploymentEvent::Live { urls, elapsed_ms, .. } => self.live = Some(Live { urls, elapsed_ms }),
            DeploymentEvent::Ended { outcome, problem } => self.ended = Some(Ended { at, outcome, problem }),
            DeploymentEvent::Note { .. } | DeploymentEvent::Output { .. } | DeploymentEvent::Healthy { .. } => {}
        }
    }

    /// Whether the last event has come.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Whether it waits for a person.
    pub(crate) fn waits(&self) -> bool {
        self.phases.last().is_some_and(|(phase, _)| *phase == Phase::Approval)
    }

    /// Whether it can still be called off, as far as is known here.
    pub(crate) fn can_cancel(&self) -> bool {
        self.phases.last().is_none_or(|(phase, _)| phase.can_cancel())
    }

    /// How long each phase took; the last one until the end.
    pub(crate) fn phase_times(&self) -> Vec<PhaseTime> {
        let end = self.ended.as_ref().map(|ended| ended.at);
        let ends = self.phases.iter().skip(1).map(|(_, at)| *at).chain(end);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.phases
            .iter()
            .zip(ends)
            .map(|((phase, begin), end)| PhaseTime { phase: *phase, elapsed_ms: millis(end.saturating_sub(*begin)) })
            .collect()
    }

    /// For scripts; `None` if it never began.
    pub(crate) fn summary(&self) -> Option<Summary> {
        Some(Summary {
            deployment: self.deployment.clone()?,
            outcome: self.ended.as_ref().and_then(|ended| ended.outcome.clone()),
            findings: self.findings.clone(),
            urls: self.live.as_ref().map(|live| live.urls.clone()).unwrap_or_default(),
            live_after_ms: self.live.as_ref().map(|live| live.elapsed_ms),
            phases: self.phase_times(),
        })
    }

    /// Whether it succeeded, or the failure to report.
    fn verdict(&self) -> Result<(), Failure> {
        let Some(ended) = &self.ended else {
            return Err(Failure::failed("the deployment has not ended").hint(self.where_to_look()));
        };
        if let Some(problem) = &ended.problem {
            return Err(Failure::from(problem.clone()));
        }
        match &ended.outcome {
            Some(Outcome::Succeeded | Outcome::Unchanged | Outcome::Interrupted { completed: true, .. }) => Ok(()),
            Some(Outcome::Failed { phase, cause, evidence }) => {
                Err(Failure::server(ProblemKind::DeploymentFailed, format!("{phase} failed: {cause}"))
                    .evidence(evidence.clone())
                    .hint(self.where_to_look()))
            }
            Some(Outcome::Cancelled { phase }) => {
                Err(Failure::server(ProblemKind::Cancelled, format!("called off during {phase}; nothing has changed")))
            }
            Some(Outcome::Interrupted { phase, completed: false }) => {
                Err(Failure::failed(format!("the server was stopped during {phase}; nothing has changed")).hint("type it again"))
            }
            None => Err(Failure::failed("the deployment was refused")),
        }
    }

    /// Where the rest of the story stands.
    pub(crate) fn where_to_look(&self) -> String {
        match &self.deployment {
            Some(deployment) => format!("coracle deployments -a {}", deployment.app),
            None => "coracle deployments".to_owned(),
        }
    }

    fn is_unchanged(&self) -> bool {
        self.ended.as_ref().is_some_and(|ended| ended.outcome == Some(Outcome::Unchanged))
    }

    fn summary_lines(&self, output: &Output) -> Vec<String> {
        let Some(deployment) = &self.deployment else { return Vec::new() };
        let paint = output.paint();
        let mut lines = vec![match &self.live {
            Some(live) => format!(
                "{} {} of {} is {} ({})",
                paint.with(Style::Green, "✓"),
                paint.with(Style::Bold, deployment.to.to_string()),
                deployment.app,
                reached(&live.urls),
                moment::length(Duration::from_millis(live.elapsed_ms)),
            ),
            None if self.is_unchanged() => {
                let active = deployment.from.map(|from| format!("{from} of ")).unwrap_or_default();
                format!("{} nothing changed: {active}{} goes on", paint.with(Style::Green, "✓"), deployment.app)
            }
            None => format!("{} {} of {} is active", paint.with(Style::Green, "✓"), deployment.to, deployment.app),
        }];
        let times: Vec<_> = self
            .phase_times()
            .into_iter()
            .map(|time| format!("{} {}", time.phase, moment::length(Duration::from_millis(time.elapsed_ms))))
            .collect();
        if !times.is_empty() {
            lines.push(paint.with(Style::Dim, format!("  {}", times.join(" · "))));
        }
        if let (DeploymentKind::Rollback, Some(from)) = (deployment.kind, deployment.from) {
            lines.push(format!("  undo: coracle rollback {from} -a {}", deployment.app));
        }
        lines
    }
}

fn spinner() -> ProgressBar {
    let template = "{spinner:.cyan} {prefix:.bold} {elapsed:.dim} {wide_msg:.dim}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn beginning(deployment: &Deployment) -> String {
    let (id, to, app) = (deployment.id, deployment.to, &deployment.app);
    match (deployment.kind, deployment.from) {
        (DeploymentKind::Deploy, Some(from)) => format!("{id}: deploying {to} of {app}; {from} serves meanwhile"),
        (DeploymentKind::Deploy, None) => format!("{id}: deploying {to} of {app}, its first"),
        (DeploymentKind::Config, _) => format!("{id}: new configuration of {app} as {to}"),
        (DeploymentKind::Rollback, _) => format!("{id}: rolling {app} back, as {to}"),
        (DeploymentKind::Restart, _) => format!("{id}: fresh instances of {app}, as {to}"),
    }
}

/// The phase as something that is being done.
fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Validate => "checking",
        Phase::Build => "building",
        Phase::Pipeline => "running the pipeline",
        Phase::Approval => "waiting for approval",
        Phase::Push => "pushing to the registry",
        Phase::Services => "bringing up the services that keep data",
        Phase::Release => "running the release command",
        Phase::Hold => "holding requests, stopping the old instances",
        Phase::Start => "starting the new instances",
        Phase::Probe => "waiting until they are healthy",
        Phase::Switch => "moving the requests over",
        Phase::Drain => "letting requests on the old instances end",
        Phase::Stop => "stopping the old instances",
        Phase::Record => "tidying up",
    }
}

fn reached(urls: &[String]) -> String {
    match urls {
        [] => "live".to_owned(),
        urls => format!("live at {}", harmless(&urls.join(" and "))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use coracle_api::Stream;

    use super::*;
    use crate::output::Manner;
    use crate::output::testing::pages;

    fn deployment(kind: DeploymentKind) -> Deployment {
        Deployment {
            id: coracle_model::DeploymentId(12),
            app: "shop".parse().unwrap(),
            kind,
            to: "v4".parse().unwrap(),
            from: Some("v3".parse().unwrap()),
            phase: Phase::Validate,
            outcome: None,
            started_at: jiff::Timestamp::UNIX_EPOCH,
            finished_at: None,
            approval: None,
        }
    }

    fn story(kind: DeploymentKind) -> Vec<(u64, DeploymentEvent)> {
        vec![
            (0, DeploymentEvent::Began { deployment: deployment(kind) }),
            (0, DeploymentEvent::Phase { phase: Phase::Validate }),
            (5, DeploymentEvent::Note { text: "blue-green: no process has a writable volume".into() }),
            (10, DeploymentEvent::Phase { phase: Phase::Build }),
            (20, DeploymentEvent::Output { stream: Stream::Stdout, text: "Collecting\x1b[2J flask".into() }),
            (610, DeploymentEvent::Phase { phase: Phase::Start }),
            (700, DeploymentEvent::Phase { phase: Phase::Probe }),
            (1080, DeploymentEvent::Healthy { instance: "shop.v4.web.1".parse().unwrap() }),
            (1090, DeploymentEvent::Phase { phase: Phase::Switch }),
            (
                1100,
                DeploymentEvent::Live {
                    hosts: vec!["shop.localhost".into()],
                    urls: vec!["http://shop.localhost:8080".into()],
                    elapsed_ms: 1100,
                },
            ),
            (1100, DeploymentEvent::Phase { phase: Phase::Drain }),
            (3100, DeploymentEvent::Phase { phase: Phase::Stop }),
            (3150, DeploymentEvent::Phase { phase: Phase::Record }),
            (3200, DeploymentEvent::Ended { outcome: Some(Outcome::Succeeded), problem: None }),
        ]
    }

    fn shown(manner: Manner, events: Vec<(u64, DeploymentEvent)>) -> (Result<(), Failure>, String, String) {
        let (output, out, err) = pages(manner);
        let mut progress = Progress::new(&output);
        for (at, event) in events {
            progress.take(event, Duration::from_millis(at));
        }
        (progress.finish(), out.text(), err.text())
    }

    #[test]
    fn a_deployment_in_a_pipe_is_plain_lines_and_a_summary() {
        let (verdict, out, err) = shown(Manner::plain(), story(DeploymentKind::Deploy));
        assert_eq!((verdict, err.as_str()), (Ok(()), ""));
        insta::assert_snapshot!(out, @r"
        d12: deploying v4 of shop; v3 serves meanwhile
        ▸ checking
          blue-green: no process has a writable volume
        ▸ building
            Collecting flask
        ▸ starting the new instances
        ▸ waiting until they are healthy
            shop.v4.web.1 is healthy
        ▸ moving the requests over
            live at http://shop.localhost:8080 after 1.1 s
        ▸ letting requests on the old instances end
        ▸ stopping the old instances
        ▸ tidying up
        ✓ v4 of shop is live at http://shop.localhost:8080 (1.1 s)
          validate 10 ms · build 600 ms · start 90 ms · probe 390 ms · switch 10 ms · drain 2.0 s · stop 50 ms · record 50 ms
        ");
    }

    #[test]
    fn a_rollback_says_how_to_undo_it() {
        let (_, out, _) = shown(Manner::plain(), story(DeploymentKind::Rollback));
        assert_eq!(out.lines().last(), Some("  undo: coracle rollback v3 -a shop"));
    }

    #[test]
    fn with_json_there_is_one_document_and_progress_stays_off_standard_output() {
        let (verdict, out, err) = shown(Manner { json: true, ..Manner::plain() }, story(DeploymentKind::Deploy));
        assert_eq!(verdict, Ok(()));
        let summary: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(summary["deployment"]["to"], 4);
        assert_eq!(summary["live_after_ms"], 1100);
        assert_eq!(summary["phases"][1], serde_json::json!({"phase": "build", "elapsed_ms": 600}));
        assert!(err.starts_with("d12: deploying"), "{err}");
    }

    #[test]
    fn quiet_is_silent_about_success() {
        let (verdict, out, err) = shown(Manner { quiet: true, ..Manner::plain() }, story(DeploymentKind::Deploy));
        assert_eq!((verdict, out.as_str(), err.as_str()), (Ok(()), "", ""));
    }

    #[test]
    fn a_failed_deployment_is_a_failure_with_the_servers_evidence_and_hint() {
        let problem = Problem::new(ProblemKind::DeploymentFailed, "probe failed: shop.v4.web.1 exited with code 1")
            .evidence(vec!["ImportError: flask".into()])
            .hint("v3 serves; mend it and type `coracle deploy`");
        let outcome = Outcome::Failed { phase: Phase::Probe, cause: "…".into(), evidence: Vec::new() };
        let mut events = story(DeploymentKind::Deploy);
        events.truncate(7);
        events.push((900, DeploymentEvent::Ended { outcome: Some(outcome), problem: Some(problem.clone()) }));
        let (verdict, ..) = shown(Manner::plain(), events);
        let failure = verdict.unwrap_err();
        assert_eq!(failure, Failure::from(problem));
        assert_eq!(failure.exit_code(), 1);
    }

    #[test]
    fn a_stream_that_breaks_off_is_not_taken_for_success() {
        let mut events = story(DeploymentKind::Deploy);
        events.pop();
        let (verdict, ..) = shown(Manner::plain(), events);
        insta::assert_snapshot!(verdict.unwrap_err().render(crate::output::Paint(false), false), @r"
        error: the deployment has not ended
        next: coracle deployments -a shop
        ");
    }

    #[test]
    fn following_again_does_not_count_phases_twice() {
        let events: Vec<_> = story(DeploymentKind::Deploy).into_iter().take(5).chain(story(DeploymentKind::Deploy)).collect();
        let mut record = Record::default();
        for (at, event) in events {
            record.take(event, Duration::from_millis(at));
        }
        assert_eq!(record.phase_times().len(), 8);
    }
}
