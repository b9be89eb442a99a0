//! `state.json`: what a stream's folder holds, so that the next start goes on from it. Written from a snapshot; read as
//! something that anybody may have written. Fields that are not known are ignored: a newer version may have added them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::picture::{PictureFormat, Size};
use crate::sample::{AudioFormat, TrackDescription};
use crate::tick::{Framerate, Grid, SegmentNumber, Tick, UnixTime};
use crate::window::{Mode, Period, Segment, Snapshot, TrackInit};

use super::folder::{Folder, PublishError};

pub(super) const STATE_FILE: &str = "state.json";
/// The same once more, written right after it: read where the first is missing or damaged.
pub(super) const STATE_COPY: &str = "state.copy.json";
pub(super) const MAX_STATE_BYTES: u64 = 16 << 20;
/// The version that this program writes, and the only one that it reads.
const VERSION: u32 = 1;
/// Ticks stay below this: the year 2100 at 240 frames per second is far below, and decode times fit 64 bits.
const MAX_TICK: u64 = 1 << 45;
/// The same of a copied stream, whose ticks are its decode times: the year 2300.
const MAX_COPIED_TICK: u64 = 1 << 50;
pub(crate) const MAX_NUMBER: u64 = 1 << 60;
/// The year 2200. All streams follow the furthest state, so one that claims to come from later is not believed.
const LATEST: UnixTime = UnixTime::from_secs(7_258_118_400);
const MAX_SEGMENTS: usize = 20_000;
/// In seconds; no segment can be configured to be as long.
const MAX_TARGET_DURATION: u64 = 3600;
/// Of one segment or init segment.
pub(crate) const MAX_FILE_BYTES: u64 = 256 << 20;

/// What the stream's last producer sent, so that the stream can start with a slate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedSource {
    /// How its pictures are stored.
    pub format: PictureFormat,
    /// Their size.
    pub size: Size,
    /// Which source gave them, if it was no producer: a recording goes on with no other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) version: u32,
    pub(super) stream: String,
    #[serde(default, skip_serializing_if = "is_live")]
    pub(super) mode: Mode,
    /// For people.
    pub(super) written: String,
    pub(super) grid: Option<Grid>,
    pub(super) last_tick: Option<Tick>,
    pub(super) media_sequence: SegmentNumber,
    pub(super) discontinuity_sequence: u64,
    pub(super) target_duration: u64,
    pub(super) window_ticks: u64,
    pub(super) longest_playlist_nanos: u64,
    pub(super) ended: bool,
    pub(super) source: Option<RememberedSource>,
    pub(super) periods: Vec<PeriodState>,
    pub(super) tracks: Vec<TrackState>,
    /// Playlists and MPDs in the folder.
    pub(super) manifests: BTreeSet<String>,
    /// Segments and parts from the first up to before the second number may be in the folder though nothing names them.
    pub(super) claimed: (SegmentNumber, SegmentNumber),
    /// Other files that are about to be written.
    pub(super) claimed_files: BTreeSet<String>,
    /// Files that are to be removed, and when.
    pub(super) leftovers: BTreeMap<String, UnixTime>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeriodState {
    pub(super) first_tick: Tick,
    pub(crate) grid: Grid,
    pub(super) discontinuity: bool,
    pub(crate) inits: Vec<InitState>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct InitState {
    pub(crate) version: String,
    pub(crate) bytes: u64,
    pub(super) codecs: String,
    pub(super) size: Size,
    pub(super) framerate: Framerate,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) audio: Option<AudioFormat>,
    /// In hexadecimal.
    pub(super) sample_entry: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct TrackState {
    pub(super) name: String,
    pub(super) retained: Vec<SegmentState>,
    pub(super) listed: Vec<SegmentState>,
    pub(super) open: Option<SegmentState>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SegmentState {
    pub(super) number: SegmentNumber,
    /// An index into `periods`.
    pub(super) period: usize,
    pub(super) first_tick: Tick,
    pub(super) ticks: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) gap: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<UnixTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) captured: Option<UnixTime>,
    pub(super) parts: Vec<PartState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PartState {
    pub(super) number: u32,
    pub(super) ticks: u32,
    pub(super) bytes: u64,
    pub(super) independent: bool,
}

/// What [`State::read`] has found.
pub(super) enum Found {
    /// A state; what is wrong with the first file if it is the copy's.
    State(Box<State>, Option<String>),
    /// None that can be used.
    Nothing {
        /// Whether there is a file at all.
        any: bool,
        /// What is wrong with the first.
        damage: String,
    },
}

/// Why a `state.json` is not believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error("it is not JSON of the right shape: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its version is {0}, this program knows {VERSION}")]
    Version(u32),
    #[error("it is of the stream '{0}'")]
    Stream(String),
    #[error("{0}")]
    Impossible(String),
}

