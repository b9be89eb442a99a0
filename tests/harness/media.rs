//! What was published, read back: boxes by a library of its own, pictures by the real FFmpeg.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mp4_atom::{Any, Decode, DecodeMaybe};
use ringgear_producer::pattern::{Bars, decode_luma};

use super::hls::MediaPlaylist;
use super::process::run;

/// What an init segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Init {
    pub(crate) timescale: u64,
    default_duration: Option<u64>,
    avc: bool,
}

/// What a media segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Its first decode time, in the timescale.
    pub(crate) start: u64,
    /// Where its last sample ends.
    pub(crate) end: u64,
    pub(crate) samples: usize,
    /// How many moof boxes: its parts.
    pub(crate) parts: usize,
    /// Whether its first picture is an IDR picture, for AVC; by its flags otherwise.
    pub(crate) starts_with_idr: bool,
}

/// Reads an init segment.
pub(crate) fn init(mut bytes: &[u8]) -> Result<Init, String> {
    let avc = bytes.windows(4).any(|window| window == b"avcC");
    while let Some(atom) = Any::decode_maybe(&mut bytes).map_err(|error| error.to_string())? {
        let Any::Moov(moov) = atom else { continue };
        let track = moov.trak.first().ok_or("no track")?;
        let default = moov.mvex.as_ref().and_then(|mvex| mvex.trex.first());
        return Ok(Init {
            timescale: u64::from(track.mdia.mdhd.timescale),
            default_duration: default
                .map(|trex| u64::from(trex.default_sample_duration))
                .filter(|duration| *duration > 0),
            avc,
        });
    }
    Err("no moov box".to_owned())
}

/// Reads a media segment: whole boxes to its last byte, decode times without gap or overlap inside.
pub(crate) fn segment(bytes: &[u8], init: &Init) -> Result<Segment, String> {
    let mut rest = bytes;
    let mut found: Option<Segment> = None;
    let mut first_picture = None;
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let size = rest.get(..4).ok_or("it ends inside of a box header")?;
        let size = u32::from_be_bytes(size.try_into().map_err(|_| "four bytes")?);
        let size = usize::try_from(size).map_err(|error| error.to_string())?;
        let whole = rest
            .get(..size)
            .filter(|_| size >= 8)
            .ok_or("it ends inside of a box")?;
        rest = &rest[size..];
        if &whole[4..8] != b"moof" {
            continue;
        }
        let Any::Moof(moof) = Any::decode(&mut &*whole).map_err(|error| error.to_string())? else {
            return Err("a moof that is none".to_owned());
        };
        let traf = moof.traf.first().ok_or("a moof without a traf")?;
        let start = traf.tfdt.as_ref().ok_or("no tfdt")?.base_media_decode_time;
        let default = traf
            .tfhd
            .default_sample_duration
            .map(u64::from)
            .or(init.default_duration);
        let mut end = start;
        let mut samples = 0;
        for run in &traf.trun {
            for entry in run.samples.iter() {
                if samples == 0 && found.is_none() {
                    let flags = entry.flags.or(traf.tfhd.default_sample_flags).unwrap_or(0);
                    let offset = run
                        .data_offset
                        .and_then(|offset| usize::try_from(offset).ok());
                    let length = entry.size.or(traf.tfhd.default_sample_size);
                    first_picture = Some((at + offset.unwrap_or(0), length.unwrap_or(0), flags));
                }
                end += entry
                    .duration
                    .map(u64::from)
                    .or(default)
                    .ok_or("no sample duration")?;
                samples += 1;
            }
        }
        let segment = found.get_or_insert(Segment {
            start,
            end: start,
            samples: 0,
            parts: 0,
            starts_with_idr: false,
        });
        if segment.end != start {
            return Err(format!(
                "a part starts at {start}, the one before ends at {}",
                segment.end
            ));
        }
        segment.end = end;
        segment.samples += samples;
        segment.parts += 1;
    }
    let mut segment = found.ok_or("no moof box")?;
    let (at, length, flags) = first_picture.ok_or("no sample")?;
    let is_sync = flags & 0x0001_0000 == 0;
    segment.starts_with_idr = is_sync && (!init.avc || has_idr(bytes, at, length));
    Ok(segment)
}

/// Whether the AVC picture of `length` bytes at `at`, in NAL units with four-byte lengths, is an IDR picture.
fn has_idr(bytes: &[u8], at: usize, length: u32) -> bool {
    let Ok(length) = usize::try_from(length) else {
        return false;
    };
    let Some(mut rest) = bytes.get(at..at + length) else {
        return false;
    };
    while let Some((size, tail)) = rest.split_first_chunk::<4>() {
        if tail.first().is_some_and(|header| header & 0x1f == 5) {
            return true;
        }
        let size = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
        let Some(next) = tail.get(size..) else {
            return false;
        };
        rest = next;
    }
    false
}

