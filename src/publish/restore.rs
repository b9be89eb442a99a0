//! Takes over a stream's folder at start: what `state.json` names and the disk really holds becomes the window again.
//! Nothing here changes the folder; what has to be removed is handed to the publisher.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::package::Part;
use crate::tick::{Grid, SegmentNumber, Tick, UnixTime};
use crate::window::{Mode, OpenSegment, Period, Segment, Snapshot, TrackView};

use super::folder::{Folder, PublishError};
use super::state::{
    Found, MAX_FILE_BYTES, MAX_NUMBER, MAX_STATE_BYTES, RememberedSource, STATE_COPY, STATE_FILE,
    SegmentState, State, init_name, number_of, part_name, segment_name,
};

/// What a run before left.
#[derive(Debug, Default)]
pub struct Restored {
    /// The window as it goes on, for [`crate::window::Window::new`]; without segments if only the numbers go on. None in a new folder.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The grid of the newest segment.
    pub grid: Option<Grid>,
    /// The highest segment number that may have been used.
    pub last_number: Option<SegmentNumber>,
    /// The newest tick that was published; it may be ahead of a clock that was reset, and then the grid goes on from it.
    pub last_tick: Option<Tick>,
    /// What the last producer sent.
    pub source: Option<RememberedSource>,
    /// Whether nothing of the old window can be listed, because the renditions are others than before or an init segment is
    /// missing, or the state was lost: its files stay as long as they have to, the numbers go on, and the first period has to be a
    /// discontinuity.
    pub started_over: bool,
    /// What the publisher has to know of the folder.
    pub ledger: Ledger,
    /// What is worth a line in the log.
    pub notes: Vec<String>,
}

/// What is known of the files in a stream's folder. Only what stands here is ever removed.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Whole files of ours, with their length.
    pub(super) files: BTreeMap<String, u64>,
    /// Files of ours to be removed, and when.
    pub(super) leftovers: BTreeMap<String, UnixTime>,
    /// The state as it is on the disk.
    pub(super) state: Option<State>,
}

impl Restored {
    /// The grid to go on with when the config asks for `new` and the next tick is `first`, and whether that is another grid
    /// than before: then the first period is a discontinuity.
    pub fn grid_for(&self, new: &Grid, first: Tick) -> (Grid, bool) {
        match (&self.grid, self.last_number) {
            (Some(old), _) if old.same_edges(new) => {
                let mut grid = *new;
                grid.number_offset = old.number_offset;
                (grid, false)
            }
            // The state was lost within the segment that is due: what comes begins at the next edge, with the clock's own numbers.
            (None, Some(last)) if new.segment_of(first) == last => (*new, false),
            (old, Some(last)) => (new.numbered_after(first, last), old.is_some()),
            (_, None) => (*new, false),
        }
    }
}

/// Reads what a run before left of `stream` in `dir`, `renditions` being the names that the config has now. A state that is
/// missing or damaged is no error: the window then starts empty, with numbers above those of all files.
///
/// # Errors
/// When the folder is there but can't be read, or is no folder.
pub fn restore(
    dir: &Path,
    stream: &str,
    renditions: &[String],
    now: UnixTime,
) -> Result<Restored, PublishError> {
    let Some(folder) = Folder::open(dir)? else {
        return Ok(Restored::default());
    };
    let mut folders = Vec::new();
    for name in renditions {
        folders.push(folder.child(name)?);
    }
    let (has_state, damage) = match State::read(&folder, stream)? {
        Found::State(state, damage) => {
            let mut restored = take_over(&folder, &state, renditions, now)?;
            restored.notes.extend(damage.map(|damage| {
                format!(
                    "{} can't be used: {damage}; its copy {STATE_COPY} is",
                    dir.join(STATE_FILE).display()
                )
            }));
            return Ok(restored);
        }
        Found::Nothing { any, damage } => (any, damage),
    };
    let mut last_number = None;
    let mut discontinuities = 0;
    for folder in folders.iter().flatten() {
        let names = folder.names()?;
        last_number = last_number.max(names.iter().filter_map(|name| number_of(name)).max());
        let playlist = folder.read("media.m3u8", MAX_STATE_BYTES)?;
        let counted = playlist.map_or(0, |text| {
            discontinuities_of(&String::from_utf8_lossy(&text))
        });
        discontinuities = discontinuities.max(counted);
    }
    if last_number.is_none() && !has_state {
        return Ok(Restored::default());
    }
    let numbers = last_number.map_or_else(String::new, |last| {
        format!(", with numbers after {last}, the highest of the files there")
    });
    let state_path = dir.join(STATE_FILE);
    Ok(Restored {
        snapshot: last_number
            .map(|last| empty(stream, renditions, last.next(), discontinuities, now)),
        last_number,
        // Nobody knows how what a player has fetched was encoded.
        started_over: last_number.is_some(),
        notes: vec![format!(
            "{} can't be used: {damage}; the window starts empty{numbers}; files from before stay where they are",
            state_path.display()
        )],
        ..Restored::default()
    })
}

