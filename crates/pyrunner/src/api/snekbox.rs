//! snekbox's API: `POST /eval` in its shapes (python-discord/snekbox, `snekbox/api/resources/eval.py`), so that its clients
//! need another address and nothing else.
//!
//! `args` are the interpreter's own arguments there. A program in them (`-c`), or among the files, runs in a copy of the warm
//! interpreter as everywhere here; for anything else (`-m timeit`, options) an interpreter is started with them.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use coracle_sandbox::{Execution, Limits};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Shared, answers, foreign};
use crate::answer::{CollectedFile, ExecutionAnswer, ReasonWord, signal_name};
use crate::body;
use crate::caller::Caller;
use crate::execution::Ongoing;
use crate::object;
use crate::problem::{Problem, ProblemKind};
use crate::program::{Encoding, ProgramBody, below, cut, read_json};

/// Where the sandbox puts a program, and brings it back from only if it is named.
const MAIN: &str = "main.py";

/// How many files are brought back.
const MOST_FILES: usize = 100;

/// What a shell says of a process that was killed (128 + SIGKILL), and of one that was asked to end (128 + SIGTERM).
const KILLED: i32 = 137;
const TERMINATED: i32 = 143;

/// Executions.
pub(super) fn executing() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(eval))
}

/// What costs nothing.
pub(super) fn describing() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().route("/eval", axum::routing::options(|| async { [(ALLOW, "POST")] }))
}

/// Problems as snekbox tells them: `{"title": …, "description": …}`.
pub(super) async fn in_its_words(request: Request, next: Next) -> Response {
    let given = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = cut(given, 100).to_owned();
    let response = next.run(request).await;
    foreign::reword(response, |status, detail| {
        let reason = status.canonical_reason().unwrap_or("Error");
        let (title, description) = match status {
            StatusCode::BAD_REQUEST => ("Request data failed validation".to_owned(), detail.to_owned()),
            StatusCode::UNSUPPORTED_MEDIA_TYPE if !given.is_empty() => {
                (format!("415 {reason}"), format!("{given} is an unsupported media type."))
            }
            _ => (format!("{} {reason}", status.as_u16()), detail.to_owned()),
        };
        SnekboxError { title, description }
    })
}

/// A program as snekbox's clients send it; `input` or `args` must be there.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct SnekboxBody {
    /// The program's text: the last one of `args`, which are `-c` if there are none.
    #[schema(example = "print('Hello')")]
    input: Option<String>,
    /// The interpreter's arguments.
    args: Option<Vec<String>>,
    /// Files in its working directory.
    #[serde(default, deserialize_with = "object::optional_list")]
    files: Option<Vec<SnekboxFile>>,
}

/// A file as snekbox's clients send it.
#[derive(Debug, Deserialize, ToSchema)]
struct SnekboxFile {
    /// Relative to the working directory.
    path: String,
    /// Base64; empty where there is none.
    content: Option<String>,
}

/// What came of it, as snekbox tells it.
#[derive(Debug, Serialize, ToSchema)]
struct SnekboxAnswer {
    /// Both streams in the order in which they arrived.
    stdout: String,
    /// As a shell has it: 128 and the signal's number where one ended it, 137 at a limit.
    returncode: Option<i32>,
    /// Files that it made or changed, without hidden ones and those whose name begins with `_`.
    files: Vec<SnekboxOutput>,
}

/// A file that the program left.
#[derive(Debug, Serialize, ToSchema)]
struct SnekboxOutput {
    path: String,
    size: usize,
    /// Base64.
    content: String,
}

/// Why it was not executed.
#[derive(Debug, Serialize, ToSchema)]
struct SnekboxError {
    title: String,
    description: String,
}

/// Executes a program for a client of snekbox.
#[utoipa::path(post, path = "/eval", tag = "compatibility", operation_id = "snekbox_eval", request_body = SnekboxBody, responses(
    (status = 200, body = SnekboxAnswer, description = "It was executed, whatever came of it"),
    (status = "default", body = SnekboxError),
))]
async fn eval(
    State(context): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let sent: SnekboxBody = read_json(&body::json(&headers, body, &context.settings).await?)?;
    let (program, given) = sent.into_program()?;
    let execution = program.into_execution(&caller.limits, &context.settings.default_image)?;
    let answer = Ongoing::start(&context, &caller, execution, "snekbox").await?.finish().await?;
    Ok(answers::json(StatusCode::OK, &SnekboxAnswer::of(answer, &given)))
}

/// What would be executed.
pub(super) fn taken(body: &[u8], highest: &Limits) -> Result<Execution, Problem> {
    let (program, _) = read_json::<SnekboxBody>(body)?.into_program()?;
    program.into_execution(highest, "default")
}

/// Files by their paths.
type Files = BTreeMap<String, Vec<u8>>;

fn invalid(detail: String) -> Problem {
    Problem::new(ProblemKind::BadRequest, detail)
}

