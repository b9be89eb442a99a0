//! The thread that makes a stream's sound. It turns a hundred times a second: takes what the source gives, places it on the timeline, and feeds the encoder
//! what the timeline has. An encoder that dies is replaced by one that is given the same sound again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use bytes::Bytes;

use super::lock::Lock;
use super::recorded::{Beside, Recorded};
use super::resample::Resampler;
use super::rests::{self, Rests};
use super::supply::Supply;
use super::timeline::Timeline;
use super::{AudioNews, AudioPost, Event, Order};
use crate::clock::{Anchor, MonotonicTime};
use crate::config::AudioPlan;
use crate::encode::audio::{AudioEncoder, AudioEvent, probe_audio, start_sample};
use crate::encode::{FfmpegInfo, ProbeCache};
use crate::faults;
use crate::ingest::Count;
use crate::package::TrackPackager;
use crate::sample::{Sample, TrackDescription};
use crate::status::AudioStatus;
use crate::tick::{SAMPLE_RATE, Tick, UnixTime};

const TURN: Duration = Duration::from_millis(10);
/// So much sound is placed or fed at once.
const BLOCK: u64 = 4800;
/// An encoder that returns nothing for so long of what it was fed is as good as dead.
const STALL: Duration = Duration::from_secs(4);
/// The sound of more time than this was missed: it is silence.
const MISSED: u64 = 10 * 48_000;
/// So much silence behind the end of a recording makes an encoder return all that is before it.
const FLUSH: u64 = 8192;
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// One run of the encoder.
struct Running {
    encoder: AudioEncoder,
    /// The sample that it is fed next.
    fed: u64,
    /// When it last returned a frame, or had nothing to return.
    progress: MonotonicTime,
}

/// The thread's own.
pub(crate) struct Work<F> {
    pub(crate) stream: String,
    pub(crate) plan: AudioPlan,
    /// Where the sound comes from, as people may see it.
    pub(crate) source: String,
    pub(crate) ffmpeg: Arc<FfmpegInfo>,
    pub(crate) probes: Arc<ProbeCache>,
    pub(crate) anchor: Anchor,
    pub(crate) post: AudioPost,
    /// How long after its capture the picture is shown: the sound is as late.
    pub(crate) picture_lag: Arc<Count>,
    /// Of a recording: how far its pictures are.
    pub(crate) beside: Option<Arc<Beside>>,
    /// Tells the owner; false once there is none.
    pub(crate) tell: F,
}

struct State {
    descriptions: Vec<TrackDescription>,
    timeline: Timeline,
    supply: Supply,
    place: Place,
    generation: u64,
    packagers: Vec<TrackPackager>,
    /// Of a recording: frames that its pictures have not come to, by track, the first of them following on those that the packager has.
    ready: Vec<VecDeque<Bytes>>,
    /// Of a recording that ends: what is there is all.
    end: Option<End>,
    /// Counts the encoder's runs, so that one that was replaced is not listened to.
    run: u64,
    encoder: Option<Running>,
    encoder_rests: Rests,
    /// Why there is no encoder.
    fault: Option<String>,
    status: AudioStatus,
    told: MonotonicTime,
    over: bool,
}

/// How the place of sound is found.
enum Place {
    Live(Box<Lock>),
    Recorded(Recorded),
}

/// Where a recording's sound ends.
struct End {
    /// Before this frame, by track.
    frames: Vec<Tick>,
    /// What the encoder is fed until it has returned all of them, silence at the end included.
    fed: u64,
    told: bool,
}

fn new_lock() -> Lock {
    Lock::new(Resampler::new(SAMPLE_RATE))
}

/// The sample that is heard at `time`.
fn sample_at(time: UnixTime) -> u64 {
    let samples = u128::from(time.as_nanos()) * u128::from(SAMPLE_RATE.get()) / 1_000_000_000;
    u64::try_from(samples).unwrap_or(u64::MAX)
}

impl State {
    /// How many samples a frame of each track has.
    fn frames(&self) -> impl Iterator<Item = u64> {
        let tracks = self.descriptions.iter().take(self.packagers.len());
        tracks.map(|description| u64::from(description.sample_duration()))
    }

    /// The frame of `track` that the encoder has to return next.
    fn next_frame(&self, track: usize) -> Option<Tick> {
        let ready = self.ready.get(track)?.len() as u64;
        Some(self.packagers.get(track)?.next_tick().plus(ready))
    }

    /// The sample up to before which every track has its frames.
    fn returned(&self) -> u64 {
        let tracks = self.frames().enumerate();
        let returned = tracks.filter_map(|(track, frame)| {
            let next = self.next_frame(track)?;
            Some(next.0.saturating_mul(frame))
        });
        returned.min().unwrap_or(0)
    }

