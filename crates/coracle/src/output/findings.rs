//! What a policy says, for people: what was found and where, and below it what to do about it.

use coracle_api::{Finding, PolicyLevel};

use super::Output;
use super::text::{Style, harmless};

/// The lines of a finding.
pub(crate) fn lines(finding: &Finding, output: &Output) -> Vec<String> {
    let paint = output.paint();
    let (word, style) = match finding.level {
        PolicyLevel::Block => ("blocked", Style::Red),
        PolicyLevel::Warn => ("warning", Style::Yellow),
        PolicyLevel::Off => ("silent", Style::Dim),
    };
    let mut lines = vec![format!("{}: {}", paint.with(style, word), harmless(&finding.to_string()))];
    if let Some(reason) = &finding.reason {
        lines.push(paint.with(Style::Dim, format!("  reason given: {}", harmless(reason))));
    }
    if finding.level > PolicyLevel::Off {
        lines.push(paint.with(Style::Dim, format!("  mend: {}", harmless(&finding.mend))));
        lines.push(paint.with(Style::Dim, format!("  silence: {}", harmless(&finding.silence))));
    }
    lines
}
