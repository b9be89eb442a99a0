//! FFmpeg's fragmented MP4 as it comes out of a pipe: the track's sample entry, and then samples with their times. It is what a copied stream
//! is read from, because FFmpeg's own muxer stores samples as they are published, and says when each is decoded and shown. Pure.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::encode::description;

/// Boxes that are no media are smaller.
const MOST_HEADERS: usize = 1 << 20;
/// So is a sample: no picture of any camera has as many bytes.
const MOST_SAMPLE: usize = 64 << 20;

/// More samples than FFmpeg puts into one fragment, which is one.
const MOST_ROWS: usize = 4096;

/// What FFmpeg writes makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FragmentError {
    /// A box is longer than any that is expected, or shorter than its header.
    #[error("its box '{kind}' has an impossible size of {size}")]
    Size {
        /// Its name.
        kind: String,
        /// Its size.
        size: usize,
    },
    /// A box lacks something.
    #[error("{0}")]
    Cut(&'static str),
}

/// What has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fragment {
    /// The track's sample entry, once, before all samples.
    Track {
        /// As FFmpeg's muxer wrote it.
        sample_entry: Bytes,
        /// Units a second of all times.
        timescale: u32,
    },
    /// The next sample.
    Packet(Packet),
}

/// A sample with its times, in the track's timescale from the source's beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// When it is decoded.
    pub(super) decode_time: u64,
    /// How long, as far as FFmpeg knows.
    pub(super) duration: u32,
    /// How much later it is shown.
    pub(super) composition_offset: i32,
    /// Whether the source says that decoding can start here.
    pub(super) keyframe: bool,
    pub(super) data: Bytes,
}

/// What a fragment says of a sample, whose bytes are still to come.
struct Row {
    packet: Packet,
    size: usize,
}

/// The reader.
#[derive(Default)]
pub(super) struct Reader {
    buffer: BytesMut,
    /// The samples whose media has not come.
    rows: VecDeque<Row>,
    /// The media that is theirs.
    media: Bytes,
}

impl Reader {
    /// Takes more bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next of what has come; none until there is more.
    pub(super) fn next(&mut self) -> Result<Option<Fragment>, FragmentError> {
        loop {
            if !self.media.is_empty() {
                let Some(Row { mut packet, size }) = self.rows.pop_front() else {
                    return Err(FragmentError::Cut("it has media that belongs to no sample"));
                };
                if size == 0 || size > self.media.len() {
                    return Err(FragmentError::Cut("a sample is empty or cut"));
                }
                packet.data = self.media.split_to(size);
                return Ok(Some(Fragment::Packet(packet)));
            }
            let Some((kind, whole)) = self.whole_box()? else {
                return Ok(None);
            };
            match &kind {
                b"moov" => {
                    let sample_entry =
                        description::sample_entry(&whole).map_err(FragmentError::Cut)?;
                    let timescale = timescale(&whole)
                        .filter(|scale| *scale > 0)
                        .ok_or(FragmentError::Cut("its mdhd has no timescale"))?;
                    return Ok(Some(Fragment::Track {
                        sample_entry,
                        timescale,
                    }));
                }
                b"moof" => {
                    self.rows =
                        rows(&whole).ok_or(FragmentError::Cut("its moof is cut or strange"))?;
                }
                b"mdat" => {
                    // Small samples don't hold on to the whole of what was read with them.
                    self.media = Bytes::copy_from_slice(&whole[8..]);
                }
                _ => {}
            }
        }
    }

    /// The next box, once all of it is there.
    fn whole_box(&mut self) -> Result<Option<([u8; 4], Bytes)>, FragmentError> {
        let Some(header) = self.buffer.first_chunk::<8>() else {
            return Ok(None);
        };
        let [a, b, c, d, kind @ ..] = *header;
        let size = u32::from_be_bytes([a, b, c, d]) as usize;
        let most = match &kind {
            b"mdat" => MOST_SAMPLE,
            _ => MOST_HEADERS,
        };
        if size < 8 || size > most {
            let kind = String::from_utf8_lossy(&kind).into_owned();
            return Err(FragmentError::Size { kind, size });
        }
        if self.buffer.len() < size {
            return Ok(None);
        }
        Ok(Some((kind, self.buffer.split_to(size).freeze())))
    }
}

/// The content of the first box of this name among those in `bytes`.
fn inside<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    let found = description::boxes(bytes).find(|(kind, _)| kind == name);
    found.map(|(_, whole)| &whole[8..])
}

