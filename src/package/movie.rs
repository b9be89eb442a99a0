//! One file of many segments: a movie (ISO/IEC 14496-12) of fragments that were cut for a window, each with its place in the file's own time.
//! What stands before the first fragment follows from the segments' lengths alone, so that a file begins at once, however long it is.

use bytes::Bytes;

use super::boxes::BoxWriter;
use super::init::{movie_header, track, track_extends};
use crate::sample::TrackDescription;

/// The header of a box: its size and its type.
pub const BOX_HEADER: usize = 8;

/// A segment of a movie, all tracks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The bytes of all its fragments.
    pub bytes: u32,
    /// How long it is shown, in the first track's timescale.
    pub duration: u32,
}

/// What stands before the fragments of a movie of these tracks, which are numbered from 1: `ftyp`, `moov` and `sidx`. The segments of
/// `references`, each of which begins with a keyframe, follow one another.
pub fn movie_start(tracks: &[&TrackDescription], references: &[Reference]) -> Bytes {
    let Some(first) = tracks.first() else {
        return Bytes::new();
    };
    let duration = references.iter().map(|one| u64::from(one.duration)).sum();
    let mut b = BoxWriter::with_capacity(2048 + 12 * references.len());
    b.container(*b"ftyp", |b| {
        b.raw(b"iso6");
        b.u32(0);
        b.raw(b"iso6mp41dash");
    });
    let numbered = || (1..).zip(tracks);
    b.container(*b"moov", |b| {
        let next = u32::try_from(tracks.len()).unwrap_or(u32::MAX - 1) + 1;
        movie_header(b, first, next);
        for (id, description) in numbered() {
            track(b, description, id);
        }
        b.container(*b"mvex", |b| {
            b.full(*b"mehd", 1, 0, |b| b.u64(duration));
            for (id, description) in numbered() {
                track_extends(b, description, id);
            }
        });
    });
    segment_index(&mut b, first.timescale(), references);
    b.into_bytes()
}

// ISO/IEC 14496-12, 8.16.3.
fn segment_index(b: &mut BoxWriter, timescale: u32, references: &[Reference]) {
    const STARTS_WITH_SAP_OF_TYPE_1: u32 = 0x9000_0000;
    b.full(*b"sidx", 1, 0, |b| {
        b.u32(1); // reference_ID: the first track
        b.u32(timescale);
        b.u64(0); // earliest_presentation_time
        b.u64(0); // first_offset: the fragments follow
        b.u16(0);
        b.u16(u16::try_from(references.len()).unwrap_or(u16::MAX));
        for reference in references.iter().take(usize::from(u16::MAX)) {
            b.u32(reference.bytes & 0x7fff_ffff);
            b.u32(reference.duration);
            b.u32(STARTS_WITH_SAP_OF_TYPE_1);
        }
    });
}

/// Where a window's fragment has its place in a movie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoviePlace {
    /// The track's number in the movie.
    pub track: u32,
    /// The decode time in the window at which...
    pub from: u64,
    /// ...the movie has this one, in the track's timescale.
    pub to: u64,
    /// The fragment's number in the movie.
    pub sequence: u32,
}

/// The header at the beginning of `bytes`: the box's size and type.
///
/// # Errors
/// When it is none that a packager of ours has written.
pub fn box_header(bytes: &[u8]) -> Result<(u32, [u8; 4]), NoFragment> {
    match bytes.first_chunk::<BOX_HEADER>() {
        Some([a, b, c, d, kind @ ..]) => {
            let size = u32::from_be_bytes([*a, *b, *c, *d]);
            match size as usize >= BOX_HEADER {
                true => Ok((size, *kind)),
                false => Err(NoFragment),
            }
        }
        None => Err(NoFragment),
    }
}

/// Bytes that are not what a packager of ours has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the file holds something else than a segment of ours: it was changed, or the disk is failing"
)]
pub struct NoFragment;

