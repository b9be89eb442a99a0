//! What the packager promises, read back with another library's eyes and with FFmpeg's.

use std::num::NonZeroU32;
use std::process::{Command, Stdio};

use bytes::Bytes;
use mp4_atom::{Any, DecodeMaybe, Prft, ReferenceTime};
use proptest::prelude::*;

use super::testing::encode;
use super::*;
use crate::picture::Size;
use crate::sample::{Sample, TrackDescription};
use crate::tick::{Framerate, Grid};
use crate::window::TrackInit;

fn grid(rate: &str, ticks_per_segment: u32, ticks_per_part: u32) -> Grid {
    Grid {
        framerate: rate.parse().unwrap(),
        ticks_per_segment: NonZeroU32::new(ticks_per_segment).unwrap(),
        ticks_per_part: NonZeroU32::new(ticks_per_part).unwrap(),
        number_offset: 0,
        audio: None,
        cut: None,
    }
}

fn sample(grid: &Grid, tick: u64, keyframe: bool, data: &[u8]) -> Sample {
    Sample {
        track: 0,
        decode_time: grid.decode_time(Tick(tick)),
        duration: grid.framerate.den(),
        composition_offset: 0,
        keyframe,
        data: Bytes::copy_from_slice(data),
    }
}

/// What a part's boxes say.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    styp: bool,
    prft: Prft,
    sequence_number: u32,
    decode_time: u64,
    duration: u32,
    samples: Vec<(Vec<u8>, bool, i64)>,
}

fn read(part: &Part) -> Read {
    let bytes = &part.bytes[..];
    let mut buf = bytes;
    let mut styp = false;
    let mut prft = None;
    let (mut moof, mut moof_at, mut mdat) = (None, 0, None);
    while !buf.is_empty() {
        let at = bytes.len() - buf.len();
        match Any::decode_maybe(&mut buf).unwrap().expect("no box is cut") {
            Any::Styp(_) => styp = true,
            Any::Prft(found) => {
                assert!(moof.is_none(), "it stands before its moof");
                prft = Some(found);
            }
            Any::Moof(found) => (moof, moof_at) = (Some(found), at),
            Any::Mdat(found) => mdat = Some((found, at)),
            other => panic!("{other:?} has no place in a part"),
        }
    }
    let (moof, (mdat, mdat_at)) = (moof.unwrap(), mdat.unwrap());
    let traf = &moof.traf[0];
    assert!(traf.tfhd.default_base_is_moof && traf.tfhd.track_id == 1);
    let run = &traf.trun[0];
    let mut at = moof_at + usize::try_from(run.data_offset.unwrap()).unwrap();
    assert_eq!(at, mdat_at + 8, "the run starts at the mdat's payload");
    let mut samples = Vec::new();
    for entry in run.samples.iter() {
        let size = entry.size.unwrap() as usize;
        let sync = entry.flags.unwrap() & 0x1_0000 == 0;
        samples.push((bytes[at..at + size].to_vec(), sync, entry.cts.unwrap_or(0)));
        at += size;
    }
    assert_eq!(at, mdat_at + 8 + mdat.data.len());
    assert_eq!(at, bytes.len());
    Read {
        styp,
        prft: prft.unwrap(),
        sequence_number: moof.mfhd.sequence_number,
        decode_time: traf.tfdt.as_ref().unwrap().base_media_decode_time,
        duration: traf.tfhd.default_sample_duration.unwrap(),
        samples,
    }
}

fn push_all(packager: &mut TrackPackager, grid: &Grid, ticks: std::ops::Range<u64>) -> Vec<Part> {
    let first = packager.next_tick();
    ticks
        .filter_map(|tick| {
            let keyframe = grid.starts_segment(Tick(tick)) || Tick(tick) == first;
            packager
                .push(sample(grid, tick, keyframe, &tick.to_be_bytes()))
                .unwrap()
        })
        .collect()
}

#[test]
fn a_part_is_returned_by_the_sample_that_completes_it() {
    let grid = grid("30", 10, 4);
    let mut packager = TrackPackager::start_at(0, grid, Tick(100));
    let mut returned = Vec::new();
    for tick in 100..110 {
        let part = packager
            .push(sample(&grid, tick, tick == 100, b"x"))
            .unwrap();
        returned.extend(part.map(|part| (tick, part.number, part.ticks, part.last)));
    }
    assert_eq!(
        returned,
        [(103, 0, 4, false), (107, 1, 4, false), (109, 2, 2, true)]
    );
}

