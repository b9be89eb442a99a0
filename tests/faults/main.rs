//! The fault matrix: each test breaks one part of a running stream, on real processes, and shows that the stream goes on.
//! `docs/reliability.md` has the rows with their results.
//!
//! While a part is broken, checkers read all manifests, segments and parts over HTTP and in the publish folder many times a second,
//! and hls.js, dash.js and Shaka play in Chromium: all three have to be playing five seconds later, on pages that nobody reloads.
//! At the end every published picture is decoded, and the frame number in its bars is held against the one that ingest logged for its tick.

#![forbid(unsafe_code)]
// The whole crate is a test.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "another suite uses the rest of it")]
#[path = "../harness/mod.rs"]
mod harness;

mod daemon;
mod disk;
mod encoder;
mod machine;
mod producer;
mod random;
mod scene;
