//! /metrics as Prometheus' own tool reads it, and what we ship for Prometheus and Grafana beside it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::beside_others;
use crate::harness::daemon::Daemon;
use crate::harness::streams::small_stream;

fn repository(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn promtool(arguments: &[&str], input: &str) {
    let mut promtool = Command::new("promtool");
    promtool
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    promtool
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = promtool.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "promtool {arguments:?}: {said}");
}

/// The metrics that a text names, by their base.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text
        .split(|c| !word(c))
        .filter(|name| name.starts_with("ringgear_"));
    words
        .map(|name| {
            let parts = ["_bucket", "_count", "_sum"];
            let base = parts.iter().find_map(|part| name.strip_suffix(part));
            base.unwrap_or(name).to_owned()
        })
        .collect()
}

/// Every query of a dashboard.
fn queries(value: &Value, found: &mut String) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(query) if name == "expr" || name == "query" => {
                        *found += query;
                        found.push('\n');
                    }
                    value => queries(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[test]
fn prometheus_accepts_the_metrics_and_the_dashboard_and_alerts_find_theirs() {
    let _machine = beside_others();
    // What has a source, sound or recordings has their metrics, though nothing comes from there.
    let away = "source = \"rtsp://127.0.0.1:9/away\"\n";
    let config = small_stream(
        "cam",
        &format!("[streams.cam.record]\n[streams.cam.audio]\n{away}"),
    ) + &format!("[streams.gate]\nframerate = 25\n{away}");
    let daemon = Daemon::start(&config);
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180", "--framerate", "25"]);
    daemon.wait_until_playable("cam");
    let metrics = daemon.get("/metrics").text();
    promtool(&["check", "metrics"], &metrics);
    let families: BTreeSet<_> = metrics
        .lines()
        .filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned()))
        .collect();
    let mut dashboard = String::new();
    queries(
        &serde_json::from_str(&repository("config/grafana-dashboard.json")).unwrap(),
        &mut dashboard,
    );
    for (what, text) in [
        ("dashboard", dashboard),
        ("alerts", repository("config/prometheus-alerts.yml")),
    ] {
        let wanted = named(&text);
        assert!(wanted.len() >= 10, "{what}: {wanted:?}");
        let missing: Vec<_> = wanted.difference(&families).collect();
        assert!(
            missing.is_empty(),
            "the {what} name what /metrics has not: {missing:?}\n{metrics}"
        );
    }
}

#[test]
fn the_alerts_are_raised_by_what_they_are_for() {
    promtool(&["check", "rules", "config/prometheus-alerts.yml"], "");
    promtool(&["test", "rules", "tests/prometheus/alerts.yml"], "");
}
