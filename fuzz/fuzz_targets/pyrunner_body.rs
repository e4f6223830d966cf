//! A request's body, as each of PyRunner's endpoints that take a program would read it.

#![no_main]

#[allow(dead_code, unreachable_pub)]
#[path = "../../crates/pyrunner/tests/it/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bodies::body(bytes);
});
