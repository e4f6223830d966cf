//! A program as it is sent, and what becomes of it: JSON on the wire, checked once, then an execution that the sandbox takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use coracle_sandbox::{Execution, InputFile, Limits, Mode, RequestedLimits, Stdin};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::object::{self, Object};
use crate::problem::{Problem, ProblemKind};

/// How many arguments, variables and files a program may be given.
pub(crate) const MOST_ITEMS: usize = 1024;

/// Bytes of all arguments and variables together.
pub(crate) const MOST_ARGUMENT_BYTES: usize = 1 << 20;

/// How many patterns of files to collect, and how long one may be: what the sandbox takes.
pub(crate) const MOST_PATTERNS: usize = 64;
const LONGEST_PATTERN: usize = 1024;

/// PATH_MAX, of which one is the NUL at the end, and NAME_MAX of Linux.
const LONGEST_PATH: usize = 4095;

/// Directories above a file, and files and directories together: what the working directory has room for, with as much left.
const DEEPEST: usize = 100;
const MOST_ENTRIES: usize = 2048;

/// Where the working directory is, which is a part of every path.
const WORK: &str = "/work/";
const LONGEST_NAME: usize = 255;

/// Where the program itself is placed.
const MAIN: &str = "main.py";

/// A program and everything it is given. Only `code` must be there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProgramBody {
    /// The program's text.
    #[schema(example = "print(42)")]
    pub code: String,
    /// What it reads from its standard input; nothing otherwise.
    #[serde(default)]
    pub stdin: Option<String>,
    /// `sys.argv[1:]`.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// Environment variables, beside those that every program has.
    #[serde(default)]
    pub env: Option<BTreeMap<String, String>>,
    /// Files in its working directory.
    #[serde(default, deserialize_with = "object::optional_list")]
    pub files: Option<Vec<FileBody>>,
    /// Patterns of files that are brought back, relative to the working directory: `*`, `?`, `[a-z]` within a name, `**`
    /// for any number of directories.
    #[serde(default)]
    #[schema(example = json!(["*.png", "out/**"]))]
    pub collect: Option<Vec<String>>,
    /// Limits lower than the server's.
    #[serde(default, deserialize_with = "object::optional")]
    pub limits: Option<LimitsBody>,
    /// Which image it runs in; `GET /runtimes` lists them.
    #[serde(default)]
    pub image: Option<String>,
    /// `zygote` (a copy of a warm interpreter, the default) or `exec` (an interpreter started for it).
    #[serde(default)]
    pub mode: Option<ModeWord>,
    /// Where the end of a job is told, by `POST` of what `GET /jobs/{id}` answers; in `POST /jobs` only.
    #[serde(default)]
    pub callback_url: Option<String>,
}

/// A file for the working directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileBody {
    /// Its path relative to the working directory, without `..`.
    #[schema(example = "data/input.csv")]
    pub name: String,
    /// Its content.
    pub content: String,
    /// How `content` is written: `utf-8` (as it is, the default) or `base64` (RFC 4648 section 4).
    #[serde(default)]
    pub encoding: Encoding,
}

/// How bytes are written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
pub(crate) enum Encoding {
    /// As text.
    #[default]
    #[serde(rename = "utf-8", alias = "utf8")]
    Utf8,
    /// RFC 4648 section 4, with padding.
    #[serde(rename = "base64")]
    Base64,
}

/// How a program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModeWord {
    /// In a copy of a warm interpreter.
    Zygote,
    /// In an interpreter started for it.
    Exec,
}

/// Limits that are asked for. Each is at most the server's, which `GET /limits` tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsBody {
    /// Milliseconds from start to end.
    #[serde(default)]
    pub wall_ms: Option<u64>,
    /// Milliseconds of processor time of all its processes.
    #[serde(default)]
    pub cpu_ms: Option<u64>,
    /// Bytes of memory, files in the working directory included.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(default)]
    pub pids: Option<u64>,
    /// Bytes kept of each of the two output streams.
    #[serde(default)]
    pub output_bytes: Option<u64>,
}

