//! Where everything lies in a ring's memory, to the byte. Every word is a little-endian u64 at an offset divisible by 8.
//!
//! | offset | what |
//! |---|---|
//! | 0 | header words, written once by the daemon: see [`Layout::header_words`] |
//! | [`COMMITTED`], [`SUPERSEDED`], [`WRITER_WAITS`] | the writer's words, on a line of their own |
//! | [`TAKEN`], [`READER_WAITS`], [`FREED`] | the reader's words, on a line of their own |
//! | [`SLOT_HEADERS`] + [`SLOT_HEADER_BYTES`] * i | slot i's header: word, frame number, capture time; of sound, a block's bytes |
//! | [`Layout::slot_offset`] | slot i's frame or block of sound, on a page boundary |
//!
//! What is not named is zero and reserved. The low halves of [`COMMITTED`] and [`FREED`] are futexes (shared, not private).

use crate::error::RingError;
use crate::format::FrameFormat;

/// The header's first word: the bytes `RINGGEAR`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"RINGGEAR");
/// The layout's version, the header's second word.
pub const VERSION: u64 = 1;
/// What slots and the whole memory are rounded up to, whatever the machine's page size.
pub const PAGE: usize = 4096;
/// The fewest slots: one being read, one waiting.
pub const MIN_SLOTS: u32 = 2;
/// The most slots.
pub const MAX_SLOTS: u32 = 32;
/// How many slots a ring has when nobody asks for a number.
pub const DEFAULT_SLOTS: u32 = 4;
/// The largest ring.
pub const MAX_MEMORY_BYTES: usize = 1 << 30;

/// Offset of the count of committed frames; the writer stores it.
pub const COMMITTED: usize = 1024;
/// Offset of the count of frames that the writer stole back; the writer stores it.
pub const SUPERSEDED: usize = 1032;
/// Offset of the word that is 1 while the writer sleeps on [`FREED`], else 0; the writer stores it.
pub const WRITER_WAITS: usize = 1040;
/// Offset of the count of frames that the reader took; the reader stores it, for information.
pub const TAKEN: usize = 1152;
/// Offset of the word that is 1 while the reader sleeps on [`COMMITTED`], else 0; the reader stores it.
pub const READER_WAITS: usize = 1160;
/// Offset of the count of slots that the reader gave back; the reader stores it.
pub const FREED: usize = 1168;
/// Offset of the header word that holds the format's code, of pixels or of sound.
pub const FORMAT: usize = 72;
/// Offset of the header word that holds the [`Policy`].
pub const POLICY: usize = 200;
/// Offset of the first slot's header.
pub const SLOT_HEADERS: usize = PAGE;
/// From one slot's header to the next.
pub const SLOT_HEADER_BYTES: usize = 128;
/// Within a slot's header: sequence number and state.
pub const SLOT_WORD: usize = 0;
/// Within a slot's header: the producer's own number for the frame; of sound, for the block's first sample.
pub const SLOT_FRAME_NUMBER: usize = 8;
/// Within a slot's header: CLOCK_MONOTONIC in nanoseconds, 0 where it is not known.
pub const SLOT_CAPTURED: usize = 16;
/// Within a slot's header, in a ring of sound: how many bytes of the slot the block has.
pub const SLOT_BLOCK_BYTES: usize = 24;

const PLANE_NAMES: [[&str; 4]; 3] = [
    [
        "plane0_offset",
        "plane0_stride",
        "plane0_row_bytes",
        "plane0_rows",
    ],
    [
        "plane1_offset",
        "plane1_stride",
        "plane1_row_bytes",
        "plane1_rows",
    ],
    [
        "plane2_offset",
        "plane2_stride",
        "plane2_row_bytes",
        "plane2_rows",
    ],
];

/// What a full ring does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// It gives the writer its oldest ready slot back: newest frames first. For live streams.
    #[default]
    Latest,
    /// It loses nothing: the writer waits until the reader frees a slot. For recordings.
    Lossless,
}

impl Policy {
    /// The number that stands for the policy in the ring's header.
    pub const fn code(self) -> u64 {
        match self {
            Self::Latest => 0,
            Self::Lossless => 1,
        }
    }

    /// The policy that `code` stands for.
    pub const fn from_code(code: u64) -> Option<Self> {
        match code {
            0 => Some(Self::Latest),
            1 => Some(Self::Lossless),
            _ => None,
        }
    }
}

/// A word of the header that never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderWord {
    /// Its name in `docs/protocol.md`.
    pub name: &'static str,
    /// Bytes from the memory's start.
    pub offset: usize,
    /// What it holds.
    pub value: u64,
}

/// What a ring's slots hold: frames ([`FrameFormat`]), or blocks of sound ([`SoundFormat`](crate::sound::SoundFormat)).
pub trait SlotFormat: Clone + std::fmt::Debug + std::fmt::Display {
    /// A slot's bytes that are used at most.
    fn bytes(&self) -> usize;

    /// The header words that say so.
    fn words(&self) -> Vec<HeaderWord>;
}

/// The layout of one ring: follows from its slots' format, their number and its policy alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout<F = FrameFormat> {
    format: F,
    slots: u32,
    policy: Policy,
    slot_bytes: usize,
    data_offset: usize,
    bytes: usize,
}

