//! Piston's API, version 2: `POST /api/v2/execute` and `GET /api/v2/runtimes`, in its shapes (engineer-man/piston,
//! `docs/api-v2.md` and `api/src/api/v2.js`), so that its clients need another address and nothing else. Each image is a
//! runtime. There is no compile stage, and packages are the operator's affair.

mod selector;

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use coracle_sandbox::{Execution, ImageInfo, Limits};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Shared, answers, foreign};
use crate::answer::{ExecutionAnswer, ReasonWord};
use crate::body;
use crate::caller::Caller;
use crate::execution::{Ongoing, not_started};
use crate::object::{self, Object};
use crate::problem::{Problem, ProblemKind};
use crate::program::{Encoding, FileBody, LimitsBody, ProgramBody, below, cut, milliseconds};

/// What everybody who means Python says.
const LANGUAGE: &str = "python";
const ALIASES: &[&str] = &["py", "py3", "python3"];

/// How long an interpreter that is just being started is waited for, and how often it is asked for.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);

/// Where the sandbox puts a program.
const MAIN: &str = "main.py";

/// Executions.
pub(super) fn executing() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(execute))
}

/// What costs nothing.
pub(super) fn describing() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(runtimes))
}

/// Problems as Piston tells them: `{"message": …}`.
pub(super) async fn in_its_words(request: Request, next: Next) -> Response {
    foreign::reword(next.run(request).await, |_, detail| PistonError { message: detail.to_owned() })
}

/// A program as Piston's clients send it.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct PistonBody {
    /// `python`, one of its aliases, or an image's name.
    #[schema(example = "python")]
    language: Option<String>,
    /// A selector of versions as node-semver reads them.
    #[schema(example = "3.x")]
    version: Option<String>,
    /// The program is the first one that is text; the others are beside it.
    #[serde(default, deserialize_with = "object::optional_list")]
    files: Option<Vec<PistonFile>>,
    /// What it reads; a newline is added where none ends it.
    stdin: Option<String>,
    /// `sys.argv[1:]`.
    args: Option<Vec<String>>,
    /// Milliseconds; there is no compile stage.
    compile_timeout: Option<f64>,
    /// Milliseconds from start to end.
    run_timeout: Option<f64>,
    /// Milliseconds; there is no compile stage.
    compile_cpu_time: Option<f64>,
    /// Milliseconds of processor time.
    run_cpu_time: Option<f64>,
    /// Bytes; there is no compile stage.
    compile_memory_limit: Option<f64>,
    /// Bytes of memory; a negative number is the server's own limit.
    run_memory_limit: Option<f64>,
}

/// A file as Piston's clients send it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
struct PistonFile {
    /// `file0.code` and so on where it has none.
    name: Option<String>,
    /// Its content.
    content: Option<String>,
    /// `utf8` (the default), `base64` or `hex`.
    encoding: Option<String>,
}

/// What came of it, as Piston tells it.
#[derive(Debug, Serialize, ToSchema)]
struct PistonAnswer {
    run: PistonStage,
    /// The runtime's name, not the alias.
    language: String,
    version: String,
}

/// The only stage.
#[derive(Debug, Serialize, ToSchema)]
struct PistonStage {
    /// Such as `SIGKILL`; `null` if it ended by itself.
    signal: Option<String>,
    stdout: String,
    stderr: String,
    /// Its exit code; `null` if a signal ended it.
    code: Option<i32>,
    /// Both streams in the order in which they arrived.
    output: String,
    /// The most bytes of memory it had at once.
    memory: u64,
    /// Why it is no success.
    message: Option<String>,
    /// `RE` an exit code, `SG` a signal, `TO` a limit of time, `OL` and `EL` too much output.
    status: Option<&'static str>,
    /// Milliseconds of processor time.
    cpu_time: u64,
    /// Milliseconds from start to end.
    wall_time: u64,
}

/// One that can be named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct PistonRuntime {
    language: String,
    version: String,
    aliases: Vec<String>,
    #[serde(skip)]
    image: String,
}

