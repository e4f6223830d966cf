//! `GET /ws`: an execution that can be typed at. The first message is the program, the others are what is typed.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::response::Response;
use bytes::Bytes;
use coracle_sandbox::Stdin;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::stream::{StreamEvent, Telling};
use crate::caller::Caller;
use crate::execution::Ongoing;
use crate::keys::PROTOCOL;
use crate::peers::Held;
use crate::problem::{Problem, ProblemKind};
use crate::program::{ProgramBody, read_json};

/// How long the first message may take to come.
const FIRST_MESSAGE: Duration = Duration::from_secs(30);

/// How long a message may take to be taken.
const TAKING: Duration = Duration::from_secs(30);

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(open))
}

/// What a client sends after the program. A binary message is typed as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Typed {
    /// Something is typed.
    Stdin {
        /// The text.
        data: String,
    },
    /// Nothing more will be typed.
    StdinEnd,
    /// The program shall end.
    Cancel,
}

/// An interactive execution over a WebSocket (RFC 6455).
///
/// The first message is the program, as `POST /execute` takes it; its `stdin` is typed first. Then `{"type": "stdin", "data":
/// …}`, `{"type": "stdin_end"}` and `{"type": "cancel"}`, and binary messages as input, can be sent. The server sends what a
/// stream of `POST /execute` would, one event in each message, and closes after the last one. A page's script, which can send no
/// header, offers the subprotocols `pyrunner` and `pyrunner.key.KEY`.
#[utoipa::path(get, path = "/ws", tag = "execution", operation_id = "interact", responses(
    (status = 101, description = "The WebSocket is open"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
async fn open(
    State(context): State<Shared>,
    Extension(caller): Extension<Caller>,
    Extension(held): Extension<Held>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let refused = |error: WebSocketUpgradeRejection| {
        Problem::new(ProblemKind::BadRequest, format!("this is no WebSocket: {error}")).hint("open it with a WebSocket client")
    };
    let most = context.settings.most_body;
    let upgrade = upgrade.map_err(refused)?.max_message_size(most).max_frame_size(most).protocols([PROTOCOL]);
    let tasks = context.tasks.clone();
    Ok(upgrade.on_upgrade(move |socket| async move {
        // Counted, so that draining waits for it.
        let _counted = tasks.token();
        converse(context, caller, socket).await;
        // Until here it was one of the connections that its client, and everybody, may have.
        drop(held);
    }))
}

async fn converse(context: Shared, caller: Caller, mut socket: WebSocket) {
    match begin(&context, &caller, &mut socket).await {
        Ok(Some(telling)) => interact(telling, &mut socket).await,
        Ok(None) => {}
        Err(problem) => drop(tell(&mut socket, &StreamEvent::Error { problem }).await),
    }
    if let Ok(Err(error)) = tokio::time::timeout(TAKING, socket.send(Message::Close(None))).await {
        tracing::debug!(%error, "a WebSocket was closed by its client");
    }
}

/// The execution of the program in the first message; `None` if the client leaves before.
async fn begin(context: &Shared, caller: &Caller, socket: &mut WebSocket) -> Result<Option<Telling>, Problem> {
    let late = |_| Problem::new(ProblemKind::TimedOut, "no program came in time");
    let first = loop {
        match tokio::time::timeout(FIRST_MESSAGE, socket.recv()).await.map_err(late)? {
            Some(Ok(Message::Text(text))) => break Bytes::from(text),
            Some(Ok(Message::Binary(bytes))) => break bytes,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return Ok(None),
        }
    };
    let program: ProgramBody = read_json(&first)?;
    let mut execution = program.into_execution(&caller.limits, &context.settings.default_image)?;
    let typed = match std::mem::replace(&mut execution.stdin, Stdin::Interactive) {
        Stdin::Bytes(bytes) => bytes,
        Stdin::Interactive => Vec::new(),
    };
    let mut ongoing = Ongoing::start(context, caller, execution, "ws").await?;
    if !typed.is_empty() {
        ongoing.write(typed.into()).await?;
    }
    Ok(Some(Telling::new(ongoing)))
}

async fn interact(mut telling: Telling, socket: &mut WebSocket) {
    loop {
        tokio::select! {
            events = telling.next() => {
                if events.is_empty() {
                    return;
                }
                for event in &events {
                    if tell(socket, event).await.is_err() {
                        return;
                    }
                }
            }
            message = socket.recv() => match heed(&mut telling.ongoing, message).await {
                Ok(true) => {}
                // The client has left, and the program with it.
                Ok(false) => return,
                Err(problem) => {
                    drop(tell(socket, &StreamEvent::Error { problem }).await);
                    return;
                }
            },
        }
    }
}

/// Does what a message says; `false` when there are no more.
async fn heed(ongoing: &mut Ongoing, message: Option<Result<Message, axum::Error>>) -> Result<bool, Problem> {
    match message {
        Some(Ok(Message::Binary(bytes))) => ongoing.write(bytes).await?,
        Some(Ok(Message::Text(text))) => match read_json::<Typed>(text.as_bytes())? {
            Typed::Stdin { data } => ongoing.write(data.into()).await?,
            Typed::StdinEnd => ongoing.close_stdin().await?,
            Typed::Cancel => ongoing.cancel().await?,
        },
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
        Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(false),
    }
    Ok(true)
}

async fn tell(socket: &mut WebSocket, event: &StreamEvent) -> Result<(), axum::Error> {
    let sending = socket.send(Message::Text(event.json().into()));
    tokio::time::timeout(TAKING, sending).await.unwrap_or_else(|late| Err(axum::Error::new(late)))
}