impl<F: SlotFormat> Layout<F> {
    /// The layout of `slots` slots of `format`.
    ///
    /// # Errors
    /// [`RingError::Slots`] and [`RingError::TooLarge`].
    pub fn new(format: &F, slots: u32) -> Result<Self, RingError> {
        if !(MIN_SLOTS..=MAX_SLOTS).contains(&slots) {
            return Err(RingError::Slots { slots });
        }
        let count = slots as usize;
        let slot_bytes = format.bytes().next_multiple_of(PAGE);
        let data_offset = (SLOT_HEADERS + SLOT_HEADER_BYTES * count).next_multiple_of(PAGE);
        // A frame is below 2^40 bytes, so nothing overflows here.
        let bytes = data_offset + slot_bytes * count;
        if bytes > MAX_MEMORY_BYTES {
            let frame_bytes = format.bytes();
            return Err(RingError::TooLarge { slots, frame_bytes });
        }
        Ok(Self {
            format: format.clone(),
            slots,
            policy: Policy::default(),
            slot_bytes,
            data_offset,
            bytes,
        })
    }

    /// The header's fixed words, by their offsets.
    pub fn header_words(&self) -> impl Iterator<Item = HeaderWord> + use<F> {
        let of_all = [
            ("magic", 0, MAGIC),
            ("version", 8, VERSION),
            ("memory_bytes", 16, self.bytes as u64),
            ("slots", 24, u64::from(self.slots)),
            ("slot_headers_offset", 32, SLOT_HEADERS as u64),
            ("slot_header_bytes", 40, SLOT_HEADER_BYTES as u64),
            ("data_offset", 48, self.data_offset as u64),
            ("slot_bytes", 56, self.slot_bytes as u64),
            ("frame_bytes", 64, self.format.bytes() as u64),
            ("policy", POLICY, self.policy.code()),
        ];
        let of_all = of_all.map(|(name, offset, value)| HeaderWord {
            name,
            offset,
            value,
        });
        let mut words: Vec<_> = of_all.into_iter().chain(self.format.words()).collect();
        words.sort_by_key(|word| word.offset);
        words.into_iter()
    }
}

impl<F> Layout<F> {
    /// The same with another policy.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// What the ring does when it is full.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Where the first slot begins: the bytes that hold all words.
    pub fn data_offset(&self) -> usize {
        self.data_offset
    }

    /// What the slots hold.
    pub fn format(&self) -> &F {
        &self.format
    }

    /// How many slots the ring has.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// The whole memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where what slot `slot` holds begins.
    pub fn slot_offset(&self, slot: u32) -> usize {
        self.data_offset + self.slot_bytes * slot as usize
    }

    /// Where slot `slot`'s header begins.
    pub fn slot_header(&self, slot: u32) -> usize {
        SLOT_HEADERS + SLOT_HEADER_BYTES * slot as usize
    }
}

impl SlotFormat for FrameFormat {
    fn bytes(&self) -> usize {
        self.bytes()
    }

    fn words(&self) -> Vec<HeaderWord> {
        let planes = self.planes();
        let fixed = [
            ("format", u64::from(self.pixels().code())),
            ("width", u64::from(self.width())),
            ("height", u64::from(self.height())),
            ("planes", planes.len() as u64),
        ];
        let of_planes = PLANE_NAMES.into_iter().enumerate().flat_map(|(i, names)| {
            let plane = planes.get(i).copied().unwrap_or_default();
            let values = [plane.offset, plane.stride, plane.row_bytes, plane.rows];
            names.into_iter().zip(values.map(|value| value as u64))
        });
        let words = fixed.into_iter().chain(of_planes).enumerate();
        words
            .map(|(i, (name, value))| HeaderWord {
                name,
                offset: FORMAT + i * 8,
                value,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::PixelFormat;

    #[test]
    fn the_layout_is_the_documented_one() {
        let format = FrameFormat::packed(PixelFormat::Yuv420p, 1280, 720).unwrap();
        let layout = Layout::new(&format, 4).unwrap();
        assert_eq!(layout.slot_offset(0), 8192);
        assert_eq!(layout.slot_offset(1), 8192 + 1_384_448);
        assert_eq!(layout.bytes(), 8192 + 4 * 1_384_448);
        let words: Vec<_> = layout.header_words().collect();
        assert_eq!(words.len(), 26);
        assert_eq!((words[25].name, words[25].offset), ("policy", POLICY));
        assert_eq!(
            words[13],
            HeaderWord {
                name: "plane0_offset",
                offset: 104,
                value: 0
            }
        );
        assert_eq!(
            words[17],
            HeaderWord {
                name: "plane1_offset",
                offset: 136,
                value: 1280 * 720
            }
        );
        assert!(words.last().unwrap().offset < COMMITTED);
        assert_eq!(Layout::new(&format, 32).unwrap().slot_offset(0), 8192);
    }

    #[test]
    fn impossible_rings_are_refused() {
        let format = FrameFormat::packed(PixelFormat::Gray, 64, 48).unwrap();
        for slots in [0, 1, 33, u32::MAX] {
            assert_eq!(Layout::new(&format, slots), Err(RingError::Slots { slots }));
        }
        let format = FrameFormat::packed(PixelFormat::Bgra, 16_384, 16_384).unwrap();
        assert!(matches!(
            Layout::new(&format, 2),
            Err(RingError::TooLarge { .. })
        ));
    }
}