/// How many discontinuities there have been when all that the playlist `text` lists has left it (RFC 8216, 4.3.3.3).
fn discontinuities_of(text: &str) -> u64 {
    let mut lines = text.lines();
    let left = lines.find_map(|line| line.strip_prefix("#EXT-X-DISCONTINUITY-SEQUENCE:"));
    let left = left.and_then(|left| left.trim().parse().ok()).unwrap_or(0);
    let listed = text
        .lines()
        .filter(|line| *line == "#EXT-X-DISCONTINUITY")
        .count();
    if left < MAX_NUMBER {
        left + listed as u64
    } else {
        0
    }
}

fn empty(
    stream: &str,
    renditions: &[String],
    media_sequence: SegmentNumber,
    discontinuity_sequence: u64,
    now: UnixTime,
) -> Arc<Snapshot> {
    let view = |name: &String| TrackView::new(name.clone(), vec![], vec![], None, Duration::ZERO);
    Arc::new(Snapshot {
        stream: stream.to_owned(),
        mode: Mode::Live,
        target_duration: 0,
        media_sequence,
        discontinuity_sequence,
        window_ticks: 0,
        longest_playlist: Duration::ZERO,
        tracks: renditions.iter().map(view).collect(),
        ended: false,
        updated: now,
    })
}

/// The window that `state` describes; an empty one that its numbers go on in if the renditions are others, or if an init
/// segment is missing, without which no segment can be played.
pub(super) fn take_over(
    folder: &Folder,
    state: &State,
    renditions: &[String],
    now: UnixTime,
) -> Result<Restored, PublishError> {
    let mut restored = Restored {
        grid: state.grid,
        last_number: state.last_number(),
        last_tick: state.last_tick,
        source: state.source,
        ..Restored::default()
    };
    restored.ledger.leftovers = state.leftovers.clone();
    for path in &state.claimed_files {
        restored.ledger.leftovers.insert(path.clone(), now);
    }
    claimed_numbers(folder, state, now, &mut restored.ledger)?;

    // The tracks in the order of the config, each by its place in the state.
    let places: Option<Vec<usize>> = renditions
        .iter()
        .map(|name| state.tracks.iter().position(|track| track.name == *name))
        .collect();
    let Some(places) = places.filter(|places| places.len() == state.tracks.len()) else {
        let before: Vec<_> = state
            .tracks
            .iter()
            .map(|track| track.name.as_str())
            .collect();
        let why = format!("the renditions were {}", before.join(", "));
        start_over(state, renditions, &why, now, &mut restored);
        return Ok(restored);
    };
    let mut folders = Vec::new();
    for name in renditions {
        folders.push(folder.child(name)?);
    }
    let ledger = &mut restored.ledger;
    let Some(periods) = read_periods(&folders, state, renditions, &places, ledger)? else {
        let why = "an init segment is missing or damaged";
        start_over(state, renditions, why, now, &mut restored);
        return Ok(restored);
    };
    let mut missing = 0;
    let mut tracks = Vec::new();
    for ((name, place), folder) in renditions.iter().zip(&places).zip(&folders) {
        let reader = Reader {
            name,
            folder: folder.as_ref(),
            periods: &periods,
            recorded: state.mode.is_recorded(),
            now,
        };
        let track = &state.tracks[*place];
        let mut listed = Vec::new();
        for segment in &track.listed {
            listed.push(reader.segment(segment, ledger, &mut missing)?);
        }
        let mut retained = Vec::new();
        for segment in &track.retained {
            match segment.expires {
                Some(expires) if expires <= now => {
                    let path = format!("{name}/{}", segment_name(segment.number));
                    ledger.leftovers.insert(path, now);
                }
                _ => retained.push(reader.segment(segment, ledger, &mut missing)?),
            }
        }
        let open = match &track.open {
            Some(open) => reader.open_segment(open, ledger)?,
            None => None,
        };
        let target = Duration::from_secs(state.target_duration);
        tracks.push(TrackView::new(name.clone(), listed, retained, open, target));
    }
    if missing > 0 {
        restored.notes.push(format!(
            "{missing} segments that {STATE_FILE} names are missing or have another length: they are gaps now"
        ));
    }
    restored.snapshot = Some(Arc::new(Snapshot {
        stream: state.stream.clone(),
        mode: state.mode,
        target_duration: state.target_duration,
        media_sequence: state.media_sequence,
        discontinuity_sequence: state.discontinuity_sequence,
        window_ticks: state.window_ticks,
        longest_playlist: state.longest_playlist(),
        tracks,
        ended: state.ended,
        updated: now,
    }));
    restored.ledger.state = Some(state.clone());
    Ok(restored)
}

