//! Puts the players where the binary embeds them from. They are built by `make web` and not committed; without them the binary
//! works all the same, and the player page says what is missing.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let dist = Path::new("web/dist");
    let names = [
        "hls.min.js",
        "hls.LICENSE.txt",
        "shaka.min.js",
        "shaka.LICENSE.txt",
    ];
    for name in names {
        let built = dist.join(name);
        let content = if built.exists() {
            std::fs::read(&built)?
        } else {
            Vec::new()
        };
        std::fs::write(out.join(name), content)?;
    }
    // A watched file that is missing would run this at every build, so its nearest folder is watched until it is there.
    let watched = if names.iter().all(|name| dist.join(name).exists()) {
        dist
    } else {
        Path::new("web")
    };
    println!("cargo::rerun-if-changed={}", watched.display());
    Ok(())
}
