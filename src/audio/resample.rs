//! Resampling by a ratio that may change from one sample to the next, so that a source's clock can be followed: a windowed sinc whose
//! phases lie so close together that between two of them a straight line does. Sound whose rate is right already passes bit for bit.
//!
//! A crate for it would do as well for the sound. This one is written out because the lock needs to know, to a fraction of a sample and at any moment,
//! which input an output was made of; block resamplers keep that to themselves.

use std::num::NonZeroU32;

use super::Pcm;
use crate::tick::SAMPLE_RATE;

/// Zero crossings on each side of the kernel, where the rate is not lowered.
const CROSSINGS: usize = 16;
/// Phases between two input samples.
const PHASES: usize = 256;
/// Of the Kaiser window: about 90 dB down beside the passband.
const BETA: f64 = 9.0;
/// What of the band passes; the rest is the filter's slope.
const PASSBAND: f64 = 0.95;
/// So many samples that were used up may lie in front before they are let go.
const USED_UP: usize = 8192;

/// Turns a source's samples into samples of [`SAMPLE_RATE`].
pub(super) struct Resampler {
    /// Input samples per output sample by the nominal rates.
    base: f64,
    /// The same with the correction.
    step: f64,
    /// Taps on each side.
    half: usize,
    /// For each phase and the one after the last, `2 * half` taps.
    taps: Vec<f32>,
    input: Vec<Pcm>,
    /// Where in `input` the next output sample lies.
    position: f64,
}

impl Resampler {
    /// One for a source of `rate` samples a second.
    pub(super) fn new(rate: NonZeroU32) -> Self {
        Self::with_crossings(rate, CROSSINGS)
    }

    /// The same with a kernel of so many zero crossings on each side.
    pub(super) fn with_crossings(rate: NonZeroU32, crossings: usize) -> Self {
        let base = f64::from(rate.get()) / f64::from(SAMPLE_RATE.get());
        // A lower rate out than in needs a lower cutoff, and so a longer kernel.
        let stretch = base.max(1.0);
        let half = whole((crossings as f64 * stretch).ceil());
        Self {
            base,
            step: base,
            half,
            taps: kernel(half, PASSBAND / stretch),
            input: vec![[0.0; 2]; half],
            position: half as f64,
        }
    }

    /// Makes a sample of output out of `1 + correction` times as much input as by the nominal rates.
    pub(super) fn correct(&mut self, correction: f64) {
        self.step = self.base * (1.0 + correction);
    }

    /// Takes more input.
    pub(super) fn push(&mut self, samples: impl IntoIterator<Item = Pcm>) {
        let used = whole(self.position).saturating_sub(self.half);
        if used > USED_UP {
            self.input.drain(..used);
            self.position -= used as f64;
        }
        self.input.extend(samples);
    }

    /// No more input comes: silence follows, so that all of it can be pulled.
    pub(super) fn finish(&mut self) {
        self.input.resize(self.input.len() + self.half, [0.0; 2]);
    }

    /// Where the first output sample would lie that there is not enough input for.
    fn end(&self) -> f64 {
        self.input.len() as f64 - self.half as f64
    }

    /// Whether there is input for another output sample.
    pub(super) fn is_ready(&self) -> bool {
        self.position < self.end()
    }

    /// How long the input after the next output sample lasts, in output samples.
    pub(super) fn ahead(&self) -> f64 {
        (self.input.len() as f64 - self.position) / self.step
    }

    /// How many output samples `input` more samples of input will make.
    pub(super) fn outputs_of(&self, input: u64) -> f64 {
        input as f64 / self.step
    }

    /// Appends up to `most` samples of output; says how many there were.
    pub(super) fn pull(&mut self, out: &mut Vec<Pcm>, most: usize) -> usize {
        let end = self.end();
        let mut count = 0;
        while count < most && self.position < end {
            out.push(self.sample());
            self.position += self.step;
            count += 1;
        }
        count
    }

    /// Lets up to `most` samples of output go unheard; says how many there were.
    pub(super) fn skip(&mut self, most: usize) -> usize {
        let room = (self.end() - self.position).max(0.0);
        let count = whole((room / self.step).ceil()).min(most);
        self.position += self.step * count as f64;
        count
    }

    fn sample(&self) -> Pcm {
        let at = whole(self.position);
        let between = self.position - at as f64;
        if between == 0.0 && self.step == 1.0 {
            return self.input[at];
        }
        let phase = between * PHASES as f64;
        let lower = whole(phase).min(PHASES - 1);
        // Of a phase's fraction, single precision is plenty.
        #[allow(clippy::cast_possible_truncation)]
        let part = (phase - lower as f64) as f32;
        let width = 2 * self.half;
        let below = &self.taps[lower * width..][..width];
        let above = &self.taps[(lower + 1) * width..][..width];
        let window = &self.input[at + 1 - self.half..][..width];
        let mut sum = [0.0; 2];
        for ((below, above), sample) in below.iter().zip(above).zip(window) {
            let tap = below + part * (above - below);
            sum[0] += tap * sample[0];
            sum[1] += tap * sample[1];
        }
        sum
    }
}

/// A position's whole part; positions are small and never negative.
fn whole(position: f64) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = position as usize;
    whole
}

