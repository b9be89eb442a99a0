//! Ringgear as its users meet it: the real binary, real FFmpeg, real sockets, real players. Each test names the rule
//! of the live window, or the promise, that it shows. The daemon and the producers run under unprivileged users of their own
//! when the suite runs as root.
//!
//! Tests in a module `alone` measure time or load the machine, and have it to themselves. Those in a module `large` take more of it than others do, and share it.

#![forbid(unsafe_code)]
// The whole crate is a test.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "another suite uses the rest of it")]
#[path = "../harness/mod.rs"]
mod harness;

mod activation;
mod c_client;
mod camera_faults;
mod checker_itself;
mod config_errors;
mod copied_parts;
mod copies;
mod crashes;
mod disk;
mod encoder;
mod feeders;
mod footage;
mod frame_accuracy;
mod hostile;
mod http_versions;
mod isolation;
mod keeping;
mod lifecycle;
mod limits;
mod live_edge;
mod load;
mod logs;
mod low_latency;
mod low_latency_dash;
mod metrics;
mod pages;
mod player_page;
mod players;
mod producers;
mod protocol_page;
mod recordings;
mod reload;
mod renditions;
mod restarts;
mod security;
mod siege;
mod sound;
mod sound_producers;
mod source_sound;
mod sources;
mod timing;
mod transcodes;
mod unprivileged;
mod watching;
mod window;
