//! The page's form for browsers without script: a program in, the same page with the result out.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use utoipa_axum::router::OpenApiRouter;

use super::page::Page;
use crate::answer::Stream;
use crate::body;
use crate::caller::Caller;
use crate::context::Context;
use crate::execution::{News, Ongoing};
use crate::problem::{Problem, ProblemKind};
use crate::program::ProgramBody;
use crate::text::Decoder;

/// What the form holds.
#[derive(Debug, Default)]
struct Form {
    code: String,
    stdin: String,
    key: String,
}

/// Executes what the form holds; [`read`] comes before it, and before whatever asks who calls.
pub(crate) fn routes() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::new().route("/", axum::routing::post(execute))
}

/// Reads the form, so that its key is found where keys are looked for, and shows problems as pages.
pub(crate) async fn read(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let form = match parse(&parts.headers, body, &context).await {
        Ok(form) => Arc::new(form),
        Err(problem) => return refused(&context, &Form::default(), &problem),
    };
    if !form.key.is_empty() {
        match HeaderValue::try_from(format!("Bearer {}", form.key)) {
            Ok(value) => drop(parts.headers.insert(AUTHORIZATION, value)),
            Err(_) => {
                let problem = Problem::new(ProblemKind::Unauthenticated, "the key has characters that no key has");
                return refused(&context, &form, &problem);
            }
        }
    }
    parts.extensions.insert(Arc::clone(&form));
    let response = next.run(Request::from_parts(parts, Body::empty())).await;
    match response.extensions().get::<Problem>() {
        None => response,
        Some(problem) => {
            let mut page = refused(&context, &form, problem);
            // They tell when it may be tried again.
            for (name, value) in response.headers() {
                if *name != CONTENT_LENGTH && !page.headers().contains_key(name) {
                    page.headers_mut().insert(name, value.clone());
                }
            }
            page
        }
    }
}

fn refused(context: &Context, form: &Form, problem: &Problem) -> Response {
    let mut page = Page::empty(context.settings.limits).with_program(&form.code, &form.stdin);
    let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let text = format!("{}: {}{hint}.", problem.title, problem.detail);
    page.refused(text, problem.kind == ProblemKind::Unauthenticated);
    super::answer(StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST), &page)
}

async fn parse(headers: &HeaderMap, body: Body, context: &Context) -> Result<Form, Problem> {
    context.sites.check_origin(headers)?;
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Problem::new(ProblemKind::UnsupportedMediaType, "this is where the page's form is sent to")
            .hint("POST /execute takes JSON"));
    }
    let bytes = body::whole(body, &context.settings).await?;
    let mut form = Form::default();
    for (name, value) in form_urlencoded::parse(&bytes) {
        // Browsers end the lines of forms with CR LF (HTML Living Standard, section 4.10.21.4), programs mean LF.
        let value = || value.replace("\r\n", "\n");
        match &*name {
            "code" => form.code = value(),
            "stdin" => form.stdin = value(),
            "key" => form.key = value().trim().to_owned(),
            _ => {}
        }
    }
    Ok(form)
}

async fn execute(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    Extension(form): Extension<Arc<Form>>,
) -> Result<Response, Problem> {
    let stdin = (!form.stdin.is_empty()).then(|| form.stdin.clone());
    let program = ProgramBody { code: form.code.clone(), stdin, ..ProgramBody::default() };
    let execution = program.into_execution(&caller.limits, &context.settings.default_image)?;
    let mut ongoing = Ongoing::start(&context, &caller, execution, "page").await?;
    let mut page = Page::empty(caller.limits).with_program(&form.code, &form.stdin);
    let (mut out, mut err) = (Decoder::default(), Decoder::default());
    while let Some(news) = ongoing.next().await? {
        match news {
            News::Wrote(Stream::Stdout, piece) => page.write(Stream::Stdout, &out.push(&piece)),
            News::Wrote(Stream::Stderr, piece) => page.write(Stream::Stderr, &err.push(&piece)),
            News::File(_) => {}
            News::Ended(answer) => {
                page.write(Stream::Stdout, &out.finish());
                page.write(Stream::Stderr, &err.finish());
                page.ended(&answer);
            }
        }
    }
    Ok(super::answer(StatusCode::OK, &page))
}
