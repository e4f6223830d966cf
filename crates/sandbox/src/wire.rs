//! What client and daemon say to each other: frames of `u32 length (little-endian), u8 kind, payload`, on a Unix stream
//! socket, one execution at a time per connection.
//!
//! The daemon reads lengths and numbers. The job (program, arguments, variables, files) passes through it unread, to be
//! taken apart by the worker, inside the sandbox.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use crate::execution::{
    Collected, End, Event, Execution, Health, ImageInfo, Limits, Mode, Reason, RequestedLimits, Stdin, Truncated, Usage,
};

/// The longest frame that is accepted, in bytes.
pub const LONGEST_FRAME: u32 = 64 << 20;

/// The first byte of a job that wants an interpreter of its own.
pub(crate) const FRESH: u8 = 1;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It is longer than allowed.
    #[error("a frame of {0} bytes; {LONGEST_FRAME} is the most")]
    TooLong(u32),
    /// It ends too early.
    #[error("a frame ends within a field")]
    Short,
    /// It goes on where it should end.
    #[error("a frame has {0} bytes too many")]
    Long(usize),
    /// Its kind or one of its numbers means nothing.
    #[error("a frame has {what} {value}, which means nothing")]
    Unknown {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A text is not UTF-8.
    #[error("a frame has a text that is not UTF-8")]
    NotText,
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Execute this.
    Execute(Submission),
    /// More standard input.
    Stdin(Bytes),
    /// No more standard input.
    StdinEnd,
    /// End the execution.
    Cancel,
    /// Which images are there?
    Images,
    /// How are you?
    Health,
}

/// An execution as the daemon sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The image's name.
    pub image: String,
    /// Limits that are asked for.
    pub limits: RequestedLimits,
    /// Patterns of files to bring back.
    pub collect: Vec<Vec<u8>>,
    /// Standard input; `None` is sent later.
    pub stdin: Option<Bytes>,
    /// What the worker reads.
    pub job: Bytes,
}

/// What the daemon says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Something happened to the execution.
    Event(Event),
    /// It is not executed, or the connection makes no sense; with the reason.
    Refused(Refusal),
    /// The images.
    Images(Vec<ImageInfo>),
    /// How the daemon is.
    Health(Health),
}

/// Why something is not executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// In one word.
    pub kind: RefusalKind,
    /// In a sentence.
    pub message: String,
}

/// Why something is not executed, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// No such image, or one that does not work.
    Image,
    /// Too much is running; later it may work.
    Busy,
    /// The daemon did not understand.
    Protocol,
    /// The machine did not give what a sandbox needs; later it may.
    Machine,
}

const REFUSALS: [RefusalKind; 4] = [RefusalKind::Image, RefusalKind::Busy, RefusalKind::Protocol, RefusalKind::Machine];

/// Takes one whole frame off the front of `buffer`: its kind and payload; `None` if it is not there yet.
pub fn take_frame(buffer: &mut BytesMut) -> Result<Option<(u8, Bytes)>, WireError> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head);
    if length > LONGEST_FRAME {
        return Err(WireError::TooLong(length));
    }
    if length == 0 {
        return Err(WireError::Short);
    }
    let whole = 4 + usize::try_from(length).unwrap_or(usize::MAX - 4);
    if buffer.len() < whole {
        buffer.reserve(whole - buffer.len());
        return Ok(None);
    }
    let mut frame = buffer.split_to(whole).freeze();
    frame.advance(4);
    let kind = frame.get_u8();
    Ok(Some((kind, frame)))
}

impl Request {
    /// Appends the frame.
    pub fn encode(&self, buffer: &mut BytesMut) {
        match self {
            Self::Execute(submission) => frame(buffer, 1, |out| submission.encode(out)),
            Self::Stdin(bytes) => frame(buffer, 2, |out| out.extend_from_slice(bytes)),
            Self::StdinEnd => frame(buffer, 3, |_| {}),
            Self::Cancel => frame(buffer, 4, |_| {}),
            Self::Images => frame(buffer, 5, |_| {}),
            Self::Health => frame(buffer, 6, |_| {}),
        }
    }