/// The taps of all phases: tap `i` of phase `p` weighs the sample that lies `i + 1 - half` after the one before the output, which lies `p / PHASES`
/// after it. Each phase's sum is 1, so that silence and a steady tone keep their level.
fn kernel(half: usize, cutoff: f64) -> Vec<f32> {
    let width = 2 * half;
    let mut taps = Vec::with_capacity((PHASES + 1) * width);
    for phase in 0..=PHASES {
        let between = phase as f64 / PHASES as f64;
        let row: Vec<f64> = (0..width)
            .map(|tap| {
                let distance = tap as f64 + 1.0 - half as f64 - between;
                cutoff * sinc(cutoff * distance) * kaiser(distance / half as f64)
            })
            .collect();
        let sum: f64 = row.iter().sum();
        // Taps are heard in single precision.
        #[allow(clippy::cast_possible_truncation)]
        taps.extend(row.iter().map(|tap| (tap / sum) as f32));
    }
    taps
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x.abs() < 1e-9 { 1.0 } else { x.sin() / x }
}

/// The Kaiser window at `x` from -1 to 1.
fn kaiser(x: f64) -> f64 {
    let inside = (1.0 - x * x).max(0.0);
    bessel(BETA * inside.sqrt()) / bessel(BETA)
}

/// The modified Bessel function of order 0, by its series.
fn bessel(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for n in 1..40 {
        let factor = x / (2.0 * f64::from(n));
        term *= factor * factor;
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(rate: u32) -> NonZeroU32 {
        NonZeroU32::new(rate).unwrap()
    }

    fn tone(hertz: f64, rate: u32, count: usize) -> Vec<Pcm> {
        let value = |n: usize| {
            let turns = hertz * n as f64 / f64::from(rate);
            #[allow(clippy::cast_possible_truncation)]
            let value = (turns * std::f64::consts::TAU).sin() as f32;
            [value, -value]
        };
        (0..count).map(value).collect()
    }

    /// How far `sound` is from a tone of `hertz` at 48 kHz, beside its start and end, as a share of full scale.
    fn error(sound: &[Pcm], hertz: f64) -> f32 {
        let wanted = tone(hertz, 48_000, sound.len());
        let inner = 200..sound.len() - 200;
        let differences = sound[inner.clone()].iter().zip(&wanted[inner]);
        differences
            .map(|(a, b)| (a[0] - b[0]).abs().max((a[1] - b[1]).abs()))
            .fold(0.0, f32::max)
    }

    fn resampled(input: &[Pcm], of: u32, correction: f64) -> Vec<Pcm> {
        let mut resampler = Resampler::new(rate(of));
        resampler.correct(correction);
        let mut out = Vec::new();
        for some in input.chunks(317) {
            resampler.push(some.iter().copied());
            resampler.pull(&mut out, usize::MAX);
        }
        out
    }

    #[test]
    fn the_right_rate_passes_bit_for_bit() {
        let input = tone(440.0, 48_000, 48_000);
        let out = resampled(&input, 48_000, 0.0);
        assert_eq!(out, input[..out.len()]);
        assert!(out.len() > 47_900);
    }

    #[test]
    fn tones_keep_their_pitch_and_level_from_any_rate() {
        for (of, hertz) in [
            (44_100, 1000.0),
            (8000, 440.0),
            (96_000, 5000.0),
            (192_000, 997.0),
        ] {
            let out = resampled(&tone(hertz, of, of as usize), of, 0.0);
            assert!(out.len().abs_diff(48_000) < 300, "{of}: {}", out.len());
            let error = error(&out, hertz);
            assert!(error < 2e-3, "{of}: {error}");
        }
    }

    #[test]
    fn what_resampling_adds_to_a_tone_is_far_below_it() {
        let power = |sum: f64, value: f32| sum + f64::from(value) * f64::from(value);
        for of in [44_100, 16_000, 96_000] {
            let out = resampled(&tone(1000.0, of, of as usize), of, 0.0);
            let wanted = tone(1000.0, 48_000, out.len());
            let inner = 400..out.len() - 400;
            let heard = out[inner.clone()].iter().zip(&wanted[inner.clone()]);
            let noise = heard.map(|(a, b)| a[0] - b[0]).fold(0.0, power);
            let signal = wanted[inner].iter().map(|pcm| pcm[0]).fold(0.0, power);
            let decibels = 10.0 * (signal / noise).log10();
            assert!(decibels > 60.0, "{of}: {decibels} dB");
        }
    }

    #[test]
    fn a_correction_makes_sound_that_much_shorter_and_higher() {
        let out = resampled(&tone(1000.0, 48_000, 480_000), 48_000, 100e-6);
        assert!(out.len().abs_diff(480_000 - 48) < 40, "{}", out.len());
        let error = error(&out[..48_000], 1000.0 * (1.0 + 100e-6));
        assert!(error < 2e-3, "{error}");
    }

    #[test]
    fn what_would_be_heard_as_another_tone_is_filtered_out() {
        // 30 kHz does not fit into 48 kHz, where it would be heard as 18 kHz.
        let out = resampled(&tone(30_000.0, 96_000, 96_000), 96_000, 0.0);
        let loudest = out[300..]
            .iter()
            .map(|pcm| pcm[0].abs())
            .fold(0.0, f32::max);
        assert!(loudest < 1e-3, "{loudest}");
    }

    #[test]
    fn memory_stays_bounded_and_skipping_is_like_hearing() {
        let mut resampler = Resampler::new(rate(48_000));
        let mut out = Vec::new();
        for _ in 0..1000 {
            resampler.push(tone(100.0, 48_000, 480));
            assert_eq!(resampler.skip(240), 240);
            resampler.pull(&mut out, 240);
            assert!(resampler.input.len() < 3 * USED_UP);
        }
        assert!(out.len() > 239_900, "{}", out.len());
        assert!(resampler.ahead() <= 17.0, "{}", resampler.ahead());
    }
}
