//! The rules of what is kept, on a real folder, with a window of made-up media.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;

use super::error::RecordError;
use super::index::Index;
use super::writer::Writer;
use super::*;
use crate::clock::SystemClock;
use crate::package::Part;
use crate::picture::Size;
use crate::publish::{DISK_FULL, PublishError, STEPS_LEFT};
use crate::sample::TrackDescription;
use crate::tick::{Framerate, Grid, Tick};
use crate::window::{Mode, TrackInit, Window, WindowSettings};

/// The bytes of one segment in both tracks.
const SEGMENT_BYTES: u64 = 2 * 1000;
const SEGMENT: Duration = Duration::from_secs(20);

fn grid() -> Grid {
    Grid::new(Framerate::new(30, 1).unwrap(), SEGMENT, SEGMENT)
}

fn inits(version: &str) -> Vec<TrackInit> {
    let init = TrackInit {
        description: TrackDescription {
            sample_entry: Bytes::from_static(b"\x00avc1\xff"),
            codecs: "avc1.64001f".to_owned(),
            size: Size::new(1280, 720),
            framerate: grid().framerate,
            audio: None,
        },
        version: version.to_owned(),
        init: Bytes::from(format!("init {version}")),
    };
    vec![init; 2]
}

/// A stream's folder to keep it in.
struct Scene {
    shared: Shared,
    dir: tempfile::TempDir,
}

impl Scene {
    /// One, and a window that begins so long ago, at a segment's edge.
    fn since(ago: Duration) -> (Self, Window) {
        let dir = tempfile::tempdir().unwrap();
        let anchor = Anchor::new(Arc::new(SystemClock));
        let plan = ArchivePlan {
            stream: "door".to_owned(),
            dir: dir.path().join("reels"),
            keep: Duration::from_secs(86_400),
            max_bytes: None,
            keep_free: 0,
        };
        let mut start = anchor.now().saturating_sub(ago);
        let hour = Duration::from_secs(3600);
        if ago < hour {
            // What is pushed up to now is one hour's.
            let into = Duration::from_nanos(start.as_nanos()).as_secs() % hour.as_secs();
            let end = Duration::from_secs(into) + ago;
            start = start.saturating_sub(end.saturating_sub(hour));
        }
        let start = grid().segment_start(grid().tick_at(start));
        let mut window = Window::new(settings(), None);
        window.begin_period(grid(), start, inits("a"), false, anchor.now());
        let shared = Shared {
            plan,
            anchor,
            reels: Mutex::default(),
            trouble: Mutex::default(),
            viewed: Mutex::default(),
        };
        (Self { shared, dir }, window)
    }

    fn writer(&self) -> Writer<'_> {
        Writer::open(&self.shared)
            .unwrap()
            .expect("nobody else has it")
    }

    /// Pushes `count` segments.
    fn push(window: &mut Window, count: usize) -> Arc<Snapshot> {
        let mut now = UnixTime::default();
        for _ in 0..count {
            let first_tick = window.next_tick(0).unwrap();
            now = grid().time_of(grid().segment_end(first_tick));
            for track in 0..2 {
                window.push(track, part(first_tick), now).unwrap();
            }
        }
        window.snapshot(now)
    }

    fn archive(self) -> (Archive, tempfile::TempDir) {
        let shared = Arc::new(self.shared);
        (Archive { shared }, self.dir)
    }
}

fn part(first_tick: Tick) -> Part {
    let ticks = grid().segment_end(first_tick).since(first_tick);
    Part {
        segment: grid().segment_of(first_tick),
        number: grid().part_of(first_tick),
        first_tick,
        ticks: u32::try_from(ticks).unwrap(),
        independent: true,
        last: true,
        captured: UnixTime::default(),
        bytes: Bytes::from(vec![7; 1000]),
    }
}

