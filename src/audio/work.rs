//! The thread that makes a stream's sound. It turns a hundred times a second: takes what the source gives, places it on the timeline, and feeds the encoder
//! what the timeline has. An encoder that dies is replaced by one that is given the same sound again.

mod encoder;
mod frames;
mod lag;
mod silence;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::lock::Lock;
use super::post::Mail;
use super::recorded::{Beside, Recorded};
use super::resample::Resampler;
use super::supply::Supply;
use super::timeline::Timeline;
use super::{AudioNews, AudioPost, Capture};
use crate::clock::{Anchor, MonotonicTime};
use crate::config::{AudioPlan, BreakerPlan};
use crate::encode::audio::{AudioEvent, probe_audio};
use crate::encode::{Breaker, FfmpegInfo, ProbeCache};
use crate::faults;
use crate::ingest::Count;
use crate::package::TrackPackager;
use crate::sample::TrackDescription;
use crate::status::AudioStatus;
use crate::tick::{SAMPLE_RATE, UnixTime};
use encoder::Running;
use frames::End;
use lag::PictureLag;

const TURN: Duration = Duration::from_millis(10);
/// So much sound is placed or fed at once.
const BLOCK: u64 = 4800;
/// The sound of more time than this was missed: it is silence.
const MISSED: u64 = 10 * 48_000;
const STATUS_EVERY: Duration = Duration::from_secs(1);

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
    /// How long the encoder may return nothing, beyond its usual delay.
    pub(crate) encoder_timeout: Duration,
    /// When an encoder that fails is started again.
    pub(crate) breaker: BreakerPlan,
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
    lag: PictureLag,
    generation: u64,
    packagers: Vec<TrackPackager>,
    /// How many frames a part of each track has.
    part_frames: Vec<u64>,
    /// Of a recording: frames that its pictures have not come to, by track, the first of them following on those that the packager has.
    ready: Vec<VecDeque<Bytes>>,
    /// Of a recording that ends: what is there is all.
    end: Option<End>,
    /// Counts the encoder's runs, so that one that was replaced is not listened to.
    run: u64,
    encoder: Option<Running>,
    breaker: Breaker,
    /// When there may be another encoder.
    next_start: MonotonicTime,
    /// The longest that the encoder took to return a sample, slowly forgotten.
    delay: Duration,
    /// Why there is no encoder, or none that works.
    fault: Option<String>,
    /// Silence stands for what the encoder has not returned.
    silent: bool,
    status: AudioStatus,
    told: MonotonicTime,
    over: bool,
}

/// How the place of sound is found.
enum Place {
    Live(Box<Lock>),
    Recorded(Recorded),
}

/// The sample that is heard at `time`.
fn sample_at(time: UnixTime) -> u64 {
    let samples = u128::from(time.as_nanos()) * u128::from(SAMPLE_RATE.get()) / 1_000_000_000;
    u64::try_from(samples).unwrap_or(u64::MAX)
}

impl<F: Fn(AudioNews) -> bool> Work<F> {
    /// Runs until the owner has ended.
    pub(crate) fn run(self) {
        let mut breaker = Breaker::new(self.breaker, &self.stream);
        let Some(descriptions) = self.describe(&mut breaker) else {
            return;
        };
        let mut state = State {
            over: !(self.tell)(AudioNews::Described(descriptions.clone())),
            descriptions,
            timeline: self.timeline(sample_at(self.anchor.now())),
            supply: match &self.beside {
                None => self.supply(),
                Some(_) => self.supply().recorded(),
            },
            place: match &self.beside {
                None => Place::Live(Box::new(Lock::new(Resampler::new(SAMPLE_RATE)))),
                Some(beside) => {
                    let now = self.anchor.monotonic();
                    Place::Recorded(Recorded::new(Arc::clone(beside), now))
                }
            },
            lag: PictureLag::default(),
            ready: Vec::new(),
            end: None,
            generation: 0,
            packagers: Vec::new(),
            part_frames: Vec::new(),
            run: 0,
            encoder: None,
            breaker,
            next_start: MonotonicTime(0),
            delay: Duration::ZERO,
            fault: None,
            silent: false,
            status: AudioStatus {
                source: self.source.clone(),
                ..AudioStatus::default()
            },
            told: MonotonicTime(0),
        };
        while !state.over {
            faults::point("audio", &self.stream);
            let Some(mail) = self.post.collect(TURN) else {
                return;
            };
            self.obey(&mut state, mail);
            if state.packagers.is_empty() {
                // Nothing is published yet, so nobody has to be heard.
                continue;
            }
            let now = self.anchor.monotonic();
            self.tend_supply(&mut state, now);
            self.extend(&mut state, now);
            self.feed(&mut state, now);
            self.publish_silence(&mut state);
            self.package(&mut state);
            self.report(&mut state, now);
        }
    }