/// Everything leaves, and is removed when it has expired.
fn start_over(
    state: &State,
    renditions: &[String],
    why: &str,
    now: UnixTime,
    restored: &mut Restored,
) {
    let leave = now.saturating_add(state.longest_playlist());
    let mut last = now;
    let mut discontinuities = 0;
    let mut counted = None;
    for (place, segment) in state.segments() {
        let period = &state.periods[segment.period];
        let length = period.grid.framerate.duration_of(u64::from(segment.ticks));
        let expires = segment.expires.unwrap_or(leave.saturating_add(length));
        let name = &state.tracks[place].name;
        let leftovers = &mut restored.ledger.leftovers;
        leftovers.insert(format!("{name}/{}", segment_name(segment.number)), expires);
        for part in &segment.parts {
            leftovers.insert(
                format!("{name}/{}", part_name(segment.number, part.number)),
                now,
            );
        }
        last = last.max(expires);
        if segment.expires.is_none()
            && period.discontinuity
            && segment.first_tick == period.first_tick
            && counted < Some(segment.number)
        {
            counted = Some(segment.number);
            discontinuities += 1;
        }
    }
    for period in &state.periods {
        for (track, init) in state.tracks.iter().zip(&period.inits) {
            let path = format!("{}/{}", track.name, init_name(&init.version));
            restored.ledger.leftovers.insert(path, last);
        }
    }
    let next = restored
        .last_number
        .map_or(SegmentNumber(0), SegmentNumber::next);
    let discontinuities = state.discontinuity_sequence + discontinuities;
    restored.started_over = true;
    restored.snapshot = Some(empty(&state.stream, renditions, next, discontinuities, now));
    restored.notes.push(format!(
        "{why}: the window starts empty with segment {next}, and the files from before go when they expire"
    ));
    let mut state = state.clone();
    state.tracks.clear();
    state.periods.clear();
    state.media_sequence = next;
    state.discontinuity_sequence = discontinuities;
    restored.ledger.state = Some(state);
}

/// What the run before was about to write, and nothing names: to be removed.
fn claimed_numbers(
    folder: &Folder,
    state: &State,
    now: UnixTime,
    ledger: &mut Ledger,
) -> Result<(), PublishError> {
    let claimed = state.claimed.0..state.claimed.1;
    for track in &state.tracks {
        let Some(folder) = folder.child(&track.name)? else {
            continue;
        };
        for name in folder.names()? {
            if number_of(&name).is_some_and(|number| claimed.contains(&number)) {
                ledger
                    .leftovers
                    .insert(format!("{}/{name}", track.name), now);
            }
        }
    }
    Ok(())
}

fn read_periods(
    folders: &[Option<Folder>],
    state: &State,
    renditions: &[String],
    places: &[usize],
    ledger: &mut Ledger,
) -> Result<Option<Vec<Arc<Period>>>, PublishError> {
    let mut periods = Vec::new();
    for period in &state.periods {
        let mut tracks = Vec::new();
        for ((name, place), folder) in renditions.iter().zip(places).zip(folders) {
            let init = &period.inits[*place];
            let file = init_name(&init.version);
            let content = match folder {
                Some(folder) => folder.read(&file, MAX_FILE_BYTES)?,
                None => None,
            };
            let Some(track) = content.and_then(|content| init.read_back(content)) else {
                return Ok(None);
            };
            let path = format!("{name}/{file}");
            ledger.leftovers.remove(&path);
            ledger.files.insert(path, init.bytes);
            tracks.push(track);
        }
        periods.push(Arc::new(Period::new(
            period.first_tick,
            period.grid,
            period.discontinuity,
            tracks,
        )));
    }
    Ok(Some(periods))
}

/// Reads one rendition's segments back.
struct Reader<'a> {
    name: &'a str,
    folder: Option<&'a Folder>,
    periods: &'a [Arc<Period>],
    /// Whether whole segments stay in the folder alone.
    recorded: bool,
    now: UnixTime,
}

