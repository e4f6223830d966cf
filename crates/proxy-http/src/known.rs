//! Field names that the proxy itself looks at, as small integers, so that filters compare one byte instead of a name.

/// Declares [`Known`], its names and the table that finds them.
macro_rules! known {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// A field name of interest. Found once, when a field is parsed or appended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Known {
            $(#[doc = concat!("`", $name, "`")] $variant,)+
            /// Any other name.
            Other,
        }

        const NAMES: &[(&str, Known)] = &[$(($name, Known::$variant),)+];
    };
}

known! {
    Host = "host",
    Connection = "connection",
    ContentLength = "content-length",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    Te = "te",
    Trailer = "trailer",
    Expect = "expect",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    Http2Settings = "http2-settings",
    XForwardedFor = "x-forwarded-for",
    XForwardedProto = "x-forwarded-proto",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedPrefix = "x-forwarded-prefix",
    XForwardedServer = "x-forwarded-server",
    XForwardedSsl = "x-forwarded-ssl",
    XForwardedScheme = "x-forwarded-scheme",
    XForwardedMethod = "x-forwarded-method",
    XForwardedUri = "x-forwarded-uri",
    XForwardedTlsClientCert = "x-forwarded-tls-client-cert",
    XForwardedTlsClientCertInfo = "x-forwarded-tls-client-cert-info",
    XScheme = "x-scheme",
    Forwarded = "forwarded",
    XRealIp = "x-real-ip",
    XRequestId = "x-request-id",
    Traceparent = "traceparent",
    Date = "date",
    Server = "server",
    ContentType = "content-type",
    ContentEncoding = "content-encoding",
    ContentRange = "content-range",
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AcceptRanges = "accept-ranges",
    Cookie = "cookie",
    SetCookie = "set-cookie",
    Location = "location",
    Authorization = "authorization",
    ProxyAuthorization = "proxy-authorization",
    ProxyAuthenticate = "proxy-authenticate",
    WwwAuthenticate = "www-authenticate",
    CacheControl = "cache-control",
    ETag = "etag",
    LastModified = "last-modified",
    IfNoneMatch = "if-none-match",
    IfModifiedSince = "if-modified-since",
    IfMatch = "if-match",
    IfUnmodifiedSince = "if-unmodified-since",
    IfRange = "if-range",
    Range = "range",
    Vary = "vary",
    RetryAfter = "retry-after",
    StrictTransportSecurity = "strict-transport-security",
    Origin = "origin",
    UserAgent = "user-agent",
    Age = "age",
    Expires = "expires",
    Via = "via",
    SecWebSocketKey = "sec-websocket-key",
    SecWebSocketAccept = "sec-websocket-accept",
    SecWebSocketVersion = "sec-websocket-version",
    MaxForwards = "max-forwards",
}

/// A slot of the table without a name.
const EMPTY: u8 = u8::MAX;

/// Index into [`NAMES`] by [`slot`]. Made while compiling; two names in one slot do not compile.
const TABLE: [u8; 256] = {
    let mut table = [EMPTY; 256];
    let mut index = 0;
    while index < NAMES.len() {
        let slot = slot(NAMES[index].0.as_bytes());
        assert!(table[slot] == EMPTY, "two names share a slot: choose another factor in slot()");
        table[slot] = index as u8;
        index += 1;
    }
    table
};

/// A hash without collisions among [`NAMES`] (the factor was searched for); whatever the case. `name` is not empty.
const fn slot(name: &[u8]) -> usize {
    let len = name.len();
    let key = (len as u32) & 0xff
        | ((name[0] | 0x20) as u32) << 8
        | ((name[len - 1] | 0x20) as u32) << 16
        | ((name[len * 3 / 4] | 0x20) as u32) << 24;
    (key.wrapping_mul(0xe901_e35d) >> 24) as usize
}

/// Whether `name`, a token, spells `known` in any case. Eight bytes at a time: of the bytes that a token may have, those that
/// differ from a letter, a digit or `-` only in the bit 0x20 are the same letter in the other case.
fn is_spelled(known: &[u8], name: &[u8]) -> bool {
    const CASE: u64 = 0x2020_2020_2020_2020;
    if known.len() != name.len() {
        return false;
    }
    let differs = |known: &[u8; 8], name: &[u8; 8]| u64::from_ne_bytes(*known) ^ (u64::from_ne_bytes(*name) | CASE);
    let ((known_words, known_rest), (words, rest)) = (known.as_chunks::<8>(), name.as_chunks::<8>());
    if known_words.iter().zip(words).any(|(known, name)| differs(known, name) != 0) {
        return false;
    }
    match (known.last_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(known), Some(name)) => differs(known, name) == 0,
        _ => known_rest.iter().zip(rest).all(|(known, byte)| *known == byte | 0x20),
    }
}

impl Known {
    /// The known name that `name`, a token, spells in any case.
    #[inline]
    pub(crate) fn of(name: &[u8]) -> Self {
        if name.is_empty() {
            return Self::Other;
        }
        match NAMES.get(usize::from(TABLE[slot(name)])) {
            Some((known, id)) if is_spelled(known.as_bytes(), name) => *id,
            _ => Self::Other,
        }
    }

    /// The name in lower case; empty for [`Known::Other`].
    pub fn name(self) -> &'static str {
        NAMES.get(self as usize).map_or("", |(name, _)| name)
    }

    /// Whether it claims something about the client, which is for proxies that are believed to say.
    #[inline]
    pub(crate) fn is_claim(self) -> bool {
        matches!(
            self,
            Self::Forwarded
                | Self::XForwardedFor
                | Self::XForwardedProto
                | Self::XForwardedHost
                | Self::XForwardedPort
                | Self::XForwardedPrefix
                | Self::XForwardedServer
                | Self::XForwardedSsl
                | Self::XForwardedScheme
                | Self::XForwardedMethod
                | Self::XForwardedUri
                | Self::XForwardedTlsClientCert
                | Self::XForwardedTlsClientCertInfo
                | Self::XScheme
                | Self::XRealIp
        )
    }
}

/// A name in lower case with `-` for `_`, as those compare it that hand fields on as variables (CGI, WSGI, Rack).
pub(crate) struct Folded {
    bytes: [u8; 48],
    len: usize,
}

impl Folded {
    /// Folds the first 48 bytes of a name; nothing of interest is longer.
    pub(crate) fn of(name: &[u8]) -> Self {
        let mut folded = Self { bytes: [0; 48], len: name.len().min(48) };
        for (to, from) in folded.bytes.iter_mut().zip(name) {
            *to = if *from == b'_' { b'-' } else { from.to_ascii_lowercase() };
        }
        folded
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn known(&self) -> Known {
        Known::of(self.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (name, id) in NAMES {
            assert_eq!(Known::of(name.as_bytes()), *id);
            assert_eq!(Known::of(name.to_ascii_uppercase().as_bytes()), *id);
            assert_eq!(id.name(), *name);
            assert_eq!(Known::of(format!("{name}x").as_bytes()), Known::Other);
        }
    }

    #[test]
    fn others_are_others() {
        for name in ["", "x", "x-forwarded-four", "content_length", "hosts", "hos^", "x-forwarded-fo_", "et`g", "HOST~"] {
            assert_eq!(Known::of(name.as_bytes()), Known::Other, "{name:?}");
        }
        assert_eq!(Known::Other.name(), "");
    }
}
