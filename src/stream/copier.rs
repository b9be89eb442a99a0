//! The owner of a copied stream: one thread that puts the parts of its source's segments into the window. It has no encoder, so there is nothing to
//! feed, to replay or to stand in for; while the source is away, the window goes on with gaps.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::curtain::Curtain;
use super::life::Ground;
use super::shared::Shared;
use super::shelf::{MOST_HELD, MOST_SEGMENTS, Shelf};
use super::shortage::ShortageTeller;
use crate::clock::Anchor;
use crate::config::StreamPlan;
use crate::faults;
use crate::package::{CopiedPlace, copied_part};
use crate::publish::DiskDesk;
use crate::sample::{Sample, TrackDescription};
use crate::source::{Copied, CopiedPart, Stop};
use crate::status::AudioStatus;
use crate::tick::{Grid, SegmentNumber, Tick, UnixTime};
use crate::window::{PushError, TrackInit, Window};

/// How long it sleeps when nothing happens.
const NAP: Duration = Duration::from_millis(100);
/// How soon the disk is looked at again while it is waited for: nothing tells of that.
const SOON: Duration = Duration::from_millis(20);

/// What becomes of a source's segments.
pub(super) struct Copier {
    plan: StreamPlan,
    grid: Grid,
    anchor: Anchor,
    shared: Arc<Shared>,
    window: Window,
    curtain: Curtain,
    disk: DiskDesk,
    news: Receiver<Copied>,
    /// The source's.
    stop: Stop,
    /// Whether the first period breaks with what an earlier run published.
    discontinuity: bool,
    /// Of a recording: what waits for the publish folder.
    shelf: Option<Shelf>,
    /// Of a recording: when its first segment was whole.
    began: Option<UnixTime>,
    /// Whether the source gives nothing for now.
    away: bool,
    /// The segment that is being written; none between two, and while one is left out.
    writing: Option<Writing>,
    shortage: ShortageTeller,
    /// When the first pictures of the segments were captured that the window has got since it was last shown.
    unshown: Vec<UnixTime>,
    dirty: bool,
    done: bool,
}

/// A segment that is being written.
struct Writing {
    number: SegmentNumber,
    /// How many parts each track has of it.
    parts: Vec<u32>,
}

impl Copier {
    /// The owner of the stream of `ground` and of its `window`, which hears of its source by `news`; the source ends with `stop`.
    pub(super) fn new(
        ground: &Ground,
        window: Window,
        news: Receiver<Copied>,
        stop: &Stop,
    ) -> Self {
        let recorded = ground.plan.mode.is_recorded();
        Self {
            plan: ground.plan.clone(),
            grid: ground.grid,
            anchor: ground.anchor.clone(),
            shared: Arc::clone(&ground.shared),
            window,
            curtain: ground.curtain.clone(),
            disk: ground.desk.clone(),
            news,
            stop: stop.clone(),
            discontinuity: ground.discontinuity,
            shelf: recorded.then(Shelf::default),
            began: None,
            away: true,
            writing: None,
            shortage: ShortageTeller::default(),
            unshown: Vec::new(),
            dirty: true,
            done: false,
        }
    }

    /// Runs until the source has said its last.
    pub(super) fn run(mut self) {
        self.window.cut_off(self.anchor.now());
        while !self.done {
            faults::point("stream", &self.plan.name);
            self.shared.counters.turned.set(self.anchor.monotonic().0);
            let wait = self.curtain.lift_when_late(Instant::now()).unwrap_or(NAP);
            if self.is_held_back() {
                std::thread::sleep(wait.min(SOON));
            } else {
                match self.news.recv_timeout(wait) {
                    Ok(news) => self.hear(news),
                    Err(RecvTimeoutError::Timeout) => {}
                    // The source has panicked: the next life goes on from the window.
                    Err(RecvTimeoutError::Disconnected) => self.done = true,
                }
            }
            self.tend();
            self.publish();
        }
    }

    /// Whether the source has to wait for the disk. At a stop it has no more than it holds.
    fn is_held_back(&self) -> bool {
        self.shelf.is_some() && self.window.held_bytes() > MOST_HELD && !self.stop.is_set()
    }

    fn hear(&mut self, news: Copied) {
        match news {
            Copied::Opened(without_sound) => {
                self.away = false;
                self.tell_of_sound(without_sound.is_none(), without_sound);
            }
            Copied::Part(part) => self.take(&part),
            Copied::Unfit(why) => {
                let mut report = self.shared.report();
                (report.failure, report.broken) = (Some(why), true);
            }
            Copied::Away => {
                self.away = true;
                self.shared.report().no_signal = true;
                self.tell_of_sound(false, Some("the source gives nothing"));
            }
            Copied::Over => self.end(),
        }
    }

