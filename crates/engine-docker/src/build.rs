//! Builds images: from a Dockerfile of the tree, from one made for the tree, or by fetching a ready image.

mod buildkit;
mod classic;
mod context;
mod dockerfile;
mod fields;
mod foreign;
mod journal;
mod message;
mod parts;
mod prune;
mod pull;
mod registry;
mod session;
mod warden;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::TagImageOptionsBuilder;
use bytes::Bytes;
use coracle_engine::{BuildError, BuildRequest, Builder, EngineError, OutputSink, Sharing, Stream};
use coracle_model::plan::Recipe;
use coracle_model::stack::PullPolicy;
use coracle_model::{
    AppName, Artifact, ArtifactId, ImageFacts, ImageReference, Logins, PinnedImage, RegistryHost, RegistryLogin, Span,
};
use http::Request;
use http_body_util::BodyExt;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::build::dockerfile::Dockerfile;
use crate::build::journal::Journal;
use crate::build::message::{Failure, Message, Messages};
use crate::build::parts::{secrets_of, tag_of};
use crate::build::session::Session;
use crate::build::warden::Warden;
use crate::client::{Client, is_disk_full, status, timely, unavailable};
use crate::facts::Flavour;
use crate::labels;
use crate::wire;

/// How long a cancelled build may take to be gone.
const SETTLE: Duration = Duration::from_secs(10);

/// How often a build is begun again whose cached layers vanish.
const ATTEMPTS: usize = 3;

/// How long a push may take.
const PUSH_DEADLINE: Span = Span::seconds(30 * 60);

/// The exit code of a program that was killed.
const KILLED: i64 = 137;

/// Builds images.
pub(crate) struct ImageBuilder {
    client: Arc<Client>,
}

/// What reads the progress of a build.
enum Reader {
    Classic(classic::Reader),
    BuildKit(buildkit::Reader),
}

impl Reader {
    /// The engine gave the build up with these words.
    fn failed_with(&mut self, text: &str) {
        if let Self::Classic(reader) = self {
            reader.failed_with(text);
        }
    }

    fn lost_a_layer(&self) -> bool {
        matches!(self, Self::Classic(reader) if reader.lost_a_layer())
    }
}

/// A build on its way: what is known of it outlives its request, so that it can be cleaned up after.
struct Attempt<'a> {
    request: &'a BuildRequest,
    output: &'a OutputSink,
    began: Timestamp,
    kills_before: u64,
    reader: Reader,
    journal: Option<Journal>,
    warden: Option<Warden>,
}

impl ImageBuilder {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    /// The tag of what this request builds.
    fn tag(&self, request: &BuildRequest) -> String {
        format!("{}:{}", labels::repository(&self.client.owner, &request.app), tag_of(request))
    }

    async fn build_dockerfile(
        &self,
        request: &BuildRequest,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Artifact, BuildError> {
        let mut dockerfile = Dockerfile::of(request).await?;
        session::check(secrets_of(request))?;
        for image in foreign::check_dockerfile(request, dockerfile.text())? {
            pull::allowed(&self.client, &image, &request.logins).await?;
        }
        dockerfile.put_before(&self.stages(request, output, cancel).await?)?;
        let mut attempt = self.prepare(request, &dockerfile, output).await?;
        let limit = request.limits.deadline;
        let result = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(BuildError::Cancelled),
            () = tokio::time::sleep(limit.duration()) => Err(BuildError::TimedOut { limit }),
            image = self.attempts(&mut attempt, &dockerfile) => image,
        };
        // By now the request is dropped, so the engine has been told to stop.
        if matches!(result, Err(BuildError::Cancelled | BuildError::TimedOut { .. })) {
            self.settle(&attempt.reader).await;
        }
        self.artifact(request, ArtifactId::new(result?)).await
    }