/// Gives the `moof` box `moof` its place in a movie.
///
/// # Errors
/// When it is none of ours.
pub fn put_in_place(moof: &mut [u8], place: MoviePlace) -> Result<(), NoFragment> {
    // As super::chunk writes it: moof, mfhd, traf, tfhd, tfdt, trun.
    const SEQUENCE: usize = 8 + 12;
    const TRACK: usize = 8 + 16 + 8 + 12;
    const DECODE_TIME: usize = 8 + 16 + 8 + 20 + 12;
    let kind = |at: usize, kind: &[u8; 4]| moof.get(at + 4..at + 8) == Some(kind.as_slice());
    let ours = kind(0, b"moof")
        && kind(8, b"mfhd")
        && kind(24, b"traf")
        && kind(32, b"tfhd")
        && kind(52, b"tfdt");
    let decode_time = moof
        .get(DECODE_TIME..DECODE_TIME + 8)
        .and_then(|bytes| bytes.first_chunk());
    let (true, Some(decode_time)) = (ours, decode_time) else {
        return Err(NoFragment);
    };
    let decode_time = u64::from_be_bytes(*decode_time);
    let moved = decode_time.checked_sub(place.from).ok_or(NoFragment)? + place.to;
    moof[SEQUENCE..SEQUENCE + 4].copy_from_slice(&place.sequence.to_be_bytes());
    moof[TRACK..TRACK + 4].copy_from_slice(&place.track.to_be_bytes());
    moof[DECODE_TIME..DECODE_TIME + 8].copy_from_slice(&moved.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::package::{CopiedPlace, copied_part};
    use crate::picture::Size;
    use crate::sample::{AudioFormat, Sample};
    use crate::tick::{Framerate, Grid, SegmentNumber, UnixTime};

    fn part(decode_time: u64) -> Bytes {
        let sample = Sample {
            track: 0,
            decode_time,
            duration: 3000,
            composition_offset: 0,
            keyframe: true,
            data: Bytes::from_static(b"picture"),
        };
        let grid = Grid::copied(Duration::from_secs(2), None);
        let place = CopiedPlace {
            segment: SegmentNumber(7),
            number: 0,
            last: true,
        };
        let made = copied_part(&grid, place, &[sample], UnixTime::default());
        made.unwrap().bytes
    }

    /// The boxes of `bytes`: type and whole content.
    fn boxes(mut bytes: &[u8]) -> Vec<([u8; 4], Vec<u8>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (size, kind) = box_header(bytes).unwrap();
            let (whole, rest) = bytes.split_at(size as usize);
            found.push((kind, whole.to_vec()));
            bytes = rest;
        }
        found
    }

    #[test]
    fn a_fragment_is_moved_and_nothing_else_of_it_changes() {
        let place = MoviePlace {
            track: 2,
            from: 900_000,
            to: 90,
            sequence: 12,
        };
        let moof = |decode_time| {
            let boxes = boxes(&part(decode_time));
            let (_, moof) = boxes.into_iter().find(|(kind, _)| kind == b"moof").unwrap();
            moof
        };
        let (mut moved, plain) = (moof(900_450), moof(540));
        put_in_place(&mut moved, place).unwrap();
        let changed = moved.iter().zip(&plain).filter(|(a, b)| a != b).count();
        assert_eq!(changed, 2, "its number and its track");
        assert!(
            put_in_place(&mut moof(10), place).is_err(),
            "it is before the movie"
        );
    }

    fn video() -> TrackDescription {
        TrackDescription {
            sample_entry: Bytes::from_static(b"\0\0\0\x08avc1"),
            codecs: "avc1.64001f".to_owned(),
            size: Size::new(640, 360),
            framerate: Framerate::new(30, 1).unwrap(),
            audio: None,
        }
    }

    #[test]
    fn a_movie_says_how_long_it_is_and_where_each_segment_is() {
        let audio = TrackDescription {
            audio: Some(AudioFormat {
                channels: 2,
                frame: NonZeroU32::new(1024).unwrap(),
                copied_rate: None,
            }),
            ..video()
        };
        let one = Reference {
            bytes: 1000,
            duration: 60,
        };
        let start = movie_start(&[&video(), &audio], &[one; 3]);
        let boxes = boxes(&start);
        let kinds: Vec<_> = boxes.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [*b"ftyp", *b"moov", *b"sidx"]);
        let moov = &boxes[1].1;
        let at = moov.windows(4).position(|bytes| bytes == b"mehd").unwrap();
        assert_eq!(moov[at + 8..at + 16], 180_u64.to_be_bytes());
        let tracks = moov.windows(4).filter(|bytes| *bytes == b"trak").count();
        assert_eq!(tracks, 2);
        assert_eq!(boxes[2].1.len(), 8 + 4 + 8 + 16 + 4 + 3 * 12);
    }

    proptest! {
        #[test]
        fn what_is_no_fragment_is_refused_without_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = box_header(&bytes);
            let place = MoviePlace { track: 1, from: 0, to: 0, sequence: 0 };
            prop_assert!(put_in_place(&mut bytes, place).is_err());
        }
    }
}
