//! What happens to instances, as the engine tells it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use coracle_engine::{Health, InstanceEvent};
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::client::{Client, message};
use crate::labels;

/// How long to wait before asking an engine again that went away: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Signals by which programs are told to end (INT, QUIT, KILL, TERM), in Docker's words. Others make them read their settings
/// again, say.
const ENDS: [&str; 4] = ["2", "3", "9", "15"];

/// Listens until the stream is dropped; an engine that goes away is asked again and again.
pub(super) fn listen(client: Arc<Client>) -> BoxStream<'static, InstanceEvent> {
    let first = connect(&client);
    futures::stream::unfold((client, first, FIRST_PAUSE), |(client, mut events, mut pause)| async move {
        loop {
            match events.next().await {
                Some(Ok(event)) => {
                    pause = FIRST_PAUSE;
                    if let Some(event) = read(&client, &event) {
                        return Some((event, (client, events, pause)));
                    }
                    continue;
                }
                Some(Err(error)) => tracing::debug!(error = message(&error), "the engine's events broke off"),
                None => tracing::debug!("the engine's events ended"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            events = connect(&client);
        }
    })
    .boxed()
}

fn connect(client: &Client) -> BoxStream<'static, Result<EventMessage, bollard::errors::Error>> {
    let mut filters: HashMap<String, Vec<String>> = labels::filter(&[(labels::OWNER, client.owner.as_str())]);
    filters.insert("type".into(), vec!["container".into()]);
    filters.insert("event".into(), ["start", "die", "kill", "health_status"].map(String::from).to_vec());
    client.patient().events(Some(EventsOptionsBuilder::default().filters(&filters).build())).boxed()
}

fn read(client: &Client, event: &EventMessage) -> Option<InstanceEvent> {
    let attributes = event.actor.as_ref()?.attributes.as_ref()?;
    let id = labels::instance_of(&client.owner, attributes)?;
    // Docker writes `health_status: healthy`.
    let (action, detail) = event.action.as_deref()?.split_once(": ").unwrap_or((event.action.as_deref()?, ""));
    match (action, detail) {
        ("start", _) => Some(InstanceEvent::Started(id)),
        ("die", _) => Some(InstanceEvent::Exited(id)),
        ("kill", _) if attributes.get("signal").is_some_and(|signal| ENDS.contains(&signal.as_str())) => {
            Some(InstanceEvent::Ending(id))
        }
        ("health_status", "healthy") => Some(InstanceEvent::Health(id, Health::Healthy)),
        ("health_status", "unhealthy") => Some(InstanceEvent::Health(id, Health::Unhealthy)),
        _ => None,
    }
}
