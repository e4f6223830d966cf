//! References to images (distribution's reference grammar), as far as it matters whether they move.

/// Why a reference does not always mean the same image; nothing if it does as well as a tag can.
pub(crate) fn moves(reference: &str) -> Option<&'static str> {
    if reference.contains('@') || is_id(reference) {
        return None;
    }
    let last = reference.rsplit('/').next().unwrap_or(reference);
    match last.split_once(':') {
        None => Some("has no tag"),
        Some((_, "latest")) => Some("is named by `latest`"),
        Some(_) => None,
    }
}

/// `sha256:…`, or an image's id alone.
fn is_id(reference: &str) -> bool {
    let hex = reference.strip_prefix("sha256:").unwrap_or(reference);
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether an image says by its name that it does not run as root.
pub(crate) fn is_rootless(reference: &str) -> bool {
    ["nonroot", "non-root", "unprivileged", "rootless", "cgr.dev/chainguard"].iter().any(|word| reference.contains(word))
}
