//! Frames' headers, and the table of 256 codes that keeps them short.

use super::cursor::{Cursor, Parse, crc};
use super::{Main, NutError, Track, header};

pub(super) const FLAG_KEY: u64 = 1;
pub(super) const FLAG_EOR: u64 = 2;
const FLAG_CODED_PTS: u64 = 8;
const FLAG_STREAM_ID: u64 = 16;
const FLAG_SIZE_MSB: u64 = 32;
const FLAG_CHECKSUM: u64 = 64;
const FLAG_RESERVED: u64 = 128;
const FLAG_SIDE_DATA: u64 = 256;
const FLAG_HEADER_IDX: u64 = 1024;
const FLAG_MATCH_TIME: u64 = 2048;
const FLAG_CODED: u64 = 4096;
const FLAG_INVALID: u64 = 8192;

/// The specification elides headers only from small frames.
const MAX_ELIDING: u64 = 4096;

/// What one code byte stands for.
#[derive(Clone, Copy)]
pub(super) struct FrameCode {
    flags: u64,
    pts_delta: i64,
    size_mul: u64,
    stream: u64,
    size_lsb: u64,
    reserved: u64,
    header: u64,
}

/// A frame's header, read by its code.
pub(super) struct FrameHeader {
    pub(super) flags: u64,
    pub(super) pts: i64,
    pub(super) size: u64,
    pub(super) elided: usize,
    pub(super) header_bytes: usize,
}

pub(super) fn frame_header(bytes: &[u8], main: &Main, track: &Track) -> Parse<FrameHeader> {
    let mut cursor = Cursor::new(bytes);
    let [code] = cursor.array()?;
    let code = main.codes[usize::from(code)];
    let mut flags = code.flags;
    if flags & FLAG_INVALID != 0 {
        return Err(NutError::Frame("its code is not valid").into());
    }
    if flags & FLAG_CODED != 0 {
        flags ^= cursor.v()?;
    }
    let stream = match flags & FLAG_STREAM_ID {
        0 => code.stream,
        _ => cursor.v()?,
    };
    if stream != 0 {
        return Err(NutError::Frame("it belongs to an unknown track").into());
    }
    let pts = if flags & FLAG_CODED_PTS != 0 {
        let coded = i64::try_from(cursor.v()?).map_err(|_| NutError::Frame("its time"))?;
        let span = 1_i64 << track.msb_shift;
        if coded < span {
            let base = track.last_pts.wrapping_sub((span - 1) / 2);
            base.wrapping_add(coded.wrapping_sub(base) & (span - 1))
        } else {
            coded - span
        }
    } else {
        track
            .last_pts
            .checked_add(code.pts_delta)
            .ok_or(NutError::Frame("its time is out of range"))?
    };
    let mut size = code.size_lsb;
    if flags & FLAG_SIZE_MSB != 0 {
        size = cursor
            .v()?
            .checked_mul(code.size_mul)
            .and_then(|msb| msb.checked_add(size))
            .ok_or(NutError::Frame("its size is out of range"))?;
    }
    if flags & FLAG_MATCH_TIME != 0 {
        cursor.v()?;
    }
    let mut elided = code.header;
    if flags & FLAG_HEADER_IDX != 0 {
        elided = cursor.v()?;
    }
    let mut reserved = code.reserved;
    if flags & FLAG_RESERVED != 0 {
        reserved = cursor.v()?;
    }
    if reserved > 32 {
        return Err(NutError::Frame("it has too many reserved fields").into());
    }
    for _ in 0..reserved {
        cursor.v()?;
    }
    let covered = cursor.at;
    if flags & FLAG_CHECKSUM != 0 {
        let checksum = u32::from_be_bytes(cursor.array()?);
        if crc(&bytes[..covered]) != checksum {
            return Err(NutError::Checksum("frame header").into());
        }
    } else if size > 2 * main.max_distance {
        return Err(NutError::Frame("it is large and has no checksum").into());
    }
    if flags & FLAG_SIDE_DATA != 0 {
        return Err(NutError::Frame("it carries side data, which version 3 has not").into());
    }
    let elided = match elided {
        _ if size > MAX_ELIDING => 0,
        index => usize::try_from(index)
            .ok()
            .filter(|&index| index < main.elided.len())
            .ok_or(NutError::Frame("it names no elided header"))?,
    };
    Ok(FrameHeader {
        flags,
        pts,
        size,
        elided,
        header_bytes: cursor.at,
    })
}

pub(super) fn frame_codes(cursor: &mut Cursor<'_>) -> Parse<Vec<FrameCode>> {
    const WHAT: &str = "main header";
    let unused = FrameCode {
        flags: FLAG_INVALID,
        pts_delta: 0,
        size_mul: 0,
        stream: 0,
        size_lsb: 0,
        reserved: 0,
        header: 0,
    };
    let mut codes = Vec::with_capacity(256);
    let (mut pts_delta, mut size_mul, mut stream, mut elided) = (0, 1, 0, 0);
    while codes.len() < 256 {
        let flags = cursor.v()?;
        let fields = cursor.v()?;
        if fields > 0 {
            pts_delta = cursor.s()?;
        }
        if fields > 1 {
            size_mul = cursor.v()?;
        }
        if fields > 2 {
            stream = cursor.v()?;
        }
        let size = if fields > 3 { cursor.v()? } else { 0 };
        let reserved = if fields > 4 { cursor.v()? } else { 0 };
        let count = if fields > 5 {
            cursor.v()?
        } else {
            size_mul
                .checked_sub(size)
                .ok_or(header(WHAT, "its frame codes have a negative count"))?
        };
        if fields > 6 {
            let _match_time = cursor.s()?;
        }
        if fields > 7 {
            elided = cursor.v()?;
        }
        for _ in 8..fields {
            cursor.v()?;
        }
        if count == 0 || count > 256 || size_mul > 1 << 16 || size > 1 << 16 {
            return Err(header(WHAT, "its frame codes are out of range").into());
        }
        for step in 0..count {
            // 'N' begins a start code, so it is no frame code, and takes none of the count.
            if codes.len() == usize::from(b'N') {
                codes.push(unused);
            }
            if codes.len() == 256 {
                return Err(header(WHAT, "it has more than 256 frame codes").into());
            }
            codes.push(FrameCode {
                flags,
                pts_delta,
                size_mul,
                stream,
                size_lsb: size + step,
                reserved,
                header: elided,
            });
        }
    }
    Ok(codes)
}
