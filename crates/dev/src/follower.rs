//! What an instance writes and how it ends, told as it happens.

use std::sync::Arc;
use std::time::Duration;

use coracle_engine::{Exit, InstanceState, LogQuery, Runtime};
use coracle_model::InstanceId;
use futures::StreamExt;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use crate::news::{News, Tell, Voice};

/// How long is waited before an instance is asked again whose output broke off although it runs.
const AGAIN: Duration = Duration::from_millis(200);
/// How long the last words of an instance that was stopped may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Follows one instance until it has ended or this is dropped.
pub(crate) struct Follower(JoinHandle<()>);

impl Follower {
    /// Tells what the instance writes, if it is to be shown, and sends `ended` made from its exit when it has ended by
    /// itself.
    pub(crate) fn start<E: Send + 'static>(
        runtime: Arc<dyn Runtime>,
        id: InstanceId,
        voice: Option<Voice>,
        tell: Tell,
        events: UnboundedSender<E>,
        ended: impl FnOnce(Exit) -> E + Send + 'static,
    ) -> Self {
        Self(tokio::spawn(async move {
            if let Some(exit) = follow(&*runtime, &id, voice, &tell).await {
                // Nobody listens any more when the session is over.
                events.send(ended(exit)).ok();
            }
        }))
    }

    /// Waits until everything has been told that the instance wrote before it was stopped.
    pub(crate) async fn finish(mut self) {
        if tokio::time::timeout(LAST_WORDS, &mut self.0).await.is_err() {
            self.0.abort();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How the instance ended; `None` if it was removed.
async fn follow(runtime: &dyn Runtime, id: &InstanceId, voice: Option<Voice>, tell: &Tell) -> Option<Exit> {
    let mut since = None;
    loop {
        if let Ok(mut lines) = runtime.logs(id, &LogQuery { tail: None, since, follow: true }).await {
            while let Some(Ok(line)) = lines.next().await {
                since = line.at.checked_add(jiff::SignedDuration::from_nanos(1)).ok();
                if let Some(voice) = &voice {
                    tell.news(News::Line { voice: voice.clone(), stream: line.stream, text: line.text });
                }
            }
        }
        match runtime.inspect(id).await {
            Ok(None) => return None,
            Ok(Some(instance)) => {
                if let InstanceState::Exited(exit) = instance.state {
                    return Some(exit);
                }
            }
            Err(error) => tracing::debug!(%id, %error, "an instance cannot be asked"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
