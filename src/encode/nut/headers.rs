//! NUT's headers and syncpoints: what they must say before any packet is believed.

use bytes::Bytes;

use super::cursor::{Cursor, Parse, Stop, crc};
use super::frame::frame_codes;
use super::{MAIN, Main, NutError, NutHead, NutTrack, Reader, STREAM, SYNCPOINT, Track, header};

/// The stream class of video.
const PICTURES: u64 = 0;

/// Headers, info and syncpoints: far below a mebibyte in any file.
const MAX_HEADER: usize = 1 << 20;
impl Reader {
    pub(super) fn header_packet(&mut self) -> Parse<Option<NutHead>> {
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

    fn stream_header(&mut self, payload: Vec<u8>) -> Parse<Option<NutHead>> {
        const WHAT: &str = "stream header";
        let main = self.main.as_ref().ok_or(NutError::NotNut)?;
        if let Some(track) = &self.track {
            return repeated(WHAT, track.payload == payload).map(|()| None);
        }
        let mut cursor = Cursor::new(&payload);
        if cursor.v()? != 0 {
            return Err(header(WHAT, "its number is not 0").into());
        }
        let class = cursor.v()?;
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
        let size = match class {
            PICTURES => Some((side(cursor.v()?)?, side(cursor.v()?)?)),
            _ => None,
        };
        self.track = Some(Track {
            payload,
            time_base,
            msb_shift,
            last_pts: 0,
        });
        Ok(Some(NutHead::Track(NutTrack {
            time_base,
            decode_delay,
            codec_data,
            size,
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
}

/// A side of a track's pictures.
fn side(pixels: u64) -> Result<u32, NutError> {
    u32::try_from(pixels).map_err(|_| header("stream header", "its picture's size is out of range"))
}

/// FFmpeg repeats its headers as a stream grows; they may not change.
fn repeated(what: &'static str, same: bool) -> Parse<()> {
    if same {
        Ok(())
    } else {
        Err(header(what, "it differs from the first one").into())
    }
}
