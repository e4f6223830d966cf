//! Taking a source tree from a stranger: streamed to disk as it comes, bounded in every direction, removed afterwards.

mod commit;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes};
use coracle_api::{DeployOptions, Problem, ProblemKind, SOURCE_MEDIA_TYPE};
use coracle_build::archive::{self, UnpackError, UnpackFacts, UnpackLimits};
use coracle_model::manifest::ComposeChoice;
use coracle_model::{AppName, AppSpec, Manifest};
use coracle_pipeline::Pipeline;
use coracle_policy::Policy;
use coracle_proxy_table::{Admission, MiddlewareId, Route, Service, ServiceId, Table};
use futures::StreamExt;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::compose::{self, Resolved};
use crate::problems;

pub(crate) use commit::check_out;

/// What a source tree may cost.
#[derive(Debug, Clone, Copy)]
pub struct IntakeLimits {
    /// Bytes of the archive as it is sent.
    pub archive_bytes: u64,
    /// Bytes of the archive up to which it is kept beside its release, to be unpacked again when what it describes is read anew.
    pub kept_bytes: u64,
    /// What it may hold.
    pub unpacked: UnpackLimits,
    /// Bytes of the manifest.
    pub manifest_bytes: u64,
    /// How long the sender may be silent.
    pub silence: Duration,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self {
            archive_bytes: 512 << 20,
            kept_bytes: 64 << 20,
            unpacked: UnpackLimits::default(),
            manifest_bytes: 256 << 10,
            silence: Duration::from_secs(60),
        }
    }
}

/// Pieces of the body between the network and the disk.
const PIECES_AHEAD: usize = 8;

/// An unpacked source tree. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Tree {
    dir: TempDir,
    path: PathBuf,
    /// As it was sent, unless that is too large to be kept.
    archive: Option<PathBuf>,
}

impl Tree {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The tree as it was sent.
    pub(crate) fn archive(&self) -> Option<PathBuf> {
        self.archive.clone()
    }

    /// Removes it without holding up other tasks: a tree may have many files.
    pub(crate) async fn remove(self) {
        let path = self.path;
        match tokio::task::spawn_blocking(move || self.dir.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(path = %path.display(), %error, "a source tree is left behind until the next start"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "removing a source tree broke off"),
        }
    }
}

/// Receives and unpacks the body of a request into a new directory in `incoming`.
pub(crate) async fn receive(incoming: &Path, headers: &HeaderMap, body: Body, limits: IntakeLimits) -> Result<Tree, Problem> {
    check_head(headers, limits)?;
    let (pieces, reader) = mpsc::channel(PIECES_AHEAD);
    let incoming = incoming.to_owned();
    let unpacking = tokio::task::spawn_blocking(move || unpack(&incoming, PieceReader::new(reader), limits));
    let mut body = Incoming { stream: body.into_data_stream(), received: 0, limits };
    let sent = body.pass_on(pieces).await;
    let unpacked =
        unpacking.await.map_err(|error| Problem::new(ProblemKind::Internal, format!("unpacking broke off: {error}")))?;
    // What is wrong with the sending explains why the unpacking ended early, not the other way round.
    sent?;
    let (tree, facts) = unpacked?;
    tracing::debug!(entries = facts.entries, bytes = facts.bytes, "a source tree has come in");
    Ok(tree)
}

fn check_head(headers: &HeaderMap, limits: IntakeLimits) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let media_type = text(CONTENT_TYPE).map(|value| value.split(';').next().unwrap_or(value).trim());
    if !media_type.is_some_and(|it| it.eq_ignore_ascii_case(SOURCE_MEDIA_TYPE) || it.eq_ignore_ascii_case("application/x-gzip")) {
        let problem = Problem::new(ProblemKind::BadRequest, "the body must be a source tree as a gzip-compressed tar archive");
        return Err(problem.hint(format!("send it with `Content-Type: {SOURCE_MEDIA_TYPE}`, or use `coracle deploy`")));
    }
    match text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length > limits.archive_bytes => Err(too_large(limits)),
        _ => Ok(()),
    }
}

