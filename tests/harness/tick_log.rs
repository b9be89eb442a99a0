//! The daemon's log of which frame each tick took: `tick,kind,session,frame,captured_ns,looked_ns,made_ns`.

use std::collections::BTreeMap;
use std::path::Path;

use super::process::Process;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Fresh,
    Repeated,
    Slate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) tick: u64,
    pub(crate) kind: Kind,
    /// The producer's number of the frame; none on the slate.
    pub(crate) frame: Option<u64>,
    /// When the frame was captured and when one was last looked for, in nanoseconds of the daemon's clock: what was committed before it looked was there
    /// for the tick.
    pub(crate) captured: i64,
    pub(crate) looked: i64,
    /// When the tick was made.
    pub(crate) made: i64,
}

/// Reads the log of `stream` in `dir`.
#[track_caller]
pub(crate) fn read(dir: &Path, stream: &str) -> Vec<Row> {
    let path = dir.join(format!("{stream}.csv"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // The daemon may be in the middle of a line.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut lines = whole.lines();
    assert_eq!(
        lines.next(),
        Some("tick,kind,session,frame,captured_ns,looked_ns,made_ns")
    );
    lines
        .map(|line| row(line).unwrap_or_else(|| panic!("a row that makes no sense: {line}")))
        .collect()
}

fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split(',').collect();
    let [tick, kind, _session, frame, captured, looked, made] = fields[..] else {
        return None;
    };
    let kind = match kind {
        "fresh" => Kind::Fresh,
        "repeated" => Kind::Repeated,
        "slate" => Kind::Slate,
        _ => return None,
    };
    let frame = match (kind, frame) {
        (Kind::Slate, _) => None,
        (_, frame) => Some(frame.parse().ok()?),
    };
    Some(Row {
        tick: tick.parse().ok()?,
        kind,
        frame,
        captured: captured.parse().ok()?,
        looked: looked.parse().ok()?,
        made: made.parse().ok()?,
    })
}

/// When a `pattern` with `--tell-commits` has committed each of its frames, by their numbers: at the latest then, by the log's clock.
pub(crate) fn commits(pattern: &Process) -> BTreeMap<u64, i64> {
    let said = pattern.said();
    let told = said
        .lines()
        .filter_map(|line| line.strip_prefix("committed,")?.split_once(','));
    told.map(|(frame, at)| (frame.parse().unwrap(), at.parse().unwrap()))
        .collect()
}
