//! What is wrong with a config, for people: where, what, and how to mend it. All errors of a file are found in one run.

use std::fmt;
use std::path::{Path, PathBuf};

/// How many errors of one file are kept; the rest is counted.
const MAX_ERRORS: usize = 100;

/// The longest text that an error shows of what was wrong, in characters.
const MAX_WHAT: usize = 300;

/// A place in a file: both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// One thing that is wrong, or doubtful. Shown as `file:line:column: what: how to mend it`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The config file, as it was named.
    pub file: PathBuf,
    /// Where in the file; none when it is about the file itself.
    pub position: Option<Position>,
    /// What is wrong, with the value.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}: {}", self.what, self.mend)
    }
}

/// Everything that is wrong with a config, in the order of the file; at least one error. Shown one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// The first hundred found.
    pub errors: Vec<ConfigError>,
    /// How many more there are.
    pub more: usize,
}

impl ConfigErrors {
    /// One error about the file itself.
    pub(super) fn file(file: &Path, what: impl Into<String>, mend: impl Into<String>) -> Self {
        let error = ConfigError {
            file: file.to_owned(),
            position: None,
            what: what.into(),
            mend: mend.into(),
        };
        Self {
            errors: vec![error],
            more: 0,
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more errors", self.more)?;
        }
        Ok(())
    }
}

/// A byte's offset in the config's text.
pub(super) type Offset = usize;

struct Found {
    at: Offset,
    what: String,
    mend: String,
}

/// Collects what is found while a config is checked.
#[derive(Default)]
pub(super) struct Report {
    errors: Vec<Found>,
    warnings: Vec<Found>,
    more: usize,
}

impl Report {
    /// Something that makes the config unusable.
    pub(super) fn error(&mut self, at: Offset, what: impl Into<String>, mend: impl Into<String>) {
        if self.is_full() {
            self.more += 1;
            return;
        }
        self.errors.push(found(at, what.into(), mend.into()));
    }

    /// Something that works but is hardly meant.
    pub(super) fn warning(&mut self, at: Offset, what: impl Into<String>, mend: impl Into<String>) {
        if self.warnings.len() < MAX_ERRORS {
            self.warnings.push(found(at, what.into(), mend.into()));
        }
    }

    /// Whether the config is unusable.
    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Whether further errors are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    /// The warnings if there is no error, else the errors; both in the order of the file.
    pub(super) fn finish(self, file: &Path, text: &str) -> Result<Vec<ConfigError>, ConfigErrors> {
        if self.errors.is_empty() {
            return Ok(placed(self.warnings, file, text));
        }
        Err(self.into_errors(file, text))
    }

    /// The errors, of which there has to be one, in the order of the file.
    pub(super) fn into_errors(self, file: &Path, text: &str) -> ConfigErrors {
        ConfigErrors {
            errors: placed(self.errors, file, text),
            more: self.more,
        }
    }
}

fn found(at: Offset, what: String, mend: String) -> Found {
    let what = match what.char_indices().nth(MAX_WHAT) {
        Some((end, _)) => format!("{}...", &what[..end]),
        None => what,
    };
    Found { at, what, mend }
}

fn placed(mut found: Vec<Found>, file: &Path, text: &str) -> Vec<ConfigError> {
    found.sort_by_key(|found| found.at);
    found
        .into_iter()
        .map(|Found { at, what, mend }| ConfigError {
            file: file.to_owned(),
            position: Some(position(text, at)),
            what,
            mend,
        })
        .collect()
}

/// Where `at` lies; an offset past the end is the end.
pub(super) fn position(text: &str, at: Offset) -> Position {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n');
    let in_line = &before[line_start.map_or(0, |newline| newline + 1)..];
    // A byte of the form 10xxxxxx continues a character.
    let characters = in_line.iter().filter(|&&byte| byte & 0xC0 != 0x80).count();
    Position {
        line: before.iter().filter(|&&byte| byte == b'\n').count() + 1,
        column: characters + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let text = "a = 1\nü = \"x\"\n";
        let at = text.find('"').unwrap();
        assert_eq!(position(text, at), Position { line: 2, column: 5 });
        assert_eq!(position(text, 0), Position { line: 1, column: 1 });
        assert_eq!(position(text, 999), Position { line: 3, column: 1 });
    }

    #[test]
    fn errors_are_bounded_counted_and_in_the_order_of_the_file() {
        let mut report = Report::default();
        for at in (0..150).rev() {
            report.error(at, "x".repeat(1000), "y");
        }
        let errors = report.finish(Path::new("f"), &" ".repeat(200)).unwrap_err();
        assert_eq!((errors.errors.len(), errors.more), (100, 50));
        assert!(errors.errors.is_sorted_by_key(|error| error.position));
        assert!(errors.to_string().ends_with("and 50 more errors"));
        assert!(errors.errors[0].what.len() < 400);
    }
}