#[test]
fn a_part_holds_its_samples_their_flags_and_the_grids_decode_time() {
    let grid = grid("30000/1001", 4, 2);
    let first = 53_946_053_948;
    let mut packager = TrackPackager::start_at(0, grid, Tick(first));
    assert_eq!(packager.push(sample(&grid, first, true, b"key")), Ok(None));
    let part = packager
        .push(sample(&grid, first + 1, false, b"delta"))
        .unwrap()
        .unwrap();
    assert!(part.independent && !part.last && part.first_tick == Tick(first));
    assert_eq!(
        read(&part),
        Read {
            styp: true,
            prft: Prft {
                reference_track_id: 1,
                ntp_timestamp: 4_008_988_800 << 32 | 278_886_545,
                media_time: first * 1001,
                utc_time_semantics: ReferenceTime::RealTime,
            },
            sequence_number: u32::try_from((first / 2 + 1) % (1 << 32)).unwrap(),
            decode_time: first * 1001,
            duration: 1001,
            samples: vec![(b"key".to_vec(), true, 0), (b"delta".to_vec(), false, 0)],
        }
    );
}

#[test]
fn composition_offsets_are_signed_and_written_only_when_there_are_any() {
    let grid = grid("25", 3, 3);
    let mut packager = TrackPackager::start_at(0, grid, Tick(0));
    let mut part = None;
    for (tick, offset) in [(0, 0), (1, 1), (2, -1)] {
        let mut sample = sample(&grid, tick, tick == 0, b"reordered");
        sample.composition_offset = offset;
        part = packager.push(sample).unwrap();
    }
    let part = part.unwrap();
    let offsets: Vec<i64> = read(&part).samples.iter().map(|sample| sample.2).collect();
    assert_eq!(offsets, [0, 1, -1]);
    let mut plain = TrackPackager::start_at(0, grid, Tick(0));
    let plain = push_all(&mut plain, &grid, 0..3);
    assert_eq!(
        part.bytes.len() - 3 * 9,
        plain[0].bytes.len() - 3 * 8 + 3 * 4
    );
}

#[test]
fn a_sample_of_more_ticks_moves_no_edge_and_durations_are_written_where_they_differ() {
    let grid = grid("30000/1001", 8, 5);
    let mut packager = TrackPackager::start_at(0, grid, Tick(0));
    let mut lasting = |tick, ticks| {
        let mut sample = sample(&grid, tick, tick == 0, b"long");
        sample.duration *= ticks;
        packager.push(sample)
    };
    assert_eq!(lasting(0, 2), Ok(None));
    assert_eq!(lasting(2, 2), Ok(None));
    let across = lasting(4, 2);
    assert!(
        matches!(across, Err(PackageError::Duration { .. })),
        "{across:?}"
    );
    let mixed = lasting(4, 1).unwrap().unwrap();
    let across = lasting(5, 4);
    assert!(
        matches!(across, Err(PackageError::Duration { .. })),
        "{across:?}"
    );
    let whole = lasting(5, 3).unwrap().unwrap();
    assert_eq!(
        (mixed.first_tick, mixed.ticks, mixed.last),
        (Tick(0), 5, false)
    );
    assert_eq!(
        (whole.first_tick, whole.ticks, whole.last),
        (Tick(5), 3, true)
    );
    assert_eq!(read(&whole).duration, 3 * 1001);
    let moof = mixed.bytes.windows(4).position(|kind| kind == b"moof");
    let Any::Moof(moof) = Any::decode_maybe(&mut &mixed.bytes[moof.unwrap() - 4..])
        .unwrap()
        .unwrap()
    else {
        panic!("no moof")
    };
    let durations: Vec<_> = moof.traf[0].trun[0]
        .samples
        .iter()
        .map(|entry| entry.duration)
        .collect();
    assert_eq!(durations, [Some(2002), Some(2002), Some(1001)]);
    assert_eq!(read(&mixed).samples.len(), 3);
}