    /// Reads a frame's kind and payload.
    pub fn decode(kind: u8, payload: Bytes) -> Result<Self, WireError> {
        let mut fields = Fields(payload);
        let request = match kind {
            1 => Self::Execute(Submission::decode(&mut fields)?),
            2 => return Ok(Self::Stdin(fields.0)),
            3 => Self::StdinEnd,
            4 => Self::Cancel,
            5 => Self::Images,
            6 => Self::Health,
            other => return Err(WireError::Unknown { what: "the kind", value: other.into() }),
        };
        fields.end(request)
    }
}

impl Submission {
    /// Of an execution.
    pub fn of(execution: &Execution) -> Self {
        let stdin = match &execution.stdin {
            Stdin::Bytes(bytes) => Some(Bytes::copy_from_slice(bytes)),
            Stdin::Interactive => None,
        };
        Self {
            image: execution.image.clone(),
            limits: execution.limits,
            collect: execution.collect.iter().map(|pattern| pattern.clone().into_bytes()).collect(),
            stdin,
            job: job(execution),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        put_bytes(out, self.image.as_bytes());
        let millis = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let RequestedLimits { wall, cpu, memory_bytes, pids, output_bytes } = self.limits;
        for limit in [millis(wall), millis(cpu), memory_bytes, pids.map(u64::from), output_bytes] {
            out.extend_from_slice(&[u8::from(limit.is_some())]);
            put_u64(out, limit.unwrap_or(0));
        }
        put_count(out, self.collect.len());
        self.collect.iter().for_each(|pattern| put_bytes(out, pattern));
        out.extend_from_slice(&[u8::from(self.stdin.is_some())]);
        put_bytes(out, self.stdin.as_deref().unwrap_or_default());
        put_bytes(out, &self.job);
    }

    fn decode(fields: &mut Fields) -> Result<Self, WireError> {
        let image = fields.text()?;
        let mut limit = || Ok((fields.flag()?, fields.u64()?)).map(|(given, value)| given.then_some(value));
        let (wall, cpu) = (limit()?.map(Duration::from_millis), limit()?.map(Duration::from_millis));
        let memory_bytes = limit()?;
        let pids = limit()?.map(|pids| u32::try_from(pids).unwrap_or(u32::MAX));
        let limits = RequestedLimits { wall, cpu, memory_bytes, pids, output_bytes: limit()? };
        let collect = fields.list(|fields| fields.bytes().map(|pattern| pattern.to_vec()))?;
        let given = fields.flag()?;
        let stdin = fields.bytes()?;
        Ok(Self { image, limits, collect, stdin: given.then_some(stdin), job: fields.bytes()? })
    }
}

/// What the worker reads: `u8 mode`, then lists and texts as everywhere here.
fn job(execution: &Execution) -> Bytes {
    let mut out = BytesMut::with_capacity(execution.code.len() + 64);
    out.extend_from_slice(&[match execution.mode {
        Mode::Zygote => 0,
        Mode::Exec => FRESH,
    }]);
    put_count(&mut out, execution.args.len());
    execution.args.iter().for_each(|argument| put_bytes(&mut out, argument.as_bytes()));
    put_count(&mut out, execution.env.len());
    for (name, value) in &execution.env {
        put_bytes(&mut out, name.as_bytes());
        put_bytes(&mut out, value.as_bytes());
    }
    put_count(&mut out, execution.files.len());
    for file in &execution.files {
        put_bytes(&mut out, file.path.as_bytes());
        put_bytes(&mut out, &file.content);
    }
    put_bytes(&mut out, &execution.code);
    out.freeze()
}

impl Answer {
    /// Appends the frame.
    pub fn encode(&self, buffer: &mut BytesMut) {
        match self {
            Self::Event(Event::Started { queued }) => frame(buffer, 1, |out| put_time(out, *queued)),
            Self::Event(Event::Stdout(bytes)) => frame(buffer, 2, |out| out.extend_from_slice(bytes)),
            Self::Event(Event::Stderr(bytes)) => frame(buffer, 3, |out| out.extend_from_slice(bytes)),
            Self::Event(Event::File(file)) => frame(buffer, 4, |out| {
                put_bytes(out, &file.path);
                put_bytes(out, &file.content);
            }),
            Self::Event(Event::End(end)) => frame(buffer, 5, |out| put_end(out, end)),
            Self::Refused(refusal) => frame(buffer, 6, |out| {
                let kind = REFUSALS.iter().zip(0..).find(|(kind, _)| **kind == refusal.kind);
                out.extend_from_slice(&[kind.map_or(0, |(_, byte)| byte)]);
                put_bytes(out, refusal.message.as_bytes());
            }),
            Self::Images(images) => frame(buffer, 7, |out| {
                put_count(out, images.len());
                images.iter().for_each(|image| put_image(out, image));
            }),
            Self::Health(health) => frame(buffer, 8, |out| put_health(out, health)),
        }
    }

