//! The reference config, its docs and the examples say what the code does.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod docs;
mod examples;
mod nginx;
mod programs;

use std::path::Path;

use ringgear::config::{self, Environment, Plan, defaults};

fn plan(text: &str) -> Plan {
    let loaded = config::parse(text, Path::new("reference.toml"), &Environment::TEXT_ONLY);
    loaded.unwrap_or_else(|errors| panic!("{errors}")).plan
}

/// A file of this repository.
fn repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The reference with every default's "#" taken away.
fn uncommented(text: &str) -> String {
    let uncomment = |line: &str| {
        let default = line
            .strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['));
        default.unwrap_or(line).to_owned() + "\n"
    };
    text.lines().map(uncomment).collect()
}

#[test]
fn the_reference_shows_every_key_and_its_default() {
    let reference = repository("config/ringgear.toml");
    let expected = plan("[streams.door]\nframerate = 30");
    assert_eq!(plan(&reference), expected);
    assert_eq!(plan(&uncommented(&reference)), expected);
    for (table, keys) in config::keys() {
        for key in keys {
            let shown = reference.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ', '[']);
                let line = line.strip_prefix("streams.door.").unwrap_or(line);
                line.strip_prefix(key)
                    .is_some_and(|rest| rest.starts_with([' ', ']']))
            });
            assert!(shown, "{key} of [{table}] is missing");
        }
    }
}

#[test]
fn the_docs_have_every_key_with_its_default() {
    let docs = repository("docs/config.md");
    // What has no sound is written apart from what has.
    let (mut written, mut sound, mut record) = (String::new(), String::new(), String::new());
    for (table, keys) in config::keys() {
        let heading = match table {
            "streams" => "## [streams.NAME]".to_owned(),
            "renditions" => "## [[streams.NAME.renditions]]".to_owned(),
            "audio" => "## [streams.NAME.audio]".to_owned(),
            "audio renditions" => "## [[streams.NAME.audio.renditions]]".to_owned(),
            "record" => "## [streams.NAME.record]".to_owned(),
            other => format!("## [{other}]"),
        };
        let section = docs
            .split_once(&heading)
            .unwrap_or_else(|| panic!("{heading} is missing"))
            .1;
        let section = section.split("\n## ").next().unwrap();
        let written = match table {
            "record" => &mut record,
            "audio" | "audio renditions" => &mut sound,
            _ => &mut written,
        };
        *written += &match table {
            "audio" => "[streams.door.audio]\nsource = \"music.ogg\"\n".to_owned(),
            "audio renditions" => "[[streams.door.audio.renditions]]\n".to_owned(),
            "record" => "[streams.door.record]\n".to_owned(),
            "streams" => "[streams.door]\nframerate = 30\n".to_owned(),
            "renditions" => "[[streams.door.renditions]]\n".to_owned(),
            other => format!("[{other}]\n"),
        };
        for key in keys {
            let row = section
                .lines()
                .find(|line| line.starts_with(&format!("| `{key}` |")));
            let row = row.unwrap_or_else(|| panic!("{key} has no row under {heading}"));
            let default = row.split('|').nth(2).unwrap().trim();
            if let Some(default) = default.strip_prefix('`').and_then(|d| d.strip_suffix('`')) {
                *written += &format!("{key} = {default}\n");
            }
        }
    }
    written += &format!("name = {:?}\n", defaults::RENDITION);
    assert_eq!(
        plan(&written),
        plan("[streams.door]\nframerate = 30"),
        "{written}"
    );
    let only = "[streams.door]\nframerate = 30\n";
    let bare = format!("{only}[streams.door.audio]\nsource = \"music.ogg\"\n");
    let sound = format!("{only}{sound}name = {:?}\n", defaults::AUDIO_RENDITION);
    assert_eq!(plan(&sound), plan(&bare), "{sound}");
    let bare = format!("{only}[streams.door.record]\n");
    assert_eq!(plan(&format!("{only}{record}")), plan(&bare), "{record}");
}

#[test]
fn the_debian_package_is_of_the_programs_version() {
    let newest = format!("ringgear ({}) ", env!("CARGO_PKG_VERSION"));
    let changelog = repository("debian/changelog");
    assert!(changelog.starts_with(&newest), "{changelog}");
}