// serde asks by reference.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_live(mode: &Mode) -> bool {
    *mode == Mode::Live
}

/// The file of a whole segment.
pub(crate) fn segment_name(number: SegmentNumber) -> String {
    format!("{number}.m4s")
}

pub(super) fn part_name(number: SegmentNumber, part: u32) -> String {
    format!("{number}.{part}.m4s")
}

pub(crate) fn init_name(version: &str) -> String {
    format!("init-{version}.mp4")
}

/// The segment that the file `name` is, or is a part of.
pub(super) fn number_of(name: &str) -> Option<SegmentNumber> {
    let stem = name.strip_suffix(".m4s")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = match stem.split_once('.') {
        Some((number, part)) if digits(part) => number,
        Some(_) => return None,
        None => stem,
    };
    if !digits(number) {
        return None;
    }
    let number = number.parse().ok().filter(|number| *number < MAX_NUMBER)?;
    Some(SegmentNumber(number))
}

/// Whether `path` can be one of ours: a name, or a name in one folder, none of them hidden.
pub(super) fn is_own_path(path: &str) -> bool {
    let plain = |name: &str| {
        !name.is_empty()
            && name.len() <= 200
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let mut names = path.split('/');
    names.clone().count() <= 2 && names.all(plain)
}

impl State {
    /// The state that names what `snapshot` holds.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut periods: Vec<Arc<Period>> = Vec::new();
        let mut index = |period: &Arc<Period>| {
            let known = periods.iter().position(|known| Arc::ptr_eq(known, period));
            known.unwrap_or_else(|| {
                periods.push(Arc::clone(period));
                periods.len() - 1
            })
        };
        let mut segment = |segment: &Arc<Segment>| SegmentState {
            number: segment.number,
            period: index(&segment.period),
            first_tick: segment.first_tick,
            ticks: segment.ticks,
            gap: segment.gap,
            expires: segment.expires,
            captured: segment.captured,
            parts: match segment.stored {
                0 => segment.parts.iter().map(PartState::of).collect(),
                bytes => vec![PartState::of_whole(segment, bytes)],
            },
        };
        let mut tracks: Vec<TrackState> = snapshot
            .tracks
            .iter()
            .map(|view| TrackState {
                name: view.name.clone(),
                retained: view.retained.iter().map(&mut segment).collect(),
                listed: view.listed.iter().map(&mut segment).collect(),
                open: None,
            })
            .collect();
        for (track, view) in tracks.iter_mut().zip(&snapshot.tracks) {
            track.open = view.open.as_ref().map(|open| SegmentState {
                number: open.number,
                period: index(&open.period),
                first_tick: open.first_tick,
                ticks: open.parts.iter().map(|part| part.ticks).sum(),
                gap: false,
                expires: None,
                captured: open.captured,
                parts: open.parts.iter().map(PartState::of).collect(),
            });
        }
        // The stream's grid is the video's.
        let is_video = |segment: &&SegmentState| periods[segment.period].grid.audio.is_none();
        let newest = tracks
            .iter()
            .flat_map(|track| {
                track
                    .retained
                    .iter()
                    .chain(&track.listed)
                    .chain(&track.open)
            })
            .filter(is_video)
            .max_by_key(|segment| segment.number);
        let next = newest.map_or(snapshot.media_sequence, |segment| segment.number);
        Self {
            version: VERSION,
            stream: snapshot.stream.clone(),
            mode: snapshot.mode,
            written: snapshot.updated.rfc3339(),
            grid: newest.map(|segment| periods[segment.period].grid),
            last_tick: newest
                .map(|segment| segment.first_tick.plus(u64::from(segment.ticks.max(1)) - 1)),
            media_sequence: snapshot.media_sequence,
            discontinuity_sequence: snapshot.discontinuity_sequence,
            target_duration: snapshot.target_duration,
            window_ticks: snapshot.window_ticks,
            longest_playlist_nanos: u64::try_from(snapshot.longest_playlist.as_nanos())
                .unwrap_or(u64::MAX),
            ended: snapshot.ended,
            source: None,
            periods: periods
                .iter()
                .map(|period| PeriodState::of(period))
                .collect(),
            tracks,
            manifests: BTreeSet::new(),
            claimed: (next, next),
            claimed_files: BTreeSet::new(),
            leftovers: BTreeMap::new(),
        }
    }

    /// The state in `folder`, with a line about what is wrong if it had to be the copy; else what is wrong with both.
    pub(super) fn read(folder: &Folder, stream: &str) -> Result<Found, PublishError> {
        let mut damages = Vec::new();
        for name in [STATE_FILE, STATE_COPY] {
            let text = folder.read(name, MAX_STATE_BYTES)?;
            let damage = match text.map(|text| Self::parse(&text, stream)) {
                Some(Ok(state)) => return Ok(Found::State(Box::new(state), damages.pop())),
                Some(Err(error)) => error.to_string(),
                None if folder.len(name)?.is_some() => {
                    format!("it is longer than {MAX_STATE_BYTES} bytes or can't be read")
                }
                None => "it is missing".to_owned(),
            };
            damages.push(damage);
        }
        let any = folder.len(STATE_FILE)?.is_some() || folder.len(STATE_COPY)?.is_some();
        Ok(Found::Nothing {
            any,
            damage: damages.swap_remove(0),
        })
    }

    /// Reads what a run before may have written, and checks every number that anything is computed from.
    pub(super) fn parse(text: &[u8], stream: &str) -> Result<Self, StateError> {
        let state: Self = serde_json::from_slice(text)?;
        if state.version != VERSION {
            return Err(StateError::Version(state.version));
        }
        if state.stream != stream {
            return Err(StateError::Stream(state.stream));
        }
        state.check().map_err(StateError::Impossible)?;
        Ok(state)
    }

    pub(super) fn longest_playlist(&self) -> Duration {
        Duration::from_nanos(self.longest_playlist_nanos)
    }

    /// The highest number that the folder may hold.
    pub(super) fn last_number(&self) -> Option<SegmentNumber> {
        let named = self.segments().map(|(_, segment)| segment.number).max();
        named.or_else(|| Some(SegmentNumber(self.media_sequence.0.checked_sub(1)?)))
    }

    /// Every segment with its track's place.
    pub(super) fn segments(&self) -> impl Iterator<Item = (usize, &SegmentState)> {
        self.tracks.iter().enumerate().flat_map(|(at, track)| {
            let segments = track
                .retained
                .iter()
                .chain(&track.listed)
                .chain(&track.open);
            segments.map(move |segment| (at, segment))
        })
    }

    /// As if it had been cut off where the first segment begins that some track lacks or has shorter than others: nothing names what lies behind
    /// that, or the playlists, and all of it is to be removed. With sound a segment more goes: what of that lies behind its pictures in the source
    /// was not read yet, and is silence there.
    pub(super) fn reopen(&mut self) {
        self.ended = false;
        self.claimed_files.append(&mut self.manifests);
        let is_audio = |segment: &SegmentState| self.periods[segment.period].grid.audio.is_some();
        let is_whole = |segment: &&SegmentState| {
            let grid = &self.periods[segment.period].grid;
            let end = segment.first_tick.plus(segment.ticks.into());
            !segment.gap && grid.segment_end(segment.first_tick) == end
        };
        let whole = |track: &TrackState| track.listed.iter().take_while(is_whole).count();
        let whole = self.tracks.iter().map(whole).min().unwrap_or(0);
        let has_sound = self.segments().any(|(_, segment)| is_audio(segment));
        let stay = whole.saturating_sub(usize::from(has_sound));
        let first_to_go = { self.tracks.iter() }
            .filter_map(|track| track.listed.get(stay))
            .filter(|segment| !is_audio(segment))
            .map(|segment| segment.first_tick)
            .min();
        if let Some(first) = first_to_go {
            self.last_tick = first.0.checked_sub(1).map(Tick);
        }
        let next = self
            .last_number()
            .map_or(self.claimed.1, |last| last.next());
        let edge = self.media_sequence.plus(stay as u64);
        self.claimed = (self.claimed.0.min(edge), self.claimed.1.max(next));
        for track in &mut self.tracks {
            track.listed.truncate(stay);
            track.open = None;
        }
    }

    fn check(&self) -> Result<(), String> {
        let numbers = [self.media_sequence, self.claimed.0, self.claimed.1];
        if numbers.iter().any(|number| number.0 >= MAX_NUMBER)
            || self.discontinuity_sequence >= MAX_NUMBER
        {
            return Err("a number is out of range".to_owned());
        }
        if self.target_duration > MAX_TARGET_DURATION {
            return Err("the target duration is out of range".to_owned());
        }
        let mut names = BTreeSet::new();
        for track in &self.tracks {
            if !is_own_path(&track.name) || track.name.contains('/') || !names.insert(&track.name) {
                return Err(format!("'{}' is no rendition's name", track.name));
            }
            if track.listed.len() + track.retained.len() > MAX_SEGMENTS {
                return Err(format!("'{}' has too many segments", track.name));
            }
            self.check_order(track)?;
        }
        for period in &self.periods {
            period.check(self.tracks.len())?;
        }
        let grid_fits = self
            .grid
            .is_none_or(|grid| grid.number_offset < MAX_NUMBER && grid.audio.is_none());
        let most = self.grid.as_ref().map_or(MAX_TICK, most_ticks);
        if !grid_fits || self.last_tick.is_some_and(|tick| tick.0 >= most) {
            return Err("the grid or the last tick is out of range".to_owned());
        }
        self.check_end()?;
        let mut columns = BTreeMap::new();
        for (_, segment) in self.segments() {
            self.check_segment(segment)?;
            let is_audio = self.periods[segment.period].grid.audio.is_some();
            let place = (segment.period, segment.first_tick);
            if !is_audio && *columns.entry(segment.number).or_insert(place) != place {
                return Err(format!(
                    "segment {} starts differently in two renditions",
                    segment.number
                ));
            }
        }
        let paths = self.manifests.iter().chain(&self.claimed_files);
        match paths
            .chain(self.leftovers.keys())
            .find(|path| !is_own_path(path))
        {
            Some(path) => Err(format!("'{path}' is no name of a published file")),
            None => Ok(()),
        }
    }

    /// The daemon's time follows from the last tick, so it has to be the newest segment's and of an age that can be.
    fn check_end(&self) -> Result<(), String> {
        let (Some(last), Some(grid)) = (self.last_tick, self.grid) else {
            return Ok(());
        };
        let video = self.segments().filter(|(_, segment)| {
            let period = self.periods.get(segment.period);
            period.is_some_and(|period| period.grid.audio.is_none())
        });
        let newest = video.map(|(_, segment)| segment.number).max();
        let fits = newest.is_none_or(|newest| numbers(&grid, last, newest));
        if fits && grid.time_of(last.next()) < LATEST {
            Ok(())
        } else {
            Err(format!("the last tick can't be {last}"))
        }
    }

    fn check_order(&self, track: &TrackState) -> Result<(), String> {
        let rising = |pair: &[SegmentState]| pair[0].number < pair[1].number;
        let listed = track.listed.iter().zip(self.media_sequence.0..);
        let next = self.media_sequence.plus(track.listed.len() as u64);
        let in_order = track.retained.windows(2).all(rising)
            && track
                .retained
                .iter()
                .all(|segment| segment.number < self.media_sequence && segment.expires.is_some())
            && listed
                .clone()
                .all(|(segment, number)| segment.number.0 == number && segment.expires.is_none())
            && track
                .open
                .iter()
                .all(|open| open.number == next && !open.gap && !open.parts.is_empty());
        if in_order {
            Ok(())
        } else {
            Err(format!("the segments of '{}' are out of order", track.name))
        }
    }

    fn check_segment(&self, segment: &SegmentState) -> Result<(), String> {
        let impossible = || Err(format!("segment {} is impossible", segment.number));
        let Some(period) = self.periods.get(segment.period) else {
            return impossible();
        };
        let grid = &period.grid;
        if segment.number.0 >= MAX_NUMBER
            || segment.first_tick.0 >= most_ticks(grid)
            || segment.first_tick < period.first_tick
        {
            return impossible();
        }
        let room = grid
            .segment_end(segment.first_tick)
            .since(segment.first_tick);
        let ticks: u64 = segment.parts.iter().map(|part| u64::from(part.ticks)).sum();
        let bytes = segment
            .parts
            .iter()
            .try_fold(0_u64, |sum, part| sum.checked_add(part.bytes));
        let fits = numbers(grid, segment.first_tick, segment.number)
            && segment.ticks > 0
            && u64::from(segment.ticks) <= room
            && bytes.is_some_and(|bytes| bytes <= MAX_FILE_BYTES)
            && segment.parts.iter().all(|part| part.ticks > 0)
            && segment
                .parts
                .windows(2)
                .all(|pair| pair[0].number < pair[1].number)
            && if segment.gap {
                segment.parts.is_empty()
            } else {
                ticks == u64::from(segment.ticks)
            };
        if fits { Ok(()) } else { impossible() }
    }
}

