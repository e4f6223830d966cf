//! Queries of paths that know few words or none: one that means nothing is a mistake, and is told.

use crate::problem::{Problem, ProblemKind};
use crate::program::cut;

/// The pairs of a query, if all their names are known.
pub(super) fn pairs(query: Option<&str>, known: &[&str]) -> Result<Vec<(String, String)>, Problem> {
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
    let Some((unknown, _)) = pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) else { return Ok(pairs) };
    let detail = format!("unknown query parameter `{}`", cut(unknown, 100));
    let hint = match known {
        [] => "this path has none".to_owned(),
        known => format!("there is `{}`", known.join("`, `")),
    };
    Err(Problem::new(ProblemKind::BadRequest, detail).hint(hint))
}
