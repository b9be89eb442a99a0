//! From an encoder's packets to samples as MP4 stores them: Annex B becomes length-prefixed, what a sample may not hold
//! is dropped, and what the packets say of themselves is compared with what the init segment promises. Pure.

use bytes::{BufMut, Bytes, BytesMut};

use super::description::{Configuration, sample_entry_configuration};
use crate::sample::TrackDescription;

/// Why packets don't fit their track.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitstreamError {
    /// The bytes are not what the codec's specification says.
    #[error("a packet is not valid {codec}: {why}")]
    Malformed {
        /// `H.264`, `HEVC`, `AV1` or `VP9`.
        codec: &'static str,
        /// How.
        why: &'static str,
    },
    /// The running encoder's headers are not the init segment's.
    #[error("the running encoder's {codec} headers differ from those that its probe found")]
    Headers {
        /// The codec.
        codec: &'static str,
    },
    /// The container and the bitstream contradict each other.
    #[error("the container says keyframe: {container}, the {codec} bitstream says {bitstream}")]
    Keyframe {
        /// The codec.
        codec: &'static str,
        /// NUT's flag.
        container: bool,
        /// What the bitstream is.
        bitstream: bool,
    },
    /// The description is no sample entry that can be compared with.
    #[error("the track's sample entry is not valid: {0}")]
    SampleEntry(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NalCodec {
    H264,
    Hevc,
}

enum Kind {
    Nal {
        codec: NalCodec,
        parameter_sets: Vec<Vec<u8>>,
    },
    Av1 {
        sequence_header: Option<Vec<u8>>,
    },
    Vp9 {
        profile: u8,
    },
    /// Another codec, passed as it is.
    Raw,
}

/// Turns one track's packets into samples.
pub(super) struct SampleMaker {
    kind: Kind,
    /// Codec data was there and has been compared: AV1's first keyframe then needs no comparison. (SVT-AV1 writes a
    /// sequence header into its keyframes that differs from its own codec data; the latter is what the probe saw.)
    compared: bool,
}

impl SampleMaker {
    /// For samples of the track that `description` describes.
    pub(super) fn new(description: &TrackDescription) -> Result<Self, BitstreamError> {
        let kind = match sample_entry_configuration(&description.sample_entry)
            .map_err(BitstreamError::SampleEntry)?
        {
            Configuration::Avc { parameter_sets } => Kind::Nal {
                codec: NalCodec::H264,
                parameter_sets,
            },
            Configuration::Hevc { parameter_sets } => Kind::Nal {
                codec: NalCodec::Hevc,
                parameter_sets,
            },
            Configuration::Av1 { config_obus } => Kind::Av1 {
                sequence_header: sequence_header(&config_obus)?,
            },
            Configuration::Vp9 { profile } => Kind::Vp9 { profile },
            Configuration::Other => Kind::Raw,
        };
        Ok(Self {
            kind,
            compared: false,
        })
    }

    /// Compares the encoder's headers, as its container carries them, with the description. Empty ones say nothing.
    pub(super) fn check_codec_data(&mut self, data: &[u8]) -> Result<(), BitstreamError> {
        if data.is_empty() {
            return Ok(());
        }
        let (codec, same) = match &self.kind {
            Kind::Nal {
                codec,
                parameter_sets,
            } => {
                let mut found: Vec<&[u8]> = annex_b(data)
                    .filter(|nal| codec.is_parameter_set(nal))
                    .collect();
                found.sort_unstable();
                found.dedup();
                (codec.name(), found == *parameter_sets)
            }
            Kind::Av1 {
                sequence_header: expected,
            } => ("AV1", sequence_header(data)? == *expected),
            Kind::Vp9 { .. } | Kind::Raw => return Ok(()),
        };
        self.compared = true;
        same.then_some(()).ok_or(BitstreamError::Headers { codec })
    }

    /// The sample in `packet`; `keyframe` is what the container says of it.
    pub(super) fn sample(
        &mut self,
        packet: Bytes,
        keyframe: bool,
    ) -> Result<Bytes, BitstreamError> {
        let (codec, data, is_key) = match &self.kind {
            Kind::Nal {
                codec,
                parameter_sets,
            } => {
                let (data, is_key) = length_prefixed(*codec, parameter_sets, &packet)?;
                (codec.name(), data, is_key)
            }
            Kind::Av1 {
                sequence_header: expected,
            } => {
                let (data, is_key, in_band) = temporal_unit(&packet)?;
                if let Some(in_band) = in_band
                    && !self.compared
                {
                    if expected
                        .as_ref()
                        .is_some_and(|expected| *expected != in_band)
                    {
                        return Err(BitstreamError::Headers { codec: "AV1" });
                    }
                    self.compared = true;
                }
                ("AV1", data, is_key)
            }
            Kind::Vp9 { profile } => {
                let is_key = vp9_keyframe(&packet, *profile)?;
                ("VP9", packet, is_key)
            }
            Kind::Raw => return Ok(packet),
        };
        if is_key != keyframe {
            return Err(BitstreamError::Keyframe {
                codec,
                container: keyframe,
                bitstream: is_key,
            });
        }
        Ok(data)
    }
}

impl NalCodec {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::Hevc => "HEVC",
        }
    }

    fn nal_type(self, nal: &[u8]) -> u8 {
        let first = nal.first().copied().unwrap_or(0);
        match self {
            Self::H264 => first & 0x1F,
            Self::Hevc => first >> 1 & 0x3F,
        }
    }

    pub(super) fn is_parameter_set(self, nal: &[u8]) -> bool {
        is_parameter_set(self == Self::Hevc, self.nal_type(nal))
    }

    /// Whether it holds picture data, and if so whether that is an IDR picture's.
    pub(super) fn picture(self, nal: &[u8]) -> Option<bool> {
        match (self, self.nal_type(nal)) {
            (Self::H264, kind @ 1..=5) => Some(kind == 5),
            (Self::Hevc, kind @ 0..=31) => Some(kind == 19 || kind == 20),
            _ => None,
        }
    }

    /// Access unit delimiters and filler, which a sample does without.
    fn is_dropped(self, nal: &[u8]) -> bool {
        match self {
            Self::H264 => matches!(self.nal_type(nal), 9 | 12),
            Self::Hevc => matches!(self.nal_type(nal), 35 | 38),
        }
    }
}

