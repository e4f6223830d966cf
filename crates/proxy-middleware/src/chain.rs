//! A route's middlewares in their order.

use std::sync::Arc;
use std::time::Duration;

use coracle_proxy_http::{Known, RequestHead, ResponseHead};
use coracle_proxy_table::{Middleware, MiddlewareId};
use smallvec::SmallVec;

use crate::ConfigError;
use crate::answer::{Answer, AnswerBody, put};
use crate::client::Client;
use crate::encoder::Encoder;
use crate::fetch::Fetch;
use crate::state::State;
use crate::step::{Note, Step};

/// A route's middlewares, in their order. Cheap to share between threads; nothing in it is locked that requests of routes
/// without limits would wait for.
#[derive(Debug, Default)]
pub struct Chain {
    steps: Vec<Arc<Step>>,
    /// Whether any of them looks at answers.
    answers: bool,
    /// Whether any of them may ask a service about one.
    asks: bool,
    body_limit: Option<u64>,
    retry: Option<Retry>,
}

/// How the engine repeats requests that no target has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often a request is sent at most, the first time counted.
    pub attempts: u32,
    /// The wait before the second time; twice as long before each one after.
    pub initial_interval: Duration,
}

/// A request that has passed a chain. Holds what limits count, and lets go of it when it is dropped: keep it until the answer's
/// last byte is sent.
#[derive(Debug, Default)]
pub struct Passage {
    notes: SmallVec<[(usize, Note); 2]>,
    /// What is to be held until the end after the answer's head has passed, and by which middleware.
    held: SmallVec<[(usize, Note); 1]>,
}

/// What is left to do after an answer's head has passed a chain.
#[derive(Debug, Default)]
pub struct After {
    /// What the body is to be run through. The head says so already, and says nothing of the length any more.
    pub encoder: Option<Encoder>,
    /// The answer that goes to the client in place of the one that came; its head is the one that has passed the chain.
    pub replace: Option<Answer>,
}

