//! A log of which frame each tick took, for tests: what was published can be compared with what ingest meant.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::TickKind;
use crate::clock::MonotonicTime;
use crate::tick::Tick;

/// The log stops at this size: it is meant for tests, not for months.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// The tick log can't be written.
#[derive(Debug, thiserror::Error)]
#[error("the tick log {} can't be written: {source}; give [daemon] tick_log a folder that this user may write", path.display())]
pub(crate) struct TickLogError {
    path: PathBuf,
    source: std::io::Error,
}

/// One stream's log: CSV with a header, one line per tick.
pub(crate) struct TickLog {
    file: BufWriter<File>,
    written: u64,
}

impl TickLog {
    /// Starts `{dir}/{stream}.csv`, or goes on with it after a restart.
    pub(crate) fn create(dir: &Path, stream: &str) -> Result<Self, TickLogError> {
        let path = dir.join(format!("{stream}.csv"));
        let open = || {
            std::fs::create_dir_all(dir)?;
            let file = File::options().create(true).append(true).open(&path)?;
            let written = file.metadata()?.len();
            let mut file = BufWriter::new(file);
            if written == 0 {
                writeln!(
                    file,
                    "tick,kind,session,frame,captured_ns,looked_ns,made_ns"
                )?;
                file.flush()?;
            }
            Ok(Self { file, written })
        };
        open().map_err(|source| TickLogError {
            path: path.clone(),
            source,
        })
    }

    /// Adds one tick, for which a frame was last looked for at `looked`, and that was made at `made`. A log that can't be written any more ends silently: the stream matters more.
    pub(crate) fn write(
        &mut self,
        tick: Tick,
        kind: TickKind,
        session: u64,
        frame: Option<u64>,
        [captured, looked, made]: [MonotonicTime; 3],
    ) {
        if self.written > MAX_BYTES {
            return;
        }
        let kind = match kind {
            TickKind::Fresh => "fresh",
            TickKind::Repeated => "repeated",
            TickKind::Slate => "slate",
        };
        let frame = frame.map(|frame| frame.to_string()).unwrap_or_default();
        let line = format!(
            "{tick},{kind},{session},{frame},{},{},{}\n",
            captured.0, looked.0, made.0
        );
        self.written = match self
            .file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.flush())
        {
            Ok(()) => self.written + line.len() as u64,
            Err(_) => u64::MAX,
        };
    }
}