/// Whether NAL units of this type are parameter sets: SPS and PPS (H.264), VPS, SPS and PPS (HEVC).
pub(super) const fn is_parameter_set(hevc: bool, nal_type: u8) -> bool {
    if hevc {
        matches!(nal_type, 32..=34)
    } else {
        matches!(nal_type, 7 | 8)
    }
}

/// The NAL units of an Annex B byte stream; start codes have three bytes or four, and zeros may trail.
fn annex_b(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = match start_code(bytes) {
        Some(at) => &bytes[at + 3..],
        None => &[],
    };
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = start_code(rest).unwrap_or(rest.len());
            let nal = &rest[..end];
            rest = rest.get(end + 3..).unwrap_or(&[]);
            let zeros = nal.iter().rev().take_while(|&&byte| byte == 0).count();
            let nal = &nal[..nal.len() - zeros];
            if !nal.is_empty() {
                return Some(nal);
            }
        }
        None
    })
}

/// Where the next 00 00 01 stands.
fn start_code(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            1 if bytes[at - 2] == 0 && bytes[at - 1] == 0 => return Some(at - 2),
            // Neither this byte nor the next two can end a start code.
            2.. => at += 3,
            _ => at += 1,
        }
    }
    None
}

fn length_prefixed(
    codec: NalCodec,
    parameter_sets: &[Vec<u8>],
    packet: &[u8],
) -> Result<(Bytes, bool), BitstreamError> {
    let malformed = |why| BitstreamError::Malformed {
        codec: codec.name(),
        why,
    };
    let zeros = packet.iter().take_while(|&&byte| byte == 0).count();
    if zeros < 2 || packet.get(zeros) != Some(&1) {
        return Err(malformed("it does not begin with a start code"));
    }
    let mut data = BytesMut::with_capacity(packet.len() + 16);
    let mut idr = None;
    for nal in annex_b(packet) {
        if codec.is_dropped(nal) {
            continue;
        }
        // Parameter sets live in the sample entry; repeated ones have to be the same, and go.
        if codec.is_parameter_set(nal) {
            if parameter_sets.iter().any(|known| known == nal) {
                continue;
            }
            return Err(BitstreamError::Headers {
                codec: codec.name(),
            });
        }
        if let Some(is_idr) = codec.picture(nal)
            && idr.replace(is_idr).is_some_and(|before| before != is_idr)
        {
            return Err(malformed("it mixes IDR slices with others"));
        }
        let length = u32::try_from(nal.len()).map_err(|_| malformed("a NAL unit is too long"))?;
        data.put_u32(length);
        data.put_slice(nal);
    }
    let idr = idr.ok_or(malformed("it holds no picture"))?;
    Ok((data.freeze(), idr))
}

