//! A producer's PCM as the stereo that is published: any number of channels mixed down by the coefficients of ITU-R BS.775-3 (table 2), the low frequencies
//! left out, and all of it made so much quieter that nothing can clip.

use std::f32::consts::FRAC_1_SQRT_2;

use ringgear_ring::sound::{SampleFormat, SoundFormat};

use super::Pcm;

/// What of a channel is heard left and right.
type Share = [f32; 2];

const LEFT: Share = [1.0, 0.0];
const RIGHT: Share = [0.0, 1.0];
/// One channel is heard as it is on both sides.
const MONO: Share = [1.0, 1.0];
const CENTRE: Share = [FRAC_1_SQRT_2, FRAC_1_SQRT_2];
const LEFT_SURROUND: Share = [FRAC_1_SQRT_2, 0.0];
const RIGHT_SURROUND: Share = [0.0, FRAC_1_SQRT_2];
/// The one channel behind of 6.1.
const BEHIND: Share = [0.5, 0.5];
const LOW: Share = [0.0, 0.0];

/// Channels in the order of WAV files.
const LAYOUTS: [&[Share]; 8] = [
    &[MONO],
    &[LEFT, RIGHT],
    &[LEFT, RIGHT, CENTRE],
    &[LEFT, RIGHT, LEFT_SURROUND, RIGHT_SURROUND],
    &[LEFT, RIGHT, CENTRE, LEFT_SURROUND, RIGHT_SURROUND],
    &[LEFT, RIGHT, CENTRE, LOW, LEFT_SURROUND, RIGHT_SURROUND],
    &[
        LEFT,
        RIGHT,
        CENTRE,
        LOW,
        BEHIND,
        LEFT_SURROUND,
        RIGHT_SURROUND,
    ],
    &[
        LEFT,
        RIGHT,
        CENTRE,
        LOW,
        LEFT_SURROUND,
        RIGHT_SURROUND,
        LEFT_SURROUND,
        RIGHT_SURROUND,
    ],
];

/// Mixes sound of one format.
#[derive(Debug)]
pub(super) struct Downmix {
    samples: SampleFormat,
    shares: Vec<Share>,
}

impl Downmix {
    pub(super) fn new(format: &SoundFormat) -> Self {
        let channels = format.channels() as usize;
        // A format has 1 to 8 channels.
        let shares = LAYOUTS[channels.clamp(1, LAYOUTS.len()) - 1];
        let loudest: f32 = shares.iter().map(|share| share[0]).sum();
        Self {
            samples: format.samples(),
            shares: shares
                .iter()
                .map(|s| s.map(|part| part / loudest))
                .collect(),
        }
    }

    /// Appends the samples that `block` holds, whole ones, to `out`.
    pub(super) fn mix(&self, block: &[u8], out: &mut Vec<Pcm>) {
        match self.samples {
            SampleFormat::S16le => self.mix_of(block, out, |bytes: &[u8; 2]| {
                f32::from(i16::from_le_bytes(*bytes)) / 32768.0
            }),
            SampleFormat::F32le => self.mix_of(block, out, value),
        }
    }

    fn mix_of<const N: usize>(
        &self,
        block: &[u8],
        out: &mut Vec<Pcm>,
        value: impl Fn(&[u8; N]) -> f32,
    ) {
        let (values, _) = block.as_chunks::<N>();
        out.extend(values.chunks_exact(self.shares.len()).map(|sample| {
            let mut mixed = [0.0; 2];
            for (bytes, share) in sample.iter().zip(&self.shares) {
                let value = value(bytes);
                mixed[0] += value * share[0];
                mixed[1] += value * share[1];
            }
            mixed
        }));
    }
}

/// A sample in single precision; what is none, or beyond all loudness, is silence or the loudest.
fn value(bytes: &[u8; 4]) -> f32 {
    let value = f32::from_le_bytes(*bytes);
    if value.is_finite() {
        value.clamp(-4.0, 4.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(samples: SampleFormat, channels: u32, block: &[u8]) -> Vec<Pcm> {
        let format = SoundFormat::new(samples, 48_000, channels).unwrap();
        let mut out = Vec::new();
        Downmix::new(&format).mix(block, &mut out);
        out
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    #[test]
    fn one_channel_is_heard_on_both_sides_and_two_are_as_they_are() {
        let of = |values: &[i16]| {
            values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let block = of(&[16_384, -32_768]);
        assert_eq!(
            mixed(SampleFormat::S16le, 1, &block),
            [[0.5, 0.5], [-1.0, -1.0]]
        );
        assert_eq!(mixed(SampleFormat::S16le, 2, &block), [[0.5, -1.0]]);
        let block = floats(&[0.25, -0.75]);
        assert_eq!(mixed(SampleFormat::F32le, 2, &block), [[0.25, -0.75]]);
    }

    #[test]
    fn more_channels_are_mixed_by_the_standard_and_cannot_clip() {
        // What is heard of each channel alone, against the left one.
        let three = 0.5_f32.sqrt(); // decibels less
        let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
        for (channels, shares) in [
            (3, vec![[1.0, 0.0], [0.0, 1.0], [three, three]]),
            (
                6,
                vec![
                    [1.0, 0.0],
                    [0.0, 1.0],
                    [three, three],
                    [0.0, 0.0],
                    [three, 0.0],
                    [0.0, three],
                ],
            ),
        ] {
            let mut heard = Vec::new();
            for one in 0..channels {
                let mut sample = vec![0.0; channels];
                sample[one] = 1.0;
                let channels = u32::try_from(channels).unwrap();
                heard.extend(mixed(SampleFormat::F32le, channels, &floats(&sample)));
            }
            let left = heard[0][0];
            for (heard, wanted) in heard.iter().zip(&shares) {
                let right = [heard[0] / left, heard[1] / left];
                assert!(
                    near(right[0], wanted[0]) && near(right[1], wanted[1]),
                    "{heard:?}"
                );
            }
        }
        for channels in 1..=8 {
            let sample = vec![1.0; channels];
            let channels = u32::try_from(channels).unwrap();
            let heard = mixed(SampleFormat::F32le, channels, &floats(&sample));
            assert!(
                near(heard[0][0], 1.0) && near(heard[0][1], 1.0),
                "{heard:?}"
            );
        }
    }

    #[test]
    fn sound_is_finite_and_bounded() {
        let block = floats(&[0.5, f32::NAN, f32::INFINITY, 1e30]);
        let heard = mixed(SampleFormat::F32le, 2, &block);
        assert_eq!(heard, [[0.5, 0.0], [0.0, 4.0]]);
    }
}
