//! Packages for the machine's Python, installed by pip as a user that has nothing.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Base, LibraryError, Manifest, PACKAGES, at};
use crate::image::{Image, Source};

/// The user that pip runs as when root asks for it: one that nobody else is, below those of the seats.
pub(super) const BUILDER: u32 = 1_999_999_999;

/// How long an installation may take.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// What pip is told of the operator's environment: where to find packages and how to get there.
const TOLD: [&str; 7] = ["PIP_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Installs what a requirements file says below `staging`.
pub(super) fn install(
    file: &Path,
    python: Option<PathBuf>,
    source: bool,
    staging: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<Manifest, LibraryError> {
    let wanted = std::fs::read(file).map_err(at(file))?;
    let python = Image::find("build", Source::Host { python }, 1)?.python().to_owned();
    let version = version(&python).map_err(LibraryError::Install)?;
    tell(&format!("installing {} for Python {version}", file.display()));
    let (target, home, list) = (staging.join(PACKAGES), staging.join("home"), staging.join("requirements.txt"));
    for place in [&target, &home] {
        std::fs::create_dir(place).map_err(at(place))?;
    }
    // A copy: pip's user may not read where the file is, and what was installed stays known.
    std::fs::write(&list, &wanted).map_err(at(&list))?;
    let root = rustix::process::geteuid().is_root();
    if root {
        check_reachable(staging)?;
        for place in [&target, &home] {
            std::os::unix::fs::chown(place, Some(BUILDER), Some(BUILDER)).map_err(at(place))?;
        }
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--no-input", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar=off"]);
    pip.arg("--target").arg(&target).arg("-r").arg(&list);
    if !source {
        pip.arg("--only-binary=:all:");
    }
    pip.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8").env("HOME", &home).env("TMPDIR", &home);
    let told = |name: &str| TOLD.iter().any(|start| name.to_ascii_uppercase().starts_with(start));
    pip.envs(std::env::vars().filter(|(name, _)| told(name)));
    pip.current_dir(&home).process_group(0);
    if root {
        pip.uid(BUILDER).gid(BUILDER);
    }
    run(&mut pip, tell)?;
    std::fs::remove_dir_all(&home).map_err(at(&home))?;
    let mut installed = names(&target);
    installed.sort();
    Ok(Manifest {
        base: Base::Host { python },
        python: version,
        preload: Vec::new(),
        requirements: blake3::hash(&wanted).to_hex().to_string(),
        installed,
    })
}

/// Whether a user that has nothing gets there at all.
fn check_reachable(place: &Path) -> Result<(), LibraryError> {
    use std::os::unix::fs::PermissionsExt;
    let place = std::fs::canonicalize(place).map_err(at(place))?;
    for above in place.ancestors() {
        if std::fs::metadata(above).map_err(at(above))?.permissions().mode() & 0o001 == 0 {
            let why = format!(
                "pip runs as a user that has nothing, who may not enter {}; choose another directory for images, or let \
                 others pass (chmod o+x)",
                above.display()
            );
            return Err(LibraryError::Install(why));
        }
    }
    Ok(())
}

/// Runs it to its end, telling what it says; its last words are the error.
fn run(command: &mut Command, tell: &mut dyn FnMut(&str)) -> Result<(), LibraryError> {
    let failed = |error: std::io::Error| LibraryError::Install(format!("pip cannot be run: {error}"));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let (lines, heard) = std::sync::mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|stream| Box::new(stream) as _), child.stderr.take().map(|stream| Box::new(stream) as _)];
    for (stream, bad) in streams.into_iter().flatten().zip([false, true]) {
        let lines = lines.clone();
        std::thread::spawn(move || {
            BufReader::new(stream)
                .lines()
                .map_while(Result::ok)
                .take_while(|line| lines.send((bad, line.clone())).is_ok())
                .for_each(drop);
        });
    }
    drop(lines);
    let (deadline, mut complaints) = (Instant::now() + PATIENCE, Vec::new());
    loop {
        match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((true, line)) => complaints.push(line),
            Ok((false, line)) => tell(line.trim_end()),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                end(&mut child);
                return Err(LibraryError::Install(format!("pip has not ended within {} minutes", PATIENCE.as_secs() / 60)));
            }
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    complaints.retain(|line| !line.trim().is_empty());
    let last = complaints.len().saturating_sub(5);
    Err(LibraryError::Install(format!("pip {status}: {}", complaints.get(last..).unwrap_or_default().join("\n"))))
}

/// Ends it and what it has started.
fn end(child: &mut std::process::Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
    }
    child.wait().ok();
}

/// `3.11`, by the interpreter's own word.
pub(super) fn version(python: &Path) -> Result<String, String> {
    let program = "import sys\nprint('%d.%d' % sys.version_info[:2])";
    let output = Command::new(python).args(["-I", "-S", "-c", program]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", python.display()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("{} does not run: {}", python.display(), String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// `numpy 2.4.6`: what has a directory of metadata (PEP 376).
fn names(target: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(target).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| Some(name.strip_suffix(".dist-info")?.replacen('-', " ", 1))).collect()
}