    /// Reads a frame's kind and payload.
    pub fn decode(kind: u8, payload: Bytes) -> Result<Self, WireError> {
        let mut fields = Fields(payload);
        let answer = match kind {
            1 => Self::Event(Event::Started { queued: fields.time()? }),
            2 => return Ok(Self::Event(Event::Stdout(fields.0))),
            3 => return Ok(Self::Event(Event::Stderr(fields.0))),
            4 => Self::Event(Event::File(Collected { path: fields.bytes()?.to_vec(), content: fields.bytes()? })),
            5 => Self::Event(Event::End(take_end(&mut fields)?)),
            6 => {
                let byte = fields.u8()?;
                let unknown = WireError::Unknown { what: "the refusal", value: byte.into() };
                let kind = *REFUSALS.get(usize::from(byte)).ok_or(unknown)?;
                Self::Refused(Refusal { kind, message: fields.text()? })
            }
            7 => Self::Images(fields.list(take_image)?),
            8 => Self::Health(take_health(&mut fields)?),
            other => return Err(WireError::Unknown { what: "the kind", value: other.into() }),
        };
        fields.end(answer)
    }
}

fn put_end(out: &mut BytesMut, end: &End) {
    out.extend_from_slice(&[end.reason.to_byte()]);
    for number in [end.exit_code, end.signal] {
        out.extend_from_slice(&[u8::from(number.is_some())]);
        put_u64(out, u64::from(number.unwrap_or(0).cast_unsigned()));
    }
    put_time(out, end.usage.wall);
    put_time(out, end.usage.cpu);
    put_u64(out, end.usage.memory_peak);
    put_time(out, end.usage.queued);
    let Truncated { stdout, stderr, files } = end.truncated;
    out.extend_from_slice(&[stdout, stderr, files].map(u8::from));
}

fn take_end(fields: &mut Fields) -> Result<End, WireError> {
    let byte = fields.u8()?;
    let reason = Reason::from_byte(byte).ok_or(WireError::Unknown { what: "the reason", value: byte.into() })?;
    let mut number = || Ok((fields.flag()?, fields.u64()?)).map(|(given, value)| given.then_some(value as u32 as i32));
    let (exit_code, signal) = (number()?, number()?);
    let (wall, cpu, memory_peak, queued) = (fields.time()?, fields.time()?, fields.u64()?, fields.time()?);
    let truncated = Truncated { stdout: fields.flag()?, stderr: fields.flag()?, files: fields.flag()? };
    Ok(End { reason, exit_code, signal, usage: Usage { wall, cpu, memory_peak, queued }, truncated })
}

fn put_image(out: &mut BytesMut, image: &ImageInfo) {
    put_bytes(out, image.name.as_bytes());
    put_bytes(out, image.interpreter.as_bytes());
    put_u64(out, image.ready.into());
    put_u64(out, image.slots.into());
    out.extend_from_slice(&[u8::from(image.trouble.is_some())]);
    put_bytes(out, image.trouble.as_deref().unwrap_or_default().as_bytes());
}

fn take_image(fields: &mut Fields) -> Result<ImageInfo, WireError> {
    let (name, interpreter) = (fields.text()?, fields.text()?);
    let (ready, slots, troubled) = (fields.u32()?, fields.u32()?, fields.flag()?);
    let trouble = fields.text()?;
    Ok(ImageInfo { name, interpreter, ready, slots, trouble: troubled.then_some(trouble) })
}

fn put_health(out: &mut BytesMut, health: &Health) {
    put_u64(out, health.pid.into());
    put_bytes(out, health.cgroups.as_bytes());
    put_u64(out, health.running.into());
    put_u64(out, health.waiting.into());
    put_u64(out, health.executed);
    put_u64(out, health.failures);
    let Limits { wall, cpu, memory_bytes, pids, output_bytes, cpu_milli } = health.limits;
    put_time(out, wall);
    put_time(out, cpu);
    [memory_bytes, pids.into(), output_bytes, cpu_milli.into()].into_iter().for_each(|number| put_u64(out, number));
    put_bytes(out, health.isolation.as_bytes());
    put_bytes(out, health.why.as_bytes());
    put_count(out, health.weaker.len());
    health.weaker.iter().for_each(|sentence| put_bytes(out, sentence.as_bytes()));
}

fn take_health(fields: &mut Fields) -> Result<Health, WireError> {
    Ok(Health {
        pid: fields.u32()?,
        cgroups: fields.text()?,
        running: fields.u32()?,
        waiting: fields.u32()?,
        executed: fields.u64()?,
        failures: fields.u64()?,
        limits: Limits {
            wall: fields.time()?,
            cpu: fields.time()?,
            memory_bytes: fields.u64()?,
            pids: fields.u32()?,
            output_bytes: fields.u64()?,
            cpu_milli: fields.u32()?,
        },
        isolation: fields.text()?,
        why: fields.text()?,
        weaker: fields.list(Fields::text)?,
    })
}

/// Appends a frame whose payload `fill` appends.
fn frame(buffer: &mut BytesMut, kind: u8, fill: impl FnOnce(&mut BytesMut)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0, 0, 0, 0, kind]);
    fill(buffer);
    let length = u32::try_from(buffer.len() - start - 4).unwrap_or(u32::MAX);
    if let Some(head) = buffer.get_mut(start..start + 4) {
        head.copy_from_slice(&length.to_le_bytes());
    }
}

