//! `coracle previews`: branches that have an app of their own for a while.

use clap::{Args, Subcommand};
use coracle_api::Preview;
use serde_json::json;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::columns::Cell;
use crate::output::text::harmless;
use crate::output::{Columns, Style, moment};

/// Characters of a commit in a list.
const COMMIT: usize = 8;

/// List the app's previews, end one, or let one live on
///
/// A branch gets a preview when it is pushed and [previews] in the coracle.toml that is live names it. It ends with the branch
/// (`git push coracle :BRANCH`), with the app, or when nobody has pushed for the time that the section says.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  coracle previews
  coracle previews remove feature/x
  coracle previews extend feature/x"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the previews of the app
    List,
    /// End the preview of a branch, with its data; the branch stays
    Remove {
        /// The branch
        branch: String,
    },
    /// Let the preview of a branch live on from now, for as long as after a push
    Extend {
        /// The branch
        branch: String,
    },
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let (app, client) = (context.app()?, context.client()?);
    match arguments.verb.unwrap_or(Verb::List) {
        Verb::List => {
            let previews = client.previews(&app).await?;
            let empty = "no previews; a push of a branch that [previews] in the live coracle.toml names makes one";
            context.output.list(&previews, empty, table);
        }
        Verb::Remove { branch } => {
            client.remove_preview(&app, &branch).await?;
            context.output.document(&json!({ "removed": branch }));
            context.output.tell(format!("the preview of {} is gone", harmless(&branch)));
        }
        Verb::Extend { branch } => {
            let preview = client.extend_preview(&app, &branch).await?;
            context.output.document(&preview);
            let left = moment::until(preview.expires_at, jiff::Timestamp::now());
            context.output.tell(format!("the preview of {} lives on for {left}", harmless(&branch)));
        }
    }
    Ok(DONE)
}

fn table(previews: &[Preview]) -> Columns {
    let now = jiff::Timestamp::now();
    let mut columns = Columns::new(&["branch", "app", "url", "commit", "pushed", "expires"]);
    for preview in previews {
        let commit: String = preview.commit.as_deref().unwrap_or("none yet").chars().take(COMMIT).collect();
        let expires =
            if preview.expires_at <= now { "now".to_owned() } else { format!("in {}", moment::until(preview.expires_at, now)) };
        columns.row([
            Cell::styled(&preview.branch, Style::Bold),
            preview.app.as_str().into(),
            preview.urls.join(" ").into(),
            commit.into(),
            moment::ago(preview.pushed_at, now).into(),
            expires.into(),
        ]);
    }
    columns
}
