//! Colours all the way: frames of every format through the real conversion, encoders and packager, decoded by FFmpeg.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use ringgear_producer::pattern::fill;

use super::tests::{Memory, is_gray};
use super::*;
use crate::config::RateControl;
use crate::encode::{
    EncodePlan, EncodeRendition, Encoder, EncoderEvent, EncoderStart, FeedError, ProbeCache,
    find_ffmpeg, probe,
};
use crate::package::TrackPackager;
use crate::tick::{Framerate, Grid, Tick};
use crate::window::TrackInit;

const DEADLINE: Duration = Duration::from_secs(60);
/// Red, green, blue, white, grey, black.
const PATCHES: [[u8; 3]; 6] = [
    [255, 0, 0],
    [0, 255, 0],
    [0, 0, 255],
    [255; 3],
    [128; 3],
    [0; 3],
];
/// A patch's side, and how many stand beside each other.
const SIDE: u32 = 48;
const ACROSS: u32 = 3;
/// Odd, so that every picture is padded.
const WIDTH: u32 = ACROSS * SIDE - 1;
const HEIGHT: u32 = 2 * SIDE - 1;

fn patches(pixels: PixelFormat) -> Memory {
    let format = FrameFormat::packed(pixels, WIDTH, HEIGHT).unwrap();
    let mut bytes = vec![0; format.bytes()];
    for (index, colour) in (0..).zip(PATCHES) {
        let (left, top) = (index % ACROSS * SIDE, index / ACROSS * SIDE);
        fill(
            &format,
            &mut bytes,
            left..left + SIDE,
            top..top + SIDE,
            colour,
        );
    }
    Memory(format, bytes)
}

fn plan(codec: &str, preset: Option<&str>, input: (PictureFormat, Size)) -> EncodePlan {
    let framerate = Framerate::new(25, 1).unwrap();
    EncodePlan {
        ffmpeg: find_ffmpeg(Path::new("ffmpeg")).unwrap(),
        input_format: input.0,
        input_size: input.1,
        grid: Grid::new(framerate, Duration::from_secs(1), Duration::from_secs(1)),
        at_once: NonZeroU32::MIN,
        renditions: vec![EncodeRendition {
            name: "a".into(),
            size: input.1,
            codec: codec.into(),
            preset: preset.map(str::to_owned),
            rate: RateControl::Crf(crate::config::defaults::crf(codec).unwrap()),
            options: Vec::new(),
            every: NonZeroU32::MIN,
            device: None,
            filter: None,
            output_args: Vec::new(),
        }],
    }
}

/// The pictures, encoded and packaged: an init segment and a segment, in one file.
fn published(plan: &EncodePlan, pictures: &[Picture]) -> (TrackInit, Vec<u8>) {
    let descriptions = probe(plan, &ProbeCache::new()).unwrap();
    let start = EncoderStart {
        first_tick: Tick(0),
        keyframes_at: vec![None],
        step: NonZeroU32::MIN,
        queue: NonZeroUsize::new(pictures.len()).unwrap(),
        large_pipe: false,
    };
    let (sender, events) = channel();
    let encoder = Encoder::start(plan, &descriptions, &start, move |event| {
        drop(sender.send(event))
    });
    let encoder = encoder.unwrap();
    for picture in pictures {
        assert_eq!(encoder.feed(picture.clone()), Ok::<(), FeedError>(()));
    }
    encoder.finish();
    let mut packager = TrackPackager::start_at(0, plan.grid, Tick(0));
    let init = TrackInit::new(descriptions[0].clone());
    let mut file = init.init.to_vec();
    loop {
        match events.recv_timeout(DEADLINE).expect("the encoder ends") {
            EncoderEvent::Sample(sample) => {
                let part = packager.push(sample).unwrap();
                file.extend(part.into_iter().flat_map(|part| part.bytes));
            }
            EncoderEvent::Failed { error, .. } => panic!("{error}"),
            EncoderEvent::Exited(report) => {
                assert!(report.expected, "{report:?}");
                file.extend(packager.flush().into_iter().flat_map(|part| part.bytes));
                return (init, file);
            }
        }
    }
}