/// Every file below `dir`, and how many bytes the segments have.
fn files(dir: &Path) -> (BTreeSet<String>, u64) {
    let (mut names, mut bytes) = (BTreeSet::new(), 0);
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let path = entry.path().strip_prefix(dir).unwrap().to_owned();
            let name = path.to_str().unwrap().to_owned();
            if name.ends_with(".m4s") {
                bytes += entry.metadata().unwrap().len();
            }
            names.insert(name);
        }
    }
    (names, bytes)
}

/// What the reels list in the first track: of each its numbers and how many periods it has.
fn listed(archive: &Archive) -> Vec<(Vec<u64>, usize)> {
    let view = |summary: Summary| {
        let view = archive.view(&summary.name).expect("it is there");
        let track = &view.snapshot().tracks[0];
        let numbers = track.listed.iter().map(|segment| segment.number.0);
        let breaks = track.listed.iter().filter(|one| one.starts_discontinuity());
        (numbers.collect(), 1 + breaks.count())
    };
    archive.reels().into_iter().map(view).collect()
}

fn numbers(archive: &Archive) -> Vec<u64> {
    listed(archive)
        .into_iter()
        .flat_map(|(numbers, _)| numbers)
        .collect()
}

#[test]
fn what_the_window_lists_is_kept_once_by_one_writer_after_another() {
    let (scene, mut window) = Scene::since(SEGMENT * 30);
    let first = grid().segment_of(window.next_tick(0).unwrap()).0;
    let mut writer = scene.writer();
    assert!(
        Writer::open(&scene.shared).unwrap().is_none(),
        "one writer at a time"
    );
    for count in [3, 0, 1, 5] {
        writer.bring(&Scene::push(&mut window, count)).unwrap();
    }
    drop(writer);
    let snapshot = Scene::push(&mut window, 2);
    let mut writer = scene.writer();
    writer.bring(&snapshot).unwrap();
    writer.bring(&snapshot).unwrap();
    drop(writer);
    let (archive, _dir) = scene.archive();
    assert_eq!(numbers(&archive), Vec::from_iter(first..first + 11));
    let status = archive.status();
    assert_eq!((status.segments, status.bytes), (11, 11 * SEGMENT_BYTES));
    assert_eq!(status.error, None);
}

fn settings() -> WindowSettings {
    WindowSettings {
        stream: "door".to_owned(),
        mode: Mode::Live,
        tracks: vec!["high".to_owned(), "low".to_owned()],
        window: SEGMENT * 6,
        target_duration: 20,
    }
}

#[test]
fn the_oldest_go_when_the_budget_is_reached_and_what_is_not_ours_stays() {
    let (mut scene, mut window) = Scene::since(SEGMENT * 100);
    scene.shared.plan.max_bytes = Some(SEGMENT_BYTES * 5 + 10);
    let mut writer = scene.writer();
    writer.bring(&Scene::push(&mut window, 1)).unwrap();
    let reel = scene
        .shared
        .plan
        .dir
        .join(&lock(&scene.shared.reels)[0].name);
    let foreign = [reel.join("high/notes.txt"), reel.join("high/1.m4s")];
    for path in &foreign {
        std::fs::write(path, "").unwrap();
    }
    for _ in 0..40 {
        writer.bring(&Scene::push(&mut window, 2)).unwrap();
        let (_, bytes) = files(&scene.shared.plan.dir);
        assert!(bytes <= SEGMENT_BYTES * 5, "{bytes}");
    }
    let last = grid().segment_of(window.next_tick(0).unwrap()).0;
    drop(writer);
    // Another writer goes on with the same books.
    let mut writer = scene.writer();
    writer.bring(&Scene::push(&mut window, 1)).unwrap();
    drop(writer);
    assert!(foreign.iter().all(|path| path.exists()));
    let (archive, _dir) = scene.archive();
    assert_eq!(numbers(&archive), Vec::from_iter(last - 4..=last));
}

#[test]
fn a_segment_that_is_more_than_the_budget_is_told() {
    let (mut scene, mut window) = Scene::since(SEGMENT * 10);
    scene.shared.plan.max_bytes = Some(SEGMENT_BYTES - 1);
    let error = scene
        .writer()
        .bring(&Scene::push(&mut window, 1))
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("max_bytes = 1999 of record"), "{text}");
    assert!(
        !text.contains("playlists") && !text.contains("window"),
        "{text}"
    );
}