const OBU_SEQUENCE_HEADER: u8 = 1;
const OBU_TEMPORAL_DELIMITER: u8 = 2;
const OBU_FRAME_HEADER: u8 = 3;
const OBU_FRAME: u8 = 6;
const OBU_PADDING: u8 = 15;

struct Obu<'a> {
    kind: u8,
    whole: &'a [u8],
    payload: &'a [u8],
}

/// The OBUs of a low-overhead byte stream (AV1, section 5.3); one without a size reaches to the end.
fn obus(mut bytes: &[u8]) -> impl Iterator<Item = Result<Obu<'_>, BitstreamError>> {
    std::iter::from_fn(move || {
        let (&header, _) = bytes.split_first()?;
        let whole = std::mem::take(&mut bytes);
        let mut start = 1 + usize::from(header >> 2 & 1);
        let mut end = whole.len();
        if header >> 1 & 1 == 1 {
            let Some((size, length)) = leb128(whole.get(start..).unwrap_or(&[])) else {
                return Some(Err(av1("an OBU's size is cut")));
            };
            start += length;
            end = start.saturating_add(size);
        }
        let Some(payload) = whole.get(start..end) else {
            return Some(Err(av1("an OBU is cut")));
        };
        bytes = &whole[end..];
        Some(Ok(Obu {
            kind: header >> 3 & 15,
            whole: &whole[..end],
            payload,
        }))
    })
}

fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_usize;
    for (index, &byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

const fn av1(why: &'static str) -> BitstreamError {
    BitstreamError::Malformed { codec: "AV1", why }
}

fn sequence_header(bytes: &[u8]) -> Result<Option<Vec<u8>>, BitstreamError> {
    for obu in obus(bytes) {
        let obu = obu?;
        if obu.kind == OBU_SEQUENCE_HEADER {
            return Ok(Some(obu.payload.to_vec()));
        }
    }
    Ok(None)
}

/// The sample, whether it is a keyframe, and the sequence header that it carries.
fn temporal_unit(packet: &[u8]) -> Result<(Bytes, bool, Option<Vec<u8>>), BitstreamError> {
    let mut data = BytesMut::with_capacity(packet.len());
    let mut in_band = None;
    let mut keyframe = None;
    for obu in obus(packet) {
        let obu = obu?;
        match obu.kind {
            OBU_TEMPORAL_DELIMITER | OBU_PADDING => continue,
            OBU_SEQUENCE_HEADER => in_band = Some(obu.payload.to_vec()),
            OBU_FRAME_HEADER | OBU_FRAME if keyframe.is_none() => {
                let &first = obu.payload.first().ok_or(av1("a frame has no header"))?;
                // show_existing_frame is 0, frame_type is KEY_FRAME, show_frame is 1.
                keyframe = Some(first >> 4 == 1);
            }
            _ => {}
        }
        data.put_slice(obu.whole);
    }
    let keyframe = keyframe.ok_or(av1("it holds no picture"))?;
    Ok((data.freeze(), keyframe, in_band))
}

/// Whether a VP9 frame is a keyframe (VP9 bitstream, section 6.2).
fn vp9_keyframe(packet: &[u8], expected_profile: u8) -> Result<bool, BitstreamError> {
    let malformed = |why| BitstreamError::Malformed { codec: "VP9", why };
    let &first = packet.first().ok_or(malformed("it is empty"))?;
    if first >> 6 != 2 {
        return Err(malformed("its frame marker is wrong"));
    }
    let profile = first >> 5 & 1 | (first >> 4 & 1) << 1;
    if profile != expected_profile {
        return Err(BitstreamError::Headers { codec: "VP9" });
    }
    // Profile 3 has a reserved bit first.
    let bits = if profile == 3 { first << 5 } else { first << 4 };
    let show_existing = bits >> 7 == 1;
    let non_key = bits >> 6 & 1 == 1;
    Ok(!show_existing && !non_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPS: &[u8] = &[0x67, 0x64, 0, 0x0C];
    const PPS: &[u8] = &[0x68, 0xEF];

    fn h264() -> SampleMaker {
        SampleMaker {
            kind: Kind::Nal {
                codec: NalCodec::H264,
                parameter_sets: vec![SPS.to_vec(), PPS.to_vec()],
            },
            compared: false,
        }
    }

    fn annexed(nals: &[&[u8]]) -> Bytes {
        let codes: [&[u8]; 2] = [&[0, 0, 0, 1], &[0, 0, 1]];
        let pieces = nals.iter().zip(codes.iter().cycle());
        pieces
            .flat_map(|(nal, code)| [*code, *nal].concat())
            .collect()
    }

    #[test]
    fn start_codes_become_lengths_and_delimiters_and_known_parameter_sets_go() {
        let packet = annexed(&[
            &[0x09, 0xF0],
            SPS,
            PPS,
            &[0x65, 1, 0, 2],
            &[0x65, 3],
            &[0x0C, 0xFF],
        ]);
        let sample = h264().sample(packet, true).unwrap();
        assert_eq!(
            &sample[..],
            &[0, 0, 0, 4, 0x65, 1, 0, 2, 0, 0, 0, 2, 0x65, 3]
        );
    }

    #[test]
    fn other_parameter_sets_are_an_error_in_band_and_out_of_band() {
        let other = [0x67, 0x64, 0, 0x0D];
        let error = BitstreamError::Headers { codec: "H.264" };
        let packet = annexed(&[&other, PPS, &[0x65, 1]]);
        assert_eq!(h264().sample(packet, true), Err(error.clone()));
        assert_eq!(h264().check_codec_data(&annexed(&[SPS, PPS])), Ok(()));
        assert_eq!(
            h264().check_codec_data(&annexed(&[&other, PPS])),
            Err(error.clone())
        );
        assert_eq!(h264().check_codec_data(&annexed(&[SPS])), Err(error));
    }

    #[test]
    fn a_keyframe_is_what_both_container_and_bitstream_call_one() {
        assert!(h264().sample(annexed(&[&[0x41, 1]]), false).is_ok());
        let error = h264().sample(annexed(&[&[0x41, 1]]), true);
        assert!(matches!(error, Err(BitstreamError::Keyframe { .. })));
        let mixed = h264().sample(annexed(&[&[0x65, 1], &[0x41, 1]]), true);
        assert!(matches!(mixed, Err(BitstreamError::Malformed { .. })));
        assert!(vp9_keyframe(&[0x82], 0).unwrap());
        assert!(!vp9_keyframe(&[0x86], 0).unwrap());
    }

    #[test]
    fn temporal_delimiters_go() {
        let packet = [0x12, 0x00, 0x0A, 0x01, 0x55, 0x32, 0x02, 0x10, 0x99];
        let (data, keyframe, header) = temporal_unit(&packet).unwrap();
        assert_eq!(&data[..], &packet[2..]);
        assert!(keyframe);
        assert_eq!(header, Some(vec![0x55]));
        assert!(temporal_unit(&packet[..8]).is_err());
    }

    proptest! {
        #[test]
        fn nal_units_survive_the_change_of_framing(nals in proptest::collection::vec(
            proptest::collection::vec(4..=255_u8, 1..40), 1..6,
        )) {
            let nals: Vec<Vec<u8>> = nals.into_iter().map(|nal| [vec![0x65], nal].concat()).collect();
            let refs: Vec<&[u8]> = nals.iter().map(Vec::as_slice).collect();
            let packet = annexed(&refs);
            prop_assert_eq!(annex_b(&packet).collect::<Vec<_>>(), refs);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(0..4_u8, 0..200), more in proptest::collection::vec(any::<u8>(), 0..200)) {
            for bytes in [bytes, more] {
                let _ = h264().sample(Bytes::from(bytes.clone()), true);
                let _ = h264().check_codec_data(&bytes);
                let _ = temporal_unit(&bytes);
                let _ = vp9_keyframe(&bytes, 0);
            }
        }
    }
}
