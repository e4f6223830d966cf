//! Connections that have become something else than HTTP, WebSockets mostly: bytes are copied both ways until one side is
//! through, or the target is drained.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use crate::plane::Plane;
use crate::pool::Sender;
use crate::target::{Count, InFlight, Target};

/// How long either side may take to let go of HTTP.
const CHANGE: Duration = Duration::from_secs(10);

/// Joins the two sides as soon as both have changed; `sender` keeps the server's connection until then. Counts as upgraded from now on.
pub(crate) fn join(plane: &Arc<Plane>, target: &Arc<Target>, client: OnUpgrade, server: OnUpgrade, sender: Sender) {
    let counted = InFlight::begin(target, Count::Upgraded);
    let closed = target.close_upgraded.clone();
    plane.spawn(async move {
        let _counted = counted;
        let Ok(Ok((client, server))) = tokio::time::timeout(CHANGE, futures::future::try_join(client, server)).await else {
            return;
        };
        drop(sender);
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        let copied = closed.run_until_cancelled(tokio::io::copy_bidirectional(&mut client, &mut server)).await;
        if copied.is_none() {
            // Ended from here: an orderly end of stream rather than a reset, as far as the two sides take it.
            let ends = futures::future::join(client.shutdown(), server.shutdown());
            drop(tokio::time::timeout(Duration::from_millis(100), ends).await);
        }
    });
}
