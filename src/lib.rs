//! Ringgear turns raw camera frames in shared memory into live HLS and MPEG-DASH. `docs/architecture.md` is the map.

#![forbid(unsafe_code)]

pub mod clock;
pub mod config;
pub mod control;
pub mod http;
mod ingest;
pub mod manifest;
pub mod package;
pub mod picture;
pub mod sample;
pub mod status;
pub mod tick;
pub mod window;