#[test]
fn a_disk_without_room_is_told_by_the_keys_that_a_recording_has() {
    let (mut scene, mut window) = Scene::since(SEGMENT * 10);
    scene.shared.plan.keep_free = u64::MAX / 4;
    let error = scene
        .writer()
        .bring(&Scene::push(&mut window, 1))
        .unwrap_err();
    let text = error.to_string();
    let floor = format!(
        "less than {}, twice the keep_free of [publish]",
        u64::MAX / 4 * 2
    );
    assert!(
        text.contains(&floor) && text.contains("dir of record"),
        "{text}"
    );
}

#[test]
fn an_hour_that_has_too_many_recordings_is_told() {
    let (scene, mut window) = Scene::since(SEGMENT * 10);
    let mut writer = scene.writer();
    writer.bring(&Scene::push(&mut window, 1)).unwrap();
    let plain = lock(&scene.shared.reels)[0].name.clone();
    for number in 2..=100 {
        // Of tracks that the stream had for a moment.
        let other = scene.shared.plan.dir.join(format!("{plain}-{number}"));
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("index.jsonl"), "{\"tracks\":[\"other\"]}\n").unwrap();
    }
    let tracks = ["new-high", "new-low"].map(str::to_owned).to_vec();
    let next = window.next_tick(0).unwrap();
    let mut window = Window::new(
        WindowSettings {
            tracks,
            ..settings()
        },
        None,
    );
    window.begin_period(grid(), next, inits("a"), false, grid().time_of(next));
    let snapshot = Scene::push(&mut window, 1);
    let error = writer.bring(&snapshot).unwrap_err().to_string();
    assert!(
        error.contains(&format!("the hour {plain} has 100 recordings")),
        "{error}"
    );
}

#[test]
fn what_is_too_old_goes_with_its_hour() {
    let more_than_an_hour = SEGMENT * 210;
    let (mut scene, mut window) = Scene::since(more_than_an_hour);
    let mut writer = scene.writer();
    for _ in 0..209 {
        writer.bring(&Scene::push(&mut window, 1)).unwrap();
    }
    drop(writer);
    assert!(lock(&scene.shared.reels).len() >= 2);
    scene.shared.plan.keep = Duration::from_secs(600);
    let mut writer = scene.writer();
    writer.bring(&Scene::push(&mut window, 1)).unwrap();
    drop(writer);
    let folders = names_in(&scene.shared.plan.dir);
    assert!(folders.len() <= 2, "{folders:?}");
    let (archive, _dir) = scene.archive();
    let kept = numbers(&archive).len();
    assert!((29..=31).contains(&kept), "{kept} segments in ten minutes");
}

#[test]
fn another_encoding_and_a_hole_begin_a_period_and_tracks_a_reel() {
    let (scene, mut window) = Scene::since(SEGMENT * 60);
    let mut writer = scene.writer();
    writer.bring(&Scene::push(&mut window, 3)).unwrap();
    let next = window.next_tick(0).unwrap();
    window.begin_period(grid(), next, inits("b"), true, grid().time_of(next));
    writer.bring(&Scene::push(&mut window, 3)).unwrap();
    let next = window.next_tick(0).unwrap();
    let later = grid().segment_end(grid().segment_end(next));
    window.mark_missing(next, later, grid().time_of(later));
    window.begin_period(grid(), later, inits("b"), false, grid().time_of(later));
    writer.bring(&Scene::push(&mut window, 3)).unwrap();
    drop(writer);
    let (archive, dir) = scene.archive();
    let reels = listed(&archive);
    let periods: usize = reels.iter().map(|(_, periods)| periods).sum();
    let numbers: Vec<u64> = reels
        .iter()
        .flat_map(|(numbers, _)| numbers.clone())
        .collect();
    assert_eq!(numbers.len(), 9);
    assert_eq!(numbers[8] - numbers[0], 10, "two are missing: {numbers:?}");
    assert_eq!((periods, reels.len()), (3, 1), "{reels:?}");
    let (files, _) = files(dir.path());
    for version in ["init-a.mp4", "init-b.mp4"] {
        assert!(
            files.iter().any(|path| path.ends_with(version)),
            "{files:?}"
        );
    }
}

