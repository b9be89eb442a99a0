//! The encoder's life: started where frames are missing, fed from the timeline, watched, and replaced when it dies or returns nothing.

use std::collections::VecDeque;
use std::time::Duration;

use super::frames::FLUSH;
use super::{BLOCK, State, Work};
use crate::audio::AudioNews;
use crate::clock::MonotonicTime;
use crate::encode::audio::AudioEncoder;
use crate::encode::{Patience, StallWatch, UNKILLABLE, WORKING};
use crate::tick::Tick;

/// An encoder's usual delay is a few frames. What takes longer was late for another reason, and is no measure for the next.
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// How long another encoder takes to start.
const STARTING: Duration = Duration::from_secs(2);
/// An encoder that there was nothing for so long has been at rest: what it returns is awaited from then on that there is something again.
const REST: Duration = Duration::from_millis(100);

/// How long sound is kept for an encoder that may be silent for `encoder_timeout`: until it is given up however slow it is, and another one has started.
pub(super) fn kept_for(encoder_timeout: Duration) -> Duration {
    encoder_timeout + LONGEST_DELAY + WORKING + STARTING
}

/// One run of the encoder.
pub(super) struct Running {
    encoder: AudioEncoder,
    /// Up to before which sample all was returned when it began.
    began: u64,
    /// The sample that it is fed next.
    fed: u64,
    /// The frame of each track that it has to return first.
    first: Vec<Tick>,
    /// When there was last something to feed it.
    busy: MonotonicTime,
    /// Whether it has died without an exit.
    watch: StallWatch,
    /// What it was fed and has not returned: up to before which sample, and when.
    given: VecDeque<(u64, MonotonicTime)>,
    /// When it returned its first new frame.
    returned: Option<MonotonicTime>,
    /// No more sound goes in; its exit is expected.
    finishing: bool,
    /// When it was killed, and why; its exit comes.
    killed: Option<(MonotonicTime, String)>,
}

impl Running {
    pub(super) fn is_killed(&self) -> bool {
        self.killed.is_some()
    }

    /// Whether it has returned anything new.
    pub(super) fn has_returned(&self) -> bool {
        self.returned.is_some()
    }

    /// It has returned something, new or not.
    pub(super) fn progress(&mut self, now: MonotonicTime) {
        self.watch.progress(now);
    }
}

impl State {
    /// Gives the encoder what the timeline has.
    fn give(&mut self, now: MonotonicTime) {
        let Some(running) = self.encoder.as_mut().filter(|one| !one.is_killed()) else {
            return;
        };
        let end = self.timeline.end();
        if running.fed < end {
            if now.saturating_since(running.busy) > REST {
                running.watch.progress(now);
            }
            running.busy = now;
        }
        while running.fed < end {
            let to = end.min(running.fed + BLOCK);
            if !running.encoder.feed(self.timeline.get(running.fed, to)) {
                break;
            }
            running.fed = to;
            running.given.push_back((to, now));
        }
        if !running.finishing && self.end.as_ref().is_some_and(|end| running.fed >= end.fed) {
            // It gives back what it has, and ends.
            running.encoder.finish();
            running.finishing = true;
            running.watch.progress(now);
        }
    }

    /// The encoder has returned a new frame.
    pub(super) fn note_return(&mut self, now: MonotonicTime) {
        let returned = self.returned();
        let Some(running) = &mut self.encoder else {
            return;
        };
        let first = *running.returned.get_or_insert(now);
        self.silent = false;
        while let Some(&(to, given)) = running.given.front()
            && to <= returned
        {
            running.given.pop_front();
            // What was fed while it started has waited for it to start.
            if given >= first {
                let delay = now.saturating_since(given).min(LONGEST_DELAY);
                self.delay = delay.max(self.delay - self.delay / 64);
            }
        }
        if self.breaker.in_a_row() > 0 && self.has_worked() {
            self.breaker.worked();
            self.fault = None;
        }
    }

    /// What silence stands for by now is not the encoder's to return.
    pub(super) fn expect_after_silence(&mut self) {
        let next = self.next_frames();
        if let Some(running) = &mut self.encoder {
            running.first = next;
        }
    }

    /// Whether the encoder has returned a part's length: then its end says nothing against the next.
    fn has_worked(&self) -> bool {
        let Some(running) = self.encoder.as_ref().filter(|one| one.has_returned()) else {
            return false;
        };
        let mut tracks = running.first.iter().zip(&self.part_frames).enumerate();
        tracks.all(|(track, (first, part))| {
            let next = self.next_frame(track);
            next.is_some_and(|next| next.since(*first) >= *part)
        })
    }
}