/// Why it was not executed.
#[derive(Debug, Serialize, ToSchema)]
struct PistonError {
    message: String,
}

/// Executes a program for a client of Piston.
#[utoipa::path(post, path = "/api/v2/execute", tag = "compatibility", operation_id = "piston_execute", request_body = PistonBody,
    responses(
        (status = 200, body = PistonAnswer, description = "It was executed, whatever came of it"),
        (status = "default", body = PistonError),
    )
)]
async fn execute(
    State(context): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    check_type(&headers)?;
    let sent: PistonBody = read(&body::json(&headers, body, &context.settings).await?)?;
    let (language, version) = sent.wanted()?;
    let (language, version) = (language.to_owned(), version.to_owned());
    sent.check_files()?;
    let runtime = chosen(known(&context).await?, &language, &version)?;
    let program = sent.into_program(&caller.limits, &runtime.image)?;
    let execution = program.into_execution(&caller.limits, &runtime.image)?;
    let answer = Ongoing::start(&context, &caller, execution, "piston").await?.finish().await?;
    let answer = PistonAnswer { run: PistonStage::from(answer), language: runtime.language, version: runtime.version };
    Ok(answers::json(StatusCode::OK, &answer))
}

/// What would be executed.
pub(super) fn taken(body: &[u8], highest: &Limits) -> Result<Execution, Problem> {
    let sent = read(body)?;
    sent.wanted()?;
    sent.check_files()?;
    sent.into_program(highest, "default")?.into_execution(highest, "default")
}

/// The runtimes, for a client of Piston.
#[utoipa::path(get, path = "/api/v2/runtimes", tag = "compatibility", operation_id = "piston_runtimes", responses(
    (status = 200, body = Vec<PistonRuntime>),
    (status = "default", body = PistonError),
))]
async fn runtimes(State(context): State<Shared>) -> Result<Response, Problem> {
    Ok(answers::json(StatusCode::OK, &known(&context).await?))
}

fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::BadRequest, message)
}

/// Piston wants the type to be said.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if given.starts_with("application/json") {
        Ok(())
    } else {
        Err(Problem::new(ProblemKind::UnsupportedMediaType, "requests must be of type application/json"))
    }
}

/// Reads a body, or says what is wrong with it as Piston does.
fn read(bytes: &[u8]) -> Result<PistonBody, Problem> {
    serde_json::from_slice::<Object<PistonBody>>(bytes).map(|read| read.0).map_err(|error| {
        if error.classify() != serde_json::error::Category::Data {
            return invalid(format!("the body is not JSON: {error}"));
        }
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let Err(error) = serde_path_to_error::deserialize::<_, Object<PistonBody>>(&mut reader) else {
            return invalid(error.to_string());
        };
        let path = error.path().to_string();
        invalid(match path.as_str() {
            "language" | "version" => format!("{path} is required as a string"),
            "files" => "files is required as an array".to_owned(),
            content if content.starts_with("files[") && content.ends_with("].content") => {
                format!("{content} is required as a string")
            }
            number if number.contains("_") => format!("If specified, {number} must be a number"),
            "." => format!("a JSON object is required: {}", cut(&error.inner().to_string(), 200)),
            other => format!("{other}: {}", cut(&error.inner().to_string(), 200)),
        })
    })
}