#[test]
fn what_a_crash_cut_off_is_a_hole() {
    let (scene, mut window) = Scene::since(SEGMENT * 30);
    let first = grid().segment_of(window.next_tick(0).unwrap()).0;
    let mut writer = scene.writer();
    writer.bring(&Scene::push(&mut window, 4)).unwrap();
    drop(writer);
    let newest = lock(&scene.shared.reels).last().unwrap().name.clone();
    let reel = scene.shared.plan.dir.join(&newest);
    let taken = format!("low/{}.m4s", first + 1);
    std::fs::remove_file(reel.join(taken)).unwrap();
    let index = reel.join("index.jsonl");
    let mut text = std::fs::read(&index).unwrap();
    text.extend_from_slice(b"{\"column\":{\"starts\":17");
    std::fs::write(&index, text).unwrap();
    let mut writer = scene.writer();
    writer.bring(&Scene::push(&mut window, 2)).unwrap();
    drop(writer);
    let (archive, _dir) = scene.archive();
    let mut expected = Vec::from_iter(first..first + 6);
    expected.remove(1);
    assert_eq!(numbers(&archive), expected);
}

#[test]
fn what_has_left_the_window_is_counted_if_the_disk_was_so_slow_and_only_then() {
    let (scene, mut window) = Scene::since(SEGMENT * 100);
    let mut writer = scene.writer();
    writer.bring(&Scene::push(&mut window, 2)).unwrap();
    let missed = || lock(&scene.shared.trouble).missed;
    let push = |window: &mut Window| {
        Scene::push(window, 40);
        let now = grid().time_of(window.next_tick(0).unwrap());
        window.expire(now);
        window.snapshot(now)
    };
    // So much passed in no time: it was never there.
    let kept = grid().time_of(window.next_tick(0).unwrap());
    let snapshot = push(&mut window);
    let left = |snapshot: &Snapshot| {
        let video = &snapshot.tracks[0];
        let first = video.retained.iter().chain(&video.listed).next();
        first.unwrap().starts()
    };
    assert!(left(&snapshot) > kept, "the window has not all of it");
    lock(&scene.shared.trouble).held_up = SEGMENT;
    writer.bring(&snapshot).unwrap();
    assert_eq!(missed(), Duration::ZERO);

    // The pass was under way for so long.
    let kept = grid().time_of(window.next_tick(0).unwrap());
    lock(&scene.shared.trouble).held_up = SEGMENT * 40;
    let snapshot = push(&mut window);
    let hole = left(&snapshot).saturating_since(kept);
    // What fails at first is counted once.
    DISK_FULL.set(true);
    writer.bring(&snapshot).unwrap_err();
    DISK_FULL.set(false);
    writer.bring(&snapshot).unwrap();
    assert!(!hole.is_zero());
    assert_eq!(missed(), hole);
    writer.bring(&Scene::push(&mut window, 1)).unwrap();
    assert_eq!(missed(), hole);
}

/// The segments on the disk, and those that the reels list.
fn on_disk_and_listed(scene: Scene) -> (BTreeSet<String>, BTreeSet<String>) {
    let (files, _) = files(&scene.shared.plan.dir);
    let is_segment = |path: &String| path.ends_with(".m4s");
    let (archive, _dir) = scene.archive();
    let mut listed = BTreeSet::new();
    for reel in archive.reels() {
        let view = archive.view(&reel.name).unwrap();
        for track in &view.snapshot().tracks {
            let numbers = track.listed.iter().map(|segment| segment.number);
            listed
                .extend(numbers.map(|number| format!("{}/{}/{number}.m4s", reel.name, track.name)));
        }
    }
    (files.into_iter().filter(is_segment).collect(), listed)
}

