//! What is published of a stream that is not encoded here: the track that its source is, and which of its samples decoding can start at. Pure.

use bytes::{Bytes, BytesMut};

use super::bitstream::NalCodec;
use super::description::{
    Configuration, VISUAL_SAMPLE_ENTRY, boxes, codecs, sample_entry_configuration,
};
use crate::picture::Size;
use crate::sample::TrackDescription;
use crate::tick::Framerate;

/// Parameter set types of an `hvcC` whose arrays are said to be complete: VPS, SPS, PPS.
const HEVC_SETS: std::ops::RangeInclusive<u8> = 32..=34;

/// Why a source can't be copied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CopyError {
    /// It is of another codec than can be.
    #[error("its pictures are {0}: only H.264 and HEVC can be copied")]
    Codec(String),
    /// FFmpeg's muxer has written something that is no sample entry.
    #[error("what FFmpeg says of its {codec} can't be published: {why}")]
    Entry {
        /// The codec.
        codec: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// A sample is not what its track says.
    #[error("a picture is no valid {codec}: {why}")]
    Sample {
        /// The codec.
        codec: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

/// A copied track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopiedTrack {
    /// The sample entry as it is published.
    sample_entry: Bytes,
    codecs: String,
    size: Size,
    codec: NalCodec,
    parameter_sets: Vec<Vec<u8>>,
}

/// What a sample that the source calls a keyframe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keyframe {
    /// Decoding can start there; else it is of an open group of pictures: some after it need those before it.
    pub(crate) idr: bool,
    /// It brings other parameter sets than the track has.
    pub(crate) changed: bool,
}

impl CopiedTrack {
    /// The track of a sample entry as FFmpeg's MP4 muxer writes it.
    ///
    /// # Errors
    /// When it is of another codec, or is no sample entry.
    pub(crate) fn new(entry: &Bytes) -> Result<Self, CopyError> {
        let kind = entry.get(4..8).unwrap_or_default();
        let (codec, sample_entry) = match kind {
            b"avc1" => (NalCodec::H264, entry.clone()),
            b"hvc1" => (NalCodec::Hevc, entry.clone()),
            b"hev1" => (NalCodec::Hevc, as_hvc1(entry)),
            other => return Err(CopyError::Codec(name_of(other))),
        };
        let unfit = |why| CopyError::Entry {
            codec: codec.name(),
            why,
        };
        let parameter_sets = match sample_entry_configuration(&sample_entry).map_err(unfit)? {
            Configuration::Avc { parameter_sets } | Configuration::Hevc { parameter_sets } => {
                parameter_sets
            }
            _ => return Err(unfit("it has no configuration box")),
        };
        if parameter_sets.is_empty() {
            return Err(unfit("it has no parameter sets"));
        }
        // ISO/IEC 14496-12, 12.1.3: width and height, after 24 bytes of other fields.
        let side = |at: usize| {
            let bytes = sample_entry.get(at..)?.first_chunk()?;
            Some(u32::from(u16::from_be_bytes(*bytes)))
        };
        let (width, height) = side(32)
            .zip(side(34))
            .filter(|(width, height)| *width > 0 && *height > 0)
            .ok_or_else(|| unfit("it has no size"))?;
        Ok(Self {
            codecs: codecs(&sample_entry).map_err(unfit)?,
            size: Size::new(width, height),
            sample_entry,
            codec,
            parameter_sets,
        })
    }

    /// How large its pictures are.
    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// The track of so many pictures a second, for the manifests.
    pub(crate) fn description(&self, framerate: Framerate) -> TrackDescription {
        TrackDescription {
            sample_entry: self.sample_entry.clone(),
            codecs: self.codecs.clone(),
            size: self.size,
            framerate,
            audio: None,
        }
    }

    /// Looks into a sample that the source calls a keyframe.
    ///
    /// # Errors
    /// When it holds no picture, or is cut.
    pub(crate) fn keyframe(&self, mut sample: &[u8]) -> Result<Keyframe, CopyError> {
        let unfit = |why| CopyError::Sample {
            codec: self.codec.name(),
            why,
        };
        let (mut idr, mut changed) = (None, false);
        while !sample.is_empty() {
            let (length, rest) = sample
                .split_first_chunk()
                .ok_or_else(|| unfit("a NAL unit's length is cut"))?;
            let length = u32::from_be_bytes(*length) as usize;
            let (nal, rest) = rest
                .split_at_checked(length)
                .ok_or_else(|| unfit("a NAL unit is cut"))?;
            sample = rest;
            if self.codec.is_parameter_set(nal) {
                let mut known = self.parameter_sets.iter();
                changed |= !known.any(|known| without_zeros(known) == without_zeros(nal));
            }
            idr = idr.or(self.codec.picture(nal));
        }
        let idr = idr.ok_or_else(|| unfit("it holds no picture"))?;
        Ok(Keyframe { idr, changed })
    }
}

/// A parameter set without the zeros behind it, which belong to the next start code: FFmpeg leaves one where it has found the set in a stream.
fn without_zeros(set: &[u8]) -> &[u8] {
    let end = set.iter().rposition(|byte| *byte != 0);
    &set[..end.map_or(0, |last| last + 1)]
}

/// A sample entry's name for people.
fn name_of(kind: &[u8]) -> String {
    match kind {
        b"mp4v" => "MPEG-4 or MPEG-2 video, or MJPEG".to_owned(),
        b"av01" => "AV1".to_owned(),
        b"vp09" => "VP9".to_owned(),
        other => format!("'{}'", String::from_utf8_lossy(other)),
    }
}

