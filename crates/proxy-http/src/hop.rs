//! Fields that concern one connection only and are not passed on (RFC 9110, section 7.6.1).

use crate::body_length::BodyLength;
use crate::fields::Fields;
use crate::known::Known;
use crate::octet;
use crate::request::RequestHead;

/// What a request asks of its connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// To change the protocol; [`RequestHead::upgrade`] still tells to which.
    pub upgrade: bool,
    /// To be sent trailers (`TE: trailers`, which is passed on).
    pub trailers: bool,
}

/// Takes the fields off a request that are meant for this proxy, among them those that `Connection` names (but not what this
/// proxy or its peers vouch for: `Host`, framing, forwarded fields, the request's id). Those named in `passed` stay, and
/// `Connection` still names them.
///
/// A request to change the protocol stays (`Connection: upgrade` and `Upgrade`) if it is one ([`RequestHead::upgrade`]) and
/// the request has no body: where a body would end and the other protocol begin is not for two readers to agree on.
pub fn strip_request(head: &mut RequestHead, body: BodyLength, passed: &[&str]) -> Asked {
    let upgrade = body.is_empty() && head.upgrade().is_some();
    let fields = &mut head.fields;
    let trailers = fields.has_token(Known::Te, "trailers");
    strip(fields, upgrade, passed);
    if trailers {
        // The name is a token and the value is a literal.
        let _set = fields.set_known(Known::Te, "trailers");
    }
    Asked { upgrade, trailers }
}

/// Takes the fields off a response that are meant for this proxy. If it switches protocols (101), that is passed on.
pub fn strip_response(fields: &mut Fields, switches: bool) {
    strip(fields, switches && fields.contains_known(Known::Upgrade), &[]);
}

fn strip(fields: &mut Fields, upgrade: bool, passed: &[&str]) {
    let mut present = false;
    let mut options = false;
    for (known, _, value) in fields.entries() {
        present |= is_of_connection(known);
        options |= known == Known::Connection && octet::list(value).any(|option| !is_usual(option));
    }
    if !present {
        return;
    }
    let is_passed = |name: &[u8]| passed.iter().any(|passed| passed.as_bytes().eq_ignore_ascii_case(name));
    let mut kept_options = String::new();
    if options {
        for name in fields.get_all_known(Known::Connection).flat_map(octet::list).filter(|name| is_passed(name)) {
            kept_options.push_str(&String::from_utf8_lossy(name));
            kept_options.push_str(", ");
        }
        fields
            .remove_listed(Known::Connection, |known, name| is_of_connection(known) || is_vouched_for(known) || is_passed(name));
    }
    fields.keep(|known, _| !is_of_connection(known) || upgrade && known == Known::Upgrade);
    if upgrade {
        kept_options.push_str("upgrade");
    }
    if !kept_options.is_empty() {
        // What is no field value was not parsed as one.
        let _set = fields.set_known(Known::Connection, kept_options.trim_end_matches(", "));
    }
}

/// Options of `Connection` that name no field, or one that is dealt with in any case.
fn is_usual(option: &[u8]) -> bool {
    [b"keep-alive".as_slice(), b"close", b"upgrade", b"te"].iter().any(|usual| usual.eq_ignore_ascii_case(option))
}

pub(crate) fn is_of_connection(known: Known) -> bool {
    matches!(
        known,
        Known::Connection
            | Known::ProxyConnection
            | Known::KeepAlive
            | Known::Te
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Http2Settings
    )
}

/// Fields that a client must not be able to have taken off: without them the message would mean something else.
fn is_vouched_for(known: Known) -> bool {
    let is_vital = matches!(known, Known::Host | Known::ContentLength | Known::XRequestId | Known::Expect | Known::Trailer);
    is_vital || known.is_claim()
}
