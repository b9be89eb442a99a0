//! Where a source's sound belongs in time. Its clock is never quite ours: by 100 ppm, an hour's sound ends a third of a second early or late. So each
//! arrival is measured against the place that its sound was given, and the sound is made a little faster or slower until both agree and stay so.
//! Pure: times are arguments.
//!
//! Sound arrives late by chance but never early, so of all arrivals in a second the earliest tells the truth. A control loop with a proportional and
//! an integral part brings that one to zero: what is left of an offset goes within half a minute, and what the integral holds is the drift of the
//! source's clock. A source that is held back, as a file is, has no clock of its own: it is taken at ours, bit for bit.

use super::Pcm;
use super::resample::Resampler;

/// Samples per second.
const RATE: f64 = 48_000.0;
/// An observation lasts so long, in samples.
const WINDOW: f64 = RATE;
/// The correction for each second of error.
const PROPORTIONAL: f64 = 0.05;
/// What that adds up to in each second: critically damped.
const INTEGRAL: f64 = PROPORTIONAL * PROPORTIONAL / 4.0;
/// The largest correction: no ear hears it, and no clock drifts so far.
const MOST: f64 = 2e-3;
/// A larger error than this is no drift: the sound is moved at once.
const JUMP: f64 = 0.08 * RATE;
/// Sound that comes so much too late may have been held up on its way, by a machine that is busy: its place changes once that was observed so often in a row, the second
/// figure while it settles. What comes too early was late before.
const BELIEVED: (u32, u32) = (3, 2);
/// So is a smaller one in the first observations, whose first arrival may have been late.
const SETTLING: (u32, f64) = (3, 0.003 * RATE);
/// The same of sound whose place is known, where nothing has to be guessed.
const KNOWN: f64 = 0.02 * RATE;
/// A source from which nothing has come for so long begins anew.
const SILENT: f64 = 2.0 * RATE;
/// The least and the most that sound may be late for its place, in samples: it is waited for so long before silence takes its place.
const DELAYS: (f64, f64) = (0.04 * RATE, 1.5 * RATE);
/// On top of what the latest sound has needed.
const MARGIN: f64 = 0.01 * RATE;
/// What of a delay that is no longer needed is left after a second.
const FORGET: f64 = 0.98;

/// Places one source's sound on the stream's grid of samples.
pub(super) struct Lock {
    resampler: Resampler,
    /// How many samples of input the resampler has been given.
    taken: u64,
    /// How many had been received at the arrival before.
    received: u64,
    /// The place of the next sample; none until something arrives.
    next: Option<f64>,
    /// The earliest arrival of the observation under way against its place.
    earliest: f64,
    /// When the observation under way began, and the newest arrival was.
    began: f64,
    newest: f64,
    /// How many observations there were since the sound was last moved.
    observations: u32,
    /// How many of the last ones in a row were much too late.
    held_up: u32,
    /// The drift of the source's clock, by the loop's integral.
    drift: f64,
    /// How late sound is for its place.
    needed: f64,
    /// How long after its capture it comes, where that is known.
    after: f64,
    /// How often the sound was moved at once after it had settled.
    jumps: u64,
}

impl Lock {
    /// One for the sound that `resampler` is given.
    pub(super) fn new(resampler: Resampler) -> Self {
        Self {
            resampler,
            taken: 0,
            received: 0,
            next: None,
            earliest: f64::INFINITY,
            began: 0.0,
            newest: 0.0,
            observations: 0,
            held_up: 0,
            drift: 0.0,
            needed: 0.0,
            after: 0.0,
            jumps: 0,
        }
    }

    /// How long sound is waited for, in samples.
    pub(super) fn delay(&self) -> u64 {
        let delay = (self.needed + self.after + MARGIN).clamp(DELAYS.0, DELAYS.1);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let delay = delay as u64;
        delay
    }

    /// How much faster than nominal the source's clock runs: 0.0001 for 100 ppm.
    pub(super) fn drift(&self) -> f64 {
        self.drift
    }

    /// How often the sound was moved by more than a drift can be.
    pub(super) fn jumps(&self) -> u64 {
        self.jumps
    }

    /// Sound has come so many samples after it was captured: by that it is late for its place, whatever its capture time says.
    pub(super) fn comes_after(&mut self, samples: f64) {
        self.after = self.after.max(samples);
    }

