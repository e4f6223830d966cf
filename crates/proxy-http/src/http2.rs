//! Heads between HTTP/2 and this crate's form (RFC 9113, section 8).

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Version, request, response};

use crate::body_length::{BodyLength, Framing};
use crate::error::{BadTarget, ParseError};
use crate::fields::Fields;
use crate::hop::is_of_connection;
use crate::known::Known;
use crate::octet;
use crate::parser::{HeadLimits, Parsed, read_method};
use crate::request::{RequestHead, TargetForm, is_origin};
use crate::response::ResponseHead;

impl RequestHead {
    /// Reads a request of HTTP/2; what is in the head is replaced. `protocol` is the `:protocol` of an extended CONNECT
    /// (RFC 8441), which becomes a GET with `Connection: upgrade` and `Upgrade`; `end` says that the stream ended with the
    /// head. `Parsed::head_len` is 0.
    ///
    /// # Errors
    /// [`ParseError::Http2`] where a request of HTTP/1.1 made of it could be read in two ways: fields of a connection, an
    /// `:authority` other than `Host`, a scheme other than `http` and `https`, white space around values; and what would be
    /// refused in HTTP/1.1.
    pub fn read_h2(
        &mut self,
        parts: &request::Parts,
        protocol: Option<&str>,
        end: bool,
        limits: &HeadLimits,
    ) -> Result<Parsed, ParseError> {
        self.clear();
        // As strictly as in HTTP/1.1, which it may be passed on in.
        self.method = read_method(parts.method.as_str().as_bytes())?;
        self.read_h2_target(parts, protocol)?;
        read_h2_fields(&parts.headers, limits, &mut self.fields)?;
        self.settle_authority(&parts.uri)?;
        let framing = Framing::of(&self.fields);
        framing.check_host(Version::HTTP_2)?;
        let expects_continue = framing.expects_continue(Version::HTTP_2)?;
        let body = match framing.of_request(Version::HTTP_2)? {
            BodyLength::Fixed(length) if end && length > 0 => return Err(ParseError::ContentLength),
            BodyLength::Fixed(length) => BodyLength::Fixed(length),
            _ if end || protocol.is_some() => BodyLength::None,
            _ => BodyLength::Chunked,
        };
        if let Some(protocol) = protocol {
            self.method = Method::GET;
            let fields = [(Known::Connection, "upgrade"), (Known::Upgrade, protocol)];
            for (known, value) in fields {
                self.fields.set_known(known, value).map_err(|_bad| ParseError::Http2)?;
            }
        }
        Ok(Parsed { head_len: 0, body, keep_alive: true, expects_continue: expects_continue && !body.is_empty() })
    }

    fn read_h2_target(&mut self, parts: &request::Parts, protocol: Option<&str>) -> Result<(), ParseError> {
        let connects = self.method == Method::CONNECT;
        if connects && protocol.is_none() {
            let authority = parts.uri.authority().ok_or(ParseError::Target)?.as_str();
            if parts.uri.scheme().is_some() || !octet::is_authority(authority.as_bytes()) {
                return Err(ParseError::Target);
            }
            self.put_target(Version::HTTP_2, TargetForm::Authority, "", authority);
            return Ok(());
        }
        let scheme_is_fine = parts.uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
        if !scheme_is_fine || protocol.is_some_and(|protocol| !connects || !octet::is_token(protocol.as_bytes())) {
            return Err(ParseError::Http2);
        }
        let target = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
        let form = match target.as_bytes() {
            [b'/', ..] if is_origin(target.as_bytes()) => TargetForm::Origin,
            b"*" if self.method == Method::OPTIONS => TargetForm::Asterisk,
            _ => return Err(ParseError::Target),
        };
        self.put_target(Version::HTTP_2, form, "", target);
        Ok(())
    }

    /// Makes `Host` of `:authority`; the two must not contradict each other (RFC 9113, section 8.3.1).
    fn settle_authority(&mut self, uri: &Uri) -> Result<(), ParseError> {
        let Some(authority) = uri.authority().map(Authority::as_str) else { return Ok(()) };
        let agrees = self.fields.get_all_known(Known::Host).all(|host| host.eq_ignore_ascii_case(authority.as_bytes()));
        if !agrees || self.fields.count("host") > 1 {
            return Err(ParseError::Http2);
        }
        self.fields.set_known(Known::Host, authority).map_err(|_bad| ParseError::Host)
    }

