//! AAC's configuration (ISO/IEC 14496-3, 1.6.2.1): what a track of it is, and a frame of silence for it. Pure.

use std::num::NonZeroU32;

/// Low complexity, what HE-AAC adds to it, and what its second version adds to that.
const LC: u8 = 2;
const SBR: u8 = 5;
const PS: u8 = 29;
/// ISO/IEC 14496-3, table 1.18.
const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000,
    7350,
];

/// Why AAC can't be copied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AacError {
    /// It ends too early, or names no rate.
    #[error("its configuration is cut or strange")]
    Cut,
    /// It is of another kind than players have.
    #[error("it is of kind {0}: only AAC-LC and HE-AAC can be copied")]
    Kind(u8),
    /// Its channels are none of the usual.
    #[error("its channels are arranged in a way of their own (configuration {0})")]
    Channels(u8),
}

/// What an AudioSpecificConfig says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aac {
    /// Its audio object type for the codecs parameter: 2, 5 or 29.
    pub(super) kind: u8,
    /// Samples a second that are heard.
    pub(super) rate: NonZeroU32,
    /// Samples a second that `frame` counts: half as many, if the rest is made up by HE-AAC's decoder.
    pub(super) core_rate: NonZeroU32,
    /// Samples in a frame.
    pub(super) frame: NonZeroU32,
    arrangement: u8,
}

impl Aac {
    /// Reads an AudioSpecificConfig.
    ///
    /// # Errors
    /// When it is cut, or of a kind that can't be copied.
    pub(super) fn parse(config: &[u8]) -> Result<Self, AacError> {
        let mut bits = Bits { config, at: 0 };
        let mut kind = bits.kind()?;
        let core_rate = bits.rate()?;
        let arrangement = u8::try_from(bits.take(4)?).map_err(|_| AacError::Cut)?;
        let mut rate = core_rate;
        let mut core = kind;
        if matches!(kind, SBR | PS) {
            rate = bits.rate()?;
            core = bits.kind()?;
        }
        if core != LC {
            return Err(AacError::Kind(core));
        }
        let short = bits.take(1)? == 1;
        if bits.take(1)? == 1 {
            bits.take(14)?;
        }
        bits.take(1)?;
        if kind == LC
            && let Some((found, extended)) = bits.extension()
        {
            (kind, rate) = (found, extended);
        }
        if !(1..=7).contains(&arrangement) {
            return Err(AacError::Channels(arrangement));
        }
        let frame = if short { 960 } else { 1024 };
        Ok(Self {
            kind,
            rate,
            core_rate,
            frame: NonZeroU32::new(frame).ok_or(AacError::Cut)?,
            arrangement,
        })
    }

    /// How many channels are heard.
    pub(super) fn channels(&self) -> u16 {
        match (self.kind, self.arrangement) {
            // Parametric stereo is made of one.
            (PS, 1) => 2,
            (_, 7) => 8,
            (_, channels) => channels.into(),
        }
    }

    /// A frame of silence: each element without any spectrum (ISO/IEC 14496-3, 4.4.2).
    pub(super) fn silence(&self) -> Vec<u8> {
        const END: u32 = 7;
        let elements: &[Element] = match self.arrangement {
            1 => &[Element::Single],
            2 => &[Element::Pair],
            3 => &[Element::Single, Element::Pair],
            4 => &[Element::Single, Element::Pair, Element::Single],
            5 => &[Element::Single, Element::Pair, Element::Pair],
            6 => &[Element::Single, Element::Pair, Element::Pair, Element::Low],
            _ => &[
                Element::Single,
                Element::Pair,
                Element::Pair,
                Element::Pair,
                Element::Low,
            ],
        };
        let mut silence = Silence::default();
        for (place, element) in elements.iter().enumerate() {
            let before = elements[..place].iter().filter(|other| *other == element);
            silence.element(*element, u32::try_from(before.count()).unwrap_or(0));
        }
        silence.put(END, 3);
        silence.bytes
    }
}

/// What a frame is made of, by its number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Element {
    Single = 0,
    Pair = 1,
    Low = 3,
}

/// A frame's bits, as they are written.
#[derive(Default)]
struct Silence {
    bytes: Vec<u8>,
    bits: usize,
}

