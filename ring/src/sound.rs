//! Sound formats: what a slot of a ring of sound holds, a block of interleaved samples.

use serde::{Deserialize, Serialize};

use crate::error::RingError;
use crate::layout::{FORMAT, HeaderWord, SlotFormat};

/// The rates that a ring carries, in samples a second.
pub const RATES: std::ops::RangeInclusive<u32> = 8000..=192_000;
/// How many channels it carries.
pub const CHANNELS: std::ops::RangeInclusive<u32> = 1..=8;
/// A slot holds at most this part of a second.
const BLOCKS_PER_SECOND: u32 = 8;

/// Offset of the header word that holds the rate of a ring of sound.
pub const RATE: usize = 208;
/// Offset of the header word that holds its number of channels.
pub const CHANNEL_COUNT: usize = 216;

/// How a sample is stored. Names are FFmpeg's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleFormat {
    /// A signed integer of 16 bits, little endian.
    S16le,
    /// A float of 32 bits, little endian; full scale is 1.
    F32le,
}

impl SampleFormat {
    /// Both, in the order of their codes.
    pub const ALL: [Self; 2] = [Self::S16le, Self::F32le];

    /// Its name, as in messages and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::S16le => "s16le",
            Self::F32le => "f32le",
        }
    }

    /// The format called `name`; `le` at its end may be left out.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name || format.name().strip_suffix("le") == Some(name))
    }

    /// The number that stands for it in the ring's header; no pixel format's.
    pub const fn code(self) -> u32 {
        match self {
            Self::S16le => 257,
            Self::F32le => 258,
        }
    }

    /// Bytes of one channel's sample.
    pub const fn bytes(self) -> usize {
        match self {
            Self::S16le => 2,
            Self::F32le => 4,
        }
    }
}

impl std::fmt::Display for SampleFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A sound's format, fixed for a session. A *sample* is one moment: a value for each channel, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoundFormat {
    samples: SampleFormat,
    rate: u32,
    channels: u32,
}

/// Why a sound format is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SoundFormatError {
    /// The rate is not one that a ring carries.
    #[error("a rate of {rate} samples a second is out of range: {} to {}", RATES.start(), RATES.end())]
    Rate {
        /// Samples a second.
        rate: u32,
    },
    /// So many channels are not carried, or none.
    #[error("{channels} channels are out of range: {} to {}", CHANNELS.start(), CHANNELS.end())]
    Channels {
        /// How many.
        channels: u32,
    },
}

impl SoundFormat {
    /// Sound of `rate` samples a second in `channels` channels.
    ///
    /// # Errors
    /// What is out of range.
    pub fn new(samples: SampleFormat, rate: u32, channels: u32) -> Result<Self, SoundFormatError> {
        if !RATES.contains(&rate) {
            return Err(SoundFormatError::Rate { rate });
        }
        if !CHANNELS.contains(&channels) {
            return Err(SoundFormatError::Channels { channels });
        }
        Ok(Self {
            samples,
            rate,
            channels,
        })
    }

    /// How a channel's sample is stored.
    pub fn samples(&self) -> SampleFormat {
        self.samples
    }

    /// Samples a second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// How many channels.
    pub fn channels(&self) -> u32 {
        self.channels
    }

    /// Bytes of one sample, all channels of it.
    pub fn sample_bytes(&self) -> usize {
        self.samples.bytes() * self.channels as usize
    }

    /// How many samples a slot holds: an eighth of a second, rounded up.
    pub fn block_samples(&self) -> usize {
        self.rate.div_ceil(BLOCKS_PER_SECOND) as usize
    }

    /// A block's length, if a slot can hold it.
    pub(crate) fn check_block(&self, bytes: u64) -> Result<usize, RingError> {
        let (most, sample) = (self.bytes(), self.sample_bytes());
        match usize::try_from(bytes) {
            Ok(length) if (1..=most).contains(&length) => match length.is_multiple_of(sample) {
                true => Ok(length),
                false => Err(RingError::BlockUneven { bytes, sample }),
            },
            _ => Err(RingError::BlockBytes { bytes, most }),
        }
    }
}

impl SlotFormat for SoundFormat {
    fn bytes(&self) -> usize {
        self.block_samples() * self.sample_bytes()
    }

    fn words(&self) -> Vec<HeaderWord> {
        [
            ("format", FORMAT, self.samples.code()),
            ("rate", RATE, self.rate),
            ("channels", CHANNEL_COUNT, self.channels),
        ]
        .map(|(name, offset, value)| HeaderWord {
            name,
            offset,
            value: value.into(),
        })
        .into()
    }
}

impl std::fmt::Display for SoundFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} at {} Hz in {} channel{}",
            self.samples,
            self.rate,
            self.channels,
            if self.channels == 1 { "" } else { "s" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::PixelFormat;

    #[test]
    fn what_no_ring_carries_is_refused() {
        let of = |rate, channels| SoundFormat::new(SampleFormat::S16le, rate, channels);
        for rate in [0, 7999, 192_001, u32::MAX] {
            assert_eq!(of(rate, 2), Err(SoundFormatError::Rate { rate }));
        }
        for channels in [0, 9, u32::MAX] {
            assert_eq!(
                of(48_000, channels),
                Err(SoundFormatError::Channels { channels })
            );
        }
        assert_eq!(of(44_100, 1).unwrap().bytes(), 5513 * 2);
        assert_eq!(of(192_000, 8).unwrap().bytes(), 24_000 * 16);
    }

    #[test]
    fn names_lead_back_to_their_format_and_codes_are_no_pixel_formats() {
        for format in SampleFormat::ALL {
            assert_eq!(SampleFormat::from_name(format.name()), Some(format));
            assert_eq!(PixelFormat::from_code(format.code()), None);
        }
        assert_eq!(SampleFormat::from_name("s16"), Some(SampleFormat::S16le));
        assert_eq!(SampleFormat::from_name("s16be"), None);
    }
}