impl PistonBody {
    /// Language and version.
    fn wanted(&self) -> Result<(&str, &str), Problem> {
        fn required<'a>(name: &str, value: Option<&'a String>) -> Result<&'a str, Problem> {
            let value = value.filter(|value| !value.is_empty());
            value.map(String::as_str).ok_or_else(|| invalid(format!("{name} is required as a string")))
        }
        Ok((required("language", self.language.as_ref())?, required("version", self.version.as_ref())?))
    }

    fn check_files(&self) -> Result<(), Problem> {
        let Some(files) = &self.files else { return Err(invalid("files is required as an array")) };
        if let Some(at) = files.iter().position(|file| file.content.is_none()) {
            return Err(invalid(format!("files[{at}].content is required as a string")));
        }
        let is_text = |file: &PistonFile| file.encoding.as_deref().is_none_or(|encoding| matches!(encoding, "" | "utf8"));
        if files.iter().any(is_text) { Ok(()) } else { Err(invalid("files must include at least one utf8 encoded file")) }
    }

    fn into_program(self, highest: &Limits, image: &str) -> Result<ProgramBody, Problem> {
        let limits = self.limits(highest)?;
        let mut files = self.files.unwrap_or_default();
        let main = files.iter().position(PistonFile::is_text).unwrap_or(0);
        let mut beside = Vec::with_capacity(files.len());
        for (at, file) in files.iter().enumerate() {
            let name = match file.name.as_deref().filter(|name| !name.is_empty()) {
                // A program without a name is not read by anybody else.
                None if at == main => continue,
                None => format!("file{at}.code"),
                Some(name) => below(name)
                    .ok_or_else(|| invalid(format!("File path \"{}\" tries to escape parent directory", cut(name, 200))))?,
            };
            // The sandbox puts the program there by itself.
            if at != main || name != MAIN {
                beside.push(file.placed(name, at)?);
            }
        }
        let code = files.swap_remove(main).content.unwrap_or_default();
        let mut stdin = self.stdin.unwrap_or_default();
        if !stdin.ends_with('\n') {
            stdin.push('\n');
        }
        Ok(ProgramBody {
            code,
            stdin: Some(stdin),
            args: self.args,
            env: Some([("PISTON_LANGUAGE".to_owned(), LANGUAGE.to_owned())].into()),
            files: Some(beside),
            limits: Some(limits),
            image: Some(image.to_owned()),
            ..ProgramBody::default()
        })
    }

    fn limits(&self, highest: &Limits) -> Result<LimitsBody, Problem> {
        // By Piston's own default there is no limit of memory, and clients say so with -1.
        let limited = |bytes: Option<f64>| bytes.filter(|bytes| *bytes >= 0.0);
        for (name, value) in [
            ("compile_timeout", self.compile_timeout),
            ("compile_cpu_time", self.compile_cpu_time),
            ("compile_memory_limit", limited(self.compile_memory_limit)),
        ] {
            limit(name, value, u64::MAX)?;
        }
        let memory = limit("run_memory_limit", limited(self.run_memory_limit), highest.memory_bytes)?;
        Ok(LimitsBody {
            wall_ms: limit("run_timeout", self.run_timeout, milliseconds(highest.wall))?,
            cpu_ms: limit("run_cpu_time", self.run_cpu_time, milliseconds(highest.cpu))?,
            memory_bytes: memory.map(|bytes| bytes.max(Limits::LEAST_MEMORY.min(highest.memory_bytes))),
            ..LimitsBody::default()
        })
    }
}

/// A limit that is no higher than the server's; zero counts as none, as it does in Piston.
fn limit(name: &str, wanted: Option<f64>, highest: u64) -> Result<Option<u64>, Problem> {
    match wanted {
        None => Ok(None),
        Some(value) if value < 0.0 => Err(invalid(format!("{name} must be non-negative"))),
        Some(value) if value > highest as f64 => Err(invalid(format!("{name} cannot exceed the configured limit of {highest}"))),
        Some(value) if value > 0.0 => Ok(Some((value as u64).max(1))),
        Some(_) => Ok(None),
    }
}

impl PistonFile {
    /// What Piston does not know as an encoding is text to it.
    fn is_text(&self) -> bool {
        !matches!(self.encoding.as_deref(), Some("base64" | "hex"))
    }

    fn placed(&self, name: String, at: usize) -> Result<FileBody, Problem> {
        let content = self.content.as_deref().unwrap_or_default();
        let bytes = match self.encoding.as_deref() {
            Some("base64") => foreign::base64(content, false),
            Some("hex") => hex(content),
            _ => return Ok(FileBody { name, content: content.to_owned(), encoding: Encoding::Utf8 }),
        };
        let bytes = bytes.ok_or_else(|| invalid(format!("files[{at}].content is not what its encoding says")))?;
        Ok(foreign::file(name, &bytes))
    }
}

