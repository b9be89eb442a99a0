//! The fuzz targets' bodies on their seeds, as a part of every test run: what fuzzing runs is compiled and linted here, and what it once
//! reached stays good. The fuzzing itself is `make fuzz`.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]
// The bodies' functions are as public as a fuzz target wants them.
#![allow(unreachable_pub, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../fuzz/bodies/config.rs"]
mod config;
#[path = "../fuzz/bodies/control.rs"]
mod control;
#[path = "../fuzz/bodies/nut.rs"]
mod nut;
#[path = "../fuzz/bodies/ring.rs"]
mod ring;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs the body on each file of the folder, as it is and cut short in many places; says how many files there were.
fn replay(folder: &str, run: fn(&[u8])) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(repository(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let bytes = std::fs::read(path).unwrap();
        run(&bytes);
        for end in (0..bytes.len()).step_by(1 + bytes.len() / 50) {
            run(&bytes[..end]);
        }
        files += 1;
    }
    files
}

#[test]
fn the_control_socket_stands_its_seeds() {
    assert!(replay("fuzz/seeds/control", control::run) >= 7);
}

#[test]
fn the_ring_stands_its_seeds() {
    assert!(replay("fuzz/seeds/ring", ring::run) >= 10);
}

#[test]
fn the_config_stands_its_seeds() {
    assert!(replay("fuzz/seeds/config", config::run) >= 1);
    // The reference is a seed, too.
    assert!(replay("config", config::run) >= 1);
}

#[test]
fn the_nut_reader_stands_its_seeds() {
    assert!(replay("fuzz/seeds/nut", nut::run) >= 4);
}

/// The fuzz crate is a workspace of its own, whose build takes minutes; what goes stale unseen is its lock file.
#[test]
fn the_fuzz_crate_is_whole_and_its_lock_file_is_up_to_date() {
    let manifest = repository("fuzz/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--format-version=1"]);
    let output = cargo
        .arg("--manifest-path")
        .arg(&manifest)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut packages = metadata["packages"].as_array().unwrap().iter();
    let fuzz = packages
        .find(|package| package["name"] == "ringgear-fuzz")
        .unwrap();
    let targets = fuzz["targets"].as_array().unwrap().iter();
    let mut names: Vec<_> = targets
        .map(|target| target["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["config", "control", "nut", "ring"]);
    for name in names {
        let target = std::fs::read_to_string(repository(&format!("fuzz/fuzz_targets/{name}.rs")));
        let body = format!("#[path = \"../bodies/{name}.rs\"]");
        assert!(target.unwrap().contains(&body), "{name} runs its body");
    }
    let read = |path: &str| -> toml::Table {
        let text = std::fs::read_to_string(repository(path)).unwrap();
        text.parse().unwrap()
    };
    let asked = read("Cargo.toml");
    let mut asked: Vec<&str> = asked["dependencies"]
        .as_table()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    asked.sort_unstable();
    let lock = read("fuzz/Cargo.lock");
    let mut packages = lock["package"].as_array().unwrap().iter();
    let ours = packages.find(|package| package["name"].as_str() == Some("ringgear"));
    let locked = ours.unwrap()["dependencies"].as_array().unwrap().iter();
    // With a version where there are two of that name.
    let locked = locked.map(|name| name.as_str().unwrap().split(' ').next().unwrap());
    let mut locked: Vec<&str> = locked.collect();
    locked.sort_unstable();
    assert_eq!(locked, asked, "cargo update --workspace in fuzz/ mends it");
}
