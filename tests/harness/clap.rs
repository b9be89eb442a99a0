//! Flashes and clicks of one moment: how far apart they are in what was published.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::hls::{self, MediaPlaylist};
use super::media;
use super::process::run;

/// Makes a file of `seconds` with a white picture and a click every two seconds, from 1 s on.
pub(crate) fn clap_file(path: &Path, seconds: u32) {
    clap_film(path, seconds, "");
}

/// The same by what else FFmpeg's arguments say of it.
pub(crate) fn clap_film(path: &Path, seconds: u32, more: &str) {
    let flash = format!(
        "color=black:size=320x180:rate=25:duration={seconds},drawbox=t=fill:color=white:enable='lt(mod(t+1,2),0.039)'"
    );
    let click = format!(
        "aevalsrc='0.8*sin(2*PI*1000*t)*lt(mod(t+1,2),0.01)':sample_rate=44100:duration={seconds}"
    );
    let out = run(
        Command::new("ffmpeg")
            .args(["-v", "error", "-f", "lavfi", "-i", &flash])
            .args(["-f", "lavfi", "-i", &click])
            .args(["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2"])
            .args(["-pix_fmt", "yuv420p", "-c:a", "aac"])
            .args(more.split_ascii_whitespace())
            .arg(path),
        Duration::from_secs(60),
    );
    assert_eq!(out.code, Some(0), "{out:?}");
}

/// By how much each click comes after its flash, in milliseconds; flashes without a click are left out.
pub(crate) fn apart((flashes, clicks): &(Vec<f64>, Vec<f64>)) -> Vec<f64> {
    let near = |flash: &f64| clicks.iter().find(|click| (*click - flash).abs() < 500.0);
    let apart = flashes
        .iter()
        .filter_map(|flash| Some(near(flash)? - flash));
    apart.collect()
}

/// The playlist in a rendition's folder.
pub(crate) fn listed(folder: &Path) -> MediaPlaylist {
    let text = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
    hls::media(&text).unwrap()
}

/// The samples of what `playlist` lists, by the real FFmpeg.
pub(crate) fn samples(folder: &Path, playlist: &MediaPlaylist) -> Vec<f32> {
    let dir = tempfile::tempdir().unwrap();
    let (file, raw) = (dir.path().join("sound.mp4"), dir.path().join("sound.raw"));
    media::join(folder, playlist, &file);
    let out = run(
        Command::new("ffmpeg")
            .args(["-v", "error", "-i"])
            .arg(&file)
            .args(["-ac", "1", "-f", "f32le"])
            .arg(&raw),
        Duration::from_secs(60),
    );
    assert_eq!((out.code, out.stderr.as_str()), (Some(0), ""));
    let bytes = std::fs::read(raw).unwrap();
    let samples: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let listed: f64 = playlist
        .segments
        .iter()
        .map(|segment| segment.seconds)
        .sum();
    #[allow(clippy::cast_precision_loss)]
    let decoded = samples.len() as f64 / 48_000.0;
    // A decoder may drop what Opus calls its pre-skip.
    assert!(
        (listed - decoded).abs() < 0.01,
        "{listed} s are listed, {decoded} decoded"
    );
    samples
}

/// What follows on all gaps: an encoder may begin late on a busy machine.
fn after_gaps(mut playlist: MediaPlaylist) -> MediaPlaylist {
    let gap = playlist.segments.iter().rposition(|segment| segment.gap);
    playlist.segments.drain(..gap.map_or(0, |gap| gap + 1));
    playlist
}

/// When what is listed begins, and the timescale of that.
fn beginning(folder: &Path, playlist: &MediaPlaylist) -> (u64, u64) {
    let read = |name: &String| std::fs::read(folder.join(name)).unwrap();
    let first = &playlist.segments[0];
    let init = media::init(&read(first.map.as_ref().unwrap())).unwrap();
    let segment = media::segment(&read(&first.uri), &init).unwrap();
    (segment.start, init.timescale)
}

/// When each flash is shown and each click heard in what `folder` has of these two renditions after all gaps, in milliseconds since time 0.
pub(crate) fn claps(folder: &Path, video: &str, audio: &str) -> (Vec<f64>, Vec<f64>) {
    let pictures = after_gaps(listed(&folder.join(video)));
    let shown = media::decode_published(&folder.join(video), &pictures);
    #[allow(clippy::cast_precision_loss)]
    let millis = |time: u64, scale: u64| time as f64 * 1000.0 / scale as f64;
    // A flash lights more than half of a picture that is dark.
    let flashes = shown
        .windows(2)
        .filter(|pair| u32::from(pair[1].brightness) > u32::from(pair[0].brightness) + 60);
    // FFmpeg's demuxer shows the pictures of a track with B-frames later than its boxes say: what is first is shown when it is decoded.
    let (begins, scale) = beginning(&folder.join(video), &pictures);
    let first = shown.iter().map(|picture| picture.time).min().unwrap();
    let flashes = flashes
        .map(|pair| millis(begins + pair[1].time - first, scale))
        .collect();
    let folder = folder.join(audio);
    let sound = after_gaps(listed(&folder));
    let (begins, scale) = beginning(&folder, &sound);
    let begins = millis(begins, scale);
    let mut clicks: Vec<f64> = Vec::new();
    for (at, value) in samples(&folder, &sound).iter().enumerate() {
        let at = begins + millis(u64::try_from(at).unwrap(), 48_000);
        if value.abs() > 0.2 && clicks.last().is_none_or(|last| at - last > 500.0) {
            clicks.push(at);
        }
    }
    (flashes, clicks)
}
