//! A reader of NUT, the container in which FFmpeg hands samples over its pipes (specification: `nut.txt` in FFmpeg's
//! documentation). Pure and incremental: bytes are pushed as they come, each packet is given out once its last byte is
//! there. It reads what FFmpeg's muxer writes for one track; whatever else the bytes say is an error, never a panic, and
//! never holds more than one packet of the bound that was set.

mod cursor;
mod frame;

use bytes::Bytes;

use cursor::{Cursor, Parse, Stop, crc};
use frame::{FLAG_EOR, FLAG_KEY, FrameCode, frame_codes, frame_header};

const FILE_ID: &[u8] = b"nut/multimedia container\0";
const MAIN: u64 = 0x4E4D_7A56_1F5F_04AD;
const STREAM: u64 = 0x4E53_1140_5BF2_F9DB;
const SYNCPOINT: u64 = 0x4E4B_E4AD_EECA_4569;

/// Headers, info and syncpoints: far below a mebibyte in any file.
const MAX_HEADER: usize = 1 << 20;
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

/// The track, as its header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NutTrack {
    /// Seconds per unit of a packet's time, as a fraction; neither number is 0.
    pub time_base: (u64, u64),
    /// How far presentation order lags behind decode order; 0 without reordering.
    pub decode_delay: u64,
    /// The encoder's headers; empty for some encoders.
    pub codec_data: Bytes,
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

