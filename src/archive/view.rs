//! A reel as viewers meet it: a window of its own, whose bytes are in the reel's folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Summary;
use super::index::{Column, Index};
use super::reel::read_index;
use crate::http::Rendered;
use crate::publish::{Folder, MAX_FILE_BYTES, PublishError, init_name};
use crate::tick::{SegmentNumber, UnixTime};
use crate::window::{Mode, Period, Segment, Snapshot, TrackInit, TrackView};

/// What a reel begins is an hour.
const HOUR: Duration = Duration::from_secs(3600);
/// When its last segment has surely come.
const SETTLED: Duration = Duration::from_secs(60);

/// A reel, read.
pub(crate) struct ReelView {
    summary: Summary,
    ended: bool,
    folder: PathBuf,
    columns: Vec<Column>,
    /// The encodings of each track.
    encodings: Vec<Encoding>,
    snapshot: Arc<Snapshot>,
    /// Its playlists, once somebody has asked for them.
    texts: Arc<Rendered>,
}

struct Encoding {
    grid: crate::tick::Grid,
    inits: Vec<TrackInit>,
}

/// Whether the hour in which `summary` begins is over at `now`, and nothing comes any more.
pub(super) fn hour_is_over(summary: &Summary, now: UnixTime) -> bool {
    let hour = u64::try_from(HOUR.as_nanos()).unwrap_or(u64::MAX);
    let starts = summary.starts.as_nanos();
    let over = UnixTime::from_nanos(starts - starts % hour).saturating_add(HOUR + SETTLED);
    now > over
}

impl ReelView {
    /// Reads the reel of `stream` in `folder`, of which `summary` says how much there is; none if it is gone, or its init segments are.
    pub(super) fn load(
        stream: &str,
        folder: &Path,
        summary: &Summary,
        ended: bool,
    ) -> Result<Option<Self>, PublishError> {
        let Some(index) = read_index(folder)? else {
            return Ok(None);
        };
        let Some(encodings) = read_encodings(folder, &index)? else {
            return Ok(None);
        };
        // What is about to be written stands in the index already, and what is about to go still does.
        let there = |column: &Column| {
            !column.lost && column.starts >= summary.starts && column.ends <= summary.ends
        };
        let columns = index.columns.into_iter().filter(there).collect();
        let mut view = Self {
            summary: summary.clone(),
            ended,
            folder: folder.to_owned(),
            columns,
            encodings,
            snapshot: Arc::new(empty(stream, ended, summary.ends)),
            texts: Arc::default(),
        };
        view.snapshot = Arc::new(view.as_window(stream, index.left));
        Ok(Some(view))
    }

    /// Whether it is what `summary` says, and nothing has come or gone since.
    pub(super) fn is_of(&self, summary: &Summary, ended: bool) -> bool {
        (&self.summary, self.ended) == (summary, ended)
    }

    /// The reel's name.
    pub(crate) fn name(&self) -> &str {
        &self.summary.name
    }

    /// Its folder, which has the segments.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// It as a window that lists all of it.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The window's playlists.
    pub(crate) fn texts(&self) -> &Arc<Rendered> {
        &self.texts
    }

    fn as_window(&self, stream: &str, (sequence, discontinuities): (u64, u64)) -> Snapshot {
        let mut listed = vec![Vec::new(); self.summary.tracks.len()];
        let mut longest = 1;
        let mut begun = false;
        for stretch in self
            .columns
            .chunk_by(|before, column| column.follows(before))
        {
            let period = self.period_of(&stretch[0], begun);
            begun = true;
            for column in stretch {
                for (track, segments) in listed.iter_mut().enumerate() {
                    let segment = segment(column, track, &period);
                    longest =
                        longest.max((segment.duration() + Duration::from_millis(500)).as_secs());
                    segments.push(Arc::new(segment));
                }
            }
        }
        let target = Duration::from_secs(longest);
        let names = self.summary.tracks.iter().cloned();
        let tracks = names.zip(listed);
        Snapshot {
            target_duration: longest,
            media_sequence: SegmentNumber(sequence),
            discontinuity_sequence: discontinuities,
            tracks: tracks
                .map(|(name, listed)| TrackView::new(name, listed, Vec::new(), None, target))
                .collect(),
            ..empty(stream, self.ended, self.summary.ends)
        }
    }

    /// The period that begins with `column`: nothing is missing in it, nor does its encoding change.
    fn period_of(&self, column: &Column, discontinuity: bool) -> Arc<Period> {
        let encoding = &self.encodings[column.encoding];
        let is_video = |track: &TrackInit| track.description.audio.is_none();
        let video = encoding.inits.iter().position(is_video).unwrap_or(0);
        let first_tick = column.cells[video].first_tick;
        let inits = encoding.inits.clone();
        Arc::new(Period::new(first_tick, encoding.grid, discontinuity, inits))
    }
}

fn empty(stream: &str, ended: bool, updated: UnixTime) -> Snapshot {
    Snapshot {
        stream: stream.to_owned(),
        mode: Mode::Kept,
        target_duration: 1,
        media_sequence: SegmentNumber(0),
        discontinuity_sequence: 0,
        window_ticks: 0,
        tracks: Vec::new(),
        longest_playlist: Duration::ZERO,
        ended,
        updated,
    }
}

fn segment(column: &Column, track: usize, period: &Arc<Period>) -> Segment {
    let cell = column.cells[track];
    Segment {
        number: column.number,
        period: Arc::clone(period.of(track)),
        first_tick: cell.first_tick,
        ticks: cell.ticks,
        parts: Vec::new(),
        stored: cell.bytes,
        captured: None,
        remains: Vec::new(),
        gap: cell.bytes == 0,
        expires: None,
    }
}

/// The encodings that `index` names; none if an init segment is missing, without which nothing can be played.
fn read_encodings(folder: &Path, index: &Index) -> Result<Option<Vec<Encoding>>, PublishError> {
    let Some(reel) = Folder::open(folder)? else {
        return Ok(None);
    };
    let mut encodings = Vec::new();
    for encoding in &index.encodings {
        let mut inits = Vec::new();
        for (name, init) in index.tracks.iter().zip(&encoding.inits) {
            let content = match reel.child(name)? {
                Some(folder) => folder.read(&init_name(&init.version), MAX_FILE_BYTES)?,
                None => None,
            };
            let Some(init) = content.and_then(|content| init.read_back(content)) else {
                return Ok(None);
            };
            inits.push(init);
        }
        encodings.push(Encoding {
            grid: encoding.grid,
            inits,
        });
    }
    Ok(Some(encodings))
}