impl<F: Fn(AudioNews) -> bool> Work<F> {
    /// Gives the encoder what the timeline has, and looks whether it returns anything. Starts one if there is none.
    pub(super) fn feed(&self, state: &mut State, now: MonotonicTime) {
        if state.encoder.is_none() && !state.has_all() && now >= state.next_start {
            self.start_encoder(state, now);
        }
        state.give(now);
        self.watch_for_stall(state, now);
    }

    /// An encoder that was fed and returns nothing, or was asked to end and does not, is as good as dead.
    fn watch_for_stall(&self, state: &mut State, now: MonotonicTime) {
        let returned = state.returned();
        let Some(running) = &mut state.encoder else {
            return;
        };
        if let Some((killed, _)) = &running.killed {
            if now.saturating_since(*killed) > UNKILLABLE {
                running.encoder.leave_behind();
                self.encoder_ended(state, "FFmpeg can't be killed");
            }
            return;
        }
        // Until it has returned anything, what is there is of others.
        let from = match running.returned {
            Some(_) => returned,
            None => running.began,
        };
        let owes = running.fed.saturating_sub(from) > FLUSH;
        if !owes && !running.finishing {
            return;
        }
        let patience = Patience {
            timeout: self.encoder_timeout,
            delay: state.delay,
            under_way: running.returned.is_some() && !running.finishing,
        };
        let encoder = &running.encoder;
        let stall = running.watch.ask(now, patience, || encoder.vitals());
        if let Some(why) = stall {
            let waited = now.saturating_since(running.watch.quiet_since());
            self.kill_encoder(state, format!("it returns nothing in {waited:.1?}: {why}"));
        }
    }

    /// The encoder is of no use any more: its exit comes, and then another one.
    pub(super) fn kill_encoder(&self, state: &mut State, why: String) {
        let Some(running) = state.encoder.as_mut().filter(|one| !one.is_killed()) else {
            return;
        };
        let pid = running.encoder.pid();
        tracing::warn!(stream = %self.stream, pid, "the audio encoder is killed: {why}");
        running.encoder.kill();
        running.killed = Some((self.anchor.monotonic(), why));
    }

    /// The encoder has ended, `how` it says itself: another one is started, after a rest if it has come to nothing again and again.
    pub(super) fn encoder_ended(&self, state: &mut State, how: &str) {
        if state.has_worked() {
            state.breaker.worked();
        }
        let Some(running) = state.encoder.take() else {
            return;
        };
        state.run += 1;
        state.status.encoder_pid = None;
        state.status.encoder_restarts += 1;
        // Why it was killed was known before; what it left on the way out says less.
        let why = running.killed.map_or(how.to_owned(), |(_, why)| why);
        let rest = self.encoder_failed(state, format!("the audio encoder ended: {why}"));
        tracing::warn!(stream = %self.stream, retry_in = ?rest, "the audio encoder ended and is started again: {why}");
    }

    /// How long to rest before the next start: not at all after a first failure, then longer each time.
    fn encoder_failed(&self, state: &mut State, cause: String) -> Duration {
        let now = self.anchor.monotonic();
        let rest = state.breaker.failed(now);
        let nanos = u64::try_from(rest.as_nanos()).unwrap_or(0);
        state.next_start = MonotonicTime(now.0.saturating_add(nanos));
        if state.breaker.in_a_row() > 1 {
            state.fault = Some(state.breaker.told(cause));
        }
        state.told = MonotonicTime(0);
        rest
    }

    fn start_encoder(&self, state: &mut State, now: MonotonicTime) {
        let first = state.first_sample();
        for packager in &mut state.packagers {
            packager.encoder_restarted();
        }
        state.run += 1;
        let (run, slot) = (state.run, self.post.slot());
        let events = move |event| slot.returned(run, event);
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
                state.told = MonotonicTime(0);
                state.encoder = Some(Running {
                    encoder,
                    began: state.returned(),
                    fed: first,
                    first: state.next_frames(),
                    busy: now,
                    watch: StallWatch::new(now),
                    given: VecDeque::new(),
                    returned: None,
                    finishing: false,
                    killed: None,
                });
            }
            Err(error) => {
                let rest = self.encoder_failed(state, error.to_string());
                tracing::error!(stream = %self.stream, %error, retry_in = ?rest, "the audio encoder does not start");
            }
        }
    }
}
