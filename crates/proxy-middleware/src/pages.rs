//! The built-in pages: for browsers, for programs, and as plain text.
//!
//! They need nothing from anywhere else, show nothing of the services behind the proxy, and are never kept by caches.

use coracle_proxy_http::{Known, RequestHead};
use http::StatusCode;

use crate::accept::{self, Format};
use crate::answer::Answer;

const HTML: &str = include_str!("pages/page.html");

/// A page for a status: HTML if `accept` (the request's `Accept`) likes it best, JSON if it likes that best, otherwise plain
/// text. An empty `message` becomes the usual one. `request_id` is shown, so that people can tell whoever keeps the logs.
pub fn page(status: StatusCode, accept: Option<&str>, message: &str, request_id: Option<&str>) -> Answer {
    written(accept::format(accept), status, message, request_id)
}

/// The same for a request.
pub fn refusal(head: &RequestHead, status: StatusCode, message: &str) -> Answer {
    page(status, head.fields.get_known_str(Known::Accept), message, head.fields.get_known_str(Known::XRequestId))
}

/// The page in a format that was chosen before.
pub(crate) fn written(format: Format, status: StatusCode, message: &str, request_id: Option<&str>) -> Answer {
    let message = if message.is_empty() { usual_message(status) } else { message };
    let (content_type, body) = match format {
        Format::Html => ("text/html; charset=utf-8", html(status, message, request_id)),
        Format::Json => ("application/json", json(status, message, request_id)),
        Format::Text => ("text/plain; charset=utf-8", text(status, message, request_id)),
    };
    Answer::new(status, content_type, body).with(Known::CacheControl, "no-store")
}

fn html(status: StatusCode, message: &str, request_id: Option<&str>) -> String {
    let id = request_id.map_or_else(String::new, |id| format!("<p class=\"id\">Request <code>{}</code></p>\n", escaped(id)));
    let title = format!("{} {}", status.as_u16(), phrase(status));
    let mut out = String::with_capacity(HTML.len() + message.len() + 256);
    let mut rest = HTML;
    // One pass: what is put in is never looked at for places again.
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let place = after.split_once('}').map_or("", |(name, _)| name);
        let value = match place {
            "title" => escaped(&title),
            "status" => status.as_str().to_owned(),
            "phrase" => escaped(phrase(status)),
            "message" => escaped(message),
            "id" => id.clone(),
            _ => {
                out.push('{');
                rest = after;
                continue;
            }
        };
        out.push_str(&value);
        rest = &after[place.len() + 1..];
    }
    out.push_str(rest);
    out
}

fn json(status: StatusCode, message: &str, request_id: Option<&str>) -> String {
    let mut out = format!("{{\"status\":{},\"error\":", status.as_u16());
    push_json(&mut out, phrase(status));
    out.push_str(",\"message\":");
    push_json(&mut out, message);
    if let Some(id) = request_id {
        out.push_str(",\"request_id\":");
        push_json(&mut out, id);
    }
    out.push_str("}\n");
    out
}

fn text(status: StatusCode, message: &str, request_id: Option<&str>) -> String {
    let id = request_id.map_or_else(String::new, |id| format!("\nRequest {id}\n"));
    format!("{} {}\n\n{message}\n{id}", status.as_u16(), phrase(status))
}

fn phrase(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or(if status.is_client_error() { "Request refused" } else { "Error" })
}

/// What is said if nobody says anything better.
fn usual_message(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "The request could not be understood.",
        401 => "This needs a name and a password.",
        403 => "This is not for you to see.",
        404 => "There is nothing at this address.",
        405 => "This cannot be done with this address.",
        408 => "The request took too long to arrive.",
        413 => "The request is larger than what is taken here.",
        414 => "The address is too long.",
        429 => "There were too many requests. Wait a moment, then try again.",
        431 => "The request's header fields are too large.",
        500 => "Something went wrong here.",
        502 => "The service behind this address gave no proper answer.",
        503 => "The service behind this address is not available at the moment. Try again shortly.",
        504 => "The service behind this address took too long to answer.",
        _ if status.is_client_error() => "The request was refused.",
        _ => "The request could not be answered.",
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A JSON string (RFC 8259, section 7).
fn push_json(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}