/// One published picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Its presentation time in the timescale.
    pub(crate) time: u64,
    /// What its bars say; none when they can't be read.
    pub(crate) bars: Option<Bars>,
    /// The mean of its luma.
    pub(crate) brightness: u8,
}

/// Joins what `playlist` lists, init segment first, from the folder that holds it, into one file at `to`.
#[track_caller]
pub(crate) fn join(folder: &Path, playlist: &MediaPlaylist, to: &Path) {
    let mut bytes = Vec::new();
    let first = playlist
        .segments
        .first()
        .expect("a playlist that lists segments");
    let init = first.map.as_ref().expect("EXT-X-MAP");
    for name in std::iter::once(init).chain(playlist.segments.iter().map(|segment| &segment.uri)) {
        let path = folder.join(name);
        let segment =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        bytes.extend_from_slice(&segment);
    }
    std::fs::write(to, bytes).unwrap();
}

/// The presentation times of every packet of `file`, as FFmpeg's own demuxer finds them, and its picture size.
#[track_caller]
pub(crate) fn packet_times(file: &Path) -> (Vec<u64>, usize, usize) {
    let out = run(
        Command::new("ffprobe")
            .args(["-v", "error", "-select_streams", "v:0", "-of", "csv=p=0"])
            .args(["-show_entries", "packet=pts:stream=width,height"])
            .arg(file),
        Duration::from_secs(60),
    );
    assert_eq!(out.stderr, "", "ffprobe {}", file.display());
    let mut times = Vec::new();
    let mut size = None;
    for line in out.stdout.lines() {
        let numbers: Vec<u64> = line
            .split(',')
            .filter_map(|field| field.parse().ok())
            .collect();
        match numbers[..] {
            [time] => times.push(time),
            [width, height] => size = Some((width, height)),
            _ => {}
        }
    }
    let (width, height) = size.expect("ffprobe says the picture's size");
    (
        times,
        usize::try_from(width).unwrap(),
        usize::try_from(height).unwrap(),
    )
}

/// Decodes `file` with the real FFmpeg, and hands each picture over as `pixels` (an FFmpeg name) of `bytes` bytes.
#[track_caller]
pub(crate) fn decode(
    file: &Path,
    pixels: &str,
    bytes: usize,
    mut each: impl FnMut(usize, &[u8]),
) -> usize {
    let mut child = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(file)
        .args([
            "-map",
            "0:v:0",
            "-fps_mode",
            "passthrough",
            "-f",
            "rawvideo",
            "-pix_fmt",
            pixels,
            "pipe:1",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let mut picture = vec![0; bytes];
    let mut count = 0;
    while pipe.read_exact(&mut picture).is_ok() {
        each(count, &picture);
        count += 1;
    }
    assert!(
        child.wait().unwrap().success(),
        "ffmpeg decodes {}",
        file.display()
    );
    count
}

/// Decodes everything that `playlist` lists and reads the bars of each picture.
#[track_caller]
pub(crate) fn decode_published(folder: &Path, playlist: &MediaPlaylist) -> Vec<Shown> {
    let mut shown = Vec::new();
    // Each encoding is a file of its own.
    for segments in playlist.segments.chunk_by(|one, next| one.map == next.map) {
        let of_one_encoding = MediaPlaylist {
            segments: segments.to_vec(),
            ..playlist.clone()
        };
        shown.extend(decode_encoding(folder, &of_one_encoding));
    }
    shown
}

#[track_caller]
fn decode_encoding(folder: &Path, playlist: &MediaPlaylist) -> Vec<Shown> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("published.mp4");
    join(folder, playlist, &file);
    let (times, width, height) = packet_times(&file);
    let mut shown = Vec::with_capacity(times.len());
    let count = decode(&file, "gray", width * height, |index, luma| {
        let time = *times.get(index).expect("no more pictures than packets");
        let sum: u64 = luma.iter().map(|&value| u64::from(value)).sum();
        let mean = sum / u64::try_from(luma.len().max(1)).unwrap();
        shown.push(Shown {
            time,
            bars: read_bars(luma, width, height),
            brightness: u8::try_from(mean).unwrap(),
        });
    });
    assert_eq!(count, times.len(), "pictures decoded, packets published");
    shown
}

/// The bars of a picture that fills the frame, or that is 4:3 with as much black on its left as on its right.
fn read_bars(luma: &[u8], width: usize, height: usize) -> Option<Bars> {
    let of = |columns: usize| {
        let left = (width - columns) / 2;
        let (columns, rows) = (u32::try_from(columns).ok()?, u32::try_from(height).ok()?);
        // The last row ends where its black begins.
        decode_luma(luma.get(left..)?, columns, rows, width)
    };
    let narrow = height * 4 / 3;
    of(width).or_else(|| of(narrow).filter(|_| narrow < width))
}
