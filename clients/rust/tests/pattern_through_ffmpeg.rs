//! The test pattern through a real encoder, small and at a low bitrate: every frame's number has to come out right.
//! Needs `ffmpeg` with libx264.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use ringgear_producer::pattern::{Bars, PatternPainter, decode_luma};
use ringgear_producer::{FrameFormat, PixelFormat};

const FRAMES: u32 = 150;
const FIRST: u32 = 0xFFF0;
const TIME: u64 = 1_790_000_000_000;

fn ffmpeg(arguments: &str, input: Stdio) -> Child {
    Command::new("ffmpeg")
        .args(["-v", "error"])
        .args(arguments.split_whitespace())
        .stdin(input)
        .stdout(Stdio::piped())
        .spawn()
        .expect("ffmpeg is installed")
}

/// Encodes the pattern to 320x180 at 300 kbit/s and reads each frame's bars from the decoded luma.
fn through_x264(pixels: PixelFormat, width: u32, height: u32) -> Vec<Option<Bars>> {
    let format = FrameFormat::packed(pixels, width, height).unwrap();
    let mut encoder = ffmpeg(
        &format!(
            "-f rawvideo -pix_fmt {pixels} -s {width}x{height} -r 30 -i - -vf scale=320:180 \
             -pix_fmt yuv420p -c:v libx264 -preset ultrafast -tune zerolatency -b:v 300k -maxrate 300k -bufsize 300k -f matroska -"
        ),
        Stdio::piped(),
    );
    let encoded = encoder.stdout.take().unwrap();
    let mut decoder = ffmpeg("-i - -f rawvideo -pix_fmt gray -", encoded.into());
    let mut raw = encoder.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        let painter = PatternPainter::new(format.clone());
        let mut frame = vec![0; format.bytes()];
        for k in 0..FRAMES {
            let bars = Bars {
                frame_number: FIRST + k,
                captured_ms: TIME + u64::from(k) * 33,
            };
            painter.paint(bars, &mut frame);
            raw.write_all(&frame).unwrap();
        }
    });
    let mut luma = Vec::new();
    decoder
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut luma)
        .unwrap();
    feeder.join().unwrap();
    assert!(encoder.wait().unwrap().success() && decoder.wait().unwrap().success());
    luma.chunks_exact(320 * 180)
        .map(|luma| decode_luma(luma, 320, 180, 320))
        .collect()
}

#[test]
fn every_number_survives_x264_at_300_kbit_and_320x180() {
    for (pixels, width, height) in [
        (PixelFormat::Bgr24, 1280, 720),
        (PixelFormat::Yuv420p, 640, 480),
        (PixelFormat::Uyvy422, 854, 480),
        (PixelFormat::Nv12, 1920, 1080),
    ] {
        let decoded = through_x264(pixels, width, height);
        assert_eq!(decoded.len(), FRAMES as usize);
        for (k, bars) in (0..).zip(decoded) {
            let expected = Bars {
                frame_number: FIRST + k,
                captured_ms: TIME + u64::from(k) * 33,
            };
            assert_eq!(
                bars,
                Some(expected),
                "frame {k} of {width}x{height} {pixels}"
            );
        }
    }
}
