//! Init segments (ISO/IEC 23000-19, 7.3.1): what a player needs of a track before its first part. They depend on
//! the track's description alone, so that equal encodings have equal init segments, on every machine and after
//! every restart.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::boxes::BoxWriter;
use crate::sample::TrackDescription;
use crate::window::TrackInit;

/// The `track_ID` of every track: each is alone in its files.
pub(super) const TRACK_ID: u32 = 1;

/// The identity matrix of `mvhd` and `tkhd`: 16.16 fixed point, the last column 2.30.
const UNITY_MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// `und`, three letters of five bits each (ISO/IEC 14496-12, 8.4.2.3).
const LANGUAGE_UNDETERMINED: u16 = 0x55c4;

impl TrackInit {
    /// The encoding that `description` describes: its init segment and that one's version.
    pub fn new(description: TrackDescription) -> Self {
        let init = init_segment(&description);
        Self {
            version: init_version(&init),
            description,
            init,
        }
    }
}

/// The version of an init segment: the first eight bytes of its SHA-256 in lower-case hexadecimal. Its file is
/// `init-{version}.mp4`.
pub fn init_version(init: &Bytes) -> String {
    let digest = Sha256::digest(init);
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The init segment of a track: `ftyp` and a `moov` without samples. The timescale is the framerate's numerator, or audio's sample rate.
pub fn init_segment(track: &TrackDescription) -> Bytes {
    let mut b = BoxWriter::with_capacity(640 + track.sample_entry.len());
    b.container(*b"ftyp", |b| {
        b.raw(b"iso6");
        b.u32(0);
        b.raw(b"iso6cmfcmp41");
    });
    b.container(*b"moov", |b| {
        movie_header(b, track, TRACK_ID + 1);
        self::track(b, track, TRACK_ID);
        b.container(*b"mvex", |b| track_extends(b, track, TRACK_ID));
    });
    b.into_bytes()
}

// ISO/IEC 14496-12, 8.2.2. No times of creation: they would make equal encodings differ.
pub(super) fn movie_header(b: &mut BoxWriter, track: &TrackDescription, next_track: u32) {
    b.full(*b"mvhd", 0, 0, |b| {
        b.zeros(8); // creation_time, modification_time
        b.u32(track.timescale());
        b.u32(0); // duration: in the parts
        b.u32(0x1_0000); // rate 1.0
        b.u16(0x100); // volume 1.0
        b.zeros(10);
        UNITY_MATRIX.into_iter().for_each(|value| b.u32(value));
        b.zeros(24);
        b.u32(next_track); // next_track_ID
    });
}

// ISO/IEC 14496-12, 8.3.1, without samples.
pub(super) fn track(b: &mut BoxWriter, track: &TrackDescription, id: u32) {
    b.container(*b"trak", |b| {
        track_header(b, track, id);
        b.container(*b"mdia", |b| media(b, track));
    });
}

// ISO/IEC 14496-12, 8.3.2.
fn track_header(b: &mut BoxWriter, track: &TrackDescription, id: u32) {
    const ENABLED_IN_MOVIE: u32 = 3;
    b.full(*b"tkhd", 0, ENABLED_IN_MOVIE, |b| {
        b.zeros(8); // creation_time, modification_time
        b.u32(id);
        b.zeros(4 + 4 + 8); // reserved, duration, reserved
        b.zeros(2 + 2); // layer, alternate_group
        b.u16(if track.audio.is_some() { 0x100 } else { 0 }); // volume
        b.zeros(2);
        UNITY_MATRIX.into_iter().for_each(|value| b.u32(value));
        b.u32(track.size.width.min(0xffff) << 16);
        b.u32(track.size.height.min(0xffff) << 16);
    });
}

fn media(b: &mut BoxWriter, track: &TrackDescription) {
    let audio = track.audio.is_some();
    b.full(*b"mdhd", 0, 0, |b| {
        b.zeros(8); // creation_time, modification_time
        b.u32(track.timescale());
        b.u32(0); // duration
        b.u16(LANGUAGE_UNDETERMINED);
        b.u16(0);
    });
    b.full(*b"hdlr", 0, 0, |b| {
        b.u32(0);
        b.raw(if audio { b"soun" } else { b"vide" });
        b.zeros(12);
        b.raw(if audio { b"audio\0" } else { b"video\0" });
    });
    b.container(*b"minf", |b| {
        if audio {
            b.full(*b"smhd", 0, 0, |b| b.zeros(4)); // balance, reserved
        } else {
            b.full(*b"vmhd", 0, 1, |b| b.zeros(8)); // graphicsmode copy, opcolor
        }
        b.container(*b"dinf", |b| {
            b.full(*b"dref", 0, 0, |b| {
                b.u32(1);
                b.full(*b"url ", 0, 1, |_| ()); // the media is in this file
            });
        });
        b.container(*b"stbl", |b| sample_table(b, &track.sample_entry));
    });
}

// The sample entry, and the tables that a fragmented file leaves empty (ISO/IEC 23000-19, 7.5.12).
fn sample_table(b: &mut BoxWriter, sample_entry: &[u8]) {
    b.full(*b"stsd", 0, 0, |b| {
        b.u32(1);
        b.raw(sample_entry);
    });
    b.full(*b"stts", 0, 0, |b| b.u32(0));
    b.full(*b"stsc", 0, 0, |b| b.u32(0));
    b.full(*b"stsz", 0, 0, |b| b.zeros(8));
    b.full(*b"stco", 0, 0, |b| b.u32(0));
}

// ISO/IEC 14496-12, 8.8.3.
pub(super) fn track_extends(b: &mut BoxWriter, track: &TrackDescription, id: u32) {
    b.full(*b"trex", 0, 0, |b| {
        b.u32(id);
        b.u32(1); // default_sample_description_index
        b.u32(track.sample_duration()); // default_sample_duration
        b.u32(0); // default_sample_size
        b.u32(0); // default_sample_flags
    });
}
