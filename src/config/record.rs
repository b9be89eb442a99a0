//! What of a live stream is kept: the table `record`, checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::error::{Offset, Report};
use super::sections::Record;
use super::{defaults, table};
use crate::window::Mode;

/// What of a live stream is kept, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPlan {
    /// How long a segment is kept.
    pub keep: Duration,
    /// What the segments of all its tracks may take, in bytes; none for what `keep` needs.
    pub max_bytes: Option<u64>,
    /// The folder that holds one folder per stream; none for one beside the stream's window.
    pub dir: Option<PathBuf>,
}

impl RecordPlan {
    /// The folder of `stream`, whose window is published in a folder of `publish_dir`.
    pub fn folder(&self, publish_dir: &Path, stream: &str) -> PathBuf {
        match &self.dir {
            Some(dir) => dir.join(stream),
            None => publish_dir.join(stream).join(defaults::RECORD_FOLDER),
        }
    }

    /// Takes a relative path from the folder of the config.
    pub(super) fn resolve(&mut self, folder: &Path) {
        self.dir = self.dir.take().map(|dir| folder.join(dir));
    }
}

/// Checks the table `record` of a stream of `mode`. Says too where it stands.
pub(super) fn check(
    value: Option<Spanned<DeValue<'_>>>,
    mode: Mode,
    report: &mut Report,
) -> Option<(RecordPlan, Offset)> {
    let value = value?;
    if mode.is_recorded() {
        let what = format!(
            "a stream of mode {:?} has a table record, and is one recording anyway",
            mode.name()
        );
        let mend = "leave it out, or write mode = \"live\"";
        report.error(value.span().start, what, mend);
    }
    let title = "[streams.NAME.record]";
    let (table, at) = table::as_table(title, value, report);
    let values = table::read::<Record>(title, table, at, report).values;
    let at = values.dir.as_ref().map_or(at, |dir| dir.span().start);
    let plan = RecordPlan {
        keep: values
            .keep
            .map_or(defaults::RECORD_KEEP, |keep| keep.into_inner().0.0),
        max_bytes: values.max_bytes.map(|bytes| bytes.into_inner().0.0),
        dir: values.dir.map(|dir| PathBuf::from(dir.into_inner().0.0)),
    };
    Some((plan, at))
}

/// Reports a `dir` that is the publish folder, where the stream's folder is the window's.
pub(super) fn check_place(plan: &RecordPlan, at: Offset, publish_dir: &Path, report: &mut Report) {
    if plan.dir.as_deref() == Some(publish_dir) {
        let what = format!(
            "recordings can't be in {}: that is the publish dir, where the stream's folder is its window's",
            publish_dir.display()
        );
        let mend = "name another folder, or leave dir out for one within it";
        report.error(at, what, mend);
    }
}
