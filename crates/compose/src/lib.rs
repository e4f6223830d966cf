//! The Compose Specification: reading, interpolating, merging and resolving compose files.