impl Silence {
    fn put(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            if self.bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let set = u8::from(value >> bit & 1 == 1) << (7 - self.bits % 8);
            if let Some(last) = self.bytes.last_mut() {
                *last |= set;
            }
            self.bits += 1;
        }
    }

    fn element(&mut self, element: Element, tag: u32) {
        // One long window of no scale factor bands: reserved, sequence, shape, max_sfb and prediction are all 0.
        const WINDOW: u32 = 11;
        // global_gain, and neither pulses, noise shaping nor gain control.
        const CHANNEL: u32 = 8;
        const TOOLS: u32 = 3;
        self.put(element as u32, 3);
        self.put(tag, 4);
        if element == Element::Pair {
            // A common window, and no mid and side.
            self.put(1, 1);
            self.put(0, WINDOW + 2);
            self.put(0, 2 * (CHANNEL + TOOLS));
        } else {
            self.put(0, CHANNEL + WINDOW + TOOLS);
        }
    }
}

/// The configuration's bits, as they are read.
struct Bits<'a> {
    config: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Result<u32, AacError> {
        let mut value = 0;
        for at in self.at..self.at + count {
            let byte = self.config.get(at / 8).ok_or(AacError::Cut)?;
            value = value << 1 | u32::from(byte >> (7 - at % 8) & 1);
        }
        self.at += count;
        Ok(value)
    }

    fn kind(&mut self) -> Result<u8, AacError> {
        let kind = match self.take(5)? {
            31 => 32 + self.take(6)?,
            kind => kind,
        };
        u8::try_from(kind).map_err(|_| AacError::Cut)
    }

    fn rate(&mut self) -> Result<NonZeroU32, AacError> {
        let rate = match self.take(4)? {
            15 => self.take(24)?,
            index => *RATES.get(index as usize).ok_or(AacError::Cut)?,
        };
        let rate = NonZeroU32::new(rate).filter(|rate| (7350..=96_000).contains(&rate.get()));
        rate.ok_or(AacError::Cut)
    }

    /// What a decoder that knows HE-AAC finds behind the rest, if there is anything.
    fn extension(&mut self) -> Option<(u8, NonZeroU32)> {
        const SYNC_SBR: u32 = 0x2B7;
        const SYNC_PS: u32 = 0x548;
        let found = self.take(11).ok()? == SYNC_SBR && self.kind().ok()? == SBR;
        if !found || self.take(1).ok()? == 0 {
            return None;
        }
        let rate = self.rate().ok()?;
        let stereo = self.take(11).is_ok_and(|sync| sync == SYNC_PS)
            && self.take(1).is_ok_and(|present| present == 1);
        Some((if stereo { PS } else { SBR }, rate))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(config: &[u8]) -> (u8, u32, u32, u16) {
        let aac = Aac::parse(config).unwrap();
        (
            aac.kind,
            aac.rate.get(),
            aac.core_rate.get(),
            aac.channels(),
        )
    }

    #[test]
    fn a_configuration_tells_kind_rate_and_channels() {
        assert_eq!(facts(&[0x12, 0x10]), (2, 44_100, 44_100, 2));
        // As FFmpeg's encoder writes it: an extension that says that there is none.
        let plain = [0x11, 0x90, 0x56, 0xE5, 0x00];
        assert_eq!(facts(&plain), (2, 48_000, 48_000, 2));
        assert_eq!(facts(&[0x15, 0x88]), (2, 8000, 8000, 1));
        // HE-AAC of 48 kHz, said first and said last; and its second version.
        assert_eq!(facts(&[0x2B, 0x11, 0x88, 0x00]), (5, 48_000, 24_000, 2));
        let last = [0x13, 0x10, 0x56, 0xE5, 0x98];
        assert_eq!(facts(&last), (5, 48_000, 24_000, 2));
        assert_eq!(facts(&[0xEB, 0x09, 0x88, 0x00]), (29, 48_000, 24_000, 2));
        assert_eq!(Aac::parse(&[0x12]), Err(AacError::Cut));
        assert_eq!(Aac::parse(&[0x12, 0x00]), Err(AacError::Channels(0)));
        assert_eq!(Aac::parse(&[0x0A, 0x10]), Err(AacError::Kind(1)));
    }

    #[test]
    fn silence_has_an_element_for_each_channel_and_no_spectrum() {
        let silence = |config: &[u8]| Aac::parse(config).unwrap().silence();
        // 29 bits and the end, in whole bytes.
        assert_eq!(silence(&[0x15, 0x88]), [0, 0, 0, 7]);
        let stereo = silence(&[0x12, 0x10]);
        assert_eq!(stereo, [0x21, 0, 0, 0, 0, 0x1C]);
        let surround = silence(&[0x11, 0xB0]);
        assert_eq!(surround.len(), (29 + 43 + 43 + 29 + 3_usize).div_ceil(8));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(aac) = Aac::parse(&bytes) {
                prop_assert!(!aac.silence().is_empty());
            }
        }
    }
}