fn too_large(limits: IntakeLimits) -> Problem {
    let limit = coracle_model::ByteSize::bytes(limits.archive_bytes);
    Problem::new(ProblemKind::TooLarge, format!("the archive is larger than {limit}"))
        .hint("name what the app does not need in .coracleignore (build results, data, dependencies)")
}

/// The body of the request.
struct Incoming {
    stream: axum::body::BodyDataStream,
    received: u64,
    limits: IntakeLimits,
}

impl Incoming {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let late = |_| {
            let seconds = self.limits.silence.as_secs();
            Problem::new(ProblemKind::TimedOut, format!("nothing of the source tree has come for {seconds} s"))
        };
        let piece = tokio::time::timeout(self.limits.silence, self.stream.next()).await.map_err(late)?;
        let Some(piece) = piece else { return Ok(None) };
        let piece = piece.map_err(|error| Problem::new(ProblemKind::BadRequest, format!("the body broke off: {error}")))?;
        self.received += piece.len() as u64;
        Ok(Some(piece))
    }

    /// Hands every piece to the unpacker, until the end or until it wants no more.
    async fn pass_on(&mut self, pieces: mpsc::Sender<Piece>) -> Result<(), Problem> {
        while let Some(piece) = self.next().await? {
            if self.received > self.limits.archive_bytes {
                return Err(too_large(self.limits));
            }
            if pieces.send(Piece::Data(piece)).await.is_err() {
                return Ok(());
            }
        }
        // If this cannot be delivered, the unpacker has already seen enough, or will say what was wrong.
        let _delivered: Result<(), _> = pieces.send(Piece::End).await;
        Ok(())
    }
}

/// A piece on its way to the unpacker.
enum Piece {
    Data(Bytes),
    End,
}

/// The blocking end of the body. If the sender vanishes, that is an error and not an end.
struct PieceReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
    copy: Option<Copy>,
}

/// A copy of what is read.
struct Copy {
    file: File,
    path: PathBuf,
    room: u64,
}

impl Copy {
    fn begin(path: PathBuf, room: u64) -> std::io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path, room })
    }

    /// Takes a piece, or gives up and leaves nothing: a copy is a convenience.
    fn take(mut self, piece: &Bytes) -> Option<Self> {
        if self.write_all(piece).is_ok() {
            return Some(self);
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "half a copy goes with its tree");
        }
        None
    }
}

impl Write for Copy {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.room < bytes.len() as u64 {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        let written = self.file.write(bytes)?;
        self.room -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl PieceReader {
    fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self { pieces, current: Bytes::new(), ended: false, copy: None }
    }
}

impl Read for PieceReader {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(piece)) => {
                    self.copy = self.copy.take().and_then(|copy| copy.take(&piece));
                    self.current = piece;
                }
                Some(Piece::End) => self.ended = true,
                None => return Err(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "the sender went away")),
            }
        }
        let length = self.current.len().min(into.len());
        self.current.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

fn unpack(incoming: &Path, mut reader: PieceReader, limits: IntakeLimits) -> Result<(Tree, UnpackFacts), Problem> {
    let (dir, path) = directory(incoming)?;
    reader.copy = Copy::begin(dir.path().join("sent.tar.gz"), limits.kept_bytes).ok();
    let facts = archive::unpack(&mut reader, &path, limits.unpacked).map_err(|error| refused(&error))?;
    Ok((Tree { dir, path, archive: reader.copy.map(|copy| copy.path) }, facts))
}

/// A new directory, with one in it for a tree.
fn directory(incoming: &Path) -> Result<(TempDir, PathBuf), Problem> {
    let dir = tempfile::Builder::new().prefix("tree-").tempdir_in(incoming).map_err(|error| unusable(incoming, &error))?;
    let path = dir.path().join("tree");
    std::fs::create_dir(&path).map_err(|error| unusable(&path, &error))?;
    Ok((dir, path))
}

