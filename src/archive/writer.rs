//! Brings the reels to what the window lists, and lets the oldest go.

use std::time::Duration;

use super::error::RecordError;
use super::index::{Cell, Column};
use super::reel::{self, Reel};
use super::{Shared, Summary, lock, name_at, names_in};
use crate::publish::{Claim, PeriodState, PublishError};
use crate::tick::{SegmentNumber, UnixTime};
use crate::window::{Segment, Snapshot, TrackView};

const HOUR: u64 = 3_600_000_000_000;
/// What ends so far ahead of the clock was kept by a clock that was wrong, and nothing goes on from it.
const AHEAD: Duration = Duration::from_secs(60);
/// No hour has more reels: a new one begins where the stream's tracks change.
const MOST_OF_AN_HOUR: u32 = 100;

type Result<T> = std::result::Result<T, RecordError>;

/// What is open of a stream's reels.
pub(super) struct Writer<'a> {
    shared: &'a Shared,
    _claim: Claim,
    newest: Option<Reel>,
    /// The one that segments leave, where it is another.
    oldest: Option<Reel>,
    /// When what is kept ends.
    until: UnixTime,
}

/// A window's segments of one number, as one column.
struct Fresh<'a> {
    column: Column,
    segments: Vec<Option<&'a Segment>>,
}

impl<'a> Writer<'a> {
    /// Takes the folder and looks at what is there; none when somebody else has it.
    pub(super) fn open(shared: &'a Shared) -> Result<Option<Self>> {
        let dir = &shared.plan.dir;
        let Some(claim) = Claim::take(dir)? else {
            return Ok(None);
        };
        let mut summaries = Vec::new();
        let names = names_in(dir);
        for name in &names {
            if let Some(index) = reel::read_index(&dir.join(name))? {
                summaries.push(Summary::of(name, &index));
            }
        }
        let mut newest = None;
        if let Some(last) = summaries.last_mut()
            && let Some(mut reel) = Reel::open(dir, &last.name)?
        {
            reel.look()?;
            *last = Summary::of(&reel.name, &reel.index);
            newest = Some(reel);
        }
        let believed = shared.anchor.now().saturating_add(AHEAD);
        let ends = summaries.iter().map(|summary| summary.ends);
        let until = ends.filter(|ends| *ends <= believed).max();
        *lock(&shared.reels) = summaries;
        Ok(Some(Self {
            shared,
            _claim: claim,
            newest,
            oldest: None,
            until: until.unwrap_or_default(),
        }))
    }

    /// One pass: what `snapshot` lists is kept, and what is too old is gone.
    pub(super) fn bring(&mut self, snapshot: &Snapshot) -> Result<()> {
        let mut missed = self.missed(snapshot);
        for fresh in fresh(snapshot, self.until) {
            self.keep(snapshot, &fresh)?;
            if let Some(missed) = missed.take() {
                self.note_missed(missed);
            }
        }
        self.remove_aged(self.shared.anchor.now())
    }

    /// How much the window no longer has, if the disk was why it was not kept: if all of that came and went while passes were under way. What
    /// is missing for longer was never there.
    fn missed(&self, snapshot: &Snapshot) -> Option<Duration> {
        let missed = oldest(snapshot)?.saturating_since(self.until);
        let held_up = lock(&self.shared.trouble).held_up;
        let by_the_disk = !missed.is_zero() && missed <= held_up;
        (by_the_disk && self.until > UnixTime::default()).then_some(missed)
    }

    fn note_missed(&self, missed: Duration) {
        let stream = &self.shared.plan.stream;
        tracing::warn!(%stream, ?missed, "a stretch was not recorded: it could not be written for longer than the window is");
        lock(&self.shared.trouble).missed += missed;
    }

    fn keep(&mut self, snapshot: &Snapshot, fresh: &Fresh<'_>) -> Result<()> {
        let Some(period) = fresh
            .segments
            .iter()
            .flatten()
            .map(|one| &one.period)
            .find(|period| {
                // A column is counted as its video is.
                period.grid.audio.is_none()
            })
        else {
            return Ok(());
        };
        let tracks: Vec<String> = snapshot
            .tracks
            .iter()
            .map(|view| view.name.clone())
            .collect();
        self.turn_to(fresh.column.starts, &tracks)?;
        self.make_room(fresh.column.bytes())?;
        let Some(reel) = &mut self.newest else {
            return Ok(());
        };
        reel.begin_encoding(PeriodState::of(period), &period.tracks)?;
        reel.keep(fresh.column.clone(), &fresh.segments)?;
        self.until = fresh.column.ends;
        self.note(false);
        Ok(())
    }