/// Reads JSON of this shape, or says what is wrong with it and where.
pub(crate) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    match serde_json::from_slice::<Object<T>>(bytes) {
        Ok(read) => Ok(read.0),
        Err(error) => Err(unreadable::<T>(bytes, &error)),
    }
}

/// Reading again with a note of the path is slower, so it is done for those who need to know only.
fn unreadable<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> Problem {
    if error.classify() != serde_json::error::Category::Data {
        let detail = format!("the body is not JSON: {error}");
        return Problem::new(ProblemKind::BadRequest, detail).hint("send an object such as {\"code\": \"print(42)\"}");
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let message = match serde_path_to_error::deserialize::<_, Object<T>>(&mut reader) {
        Err(error) if error.path().iter().next().is_some() => format!("{}: {}", error.path(), error.inner()),
        _ => error.to_string(),
    };
    let problem = Problem::new(ProblemKind::BadRequest, cut(&message, 500));
    match nearest(&message) {
        Some(nearest) => problem.hint(format!("did you mean `{nearest}`?")),
        None => problem.hint("GET /openapi.json tells what is wanted"),
    }
}

/// The known field that an unknown one resembles most, out of serde's own words about it.
fn nearest(message: &str) -> Option<&str> {
    let (_, after) = message.split_once("unknown field `")?;
    let mut words = after.split('`').step_by(2);
    let wrong = words.next()?;
    let near = words.map(|known| (strsim::osa_distance(wrong, known), known)).filter(|(_, known)| !known.is_empty()).min()?;
    (near.0 <= 2.max(wrong.len() / 3)).then_some(near.1)
}

/// At most so many bytes of a text, cut between characters.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

impl ProgramBody {
    /// The execution that is asked for, within these limits, in `default_image` unless another one is named.
    pub(crate) fn into_execution(self, highest: &Limits, default_image: &str) -> Result<Execution, Problem> {
        if self.callback_url.is_some() {
            return Err(invalid("callback_url is for jobs".to_owned()).hint("send it to POST /jobs"));
        }
        let args = self.args.unwrap_or_default();
        let env: Vec<(String, String)> = self.env.unwrap_or_default().into_iter().collect();
        let collect = self.collect.unwrap_or_default();
        check_arguments(&args, &env)?;
        check_patterns(&collect)?;
        Ok(Execution {
            image: self.image.unwrap_or_else(|| default_image.to_owned()),
            mode: match self.mode {
                Some(ModeWord::Exec) => Mode::Exec,
                _ => Mode::Zygote,
            },
            code: self.code.into_bytes(),
            stdin: Stdin::Bytes(self.stdin.unwrap_or_default().into_bytes()),
            args,
            env,
            files: input_files(self.files.unwrap_or_default())?,
            collect,
            limits: self.limits.unwrap_or_default().requested(highest)?,
        })
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(ProblemKind::BadRequest, detail)
}

fn check_arguments(args: &[String], env: &[(String, String)]) -> Result<(), Problem> {
    if args.len() > MOST_ITEMS || env.len() > MOST_ITEMS {
        return Err(invalid(format!("at most {MOST_ITEMS} arguments and {MOST_ITEMS} variables can be given")));
    }
    let bytes: usize =
        args.iter().map(String::len).sum::<usize>() + env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if bytes > MOST_ARGUMENT_BYTES {
        return Err(invalid(format!("arguments and variables have {bytes} bytes; {MOST_ARGUMENT_BYTES} is the most"))
            .hint("give the program more in `stdin` or in a file"));
    }
    if let Some(at) = args.iter().position(|argument| argument.contains('\0')) {
        return Err(invalid(format!("args[{at}] contains NUL, which no argument can")));
    }
    for (name, value) in env {
        if name.is_empty() || name.contains(['\0', '=']) {
            return Err(invalid(format!("env: {name:?} cannot be the name of a variable")));
        }
        if value.contains('\0') {
            return Err(invalid(format!("env.{name} contains NUL, which no variable can")));
        }
    }
    Ok(())
}

fn check_patterns(collect: &[String]) -> Result<(), Problem> {
    if collect.len() > MOST_PATTERNS {
        return Err(invalid(format!("collect has {} patterns; {MOST_PATTERNS} is the most", collect.len())));
    }
    match collect.iter().position(|pattern| pattern.is_empty() || pattern.len() > LONGEST_PATTERN) {
        Some(at) => Err(invalid(format!("collect[{at}] must have 1 to {LONGEST_PATTERN} bytes"))),
        None => Ok(()),
    }
}

fn input_files(files: Vec<FileBody>) -> Result<Vec<InputFile>, Problem> {
    if files.len() > MOST_ITEMS {
        return Err(invalid(format!("at most {MOST_ITEMS} files can be given")));
    }
    let mut names = BTreeSet::new();
    let mut checked = Vec::with_capacity(files.len());
    for (at, file) in files.into_iter().enumerate() {
        let told = |why| invalid(format!("files[{at}].name {:?} {why}", cut(&file.name, 100)));
        let path = checked_path(&file.name).map_err(told)?;
        if !names.insert(path.clone()) {
            return Err(told("is there twice"));
        }
        checked.push(InputFile { content: file.bytes(at)?, path });
    }
    let directories: BTreeSet<&str> =
        names.iter().flat_map(|name| name.match_indices('/').map(|(end, _)| &name[..end])).collect();
    if directories.len() + names.len() > MOST_ENTRIES {
        let told = format!("files make {} files and directories; {MOST_ENTRIES} is the most", directories.len() + names.len());
        return Err(invalid(told));
    }
    for name in &names {
        let above = name.match_indices('/').map(|(end, _)| &name[..end]).find(|above| names.contains(*above));
        if let Some(above) = above {
            return Err(invalid(format!("files: {above:?} cannot be both a file and the directory of {:?}", cut(name, 100))));
        }
    }
    Ok(checked)
}

/// A path below the working directory in its shortest form, or why it is none.
fn checked_path(path: &str) -> Result<String, &'static str> {
    if path.is_empty() {
        return Err("is empty");
    }
    if path.contains('\0') {
        return Err("contains NUL, which no name can");
    }
    if path.starts_with('/') {
        return Err("is absolute; it must be relative to the working directory");
    }
    let path = below(path).ok_or("must not lead out of the working directory by `..`, or to itself")?;
    if path.matches('/').count() > DEEPEST {
        return Err("is more than 100 directories deep");
    }
    if WORK.len() + path.len() > LONGEST_PATH || path.split('/').any(|name| name.len() > LONGEST_NAME) {
        return Err("is longer than Linux allows: 255 bytes for a name, 4089 for a path below the working directory");
    }
    if path == MAIN || path.starts_with("main.py/") {
        return Err("is where the program itself is");
    }
    Ok(path)
}

/// A path below the working directory in its shortest form, by its letters alone: nothing is there yet that it could follow.
/// `None` if it leads out of there, or to the directory itself.
pub(crate) fn below(path: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            name => names.push(name),
        }
    }
    (!names.is_empty()).then(|| names.join("/"))
}