/// A tree in which there is nothing, in a new directory in `incoming`.
pub(crate) fn empty(incoming: &Path) -> Result<Tree, Problem> {
    let (dir, path) = directory(incoming)?;
    Ok(Tree { dir, path, archive: None })
}

/// Unpacks a tree that was kept into a new directory in `incoming`.
pub(crate) async fn reopen(incoming: &Path, archive: PathBuf, limits: IntakeLimits) -> Result<Tree, Problem> {
    let incoming = incoming.to_owned();
    let unpacking = tokio::task::spawn_blocking(move || {
        let (dir, path) = directory(&incoming)?;
        let mut file = File::open(&archive).map_err(|error| unusable(&archive, &error))?;
        archive::unpack(&mut file, &path, limits.unpacked).map_err(|error| refused(&error))?;
        // It is kept once more under another name for the release to be.
        Ok(Tree { dir, path, archive: Some(archive) })
    });
    unpacking.await.map_err(|error| Problem::new(ProblemKind::Internal, format!("unpacking broke off: {error}")))?
}

fn unusable(path: &Path, error: &std::io::Error) -> Problem {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => disk_full(path),
        _ => Problem::new(ProblemKind::Internal, format!("{}: {error}", path.display())).hint("the server's log has the details"),
    }
}

fn disk_full(path: &Path) -> Problem {
    Problem::new(ProblemKind::DiskFull, format!("no space is left on the disk that holds {}", path.display()))
        .hint("free some space on the server; `coracle doctor` shows how much there is")
}

fn refused(error: &UnpackError) -> Problem {
    match error {
        UnpackError::Refused { .. } => Problem::new(ProblemKind::Invalid, error.to_string()).hint(
            "archives may hold directories, regular files and symbolic links that stay inside; `coracle deploy` makes such",
        ),
        UnpackError::TooLarge { .. } => Problem::new(ProblemKind::TooLarge, error.to_string())
            .hint("name what the app does not need in .coracleignore (build results, data, dependencies)"),
        UnpackError::Damaged(_) => Problem::new(ProblemKind::Invalid, error.to_string())
            .hint("send a gzip-compressed tar archive; `coracle deploy` makes one"),
        UnpackError::DiskFull { path } => disk_full(path),
        UnpackError::Io { path, source } => unusable(path, source),
    }
}

/// Whose tree it is.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The app that it is made into.
    pub app: &'a AppName,
    /// What the manifest may call it: the same, but for a preview.
    pub named: &'a AppName,
}

/// Reads what describes a tree's app and resolves it; the name in it must be that of the app that it is sent to.
///
/// Compose files that were named describe it, or else a `coracle.toml` that says by itself what runs, or else compose files
/// with the usual names; the keys that `coracle.toml` has lie over what compose files say.
pub(crate) async fn spec(
    tree: &Path,
    Subject { app, named }: Subject<'_>,
    options: &DeployOptions,
    config: BTreeMap<String, String>,
    manifest_bytes: u64,
) -> Result<Resolved, Problem> {
    let path = tree.join("coracle.toml");
    let has_manifest = path.exists();
    let Sections { manifest, pipeline, policy, text } = sections(path, manifest_bytes).await?;
    // Whoever pushes names an app and no environment.
    let environment = options.environment.as_deref().or_else(|| manifest.environment_called(named));
    let spec = AppSpec { app: app.clone(), ..resolved(&manifest, named, environment)? };
    let pipeline = pipeline.in_environment(environment);
    if options.image.is_some() {
        return Ok(Resolved { spec, notes: Vec::new(), by_compose: false, pipeline, policy, manifest: Some(text) });
    }
    let usual = compose::usual_file(tree);
    let options = completed(options, manifest.compose(environment));
    if options.compose_files.is_none() {
        let Some(file) = usual else {
            return Ok(Resolved { spec, notes: Vec::new(), by_compose: false, pipeline, policy, manifest: Some(text) });
        };
        if let Some(says) = manifest.what_runs(environment) {
            let note = format!("{file} is not used, since coracle.toml has {says}; with `-f {file}` it is");
            return Ok(Resolved { spec, notes: vec![note], by_compose: false, pipeline, policy, manifest: Some(text) });
        }
    }
    let manifest = match has_manifest {
        true => Some(manifest.beside_compose(app, environment).map_err(|errors| problems::manifest(&errors))?),
        false => None,
    };
    let (root, app) = (tree.to_owned(), app.clone());
    let resolving = tokio::task::spawn_blocking(move || {
        compose::resolve(&root, compose::Request { app: &app, options: &options, config, manifest })
    });
    let resolved = resolving.await.map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))??;
    Ok(Resolved { pipeline, policy, ..resolved })
}

