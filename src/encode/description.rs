//! What FFmpeg's MP4 muxer wrote at the probe, taken apart: the sample entry, its configuration box, and the codecs
//! parameter that follows from it (RFC 6381, ISO/IEC 14496-15 annex E, and the AV1 and VP9 bindings). Pure.

use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;

use super::aac::Aac;
use super::bitstream::is_parameter_set;

/// The fixed fields of a visual sample entry, box header included (ISO/IEC 14496-12, 12.1.3).
pub(super) const VISUAL_SAMPLE_ENTRY: usize = 86;

/// What a sample entry's configuration box says.
pub(super) enum Configuration {
    /// `avcC`; parameter sets are sorted.
    Avc { parameter_sets: Vec<Vec<u8>> },
    /// `hvcC`; parameter sets are sorted.
    Hevc { parameter_sets: Vec<Vec<u8>> },
    /// `av1C`.
    Av1 { config_obus: Vec<u8> },
    /// `vpcC`.
    Vp9 { profile: u8 },
    /// A codec that nothing is known of here.
    Other,
}

/// The first sample entry of the first track in an MP4 file.
pub(crate) fn sample_entry(file: &[u8]) -> Result<Bytes, &'static str> {
    let mut bytes = file;
    for name in [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"] {
        bytes = boxes(bytes)
            .find(|(kind, _)| kind == name)
            .map(|(_, whole)| &whole[8..])
            .ok_or("it has no moov/trak/mdia/minf/stbl/stsd")?;
    }
    let entries = bytes.get(8..).ok_or("its stsd is cut")?;
    let (_, entry) = boxes(entries).next().ok_or("its stsd is empty")?;
    Ok(Bytes::copy_from_slice(entry))
}

/// The configuration in a sample entry.
pub(super) fn sample_entry_configuration(entry: &[u8]) -> Result<Configuration, &'static str> {
    let kind = entry.get(4..8).ok_or("it is cut")?;
    let find = |name: &[u8; 4]| {
        boxes(entry.get(VISUAL_SAMPLE_ENTRY..).unwrap_or(&[]))
            .find(|(kind, _)| kind == name)
            .map(|(_, whole)| &whole[8..])
            .ok_or("it has no configuration box")
    };
    Ok(match kind {
        b"avc1" => Configuration::Avc {
            parameter_sets: avc_parameter_sets(find(b"avcC")?).ok_or("its avcC is cut")?,
        },
        b"hvc1" => Configuration::Hevc {
            parameter_sets: hevc_parameter_sets(find(b"hvcC")?).ok_or("its hvcC is cut")?,
        },
        b"av01" => Configuration::Av1 {
            config_obus: find(b"av1C")?.get(4..).ok_or("its av1C is cut")?.to_vec(),
        },
        b"vp09" => Configuration::Vp9 {
            profile: *find(b"vpcC")?.get(4).ok_or("its vpcC is cut")?,
        },
        _ => Configuration::Other,
    })
}

/// The codecs parameter of a sample entry.
pub(crate) fn codecs(entry: &[u8]) -> Result<String, &'static str> {
    let kind = entry.get(4..8).ok_or("it is cut")?;
    let find = |name: &[u8; 4]| {
        boxes(entry.get(VISUAL_SAMPLE_ENTRY..).unwrap_or(&[]))
            .find(|(kind, _)| kind == name)
            .map(|(_, whole)| &whole[8..])
            .ok_or("it has no configuration box")
    };
    match kind {
        b"avc1" => match find(b"avcC")? {
            [_, profile, compatibility, level, ..] => {
                Ok(format!("avc1.{profile:02x}{compatibility:02x}{level:02x}"))
            }
            _ => Err("its avcC is cut"),
        },
        b"hvc1" => hevc_codecs(find(b"hvcC")?).ok_or("its hvcC is cut"),
        b"av01" => match find(b"av1C")? {
            [_, profile_level, flags, ..] => {
                let (profile, level) = (profile_level >> 5, profile_level & 31);
                let tier = if flags >> 7 == 1 { 'H' } else { 'M' };
                let depth = match (flags >> 6 & 1, flags >> 5 & 1) {
                    (0, _) => 8,
                    (_, 0) => 10,
                    _ => 12,
                };
                Ok(format!("av01.{profile}.{level:02}{tier}.{depth:02}"))
            }
            _ => Err("its av1C is cut"),
        },
        b"vp09" => match find(b"vpcC")? {
            [_, _, _, _, profile, level, depth, ..] => {
                Ok(format!("vp09.{profile:02}.{level:02}.{:02}", depth >> 4))
            }
            _ => Err("its vpcC is cut"),
        },
        _ => std::str::from_utf8(kind)
            .map(str::to_owned)
            .map_err(|_| "its name is not text"),
    }
}

/// The fixed fields of an audio sample entry, box header included (ISO/IEC 14496-12, 12.2.3).
const AUDIO_SAMPLE_ENTRY: usize = 36;