impl FileBody {
    fn bytes(&self, at: usize) -> Result<Vec<u8>, Problem> {
        match self.encoding {
            Encoding::Utf8 => Ok(self.content.clone().into_bytes()),
            Encoding::Base64 => base64::engine::general_purpose::STANDARD
                .decode(&self.content)
                .map_err(|error| invalid(format!("files[{at}].content is not base64: {error}"))),
        }
    }
}

impl LimitsBody {
    /// These limits, checked against the highest, which stand where nothing is asked for.
    fn requested(self, highest: &Limits) -> Result<RequestedLimits, Problem> {
        let least = Limits::LEAST_MEMORY.min(highest.memory_bytes);
        let checked = Self {
            wall_ms: within("wall_ms", self.wall_ms, 1, milliseconds(highest.wall))?,
            cpu_ms: within("cpu_ms", self.cpu_ms, 1, milliseconds(highest.cpu))?,
            memory_bytes: within("memory_bytes", self.memory_bytes, least, highest.memory_bytes)?,
            pids: within("pids", self.pids, 1, u64::from(highest.pids))?,
            output_bytes: within("output_bytes", self.output_bytes, 0, highest.output_bytes)?,
        };
        let granted = highest.lowered(&checked.as_requested());
        Ok(RequestedLimits {
            wall: Some(granted.wall),
            cpu: Some(granted.cpu),
            memory_bytes: Some(granted.memory_bytes),
            pids: Some(granted.pids),
            output_bytes: Some(granted.output_bytes),
        })
    }

