//! The folder of a transcode. It has to be empty at first; while what is made there is unfinished, a file in it says what that is, so that the
//! same command goes on with it, and no other one does.

use std::io::ErrorKind;
use std::path::Path;

use crate::cli::CliError;
use crate::publish::Folder;

/// What an unfinished folder has, beside media.
const WORK: &str = "transcode.toml";
const HEAD: &str =
    "# ringgear transcode has not finished what it makes here: the same command goes on with it.\n";

/// The unfinished work in `folder`, if there is any; else it is empty, or missing.
///
/// # Errors
/// When there is something else in it, or it can't be read.
pub(super) fn look(folder: &Path) -> Result<Option<String>, CliError> {
    let mut entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(folder, &error)),
    };
    if entries.next().is_none() {
        return Ok(None);
    }
    match std::fs::read_to_string(folder.join(WORK)) {
        Ok(work) => Ok(Some(work)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(CliError::Usage(format!(
            "{} is not empty, and has no unfinished transcode that could be gone on with: name another folder, or remove what is in it",
            folder.display()
        ))),
        Err(error) => Err(refused(folder, &error)),
    }
}

/// Says in `folder`, which is made if it is missing, what is made there.
///
/// # Errors
/// When it can't be written.
pub(super) fn begin(folder: &Path, work: &str) -> Result<(), CliError> {
    let written = || {
        let opened = Folder::make(folder)?;
        opened.write(WORK, [work.as_bytes()], true)?;
        opened.sync()
    };
    written().map_err(|error| CliError::Failed(super::of_the_command_line(&error.to_string())))
}

/// What is made of `input`, a line that tells it from others, by `config`.
pub(super) fn work_of(input: &str, config: &str) -> String {
    format!("{HEAD}# {input}\n{config}")
}

/// Refuses `now` where `before` was begun, unless it is the same.
///
/// # Errors
/// Names the first thing that differs.
pub(super) fn be_same(folder: &Path, before: &str, now: &str) -> Result<(), CliError> {
    if before == now {
        return Ok(());
    }
    let only = |these: &str, others: &str| {
        let line = these
            .lines()
            .find(|line| !others.lines().any(|other| other == *line));
        line.map_or("nothing", |line| line.trim_start_matches("# "))
            .to_owned()
    };
    Err(CliError::Usage(format!(
        "{} has an unfinished transcode of something else ({}; now {}): give the same input and options to go on with it, or name another \
         folder, or remove what is in it",
        folder.display(),
        only(before, now),
        only(now, before)
    )))
}

/// Nothing in `folder` is unfinished any more.
///
/// # Errors
/// When that can't be written.
pub(super) fn end(folder: &Path) -> Result<(), CliError> {
    match std::fs::remove_file(folder.join(WORK)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(refused(folder, &error)),
        _ => Ok(()),
    }
}

fn refused(folder: &Path, error: &std::io::Error) -> CliError {
    CliError::Failed(format!(
        "{} can't be used: {error}; name another folder",
        folder.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_work_is_told_by_what_differs() {
        let folder = Path::new("out");
        let work = |preset: &str| work_of("film.mkv: 7 bytes", &format!("preset = \"{preset}\"\n"));
        assert!(be_same(folder, &work("fast"), &work("fast")).is_ok());
        let told = be_same(folder, &work("fast"), &work("slow")).unwrap_err();
        assert!(
            told.to_string()
                .contains("(preset = \"fast\"; now preset = \"slow\")"),
            "{told}"
        );
        let more = format!("{}codec = \"x\"\n", work("fast"));
        let told = be_same(folder, &work("fast"), &more).unwrap_err();
        assert!(told.to_string().contains("(nothing; now codec"), "{told}");
    }

    #[test]
    fn a_folder_is_empty_or_has_unfinished_work_or_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("out");
        assert_eq!(look(&folder).unwrap(), None);
        begin(&folder, "work").unwrap();
        assert_eq!(look(&folder).unwrap().as_deref(), Some("work"));
        end(&folder).unwrap();
        assert_eq!(look(&folder).unwrap(), None);
        std::fs::write(folder.join("other"), "").unwrap();
        let told = look(&folder).unwrap_err().to_string();
        assert!(told.contains("is not empty"), "{told}");
    }
}
