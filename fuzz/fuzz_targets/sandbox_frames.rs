//! Frames of the sandbox daemon, of both directions, as they come over its socket.

#![no_main]

#[allow(dead_code, unreachable_pub)]
#[path = "../../crates/sandbox/tests/it/frames/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bodies::stream(bytes);
    if let Some((kind, payload)) = bytes.split_first() {
        bodies::both(*kind, &bytes::Bytes::copy_from_slice(payload));
    }
});
