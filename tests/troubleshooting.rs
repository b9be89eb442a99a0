//! docs/troubleshooting.md has each line that the program logs at `warn` and `error`, and none that it logs no more.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

const LEVELS: [&str; 2] = ["error!(", "warn!("];

/// All sources of the daemon.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The string literals of a piece of Rust, as far as its end, or the end of the macro that it stands in.
fn literals(code: &str, to_the_end: bool) -> Vec<String> {
    let mut literals = Vec::new();
    let (mut depth, mut characters) = (1, code.chars().peekable());
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                let mut literal = String::new();
                while let Some(character) = characters.next().filter(|&character| character != '"')
                {
                    match character {
                        '\\' => match characters.next() {
                            // A literal that goes on in the next line.
                            Some('\n') => {
                                while characters.next_if(|c| c.is_whitespace()).is_some() {}
                            }
                            Some(escaped) => literal.push(escaped),
                            None => {}
                        },
                        character => literal.push(character),
                    }
                }
                literals.push(literal);
            }
            // Of characters, only these could be taken for something else.
            '\'' if characters.peek() == Some(&'"') => _ = characters.next(),
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 && !to_the_end {
            break;
        }
    }
    literals
}

/// What a format string says, with "…" for each value.
fn said(literal: &str) -> String {
    let mut said = String::new();
    let mut inside = false;
    for character in literal.chars() {
        match character {
            '{' => {
                inside = true;
                said.push('…');
            }
            '}' => inside = false,
            _ if inside => {}
            character => said.push(character),
        }
    }
    said
}

/// Whether `text` is what `message` says, with anything in the place of each "…".
fn holds(text: &str, message: &str) -> bool {
    let mut rest = text;
    message.split('…').all(|piece| {
        let found = rest.split_once(piece);
        rest = found.map_or("", |(_, rest)| rest);
        found.is_some()
    })
}

#[test]
fn troubleshooting_has_each_line_that_is_logged_and_none_that_is_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/troubleshooting.md")).unwrap();
    let headings: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let (mut all, mut missing) = (Vec::new(), Vec::new());
    for file in files {
        let code = std::fs::read_to_string(&file).unwrap();
        let code = code.split("mod tests {").next().unwrap();
        all.extend(literals(code, true).iter().map(|literal| said(literal)));
        for level in LEVELS {
            // Another macro's name may end alike.
            let calls = code.split(level).zip(code.split(level).skip(1));
            let calls = calls
                .filter(|(before, _)| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            for (_, call) in calls {
                let messages = literals(call, false)
                    .into_iter()
                    .map(|literal| said(&literal));
                let message = messages.max_by_key(String::len).unwrap_or_default();
                // A text that was put together elsewhere.
                let elsewhere = message.chars().all(|character| character == '…');
                if !elsewhere && !headings.contains(&message.as_str()) {
                    missing.push(format!("{}: {message}", file.display()));
                }
            }
        }
    }
    assert!(
        missing.is_empty(),
        "not in docs/troubleshooting.md:\n{}",
        missing.join("\n")
    );
    let stale = headings
        .iter()
        .filter(|heading| !all.iter().any(|literal| holds(literal, heading)));
    let stale: Vec<_> = stale.collect();
    assert!(stale.is_empty(), "logged no more: {stale:#?}");
    assert!(headings.len() > 50, "{headings:?}");
}
