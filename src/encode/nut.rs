//! A reader of NUT, the container in which FFmpeg hands samples over its pipes (specification: `nut.txt` in FFmpeg's
//! documentation). Pure and incremental: bytes are pushed as they come, each packet is given out once its last byte is
//! there. It reads what FFmpeg's muxer writes for one track; whatever else the bytes say is an error, never a panic, and
//! never holds more than one packet of the bound that was set.

mod cursor;
mod frame;
mod headers;

use bytes::Bytes;

use cursor::{Parse, Stop};
use frame::{FLAG_EOR, FLAG_KEY, FrameCode, frame_header};

const FILE_ID: &[u8] = b"nut/multimedia container\0";
const MAIN: u64 = 0x4E4D_7A56_1F5F_04AD;
const STREAM: u64 = 0x4E53_1140_5BF2_F9DB;
const SYNCPOINT: u64 = 0x4E4B_E4AD_EECA_4569;

/// A frame's header is some 60 bytes at most, reserved fields included.
const MAX_FRAME_HEADER: usize = 512;
/// What a NUT stream says, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NutEvent {
    /// The one track's header; always the first event.
    Track(NutTrack),
    /// One packet of the track.
    Packet(NutPacket),
}

/// What a NUT stream says, for who takes the packets' bytes by himself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NutHead {
    /// The one track's header; always the first.
    Track(NutTrack),
    /// A packet, whose bytes are to be taken now; see [`Reader::take`].
    Packet(NutPacketHead),
}

/// What stands before a packet's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NutPacketHead {
    /// Presentation time in units of [`NutTrack::time_base`].
    pub pts: u64,
    /// Whether the muxer says that decoding can start here.
    pub keyframe: bool,
    /// How many bytes the packet has.
    pub bytes: usize,
}

/// The track, as its header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NutTrack {
    /// Seconds per unit of a packet's time, as a fraction; neither number is 0.
    pub time_base: (u64, u64),
    /// How far presentation order lags behind decode order; 0 without reordering.
    pub decode_delay: u64,
    /// The encoder's headers; empty for some encoders.
    pub codec_data: Bytes,
    /// Pixels in a row and rows, of a track of pictures.
    pub size: Option<(u32, u32)>,
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NutPacket {
    /// Presentation time in units of [`NutTrack::time_base`].
    pub pts: u64,
    /// Whether the muxer says that decoding can start here.
    pub keyframe: bool,
    /// The encoder's bytes.
    pub data: Bytes,
}

/// Why a NUT stream can't be read. Every one is final.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NutError {
    /// The stream doesn't begin as one.
    #[error("the stream doesn't begin with NUT's file id and main header")]
    NotNut,
    /// A version that this reader doesn't know.
    #[error("NUT version {0} is not known; version 3 is")]
    Version(u64),
    /// A header that breaks the specification.
    #[error("a NUT {what} is malformed: {why}")]
    Header {
        /// Which.
        what: &'static str,
        /// How.
        why: &'static str,
    },
    /// A checksum that doesn't match its bytes.
    #[error("the checksum of a NUT {0} doesn't match")]
    Checksum(&'static str),
    /// A packet beyond the bound.
    #[error("a NUT packet of {bytes} bytes is beyond the bound of {bound}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// What was set.
        bound: usize,
    },
    /// A frame that breaks the specification.
    #[error("a NUT frame is malformed: {0}")]
    Frame(&'static str),
}

struct Main {
    payload: Vec<u8>,
    time_bases: Vec<(u64, u64)>,
    codes: Vec<FrameCode>,
    elided: Vec<Vec<u8>>,
    max_distance: u64,
}

struct Track {
    payload: Vec<u8>,
    time_base: (u64, u64),
    msb_shift: u32,
    last_pts: i64,
}

/// A packet whose head was read.
struct Pending {
    head: NutPacketHead,
    /// Its first bytes, which all packets of its kind have and the stream leaves out; those that were not taken yet.
    elided: Bytes,
    /// How many bytes are still to come.
    rest: usize,
    /// It marks the track's end, and nobody gets it.
    skipped: bool,
}

/// The incremental reader.
pub struct Reader {
    buffer: Vec<u8>,
    start: usize,
    max_packet: usize,
    file_id_seen: bool,
    main: Option<Main>,
    track: Option<Track>,
    pending: Option<Pending>,
    failed: Option<NutError>,
}