/// What `program` says of the file.
fn told(program: &str, file: &[u8], arguments: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.mp4");
    std::fs::write(&path, file).unwrap();
    let (before, after) = arguments.split_once("FILE").unwrap();
    let output = Command::new(program)
        .args(["-v", "error"])
        .args(before.split_whitespace())
        .arg(&path)
        .args(after.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// Each decoded picture has the patches, in their colours or in the grey of their brightness.
fn assert_patches(file: &[u8], size: Size, formats: &[PixelFormat], codec: &str) {
    let rgb = told(
        "ffmpeg",
        file,
        "-i FILE -sws_flags accurate_rnd+full_chroma_int -f rawvideo -pix_fmt rgb24 -",
    );
    let row = size.width as usize * 3;
    let pictures = rgb.chunks(row * size.height as usize);
    assert_eq!(pictures.len(), formats.len());
    for (picture, &pixels) in pictures.zip(formats) {
        for (index, [r, g, b]) in PATCHES.into_iter().enumerate() {
            let luma = 0.2126 * f64::from(r) + 0.7152 * f64::from(g) + 0.0722 * f64::from(b);
            let wanted = match is_gray(pixels) {
                true => [luma; 3],
                false => [r, g, b].map(f64::from),
            };
            let (across, side) = (ACROSS as usize, SIDE as usize);
            let (left, top) = (index % across * side, index / across * side);
            // Chroma runs into the patches beside it by a pixel or two.
            for (x, y) in [(8, 8), (side / 2, side / 2), (side - 9, side - 9)] {
                let at = (top + y) * row + (left + x) * 3;
                let seen = &picture[at..at + 3];
                let near = seen
                    .iter()
                    .zip(wanted)
                    .all(|(&seen, wanted)| (f64::from(seen) - wanted).abs() <= 3.0);
                assert!(
                    near,
                    "{codec}, {pixels}: {wanted:?} became {seen:?} at {x},{y}"
                );
            }
        }
    }
}

/// The init segment's `colr` says BT.709 limited (ISO/IEC 14496-12, 12.1.5), and so does the bitstream without it.
fn assert_tagged(file: &[u8], codec: &str) {
    let at = file.windows(8).position(|window| window == b"colrnclx");
    let at = at.unwrap_or_else(|| panic!("{codec}: the init segment has no colr"));
    assert_eq!(file[at + 8..at + 15], [0, 1, 0, 1, 0, 1, 0], "{codec}");
    let mut bare = file.to_vec();
    bare[at..at + 4].copy_from_slice(b"free");
    let entries = "-select_streams v -show_entries frame=color_range,color_space,color_primaries,color_transfer -of default=nk=1:nw=1 -read_intervals %+#1 FILE";
    let tags = String::from_utf8(told("ffprobe", &bare, entries)).unwrap();
    let tags: Vec<&str> = tags.split_whitespace().collect();
    // VP9 itself has one word for all of it; the rest is vpcC's.
    assert_eq!(tags, ["tv", "bt709", "bt709", "bt709"], "{codec}");
}

#[test]
fn primaries_in_every_format_come_back_from_the_encoder_as_they_were() {
    for stored in [PictureFormat::I420, PictureFormat::Nv12] {
        let formats = PixelFormat::ALL.into_iter();
        let mut formats: Vec<_> = formats.filter(|p| picture_format(*p) == stored).collect();
        formats.sort_by_key(|pixels| is_gray(*pixels));
        let pictures = formats.iter().map(|&pixels| {
            let frame = patches(pixels);
            let mut converter = Converter::new(frame.0.clone());
            converter.convert(&frame, MonotonicTime(0)).unwrap()
        });
        let pictures: Vec<_> = pictures.collect();
        let plan = plan("libx264", Some("veryfast"), pictures[0].input());
        let (_, file) = published(&plan, &pictures);
        assert_tagged(&file, "libx264");
        assert_patches(&file, plan.input_size, &formats, "libx264");
    }
}

#[test]
fn every_encoder_is_told_the_matrix_and_range_and_keeps_the_primaries() {
    let frame = patches(PixelFormat::Bgr24);
    let picture = Converter::new(frame.0.clone())
        .convert(&frame, MonotonicTime(0))
        .unwrap();
    for (codec, preset) in [
        ("libx265", Some("ultrafast")),
        ("libsvtav1", Some("12")),
        ("libvpx-vp9", None),
        ("libaom-av1", None),
    ] {
        let plan = plan(codec, preset, picture.input());
        let pictures = vec![picture.clone(); 3];
        let (_, file) = published(&plan, &pictures);
        assert_tagged(&file, codec);
        assert_patches(&file, plan.input_size, &[PixelFormat::Bgr24; 3], codec);
    }
}