/// What was typed goes before what the manifest names.
fn completed(options: &DeployOptions, choice: ComposeChoice) -> DeployOptions {
    let or = |typed: &Option<String>, named: Option<Vec<String>>| typed.clone().or_else(|| Some(named?.join(",")));
    DeployOptions {
        compose_files: or(&options.compose_files, choice.files),
        profiles: or(&options.profiles, choice.profiles),
        env_files: or(&options.env_files, choice.env_files),
        ..options.clone()
    }
}

/// What stands in a manifest.
struct Sections {
    manifest: Manifest,
    pipeline: Pipeline,
    policy: Policy,
    text: String,
}

/// The manifest of a tree with the sections that others read; without one, those of an app about which nothing is said.
async fn sections(path: PathBuf, limit: u64) -> Result<Sections, Problem> {
    let reading = tokio::task::spawn_blocking(move || read_manifest(path, limit));
    let text = reading.await.map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))??;
    let mut found: Option<coracle_model::manifest::ManifestErrors> = None;
    let mut note = |mistakes: coracle_model::manifest::ManifestErrors| match &mut found {
        None => found = Some(mistakes),
        // Text that is no TOML is told by all of them.
        Some(first) => {
            let more: Vec<_> = mistakes.all.into_iter().filter(|mistake| !first.all.contains(mistake)).collect();
            first.all.extend(more);
        }
    };
    let manifest = Manifest::parse(&text).map_err(&mut note).ok();
    let pipeline = Pipeline::parse(&text).map_err(&mut note).ok();
    let policy = Policy::parse(&text).map_err(&mut note).ok();
    if let (Some(manifest), Some(pipeline), Some(policy)) = (manifest, pipeline, policy) {
        return Ok(Sections { manifest, pipeline, policy, text });
    }
    let mut mistakes = found.unwrap_or_else(|| unreachable!("what cannot be read says why"));
    mistakes.all.sort_by_key(|mistake| mistake.place.map_or((usize::MAX, 0), |place| (place.line, place.column)));
    Err(problems::manifest(&mistakes))
}

fn resolved(manifest: &Manifest, app: &AppName, environment: Option<&str>) -> Result<AppSpec, Problem> {
    let spec = manifest.resolve(Some(app.clone()), environment).map_err(|errors| problems::manifest(&errors))?;
    check_middlewares(&spec)?;
    if spec.app == *app {
        return Ok(spec);
    }
    let detail = format!("coracle.toml names the app {}, but it was sent to {app}", spec.app);
    Err(Problem::new(ProblemKind::Invalid, detail)
        .hint(format!("deploy it with `-a {}`, or change `app` in coracle.toml", spec.app)))
}