    /// The fields as HTTP/2 wants them: names in lower case, none of the connection's (`TE: trailers` may stay), no `Host`
    /// ([`RequestHead::to_uri`] has it), a `Content-Length` only as `body` says.
    pub fn to_header_map(&self, body: BodyLength) -> HeaderMap {
        let mut map = to_header_map(&self.fields);
        map.remove(http::header::HOST);
        if self.fields.has_token(Known::Te, "trailers") {
            map.insert(http::header::TE, HeaderValue::from_static("trailers"));
        }
        if let BodyLength::Fixed(length) = body {
            map.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        map
    }

    /// What HTTP/2 makes its pseudo-header fields of.
    ///
    /// # Errors
    /// [`BadTarget`] if there is no host, or the target has characters that the `http` crate takes for none of a URI (`<`,
    /// `>` and the backtick).
    pub fn to_uri(&self, https: bool) -> Result<Uri, BadTarget> {
        let authority = Authority::try_from(self.host()).map_err(|_invalid| BadTarget)?;
        let target = PathAndQuery::try_from(self.target()).map_err(|_invalid| BadTarget)?;
        let scheme = if https { Scheme::HTTPS } else { Scheme::HTTP };
        Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build().map_err(|_invalid| BadTarget)
    }
}

impl ResponseHead {
    /// Reads a response of HTTP/2; what is in the head is replaced. `end` says that the stream ended with the head.
    ///
    /// # Errors
    /// [`ParseError`] as for a response of HTTP/1.1; the client is to be answered 502.
    pub fn read_h2(
        &mut self,
        parts: &response::Parts,
        request_method: &Method,
        end: bool,
        limits: &HeadLimits,
    ) -> Result<Parsed, ParseError> {
        self.clear();
        self.put_status(Version::HTTP_2, parts.status, b"");
        read_h2_fields(&parts.headers, limits, &mut self.fields)?;
        let framing = Framing::of(&self.fields);
        let (body, _) = framing.of_response(Version::HTTP_2, parts.status, request_method)?;
        let body = match body {
            // There is no close to wait for: the stream tells its end.
            BodyLength::UntilClose if end => BodyLength::Fixed(0),
            BodyLength::UntilClose => BodyLength::Chunked,
            BodyLength::Fixed(length) if end && length > 0 => return Err(ParseError::ContentLength),
            body => body,
        };
        Ok(Parsed { head_len: 0, body, keep_alive: true, expects_continue: false })
    }

    /// The fields as HTTP/2 wants them: names in lower case, none of the connection's, a `Content-Length` only as `body`
    /// says. With [`BodyLength::None`] it is what an answer to HEAD, or a 304, tells about what it does not bring.
    pub fn to_header_map(&self, body: BodyLength) -> HeaderMap {
        let mut map = to_header_map(&self.fields);
        let length = match body {
            BodyLength::Fixed(length) => Some(length),
            BodyLength::None => self.told_length(),
            BodyLength::Chunked | BodyLength::UntilClose => None,
        };
        if let Some(length) = length {
            map.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        map
    }
}

impl Fields {
    /// The fields of a trailer section, as HTTP/2 wants them.
    pub fn to_trailer_map(&self) -> HeaderMap {
        to_header_map(self)
    }

    /// Adds the fields of a trailer section of HTTP/2 that may be passed on.
    ///
    /// # Errors
    /// [`ParseError`] as for the fields of a head.
    pub fn read_h2_trailers(&mut self, map: &HeaderMap, limits: &HeadLimits) -> Result<(), ParseError> {
        self.clear();
        read_h2_fields(map, limits, self)?;
        crate::chunked::keep_trailers(self);
        Ok(())
    }
}

fn read_h2_fields(map: &HeaderMap, limits: &HeadLimits, fields: &mut Fields) -> Result<(), ParseError> {
    if map.len() > limits.fields {
        return Err(ParseError::TooLarge);
    }
    let mut cookie = Vec::new();
    let mut size = 0;
    for (name, value) in map {
        let value = value.as_bytes();
        size += name.as_str().len() + value.len() + 4;
        if size > limits.head {
            return Err(ParseError::TooLarge);
        }
        if octet::trim(value) != value {
            return Err(ParseError::Http2);
        }
        match Known::of(name.as_str().as_bytes()) {
            Known::Te if value == b"trailers" => (),
            known if is_of_connection(known) => return Err(ParseError::Http2),
            // It may be split so that it compresses better (RFC 9113, section 8.2.3); HTTP/1.1 knows one field only.
            Known::Cookie if map.get_all(name).iter().nth(1).is_some() => {
                if !cookie.is_empty() {
                    cookie.extend_from_slice(b"; ");
                }
                cookie.extend_from_slice(value);
                continue;
            }
            _ => (),
        }
        fields.append(name.as_str(), value).map_err(|_bad| ParseError::FieldValue)?;
    }
    if !cookie.is_empty() {
        fields.append("cookie", cookie).map_err(|_bad| ParseError::FieldValue)?;
    }
    Ok(())
}

fn to_header_map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (known, name, value) in fields.entries() {
        if is_of_connection(known) || known == Known::ContentLength {
            continue;
        }
        // Both were checked when they came in; the map's own limit of 32,768 fields is far beyond ours.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    map
}
