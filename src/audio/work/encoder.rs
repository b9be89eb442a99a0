//! The encoder's life: started where frames are missing, fed from the timeline, and replaced when it dies or returns nothing.

use std::time::Duration;

use super::{BLOCK, Event, State, Work};
use crate::audio::{AudioNews, rests};
use crate::clock::MonotonicTime;
use crate::encode::audio::AudioEncoder;
use crate::tick::SAMPLE_RATE;

/// An encoder that returns nothing for so long of what it was fed is as good as dead.
const STALL: Duration = Duration::from_secs(4);

/// One run of the encoder.
pub(super) struct Running {
    encoder: AudioEncoder,
    /// The sample that it is fed next.
    fed: u64,
    /// When it last returned a frame, or had nothing to return.
    pub(super) progress: MonotonicTime,
}

impl<F: Fn(AudioNews) -> bool> Work<F> {
    /// The encoder is of no use any more: another one is started, after a rest if that happens again and again.
    pub(super) fn encoder_ended(&self, state: &mut State, why: &str) {
        if state.encoder.take().is_none() {
            return;
        }
        state.run += 1;
        let now = self.anchor.monotonic();
        let rest = state.encoder_rests.rest(now, Duration::ZERO);
        state.status.encoder_restarts += 1;
        tracing::warn!(stream = %self.stream, retry_in = ?rest, "the audio encoder ended and is started again: {why}");
    }

    /// Gives the encoder what the timeline has, and looks whether it returns anything.
    pub(super) fn feed(&self, state: &mut State, now: MonotonicTime) {
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
}