impl InitState {
    /// The encoding, if `content`, its init segment, is as long as it was.
    pub(crate) fn read_back(&self, content: Vec<u8>) -> Option<TrackInit> {
        let sample_entry = from_hex(&self.sample_entry)?;
        (content.len() as u64 == self.bytes).then(|| TrackInit {
            description: TrackDescription {
                sample_entry: Bytes::from(sample_entry),
                codecs: self.codecs.clone(),
                size: self.size,
                framerate: self.framerate,
                audio: self.audio,
            },
            version: self.version.clone(),
            init: Bytes::from(content),
        })
    }
}

impl PeriodState {
    pub(crate) fn of(period: &Period) -> Self {
        let inits = period.tracks.iter().map(|track| InitState {
            version: track.version.clone(),
            bytes: track.init.len() as u64,
            codecs: track.description.codecs.clone(),
            size: track.description.size,
            framerate: track.description.framerate,
            audio: track.description.audio,
            sample_entry: to_hex(&track.description.sample_entry),
        });
        Self {
            first_tick: period.first_tick,
            grid: period.grid,
            discontinuity: period.discontinuity,
            inits: inits.collect(),
        }
    }

    /// Whether it can be of a stream of so many tracks.
    pub(crate) fn check(&self, tracks: usize) -> Result<(), String> {
        let inits = self.inits.len() == tracks
            && self.inits.iter().all(|init| {
                is_own_path(&init_name(&init.version))
                    && !init.version.contains('/')
                    && init.bytes <= MAX_FILE_BYTES
                    && self.fits_audio(init)
            });
        if inits
            && self.first_tick.0 < most_ticks(&self.grid)
            && self.grid.number_offset < MAX_NUMBER
        {
            Ok(())
        } else {
            Err(format!(
                "the period at tick {} is impossible",
                self.first_tick
            ))
        }
    }

