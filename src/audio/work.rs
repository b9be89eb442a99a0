//! The thread that makes a stream's sound. It turns a hundred times a second: takes what the source gives, places it on the timeline, and feeds the encoder
//! what the timeline has. An encoder that dies is replaced by one that is given the same sound again.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use bytes::Bytes;

use super::lock::Lock;
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
    pub(crate) ffmpeg: Arc<FfmpegInfo>,
    pub(crate) probes: Arc<ProbeCache>,
    pub(crate) anchor: Anchor,
    pub(crate) post: AudioPost,
    /// How long after its capture the picture is shown: the sound is as late.
    pub(crate) picture_lag: Arc<Count>,
    /// Tells the owner; false once there is none.
    pub(crate) tell: F,
}

struct State {
    descriptions: Vec<TrackDescription>,
    timeline: Timeline,
    supply: Supply,
    lock: Lock,
    generation: u64,
    packagers: Vec<TrackPackager>,
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

/// The sample that is heard at `time`.
fn sample_at(time: UnixTime) -> u64 {
    let samples = u128::from(time.as_nanos()) * u128::from(SAMPLE_RATE.get()) / 1_000_000_000;
    u64::try_from(samples).unwrap_or(u64::MAX)
}

impl<F: Fn(AudioNews) -> bool> Work<F> {
    /// Runs until the owner has ended.
    pub(crate) fn run(self) {
        let Some(descriptions) = self.describe() else {
            return;
        };
        let mut state = State {
            over: !(self.tell)(AudioNews::Described(descriptions.clone())),
            descriptions,
            timeline: Timeline::new(sample_at(self.anchor.now())),
            supply: Supply::new(&self.stream, &self.plan, &self.ffmpeg.path, &self.anchor),
            lock: Lock::new(Resampler::new(SAMPLE_RATE)),
            generation: 0,
            packagers: Vec::new(),
            run: 0,
            encoder: None,
            encoder_rests: Rests::default(),
            fault: None,
            status: AudioStatus {
                source: self.plan.shown(),
                ..AudioStatus::default()
            },
            told: MonotonicTime(0),
        };
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
            self.report(&mut state, now);
        }
    }

    /// What each rendition is encoded as, tried until it is known; none if the stream ends first.
    fn describe(&self) -> Option<Vec<TrackDescription>> {
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
                        source: self.plan.shown(),
                        detail: Some(error.to_string()),
                        ..AudioStatus::default()
                    };
                    if !(self.tell)(AudioNews::Status(status)) {
                        return None;
                    }
                    match self.post.events.recv_timeout(rest) {
                        Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
                        Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                    }
                }
            }
        }
    }

    fn obey(&self, state: &mut State, event: Event) {
        match event {
            Event::Stop => state.over = true,
            Event::Order(order) => self.go_on(state, &order),
            Event::Inlet(inlet) => state.supply.begin(inlet),
            Event::Encoder { run, event } if run == state.run => match event {
                AudioEvent::Frame { track, frame, data } => self.take(state, track, frame, data),
                AudioEvent::Failed(error) => {
                    self.encoder_ended(state, &format!("its output can't be used: {error}"));
                }
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
    }

    fn take(&self, state: &mut State, track: usize, frame: Tick, data: Bytes) {
        let (Some(packager), Some(description)) = (
            state.packagers.get_mut(track),
            state.descriptions.get(track),
        ) else {
            return;
        };
        if frame < packager.next_tick() {
            // The frames that an encoder is begun early for, and those that the one before has returned.
            return;
        }
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
            Ok(part) => {
                if let Some(running) = &mut state.encoder {
                    running.progress = self.anchor.monotonic();
                }
                let Some(part) = part else { return };
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
        if tidings.begun {
            state.lock = Lock::new(Resampler::new(state.supply.rate()));
        }
        for (arrival, held_back) in tidings.arrivals {
            let moment = arrival.moment;
            let at = moment.captured.unwrap_or(moment.came);
            let shown = self.anchor.to_unix(at).as_nanos() + self.picture_lag.get();
            let at_samples = shown as f64 * 48e-6;
            let after = moment.came.saturating_since(at).as_secs_f64();
            state.lock.comes_after(after * f64::from(SAMPLE_RATE.get()));
            state.lock.arrived(arrival.received, at_samples, held_back);
        }
        if tidings.ended {
            state.lock.ended();
        }
    }

    /// Brings the timeline up to now, less what the source is late.
    fn extend(&self, state: &mut State, now: MonotonicTime) {
        let until = sample_at(self.anchor.to_unix(now)).saturating_sub(state.lock.delay());
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
            state
                .lock
                .fill(&mut block, from, to, held_back, |most, resampler| {
                    supply.take(most, resampler)
                });
            state.timeline.push(&block);
        }
    }

    fn feed(&self, state: &mut State, now: MonotonicTime) {
        if state.encoder.is_none() && state.encoder_rests.are_over(now) {
            self.start_encoder(state, now);
        }
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
        let tracks = state.packagers.iter().zip(&state.descriptions);
        let returned = tracks
            .map(|(packager, description)| {
                let frame = u64::from(description.sample_duration());
                packager.next_tick().0.saturating_mul(frame)
            })
            .min();
        let waiting = running.fed.saturating_sub(returned.unwrap_or(0));
        if waiting < u64::from(SAMPLE_RATE.get()) / 2 {
            running.progress = now;
        } else if now.saturating_since(running.progress) > STALL {
            self.encoder_ended(state, &format!("it returns nothing in {STALL:?}"));
        }
    }

    fn start_encoder(&self, state: &mut State, now: MonotonicTime) {
        let next: Vec<Tick> = state
            .packagers
            .iter()
            .map(TrackPackager::next_tick)
            .collect();
        let formats: Vec<_> = state.descriptions.iter().filter_map(|d| d.audio).collect();
        let first = start_sample(&formats, &next);
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
        status.drift_ppm = (state.lock.drift() * 1e7).round() / 10.0;
        status.jumps = state.lock.jumps();
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