    /// Whether a recording that ends has all of its frames.
    fn has_all(&self) -> bool {
        let frames = self.end.as_ref().map(|end| end.frames.iter().enumerate());
        frames.is_some_and(|mut frames| {
            frames.all(|(track, end)| self.next_frame(track).is_none_or(|next| next >= *end))
        })
    }

    /// Where an encoder has to begin.
    fn first_sample(&self) -> u64 {
        let next: Vec<Tick> = (0..self.packagers.len())
            .filter_map(|track| self.next_frame(track))
            .collect();
        let formats: Vec<_> = self.descriptions.iter().filter_map(|d| d.audio).collect();
        start_sample(&formats, &next)
    }
}

impl<F: Fn(AudioNews) -> bool> Work<F> {
    /// Runs until the owner has ended.
    pub(crate) fn run(self) {
        let mut early = Vec::new();
        let Some(descriptions) = self.describe(&mut early) else {
            return;
        };
        let mut state = State {
            over: !(self.tell)(AudioNews::Described(descriptions.clone())),
            descriptions,
            timeline: Timeline::new(sample_at(self.anchor.now())),
            supply: Supply::new(&self.stream, &self.plan, &self.ffmpeg.path, &self.anchor),
            place: match &self.beside {
                None => Place::Live(Box::new(new_lock())),
                Some(beside) => {
                    let now = self.anchor.monotonic();
                    Place::Recorded(Recorded::new(Arc::clone(beside), now))
                }
            },
            ready: Vec::new(),
            end: None,
            generation: 0,
            packagers: Vec::new(),
            run: 0,
            encoder: None,
            encoder_rests: Rests::default(),
            fault: None,
            status: AudioStatus {
                source: self.source.clone(),
                ..AudioStatus::default()
            },
            told: MonotonicTime(0),
        };
        for event in early {
            self.obey(&mut state, event);
        }
        while !state.over {
            faults::point("audio", &self.stream);
            match self.post.events.recv_timeout(TURN) {
                Ok(event) => self.obey(&mut state, event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while let Ok(event) = self.post.events.try_recv() {
                self.obey(&mut state, event);
            }
            if state.packagers.is_empty() {
                // Nothing is published yet, so nobody has to be heard.
                continue;
            }
            let now = self.anchor.monotonic();
            self.tend_supply(&mut state, now);
            self.extend(&mut state, now);
            self.feed(&mut state, now);
            self.package(&mut state);
            self.report(&mut state, now);
        }
    }

    /// What each rendition is encoded as, tried until it is known; none if the stream ends first. What is heard meanwhile goes to `early`.
    fn describe(&self, early: &mut Vec<Event>) -> Option<Vec<TrackDescription>> {
        let mut rests = Rests::default();
        loop {
            let now = self.anchor.monotonic();
            rests.begin(now);
            match probe_audio(&self.ffmpeg, &self.plan.renditions, &self.probes) {
                Ok(descriptions) => return Some(descriptions),
                Err(error) => {
                    let rest = rests.rest(now, rests::FIRST);
                    tracing::error!(stream = %self.stream, %error, retry_in = ?rest, "the audio encoder can't be used, and the stream waits for it");
                    let status = AudioStatus {
                        source: self.source.clone(),
                        detail: Some(error.to_string()),
                        ..AudioStatus::default()
                    };
                    if !(self.tell)(AudioNews::Status(status)) {
                        return None;
                    }
                    match self.post.events.recv_timeout(rest) {
                        Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                        Ok(event) => early.push(event),
                        Err(RecvTimeoutError::Timeout) => {}
                    }
                }
            }
        }
    }

    fn obey(&self, state: &mut State, event: Event) {
        match event {
            Event::Stop => state.over = true,
            Event::Order(order) => self.go_on(state, &order),
            Event::End(end) => self.end_at(state, end),
            Event::Inlet(inlet) => state.supply.begin(inlet),
            Event::Without(why) => state.supply.without(why),
            Event::Encoder { run, event } if run == state.run => match event {
                AudioEvent::Frame { track, frame, data } => self.take(state, track, frame, data),
                AudioEvent::Failed(error) => {
                    self.encoder_ended(state, &format!("its output can't be used: {error}"));
                }
                // It was asked to, at the recording's end.
                AudioEvent::Exited(_) if state.has_all() => state.encoder = None,
                AudioEvent::Exited(how) => self.encoder_ended(state, &how),
            },
            // One that was replaced has nothing more to say.
            Event::Encoder { .. } => {}
        }
    }

    fn go_on(&self, state: &mut State, order: &Order) {
        state.generation = order.generation;
        state.encoder = None;
        state.run += 1;
        state.packagers = order
            .tracks
            .iter()
            .enumerate()
            .map(|(track, (grid, next, first))| match first {
                true => TrackPackager::start_at(track, *grid, *next),
                false => TrackPackager::continue_at(track, *grid, *next),
            })
            .collect();
        state.ready = order.tracks.iter().map(|_| VecDeque::new()).collect();
        let first = state.first_sample();
        if let Place::Recorded(_) = &state.place
            && !(state.timeline.first()..=state.timeline.end()).contains(&first)
        {
            state.timeline = Timeline::new(first);
        }
    }

    /// The recording ends before sample `end`: so many frames are made of it.
    fn end_at(&self, state: &mut State, end: u64) {
        let frames = state.descriptions.iter();
        let frames = frames.map(|track| end.div_ceil(u64::from(track.sample_duration())));
        state.end = Some(End {
            frames: frames.map(Tick).collect(),
            fed: end + FLUSH,
            told: false,
        });
        if let Place::Recorded(recorded) = &mut state.place {
            recorded.end_at(end);
        }
        if state.packagers.is_empty() {
            // Nothing was published, so there is nothing to end.
            state.over |= !(self.tell)(AudioNews::Whole);
        }
    }

    fn take(&self, state: &mut State, track: usize, frame: Tick, data: Bytes) {
        let Some(next) = state.next_frame(track) else {
            return;
        };
        if frame < next {
            // The frames that an encoder is begun early for, and those that the one before has returned.
            return;
        }
        if let Some(running) = &mut state.encoder {
            running.progress = self.anchor.monotonic();
        }
        if matches!(state.place, Place::Live(_)) {
            return self.publish(state, track, frame, data);
        }
        if frame > next {
            return self.encoder_ended(state, "frames are missing from what it returns");
        }
        if let Some(ready) = state.ready.get_mut(track) {
            ready.push_back(data);
        }
    }

    /// Publishes what a recording's pictures have come to, and at its end the rest.
    fn package(&self, state: &mut State) {
        let Some(beside) = &self.beside else { return };
        let video = beside.video();
        let frames: Vec<u64> = state.frames().collect();
        for (track, frame) in frames.into_iter().enumerate() {
            let end = state.end.as_ref().map(|end| end.frames[track]);
            loop {
                let next = state.packagers[track].next_tick();
                let due = match end {
                    Some(end) => next < end,
                    None => next.0.saturating_add(1).saturating_mul(frame) <= video,
                };
                if !due {
                    break;
                }
                let Some(data) = state.ready[track].pop_front() else {
                    break;
                };
                self.publish(state, track, next, data);
            }
        }
        self.conclude(state);
    }

    /// Tells that a recording's sound is whole, once it is.
    fn conclude(&self, state: &mut State) {
        let Some(end) = state.end.as_mut().filter(|end| !end.told) else {
            return;
        };
        let made = state.packagers.iter().map(TrackPackager::next_tick);
        if !made.zip(&end.frames).all(|(next, end)| next >= *end) {
            return;
        }
        end.told = true;
        state.encoder = None;
        state.run += 1;
        let generation = state.generation;
        for (track, packager) in state.packagers.iter_mut().enumerate() {
            if let Some(part) = packager.flush() {
                state.over |= !(self.tell)(AudioNews::Part {
                    generation,
                    track,
                    part,
                });
            }
        }
        state.over |= !(self.tell)(AudioNews::Whole);
    }

    /// Gives a frame to its packager, and what that makes of it to the owner.
    fn publish(&self, state: &mut State, track: usize, frame: Tick, data: Bytes) {
        let (Some(packager), Some(description)) = (
            state.packagers.get_mut(track),
            state.descriptions.get(track),
        ) else {
            return;
        };
        let duration = description.sample_duration();
        let sample = Sample {
            track,
            decode_time: frame.0.saturating_mul(u64::from(duration)),
            duration,
            composition_offset: 0,
            keyframe: true,
            data,
        };
        match packager.push(sample) {
            Ok(None) => {}
            Ok(Some(part)) => {
                let generation = state.generation;
                state.over |= !(self.tell)(AudioNews::Part {
                    generation,
                    track,
                    part,
                });
            }
            Err(error) => self.encoder_ended(state, &error.to_string()),
        }
    }

    fn encoder_ended(&self, state: &mut State, why: &str) {
        if state.encoder.take().is_none() {
            return;
        }
        state.run += 1;
        let now = self.anchor.monotonic();
        let rest = state.encoder_rests.rest(now, Duration::ZERO);
        state.status.encoder_restarts += 1;
        tracing::warn!(stream = %self.stream, retry_in = ?rest, "the audio encoder ended and is started again: {why}");
    }

    /// Places what has come.
    fn tend_supply(&self, state: &mut State, now: MonotonicTime) {
        let tidings = state.supply.tend(now);
        let lock = match &mut state.place {
            Place::Live(lock) => lock,
            Place::Recorded(recorded) => {
                if tidings.begun {
                    recorded.begin(state.supply.kind(), state.timeline.end());
                }
                for (arrival, _) in tidings.arrivals {
                    recorded.arrived(arrival.received, arrival.moment.captured);
                }
                return;
            }
        };
        if tidings.begun {
            **lock = new_lock();
        }
        for (arrival, held_back) in tidings.arrivals {
            let moment = arrival.moment;
            let place = |at| {
                let shown = self.anchor.to_unix(at).as_nanos() + self.picture_lag.get();
                shown as f64 * 48e-6
            };
            let came = place(moment.came);
            let received = arrival.received;
            match moment.captured {
                Some(captured) => lock.timed(received, place(captured), came),
                None => lock.arrived(received, came, held_back),
            }
        }
        if tidings.ended {
            lock.ended();
        }
    }

    /// Brings the timeline up to now, less what the source is late.
    fn extend(&self, state: &mut State, now: MonotonicTime) {
        let returned = state.returned();
        let lock = match &mut state.place {
            Place::Live(lock) => lock,
            Place::Recorded(recorded) => {
                let (timeline, supply) = (&mut state.timeline, &mut state.supply);
                recorded.extend(timeline, supply, returned, now);
                if let Some(end) = &state.end {
                    recorded.pad(timeline, end.fed);
                }
                return;
            }
        };
        let until = sample_at(self.anchor.to_unix(now)).saturating_sub(lock.delay());
        if until.saturating_sub(state.timeline.end()) > MISSED {
            state.timeline = Timeline::new(until - BLOCK);
        }
        let held_back = state.supply.is_held_back(now);
        let mut block = Vec::new();
        while state.timeline.end() < until {
            let from = state.timeline.end();
            let to = until.min(from + BLOCK);
            block.clear();
            let supply = &state.supply;
            lock.fill(&mut block, from, to, held_back, |most, resampler| {
                supply.take(most, |sound| resampler.push(sound))
            });
            state.timeline.push(&block);
        }
    }

    fn feed(&self, state: &mut State, now: MonotonicTime) {
        if state.encoder.is_none() && !state.has_all() && state.encoder_rests.are_over(now) {
            self.start_encoder(state, now);
        }
        let returned = state.returned();
        let Some(running) = &mut state.encoder else {
            return;
        };
        let end = state.timeline.end();
        while running.fed < end {
            let to = end.min(running.fed + BLOCK);
            if !running.encoder.feed(state.timeline.get(running.fed, to)) {
                break;
            }
            running.fed = to;
        }
        if state.end.as_ref().is_some_and(|end| running.fed >= end.fed) {
            // It gives back what it has, and ends.
            running.encoder.finish();
        }
        let waiting = running.fed.saturating_sub(returned);
        if waiting < u64::from(SAMPLE_RATE.get()) / 2 {
            running.progress = now;
        } else if now.saturating_since(running.progress) > STALL {
            self.encoder_ended(state, &format!("it returns nothing in {STALL:?}"));
        }
    }

    fn start_encoder(&self, state: &mut State, now: MonotonicTime) {
        let first = state.first_sample();
        for packager in &mut state.packagers {
            packager.encoder_restarted();
        }
        state.run += 1;
        let (run, sender) = (state.run, self.post.sender.clone());
        let events = move |event| drop(sender.send(Event::Encoder { run, event }));
        state.encoder_rests.begin(now);
        let started = AudioEncoder::start(
            &self.ffmpeg,
            &self.plan.renditions,
            &state.descriptions,
            first,
            events,
        );
        match started {
            Ok(encoder) => {
                tracing::debug!(stream = %self.stream, pid = encoder.pid(), "audio encoder started");
                state.status.encoder_pid = Some(encoder.pid());
                state.fault = None;
                state.encoder = Some(Running {
                    encoder,
                    fed: first,
                    progress: now,
                });
            }
            Err(error) => {
                let rest = state.encoder_rests.rest(now, rests::FIRST);
                tracing::error!(stream = %self.stream, %error, retry_in = ?rest, "the audio encoder does not start");
                state.fault = Some(error.to_string());
            }
        }
    }

    fn report(&self, state: &mut State, now: MonotonicTime) {
        if now.saturating_since(state.told) < STATUS_EVERY {
            return;
        }
        state.told = now;
        let status = &mut state.status;
        state.supply.report(status, state.fault.as_ref(), now);
        if let Place::Live(lock) = &state.place {
            status.drift_ppm = (lock.drift() * 1e7).round() / 10.0;
            status.jumps = lock.jumps();
        }
        state.over |= !(self.tell)(AudioNews::Status(status.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_count_from_the_epoch() {
        let time = UnixTime::from_nanos(1_800_000_000_000_020_834);
        assert_eq!(sample_at(time), 48_000 * 1_800_000_000 + 1);
    }
}