impl Chain {
    /// Compiles middlewares, or takes over those that `state` has with equal settings.
    ///
    /// # Errors
    /// [`ConfigError`] for the first one whose settings do not make sense.
    pub fn compile(middlewares: &[(MiddlewareId, Middleware)], state: &State) -> Result<Self, ConfigError> {
        let steps = middlewares.iter().map(|(id, settings)| state.step(id, settings));
        let steps: Vec<Arc<Step>> = steps.collect::<Result<_, _>>()?;
        Ok(Self {
            answers: steps.iter().any(|step| step.answers()),
            asks: steps.iter().any(|step| step.asks()),
            body_limit: steps.iter().filter_map(|step| step.body_limit()).min(),
            retry: steps.iter().find_map(|step| step.retry()),
            steps,
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The most bytes that a request's body may have. [`Chain::request`] refuses those that say they have more; the engine has
    /// to count the others, and answer 413.
    pub fn body_limit(&self) -> Option<u64> {
        self.body_limit
    }

    /// How the engine repeats requests that no target has answered.
    pub fn retry(&self) -> Option<Retry> {
        self.retry
    }

    /// Takes a request through the chain, which may change it.
    ///
    /// # Errors
    /// An [`Answer`] for the client, in place of the service's. It has passed the chain back as far as the request had come.
    pub async fn request(&self, client: &Client, head: &mut RequestHead, fetch: &dyn Fetch) -> Result<Passage, Answer> {
        let mut passage = Passage::default();
        for (index, step) in self.steps.iter().enumerate() {
            match step.request(client, head, fetch).await {
                Ok(Some(note)) => passage.notes.push((index, note)),
                Ok(None) => {}
                Err(answer) if self.asks => return Err(Box::pin(self.back_asking(index, passage, answer, head, fetch)).await),
                Err(answer) => {
                    let (mut passage, mut answer, mut outcome) = (passage, answer, Outcome::default());
                    self.unwind(index, &mut passage, &mut answer.head, &mut outcome);
                    return Err(returned(passage, answer, outcome));
                }
            }
        }
        Ok(passage)
    }

    /// Whether [`Chain::response_asking`] may have to ask a service.
    pub fn asks(&self) -> bool {
        self.asks
    }

    /// Takes an answer through the chain, last middleware first. It is called once for each request, with the head of the final
    /// answer (never an informational one, but 101 it may be): the service's, or the one that the engine makes itself when the
    /// service gave none (502, 503, 504). Nobody is asked for anything.
    pub fn response(&self, passage: &mut Passage, head: &mut ResponseHead) -> After {
        if !self.answers {
            return After::default();
        }
        let mut outcome = Outcome::default();
        self.unwind(self.steps.len(), passage, head, &mut outcome);
        After::of(head, outcome)
    }

    /// The same, with pages that services make for errors. `request` is the request as it went to the service.
    pub async fn response_asking(
        &self,
        passage: &mut Passage,
        head: &mut ResponseHead,
        request: &RequestHead,
        fetch: &dyn Fetch,
    ) -> After {
        let mut outcome = Outcome::default();
        self.unwind_asking(self.steps.len(), passage, head, &mut outcome, (request, fetch)).await;
        After::of(head, outcome)
    }

    /// Says that an answer, whose head has passed the chain, has broken off on the service's side.
    pub fn broke(&self, passage: &Passage) {
        for (index, held) in &passage.held {
            if let Some(step) = self.steps.get(*index) {
                step.broke(held);
            }
        }
    }

    /// Takes an answer of step `index` through those before it.
    async fn back_asking(
        &self,
        index: usize,
        mut passage: Passage,
        mut answer: Answer,
        request: &RequestHead,
        fetch: &dyn Fetch,
    ) -> Answer {
        let mut outcome = Outcome::default();
        self.unwind_asking(index, &mut passage, &mut answer.head, &mut outcome, (request, fetch)).await;
        returned(passage, answer, outcome)
    }

    fn unwind(&self, passed: usize, passage: &mut Passage, head: &mut ResponseHead, outcome: &mut Outcome) {
        for (index, step) in self.steps[..passed].iter().enumerate().rev() {
            let note = passage.take(index);
            let note = step.response(note, head, outcome);
            passage.held.extend(note.map(|note| (index, note)));
        }
    }

    async fn unwind_asking(
        &self,
        passed: usize,
        passage: &mut Passage,
        head: &mut ResponseHead,
        outcome: &mut Outcome,
        (request, fetch): (&RequestHead, &dyn Fetch),
    ) {
        for (index, step) in self.steps[..passed].iter().enumerate().rev() {
            let note = passage.take(index);
            if let (Step::ErrorPages(pages), Some(Note::ErrorPages(asked))) = (&**step, &note)
                && let Some(page) = pages.fetched(asked, head.status, request, fetch).await
            {
                *outcome = Outcome::page(pages.put(page, asked, head));
                continue;
            }
            let note = step.response(note, head, outcome);
            passage.held.extend(note.map(|note| (index, note)));
        }
    }
}

impl Passage {
    /// What step `index` has noted, if it is the last one that has.
    fn take(&mut self, index: usize) -> Option<Note> {
        match self.notes.last() {
            Some((of, _)) if *of == index => self.notes.pop().map(|(_, note)| note),
            _ => None,
        }
    }
}

impl After {
    fn of(head: &mut ResponseHead, outcome: Outcome) -> Self {
        let replace = outcome.replace.map(|body| Answer { head: std::mem::take(head), body, encoder: None, held: None });
        match (replace, outcome.encoder) {
            (Some(mut answer), Some(encoder)) => {
                encode_now(&mut answer, encoder);
                Self { replace: Some(answer), encoder: None }
            }
            (replace, encoder) => Self { replace, encoder },
        }
    }
}

/// An answer of a middleware's own that has passed those before it.
fn returned(passage: Passage, mut answer: Answer, outcome: Outcome) -> Answer {
    if let Some(body) = outcome.replace {
        answer.body = body;
    }
    if let Some(encoder) = outcome.encoder {
        encode_now(&mut answer, encoder);
    }
    if !passage.notes.is_empty() || !passage.held.is_empty() {
        answer.held = Some(Box::new(passage));
    }
    answer
}

/// What the middlewares make of an answer besides its head.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The body in place of the one that came.
    pub(crate) replace: Option<AnswerBody>,
    /// What the body is to be run through.
    pub(crate) encoder: Option<Encoder>,
}

impl Outcome {
    /// Another body. Whatever the one before was to be run through went with it.
    pub(crate) fn page(body: AnswerBody) -> Self {
        Self { replace: Some(body), encoder: None }
    }
}

/// Compresses a body that is there as a whole; leaves the encoder to the engine for a file.
fn encode_now(answer: &mut Answer, mut encoder: Encoder) {
    let AnswerBody::Bytes(bytes) = &answer.body else {
        answer.encoder = Some(encoder);
        return;
    };
    let mut out = Vec::with_capacity(bytes.len() / 2 + 64);
    match encoder.encode(bytes, &mut out).and_then(|()| encoder.finish(&mut out)) {
        Ok(()) => {
            put(&mut answer.head.fields, Known::ContentLength, out.len().to_string());
            answer.body = AnswerBody::Bytes(out.into());
        }
        Err(_no_memory) => {
            answer.head.fields.remove_known(Known::ContentEncoding);
            put(&mut answer.head.fields, Known::ContentLength, bytes.len().to_string());
        }
    }
}