    /// Says whether the stream's sound is there, if it is to have any, and why not.
    fn tell_of_sound(&self, playing: bool, detail: Option<&str>) {
        let Some(source) = self.plan.sound_from() else {
            return;
        };
        self.shared.report().audio = Some(AudioStatus {
            source,
            playing,
            detail: detail.map(str::to_owned),
            ..AudioStatus::default()
        });
    }

    fn take(&mut self, part: &CopiedPart) {
        let now = self.anchor.now();
        if part.begins && !self.begin(part, now) {
            return;
        }
        // One that is left out has no more.
        let Some(mut writing) = self.writing.take() else {
            return;
        };
        let goes_on = self.write(part, &mut writing, now);
        if goes_on && part.ends {
            for track in 0..=part.sounds.len() {
                self.window.finish_segment(track, now);
            }
        } else if goes_on {
            self.writing = Some(writing);
        }
        self.count(part);
        self.dirty = true;
    }

    /// Begins a segment, unless its time is published already.
    fn begin(&mut self, part: &CopiedPart, now: UnixTime) -> bool {
        self.writing = None;
        let next = self.window.next_tick(0);
        if next.is_some_and(|next| part.first < next) {
            tracing::debug!(stream = %self.plan.name, tick = %part.first, "a segment is left out: its time is published already");
            return false;
        }
        let inits = self.inits_of(part);
        self.begin_period(part, inits, now);
        self.writing = Some(Writing {
            number: self.window.next_number(),
            parts: vec![0; part.sounds.len() + 1],
        });
        true
    }

    /// Puts what `part` has into the window; says whether its segment goes on.
    fn write(&mut self, part: &CopiedPart, writing: &mut Writing, now: UnixTime) -> bool {
        let pictures = (!part.samples.is_empty()).then_some(&part.samples);
        let pictures = pictures.into_iter().map(|samples| (0, samples, part.ends));
        let sounds = part.sounds.iter().zip(1..).flat_map(|(parts, track)| {
            let last = parts.len().saturating_sub(1);
            let parts = parts.iter().enumerate();
            parts.map(move |(index, frames)| (track, frames, part.ends && index == last))
        });
        for (track, samples, last) in pictures.chain(sounds) {
            let Some(number) = writing.parts.get(track).copied() else {
                continue;
            };
            let place = CopiedPlace {
                segment: writing.number,
                number,
                last,
            };
            let captured = self.captured(samples, now);
            let made = match copied_part(&self.grid, place, samples, captured) {
                Ok(made) => made,
                Err(error) => {
                    // What follows begins a period of its own.
                    tracing::error!(stream = %self.plan.name, %error, "the rest of a segment is left out: there is no memory for it");
                    return false;
                }
            };
            match self.window.push(track, made, now) {
                Ok(()) => {
                    if let Some(count) = writing.parts.get_mut(track) {
                        *count += 1;
                    }
                    if track == 0 {
                        self.unshown.push(captured);
                    }
                }
                // It has become a gap, of which viewers have to be told, too.
                Err(PushError::Memory { .. }) => return false,
                Err(error) => {
                    tracing::error!(stream = %self.plan.name, track, %error, "a segment does not fit the window");
                    return false;
                }
            }
        }
        true
    }

    /// When samples were captured, as far as that can be told of what is whole `now`. A file that is recorded comes faster than that: its times go
    /// on from when it began.
    fn captured(&mut self, samples: &[Sample], now: UnixTime) -> UnixTime {
        let first = samples.first().map_or(0, |sample| sample.decode_time);
        let on_grid = self.grid.time_of(Tick(first));
        if self.shelf.is_none() {
            return on_grid.min(now);
        }
        let began = *self.began.get_or_insert(now);
        let ticks = samples.iter().map(|one| u64::from(one.duration));
        let length = self.grid.framerate.duration_of(ticks.sum());
        let follows = began.saturating_add(on_grid.saturating_since(UnixTime::default()));
        follows.max(now.saturating_sub(length))
    }