/// The timescale of the media in a `moov` (ISO/IEC 14496-12, 8.4.2).
fn timescale(moov: &[u8]) -> Option<u32> {
    let mut bytes = moov;
    for name in [b"moov", b"trak", b"mdia", b"mdhd"] {
        bytes = inside(bytes, name)?;
    }
    let at = match bytes.first()? {
        0 => 12,
        _ => 20,
    };
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

const NON_SYNC: u32 = 0x1_0000;

/// What is said of samples that say nothing themselves.
#[derive(Clone, Copy, Default)]
struct Defaults {
    duration: u32,
    size: u32,
    flags: u32,
}

/// The samples of a `moof` with one `traf` (ISO/IEC 14496-12, 8.8).
fn rows(moof: &[u8]) -> Option<VecDeque<Row>> {
    let traf = inside(inside(moof, b"moof")?, b"traf")?;
    let defaults = defaults(inside(traf, b"tfhd")?)?;
    let tfdt = inside(traf, b"tfdt")?;
    let mut decode_time = match tfdt.first()? {
        0 => u64::from(u32::from_be_bytes(*tfdt.get(4..)?.first_chunk()?)),
        _ => u64::from_be_bytes(*tfdt.get(4..)?.first_chunk()?),
    };
    let mut run = inside(traf, b"trun")?;
    let flags = flags(run)?;
    run.advance(4);
    let count = run.try_get_u32().ok()?;
    if flags & 0x1 != 0 {
        // Where its media begins: there is but one run.
        run.try_get_u32().ok()?;
    }
    let first_flags = match flags & 0x4 {
        0 => None,
        _ => Some(run.try_get_u32().ok()?),
    };
    let mut rows = VecDeque::new();
    for index in 0..count {
        let mut field = |flag: u32, default: u32| match flags & flag {
            0 => Some(default),
            _ => run.try_get_u32().ok(),
        };
        let duration = field(0x100, defaults.duration)?;
        let size = field(0x200, defaults.size)?;
        let own = field(0x400, defaults.flags)?;
        let offset = field(0x800, 0)?;
        let own = first_flags.filter(|_| index == 0).unwrap_or(own);
        rows.push_back(Row {
            packet: Packet {
                decode_time,
                duration,
                // Offsets of version 0 are unsigned, but none is as long as 2^31.
                composition_offset: offset.cast_signed(),
                keyframe: own & NON_SYNC == 0,
                data: Bytes::new(),
            },
            size: usize::try_from(size).ok()?,
        });
        if rows.len() > MOST_ROWS {
            return None;
        }
        decode_time = decode_time.checked_add(u64::from(duration))?;
    }
    Some(rows)
}

/// The flags of a full box.
fn flags(full: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*full.first_chunk()?) & 0xFF_FFFF)
}

fn defaults(mut tfhd: &[u8]) -> Option<Defaults> {
    let flags = flags(tfhd)?;
    // Version and flags, and the track's number.
    tfhd = tfhd.get(8..)?;
    if flags & 0x1 != 0 {
        tfhd.try_get_u64().ok()?;
    }
    if flags & 0x2 != 0 {
        tfhd.try_get_u32().ok()?;
    }
    let mut field = |flag: u32| match flags & flag {
        0 => Some(0),
        _ => tfhd.try_get_u32().ok(),
    };
    Some(Defaults {
        duration: field(0x8)?,
        size: field(0x10)?,
        flags: field(0x20)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(content.len() + 8).unwrap();
        [&size.to_be_bytes()[..], kind, content].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    /// As FFmpeg writes it with `frag_every_frame`.
    fn fragment(decode_time: u32, duration: u32, offset: i32, key: bool, data: &[u8]) -> Vec<u8> {
        let size = u32::try_from(data.len()).unwrap();
        let flags = if key { 0x0200_0000 } else { 0x0101_0000 };
        let tfhd = boxed(b"tfhd", &words(&[0x2_0038, 1, duration, size, flags]));
        let tfdt = boxed(b"tfdt", &words(&[0x100_0000, 0, decode_time]));
        let trun = boxed(b"trun", &words(&[0x801, 1, 108, offset.cast_unsigned()]));
        let traf = boxed(b"traf", &[tfhd, tfdt, trun].concat());
        let moof = boxed(b"moof", &[boxed(b"mfhd", &words(&[0, 1])), traf].concat());
        [moof, boxed(b"mdat", data)].concat()
    }

    #[test]
    fn samples_come_out_with_their_times_however_the_pipe_cuts_them() {
        let mut bytes = boxed(b"ftyp", b"iso5");
        bytes.extend(fragment(0, 3600, 7200, true, b"key"));
        bytes.extend(fragment(3600, 1800, -5, false, b"other"));
        for step in [1, 7, bytes.len()] {
            let mut reader = Reader::default();
            let mut packets = Vec::new();
            for chunk in bytes.chunks(step) {
                reader.push(chunk);
                while let Some(fragment) = reader.next().unwrap() {
                    let Fragment::Packet(packet) = fragment else {
                        panic!("there is no track")
                    };
                    packets.push(packet);
                }
            }
            let packet =
                |decode_time, duration, composition_offset, keyframe, data: &'static [u8]| Packet {
                    decode_time,
                    duration,
                    composition_offset,
                    keyframe,
                    data: Bytes::from_static(data),
                };
            assert_eq!(
                packets,
                [
                    packet(0, 3600, 7200, true, b"key"),
                    packet(3600, 1800, -5, false, b"other")
                ]
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |bytes: &[u8]| {
            let mut reader = Reader::default();
            reader.push(bytes);
            reader.next().unwrap_err()
        };
        let orphan = refused(&boxed(b"mdat", b"x"));
        assert!(orphan.to_string().contains("no sample"), "{orphan}");
        let endless = refused(&[0, 0, 0, 1, b'm', b'd', b'a', b't']);
        assert!(endless.to_string().contains("impossible size of 1"));
        let huge = refused(&[0xFF, 0, 0, 0, b'm', b'o', b'o', b'f']);
        assert!(huge.to_string().contains("'moof'"), "{huge}");
        let mut cut = fragment(0, 1, 0, true, b"longer");
        let mdat = cut.len() - 14;
        cut.truncate(mdat);
        cut.extend(boxed(b"mdat", b"short"));
        assert!(refused(&cut).to_string().contains("cut"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::default();
            reader.push(&boxed(b"moof", &boxed(b"traf", &bytes)));
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next() {}
        }

        #[test]
        fn any_run_of_samples_is_survived(run in proptest::collection::vec(any::<u32>(), 0..12), data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let tfhd = boxed(b"tfhd", &words(&[0x2_0038, 1, 3600, 5, 0]));
            let tfdt = boxed(b"tfdt", &words(&[0, 0]));
            let traf = boxed(b"traf", &[tfhd, tfdt, boxed(b"trun", &words(&run))].concat());
            let mut reader = Reader::default();
            reader.push(&boxed(b"moof", &traf));
            reader.push(&boxed(b"mdat", &data));
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