fn put_u64(out: &mut BytesMut, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Microseconds.
fn put_time(out: &mut BytesMut, time: Duration) {
    put_u64(out, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

/// The rest of a payload, read from the front.
struct Fields(Bytes);

impl Fields {
    fn u8(&mut self) -> Result<u8, WireError> {
        self.0.try_get_u8().map_err(|_| WireError::Short)
    }

    fn flag(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::Unknown { what: "a flag", value: other.into() }),
        }
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.0.try_get_u64_le().map_err(|_| WireError::Short)
    }

    /// A 32-bit number that was sent in 64.
    fn u32(&mut self) -> Result<u32, WireError> {
        let number = self.u64()?;
        u32::try_from(number).map_err(|_| WireError::Unknown { what: "a number", value: number })
    }

    fn time(&mut self) -> Result<Duration, WireError> {
        self.u64().map(Duration::from_micros)
    }

    fn count(&mut self) -> Result<usize, WireError> {
        self.0.try_get_u32_le().map(|count| usize::try_from(count).unwrap_or(usize::MAX)).map_err(|_| WireError::Short)
    }

    fn bytes(&mut self) -> Result<Bytes, WireError> {
        let length = self.count()?;
        if length > self.0.len() { Err(WireError::Short) } else { Ok(self.0.split_to(length)) }
    }

    fn text(&mut self) -> Result<String, WireError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| WireError::NotText)
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T, WireError>) -> Result<Vec<T>, WireError> {
        let count = self.count()?;
        // Every item has bytes of its own, so a count beyond them is a lie and must not reserve memory.
        if count > self.0.len() {
            return Err(WireError::Short);
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn end<T>(self, message: T) -> Result<T, WireError> {
        if self.0.is_empty() { Ok(message) } else { Err(WireError::Long(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn back_request(request: &Request) -> Request {
        let mut buffer = BytesMut::new();
        request.encode(&mut buffer);
        let (kind, payload) = take_frame(&mut buffer).unwrap().unwrap();
        assert!(buffer.is_empty());
        Request::decode(kind, payload).unwrap()
    }

    fn submission() -> Submission {
        let mut execution = Execution::new("default", "print(1)");
        execution.limits.wall = Some(Duration::from_millis(1500));
        execution.limits.pids = Some(7);
        execution.collect = vec!["*.png".to_owned()];
        execution.args = vec!["a".to_owned(), String::new()];
        Submission::of(&execution)
    }

    #[test]
    fn requests_come_back() {
        for request in [
            Request::Execute(submission()),
            Request::Stdin(Bytes::from_static(b"\0\xff")),
            Request::StdinEnd,
            Request::Cancel,
            Request::Images,
            Request::Health,
        ] {
            assert_eq!(back_request(&request), request);
        }
    }

    #[test]
    fn answers_come_back() {
        let usage =
            Usage { wall: Duration::from_millis(3), cpu: Duration::from_micros(7), memory_peak: 9, queued: Duration::ZERO };
        let truncated = Truncated { stdout: true, stderr: false, files: true };
        let end = End { reason: Reason::Signal, exit_code: None, signal: Some(11), usage, truncated };
        let file = Collected { path: b"a\xff".to_vec(), content: Bytes::from_static(b"x") };
        let limits = Limits::default();
        let health = Health {
            pid: 1,
            cgroups: "cgroup v1".to_owned(),
            running: 2,
            waiting: 3,
            executed: 4,
            failures: 5,
            limits,
            isolation: "zygote".to_owned(),
            why: "root".to_owned(),
            weaker: vec!["no cpu controller".to_owned()],
        };
        let trouble = Some("no Python".to_owned());
        let image = ImageInfo { name: "a".to_owned(), interpreter: String::new(), ready: 1, slots: 2, trouble };
        for answer in [
            Answer::Event(Event::Started { queued: Duration::from_micros(5) }),
            Answer::Event(Event::Stdout(Bytes::from_static(b"out"))),
            Answer::Event(Event::Stderr(Bytes::new())),
            Answer::Event(Event::File(file)),
            Answer::Event(Event::End(end)),
            Answer::Refused(Refusal { kind: RefusalKind::Busy, message: "full".to_owned() }),
            Answer::Images(vec![image]),
            Answer::Health(health),
        ] {
            let mut buffer = BytesMut::new();
            answer.encode(&mut buffer);
            let (kind, payload) = take_frame(&mut buffer).unwrap().unwrap();
            assert_eq!(Answer::decode(kind, payload).unwrap(), answer);
        }
    }

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        let mut whole = BytesMut::new();
        Request::Execute(submission()).encode(&mut whole);
        let mut buffer = BytesMut::new();
        for byte in whole.split_off(0) {
            assert_eq!(take_frame(&mut buffer).unwrap(), None);
            buffer.extend_from_slice(&[byte]);
        }
        assert!(take_frame(&mut buffer).unwrap().is_some());
    }

    #[test]
    fn every_cut_is_an_error_and_no_panic() {
        let mut whole = BytesMut::new();
        Request::Execute(submission()).encode(&mut whole);
        let (kind, payload) = take_frame(&mut whole).unwrap().unwrap();
        for end in 0..payload.len() {
            assert!(Request::decode(kind, payload.slice(..end)).is_err(), "{end}");
        }
        let longer = [payload.as_ref(), b"x"].concat();
        assert_eq!(Request::decode(kind, Bytes::from(longer)), Err(WireError::Long(1)));
    }

    #[test]
    fn lengths_and_counts_that_lie_are_refused() {
        let mut buffer = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        assert_eq!(take_frame(&mut buffer), Err(WireError::TooLong(u32::MAX)));
        let mut buffer = BytesMut::from(&[0_u8; 4][..]);
        assert_eq!(take_frame(&mut buffer), Err(WireError::Short));
        let payload = Bytes::from(u32::MAX.to_le_bytes().to_vec());
        assert_eq!(Answer::decode(7, payload), Err(WireError::Short));
    }
}