    /// What each rendition is encoded as, tried until it is known; none if the stream ends first.
    fn describe(&self, breaker: &mut Breaker) -> Option<Vec<TrackDescription>> {
        loop {
            match probe_audio(&self.ffmpeg, &self.plan.renditions, &self.probes) {
                Ok(descriptions) => {
                    breaker.worked();
                    return Some(descriptions);
                }
                Err(error) => {
                    let rest = breaker.failed(self.anchor.monotonic());
                    tracing::error!(stream = %self.stream, %error, retry_in = ?rest, "the audio encoder can't be used, and the stream waits for it");
                    let cause = breaker.told(error.to_string());
                    let status = AudioStatus {
                        source: self.source.clone(),
                        detail: Some(cause.clone()),
                        ..AudioStatus::default()
                    };
                    let told = (self.tell)(AudioNews::Status(status))
                        && (self.tell)(AudioNews::Undescribed(cause));
                    if !told || !self.post.rest(rest) {
                        return None;
                    }
                }
            }
        }
    }

    fn obey(&self, state: &mut State, mail: Mail) {
        if let Some(order) = mail.order {
            self.go_on(state, &order);
        }
        if let Some(end) = mail.end {
            self.end_at(state, end);
        }
        if let Some(why) = mail.without {
            state.supply.without(why);
        }
        for inlet in mail.inlets {
            state.supply.begin(inlet);
        }
        (0..mail.left_out).for_each(|_| state.supply.tell_left_out());
        for (run, event) in mail.returned {
            // One that was replaced has nothing more to say.
            if run == state.run {
                self.heed(state, event);
            }
        }
    }

    /// Heeds what the running encoder says.
    fn heed(&self, state: &mut State, event: AudioEvent) {
        match event {
            AudioEvent::Frame { track, frame, data } => self.take(state, track, frame, data),
            AudioEvent::Failed(error) => {
                self.kill_encoder(state, format!("its output can't be used: {error}"));
            }
            // It was asked to, at the recording's end.
            AudioEvent::Exited(_) if state.has_all() => state.encoder = None,
            AudioEvent::Exited(how) => self.encoder_ended(state, &how),
        }
    }

    fn supply(&self) -> Supply {
        Supply::new(&self.stream, &self.plan, &self.ffmpeg.path, &self.anchor)
    }

    /// An empty timeline that begins at sample `end`.
    fn timeline(&self, end: u64) -> Timeline {
        Timeline::new(end, encoder::kept_for(self.encoder_timeout))
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
                    recorded.arrived(arrival.received, arrival.moment.captured.time());
                }
                return;
            }
        };
        if tidings.begun {
            **lock = Lock::new(Resampler::new(state.supply.rate()));
        }
        if let Some(nanos) = state.lag.follow(self.picture_lag.get(), now) {
            lock.move_by(nanos as f64 * 48e-6);
        }
        let lag = state.lag.nanos();
        for (arrival, held_back) in tidings.arrivals {
            let moment = arrival.moment;
            let place = |at| (self.anchor.to_unix(at).as_nanos() + lag) as f64 * 48e-6;
            let came = place(moment.came);
            let received = arrival.received;
            match moment.captured {
                Capture::Unknown => lock.arrived(received, came, held_back),
                Capture::Told(at) => {
                    let at = place(at);
                    lock.comes_after(came - at);
                    lock.arrived(received, at, held_back);
                }
                Capture::Known(at) => lock.timed(received, place(at), came),
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
            state.timeline = self.timeline(until - BLOCK);
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

    fn report(&self, state: &mut State, now: MonotonicTime) {
        if now.saturating_since(state.told) < STATUS_EVERY {
            return;
        }
        state.told = now;
        let status = &mut state.status;
        state.supply.report(status, state.fault.as_ref(), now);
        status.playing &= !state.silent;
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
