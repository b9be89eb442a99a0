//! Puts hls.js where the binary embeds it from. It is built by `make web` and not committed; without it the binary
//! works all the same, and the player page says what is missing.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let dist = Path::new("web/dist");
    for name in ["hls.min.js", "hls.LICENSE.txt"] {
        let built = dist.join(name);
        let content = if built.exists() {
            std::fs::read(&built)?
        } else {
            Vec::new()
        };
        std::fs::write(out.join(name), content)?;
    }
    // A watched file that is missing would run this at every build, so its nearest folder is watched until it is there.
    let watched = if dist.join("hls.min.js").exists() {
        dist
    } else {
        Path::new("web")
    };
    println!("cargo::rerun-if-changed={}", watched.display());
    Ok(())
}
