//! Bodies in chunks.

#![no_main]

#[allow(dead_code, unreachable_pub)]
#[path = "../../crates/proxy-http/tests/fuzz/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bodies::chunked(bytes);
});