/// The incremental reader.
pub struct Reader {
    buffer: Vec<u8>,
    start: usize,
    max_packet: usize,
    file_id_seen: bool,
    main: Option<Main>,
    track: Option<Track>,
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
        self.start < self.buffer.len()
    }

    /// The next event, none until more bytes come. An error is final and repeated.
    #[allow(clippy::should_implement_trait)] // not an iterator: none means "not yet"
    pub fn next(&mut self) -> Result<Option<NutEvent>, NutError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        loop {
            match self.step() {
                Ok(Some(event)) => return Ok(Some(event)),
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

    fn step(&mut self) -> Parse<Option<NutEvent>> {
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
            Some(_) => self.frame().map(Some).or_else(|stop| match stop {
                Stop::Bad(NutError::Frame(END_OF_RELEVANCE)) => Ok(None),
                other => Err(other),
            }),
        }
    }

    fn header_packet(&mut self) -> Parse<Option<NutEvent>> {
        let bytes = &self.buffer[self.start..];
        let mut cursor = Cursor::new(bytes);
        let startcode = u64::from_be_bytes(cursor.array()?);
        let what = match startcode {
            MAIN => "main header",
            STREAM => "stream header",
            SYNCPOINT => "syncpoint",
            _ => "packet",
        };
        let forward = cursor.v()?;
        if forward > 4096 {
            let covered = cursor.at;
            let checksum = u32::from_be_bytes(cursor.array()?);
            if crc(&bytes[..covered]) != checksum {
                return Err(NutError::Checksum(what).into());
            }
        }
        let size = usize::try_from(forward)
            .ok()
            .filter(|&size| size <= MAX_HEADER)
            .ok_or(NutError::TooLarge {
                bytes: forward,
                bound: MAX_HEADER,
            })?;
        let body = cursor.take(size)?;
        let Some((payload, checksum)) = body.split_last_chunk::<4>() else {
            return Err(header(what, "it has no checksum").into());
        };
        if crc(payload) != u32::from_be_bytes(*checksum) {
            return Err(NutError::Checksum(what).into());
        }
        let consumed = cursor.at;
        let event = match startcode {
            MAIN => self.main_header(payload.to_vec()).map(|()| None),
            STREAM => self.stream_header(payload.to_vec()),
            SYNCPOINT => {
                let payload = payload.to_vec();
                self.syncpoint(&payload).map(|()| None)
            }
            // Info, index and packets of later versions say nothing that is needed here.
            _ => Ok(None),
        };
        // The packet is whole, so what ends early in it is wrong, not late.
        let event = event.map_err(|stop| match stop {
            Stop::Short => Stop::Bad(header(what, "it ends early")),
            bad => bad,
        })?;
        self.start += consumed;
        Ok(event)
    }

    fn main_header(&mut self, payload: Vec<u8>) -> Parse<()> {
        const WHAT: &str = "main header";
        if let Some(main) = &self.main {
            return repeated(WHAT, main.payload == payload);
        }
        let mut cursor = Cursor::new(&payload);
        let version = cursor.v()?;
        if version != 3 {
            return Err(NutError::Version(version).into());
        }
        if cursor.v()? != 1 {
            return Err(header(WHAT, "it announces more than one track").into());
        }
        let max_distance = cursor.v()?.min(65_536);
        let mut time_bases = Vec::new();
        for _ in 0..cursor.v()? {
            let base = (cursor.v()?, cursor.v()?);
            let range = 1..1 << 31;
            if !range.contains(&base.0) || !range.contains(&base.1) || time_bases.len() == 64 {
                return Err(header(WHAT, "its time bases are out of range").into());
            }
            time_bases.push(base);
        }
        let codes = frame_codes(&mut cursor)?;
        let mut elided = vec![Vec::new()];
        for _ in 0..cursor.v()? {
            let bytes = cursor.vb()?;
            if bytes.is_empty() || bytes.len() > 255 || elided.len() == 128 {
                return Err(header(WHAT, "its elided headers are out of range").into());
            }
            elided.push(bytes.to_vec());
        }
        self.main = Some(Main {
            payload,
            time_bases,
            codes,
            elided,
            max_distance,
        });
        Ok(())
    }

    fn stream_header(&mut self, payload: Vec<u8>) -> Parse<Option<NutEvent>> {
        const WHAT: &str = "stream header";
        let main = self.main.as_ref().ok_or(NutError::NotNut)?;
        if let Some(track) = &self.track {
            return repeated(WHAT, track.payload == payload).map(|()| None);
        }
        let mut cursor = Cursor::new(&payload);
        if cursor.v()? != 0 {
            return Err(header(WHAT, "its number is not 0").into());
        }
        let _class = cursor.v()?;
        let _fourcc = cursor.vb()?;
        let time_base = usize::try_from(cursor.v()?)
            .ok()
            .and_then(|id| main.time_bases.get(id).copied())
            .ok_or(header(WHAT, "it names no time base"))?;
        let msb_shift = u32::try_from(cursor.v()?)
            .ok()
            .filter(|&shift| shift < 16)
            .ok_or(header(WHAT, "its msb_pts_shift is out of range"))?;
        let _max_pts_distance = cursor.v()?;
        let decode_delay = cursor.v()?;
        let _flags = cursor.v()?;
        let codec_data = Bytes::copy_from_slice(cursor.vb()?);
        self.track = Some(Track {
            payload,
            time_base,
            msb_shift,
            last_pts: 0,
        });
        Ok(Some(NutEvent::Track(NutTrack {
            time_base,
            decode_delay,
            codec_data,
        })))
    }

    fn syncpoint(&mut self, payload: &[u8]) -> Parse<()> {
        let Some((main, track)) = self.main.as_ref().zip(self.track.as_mut()) else {
            return Err(header("syncpoint", "it stands before the headers").into());
        };
        let key_pts = Cursor::new(payload).v()?;
        let count = main.time_bases.len() as u64;
        let (value, id) = (key_pts / count, key_pts % count);
        let from = usize::try_from(id)
            .ok()
            .and_then(|id| main.time_bases.get(id))
            .ok_or(header("syncpoint", "it names no time base"))?;
        let scaled = u128::from(value) * u128::from(from.0) * u128::from(track.time_base.1)
            / (u128::from(from.1) * u128::from(track.time_base.0));
        track.last_pts =
            i64::try_from(scaled).map_err(|_| header("syncpoint", "its time is out of range"))?;
        Ok(())
    }

    fn frame(&mut self) -> Parse<NutEvent> {
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
        let elided = &main.elided[frame.elided];
        if frame.size > self.max_packet as u64 {
            return Err(NutError::TooLarge {
                bytes: frame.size,
                bound: self.max_packet,
            }
            .into());
        }
        let size = usize::try_from(frame.size).map_err(|_| NutError::Frame("its size"))?;
        let mut cursor = Cursor::new(bytes);
        cursor.take(frame.header_bytes)?;
        let rest = size
            .checked_sub(elided.len())
            .ok_or(NutError::Frame("it is smaller than its elided header"))?;
        let payload = cursor.take(rest)?;
        let consumed = cursor.at;
        let data = if elided.is_empty() {
            Bytes::copy_from_slice(payload)
        } else {
            Bytes::from([elided, payload].concat())
        };
        self.start += consumed;
        track.last_pts = frame.pts;
        if frame.flags & FLAG_EOR != 0 {
            return Err(NutError::Frame(END_OF_RELEVANCE).into());
        }
        Ok(NutEvent::Packet(NutPacket {
            pts: u64::try_from(frame.pts).map_err(|_| NutError::Frame("its time is negative"))?,
            keyframe: frame.flags & FLAG_KEY != 0,
            data,
        }))
    }
}

/// A frame without a picture, which marks a track's end; it is skipped.
const END_OF_RELEVANCE: &str = "it marks the end of relevance";

fn header(what: &'static str, why: &'static str) -> NutError {
    NutError::Header { what, why }
}

/// FFmpeg repeats its headers as a stream grows; they may not change.
fn repeated(what: &'static str, same: bool) -> Parse<()> {
    if same {
        Ok(())
    } else {
        Err(header(what, "it differs from the first one").into())
    }
}

#[cfg(test)]
#[path = "nut_tests.rs"]
mod tests;
