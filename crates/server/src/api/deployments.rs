//! Deployments: begun, followed, called off.

use std::sync::Arc;

use axum::Json as Answered;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use coracle_api::{
    BranchAnswer, ChangeOptions, DeployOptions, Deployment, DeploymentEvent, DeploymentList, DeploymentPlan, Outcome, Problem,
    ProblemKind, PushRequest, RejectRequest, RollbackRequest,
};
use coracle_git_door::{Push, Ticket};
use coracle_model::{AppName, DeploymentId, Role};
use coracle_orchestrator::{Planned, StatefulChanges};
use coracle_pipeline::Trigger;
use tokio_util::sync::CancellationToken;

use super::answer;
use super::extract::{App, Id, Json, Options};
use super::{Answer, ApiError, Shared};
use crate::access::Caller;
use crate::deployments::{Files, Work};
use crate::gate::Pushed;
use crate::intake;
use crate::journal::{Asker, Journal, Opening};
use crate::previews::Came;
use crate::source::{Sent, Sources};

/// How many deployments a list shows.
const LISTED: u32 = 50;

/// The longest name of a commit: SHA-256 in hexadecimal digits, and what `git describe` puts around it.
const LONGEST_COMMIT: usize = 100;

/// Deploys a source tree: a gzip-compressed tar archive with the manifest at its root. Unless `detach` is set, closing the
/// connection calls the deployment off (until the switch).
#[utoipa::path(post, path = "/apps/{app}/deployments", tag = "deployments", operation_id = "deploy_app", params(("app" = String, Path), DeployOptions),
    request_body(content = String, content_type = "application/gzip"), responses(
    (status = 200, body = DeploymentEvent, content_type = "text/event-stream"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn deploy(
    State(context): State<Shared>,
    caller: Caller,
    App(app): App,
    Options(options): Options<DeployOptions>,
    body: Request,
) -> Answer<Response> {
    if options.import.is_some() {
        caller.administers("taking the place of a compose project")?;
    }
    if options.recreate_services.is_some() {
        caller.demand(&app, Role::Owner, "changing services that keep data")?;
    }
    if !options.wait {
        // Told before a large tree has been sent for nothing; decided again when it is the deployment's turn.
        drop(context.deployments.try_turn(&app)?);
    }
    let change = options.change();
    let sent = take_in(&context, &caller, options, body).await?;
    // While it came the app may have been destroyed, and with it the role to bring it.
    let still = async { caller.again(&context.people).await?.brings(&context.store, &app, Role::Deployer).await };
    if let Err(problem) = still.await {
        sent.tree.remove().await;
        return Err(problem.into());
    }
    let journal = context.deployments.begin_for(&caller, app, Work::Deploy(Box::new(sent)), change);
    opened(&journal, change.detach).await
}

fn under_way(context: &Shared, app: &AppName, request: &PushRequest) -> Answer<Arc<Push>> {
    let push = context.door.push(&Ticket::shown(&request.ticket)).filter(|push| push.app() == app);
    Ok(push.ok_or_else(|| Problem::new(ProblemKind::NotFound, "no such push is under way"))?)
}

/// A push that is under way moves a branch that is not the deployed one: what becomes of it, or the deployment into its preview.
pub(super) async fn push_branch(
    State(context): State<Shared>,
    App(app): App,
    Json(request): Json<PushRequest>,
) -> Answer<Response> {
    let push = under_way(&context, &app, &request)?;
    let pushed = Pushed::of_another_branch(push.clone(), &request)?;
    let branch = pushed.branch().to_owned();
    let answer = match pushed.commit() {
        None => {
            let previews = context.previews.clone();
            // It goes on to its end even if the hook that asks is killed: the push is settled by then.
            let gone = context.deployments.own(async move {
                let going = async {
                    pushed.take_hold(push.gone()).await?;
                    previews.branch_gone(&app, &branch).await
                };
                let gone = going.await;
                pushed.settle().await;
                gone
            });
            gone.await?.map_or(BranchAnswer::Gone, |app| BranchAnswer::PreviewGone { app })
        }
        Some(commit) => match context.previews.branch_came(&app, &branch, commit).await? {
            Came::NoPreviews => BranchAnswer::Kept,
            Came::Without(why) => BranchAnswer::WithoutPreview { why },
            Came::Preview(admitted) => {
                let preview = admitted.record.app.clone();
                let work = Work::Preview(Box::new(admitted), Files::Pushed(pushed));
                let journal = context.deployments.begin(preview, work, ChangeOptions { detach: false, wait: true });
                context.deployments.call_off_at(&journal, async move { push.gone().cancelled().await });
                return opened(&journal, false).await;
            }
        },
    };
    Ok(Answered(answer).into_response())
}

/// Deploys the commit of a push that is under way. It is called off when the hook that asks goes away, as well as when whoever
/// pushes does (until the switch).
pub(super) async fn push(State(context): State<Shared>, App(app): App, Json(request): Json<PushRequest>) -> Answer<Response> {
    let push = under_way(&context, &app, &request)?;
    let pushed = Pushed::new(push.clone(), &request)?;
    let journal = context.deployments.begin(app, Work::Push(Arc::new(pushed)), ChangeOptions { detach: false, wait: true });
    context.deployments.left_at(&journal, async move { push.gone().cancelled().await });
    opened(&journal, false).await
}

/// What a deployment of this source tree would do, without doing it.
#[utoipa::path(post, path = "/apps/{app}/deployments/plan", tag = "deployments", operation_id = "plan_deployment", params(("app" = String, Path), DeployOptions),
    request_body(content = String, content_type = "application/gzip"), responses(
    (status = 200, body = DeploymentPlan),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn plan(
    State(context): State<Shared>,
    caller: Caller,
    App(app): App,
    Options(options): Options<DeployOptions>,
    body: Request,
) -> Answer<Answered<DeploymentPlan>> {
    if options.import.is_some() {
        caller.administers("taking the place of a compose project")?;
    }
    let sent = take_in(&context, &caller, options, body).await?;
    let planning = async {
        let request = context.sources.request(&app, &sent, None).await?;
        let Planned { steps, findings } = context.orchestrator.plan(request).await?;
        Ok::<_, ApiError>(DeploymentPlan { steps, findings: findings.into_iter().map(Into::into).collect() })
    };
    let plan = planning.await;
    sent.tree.remove().await;
    Ok(Answered(plan?))
}

async fn take_in(context: &Shared, caller: &Caller, mut options: DeployOptions, request: Request) -> Answer<Sent> {
    options.commit = options.commit.map(checked_commit).transpose()?;
    let stateful = stateful_changes(options.recreate_services.as_deref())?;
    let (head, body) = request.into_parts();
    let Sources { incoming, limits, .. } = &context.sources;
    let tree = intake::receive(incoming, &head.headers, body, *limits).await?;
    Ok(Sent { tree, options, stateful, trusted: caller.is_administrator(), trigger: Trigger::Tree, by: caller.person().cloned() })
}

/// The services that keep data and may be changed: `*`, or names separated by commas.
pub(super) fn stateful_changes(text: Option<&str>) -> Result<StatefulChanges, Problem> {
    let named = match text {
        None => return Ok(StatefulChanges::None),
        Some("*") => return Ok(StatefulChanges::All),
        Some(text) => text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::parse).collect::<Result<_, _>>(),
    };
    let wrong = |error: coracle_model::NameError| Problem::new(ProblemKind::BadRequest, error.to_string());
    Ok(StatefulChanges::Named(named.map_err(wrong)?))
}

/// A commit is shown to people and told to no program, so any short plain word will do.
fn checked_commit(commit: String) -> Result<String, Problem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+/".contains(&byte);
    if (1..=LONGEST_COMMIT).contains(&commit.len()) && commit.bytes().all(allowed) {
        return Ok(commit);
    }
    let detail = format!("a commit is named by up to {LONGEST_COMMIT} letters, digits and any of -_.+/");
    Err(Problem::new(ProblemKind::BadRequest, detail).hint("`git rev-parse HEAD` names it"))
}

/// The latest deployments of an app, newest first.
#[utoipa::path(get, path = "/apps/{app}/deployments", tag = "deployments", operation_id = "list_deployments", params(("app" = String, Path)), responses(
    (status = 200, body = DeploymentList),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(context): State<Shared>, App(app): App) -> Answer<Answered<DeploymentList>> {
    context.store.app(&app).await?;
    let deployments = context.store.deployments(&app, LISTED).await?;
    Ok(Answered(DeploymentList { deployments: deployments.into_iter().map(Deployment::from).collect() }))
}

