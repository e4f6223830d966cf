//! The same engine without root. Where the tests run as root, this runs them again as an ordinary user.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::bench::is_root;

/// The user that distributions reserve for nobody.
const NOBODY: u32 = 65_534;

#[test]
fn everything_works_without_root() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    // Its own copies: the target directory may lie where others may not go.
    let (tests, helper) = (place.path().join("tests"), place.path().join("helper"));
    std::fs::copy(std::env::current_exe().unwrap(), &tests).unwrap();
    std::fs::copy(crate::bench::helper(), &helper).unwrap();
    let output = Command::new(&tests)
        .args([
            "--test-threads",
            "4",
            "conformance::",
            "lifetime::",
            "output::",
            "builds::",
            "confinement::the_engine_says",
            "confinement::volumes",
            "confinement::nothing",
        ])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TMPDIR", place.path())
        .env("CORACLE_TEST_HELPER", &helper)
        // Something of a server's own that must not leak.
        .env("CARGO_MANIFEST_DIR", place.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 7") || text.contains("running 8"), "fewer ran than there are: {text}");
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