    /// The same in the sandbox's words, unchecked.
    pub(crate) fn as_requested(self) -> RequestedLimits {
        RequestedLimits {
            wall: self.wall_ms.map(Duration::from_millis),
            cpu: self.cpu_ms.map(Duration::from_millis),
            memory_bytes: self.memory_bytes,
            pids: self.pids.map(|pids| u32::try_from(pids).unwrap_or(u32::MAX)),
            output_bytes: self.output_bytes,
        }
    }
}

impl From<RequestedLimits> for LimitsBody {
    fn from(limits: RequestedLimits) -> Self {
        Self {
            wall_ms: limits.wall.map(milliseconds),
            cpu_ms: limits.cpu.map(milliseconds),
            memory_bytes: limits.memory_bytes,
            pids: limits.pids.map(u64::from),
            output_bytes: limits.output_bytes,
        }
    }
}

/// A time in whole milliseconds.
pub(crate) fn milliseconds(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

/// A limit that is no higher than the server's, and not so low that nothing could run.
fn within(name: &str, wanted: Option<u64>, least: u64, highest: u64) -> Result<Option<u64>, Problem> {
    match wanted {
        Some(value) if value > highest => {
            let detail = format!("limits.{name} is {value}; limits can only be lowered, and {highest} is the most here");
            Err(Problem::new(ProblemKind::LimitTooHigh, detail).hint("GET /limits tells what this server grants"))
        }
        Some(value) if value < least => Err(invalid(format!("limits.{name} is {value}; {least} is the least"))),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(body: &str) -> Result<Execution, Problem> {
        read_json::<ProgramBody>(body.as_bytes()).and_then(|body| body.into_execution(&Limits::default(), "default"))
    }

    fn refused(body: &str) -> (u16, String) {
        let problem = read(body).unwrap_err();
        (problem.status, format!("{} {}", problem.detail, problem.hint.unwrap_or_default()))
    }

    #[test]
    fn everything_that_can_be_sent_arrives() {
        let execution = read(
            r#"{"code":"print(1)","stdin":"in","args":["a"],"env":{"B":"b"},"collect":["*.txt"],"mode":"exec","image":"other",
                "files":[{"name":"d/x","content":"AP8=","encoding":"base64"},{"name":"y","content":"é"}],
                "limits":{"wall_ms":10,"cpu_ms":5,"memory_bytes":33554432,"pids":3,"output_bytes":0}}"#,
        )
        .unwrap();
        assert_eq!(execution.stdin, Stdin::Bytes(b"in".to_vec()));
        assert_eq!((execution.mode, execution.image.as_str()), (Mode::Exec, "other"));
        assert_eq!(execution.env, [("B".to_owned(), "b".to_owned())]);
        assert_eq!(execution.files[0], InputFile { path: "d/x".into(), content: vec![0, 255] });
        assert_eq!(execution.files[1].content, "é".as_bytes());
        assert_eq!((execution.limits.wall, execution.limits.pids), (Some(Duration::from_millis(10)), Some(3)));
        assert_eq!(execution.limits.output_bytes, Some(0));
    }

    #[test]
    fn null_means_not_given() {
        let body = r#"{"code":"","stdin":null,"args":null,"env":null,"files":null,"collect":null,"limits":null,"image":null}"#;
        let mut nothing = Execution::new("default", "");
        nothing.limits = LimitsBody::default().requested(&Limits::default()).unwrap();
        assert_eq!(read(body).unwrap(), nothing);
        assert_eq!(nothing.limits.wall, Some(Limits::default().wall));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (body, status, told) in [
            (r#"{"stuff":"foo"}"#, 400, "unknown field `stuff`"),
            (r#"{"cod":"1"}"#, 400, "did you mean `code`"),
            (r#"{}"#, 400, "missing field `code`"),
            (r#"{"code":7}"#, 400, "code: invalid type"),
            (r#"{"code":"","args":["a",1]}"#, 400, "args[1]: invalid type"),
            (r#"{"code":"","files":[{"name":"a","contents":""}]}"#, 400, "did you mean `content`"),
            (r#"{"code":"","limits":{"wall_ms":-1}}"#, 400, "limits.wall_ms"),
            (r#"{"code":"\ud800"}"#, 400, "not JSON"),
            (r#"{"code":"#, 400, "not JSON"),
            ("[]", 400, "expected"),
            (r#"{"code":"","limits":{"wall_ms":10001}}"#, 422, "10000 is the most"),
            (r#"{"code":"","limits":{"memory_bytes":9000000000000}}"#, 422, "GET /limits"),
            (r#"{"code":"","limits":{"pids":0}}"#, 400, "1 is the least"),
            (r#"{"code":"","args":["\u0000"]}"#, 400, "args[0] contains NUL"),
            (r#"{"code":"","env":{"A=B":""}}"#, 400, "cannot be the name"),
            (r#"{"code":"","files":[{"name":"a\u0000b","content":""}]}"#, 400, "NUL"),
            (r#"{"code":"","files":[{"name":"../a","content":""}]}"#, 400, "`..`"),
            (r#"{"code":"","files":[{"name":"/a","content":""}]}"#, 400, "absolute"),
            (r#"{"code":"","files":[{"name":"main.py","content":""}]}"#, 400, "program itself"),
            (r#"{"code":"","files":[{"name":"a","content":"%","encoding":"base64"}]}"#, 400, "not base64"),
            (r#"{"code":"","files":[{"name":"a","content":""},{"name":"a","content":""}]}"#, 400, "twice"),
            (r#"{"code":"","files":[{"name":"a/b","content":""},{"name":"a","content":""}]}"#, 400, "both a file and"),
        ] {
            let (found, message) = refused(body);
            assert!(found == status && message.contains(told), "{body}: {found} {message}");
        }
    }

    #[test]
    fn deep_json_is_refused_and_not_followed() {
        let deep = format!(r#"{{"code":"","args":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(refused(&deep).0, 400);
        let deep = format!(r#"{{"code":"","x":{}{}}}"#, "{\"a\":".repeat(200_000), "}".repeat(200_000));
        assert_eq!(refused(&deep).0, 400);
    }

    #[test]
    fn paths_stay_below_the_working_directory() {
        for (path, expected) in [
            ("path/to/file", Some("path/to/file")),
            ("./0.jpg", Some("0.jpg")),
            ("folder/../hm", Some("hm")),
            ("a//b/./c/", Some("a/b/c")),
            ("back\\slash", Some("back\\slash")),
            ("../secret", None),
            ("dir/../../secret", None),
            ("a/..", None),
            ("", None),
            ("/", None),
        ] {
            assert_eq!(below(path).as_deref(), expected, "{path}");
        }
        assert_eq!(checked_path("x/../main.py"), Err("is where the program itself is"));
    }

    #[test]
    fn cutting_a_text_keeps_characters_whole() {
        assert_eq!((cut("aé", 2), cut("aé", 3), cut("", 5)), ("a", "aé", ""));
    }
}
