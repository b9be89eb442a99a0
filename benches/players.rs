//! How old a picture is when players show it, from the camera's capture to the screen: hls.js, Shaka with both formats, dash.js and the
//! daemon's own page in headless Chromium, at the live edge of a small stream, at the default part length and at 200 ms. Fails by the goals.

#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/harness/mod.rs"]
mod harness;

use std::process::ExitCode;
use std::time::Duration;

use harness::asked_for;
use harness::daemon::Daemon;
use harness::players::{LiveStream, hold_the_edge, pages_at_the_edge, players_at_the_edge};

const SETTLE: Duration = Duration::from_secs(8);

/// Part in ms, segment in s, framerate, and what 95 of 100 pictures have to be younger than, in seconds.
const CASES: [(u64, u64, u32, f64); 2] = [(200, 1, 25, 1.2), (333, 2, 30, 2.0)];

fn main() -> ExitCode {
    let measured = Duration::from_secs(asked_for("RINGGEAR_BENCH_SECONDS", 60));
    let mut missed = Vec::new();
    for (part, segment, framerate, goal) in CASES {
        let daemon = Daemon::start(&format!(
            "[streams.cam]\nframerate = {framerate}\nsegment = \"{segment}s\"\npart = \"{part}ms\"\nwindow = \"30s\"\n\
             [[streams.cam.renditions]]\nname = \"small\"\nsize = \"320x180\"\nbitrate = \"300k\"\npreset = \"ultrafast\"\n"
        ));
        let rate = framerate.to_string();
        let pattern = ["pattern", "cam", "--size", "320x180", "--framerate", &rate];
        let _camera = daemon.producer(&pattern);
        let url = daemon.url("/cam");
        let status = daemon.url("/api/v1/streams/cam");
        let stream = LiveStream {
            url: &url,
            status: &status,
            part: Duration::from_millis(part),
            segment: Duration::from_secs(segment),
        };
        // The page has more to do than to play: it is not to take the processor from the others.
        for runs in [players_at_the_edge(stream), pages_at_the_edge(stream)] {
            println!("parts of {part} ms, goal: p95 <= {goal} s; load {}", load());
            for player in hold_the_edge(stream, &runs, SETTLE, measured) {
                let reached = player.p95.is_some_and(|p95| p95 <= goal);
                let word = if reached { "ok  " } else { "MISS" };
                println!("  {word} {player}");
                if !reached {
                    missed.push(format!("{} at {part} ms", player.name));
                }
            }
        }
    }
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("missed: {}", missed.join(", "));
    ExitCode::FAILURE
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(1).collect()
}
