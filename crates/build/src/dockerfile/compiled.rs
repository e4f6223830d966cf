//! Go and Rust: compiled in an image that has the toolchain, run in one that has not.

use coracle_model::plan::{GoApp, RustApp};

use super::health::Prober;
use super::{DEBIAN, Image, USER, copy, home, run, source_of};

/// Why the lists come first.
const LISTS_FIRST: &str = "# What lists the modules, and nothing else: a changed line of the source fetches nothing anew.\n";

pub(super) fn go(app: &GoApp, image: &Image<'_>) -> String {
    let mut out = format!(
        "# The toolchain stays behind in a stage of its own.\nFROM golang:{}-bookworm AS build\nENV CGO_ENABLED=0\nWORKDIR /src\n",
        app.version
    );
    if app.fetches {
        out += LISTS_FIRST;
        out += &copy(&["go.mod", "go.sum"], "./");
        out += &run(&["go", "mod", "download"]);
    }
    out += "COPY . .\n";
    let program = format!("/out/{}", app.program);
    out += &run(&["go", "build", "-trimpath", "-buildvcs=false", "-o", &program, &app.package]);
    out + &last(image, &program, &app.program)
}

pub(super) fn rust(app: &RustApp, image: &Image<'_>) -> String {
    let version = app.version.as_deref().unwrap_or("1");
    let mut out = format!(
        "# The toolchain stays behind in a stage of its own.\nFROM rust:{version}-slim-bookworm AS build\nWORKDIR /src\n"
    );
    if app.is_simple {
        out += LISTS_FIRST;
        out += &copy(&["Cargo.toml", "Cargo.lock"], "./");
        // cargo takes no package without a program, though it only reads its lists here.
        out += &run(&["install", "-D", "/dev/null", "src/main.rs"]);
        out += &run(&["cargo", "fetch", "--locked"]);
    }
    out += "COPY . .\n";
    out += &run(&["cargo", "build", "--release", "--locked", "--bin", &app.program]);
    out + &last(image, &format!("/src/target/release/{}", app.program), &app.program)
}

/// The image that runs: the program, and the tree for the templates and files that it may read.
fn last(image: &Image<'_>, built: &str, program: &str) -> String {
    let authorities = "/etc/ssl/certs/ca-certificates.crt";
    let from_build = |from: &str, to: &str| copy(&[from], to).replacen("COPY", "COPY --from=build", 1);
    format!(
        "\nFROM {DEBIAN}\n{}# Whom it trusts when it asks others.\n{}{}{}{}",
        home(),
        from_build(authorities, authorities),
        image.says(Prober::Bash),
        source_of(USER),
        from_build(built, &format!("/usr/local/bin/{program}")),
    )
}
