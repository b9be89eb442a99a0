//! Ringgear turns raw camera frames in shared memory into live HLS and MPEG-DASH. `docs/architecture.md` is the map.

#![forbid(unsafe_code)]

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
mod daemon;
pub mod encode;
pub mod http;
mod ingest;
pub mod manifest;
pub mod package;
pub mod picture;
pub mod publish;
pub mod sample;
mod service;
pub mod status;
mod stream;
pub mod tick;
pub mod window;
