//! `coracle releases`: what can be gone back to.

use clap::Args;
use coracle_api::Release;
use jiff::Timestamp;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::columns::Cell;
use crate::output::{Columns, Style, moment};

/// List the releases that are kept
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle releases
  coracle releases --json")]
pub(crate) struct Arguments {}

/// Does it.
pub(crate) async fn run(_: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let app = context.app()?;
    let mut releases = context.client()?.releases(&app).await?;
    releases.reverse();
    context.output.list(&releases, &format!("{app} has no release yet; make one: coracle deploy"), |releases| {
        table(releases, Timestamp::now())
    });
    Ok(DONE)
}

fn table(releases: &[Release], now: Timestamp) -> Columns {
    let pushed = releases.iter().any(|release| release.image.is_some());
    let titles: &[&str] = match pushed {
        true => &["release", "created", "engine", "from", "", "in the registry"],
        false => &["release", "created", "engine", "from", ""],
    };
    let mut columns = Columns::new(titles);
    for release in releases {
        let image = pushed.then(|| short(release.image.as_deref().unwrap_or_default()).into());
        let cells: [Cell; 5] = [
            Cell::styled(release.number.to_string(), Style::Bold),
            moment::ago(release.created_at, now).into(),
            release.engine.to_string().into(),
            described(release).into(),
            if release.active { Cell::styled("active", Style::Green) } else { "".into() },
        ];
        columns.row_of(cells.into_iter().chain(image).collect());
    }
    columns
}

/// A pinned reference as people can read it; the whole of it is in `--json`.
fn short(image: &str) -> String {
    match image.split_once("@sha256:") {
        Some((repository, digest)) => format!("{repository}@sha256:{}", digest.chars().take(12).collect::<String>()),
        None => image.to_owned(),
    }
}

/// The description shortens the commit, and with it the word that says it is not the whole truth.
fn described(release: &Release) -> String {
    let dirty = release.commit.as_ref().is_some_and(|commit| commit.ends_with("-dirty"));
    if dirty { format!("{} with changes", release.description) } else { release.description.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use coracle_api::OriginKind;

    use super::*;
    use crate::output::Paint;

    #[test]
    fn the_active_release_is_marked() {
        let release = |number: &str, active, description: &str| Release {
            app: "shop".parse().unwrap(),
            number: number.parse().unwrap(),
            active,
            origin: OriginKind::Deploy,
            description: description.into(),
            commit: None,
            engine: coracle_model::EngineKind::Process,
            artifact: "slug-1".into(),
            image: None,
            created_at: Timestamp::UNIX_EPOCH,
        };
        let mut releases = [release("v12", true, "rollback to v2"), release("v2", false, "deploy 3f2a91c")];
        releases[1].commit = Some("3f2a91c0ffee-dirty".into());
        let now = Timestamp::from_second(7200).unwrap();
        insta::assert_snapshot!(table(&releases, now).render(None, Paint(false)), @r"
        RELEASE  CREATED  ENGINE   FROM
        v12      2 h ago  process  rollback to v2               active
        v2       2 h ago  process  deploy 3f2a91c with changes
        ");
    }
}