/// The configuration box `name` of an audio sample entry.
fn audio_configuration<'a>(entry: &'a [u8], name: &[u8; 4]) -> Result<&'a [u8], &'static str> {
    boxes(entry.get(AUDIO_SAMPLE_ENTRY..).unwrap_or(&[]))
        .find(|(kind, _)| kind == name)
        .map(|(_, whole)| &whole[8..])
        .ok_or("it has no configuration box")
}

/// The codecs parameter of an audio sample entry.
pub(super) fn audio_codecs(entry: &[u8]) -> Result<String, &'static str> {
    match entry.get(4..8).ok_or("it is cut")? {
        b"mp4a" => {
            let specific = decoder_config(entry)?.specific;
            let aac = Aac::parse(specific).map_err(|_| "its esds is cut or strange")?;
            Ok(format!("mp4a.40.{}", aac.kind))
        }
        b"Opus" => {
            opus_pre_skip(entry).ok_or("its dOps is cut")?;
            Ok("opus".to_owned())
        }
        _ => Err("it is neither AAC nor Opus"),
    }
}

/// What the `esds` of an `mp4a` says of its decoder (ISO/IEC 14496-1, 7.2.6).
pub(super) struct DecoderConfig<'a> {
    /// What the samples are; 0x40 for AAC.
    pub(super) object_type: u8,
    /// Where in the sample entry its buffer's size and its bitrates stand.
    pub(super) rates: Range<usize>,
    /// Of AAC: its AudioSpecificConfig; empty if there is none.
    pub(super) specific: &'a [u8],
}

/// The decoder's configuration in an `mp4a` sample entry.
pub(super) fn decoder_config(entry: &[u8]) -> Result<DecoderConfig<'_>, &'static str> {
    let esds = audio_configuration(entry, b"esds")?;
    let before = boxes(entry.get(AUDIO_SAMPLE_ENTRY..).unwrap_or_default())
        .take_while(|(kind, _)| kind != b"esds")
        .map(|(_, whole)| whole.len());
    let end = AUDIO_SAMPLE_ENTRY + before.sum::<usize>() + 8 + esds.len();
    descriptors(esds.get(4..).unwrap_or_default(), end).ok_or("its esds is cut")
}

/// The decoder's configuration among descriptors that end at byte `end` of the sample entry; nothing is specific to MP3.
fn descriptors(mut descriptors: &[u8], end: usize) -> Option<DecoderConfig<'_>> {
    const ES: u8 = 3;
    const DECODER_CONFIG: u8 = 4;
    const DECODER_SPECIFIC: u8 = 5;
    let mut decoder = None;
    while let Some((tag, size)) = descriptor(&mut descriptors) {
        match tag {
            // Its id and flags, and then descriptors again.
            ES => {
                take(&mut descriptors, 3)?;
            }
            DECODER_CONFIG => {
                let fixed = take(&mut descriptors, 13)?;
                let after = end - descriptors.len();
                decoder = Some(DecoderConfig {
                    object_type: fixed[0],
                    rates: after - 11..after,
                    specific: &[],
                });
            }
            DECODER_SPECIFIC => {
                let specific = take(&mut descriptors, size)?;
                return Some(DecoderConfig {
                    specific,
                    ..decoder?
                });
            }
            _ => {
                take(&mut descriptors, size)?;
            }
        }
    }
    decoder
}

/// The next descriptor's tag and size.
fn descriptor(descriptors: &mut &[u8]) -> Option<(u8, usize)> {
    let tag = take(descriptors, 1)?[0];
    let mut size = 0;
    for _ in 0..4 {
        let byte = take(descriptors, 1)?[0];
        size = size << 7 | usize::from(byte & 127);
        if byte < 128 {
            break;
        }
    }
    Some((tag, size))
}

/// How many samples an Opus decoder gives before those that were encoded; none if `entry` is no Opus.
pub(super) fn opus_pre_skip(entry: &[u8]) -> Option<u16> {
    if entry.get(4..8)? != b"Opus" {
        return None;
    }
    let dops = audio_configuration(entry, b"dOps").ok()?;
    Some(u16::from_be_bytes(*dops.get(2..)?.first_chunk()?))
}

/// Whether the running encoder's headers are those that an audio sample entry was made of. Empty ones say nothing.
pub(super) fn has_codec_data(entry: &[u8], data: &[u8]) -> bool {
    match opus_pre_skip(entry) {
        // An OpusHead, whose numbers have their bytes in another order (RFC 7845, 5.1).
        Some(skip) if !data.is_empty() => data.get(10..12) == Some(&skip.to_le_bytes()),
        _ => data.is_empty() || entry.windows(data.len()).any(|window| window == data),
    }
}

/// The boxes in `bytes`, each with its name and whole; ends where one does not fit.
pub(crate) fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let size = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
        let kind = *bytes.get(4..)?.first_chunk()?;
        if size < 8 {
            return None;
        }
        let (whole, rest) = bytes.split_at_checked(size)?;
        bytes = rest;
        Some((kind, whole))
    })
}