    /// `received` samples have come since the start, the last of them at `at`, in samples since the epoch. `held_back`: the source would have given
    /// them sooner.
    pub(super) fn arrived(&mut self, received: u64, at: f64, held_back: bool) {
        let chunk = self
            .resampler
            .outputs_of(received.saturating_sub(self.received));
        self.received = received;
        if self.next.is_some() && at - self.newest > SILENT && !held_back {
            self.next = None;
        }
        self.newest = at;
        let waiting = self
            .resampler
            .outputs_of(received.saturating_sub(self.taken));
        let ahead = self.resampler.ahead() + waiting;
        let Some(next) = self.next else {
            self.next = Some(at - ahead);
            self.begin(at);
            self.observations = 0;
            self.needed = self.needed.max(chunk);
            return;
        };
        if held_back {
            self.resampler.correct(0.0);
            self.drift = 0.0;
            self.needed = 0.0;
            self.begin(at);
            return;
        }
        let late = at - (next + ahead);
        self.earliest = self.earliest.min(late);
        if late < JUMP {
            self.needed = self.needed.max(late + chunk);
        }
        if at - self.began >= WINDOW {
            self.observe(next, at);
        }
    }

    /// The same of sound whose place is known: its last sample belongs at `at`, and has come at `came`.
    pub(super) fn timed(&mut self, received: u64, at: f64, came: f64) {
        let chunk = self
            .resampler
            .outputs_of(received.saturating_sub(self.received));
        self.received = received;
        self.newest = at;
        self.needed = self.needed.max(came - at + chunk);
        let waiting = self
            .resampler
            .outputs_of(received.saturating_sub(self.taken));
        let place = at - self.resampler.ahead() - waiting;
        let error = self.next.map(|next| place - next);
        match error {
            Some(error) if error.abs() <= KNOWN => {
                if at - self.began >= WINDOW {
                    self.correct(error, at);
                }
            }
            other => {
                self.jumps += u64::from(other.is_some() && self.observations >= SETTLING.0);
                self.next = Some(place);
                self.observations = 0;
                self.resampler.correct(self.drift);
                self.begin(at);
            }
        }
    }

    /// All that comes belongs so many samples later than what has come, or earlier: it is placed so at once.
    pub(super) fn move_by(&mut self, samples: f64) {
        if let Some(next) = &mut self.next {
            *next += samples;
            self.newest += samples;
            self.begin(self.newest);
        }
    }

    fn begin(&mut self, at: f64) {
        self.began = at;
        self.earliest = f64::INFINITY;
    }

    /// An observation is over: by so much less may sound be late from now on.
    fn forget(&mut self) {
        self.needed *= FORGET;
        self.after *= FORGET;
    }

    fn observe(&mut self, next: f64, at: f64) {
        let error = self.earliest;
        let settling = self.observations < SETTLING.0;
        if error.abs() > JUMP || settling && error.abs() > SETTLING.1 {
            self.held_up += 1;
            self.forget();
            self.begin(at);
            let believed = if settling { BELIEVED.1 } else { BELIEVED.0 };
            if error > 0.0 && self.held_up < believed {
                return;
            }
            self.held_up = 0;
            self.next = Some(next + error);
            self.jumps += u64::from(!settling);
            self.needed = (self.needed - error).max(0.0);
            self.observations = 0;
            return;
        }
        self.held_up = 0;
        self.correct(error, at);
    }

    /// Brings what is left of an error in the observation that ends at `at` to nothing.
    fn correct(&mut self, error: f64, at: f64) {
        let seconds = (at - self.began) / RATE;
        self.begin(at);
        self.forget();
        self.observations = self.observations.saturating_add(1);
        // Sound that comes later than its place is too early there: it has to be made slower.
        let error = error / RATE;
        self.drift = (self.drift - INTEGRAL * error * seconds).clamp(-MOST, MOST);
        let correction = self.drift - PROPORTIONAL * error;
        self.resampler.correct(correction.clamp(-MOST, MOST));
    }

    /// Appends to `out` what belongs from sample `from` to before `to`, `more` giving up to so many samples of input: silence where nothing is there.
    pub(super) fn fill(
        &mut self,
        out: &mut Vec<Pcm>,
        from: u64,
        to: u64,
        held_back: bool,
        mut more: impl FnMut(usize, &mut Resampler) -> usize,
    ) {
        let length = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        let end = out.len() + length;
        while out.len() < end {
            let at = (to - (end - out.len()) as u64) as f64;
            let left = end - out.len();
            let Some(next) = self.next else { break };
            if held_back && next < at {
                // It has no place of its own.
                self.next = Some(at);
                continue;
            }
            if next >= at + 1.0 {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let silence = ((next - at) as usize).min(left);
                out.resize(out.len() + silence, [0.0; 2]);
                continue;
            }
            if !self.resampler.is_ready() {
                let given = more(left.max(256), &mut self.resampler);
                self.taken += given as u64;
                if given == 0 {
                    break;
                }
                continue;
            }
            let count = if next < at {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let late = (at - next).ceil() as usize;
                self.resampler.skip(late)
            } else {
                self.resampler.pull(out, left)
            };
            self.next = Some(next + count as f64);
        }
        out.resize(end, [0.0; 2]);
    }

    /// The source has ended: what comes next is another's.
    pub(super) fn ended(&mut self) {
        self.next = None;
    }
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