/// The same entry as players want it, who don't look for parameter sets among the samples (ISO/IEC 14496-15, 8.4.1.1): FFmpeg has found them all.
fn as_hvc1(entry: &Bytes) -> Bytes {
    let mut bytes = BytesMut::from(&entry[..]);
    bytes[4..8].copy_from_slice(b"hvc1");
    let mut at = VISUAL_SAMPLE_ENTRY;
    let inner = entry.get(at..).unwrap_or_default();
    let Some(whole) = boxes(inner).find_map(|(kind, whole)| {
        let found = kind == *b"hvcC";
        at += if found { 0 } else { whole.len() };
        found.then_some(whole)
    }) else {
        return bytes.freeze();
    };
    // A header of eight bytes, 22 of the configuration, the count of arrays, and each with its type in its first byte.
    let mut place = 8 + 22;
    let count = whole.get(place).copied().unwrap_or(0);
    place += 1;
    let word = |at: usize| {
        let bytes = whole.get(at..)?.first_chunk()?;
        Some(usize::from(u16::from_be_bytes(*bytes)))
    };
    for _ in 0..count {
        let Some(kind) = whole.get(place) else { break };
        if HEVC_SETS.contains(&(kind & 0x3F)) {
            bytes[at + place] |= 0x80;
        }
        let Some(units) = word(place + 1) else { break };
        place += 3;
        for _ in 0..units {
            let Some(length) = word(place) else { break };
            place += 2 + length;
        }
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(content.len() + 8).unwrap();
        [&size.to_be_bytes()[..], kind, content].concat()
    }

    fn entry(kind: &[u8; 4], configuration: &[u8; 4], content: &[u8]) -> Bytes {
        let mut fixed = vec![0; VISUAL_SAMPLE_ENTRY - 8];
        fixed[24..28].copy_from_slice(&[1, 64, 0, 180]);
        let extra = boxed(b"pasp", &[0, 0, 0, 1, 0, 0, 0, 1]);
        Bytes::from(boxed(
            kind,
            &[fixed, extra, boxed(configuration, content)].concat(),
        ))
    }

    const AVCC: &[u8] = &[
        1, 0x64, 0, 0x1F, 0xFF, 0xE1, 0, 2, 0x67, 9, 1, 0, 2, 0x68, 0xFD,
    ];

    fn hvcc() -> Vec<u8> {
        let mut hvcc = vec![0; 22];
        hvcc[21] = 3;
        let arrays = [
            &[2, 32, 0, 1, 0, 2, 0x40, 1][..],
            &[39, 0, 1, 0, 3, 0x4E, 1, 5],
        ];
        hvcc.extend(arrays.concat());
        hvcc
    }

    fn sample(nals: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for nal in nals {
            bytes.extend(u32::try_from(nal.len()).unwrap().to_be_bytes());
            bytes.extend(*nal);
        }
        bytes
    }

    #[test]
    fn a_track_is_what_its_sample_entry_says() {
        let track = CopiedTrack::new(&entry(b"avc1", b"avcC", AVCC)).unwrap();
        assert_eq!(track.size(), Size::new(320, 180));
        let described = track.description(Framerate::COPIED);
        assert_eq!(described.codecs, "avc1.64001f");
        let refused = |kind, configuration| {
            let error = CopiedTrack::new(&entry(kind, configuration, AVCC)).unwrap_err();
            error.to_string()
        };
        let codec = refused(b"av01", b"av1C");
        assert_eq!(
            codec,
            "its pictures are AV1: only H.264 and HEVC can be copied"
        );
        let nothing = refused(b"avc1", b"hvcC");
        assert!(nothing.contains("no configuration box"), "{nothing}");
    }

    #[test]
    fn hevc_is_published_with_complete_parameter_sets() {
        let before = entry(b"hev1", b"hvcC", &hvcc());
        let track = CopiedTrack::new(&before).unwrap();
        let published = track.description(Framerate::COPIED).sample_entry;
        let differing: Vec<_> = (0..before.len())
            .filter(|at| before[*at] != published[*at])
            .map(|at| (before[at], published[at]))
            .collect();
        // The name, and the array of the VPS, but not that of SEI.
        assert_eq!(differing, [(b'e', b'v'), (b'v', b'c'), (32, 0x80 | 32)]);
        assert_eq!(&published[4..8], b"hvc1");
    }

    #[test]
    fn keyframes_are_told_apart_by_their_pictures() {
        let track = CopiedTrack::new(&entry(b"avc1", b"avcC", AVCC)).unwrap();
        let look = |nals: &[&[u8]]| track.keyframe(&sample(nals));
        let keyframe = |idr, changed| Ok(Keyframe { idr, changed });
        assert_eq!(look(&[&[6, 1], &[0x65, 1]]), keyframe(true, false));
        let sets = look(&[&[0x67, 9], &[0x68, 0xFD], &[0x65]]);
        assert_eq!(sets, keyframe(true, false));
        let padded = look(&[&[0x67, 9, 0], &[0x68, 0xFD], &[0x65]]);
        assert_eq!(padded, keyframe(true, false));
        assert_eq!(look(&[&[0x41, 1]]), keyframe(false, false));
        assert_eq!(look(&[&[0x67, 8], &[0x65]]), keyframe(true, true));
        assert!(look(&[&[6, 1]]).is_err());
        assert!(track.keyframe(&[0, 0, 0, 9, 0x65]).is_err());
        assert!(track.keyframe(&[0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = CopiedTrack::new(&Bytes::from(bytes.clone()));
            for (kind, configuration) in [(b"avc1", b"avcC"), (b"hev1", b"hvcC"), (b"hvc1", b"hvcC")] {
                let _ = CopiedTrack::new(&entry(kind, configuration, &bytes));
            }
            let track = CopiedTrack::new(&entry(b"avc1", b"avcC", AVCC)).unwrap();
            let _ = track.keyframe(&bytes);
        }
    }
}