#[test]
fn a_stop_at_any_step_leaves_what_the_next_writer_goes_on_with_and_nothing_that_nobody_names() {
    for steps in 0.. {
        let (mut scene, mut window) = Scene::since(SEGMENT * 100);
        scene.shared.plan.max_bytes = Some(SEGMENT_BYTES * 4);
        let mut writer = scene.writer();
        writer.bring(&Scene::push(&mut window, 4)).unwrap();
        let snapshot = Scene::push(&mut window, 2);
        STEPS_LEFT.set(Some(steps));
        let stopped = writer.bring(&snapshot).is_err();
        STEPS_LEFT.set(None);
        drop(writer);
        let mut writer = scene.writer();
        writer.bring(&snapshot).unwrap();
        drop(writer);
        let last = grid().segment_of(window.next_tick(0).unwrap()).0 - 1;
        let (files, listed) = on_disk_and_listed(scene);
        assert_eq!(files, listed, "stopped after {steps} steps");
        // What was begun and is written again counts twice, so one more may have gone for it.
        let newest = format!("/low/{last}.m4s");
        assert!(
            (6..=8).contains(&listed.len()) && listed.iter().any(|path| path.ends_with(&newest)),
            "{listed:?}"
        );
        if !stopped {
            assert!(steps > 10, "{steps} steps");
            break;
        }
    }
}

#[test]
fn what_a_full_disk_refuses_is_kept_once_there_is_room_if_the_window_still_has_it() {
    let (scene, mut window) = Scene::since(SEGMENT * 100);
    let first = grid().segment_of(window.next_tick(0).unwrap()).0;
    let mut writer = scene.writer();
    writer.bring(&Scene::push(&mut window, 2)).unwrap();
    DISK_FULL.set(true);
    for _ in 0..3 {
        let error = writer.bring(&Scene::push(&mut window, 1)).unwrap_err();
        let RecordError::Folder(PublishError::Io { source, .. }) = &error else {
            panic!("{error}");
        };
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        assert!(
            error.to_string().ends_with("max_bytes that fits"),
            "{error}"
        );
    }
    DISK_FULL.set(false);
    drop(writer);
    let mut writer = scene.writer();
    writer.bring(&Scene::push(&mut window, 1)).unwrap();
    drop(writer);
    let (archive, _dir) = scene.archive();
    assert_eq!(numbers(&archive), Vec::from_iter(first..first + 6));
}

#[test]
fn a_reel_that_nobody_asks_for_any_more_is_let_go_of() {
    let (scene, mut window) = Scene::since(SEGMENT * 30);
    let mut writer = scene.writer();
    writer.bring(&Scene::push(&mut window, 4)).unwrap();
    drop(writer);
    let (archive, _dir) = scene.archive();
    let name = archive.reels()[0].name.clone();
    let view = archive.view(&name).unwrap();
    let again = archive.view(&name).unwrap();
    assert!(Arc::ptr_eq(view.snapshot(), again.snapshot()));
    assert!(Arc::ptr_eq(view.texts(), again.texts()));
    let asked = Instant::now();
    let held = || lock(&archive.shared.viewed).len();
    archive.shared.let_go(asked + UNWATCHED / 2);
    assert_eq!(held(), 1);
    archive.shared.let_go(asked + UNWATCHED);
    assert_eq!(held(), 0);
}

proptest! {
    #[test]
    fn an_index_that_anybody_wrote_is_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..400), cut in 0_usize..400) {
        let _ = Index::read(&text);
        let mut good = b"{\"tracks\":[\"a\"]}\n{\"gone\":5}\n{\"column\":{\"starts\":1,\"ends\":2,\"number\":1,\"cells\":[]}}\n".to_vec();
        good.truncate(cut);
        good.extend_from_slice(&text);
        let _ = Index::read(&good);
    }
}