    /// Makes the reel for what begins at `starts` the newest.
    fn turn_to(&mut self, starts: UnixTime, tracks: &[String]) -> Result<()> {
        let hour = UnixTime::from_nanos(starts.as_nanos() - starts.as_nanos() % HOUR);
        let plain = name_at(hour);
        let fits = |name: &str| {
            name.strip_prefix(plain.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        if self
            .newest
            .as_ref()
            .is_some_and(|reel| fits(&reel.name) && reel.index.tracks == tracks)
        {
            return Ok(());
        }
        self.newest = None;
        let dir = &self.shared.plan.dir;
        let others = (2..=MOST_OF_AN_HOUR).map(|number| format!("{plain}-{number}"));
        for name in std::iter::once(plain.clone()).chain(others) {
            let reel = match Reel::open(dir, &name)? {
                Some(reel) if reel.index.tracks == tracks => reel,
                Some(_) => continue,
                None => Reel::begin(dir, &name, tracks)?,
            };
            if self
                .oldest
                .as_ref()
                .is_some_and(|oldest| oldest.name == name)
            {
                self.oldest = None;
            }
            self.newest = Some(reel);
            self.note(false);
            return Ok(());
        }
        Err(RecordError::Crowded {
            path: dir.clone(),
            hour: plain,
            most: MOST_OF_AN_HOUR,
        })
    }

    /// Lets the oldest go until `needed` bytes fit.
    fn make_room(&mut self, needed: u64) -> Result<()> {
        if let Some(limit) = self.shared.plan.max_bytes {
            while self.bytes() + needed > limit {
                if !self.remove_oldest()? {
                    return Err(RecordError::Folder(PublishError::Budget {
                        path: self.shared.plan.dir.clone(),
                        needed,
                        limit,
                    }));
                }
            }
        }
        let Some(reel) = &self.newest else {
            return Ok(());
        };
        // Twice what the window leaves, so that the recording never takes the window's own room.
        let floor = self.shared.plan.keep_free.saturating_mul(2);
        let free = reel.free()?;
        if free >= floor.saturating_add(needed) {
            return Ok(());
        }
        // Whoever fills the disk, the recording does not grow: as much goes as comes.
        let before = self.bytes();
        while self.bytes().saturating_add(needed) > before {
            if !self.remove_oldest()? {
                return Err(RecordError::Folder(PublishError::Floor {
                    path: self.shared.plan.dir.clone(),
                    free,
                    needed,
                    floor,
                }));
            }
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        lock(&self.shared.reels).iter().map(|reel| reel.bytes).sum()
    }

    /// Removes what has been kept for long enough.
    fn remove_aged(&mut self, now: UnixTime) -> Result<()> {
        let limit = now.saturating_sub(self.shared.plan.keep);
        loop {
            let Some(oldest) = self.oldest()? else {
                return Ok(());
            };
            let columns = &oldest.index.columns;
            let aged = columns.partition_point(|column| column.ends <= limit);
            let (all, until) = (
                aged == columns.len(),
                aged.checked_sub(1).map(|at| after(&columns[at])),
            );
            match until {
                Some(until) => self.remove_before(until)?,
                None if all && self.oldest.is_some() => self.remove_reel()?,
                None => return Ok(()),
            }
        }
    }

    /// Removes the oldest column: whether there was any.
    fn remove_oldest(&mut self) -> Result<bool> {
        loop {
            let Some(oldest) = self.oldest()? else {
                return Ok(false);
            };
            match oldest.index.columns.first().map(after) {
                Some(until) => {
                    self.remove_before(until)?;
                    return Ok(true);
                }
                None if self.oldest.is_some() => self.remove_reel()?,
                None => return Ok(false),
            }
        }
    }

    /// The reel that segments leave; in `self.oldest` unless it is the newest too.
    fn oldest(&mut self) -> Result<Option<&mut Reel>> {
        let first = lock(&self.shared.reels)
            .first()
            .map(|reel| reel.name.clone());
        let Some(name) = first else {
            return Ok(None);
        };
        if self.newest.as_ref().is_some_and(|reel| reel.name == name) {
            self.oldest = None;
            return Ok(self.newest.as_mut());
        }
        if self.oldest.as_ref().is_none_or(|reel| reel.name != name) {
            self.oldest = Reel::open(&self.shared.plan.dir, &name)?;
            if self.oldest.is_none() {
                // Somebody has taken it away.
                lock(&self.shared.reels).retain(|reel| reel.name != name);
                return self.oldest();
            }
        }
        Ok(self.oldest.as_mut())
    }

    fn remove_before(&mut self, until: UnixTime) -> Result<()> {
        if let Some(first) = lock(&self.shared.reels).first_mut() {
            // Nobody is shown what is about to go.
            first.starts = first.starts.max(until);
        }
        let Some(oldest) = self.oldest()? else {
            return Ok(());
        };
        oldest.remove_before(until)?;
        self.note(true);
        Ok(())
    }

    /// Removes the oldest reel, which is empty and not the newest.
    fn remove_reel(&mut self) -> Result<()> {
        let Some(reel) = self.oldest.take() else {
            return Ok(());
        };
        lock(&self.shared.reels).retain(|summary| summary.name != reel.name);
        Ok(reel.remove()?)
    }

    /// Tells the readers what the oldest or the newest reel has now.
    fn note(&self, oldest: bool) {
        let reel = match oldest {
            true => self.oldest.as_ref().or(self.newest.as_ref()),
            false => self.newest.as_ref(),
        };
        let Some(reel) = reel else { return };
        let summary = Summary::of(&reel.name, &reel.index);
        let mut reels = lock(&self.shared.reels);
        match reels.iter_mut().find(|known| known.name == reel.name) {
            Some(known) => *known = summary,
            None => {
                reels.push(summary);
                reels.sort_by_key(|reel| super::age_key(&reel.name));
            }
        }
    }
}

/// The first moment after a column's beginning.
fn after(column: &Column) -> UnixTime {
    UnixTime::from_nanos(column.starts.as_nanos() + 1)
}

/// When what `snapshot` still has begins, with its gaps.
fn oldest(snapshot: &Snapshot) -> Option<UnixTime> {
    let video = snapshot.tracks.iter().find(|view| !view.is_audio())?;
    let first = video.retained.iter().chain(&video.listed).next()?;
    Some(first.starts())
}

/// The columns of `snapshot` that are whole and begin at `until` or later, oldest first.
fn fresh(snapshot: &Snapshot, until: UnixTime) -> Vec<Fresh<'_>> {
    let is_audio = |view: &&TrackView| view.is_audio();
    let Some(video) = snapshot.tracks.iter().find(|view| !is_audio(view)) else {
        return Vec::new();
    };
    let those = video.retained.iter().chain(&video.listed);
    let those = those.filter(|segment| segment.starts() >= until);
    // A track that is behind is waited for.
    let whole = those.take_while(|segment| {
        snapshot.tracks.iter().all(|view| {
            let last = view.listed.last().map(|last| last.number);
            last >= Some(segment.number)
        })
    });
    whole
        .filter_map(|segment| column(snapshot, segment.number))
        .collect()
}

/// The column of `number`, if any video of it is there.
fn column(snapshot: &Snapshot, number: SegmentNumber) -> Option<Fresh<'_>> {
    let segments: Vec<Option<&Segment>> = snapshot
        .tracks
        .iter()
        .map(|view| view.any_segment(number).map(|segment| &**segment))
        .collect();
    let is_shown = |segment: &&&Segment| segment.period.grid.audio.is_none() && !segment.gap;
    let shown = segments.iter().flatten().find(is_shown)?;
    let cell = |segment: &Option<&Segment>| match segment {
        Some(segment) => Cell {
            first_tick: segment.first_tick,
            ticks: segment.ticks,
            bytes: if segment.gap { 0 } else { segment.len() },
        },
        None => Cell {
            first_tick: shown.first_tick,
            ticks: shown.ticks,
            bytes: 0,
        },
    };
    let grid = &shown.period.grid;
    let column = Column {
        starts: grid.time_of(shown.first_tick),
        ends: grid.time_of(shown.end_tick()),
        number,
        breaks: shown.starts_discontinuity(),
        cells: segments.iter().map(cell).collect(),
        encoding: 0,
        lost: false,
    };
    Some(Fresh { column, segments })
}
