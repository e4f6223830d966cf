//! The page at `/`, to try the server by hand: one document, one style sheet, one script, all in the binary. The script talks
//! to the API like any other client; without it, a plain form is answered with the same page and the result in it
//! ([`form`]). There is no inline script or style, and the page's policy lets a browser run none.

pub(crate) mod form;
mod page;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use utoipa_axum::router::OpenApiRouter;

use crate::context::Context;
use page::Page;

/// Scripts, styles and requests of our own only; nobody else's page may frame this one (Content Security Policy Level 3).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action \
                      'self'; base-uri 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Debug, Clone, Copy)]
struct Asset {
    path: &'static str,
    media_type: &'static str,
    content: &'static str,
}

const ASSETS: [Asset; 2] = [
    Asset { path: "/style.css", media_type: "text/css; charset=utf-8", content: include_str!("web/style.css") },
    Asset { path: "/page.js", media_type: "text/javascript; charset=utf-8", content: include_str!("web/page.js") },
];

/// The page and its files: nothing in them costs anything or is anybody's secret.
pub(crate) fn routes() -> OpenApiRouter<Arc<Context>> {
    let router = OpenApiRouter::new().route("/", axum::routing::get(index));
    ASSETS.into_iter().fold(router, |router, asset| {
        router.route(asset.path, axum::routing::get(move |headers: HeaderMap| async move { asset.answer(&headers) }))
    })
}

async fn index(State(context): State<Arc<Context>>) -> Response {
    answer(StatusCode::OK, &Page::empty(context.settings.limits))
}

/// A page with what keeps it safe in a browser.
fn answer(status: StatusCode, page: &Page) -> Response {
    let mut response = (status, page.html()).into_response();
    let fields: [(HeaderName, &'static str); 6] = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Asset {
    /// The file, unless the browser has it already. It is asked for each time, so that a new server is not seen with an old
    /// script.
    fn answer(self, headers: &HeaderMap) -> Response {
        let tag = format!("\"{}\"", &blake3::hash(self.content.as_bytes()).to_hex()[..16]);
        let known = headers.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
        let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { self.content.into_response() };
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Ok(tag) = HeaderValue::try_from(tag) {
            fields.insert(ETAG, tag);
        }
        response
    }
}