impl Reader<'_> {
    fn file(
        &self,
        name: &str,
        len: u64,
        ledger: &mut Ledger,
    ) -> Result<Option<Bytes>, PublishError> {
        let Some(folder) = self.folder else {
            return Ok(None);
        };
        let content = if folder.len(name)? == Some(len) {
            folder.read(name, len)?
        } else {
            None
        };
        let content = content.filter(|content| content.len() as u64 == len);
        let path = format!("{}/{name}", self.name);
        if content.is_some() {
            ledger.leftovers.remove(&path);
            ledger.files.insert(path, len);
        } else {
            ledger.leftovers.insert(path, self.now);
        }
        Ok(content.map(Bytes::from))
    }

    fn segment(
        &self,
        state: &SegmentState,
        ledger: &mut Ledger,
        missing: &mut usize,
    ) -> Result<Arc<Segment>, PublishError> {
        let len = state.parts.iter().map(|part| part.bytes).sum();
        if self.recorded && !state.gap && self.is_whole(&segment_name(state.number), len, ledger)? {
            return Ok(self.of(state, Vec::new(), len));
        }
        let content = if state.gap || self.recorded {
            None
        } else {
            self.file(&segment_name(state.number), len, ledger)?
        };
        *missing += usize::from(content.is_none() && !state.gap);
        let mut parts = Vec::new();
        if let Some(mut content) = content {
            let mut first_tick = state.first_tick;
            for part in &state.parts {
                let len = usize::try_from(part.bytes)
                    .unwrap_or(usize::MAX)
                    .min(content.len());
                parts.push(Part {
                    segment: state.number,
                    number: part.number,
                    first_tick,
                    ticks: part.ticks,
                    independent: part.independent,
                    last: false,
                    captured: self.captured(state, first_tick),
                    bytes: content.split_to(len),
                });
                first_tick = first_tick.plus(u64::from(part.ticks));
            }
        }
        if let Some(last) = parts.last_mut() {
            last.last = true;
        }
        Ok(self.of(state, parts, 0))
    }

    fn of(&self, state: &SegmentState, parts: Vec<Part>, stored: u64) -> Arc<Segment> {
        Arc::new(Segment {
            number: state.number,
            period: Arc::clone(&self.periods[state.period]),
            first_tick: state.first_tick,
            ticks: state.ticks,
            gap: parts.is_empty() && stored == 0,
            parts,
            stored,
            captured: state.captured,
            remains: Vec::new(),
            expires: state.expires,
        })
    }

    /// When a part was captured is not remembered: at the latest when it was shown.
    fn captured(&self, state: &SegmentState, first_tick: Tick) -> UnixTime {
        let shown = || self.periods[state.period].grid.time_of(first_tick);
        state.captured.unwrap_or_else(shown)
    }

    /// Whether the folder has the file `name` of just that length.
    fn is_whole(&self, name: &str, len: u64, ledger: &mut Ledger) -> Result<bool, PublishError> {
        let found = self.folder.map(|folder| folder.len(name)).transpose()?;
        let whole = found.flatten() == Some(len);
        if whole {
            let path = format!("{}/{name}", self.name);
            ledger.leftovers.remove(&path);
            ledger.files.insert(path, len);
        }
        Ok(whole)
    }

    /// The open segment as far as its parts are there without a hole; later ones are of no use.
    fn open_segment(
        &self,
        state: &SegmentState,
        ledger: &mut Ledger,
    ) -> Result<Option<OpenSegment>, PublishError> {
        let mut first_tick = state.first_tick;
        let mut parts = Vec::new();
        let mut whole = true;
        for part in &state.parts {
            let name = part_name(state.number, part.number);
            let bytes = if whole {
                self.file(&name, part.bytes, ledger)?
            } else {
                None
            };
            let Some(bytes) = bytes else {
                whole = false;
                ledger
                    .leftovers
                    .insert(format!("{}/{name}", self.name), self.now);
                continue;
            };
            parts.push(Part {
                segment: state.number,
                number: part.number,
                first_tick,
                ticks: part.ticks,
                independent: part.independent,
                last: false,
                captured: self.captured(state, first_tick),
                bytes,
            });
            first_tick = first_tick.plus(u64::from(part.ticks));
        }
        Ok((!parts.is_empty()).then(|| OpenSegment {
            number: state.number,
            period: Arc::clone(&self.periods[state.period]),
            first_tick: state.first_tick,
            parts,
            captured: state.captured,
        }))
    }
}
