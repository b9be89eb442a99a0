//! A folder with real media behind real playlists, as FFmpeg's own players see it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::dash::{MpdOptions, UtcTiming, mpd};
use super::testing::{grid, snapshot};
use super::{hls, playable};
use crate::package::testing::encode;
use crate::package::{Part, TrackPackager};
use crate::picture::Size;
use crate::sample::{Sample, TrackDescription};
use crate::tick::{Grid, Tick};
use crate::window::{Period, Segment, Snapshot, TrackInit};

const TRACKS: &[super::testing::TrackSpec<'_>] = &[
    ("360p", "avc1.42c01e", Size::new(640, 360)),
    ("180p", "avc1.42c00d", Size::new(320, 180)),
];

/// A window of `count` segments from `first`, each track encoded by FFmpeg.
fn window(grid: Grid, first: Tick, count: u32) -> Snapshot {
    let ticks = grid.ticks_per_segment.get();
    let (inits, samples): (Vec<_>, Vec<_>) = TRACKS
        .iter()
        .map(|&(_, codecs, size)| {
            let (sample_entry, samples) = encode(grid.framerate, count * ticks, ticks, size);
            let description = TrackDescription {
                sample_entry,
                codecs: codecs.to_owned(),
                size,
                framerate: grid.framerate,
                audio: None,
            };
            (TrackInit::new(description), samples)
        })
        .unzip();
    let period = Arc::new(Period::new(first, grid, false, inits));
    let mut snapshot = snapshot(TRACKS, &[]);
    for (track, samples) in samples.into_iter().enumerate() {
        let mut packager = TrackPackager::start_at(track, grid, first);
        let mut parts: Vec<Part> = Vec::new();
        for (tick, (data, keyframe)) in (first.0..).zip(samples) {
            let sample = Sample {
                track,
                decode_time: grid.decode_time(Tick(tick)),
                duration: grid.framerate.den(),
                composition_offset: 0,
                keyframe,
                data,
            };
            parts.extend(packager.push(sample).unwrap());
        }
        let segments = parts.chunk_by(|part, _| !part.last).map(|parts| {
            Arc::new(Segment {
                number: parts[0].segment,
                period: period.clone(),
                first_tick: parts[0].first_tick,
                ticks: parts.iter().map(|part| part.ticks).sum(),
                parts: parts.to_vec(),
                stored: 0,
                captured: None,
                remains: Vec::new(),
                gap: false,
                expires: None,
            })
        });
        snapshot.tracks[track].listed = segments.collect();
    }
    snapshot.media_sequence = grid.segment_of(first);
    snapshot.target_duration = 1;
    snapshot.ended = true;
    snapshot
}

fn write(folder: &Path, snapshot: &Snapshot) {
    let save = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    save("index.m3u8", hls::multivariant(snapshot).as_bytes());
    let utc_timing = UtcTiming::HttpHead("manifest.mpd".to_owned());
    save(
        "manifest.mpd",
        mpd(snapshot, &MpdOptions { utc_timing }).as_bytes(),
    );
    for (index, track) in snapshot.tracks.iter().enumerate() {
        let name = &track.name;
        std::fs::create_dir_all(folder.join(name)).unwrap();
        save(
            &format!("{name}/media.m3u8"),
            hls::media(snapshot, index).as_bytes(),
        );
        let init = &track.listed[0].period.tracks[index];
        save(&format!("{name}/init-{}.mp4", init.version), &init.init);
        for segment in &track.listed {
            let parts: Vec<&[u8]> = segment.parts.iter().map(|part| &part.bytes[..]).collect();
            save(&format!("{name}/{}.m4s", segment.number), &parts.concat());
        }
    }
}

#[test]
fn ffmpeg_reads_every_frame_of_both_manifests_without_a_warning() {
    let grid = grid("30000/1001", 30);
    let first = grid.segment_start(Tick(53_946_053_946));
    let snapshot = window(grid, first, 4);
    assert!(playable(&snapshot));
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &snapshot);
    for manifest in ["index.m3u8", "manifest.mpd"] {
        for (stream, (_, _, size)) in TRACKS.iter().enumerate() {
            let probed = Command::new("ffprobe")
                .args(["-v", "warning", "-count_frames"])
                .args(["-select_streams", &format!("v:{stream}")])
                .args(["-show_entries", "stream=width,height,nb_read_frames"])
                .args(["-of", "csv=p=0"])
                .arg(folder.path().join(manifest))
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&probed.stderr);
            assert!(
                probed.status.success() && stderr.is_empty(),
                "{manifest}: {stderr}"
            );
            let lines = String::from_utf8(probed.stdout).unwrap();
            let expected = format!("{},{},120", size.width, size.height);
            assert!(
                lines
                    .lines()
                    .any(|line| line.trim_end_matches(',') == expected),
                "{manifest}: {lines}"
            );
        }
    }
}