    /// Whether `init` is no audio, or of frames that there can be.
    fn fits_audio(&self, init: &InitState) -> bool {
        let frame = init.audio.map(|audio| audio.frame);
        frame.is_none_or(|frame| self.grid.audio.is_some() || self.grid.for_audio(frame).is_some())
    }
}

impl PartState {
    /// A whole segment whose parts nobody asks for any more.
    fn of_whole(segment: &Segment, bytes: u64) -> Self {
        Self {
            number: segment.period.grid.part_of(segment.first_tick),
            ticks: segment.ticks,
            bytes,
            independent: true,
        }
    }

    fn of(part: &crate::package::Part) -> Self {
        Self {
            number: part.number,
            ticks: part.ticks,
            bytes: part.bytes.len() as u64,
            independent: part.independent,
        }
    }
}

/// The ticks of `grid` stay below this.
pub(crate) fn most_ticks(grid: &Grid) -> u64 {
    match grid.cut {
        Some(_) => MAX_COPIED_TICK,
        None => MAX_TICK,
    }
}

/// Whether `tick` may be in segment `number`: of a copied stream, any may.
fn numbers(grid: &Grid, tick: Tick, number: SegmentNumber) -> bool {
    grid.cut.is_some() || grid.segment_of(tick) == number
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that `text` writes in hexadecimal.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}