#[test]
fn a_sample_that_does_not_follow_is_refused_and_changes_nothing() {
    let grid = grid("30000/1001", 60, 10);
    let mut packager = TrackPackager::start_at(0, grid, Tick(60));
    let good = |tick| sample(&grid, tick, tick == 60, b"x");
    assert_eq!(
        packager.push(sample(&grid, 60, false, b"x")),
        Err(PackageError::NoKeyframe {
            tick: Tick(60),
            segment: SegmentNumber(1)
        })
    );
    packager.push(good(60)).unwrap();
    let expected = Tick(61);
    let refusals: [(Sample, PackageError); 7] = [
        (
            good(62),
            PackageError::Hole {
                expected,
                got: Tick(62),
            },
        ),
        (
            good(60),
            PackageError::Overlap {
                expected,
                got: Tick(60),
            },
        ),
        (
            Sample {
                decode_time: u64::MAX / 1001 * 1001,
                ..good(61)
            },
            PackageError::Hole {
                expected,
                got: Tick(u64::MAX / 1001),
            },
        ),
        (
            Sample {
                decode_time: 61 * 1001 + 1,
                ..good(61)
            },
            PackageError::OffGrid {
                decode_time: 61 * 1001 + 1,
                tick_duration: 1001,
                expected,
            },
        ),
        (
            Sample {
                duration: 1000,
                ..good(61)
            },
            PackageError::Duration {
                tick: expected,
                expected: 1001,
                got: 1000,
            },
        ),
        (
            Sample {
                track: 1,
                ..good(61)
            },
            PackageError::WrongTrack {
                expected: 0,
                got: 1,
            },
        ),
        (
            Sample {
                data: Bytes::new(),
                ..good(61)
            },
            PackageError::Empty { tick: expected },
        ),
    ];
    for (sample, error) in refusals {
        assert_eq!(packager.push(sample), Err(error.clone()));
        assert!(!error.to_string().contains('\n'));
        assert_eq!(packager.next_tick(), expected);
    }
    let parts = push_all(&mut packager, &grid, 61..120);
    assert_eq!(parts.iter().map(|part| part.ticks).sum::<u32>(), 60);
}

#[test]
fn a_part_of_impossible_size_is_refused() {
    let grid = grid("30", 2, 2);
    let mut packager = TrackPackager::start_at(0, grid, Tick(0));
    packager.push(sample(&grid, 0, true, b"x")).unwrap();
    let mut huge = sample(&grid, 1, false, b"");
    huge.data = Bytes::from(vec![0; MAX_PART_BYTES]);
    assert_eq!(
        packager.push(huge),
        Err(PackageError::TooLarge {
            tick: Tick(1),
            bytes: MAX_PART_BYTES + 1
        })
    );
}

#[test]
fn a_new_encoder_goes_on_in_the_middle_of_a_segment_with_a_keyframe() {
    let grid = grid("30", 6, 3);
    let mut packager = TrackPackager::start_at(0, grid, Tick(0));
    packager.push(sample(&grid, 0, true, b"x")).unwrap();
    packager.encoder_restarted();
    assert!(matches!(
        packager.push(sample(&grid, 1, false, b"x")),
        Err(PackageError::NoKeyframe { .. })
    ));
    packager.push(sample(&grid, 1, true, b"x")).unwrap();
    let part = packager
        .push(sample(&grid, 2, false, b"x"))
        .unwrap()
        .unwrap();
    assert_eq!((part.number, part.ticks), (0, 3));
}

#[test]
fn flush_ends_the_segment_and_the_next_one_starts_at_an_edge() {
    let grid = grid("30", 6, 3);
    // In the segment's first part, in a later one, and after one: what is unfinished comes out, once.
    for (pushed, unfinished) in [(1, Some((0, 1))), (4, Some((1, 1))), (3, None)] {
        let mut packager = TrackPackager::start_at(0, grid, Tick(12));
        push_all(&mut packager, &grid, 12..12 + pushed);
        let part = packager.flush();
        assert_eq!(
            part.as_ref().map(|part| (part.number, part.ticks)),
            unfinished
        );
        assert!(part.is_none_or(|part| part.last));
        assert_eq!(packager.flush(), None);
        assert_eq!(packager.next_tick(), Tick(18));
        let next = push_all(&mut packager, &grid, 18..21);
        assert!(read(&next[0]).styp);
    }
    let mut untouched = TrackPackager::start_at(0, grid, Tick(14));
    assert_eq!(untouched.flush(), None);
    assert_eq!(untouched.next_tick(), Tick(14));
}

#[test]
fn after_a_gap_a_segment_starts_anywhere_but_in_a_closed_one() {
    let grid = grid("30", 6, 3);
    let mut packager = TrackPackager::start_at(0, grid, Tick(12));
    push_all(&mut packager, &grid, 12..14);
    assert_eq!(
        packager.resume_at(Tick(17)),
        Err(PackageError::SegmentClosed {
            tick: Tick(17),
            segment: SegmentNumber(2),
            next_start: Tick(18)
        })
    );
    let part = packager.resume_at(Tick(26)).unwrap().unwrap();
    assert_eq!(
        (part.first_tick, part.ticks, part.last),
        (Tick(12), 2, true)
    );
    let parts = push_all(&mut packager, &grid, 26..30);
    let seen: Vec<_> = parts
        .iter()
        .map(|part| (part.segment.0, part.number, part.ticks, part.last))
        .collect();
    assert_eq!(seen, [(4, 0, 1, false), (4, 1, 3, true)]);
    assert!(read(&parts[0]).styp && !read(&parts[1]).styp);
}

