//! Ringgear turns raw camera frames in shared memory into live HLS and MPEG-DASH. `docs/architecture.md` is the map.

#![forbid(unsafe_code)]

// A panic ends the stream that it happened in, and no other: it has to unwind.
#[cfg(panic = "abort")]
compile_error!("one stream's panic would end all streams: build with panic = \"unwind\"");

pub mod access;
mod archive;
mod audio;
pub mod budget;
pub mod cli;
pub mod clock;
mod complaint;
pub mod config;
pub mod control;
mod daemon;
mod descriptors;
pub mod encode;
mod faults;
mod histogram;
pub mod http;
pub mod ingest;
pub mod manifest;
pub mod network;
pub mod package;
pub mod picture;
pub mod publish;
pub mod sample;
mod service;
mod source;
pub mod status;
mod stream;
mod threads;
pub mod tick;
pub mod window;