/// Takes `count` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(head)
}

fn length_prefixed_nal<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u16::from_be_bytes(*take(bytes, 2)?.first_chunk()?);
    take(bytes, usize::from(length))
}

fn avc_parameter_sets(mut avcc: &[u8]) -> Option<Vec<Vec<u8>>> {
    let head = take(&mut avcc, 5)?;
    // Samples are written with four bytes of length.
    if head[4] & 3 != 3 {
        return None;
    }
    let mut sets = Vec::new();
    for mask in [31, 255] {
        let count = take(&mut avcc, 1)?[0] & mask;
        for _ in 0..count {
            sets.push(length_prefixed_nal(&mut avcc)?.to_vec());
        }
    }
    sets.sort_unstable();
    Some(sets)
}

fn hevc_parameter_sets(mut hvcc: &[u8]) -> Option<Vec<Vec<u8>>> {
    let head = take(&mut hvcc, 23)?;
    if head[21] & 3 != 3 {
        return None;
    }
    let mut sets = Vec::new();
    for _ in 0..head[22] {
        let array = take(&mut hvcc, 3)?;
        for _ in 0..u16::from_be_bytes([array[1], array[2]]) {
            let nal = length_prefixed_nal(&mut hvcc)?;
            if is_parameter_set(true, array[0] & 0x3F) {
                sets.push(nal.to_vec());
            }
        }
    }
    sets.sort_unstable();
    Some(sets)
}

/// ISO/IEC 14496-15, E.3: profile space and number, compatibility with its bits reversed, tier and level, constraints.
fn hevc_codecs(hvcc: &[u8]) -> Option<String> {
    let head = hvcc.get(..13)?;
    let space = ["", "A", "B", "C"][usize::from(head[1] >> 6)];
    let profile = head[1] & 31;
    let tier = if head[1] >> 5 & 1 == 1 { 'H' } else { 'L' };
    let compatibility = u32::from_be_bytes(*head[2..].first_chunk()?).reverse_bits();
    let mut text = format!("hvc1.{space}{profile}.{compatibility:X}.{tier}{}", head[12]);
    let constraints = &head[6..12];
    let used = constraints.iter().rposition(|&byte| byte != 0);
    for byte in constraints.iter().take(used.map_or(0, |last| last + 1)) {
        write!(text, ".{byte:X}").ok()?;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn boxed(kind: &[u8; 4], payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len() + 8).unwrap();
        [&size.to_be_bytes()[..], kind, payload].concat()
    }

    fn entry(kind: &[u8; 4], configuration: &[u8; 4], payload: &[u8]) -> Vec<u8> {
        let fixed = vec![0; VISUAL_SAMPLE_ENTRY - 8];
        boxed(kind, &[fixed, boxed(configuration, payload)].concat())
    }

    #[test]
    fn codecs_follow_from_the_configuration() {
        let avc = entry(b"avc1", b"avcC", &[1, 0x64, 0, 0x1F, 0xFF]);
        assert_eq!(codecs(&avc).unwrap(), "avc1.64001f");
        let mut hvcc = vec![1, 0x01, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 0x5D];
        assert_eq!(
            codecs(&entry(b"hvc1", b"hvcC", &hvcc)).unwrap(),
            "hvc1.1.6.L93.90"
        );
        hvcc[1] = 0x22;
        hvcc[6..12].fill(0);
        assert_eq!(
            codecs(&entry(b"hvc1", b"hvcC", &hvcc)).unwrap(),
            "hvc1.2.6.H93"
        );
        let av1 = entry(b"av01", b"av1C", &[0x81, 0x08, 0x0C, 0]);
        assert_eq!(codecs(&av1).unwrap(), "av01.0.08M.08");
        let vp9 = entry(b"vp09", b"vpcC", &[1, 0, 0, 0, 0, 31, 0x82, 1, 1, 1]);
        assert_eq!(codecs(&vp9).unwrap(), "vp09.00.31.08");
    }

    #[test]
    fn parameter_sets_are_read_from_avcc() {
        let avcc = [
            1, 0x64, 0, 0x1F, 0xFF, 0xE1, 0, 2, 0x67, 9, 1, 0, 1, 0x68, 0xFD,
        ];
        let Ok(Configuration::Avc { parameter_sets }) =
            sample_entry_configuration(&entry(b"avc1", b"avcC", &avcc))
        else {
            panic!("it is an avc1")
        };
        assert_eq!(parameter_sets, [vec![0x67, 9], vec![0x68]]);
        assert!(sample_entry_configuration(&entry(b"avc1", b"avcC", &avcc[..9])).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = sample_entry(&boxed(b"moov", &boxed(b"trak", &bytes)));
            for (kind, configuration) in [(b"avc1", b"avcC"), (b"hvc1", b"hvcC"), (b"av01", b"av1C"), (b"vp09", b"vpcC")] {
                let entry = entry(kind, configuration, &bytes);
                let _ = codecs(&entry);
                let _ = sample_entry_configuration(&entry);
            }
        }
    }
}
