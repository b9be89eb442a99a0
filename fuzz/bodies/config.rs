//! Any bytes as a config: good, or refused with errors that lie inside of the file.

use std::path::Path;

use ringgear::config::{self, Environment};

/// One input.
pub fn run(bytes: &[u8]) {
    let file = Path::new("fuzz.toml");
    match config::parse_bytes(bytes, file, &Environment::TEXT_ONLY) {
        Ok(loaded) => {
            for stream in loaded.plan.streams.values() {
                assert!(!stream.renditions.is_empty());
            }
        }
        Err(errors) => {
            let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
            assert!(!errors.errors.is_empty());
            for error in &errors.errors {
                if let Some(position) = error.position {
                    assert!((1..=lines).contains(&position.line), "{error}");
                }
                assert!(!error.to_string().contains('\n'), "one line: {error:?}");
            }
        }
    }
}
