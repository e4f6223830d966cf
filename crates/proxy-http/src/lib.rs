//! HTTP messages as bytes: strict parsing and framing of HTTP/1.1, heads that can be edited, the PROXY header.
