//! Real samples for tests, from FFmpeg.

use std::process::{Command, Stdio};

use bytes::Bytes;
use mp4_atom::{Any, DecodeMaybe, Header, ReadFrom};

use crate::picture::Size;
use crate::tick::Framerate;

/// FFmpeg's encoding of a test picture: the sample entry and every sample's bytes, from its fragmented MP4.
pub(crate) fn encode(
    rate: Framerate,
    frames: u32,
    gop: u32,
    size: Size,
) -> (Bytes, Vec<(Bytes, bool)>) {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i"])
        .arg(format!("testsrc2=size={size}:rate={rate}"))
        .args(["-frames:v", &frames.to_string(), "-pix_fmt", "yuv420p"])
        .args([
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-tune",
            "zerolatency",
        ])
        .args([
            "-g",
            &gop.to_string(),
            "-keyint_min",
            &gop.to_string(),
            "-bf",
            "0",
        ])
        .args([
            "-color_primaries",
            "bt709",
            "-color_trc",
            "bt709",
            "-colorspace",
            "bt709",
        ])
        .args(["-movflags", "+frag_keyframe+empty_moov+default_base_moof"])
        .args(["-f", "mp4", "-"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let bytes = Bytes::from(output.stdout);
    let find = |kind: &[u8; 4]| bytes.windows(4).position(|at| at == kind).unwrap() - 4;
    let entry_at = find(b"avc1");
    let size = u32::from_be_bytes(bytes[entry_at..entry_at + 4].try_into().unwrap());
    let sample_entry = bytes.slice(entry_at..entry_at + size as usize);
    let mut samples = Vec::new();
    let (mut at, mut moof_at) = (0, 0);
    while at < bytes.len() {
        let mut rest = &bytes[at..];
        let header = Header::read_from(&mut rest).unwrap();
        let size = header.size.unwrap() + 8;
        if &header.kind.to_string() == "moof" {
            moof_at = at;
            let Any::Moof(moof) = Any::decode_maybe(&mut &bytes[at..at + size])
                .unwrap()
                .unwrap()
            else {
                unreachable!("the header says moof");
            };
            let traf = &moof.traf[0];
            let mut sample_at =
                moof_at + usize::try_from(traf.trun[0].data_offset.unwrap()).unwrap();
            for (index, entry) in traf.trun[0].samples.iter().enumerate() {
                let size = entry.size.or(traf.tfhd.default_sample_size).unwrap() as usize;
                samples.push((bytes.slice(sample_at..sample_at + size), index == 0));
                sample_at += size;
            }
        }
        at += size;
    }
    assert!(moof_at > 0);
    (sample_entry, samples)
}
