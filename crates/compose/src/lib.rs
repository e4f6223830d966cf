//! The Compose Specification: reading, interpolating, merging and resolving compose files.
pub mod dotenv;
pub mod duration;
pub mod interpolation;
pub mod ports;
pub mod size;
pub mod volumes;
pub mod words;