/// Pairs of hexadecimal digits.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// The images as runtimes, when their interpreters have told what they are.
async fn known(context: &Shared) -> Result<Vec<PistonRuntime>, Problem> {
    let started = Instant::now();
    loop {
        let images = match context.sandbox().await {
            Ok(sandbox) => sandbox.images().await,
            Err(error) => Err(error),
        };
        let late = started.elapsed() >= PATIENCE;
        match images {
            Ok(images) if late || images.iter().all(|image| image.trouble.is_some() || !image.interpreter.is_empty()) => {
                let default = &context.settings.default_image;
                return Ok(images.iter().filter_map(|image| PistonRuntime::of(image, default)).collect());
            }
            Err(error) if late => return Err(not_started(&error)),
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

impl PistonRuntime {
    /// An image whose interpreter has said what it is (`cpython 3.11.2`).
    fn of(image: &ImageInfo, default: &str) -> Option<Self> {
        let version = image.interpreter.split_whitespace().last()?;
        let (major, minor, patch) = selector::version(version)?;
        let (language, aliases) = if image.name == default {
            (LANGUAGE.to_owned(), ALIASES.iter().map(|alias| (*alias).to_owned()).collect())
        } else {
            (format!("{LANGUAGE}-{}", image.name), vec![image.name.clone()])
        };
        Some(Self { language, version: format!("{major}.{minor}.{patch}"), aliases, image: image.name.clone() })
    }

    fn is_called(&self, language: &str) -> bool {
        self.language == language || self.aliases.iter().any(|alias| alias == language)
    }
}

/// The newest runtime of this name that the selector means.
fn chosen(runtimes: Vec<PistonRuntime>, language: &str, version: &str) -> Result<PistonRuntime, Problem> {
    let numbers = |runtime: &PistonRuntime| selector::version(&runtime.version);
    let fitting = runtimes.into_iter().filter(|runtime| {
        runtime.is_called(language) && numbers(runtime).is_some_and(|numbers| selector::selects(version, numbers))
    });
    fitting.max_by_key(numbers).ok_or_else(|| invalid(format!("{}-{} runtime is unknown", cut(language, 100), cut(version, 100))))
}

impl From<ExecutionAnswer> for PistonStage {
    fn from(answer: ExecutionAnswer) -> Self {
        let too_much = match (answer.truncated.stdout, answer.truncated.stderr) {
            (true, _) => Some(("OL", "stdout length exceeded".to_owned())),
            (_, true) => Some(("EL", "stderr length exceeded".to_owned())),
            _ => None,
        };
        let why = || answer.message.clone().unwrap_or_default();
        let told = match answer.reason {
            ReasonWord::Ok => too_much,
            ReasonWord::OutputLimit => too_much.or_else(|| Some(("OL", why()))),
            ReasonWord::Timeout => Some(("TO", "Time limit exceeded (wall clock)".to_owned())),
            ReasonWord::CpuLimit => Some(("TO", "Time limit exceeded".to_owned())),
            ReasonWord::ExitNonzero => Some(("RE", format!("Exited with error status {}", answer.exit_code.unwrap_or_default()))),
            ReasonWord::Signal | ReasonWord::Oom | ReasonWord::Cancelled => Some(("SG", why())),
        };
        let ended_by_itself = matches!(answer.reason, ReasonWord::Ok | ReasonWord::ExitNonzero | ReasonWord::Signal);
        let killed =
            (!ended_by_itself && (answer.exit_code.is_none() || answer.reason != ReasonWord::Oom)).then(|| "SIGKILL".to_owned());
        let signal = answer.signal.or(killed);
        let (status, message) = told.unzip();
        Self {
            code: answer.exit_code.filter(|_| signal.is_none()),
            signal,
            stdout: answer.stdout,
            stderr: answer.stderr,
            output: answer.output,
            memory: answer.usage.memory_peak,
            message,
            status,
            cpu_time: answer.usage.cpu_ms.round() as u64,
            wall_time: answer.usage.wall_ms.round() as u64,
        }
    }
}

#[cfg(test)]
mod tests;