/// One deployment.
#[utoipa::path(get, path = "/deployments/{id}", tag = "deployments", operation_id = "show_deployment", params(("id" = String, Path, example = "d12")), responses(
    (status = 200, body = Deployment),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(State(context): State<Shared>, Id(id): Id) -> Answer<Answered<Deployment>> {
    Ok(Answered(recorded(&context, id).await?))
}

async fn recorded(context: &Shared, id: DeploymentId) -> Answer<Deployment> {
    let missing = || Problem::new(ProblemKind::NotFound, format!("there is no deployment {id}"));
    Ok(context.store.deployment(id).await?.ok_or_else(missing)?.into())
}

/// The events of a deployment from its start, and on until its end. Closing the connection calls nothing off.
#[utoipa::path(get, path = "/deployments/{id}/events", tag = "deployments", operation_id = "follow_deployment", params(("id" = String, Path, example = "d12")), responses(
    (status = 200, body = DeploymentEvent, content_type = "text/event-stream"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn events(State(context): State<Shared>, Id(id): Id) -> Answer<Response> {
    if let Some(reader) = context.deployments.reader(id) {
        return Ok(answer::events(reader, None));
    }
    // It is too long ago: what the record says is what is left of it.
    let deployment = recorded(&context, id).await?;
    let journal = Arc::new(Journal::new(deployment.app.clone(), CancellationToken::new()));
    let outcome = deployment.outcome.clone();
    let problem = outcome.as_ref().and_then(|outcome| problem_of(outcome, deployment.from.is_some()));
    journal.tell(DeploymentEvent::Began { deployment });
    if let Some(outcome) = outcome {
        journal.set_outcome(outcome);
    }
    journal.end(problem);
    Ok(answer::events(journal.reader(), None))
}

/// What there is to say about a recorded outcome that is no success.
fn problem_of(outcome: &Outcome, had_release: bool) -> Option<Problem> {
    match outcome {
        Outcome::Succeeded | Outcome::Unchanged => None,
        Outcome::Failed { phase, cause, evidence } => {
            Some(Problem::new(ProblemKind::DeploymentFailed, format!("{phase} failed: {cause}")).evidence(evidence.clone()))
        }
        Outcome::Cancelled { phase } => Some(Problem::new(ProblemKind::Cancelled, format!("called off during {phase}"))),
        Outcome::Interrupted { phase, completed } => {
            let end = match (completed, had_release) {
                (true, _) => "the new release is active",
                (false, true) => "the old release serves",
                (false, false) => "the app has no release yet",
            };
            Some(Problem::new(ProblemKind::Other, format!("the server was stopped during {phase}; {end}")))
        }
    }
}

/// Calls a deployment off. Refused from the switch on.
#[utoipa::path(post, path = "/deployments/{id}/cancel", tag = "deployments", operation_id = "cancel_deployment", params(("id" = String, Path, example = "d12")), responses(
    (status = 202, body = Deployment, description = "It is being called off; its events tell the end"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn cancel(State(context): State<Shared>, Id(id): Id) -> Answer<(http::StatusCode, Answered<Deployment>)> {
    let conflict = |detail| Problem::new(ProblemKind::Conflict, detail);
    let running = context.deployments.journal(id).filter(|journal| !journal.has_ended());
    let Some((journal, deployment)) = running.and_then(|journal| journal.deployment().map(|it| (journal, it))) else {
        let deployment = recorded(&context, id).await?;
        return Err(conflict(format!("deployment {id} of {} has ended", deployment.app)).into());
    };
    if !deployment.phase.can_cancel() {
        let detail = format!("deployment {id} is past its switch (it is in {}) and runs to its end", deployment.phase);
        return Err(conflict(detail).hint(format!("go back with `coracle rollback -a {}`", deployment.app)).into());
    }
    journal.cancel.cancel();
    Ok((http::StatusCode::ACCEPTED, Answered(deployment)))
}

/// Allows a deployment that waits for approval: it goes on, and its events tell the end.
#[utoipa::path(post, path = "/deployments/{id}/approve", tag = "deployments", operation_id = "approve_deployment", params(("id" = String, Path, example = "d12")), responses(
    (status = 202, body = Deployment, description = "It goes on; its events tell the end"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn approve(
    State(context): State<Shared>,
    caller: Caller,
    Id(id): Id,
) -> Answer<(http::StatusCode, Answered<Deployment>)> {
    let decided = context.deployments.decide(id, &caller, true, None).await?;
    Ok((http::StatusCode::ACCEPTED, Answered(decided.into())))
}

/// Ends a deployment that waits for approval: nothing of it has run, and nothing of it stays.
#[utoipa::path(post, path = "/deployments/{id}/reject", tag = "deployments", operation_id = "reject_deployment", params(("id" = String, Path, example = "d12")),
    request_body = RejectRequest, responses(
    (status = 202, body = Deployment, description = "It ends; its events tell that"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn reject(
    State(context): State<Shared>,
    caller: Caller,
    Id(id): Id,
    Json(request): Json<RejectRequest>,
) -> Answer<(http::StatusCode, Answered<Deployment>)> {
    let decided = context.deployments.decide(id, &caller, false, request.reason).await?;
    Ok((http::StatusCode::ACCEPTED, Answered(decided.into())))
}

/// Takes up an earlier release again: same artifact, same configuration, no rebuild.
#[utoipa::path(post, path = "/apps/{app}/rollback", tag = "deployments", operation_id = "rollback_app", params(("app" = String, Path), ChangeOptions),
    request_body = RollbackRequest, responses(
    (status = 200, body = DeploymentEvent, content_type = "text/event-stream"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn rollback(
    State(context): State<Shared>,
    caller: Caller,
    App(app): App,
    Options(options): Options<ChangeOptions>,
    Json(request): Json<RollbackRequest>,
) -> Answer<Response> {
    if request.recreate_services.is_some() {
        caller.demand(&app, Role::Owner, "changing services that keep data")?;
    }
    let stateful = stateful_changes(request.recreate_services.as_deref())?;
    let work = Work::Rollback { to: request.to, stateful, trusted: caller.is_administrator() };
    let journal = context.deployments.begin_for(&caller, app, work, options);
    opened(&journal, options.detach).await
}

/// Replaces all instances by fresh ones, without losing a request.
#[utoipa::path(post, path = "/apps/{app}/restart", tag = "deployments", operation_id = "restart_app", params(("app" = String, Path), ChangeOptions), responses(
    (status = 200, body = DeploymentEvent, content_type = "text/event-stream"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn restart(
    State(context): State<Shared>,
    caller: Caller,
    App(app): App,
    Options(options): Options<ChangeOptions>,
) -> Answer<Response> {
    let journal = context.deployments.begin_for(&caller, app, Work::Restart, options);
    opened(&journal, options.detach).await
}

pub(super) async fn opened(journal: &Arc<Journal>, detach: bool) -> Answer<Response> {
    let nothing = || Problem::new(ProblemKind::Internal, "the deployment ended without a word");
    Ok(told(journal, detach).await?.ok_or_else(nothing)?)
}

/// The events of a deployment that has just been asked for; or why it was refused; `None` if there was nothing to deploy.
/// Whoever asked for it and goes away calls it off, from the first moment on, unless it is detached or waits for a person.
pub(super) async fn told(journal: &Arc<Journal>, detach: bool) -> Answer<Option<Response>> {
    let asker = (!detach).then(|| Asker::of(journal));
    match journal.opening().await {
        Opening::Told => Ok(Some(answer::events(journal.reader(), asker))),
        Opening::Refused(problem) => Err(problem.into()),
        Opening::Nothing => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use coracle_api::Phase;

    #[test]
    fn nobody_is_told_of_an_old_release_that_never_was() {
        let detail = |completed, had_release| {
            problem_of(&Outcome::Interrupted { phase: Phase::Build, completed }, had_release).unwrap().detail
        };
        assert!(detail(false, true).ends_with("the old release serves"));
        assert!(detail(false, false).ends_with("the app has no release yet"));
        assert!(detail(true, false).ends_with("the new release is active"));
        assert!(problem_of(&Outcome::Succeeded, true).is_none());
    }
}