/// A table with a regular expression or a network that the proxy cannot read would keep every app's routes from changing, so it is
/// found out here.
fn check_middlewares(spec: &AppSpec) -> Result<(), Problem> {
    let mut table = Table::default();
    let mut route = Route::new("manifest", "PathPrefix(`/`)", ServiceId("manifest".to_owned()));
    table.services.insert(ServiceId("manifest".to_owned()), Service::new(Admission::Open, Vec::new()));
    for own in &spec.http.middlewares {
        let id = MiddlewareId(own.name.clone());
        route.middlewares.push(id.clone());
        table.middlewares.insert(id, own.middleware.clone());
    }
    table.routes.push(route);
    coracle_proxy::check(table).map_err(|error| {
        let name = error.at_fault().into_iter().next().unwrap_or_default();
        Problem::new(ProblemKind::Invalid, format!("coracle.toml: {name}: {error}")).hint("correct it in coracle.toml")
    })
}

/// The text of the manifest; without a manifest, that of one that says nothing.
fn read_manifest(path: PathBuf, limit: u64) -> Result<String, Problem> {
    // Symbolic links in the tree stay inside the tree (the unpacker has seen to that), so following one is harmless.
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(Problem::new(ProblemKind::Invalid, format!("coracle.toml cannot be read: {error}"))),
    };
    let mut bytes = Vec::new();
    let reading = file.take(limit + 1).read_to_end(&mut bytes);
    reading.map_err(|error| Problem::new(ProblemKind::Invalid, format!("coracle.toml cannot be read: {error}")))?;
    if bytes.len() as u64 > limit {
        let limit = coracle_model::ByteSize::bytes(limit);
        return Err(Problem::new(ProblemKind::Invalid, format!("coracle.toml is larger than {limit}"))
            .hint("a manifest is a short text; put data into files of the tree"));
    }
    String::from_utf8(bytes).map_err(|_| Problem::new(ProblemKind::Invalid, "coracle.toml is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_full_disk_is_507_and_a_hostile_entry_422() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(unusable(Path::new("/x"), &full).status, 507);
        assert_eq!(refused(&UnpackError::DiskFull { path: "/x".into() }).status, 507);
        assert_eq!(refused(&UnpackError::Io { path: "/x".into(), source: full }).status, 507);
        assert_eq!(refused(&UnpackError::Refused { entry: "../x".into(), cause: "it climbs out" }).status, 422);
        assert_eq!(refused(&UnpackError::TooLarge { limit: "1 entry".into() }).status, 413);
    }

    #[tokio::test]
    async fn a_sender_that_vanishes_is_not_an_end() {
        let (sender, pieces) = mpsc::channel(2);
        sender.send(Piece::Data(Bytes::from_static(b"abc"))).await.unwrap();
        drop(sender);
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            PieceReader::new(pieces).read_to_string(&mut text).map(|_| text)
        });
        assert_eq!(read.await.unwrap().unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn what_is_announced_as_too_large_is_not_even_read() {
        let incoming = tempfile::tempdir().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, SOURCE_MEDIA_TYPE.parse().unwrap());
        headers.insert(CONTENT_LENGTH, (1_u64 << 40).into());
        let answer = receive(incoming.path(), &headers, Body::empty(), IntakeLimits::default()).await;
        assert_eq!(answer.unwrap_err().status, 413);
    }

    #[tokio::test]
    async fn what_becomes_too_large_is_refused_and_leaves_nothing() {
        let incoming = tempfile::tempdir().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, SOURCE_MEDIA_TYPE.parse().unwrap());
        let limits = IntakeLimits { archive_bytes: 1000, ..IntakeLimits::default() };
        let endless = futures::stream::repeat(Bytes::from_static(&[0x1f; 100])).take(10_000).map(Ok::<_, std::io::Error>);
        let answer = receive(incoming.path(), &headers, Body::from_stream(endless), limits).await;
        let status = answer.unwrap_err().status;
        assert!(status == 413 || status == 422, "{status}");
        assert_eq!(std::fs::read_dir(incoming.path()).unwrap().count(), 0);
    }
}