    /// Chooses the builder: BuildKit where it is offered and can be held to the limits, or where the Dockerfile needs it.
    async fn prepare<'a>(
        &self,
        request: &'a BuildRequest,
        dockerfile: &Dockerfile,
        output: &'a OutputSink,
    ) -> Result<Attempt<'a>, BuildError> {
        let facts = &self.client.facts;
        let needed = dockerfile.needs_buildkit() && facts.has_buildkit();
        if dockerfile.mounts_secrets() && !facts.has_buildkit() {
            let cause = format!("{} mounts secrets, which takes BuildKit, and this engine has none", dockerfile.path);
            return Err(BuildError::CannotBuild(cause));
        }
        let warden = match facts.buildkit || needed {
            true => Warden::begin(&self.client, dockerfile.text(), request.limits),
            false => Err(String::new()),
        };
        let (reader, journal, warden) = match warden {
            Ok(warden) => (Reader::BuildKit(buildkit::Reader::default()), None, Some(warden)),
            Err(reason) if needed => {
                output.line(Stream::Stderr, format!("This build's memory and processors are not limited: {reason}"));
                (Reader::BuildKit(buildkit::Reader::default()), None, None)
            }
            Err(_) => {
                let journal = Journal::open(&self.client.state_dir, &request.app, request.release);
                let journal = journal.map_err(|error| EngineError::io("note what the build makes", &error))?;
                (Reader::Classic(classic::Reader::default()), Some(journal), None)
            }
        };
        if matches!(reader, Reader::BuildKit(_)) {
            // Without a session of ours BuildKit fetches images as nobody; so what it will need is fetched beforehand.
            for base in dockerfile.bases() {
                pull::unless_present(&self.client, &base, &request.logins, output).await?;
            }
        }
        Ok(Attempt {
            request,
            output,
            began: Timestamp::now(),
            kills_before: warden::kills_on_this_machine(),
            reader,
            journal,
            warden,
        })
    }

    /// Builds, and again if a cached layer was pruned, by us for another app or by somebody else, while it was about to be
    /// built upon: that is nobody's mistake.
    async fn attempts(&self, attempt: &mut Attempt<'_>, dockerfile: &Dockerfile) -> Result<String, BuildError> {
        for _ in 1..ATTEMPTS {
            let result = self.attempt(attempt, dockerfile).await;
            if !attempt.reader.lost_a_layer() {
                return result;
            }
            attempt.reader = Reader::Classic(classic::Reader::default());
        }
        self.attempt(attempt, dockerfile).await
    }

    /// Sends the tree and reads the progress to the end. Answers the image's id.
    async fn attempt(&self, attempt: &mut Attempt<'_>, dockerfile: &Dockerfile) -> Result<String, BuildError> {
        let session = self.session(attempt, dockerfile).await?;
        let mut parameters = self.parameters(attempt, dockerfile);
        parameters.extend(session.as_ref().map(|session| ("session", session.id.clone())));
        let (body, sending) = context::stream(&attempt.request.source, dockerfile)?;
        let uri = format!("/v{}/build{}", self.client.facts.api_version, wire::query(&parameters));
        let request = Request::post(uri).header("Host", "docker").header("Content-Type", "application/x-tar");
        // For base images that the builder fetches itself.
        let request = registry::config_header(&attempt.request.logins)
            .into_iter()
            .fold(request, |request, logins| request.header("X-Registry-Config", logins));
        let request = request.body(body).map_err(|error| BuildError::CannotBuild(error.to_string()))?;
        let answer = match wire::send(&self.client.socket, request).await {
            Ok(answer) => answer,
            Err(error) => {
                // If packing failed, that is the cause, and the engine merely saw a request break off.
                sending.finish().await?;
                return Err(unavailable(error.to_string()).into());
            }
        };
        if !answer.status.is_success() {
            let status = answer.status;
            let text = answer.text().await.unwrap_or_default();
            return Err(self.refusal(status, wire::refusal(&text)));
        }
        self.follow(attempt, answer, sending).await
    }

    /// A session for a build that mounts secrets: also if it has none to give, since only then BuildKit says which is missing.
    async fn session(&self, attempt: &Attempt<'_>, dockerfile: &Dockerfile) -> Result<Option<Session>, BuildError> {
        if !dockerfile.mounts_secrets() || matches!(attempt.reader, Reader::Classic(_)) {
            return Ok(None);
        }
        let secrets = secrets_of(attempt.request);
        Session::open(&self.client.socket, &self.client.facts.api_version, secrets).await.map(Some)
    }

    async fn follow(
        &self,
        attempt: &mut Attempt<'_>,
        mut answer: wire::Answer,
        sending: context::Sending,
    ) -> Result<String, BuildError> {
        let mut messages = Messages::default();
        while let Some(frame) = answer.body.frame().await {
            let Ok(data) = frame.map_err(|error| unavailable(error.to_string()))?.into_data() else { continue };
            for message in messages.push(&data)? {
                attempt.take(&message);
                if let Some(failure) = message.failure() {
                    attempt.reader.failed_with(&failure.text);
                    return Err(self.failed(attempt, failure).await);
                }
            }
        }
        sending.finish().await?;
        match attempt.image() {
            Some(image) => Ok(image.to_owned()),
            None => Err(unavailable("the engine ended the build without an image").into()),
        }
    }

    fn parameters(&self, attempt: &Attempt<'_>, dockerfile: &Dockerfile) -> Vec<(&'static str, String)> {
        let request = attempt.request;
        let mut parameters = vec![("t", self.tag(request)), ("dockerfile", dockerfile.path.clone())];
        let mut labels = HashMap::new();
        if let Recipe::Dockerfile { target, args, extras, .. } = &request.plan.recipe {
            parameters.extend(target.clone().map(|target| ("target", target)));
            if !args.is_empty() {
                parameters.push(("buildargs", serde_json::json!(args).to_string()));
            }
            parameters.extend(parts::parameters(extras));
            labels.extend(extras.labels.clone());
        }
        match attempt.reader {
            Reader::BuildKit(_) => {
                labels.extend(labels::of_image(&self.client.owner, &request.app, request.release));
                parameters.push(("version", "2".to_owned()));
            }
            // No labels of ours here: each would be a step of its own, run anew for every release.
            Reader::Classic(_) => parameters.extend(classic::parameters(&self.client.facts, &request.limits)),
        }
        if !labels.is_empty() {
            parameters.push(("labels", serde_json::json!(labels).to_string()));
        }
        parameters
    }

    /// The engine would not begin.
    fn refusal(&self, status: http::StatusCode, text: String) -> BuildError {
        if is_disk_full(&text) {
            self.client.disk_full().into()
        } else if status.is_client_error() {
            BuildError::CannotBuild(text)
        } else {
            EngineError::Failed { action: "build".to_owned(), cause: text }.into()
        }
    }

    /// What a failure means, with the evidence there is.
    async fn failed(&self, attempt: &Attempt<'_>, failure: Failure) -> BuildError {
        attempt.output.line(Stream::Stderr, failure.text.clone());
        if is_disk_full(&failure.text) || attempt.saw_full_disk() {
            return self.client.disk_full().into();
        }
        if let Some(id) = failure.missing_secret() {
            let cause =
                format!("the Dockerfile mounts the secret {id}, which this build is not given; name it under build.secrets");
            return BuildError::CannotBuild(cause);
        }
        let killed = failure.code() == Some(KILLED);
        let out_of_memory = match &attempt.reader {
            Reader::BuildKit(_) => attempt.warden.as_ref().is_some_and(|warden| warden.ran_out_of_memory(killed)),
            // Podman tells nobody; but a step of limited memory that was killed while the kernel killed for want of it says enough.
            Reader::Classic(_) if self.client.facts.flavour == Flavour::Podman => {
                killed && self.client.socket.is_local() && warden::kills_on_this_machine() > attempt.kills_before
            }
            Reader::Classic(reader) => classic::ran_out_of_memory(&self.client, reader, attempt.began).await,
        };
        if out_of_memory {
            return BuildError::OutOfMemory { limit: attempt.request.limits.memory };
        }
        match attempt.failed_step() {
            Some(step) => BuildError::StepFailed { step, code: failure.code() },
            None => BuildError::CannotBuild(failure.text),
        }
    }

    /// Waits until the engine has stopped what a dropped request was doing.
    async fn settle(&self, reader: &Reader) {
        let Reader::Classic(reader) = reader else { return };
        let Some(container) = reader.container() else { return };
        let gone = async {
            while matches!(self.client.container(container).await, Ok(Some(_))) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(SETTLE, gone).await.is_err() {
            tracing::warn!(container, "the engine has not removed the container of a build that was stopped");
        }
    }

    async fn artifact(&self, request: &BuildRequest, id: ArtifactId) -> Result<Artifact, BuildError> {
        let image = self.client.image(&id).await?;
        let mut artifact = image.artifact(id, &request.plan.processes);
        if coracle_build::dockerfile::generate(&request.plan).is_some() {
            // What a generated Dockerfile starts listens where it says, whatever else its base image exposes.
            artifact.port = Some(coracle_build::dockerfile::port(&request.plan));
            // Its check asks what Coracle asks by itself, at once and not every so often.
            artifact.has_healthcheck = false;
        }
        Ok(artifact)
    }

    async fn fetch(
        &self,
        request: &BuildRequest,
        reference: &str,
        policy: PullPolicy,
        output: &OutputSink,
    ) -> Result<Artifact, BuildError> {
        let (repository, tag) = (labels::repository(&self.client.owner, &request.app), tag_of(request));
        let name = pull::Name { repository: &repository, tag: &tag };
        let (id, pinned) = pull::fetch(&self.client, request, (reference, policy), name, output).await?;
        Ok(Artifact { registry: pinned, ..self.artifact(request, id).await? })
    }
}