#[test]
fn a_restarted_daemon_continues_the_open_segment() {
    let grid = grid("30", 6, 3);
    let mut first = TrackPackager::start_at(0, grid, Tick(12));
    let durable = push_all(&mut first, &grid, 12..15);
    let mut second = TrackPackager::continue_at(0, grid, Tick(15));
    let parts = push_all(&mut second, &grid, 15..24);
    assert_eq!((parts[0].number, parts[0].last), (1, true));
    assert!(read(&durable[0]).styp && !read(&parts[0]).styp && read(&parts[1]).styp);
}

proptest! {
    #[test]
    fn parts_hold_every_tick_exactly_once_and_follow_each_other(
        rate in prop_oneof![
            (1_u32..=240).prop_map(|n| Framerate::new(n, 1).unwrap()),
            (2_u32..=240).prop_map(|n| Framerate::new(n * 1000, 1001).unwrap()),
        ],
        ticks_per_segment in 1_u32..40,
        part in 1_u32..40,
        second in 1_600_000_000_u64..4_000_000_000,
        late in 0_u64..40,
        count in 1_u64..120,
    ) {
        let grid = Grid {
            framerate: rate,
            ticks_per_segment: NonZeroU32::new(ticks_per_segment).unwrap(),
            ticks_per_part: NonZeroU32::new(part.min(ticks_per_segment)).unwrap(),
            number_offset: 7,
            audio: None,
            cut: None,
        };
        let first = grid.tick_at(UnixTime::from_secs(second)).plus(late);
        let mut packager = TrackPackager::start_at(0, grid, first);
        let mut parts = push_all(&mut packager, &grid, first.0..first.0 + count);
        let flushed = packager.flush();
        prop_assert!(flushed.as_ref().is_none_or(|part| part.last));
        parts.extend(flushed);
        let (mut next, mut sequence) = (first, None);
        let mut after_last = true;
        for part in &parts {
            let read = read(part);
            prop_assert_eq!(part.first_tick, next);
            prop_assert_eq!(read.decode_time, grid.decode_time(next), "tfdt is the end of what came before");
            prop_assert_eq!(read.duration, rate.den());
            prop_assert_eq!(read.styp, after_last);
            prop_assert_eq!(read.samples.len(), part.ticks as usize);
            prop_assert_eq!(part.independent, read.samples[0].1);
            for (data, _, _) in &read.samples {
                prop_assert_eq!(data.as_slice(), &next.0.to_be_bytes());
                prop_assert_eq!(grid.segment_of(next), part.segment);
                prop_assert_eq!(grid.part_of(next), part.number);
                next = next.next();
            }
            if let Some(before) = sequence {
                prop_assert_eq!(read.sequence_number, u32::wrapping_add(before, 1));
            }
            sequence = Some(read.sequence_number);
            prop_assert!(!after_last || part.independent, "a segment starts with a keyframe");
            after_last = part.last;
            prop_assert!(!grid.starts_segment(next) || part.last);
        }
        prop_assert_eq!(next, first.plus(count));
    }
}

/// Decodes `mp4` with FFmpeg: no warning, and the frames' presentation times in the timescale.
fn decode(mp4: &[u8]) -> Vec<u64> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read-back.mp4");
    std::fs::write(&path, mp4).unwrap();
    let decoded = Command::new("ffmpeg")
        .args(["-v", "warning", "-i"])
        .arg(&path)
        .args(["-fps_mode", "passthrough", "-copyts", "-f", "null", "-"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        decoded.status.success() && decoded.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&decoded.stderr)
    );
    let probed = Command::new("ffprobe")
        .args(["-v", "warning", "-count_frames", "-select_streams", "v"])
        .args([
            "-show_entries",
            "frame=pts:stream=nb_read_frames",
            "-of",
            "csv=p=0",
        ])
        .arg(&path)
        .output()
        .unwrap();
    assert!(
        probed.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&probed.stderr)
    );
    let lines = String::from_utf8(probed.stdout).unwrap();
    let mut numbers: Vec<u64> = lines
        .split_whitespace()
        .map(|line| line.trim_end_matches(',').parse().unwrap())
        .collect();
    let count = numbers.pop().unwrap();
    assert_eq!(numbers.len() as u64, count);
    numbers
}