    /// The encodings of a segment that begins: those of the newest period, if only the framerate differs, which is measured anew each time.
    fn inits_of(&self, part: &CopiedPart) -> Vec<TrackInit> {
        let before = self.window.period();
        let known = |track: usize| before.and_then(|period| period.tracks.get(track));
        let init = |(track, description): (usize, TrackDescription)| {
            let same = known(track).filter(|known| known.description == description);
            same.cloned().unwrap_or_else(|| TrackInit::new(description))
        };
        let pictures = &part.tracks.pictures;
        let framerate = known(0).map(|known| known.description.framerate);
        let same = framerate.map(|framerate| pictures.description(framerate));
        let same = same.filter(|same| known(0).is_some_and(|known| known.description == *same));
        let pictures = same.unwrap_or_else(|| pictures.description(part.framerate));
        let sounds = part.tracks.sounds.iter();
        std::iter::once(pictures)
            .chain(sounds.map(|sound| sound.description()))
            .enumerate()
            .map(init)
            .collect()
    }

    /// Makes sure that the window's period is of these encodings and lengths, and reaches the segment that begins.
    fn begin_period(&mut self, part: &CopiedPart, tracks: Vec<TrackInit>, now: UnixTime) {
        self.grid = self.grid.with_parts_of(part.target);
        let before = self.window.period();
        let same = before.is_some_and(|before| before.tracks == tracks);
        let goes_on = same
            && before.is_some_and(|before| before.grid == self.grid)
            && !self.window.ended()
            && !self.discontinuity
            && !self.window.is_writing()
            && self.window.next_tick(0) == Some(part.first)
            && (part.follows || part.sounds.is_empty());
        if goes_on {
            return;
        }
        let other = before.is_some() && !same;
        let other = std::mem::take(&mut self.discontinuity) || other;
        if other {
            tracing::warn!(stream = %self.plan.name, tick = %part.first, "the encoding changes: players see a discontinuity");
        }
        self.window
            .begin_cut_period(self.grid, part.first, tracks, other, now);
    }

    fn count(&self, part: &CopiedPart) {
        let counters = &self.shared.counters;
        let count = part.samples.len() as u64;
        for counter in [&counters.received, &counters.used, &counters.fresh] {
            counter.add(count);
        }
        if let Some(last) = part.samples.last() {
            counters.last_tick.raise(last.decode_time);
        }
        let rate = (part.framerate.num() + part.framerate.den() / 2) / part.framerate.den();
        counters.used_last_second.set(rate.into());
        let mut report = self.shared.report();
        (report.failure, report.broken, report.no_signal) = (None, false, false);
        report.started.get_or_insert_with(|| self.anchor.now());
    }

    /// Whatever is due: gaps, what has left, what is stored.
    fn tend(&mut self) {
        let now = self.anchor.now();
        self.dirty |= self.window.expire(now);
        let shortage = self.shortage.tell(&self.window, &self.plan.name, now);
        let mut report = self.shared.report();
        report.memory = shortage;
        report.disk = self.disk.status().error;
        drop(report);
        if self.shelf.is_some() {
            self.let_go_of_stored();
        } else if self.away {
            self.go_on_without(now);
        }
    }

    /// A player wants a new segment every so often, be it a gap.
    fn go_on_without(&mut self, now: UnixTime) {
        let (Some(nominal), Some(next)) = (self.grid.cut, self.window.next_tick(0)) else {
            return;
        };
        let same = |period: &Arc<crate::window::Period>| period.grid.same_edges(&self.grid);
        let missing = self.grid.tick_at(now).since(next);
        if self.window.period().is_some_and(same)
            && missing >= u64::from(self.grid.ticks_per_segment.get())
        {
            let whole = missing - missing % u64::from(nominal.get());
            self.window.mark_away(next.plus(whole), now);
            self.dirty = true;
        }
    }

    fn let_go_of_stored(&mut self) {
        let (Some(shelf), Some(published)) = (&mut self.shelf, self.disk.status().published) else {
            return;
        };
        if let Some(newest) = shelf.stored(published) {
            if self.window.segments() >= MOST_SEGMENTS {
                self.stop.set();
            }
            self.window.keep_in_folder(newest);
            self.dirty = true;
        }
    }

    fn end(&mut self) {
        if self.shelf.is_some() || self.shared.ends_at_exit() {
            self.window.end(self.anchor.now());
        }
        self.dirty = true;
        self.done = true;
    }

    fn publish(&mut self) {
        if std::mem::take(&mut self.dirty) {
            let snapshot = self.window.snapshot(self.anchor.now());
            if let Some(shelf) = &mut self.shelf {
                shelf.note_shown(&snapshot);
            }
            let parts = std::mem::take(&mut self.unshown);
            self.curtain.show(snapshot, parts, Instant::now());
        }
    }
}