impl Attempt<'_> {
    fn take(&mut self, message: &Message) {
        match &mut self.reader {
            Reader::Classic(reader) => {
                let made = reader.take(message, self.output);
                if let (Some(made), Some(journal)) = (made, &mut self.journal) {
                    journal.note(&made);
                }
            }
            Reader::BuildKit(reader) => reader.take(message, self.output),
        }
    }

    fn image(&self) -> Option<&str> {
        match &self.reader {
            Reader::Classic(reader) => reader.image(),
            Reader::BuildKit(reader) => reader.image(),
        }
    }

    fn failed_step(&self) -> Option<String> {
        match &self.reader {
            Reader::Classic(reader) => reader.step(),
            Reader::BuildKit(reader) => reader.failed_step(),
        }
    }

    fn saw_full_disk(&self) -> bool {
        match &self.reader {
            Reader::Classic(reader) => reader.saw_full_disk(),
            Reader::BuildKit(reader) => reader.saw_full_disk(),
        }
    }
}

#[async_trait]
impl Builder for ImageBuilder {
    async fn build(
        &self,
        request: &BuildRequest,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Artifact, BuildError> {
        foreign::check(request)?;
        let Recipe::Image { reference, pull } = &request.plan.recipe else {
            return self.build_dockerfile(request, output, cancel).await;
        };
        let limit = request.limits.deadline;
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(BuildError::Cancelled),
            () = tokio::time::sleep(limit.duration()) => Err(BuildError::TimedOut { limit }),
            artifact = self.fetch(request, reference, *pull, output) => artifact,
        }
    }