impl Reader {
    /// A reader that takes packets of up to `max_packet` bytes.
    pub fn new(max_packet: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            max_packet,
            file_id_seen: false,
            main: None,
            track: None,
            pending: None,
            failed: None,
        }
    }

    /// Takes the stream's next bytes. Call [`Self::next`] until it has nothing more before pushing again: that keeps memory bounded.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether bytes of an unfinished packet are held.
    pub fn is_mid_packet(&self) -> bool {
        self.start < self.buffer.len() || self.pending.is_some()
    }

    /// The next event, none until more bytes come. An error is final and repeated.
    #[allow(clippy::should_implement_trait)] // not an iterator: none means "not yet"
    pub fn next(&mut self) -> Result<Option<NutEvent>, NutError> {
        let head = match self.pending.as_ref().filter(|pending| !pending.skipped) {
            Some(pending) => pending.head,
            None => match self.head()? {
                Some(NutHead::Track(track)) => return Ok(Some(NutEvent::Track(track))),
                Some(NutHead::Packet(head)) => head,
                None => return Ok(None),
            },
        };
        Ok(self.whole().map(|data| {
            NutEvent::Packet(NutPacket {
                pts: head.pts,
                keyframe: head.keyframe,
                data,
            })
        }))
    }

    /// The next packet's head, or the track; none until more bytes come, or while bytes of a packet are still to be taken. An error is final
    /// and repeated.
    pub fn head(&mut self) -> Result<Option<NutHead>, NutError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        loop {
            if let Some(pending) = &mut self.pending {
                if !pending.skipped {
                    return Ok(None);
                }
                let here = pending.rest.min(self.buffer.len() - self.start);
                pending.rest -= here;
                self.start += here;
                if pending.rest > 0 {
                    return Ok(None);
                }
                self.pending = None;
            }
            match self.step() {
                Ok(Some(head)) => return Ok(Some(head)),
                Ok(None) => {}
                Err(Stop::Short) => return Ok(None),
                Err(Stop::Bad(error)) => {
                    self.buffer = Vec::new();
                    self.start = 0;
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
        }
    }

    /// Moves what is here of the packet at hand into `into`; says how many bytes.
    pub fn take(&mut self, into: &mut [u8]) -> usize {
        let Some(pending) = &mut self.pending else {
            return 0;
        };
        let elided = pending
            .elided
            .split_to(pending.elided.len().min(into.len()));
        let (first, into) = into.split_at_mut(elided.len());
        first.copy_from_slice(&elided);
        let here = &self.buffer[self.start..];
        let count = pending.rest.min(here.len()).min(into.len());
        into[..count].copy_from_slice(&here[..count]);
        self.start += count;
        self.passed(count);
        elided.len() + count
    }

    /// Notes that `bytes` of the packet at hand went past this reader, straight to their place: only once [`Self::take`] has no more of them.
    pub fn passed(&mut self, bytes: usize) {
        if let Some(pending) = &mut self.pending {
            pending.rest = pending.rest.saturating_sub(bytes);
            if pending.rest == 0 && pending.elided.is_empty() {
                self.pending = None;
            }
        }
    }

    /// The packet at hand, once all of it is here.
    fn whole(&mut self) -> Option<Bytes> {
        let here = &self.buffer[self.start..];
        let Pending { elided, rest, .. } =
            self.pending.take_if(|pending| pending.rest <= here.len())?;
        let payload = &here[..rest];
        let data = if elided.is_empty() {
            Bytes::copy_from_slice(payload)
        } else {
            Bytes::from([&elided, payload].concat())
        };
        self.start += rest;
        Some(data)
    }

    fn step(&mut self) -> Parse<Option<NutHead>> {
        let bytes = &self.buffer[self.start..];
        if !self.file_id_seen {
            let known = bytes.len().min(FILE_ID.len());
            if bytes[..known] != FILE_ID[..known] {
                return Err(NutError::NotNut.into());
            }
            if known < FILE_ID.len() {
                return Err(Stop::Short);
            }
            self.start += known;
            self.file_id_seen = true;
            return Ok(None);
        }
        match bytes.first() {
            None => Err(Stop::Short),
            Some(b'N') => self.header_packet(),
            Some(_) if self.main.is_none() => Err(NutError::NotNut.into()),
            Some(_) => self.frame(),
        }
    }

    /// Reads a packet's head; its bytes are pending then.
    fn frame(&mut self) -> Parse<Option<NutHead>> {
        let bytes = &self.buffer[self.start..];
        let (Some(main), Some(track)) = (&self.main, &mut self.track) else {
            return Err(NutError::Frame("it stands before the stream header").into());
        };
        let frame = frame_header(bytes, main, track).map_err(|stop| match stop {
            Stop::Short if bytes.len() > MAX_FRAME_HEADER => {
                Stop::Bad(NutError::Frame("its header does not end"))
            }
            other => other,
        })?;
        if frame.size > self.max_packet as u64 {
            return Err(NutError::TooLarge {
                bytes: frame.size,
                bound: self.max_packet,
            }
            .into());
        }
        let elided = Bytes::copy_from_slice(&main.elided[frame.elided]);
        let bytes = usize::try_from(frame.size).map_err(|_| NutError::Frame("its size"))?;
        let rest = bytes
            .checked_sub(elided.len())
            .ok_or(NutError::Frame("it is smaller than its elided header"))?;
        let head = NutPacketHead {
            pts: u64::try_from(frame.pts).map_err(|_| NutError::Frame("its time is negative"))?,
            keyframe: frame.flags & FLAG_KEY != 0,
            bytes,
        };
        track.last_pts = frame.pts;
        self.start += frame.header_bytes;
        // A frame without a picture marks the track's end.
        let skipped = frame.flags & FLAG_EOR != 0;
        self.pending = Some(Pending {
            head,
            elided,
            rest,
            skipped,
        });
        Ok((!skipped).then_some(NutHead::Packet(head)))
    }
}

fn header(what: &'static str, why: &'static str) -> NutError {
    NutError::Header { what, why }
}

#[cfg(test)]
#[path = "nut_tests.rs"]
mod tests;