#[test]
fn ffmpeg_decodes_what_was_packaged_at_the_grids_times() {
    let size = Size::new(320, 180);
    for rate in ["30", "30000/1001"] {
        let grid = grid(rate, 15, 4);
        let first = grid.segment_start(Tick(53_946_053_948));
        let (sample_entry, samples) = encode(grid.framerate, 45, 15, size);
        assert_eq!(samples.len(), 45);
        assert!(
            sample_entry.windows(8).any(|at| at == b"colrnclx"),
            "FFmpeg writes the colours into the sample entry"
        );
        let track = TrackInit::new(TrackDescription {
            sample_entry,
            codecs: "avc1.42c00d".to_owned(),
            size,
            framerate: grid.framerate,
            audio: None,
        });
        let mut packager = TrackPackager::start_at(0, grid, first);
        let mut parts = Vec::new();
        for (index, (data, keyframe)) in (0..).zip(samples) {
            let mut sample = sample(&grid, first.0 + index, keyframe, b"");
            sample.data = data;
            parts.extend(packager.push(sample).unwrap());
        }
        assert_eq!(parts.len(), 12);
        let times = |ticks: std::ops::Range<u64>| -> Vec<u64> {
            ticks
                .map(|tick| grid.decode_time(first.plus(tick)))
                .collect()
        };
        let file = |parts: &[Part]| -> Vec<u8> {
            let parts = parts.iter().map(|part| &part.bytes[..]);
            std::iter::once(&track.init[..])
                .chain(parts)
                .collect::<Vec<_>>()
                .concat()
        };
        assert_eq!(decode(&file(&parts)), times(0..45), "all segments");
        assert_eq!(decode(&file(&parts[4..8])), times(15..30), "one alone");
    }
}

#[test]
fn an_init_segment_says_what_the_description_says() {
    let (sample_entry, _) = encode("24000/1001".parse().unwrap(), 1, 1, Size::new(64, 48));
    let description = TrackDescription {
        sample_entry: sample_entry.clone(),
        codecs: "avc1.42c00a".to_owned(),
        size: Size::new(64, 48),
        framerate: "24000/1001".parse().unwrap(),
        audio: None,
    };
    let track = TrackInit::new(description.clone());
    let mut buf = &track.init[..];
    let Some(Any::Ftyp(ftyp)) = Any::decode_maybe(&mut buf).unwrap() else {
        panic!("ftyp comes first");
    };
    assert!(ftyp.compatible_brands.contains(&b"cmfc".into()));
    let Some(Any::Moov(moov)) = Any::decode_maybe(&mut buf).unwrap() else {
        panic!("then moov");
    };
    assert!(buf.is_empty());
    let trak = &moov.trak[0];
    assert_eq!(trak.mdia.mdhd.timescale, 24000);
    assert_eq!(moov.mvhd.timescale, 24000);
    assert_eq!(trak.tkhd.width.integer(), 64);
    assert_eq!(trak.tkhd.height.integer(), 48);
    let trex = &moov.mvex.as_ref().unwrap().trex[0];
    assert_eq!((trex.track_id, trex.default_sample_duration), (1, 1001));
    assert!(matches!(
        trak.mdia.minf.stbl.stsd.codecs[..],
        [mp4_atom::Codec::Avc1(_)]
    ));

    assert_eq!(TrackInit::new(description.clone()), track, "equal inits");
    assert_eq!(track.version.len(), 16);
    let wider = TrackInit::new(TrackDescription {
        size: Size::new(66, 48),
        ..description
    });
    assert_ne!(wider.version, track.version);
}

#[test]
fn a_version_is_the_start_of_the_sha_256() {
    assert_eq!(
        init_version(&Bytes::from_static(b"hello world")),
        "b94d27b9934d3e08"
    );
}

#[test]
fn a_parts_reference_time_is_when_its_first_picture_was_captured() {
    let grid = grid("30", 4, 2);
    let mut packager = TrackPackager::start_at(0, grid, Tick(0));
    let mut seconds = Vec::new();
    for tick in 0..4 {
        let captured = UnixTime::from_secs(10 + tick);
        let sample = sample(&grid, tick, tick == 0, b"x");
        let part = packager.push_captured(sample, captured).unwrap();
        seconds.extend(part.map(|part| read(&part).prft.ntp_timestamp >> 32));
    }
    assert_eq!(seconds, [2_208_988_810, 2_208_988_812]);
}
