use std::process::Command;

use proptest::prelude::*;

use super::cursor::crc;
use super::*;

fn ffmpeg_nut(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i"])
        .args(arguments)
        .args(["-write_index", "0", "-f", "nut", "pipe:1"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn small() -> Vec<u8> {
    ffmpeg_nut(&[
        "testsrc2=s=64x64:r=25",
        "-frames:v",
        "40",
        "-c:v",
        "libx264",
        "-bf",
        "0",
        "-g",
        "7",
    ])
}

/// Where the first syncpoint stands, behind the headers.
fn sync(bytes: &[u8]) -> usize {
    let found = bytes
        .windows(8)
        .position(|window| window == SYNCPOINT.to_be_bytes());
    found.unwrap()
}

fn read_all(reader: &mut Reader, bytes: &[u8], step: usize) -> Result<Vec<NutEvent>, NutError> {
    let mut events = Vec::new();
    for piece in bytes.chunks(step) {
        reader.push(piece);
        while let Some(event) = reader.next()? {
            events.push(event);
        }
    }
    Ok(events)
}

fn packets(events: &[NutEvent]) -> Vec<&NutPacket> {
    events
        .iter()
        .filter_map(|event| match event {
            NutEvent::Packet(packet) => Some(packet),
            NutEvent::Track(_) => None,
        })
        .collect()
}

#[test]
fn every_packet_comes_once_however_the_bytes_are_cut() {
    let bytes = small();
    let whole = read_all(&mut Reader::new(1 << 20), &bytes, bytes.len()).unwrap();
    let NutEvent::Track(track) = &whole[0] else {
        panic!("the track comes first")
    };
    let (num, den) = track.time_base;
    assert_eq!(den % (25 * num), 0);
    assert!(track.codec_data.starts_with(&[0, 0, 0, 1, 0x67]));
    assert_eq!(track.decode_delay, 0);
    let packets = packets(&whole);
    assert_eq!(packets.len(), 40);
    for (index, packet) in packets.iter().enumerate() {
        assert_eq!(packet.pts * num * 25, index as u64 * den);
        assert_eq!(packet.keyframe, index % 7 == 0);
    }
    for step in [1, 2, 3, 7, 100, 4096] {
        let mut reader = Reader::new(1 << 20);
        assert_eq!(read_all(&mut reader, &bytes, step).unwrap(), whole);
        assert!(!reader.is_mid_packet());
    }
}

#[test]
fn a_packet_is_given_out_with_its_last_byte() {
    let bytes = small();
    let mut reader = Reader::new(1 << 20);
    let without_last = read_all(&mut reader, &bytes[..bytes.len() - 1], 4096).unwrap();
    assert_eq!(packets(&without_last).len(), 39);
    assert!(reader.is_mid_packet());
    reader.push(&bytes[bytes.len() - 1..]);
    assert!(matches!(reader.next(), Ok(Some(NutEvent::Packet(_)))));
}

#[test]
fn long_streams_of_large_frames_are_read() {
    let bytes = ffmpeg_nut(&[
        "nullsrc=s=640x360:r=30,geq=random(1)*255:128:128",
        "-frames:v",
        "40",
        "-c:v",
        "rawvideo",
        "-pix_fmt",
        "yuv420p",
    ]);
    assert!(bytes.len() > 13 << 20);
    let events = read_all(&mut Reader::new(1 << 20), &bytes, 65_536).unwrap();
    assert_eq!(packets(&events).len(), 40);
    assert!(packets(&events).iter().all(|p| p.data.len() == 345_600));
}

/// Reads by heads, and what was pushed beyond them straight from the bytes, as from a pipe.
fn read_by_heads(bytes: &[u8], step: usize) -> (Option<(u32, u32)>, Vec<NutPacket>) {
    let mut reader = Reader::new(1 << 20);
    let (mut size, mut packets, mut at) = (None, Vec::new(), 0);
    while at < bytes.len() {
        let end = bytes.len().min(at + step);
        reader.push(&bytes[at..end]);
        at = end;
        while let Some(head) = reader.head().unwrap() {
            let head = match head {
                NutHead::Track(track) => {
                    size = track.size;
                    continue;
                }
                NutHead::Packet(head) => head,
            };
            let mut data = vec![0; head.bytes];
            let taken = reader.take(&mut data);
            let rest = head.bytes - taken;
            data[taken..].copy_from_slice(&bytes[at..at + rest]);
            reader.passed(rest);
            at += rest;
            packets.push(NutPacket {
                pts: head.pts,
                keyframe: head.keyframe,
                data: data.into(),
            });
        }
    }
    assert!(!reader.is_mid_packet());
    (size, packets)
}

#[test]
fn who_takes_the_bytes_by_himself_gets_the_same_packets() {
    let raw = ffmpeg_nut(&[
        "testsrc2=s=64x36:r=25",
        "-frames:v",
        "30",
        "-c:v",
        "rawvideo",
    ]);
    for (bytes, size) in [(small(), (64, 64)), (raw, (64, 36))] {
        let whole = read_all(&mut Reader::new(1 << 20), &bytes, bytes.len()).unwrap();
        for step in [1, 7, 100, 4096] {
            let (found, by_heads) = read_by_heads(&bytes, step);
            assert_eq!(found, Some(size));
            assert!(by_heads.iter().eq(packets(&whole)), "steps of {step}");
        }
    }
}

#[test]
fn repeated_headers_are_fine_and_changed_ones_are_not() {
    let bytes = small();
    let other = ffmpeg_nut(&["testsrc2=s=80x64:r=50", "-frames:v", "1", "-c:v", "libx264"]);
    let headers = |bytes: &[u8]| bytes[FILE_ID.len()..sync(bytes)].to_vec();
    let with = |extra: &[u8]| [&bytes[..sync(&bytes)], extra, &bytes[sync(&bytes)..]].concat();
    let mut reader = Reader::new(1 << 20);
    let events = read_all(&mut reader, &with(&headers(&bytes)), 4096).unwrap();
    assert_eq!(packets(&events).len(), 40);
    let error = read_all(&mut Reader::new(1 << 20), &with(&headers(&other)), 4096).unwrap_err();
    assert!(matches!(error, NutError::Header { .. }), "{error}");
}

#[test]
fn a_packet_beyond_the_bound_is_refused_before_it_is_stored() {
    let bytes = ffmpeg_nut(&[
        "testsrc2=s=640x360",
        "-frames:v",
        "1",
        "-c:v",
        "rawvideo",
        "-pix_fmt",
        "yuv420p",
    ]);
    let mut reader = Reader::new(10_000);
    let error = read_all(&mut reader, &bytes, 512).unwrap_err();
    assert_eq!(
        error,
        NutError::TooLarge {
            bytes: 345_600,
            bound: 10_000
        }
    );
    assert_eq!(reader.next(), Err(error));
}

#[test]
fn what_is_not_nut_is_refused() {
    let mut reader = Reader::new(1000);
    reader.push(b"RIFF");
    assert_eq!(reader.next(), Err(NutError::NotNut));
}

#[test]
fn a_flipped_bit_in_a_header_is_caught_by_its_checksum() {
    let bytes = small();
    // From behind the main header's start code and size to behind its checksum.
    for at in FILE_ID.len() + 9..FILE_ID.len() + 9 + 70 {
        let mut broken = bytes.clone();
        broken[at] ^= 0x10;
        let error = read_all(&mut Reader::new(1 << 20), &broken, 4096).unwrap_err();
        assert_eq!(error, NutError::Checksum("main header"));
    }
}

fn survives(bytes: &[u8]) {
    let mut reader = Reader::new(1 << 16);
    for piece in bytes.chunks(61) {
        reader.push(piece);
        while let Ok(Some(_)) = reader.next() {}
        assert!(reader.buffer.capacity() < 4 << 20);
    }
}

/// A packet with right sizes and checksums around any payload, so that hostile bytes reach the parsers behind them.
fn sealed(startcode: u64, payload: &[u8]) -> Vec<u8> {
    let size = payload.len() + 4;
    assert!(size < 4096);
    let mut bytes = startcode.to_be_bytes().to_vec();
    bytes.extend([
        u8::try_from(size >> 7).unwrap() | 0x80,
        u8::try_from(size & 0x7F).unwrap(),
    ]);
    bytes.extend(payload);
    bytes.extend(crc(payload).to_be_bytes());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        survives(&bytes);
        survives(&[FILE_ID, &bytes].concat());
        for startcode in [MAIN, STREAM, SYNCPOINT] {
            survives(&[FILE_ID, &sealed(startcode, &bytes)].concat());
        }
    }

    #[test]
    fn any_bytes_after_good_headers_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        static GOOD: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let bytes = small();
            bytes[..sync(&bytes)].to_vec()
        });
        survives(&[&GOOD[..], &bytes].concat());
        survives(&[&GOOD[..], &sealed(SYNCPOINT, &bytes), &bytes].concat());
    }
}