impl SnekboxBody {
    /// The program, and the files as they are before it runs.
    fn into_program(self) -> Result<(ProgramBody, Files), Problem> {
        let mut args = match (self.args, &self.input) {
            (Some(args), _) => args,
            (None, Some(_)) => vec!["-c".to_owned()],
            (None, None) => return Err(invalid("'input' or 'args' is a required property".to_owned())),
        };
        args.extend(self.input);
        let empty = args.iter().take_while(|argument| argument.is_empty()).count();
        args.drain(..empty);
        let mut given = read_files(self.files.unwrap_or_default())?;
        let mut program = called(args, &given);
        let beside = given.iter().filter(|(path, _)| *path != MAIN);
        let mut files: Vec<_> = beside.map(|(path, content)| foreign::file(path.clone(), content)).collect();
        if let (Some(content), Call::Interpreter) = (given.get(MAIN), &program.call) {
            let kept = program.keep_aside(&given);
            files.push(foreign::file(kept, content));
        }
        let Called { code, args, .. } = program;
        // What the sandbox puts there is nothing that the program made.
        given.entry(MAIN.to_owned()).or_insert_with(|| code.clone().into_bytes());
        // `**` alone would leave out what has the program's own name.
        let collect = Some(vec!["**".to_owned(), MAIN.to_owned()]);
        let env = [("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()), ("PYTHONUNBUFFERED".to_owned(), "1".to_owned())];
        let (args, files, env) = (Some(args), Some(files), Some(env.into()));
        Ok((ProgramBody { code, args, files, env, collect, ..ProgramBody::default() }, given))
    }
}

/// What comes later replaces what came before, as when it is written one after the other.
fn read_files(sent: Vec<SnekboxFile>) -> Result<Files, Problem> {
    let mut files = Files::new();
    for file in sent {
        let told = || cut(&file.path, 200).to_owned();
        if file.path.starts_with('/') || file.path.contains('\0') {
            return Err(invalid(format!("File path '{}' must be relative and have no NUL", told())));
        }
        let path = below(&file.path).ok_or_else(|| invalid(format!("File path '{}' may not traverse beyond root", told())))?;
        let content = foreign::base64(file.content.as_deref().unwrap_or_default(), true)
            .ok_or_else(|| invalid(format!("Invalid base64 encoding for file '{}'", told())))?;
        files.insert(path, content);
    }
    Ok(files)
}

/// How the arguments of an interpreter are carried out here.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    /// They name a program, which runs in the warm interpreter.
    Program,
    /// An interpreter is started with them.
    Interpreter,
}

#[derive(Debug)]
struct Called {
    call: Call,
    code: String,
    args: Vec<String>,
}

/// Makes way for an interpreter: the program that starts it is nothing that was asked for.
const START: &str = "import os, sys\nos.unlink(__file__)\n";
const EXEC: &str = "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n";

fn called(mut args: Vec<String>, files: &Files) -> Called {
    let text_of = |path: &str| String::from_utf8(files.get(path)?.clone()).ok();
    // There is one file with the program's own name: where another one is given, that is the program.
    let taken = files.contains_key(MAIN);
    let program = match args.as_slice() {
        [option, code, ..] if option == "-c" && !taken => Some((code.clone(), 2)),
        [name, ..] if !name.starts_with('-') => {
            let path = below(name).filter(|path| path == MAIN || !taken);
            path.and_then(|path| text_of(&path)).map(|code| (code, 1))
        }
        _ => None,
    };
    match program {
        Some((code, used)) => {
            args.drain(..used);
            Called { call: Call::Program, code, args }
        }
        None => Called { call: Call::Interpreter, code: format!("{START}{EXEC}"), args },
    }
}

impl Called {
    /// A file with the program's own name waits under another one, which nobody else has, until the program has made way.
    fn keep_aside(&mut self, given: &Files) -> String {
        let mut name = ".main.py".to_owned();
        while given.contains_key(&name) {
            name.push('_');
        }
        self.code = format!("{START}os.rename({name:?}, {MAIN:?})\n{EXEC}");
        name
    }
}

impl SnekboxAnswer {
    fn of(answer: ExecutionAnswer, given: &Files) -> Self {
        let returncode = returncode(&answer);
        let files = answer.files.into_iter().filter_map(|file| SnekboxOutput::of(file, given)).take(MOST_FILES).collect();
        Self { stdout: answer.output, returncode, files }
    }
}

fn returncode(answer: &ExecutionAnswer) -> Option<i32> {
    match answer.reason {
        ReasonWord::Cancelled => None,
        ReasonWord::OutputLimit => Some(TERMINATED),
        ReasonWord::Timeout | ReasonWord::CpuLimit => Some(KILLED),
        _ => {
            let by_signal = || (1..=64).find(|number| answer.signal.as_ref().is_some_and(|name| signal_name(*number) == *name));
            answer.exit_code.or_else(|| by_signal().map(|number| 128 + number)).or(Some(KILLED))
        }
    }
}

impl SnekboxOutput {
    /// A file that was made or changed and is not hidden. A path that is no text cannot be told in JSON.
    fn of(file: CollectedFile, given: &Files) -> Option<Self> {
        let bytes = match file.encoding {
            Encoding::Utf8 => file.content.clone().into_bytes(),
            Encoding::Base64 => base64::engine::general_purpose::STANDARD.decode(&file.content).ok()?,
        };
        let shown = file.name_base64.is_none()
            && !file.name.split('/').any(|name| name.starts_with('.') || name == "__pycache__")
            && !file.name.rsplit('/').next()?.starts_with('_');
        if !shown || given.get(&file.name) == Some(&bytes) {
            return None;
        }
        let content = base64::engine::general_purpose::STANDARD.encode(&bytes);
        Some(Self { path: file.name, size: bytes.len(), content })
    }
}

#[cfg(test)]
mod tests;
