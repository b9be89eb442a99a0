//! What stands for the sound while its encoder fails again and again: silence, which takes no encoder. Players wait for the sound as they do for the
//! pictures, and would stand still without.

use bytes::Bytes;

use super::{Place, State, Work};
use crate::audio::AudioNews;
use crate::encode::audio::silent_frame;

/// What is later than this is waited for no longer, in samples: until then it is kept for an encoder that works.
const LATE: u64 = 5 * 48_000;
/// The same where encoders have failed too often, and another one is tried.
const LATE_AT_A_TRY: u64 = 24_000;
/// So many frames of each track are made at one turn: seconds of them.
const AT_ONCE: usize = 256;

impl State {
    /// How late sound may be, in samples; none unless its encoder has failed, and the one after it has returned nothing.
    fn bound_of_lateness(&self) -> Option<u64> {
        let late = match (&self.encoder, self.breaker.is_open()) {
            (Some(running), _) if running.has_returned() => return None,
            (_, false) if self.breaker.in_a_row() == 0 => return None,
            (_, false) => LATE,
            (Some(_), true) => LATE_AT_A_TRY,
            (None, true) => 0,
        };
        Some(late)
    }
}

impl<F: Fn(AudioNews) -> bool> Work<F> {
    /// Publishes silence in place of frames that are too late to be waited for. In a recording nothing is.
    pub(super) fn publish_silence(&self, state: &mut State) {
        let (Place::Live(_), Some(late)) = (&state.place, state.bound_of_lateness()) else {
            return;
        };
        let until = state.timeline.end().saturating_sub(late);
        let frames: Vec<u64> = state.frames().collect();
        for (track, frame) in frames.into_iter().enumerate() {
            let plan = self.plan.renditions.get(track);
            let Some(silence) = plan.and_then(|plan| silent_frame(plan.codec)) else {
                continue;
            };
            for _ in 0..AT_ONCE {
                let Some(next) = state.next_frame(track) else {
                    break;
                };
                if next.next().0.saturating_mul(frame) > until || state.over {
                    break;
                }
                self.note_silence(state);
                let silence = Bytes::from_static(silence);
                if self.publish(state, track, next, silence).is_err() {
                    // There is no memory for it: it is tried again at the next turn.
                    break;
                }
            }
        }
        state.expect_after_silence();
    }

    fn note_silence(&self, state: &mut State) {
        if std::mem::replace(&mut state.silent, true) {
            return;
        }
        tracing::warn!(stream = %self.stream, "silence stands for the sound until its encoder runs again");
        let why = || "the audio encoder returns nothing".to_owned();
        state.fault.get_or_insert_with(why);
    }
}