    async fn fingerprint(&self, request: &BuildRequest) -> Result<Option<String>, BuildError> {
        self.fingerprint_of(request).await
    }

    async fn has(&self, artifact: &ArtifactId) -> Result<bool, EngineError> {
        let found = self.client.find_image(artifact).await?.is_some();
        if !found {
            self.client.forget_image(artifact);
        }
        Ok(found)
    }

    async fn facts(&self, artifact: &ArtifactId) -> Result<Option<ImageFacts>, EngineError> {
        self.client.image_facts(artifact).await.map(Some)
    }

    async fn resolve(&self, reference: &ImageReference, logins: &Logins) -> Result<PinnedImage, BuildError> {
        registry::resolve(&self.client, reference, logins).await
    }

    async fn push(
        &self,
        artifact: &ArtifactId,
        to: &ImageReference,
        logins: &Logins,
        output: &OutputSink,
        cancel: &CancellationToken,
    ) -> Result<PinnedImage, BuildError> {
        // Only what is ours leaves the machine by our hand.
        self.client.image(artifact).await?;
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(BuildError::Cancelled),
            () = tokio::time::sleep(PUSH_DEADLINE.duration()) => Err(BuildError::TimedOut { limit: PUSH_DEADLINE }),
            pushed = registry::push(&self.client, artifact, to, logins, output) => pushed,
        }
    }

    async fn share(&self, artifact: &Artifact, with: &Sharing) -> Result<Artifact, BuildError> {
        self.client.image(&artifact.id).await?;
        let repository = labels::repository(&self.client.owner, &with.app);
        let tag = parts::tag(with.release, with.part.as_ref());
        let options = TagImageOptionsBuilder::default().repo(&repository).tag(&tag).build();
        match timely(self.client.docker.tag_image(artifact.id.as_str(), Some(options))).await {
            Ok(()) => Ok(artifact.clone()),
            Err(error) if status(&error) == Some(404) => {
                self.client.forget_image(&artifact.id);
                Err(EngineError::NoSuchArtifact(artifact.id.clone()).into())
            }
            Err(error) => Err(self.client.error(format!("name image {repository}:{tag}"), &error).into()),
        }
    }

    async fn check_login(&self, host: &RegistryHost, login: &RegistryLogin) -> Result<(), BuildError> {
        registry::check_login(&self.client, host, login).await
    }

    async fn prune(&self, app: &AppName, keep: &[ArtifactId]) -> Result<(), EngineError> {
        prune::images(&self.client, app, keep).await?;
        prune::layers(&self.client, app, keep).await
    }
}

/// A piece of a request's body.
type Piece = std::io::Result<Bytes>;
