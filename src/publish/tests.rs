use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::copy::Copy;
use super::folder::{DISK_FULL, STEPS_LEFT};
use super::*;
use crate::package::Part;
use crate::picture::{PictureFormat, Size};
use crate::sample::{AudioFormat, TrackDescription};
use crate::tick::{Framerate, Grid, Tick, UnixTime};
use crate::window::{Mode, Snapshot, TrackInit, Window, WindowSettings};

const START: Tick = Tick(54_000_000_000);
const SOURCE: RememberedSource = RememberedSource {
    format: PictureFormat::I420,
    size: Size::new(1280, 720),
    input: Some(7),
};

fn grid() -> Grid {
    Grid::new(
        Framerate::new(30, 1).unwrap(),
        Duration::from_secs(2),
        Duration::from_millis(500),
    )
}

fn names(tracks: &[&str]) -> Vec<String> {
    tracks.iter().map(|name| (*name).to_owned()).collect()
}

fn settings(tracks: &[&str]) -> WindowSettings {
    WindowSettings {
        stream: "door".to_owned(),
        mode: Mode::Live,
        tracks: names(tracks),
        window: Duration::from_secs(12),
        target_duration: 2,
    }
}

fn inits(tracks: usize, version: &str) -> Vec<TrackInit> {
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
    vec![init; tracks]
}

fn time(tick: Tick) -> UnixTime {
    grid().time_of(tick)
}

/// Pushes the next part of every track: the time is the end of it.
fn step(window: &mut Window) -> Arc<Snapshot> {
    let mut now = UnixTime::default();
    let tracks = window.snapshot(now).tracks.len();
    let tick = window.resume_tick().unwrap();
    for track in 0..tracks {
        if window.next_tick(track) != Some(tick) {
            continue;
        }
        let grid = window.period().unwrap().grid;
        now = push(window, track, &grid, tick);
    }
    window.expire(now);
    window.snapshot(now)
}

/// Pushes the part of `track`, whose grid is given, that begins at `tick`, at its end, which is returned.
fn push(window: &mut Window, track: usize, grid: &Grid, tick: Tick) -> UnixTime {
    let mut ticks = 1;
    while !grid.ends_part(tick.plus(ticks - 1)) {
        ticks += 1;
    }
    let end = tick.plus(ticks);
    let now = grid.time_of(end);
    let content = format!("{track} {tick};").repeat(20 + track);
    let part = Part {
        segment: grid.segment_of(tick),
        number: grid.part_of(tick),
        first_tick: tick,
        ticks: u32::try_from(ticks).unwrap(),
        independent: grid.starts_segment(tick),
        last: grid.starts_segment(end),
        captured: grid.time_of(tick),
        bytes: Bytes::from(content),
    };
    window.push(track, part, now).unwrap();
    now
}

fn started(tracks: &[&str]) -> Window {
    let mut window = Window::new(settings(tracks), None);
    window.begin_period(grid(), START, inits(tracks.len(), "a"), false, time(START));
    window
}

/// Playlists that say in a line each what they list: the file and its length.
fn playlists(snapshot: &Snapshot) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for view in &snapshot.tracks {
        let mut text = format!("sequence {}\n", snapshot.media_sequence);
        for segment in view.listed.iter().filter(|segment| !segment.gap) {
            text += &format!("{}.m4s {}\n", segment.number, segment.len());
        }
        files.push((format!("{}/media.m3u8", view.name), text));
    }
    files.push(("index.m3u8".to_owned(), "index".to_owned()));
    files
}

fn copy(dir: &Path, ledger: Ledger) -> Copy<impl Manifests> {
    limited(dir, ledger, DiskLimits::default())
}

fn limited(dir: &Path, ledger: Ledger, limits: DiskLimits) -> Copy<impl Manifests> {
    Copy::new(dir.to_owned(), ledger, playlists, limits)
}

fn contents(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(dir.join(&at)).unwrap() {
            let entry = entry.unwrap();
            let path = at.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                found.insert(path.to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// Exactly what the folder has to hold for `snapshot`.
fn expected(snapshot: &Snapshot) -> BTreeSet<String> {
    let mut files = BTreeSet::from(["state.json".to_owned(), "state.copy.json".to_owned()]);
    files.extend(playlists(snapshot).into_iter().map(|(name, _)| name));
    for (track, view) in snapshot.tracks.iter().enumerate() {
        for segment in view.retained.iter().chain(&view.listed) {
            if !segment.gap {
                files.insert(format!("{}/{}.m4s", view.name, segment.number));
            }
            files.insert(format!(
                "{}/init-{}.mp4",
                view.name, segment.period.tracks[track].version
            ));
        }
        if let Some(open) = &view.open {
            files.insert(format!(
                "{}/init-{}.mp4",
                view.name, open.period.tracks[track].version
            ));
            for part in &open.parts {
                files.insert(format!(
                    "{}/{}.{}.m4s",
                    view.name, part.segment, part.number
                ));
            }
        }
    }
    files
}

/// The media sequence of the playlists in `dir`, each of which lists only files that are whole.
fn served(dir: &Path, tracks: &[&str]) -> u64 {
    let mut newest = 0;
    for track in tracks {
        let Ok(text) = std::fs::read_to_string(dir.join(track).join("media.m3u8")) else {
            continue;
        };
        let mut lines = text.lines();
        let sequence = lines.next().unwrap().strip_prefix("sequence ").unwrap();
        newest = newest.max(sequence.parse().unwrap());
        for line in lines {
            let (name, len) = line.split_once(' ').unwrap();
            let path = dir.join(track).join(name);
            let found = std::fs::metadata(&path).map(|file| file.len()).ok();
            assert_eq!(
                found,
                Some(len.parse().unwrap()),
                "{} is listed",
                path.display()
            );
        }
    }
    newest
}

fn again(dir: &Path, tracks: &[&str], now: UnixTime) -> (Window, Restored) {
    let restored = restore(dir, "door", &names(tracks), now).unwrap();
    let window = Window::new(settings(tracks), restored.snapshot.as_deref());
    (window, restored)
}

fn published(dir: &Path, tracks: &[&str], parts: usize) -> (Window, Arc<Snapshot>) {
    let mut window = started(tracks);
    let mut copy = copy(dir, Ledger::default());
    let mut snapshot = None;
    for _ in 0..parts {
        let next = step(&mut window);
        copy.bring(&next, Some(SOURCE)).unwrap();
        snapshot = Some(next);
    }
    (window, snapshot.unwrap())
}

#[test]
fn a_folder_has_one_publisher_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let stream = dir.path().join("door");
    let claim = Claim::take(&stream).unwrap();
    assert!(claim.is_some() && Claim::take(&stream).unwrap().is_none());
    drop(claim);
    assert!(Claim::take(&stream).unwrap().is_some());
}

#[test]
fn the_folder_holds_exactly_what_the_window_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut window = started(&["hi", "lo"]);
    let mut copy = copy(dir.path(), Ledger::default());
    for part in 0..90 {
        let snapshot = step(&mut window);
        copy.bring(&snapshot, None).unwrap();
        if part >= 4 {
            assert_eq!(contents(dir.path()), expected(&snapshot));
            assert_eq!(served(dir.path(), &["hi", "lo"]), snapshot.media_sequence.0);
        }
    }
}

#[test]
fn a_restart_finds_a_copied_stream_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let grid = Grid::copied(Duration::from_secs(2), None);
    let start = grid.tick_at(time(START));
    let mut window = Window::new(settings(&["hi"]), None);
    window.begin_cut_period(grid, start, inits(1, "a"), false, time(START));
    let mut now = time(START);
    for ticks in [180_000, 175_000, 200_001] {
        let first_tick = window.next_tick(0).unwrap();
        now = grid.time_of(first_tick.plus(ticks));
        let part = Part {
            segment: window.next_number(),
            number: 0,
            first_tick,
            ticks: u32::try_from(ticks).unwrap(),
            independent: true,
            last: true,
            captured: time(START),
            bytes: Bytes::from(vec![7; 100]),
        };
        window.push(0, part, now).unwrap();
    }
    window.mark_away(start.plus(555_001 + 180_000), now);
    let before = window.snapshot(now);
    copy(dir.path(), Ledger::default())
        .bring(&before, None)
        .unwrap();
    let restored = restore(dir.path(), "door", &names(&["hi"]), now).unwrap();
    assert_eq!(restored.notes, Vec::<String>::new());
    assert_eq!(restored.grid_for(&grid, start), (grid, false));
    let after = restored.snapshot.unwrap();
    let listed = |snapshot: &Snapshot| -> Vec<_> {
        let segments = snapshot.tracks[0].listed.iter();
        let of =
            |one: &Arc<crate::window::Segment>| (one.number, one.first_tick, one.ticks, one.gap);
        segments.map(of).collect()
    };
    assert_eq!(listed(&after), listed(&before));
    assert_eq!(listed(&after).len(), 4);
}

#[test]
fn a_restart_finds_the_window_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (_, before) = published(dir.path(), &["hi", "lo"], 70);
    let restored = restore(dir.path(), "door", &names(&["hi", "lo"]), before.updated).unwrap();
    assert_eq!(restored.notes, Vec::<String>::new());
    assert_eq!(restored.snapshot.as_deref(), Some(&*before));
    assert_eq!(restored.source, Some(SOURCE));
    assert_eq!(restored.last_tick, Some(START.plus(70 * 15 - 1)));
    assert_eq!(restored.grid_for(&grid(), START), (grid(), false));
    let window = Window::new(settings(&["hi", "lo"]), Some(&before));
    assert_eq!(window.snapshot(before.updated), before);
    assert_eq!(window.resume_tick(), Some(START.plus(70 * 15)));
}

#[test]
fn renditions_in_another_order_are_the_same_renditions() {
    let dir = tempfile::tempdir().unwrap();
    let (_, before) = published(dir.path(), &["hi", "lo"], 40);
    let (window, restored) = again(dir.path(), &["lo", "hi"], before.updated);
    assert!(!restored.started_over);
    let after = window.snapshot(before.updated);
    assert_eq!(after.tracks[0].listed.len(), before.tracks[1].listed.len());
    assert_eq!(
        after.tracks[0].listed[0].parts,
        before.tracks[1].listed[0].parts
    );
}

#[test]
fn a_stop_at_any_instruction_leaves_a_folder_that_serves_and_that_the_next_start_takes_over() {
    let tracks = ["hi", "lo"];
    let mut stops = 0;
    // The passes that begin the stream, close a segment, rotate and expire.
    for pass in [0, 3, 4, 59] {
        for steps in 0.. {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("hi")).unwrap();
            std::fs::write(dir.path().join("hi/foreign.txt"), "mine").unwrap();
            let mut window = started(&tracks);
            let mut running = copy(dir.path(), Ledger::default());
            for _ in 0..pass {
                running.bring(&step(&mut window), None).unwrap();
            }
            let snapshot = step(&mut window);
            STEPS_LEFT.set(Some(steps));
            let stopped = running.bring(&snapshot, None).is_err();
            STEPS_LEFT.set(None);
            let sequence = served(dir.path(), &tracks);
            if !stopped {
                break;
            }
            stops += 1;
            let now = snapshot.updated.saturating_add(Duration::from_millis(300));
            let (mut window, restored) = again(dir.path(), &tracks, now);
            assert!(window.snapshot(now).media_sequence.0 >= sequence);
            assert!(pass == 0 || !restored.started_over, "{:?}", restored.notes);
            let resume = window.resume_tick().unwrap_or(START);
            assert!(
                pass == 0 || resume.plus(2 * 15) >= snapshot_end(&snapshot),
                "at most the last part is lost"
            );
            if window.period().is_none() {
                window.begin_period(grid(), resume, inits(2, "a"), false, now);
            }
            let mut next = copy(dir.path(), restored.ledger);
            let mut last = None;
            for _ in 0..6 {
                let snapshot = step(&mut window);
                next.bring(&snapshot, None).unwrap();
                served(dir.path(), &tracks);
                last = Some(snapshot);
            }
            let mut expected = expected(&last.unwrap());
            expected.insert("hi/foreign.txt".to_owned());
            let mut found = contents(dir.path());
            // What a stop left under the temporary name is written over by the next file.
            found.retain(|name| !name.ends_with(".ringgear.tmp"));
            assert_eq!(
                found, expected,
                "stopped in pass {pass} after {steps} steps"
            );
        }
    }
    assert!(stops > 100, "{stops}");
}

fn snapshot_end(snapshot: &Snapshot) -> Tick {
    let view = &snapshot.tracks[0];
    let open = view.open.as_ref().and_then(|open| open.parts.last());
    match open {
        Some(part) => part.first_tick.plus(u64::from(part.ticks)),
        None => view.listed.last().unwrap().end_tick(),
    }
}

#[test]
fn what_expired_meanwhile_is_removed_and_foreign_files_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let (_, before) = published(dir.path(), &["hi"], 60);
    let foreign = [
        "hi/foreign.txt",
        "hi/1.m4s",
        "hi/12345.2.m4s",
        "notes",
        "hi/init-x.mp4",
    ];
    for name in foreign {
        std::fs::write(dir.path().join(name), "mine").unwrap();
    }
    let later = before.updated.saturating_add(Duration::from_secs(600));
    let (window, restored) = again(dir.path(), &["hi"], later);
    let after = window.snapshot(later);
    assert!(after.tracks[0].retained.is_empty());
    copy(dir.path(), restored.ledger)
        .bring(&after, None)
        .unwrap();
    let mut expected = expected(&after);
    expected.extend(foreign.map(str::to_owned));
    assert_eq!(contents(dir.path()), expected);
}

#[test]
fn a_segment_that_is_missing_or_cut_is_a_gap_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let (_, before) = published(dir.path(), &["hi"], 40);
    let listed = &before.tracks[0].listed;
    std::fs::remove_file(dir.path().join(format!("hi/{}.m4s", listed[1].number))).unwrap();
    std::fs::write(
        dir.path().join(format!("hi/{}.m4s", listed[2].number)),
        "cut",
    )
    .unwrap();
    let (window, restored) = again(dir.path(), &["hi"], before.updated);
    let after = window.snapshot(before.updated);
    let gaps: Vec<_> = after.tracks[0]
        .listed
        .iter()
        .map(|segment| segment.gap)
        .collect();
    assert_eq!(gaps, [false, true, true, false, false, false]);
    assert_eq!(restored.notes.len(), 1);
    copy(dir.path(), restored.ledger)
        .bring(&after, None)
        .unwrap();
    assert_eq!(contents(dir.path()), expected(&after));
}

#[test]
fn numbers_go_on_though_the_state_is_damaged_missing_or_of_another_stream() {
    let whole = {
        let dir = tempfile::tempdir().unwrap();
        published(dir.path(), &["hi"], 41);
        std::fs::read_to_string(dir.path().join("state.json")).unwrap()
    };
    let with = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from} in {whole}");
        Some(whole.replacen(from, to, 1))
    };
    let damages = [
        None,
        Some(String::new()),
        Some("{".to_owned()),
        Some("null".to_owned()),
        Some("\u{0}".repeat(4096)),
        Some(whole[..whole.len() / 2].to_owned()),
        with("\"version\":1", "\"version\":9"),
        with("\"stream\":\"door\"", "\"stream\":\"other\""),
        with("\"last_tick\":", "\"last_tick\":9"),
        with("\"last_tick\":", "\"last_tick\":99999999999999999999"),
        with("\"media_sequence\":", "\"media_sequence\":9999999999"),
        with(
            "\"number_offset\":",
            "\"number_offset\":1844674407370955161",
        ),
        with(
            "\"discontinuity_sequence\":",
            "\"discontinuity_sequence\":-1",
        ),
    ];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        let (_, before) = published(dir.path(), &["hi"], 41);
        let damaged = |state: &str| match &damage {
            Some(text) => std::fs::write(dir.path().join(state), text).unwrap(),
            None => std::fs::remove_file(dir.path().join(state)).unwrap(),
        };
        damaged("state.json");
        let (window, restored) = again(dir.path(), &["hi"], before.updated);
        let goes_on = window.snapshot(before.updated);
        assert_eq!(goes_on.media_sequence, before.media_sequence);
        assert_eq!(restored.notes.len(), 1, "the copy is as good");
        assert!(stored_end(dir.path(), "door").is_some());

        damaged("state.copy.json");
        let damage = damage.as_deref().map(|text| &text[..text.len().min(60)]);
        assert_eq!(stored_end(dir.path(), "door"), None, "{damage:?}");
        let (window, restored) = again(dir.path(), &["hi"], before.updated);
        let last = before.tracks[0].open.as_ref().unwrap().number;
        assert_eq!(restored.last_number, Some(last), "{damage:?}");
        assert_eq!(window.snapshot(before.updated).media_sequence, last.next());
        assert_eq!(restored.notes.len(), 1);
        assert!(restored.started_over);
        let (earlier, _) = restored.grid_for(&grid(), START);
        assert_eq!(earlier.segment_of(START), last.next());
        // Within the segment that is open, what comes begins at its end, and the numbers stay the clock's.
        let due = before.tracks[0].open.as_ref().unwrap().first_tick.next();
        assert_eq!(restored.grid_for(&grid(), due), (grid(), false));
    }
}

#[test]
fn without_its_state_the_window_counts_the_discontinuities_of_its_playlists_on() {
    let dir = tempfile::tempdir().unwrap();
    let (_, before) = published(dir.path(), &["hi"], 41);
    for state in ["state.json", "state.copy.json"] {
        std::fs::remove_file(dir.path().join(state)).unwrap();
    }
    let playlist = dir.path().join("hi/media.m3u8");
    let text = "#EXTM3U\n#EXT-X-DISCONTINUITY-SEQUENCE:7\n1.m4s\n#EXT-X-DISCONTINUITY\n2.m4s\n";
    std::fs::write(playlist, text).unwrap();
    let (window, _) = again(dir.path(), &["hi"], before.updated);
    let snapshot = window.snapshot(before.updated);
    assert_eq!(snapshot.discontinuity_sequence, 8);
}

#[test]
fn a_state_tells_how_far_it_reaches_before_anything_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(stored_end(dir.path(), "door"), None);
    let (_, before) = published(dir.path(), &["hi"], 41);
    let end = stored_end(dir.path(), "door").unwrap();
    assert_eq!(end.time, grid().time_of(snapshot_end(&before)));
    assert_eq!(
        end.segment,
        grid()
            .time_of(grid().segment_end(Tick(0)))
            .saturating_since(UnixTime::default())
    );
}

#[test]
fn other_renditions_start_over_and_the_old_files_go_when_they_expire() {
    let dir = tempfile::tempdir().unwrap();
    let (_, before) = published(dir.path(), &["hi", "lo"], 40);
    let now = before.updated;
    let (mut window, restored) = again(dir.path(), &["hi", "mid"], now);
    assert!(restored.started_over);
    let last = before.tracks[0].listed.last().unwrap().number;
    assert_eq!(restored.last_number, Some(last));
    let first = grid().segment_end(grid().tick_at(now));
    window.begin_period(grid(), first, inits(2, "b"), true, now);
    let mut running = copy(dir.path(), restored.ledger);
    for _ in 0..8 {
        running.bring(&step(&mut window), None).unwrap();
        assert!(dir.path().join(format!("lo/{last}.m4s")).exists());
    }
    // A restart in between forgets nothing.
    let middle = window.snapshot(
        window
            .period()
            .unwrap()
            .grid
            .time_of(window.resume_tick().unwrap()),
    );
    let (mut window, restored) = again(dir.path(), &["hi", "mid"], middle.updated);
    let mut running = copy(dir.path(), restored.ledger);
    let mut snapshot = middle;
    for _ in 0..40 {
        snapshot = step(&mut window);
        running.bring(&snapshot, None).unwrap();
    }
    assert_eq!(contents(dir.path()), expected(&snapshot));
    assert!(!dir.path().join("lo").exists());
}

#[test]
fn a_new_grid_numbers_on_from_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let (_, before) = published(dir.path(), &["hi"], 40);
    let (mut window, restored) = again(dir.path(), &["hi"], before.updated);
    let longer = Grid::new(
        grid().framerate,
        Duration::from_secs(4),
        Duration::from_millis(500),
    );
    let first = longer.segment_end(longer.tick_at(before.updated));
    let (longer, changed) = restored.grid_for(&longer, first);
    assert!(changed);
    assert_eq!(
        longer.segment_of(first),
        restored.last_number.unwrap().next()
    );
    window.begin_period(longer, first, inits(1, "a"), true, before.updated);
    assert_eq!(
        window.snapshot(before.updated).tracks[0].listed.len(),
        before.tracks[0].listed.len()
    );
    let mut running = copy(dir.path(), restored.ledger);
    let mut snapshot = before;
    for _ in 0..10 {
        snapshot = step(&mut window);
        running.bring(&snapshot, None).unwrap();
    }
    let (window, restored) = again(dir.path(), &["hi"], snapshot.updated);
    assert_eq!(window.snapshot(snapshot.updated).tracks, snapshot.tracks);
    assert_eq!(restored.grid_for(&longer, first), (longer, false));
}

#[test]
fn what_stands_in_the_way_is_named_and_the_folder_is_made_once_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let folder = dir.path().join("door");
    let mut window = started(&["hi"]);
    let mut running = copy(&folder, Ledger::default());
    std::fs::write(&folder, "a file").unwrap();
    let error = running
        .bring(&step(&mut window), None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("door") && error.contains("move away"),
        "{error}"
    );
    std::fs::remove_file(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.join("hi")).unwrap();
    let error = running
        .bring(&step(&mut window), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no symbolic link"), "{error}");
    assert!(contents(outside.path()).is_empty());
    std::fs::remove_file(folder.join("hi")).unwrap();
    (0..8).for_each(|_| running.bring(&step(&mut window), None).unwrap());
    std::fs::remove_dir_all(&folder).unwrap();
    // The new folder may get the old one's inode number: then the next segment at the latest shows that all is gone.
    let mut snapshot = step(&mut window);
    for _ in 0..6 {
        running.bring(&snapshot, None).unwrap();
        snapshot = step(&mut window);
    }
    running.bring(&snapshot, None).unwrap();
    assert_eq!(contents(&folder), expected(&snapshot));
    assert_eq!(served(&folder, &["hi"]), snapshot.media_sequence.0);
}

#[test]
fn a_full_disk_is_freed_of_what_expired_but_not_of_what_its_playlists_list() {
    let dir = tempfile::tempdir().unwrap();
    let mut window = started(&["hi"]);
    let mut running = copy(dir.path(), Ledger::default());
    (0..59).for_each(|_| running.bring(&step(&mut window), None).unwrap());
    let snapshot = step(&mut window);
    running.bring(&snapshot, None).unwrap();
    let before = contents(dir.path()).len();
    DISK_FULL.set(true);
    let mut error = String::new();
    for _ in 0..40 {
        error = running
            .bring(&step(&mut window), None)
            .unwrap_err()
            .to_string();
    }
    DISK_FULL.set(false);
    assert!(error.contains("free some space"), "{error}");
    served(dir.path(), &["hi"]);
    assert_eq!(
        contents(dir.path()).len(),
        before - snapshot.tracks[0].retained.len(),
        "what was retained is gone"
    );
    DISK_FULL.set(true);
    for _ in 0..100 {
        running.bring(&step(&mut window), None).unwrap_err();
    }
    DISK_FULL.set(false);
    let left = contents(dir.path());
    assert!(
        left.iter()
            .all(|path| path.starts_with("state.") || path.contains("init-")),
        "playlists that list nothing of the window go with what they list: {left:?}"
    );
    let mut snapshot = step(&mut window);
    for _ in 0..4 {
        running.bring(&snapshot, None).unwrap();
        snapshot = step(&mut window);
    }
    running.bring(&snapshot, None).unwrap();
    assert_eq!(contents(dir.path()), expected(&snapshot));
}

#[test]
fn below_the_floor_nothing_is_written_until_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut window = started(&["hi"]);
    (0..9).for_each(|_| drop(step(&mut window)));
    let snapshot = step(&mut window);
    let all = DiskLimits {
        keep_free: u64::MAX / 4,
        max_bytes: None,
    };
    let mut running = limited(dir.path(), Ledger::default(), all);
    let error = running.bring(&snapshot, None).unwrap_err().to_string();
    assert!(error.contains("[publish] keep_free"), "{error}");
    assert!(
        contents(dir.path()).is_empty(),
        "{:?}",
        contents(dir.path())
    );
    let little = DiskLimits {
        keep_free: 1,
        max_bytes: None,
    };
    let mut running = limited(dir.path(), Ledger::default(), little);
    running.bring(&snapshot, None).unwrap();
    assert_eq!(contents(dir.path()), expected(&snapshot));
}

/// The bytes of the media files in `dir`.
fn media_bytes(dir: &Path) -> u64 {
    let files = contents(dir).into_iter();
    let media = files.filter(|path| path.ends_with(".m4s") || path.ends_with(".mp4"));
    media
        .map(|path| std::fs::metadata(dir.join(path)).unwrap().len())
        .sum()
}

#[test]
fn a_budget_costs_retained_segments_first_and_is_never_passed() {
    let dir = tempfile::tempdir().unwrap();
    let mut window = started(&["hi", "lo"]);
    let mut free = limited(dir.path(), Ledger::default(), DiskLimits::default());
    (0..100).for_each(|_| free.bring(&step(&mut window), None).unwrap());
    let whole = media_bytes(dir.path());
    let listed = |snapshot: &Snapshot| -> u64 {
        let tracks = snapshot.tracks.iter();
        let segments = tracks.flat_map(|view| &view.listed);
        segments.map(|segment| segment.len()).sum()
    };

    let dir = tempfile::tempdir().unwrap();
    let mut window = started(&["hi", "lo"]);
    let limit = whole * 4 / 5;
    let limits = DiskLimits {
        keep_free: 0,
        max_bytes: Some(limit),
    };
    let mut tight = limited(dir.path(), Ledger::default(), limits);
    let mut last = step(&mut window);
    for _ in 0..100 {
        tight.bring(&last, None).unwrap();
        assert!(media_bytes(dir.path()) <= limit);
        served(dir.path(), &["hi", "lo"]);
        last = step(&mut window);
    }

    let limits = DiskLimits {
        keep_free: 0,
        max_bytes: Some(listed(&last) / 2),
    };
    let dir = tempfile::tempdir().unwrap();
    let mut too_tight = limited(dir.path(), Ledger::default(), limits);
    let error = too_tight.bring(&last, None).unwrap_err().to_string();
    assert!(error.contains("raise max_bytes"), "{error}");
    assert_eq!(media_bytes(dir.path()), 0);
}

#[test]
fn a_link_in_place_of_a_file_is_replaced_and_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(outside.path(), "precious").unwrap();
    std::fs::create_dir(dir.path().join("hi")).unwrap();
    let number = grid().segment_of(START);
    for name in [
        format!("hi/{number}.0.m4s"),
        "hi/.ringgear.tmp".to_owned(),
        "state.json".to_owned(),
        "state.copy.json".to_owned(),
    ] {
        std::os::unix::fs::symlink(outside.path(), dir.path().join(name)).unwrap();
    }
    let restored = restore(dir.path(), "door", &names(&["hi"]), time(START)).unwrap();
    let snapshot = step(&mut started(&["hi"]));
    copy(dir.path(), restored.ledger)
        .bring(&snapshot, None)
        .unwrap();
    assert_eq!(std::fs::read_to_string(outside.path()).unwrap(), "precious");
    assert!(!dir.path().join("state.json").is_symlink());
}

#[test]
fn the_thread_follows_the_newest_snapshot_reports_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("door");
    std::fs::write(&folder, "a file").unwrap();
    let mut window = started(&["hi"]);
    let (sender, receiver) = tokio::sync::watch::channel(step(&mut window));
    let plan = DiskPlan {
        dir: folder.clone(),
        manifests: playlists,
        limits: DiskLimits::default(),
        rest: Duration::ZERO,
    };
    let desk = DiskDesk::new("door", None);
    let known = || Ok(Ledger::default());
    let publisher = DiskPublisher::start(plan, desk.clone(), known, receiver, |_| {}, ()).unwrap();
    let wait = |what: &dyn Fn(DiskStatus) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !what(desk.status()) {
            assert!(Instant::now() < deadline, "{:?}", desk.status());
            std::thread::yield_now();
        }
    };
    wait(&|status| status.error.is_some());
    std::fs::remove_file(&folder).unwrap();
    desk.remember(SOURCE);
    let mut last = step(&mut window);
    for _ in 0..40 {
        sender.send(Arc::clone(&last)).unwrap();
        last = step(&mut window);
    }
    sender.send(Arc::clone(&last)).unwrap();
    wait(&|status| status.error.is_none() && status.published == Some(last.updated));
    last = step(&mut window);
    sender.send(Arc::clone(&last)).unwrap();
    assert!(publisher.finish(Duration::from_secs(20)));
    assert_eq!(contents(&folder), expected(&last));
    let restored = restore(&folder, "door", &names(&["hi"]), last.updated).unwrap();
    assert_eq!(restored.source, Some(SOURCE));
}

/// A number or text somewhere in the state, replaced by another.
fn mutate(value: &mut serde_json::Value, at: &mut usize, with: &serde_json::Value) {
    match value {
        serde_json::Value::Array(values) => {
            values.iter_mut().for_each(|value| mutate(value, at, with))
        }
        serde_json::Value::Object(values) => values
            .values_mut()
            .for_each(|value| mutate(value, at, with)),
        leaf => {
            if *at == 0 {
                *leaf = with.clone();
            }
            *at = at.wrapping_sub(1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    #[test]
    fn whatever_the_state_says_the_window_it_gives_can_be_gone_on_from(
        changes in proptest::collection::vec((0..400_usize, prop_oneof![
            Just(serde_json::json!(0)), Just(serde_json::json!(u64::MAX)), Just(serde_json::json!(1_u64 << 44)),
            Just(serde_json::json!("../../etc/passwd")), Just(serde_json::json!(true)), Just(serde_json::json!(null)),
            (0..70_u64).prop_map(|n| serde_json::json!(n)), (900_000_000..900_000_020_u64).prop_map(|n| serde_json::json!(n)),
        ]), 1..3),
    ) {
        thread_local! {
            static FILES: BTreeMap<String, Vec<u8>> = {
                let dir = tempfile::tempdir().unwrap();
                published(dir.path(), &["hi", "lo"], 33);
                contents(dir.path()).into_iter().map(|name| { let content = std::fs::read(dir.path().join(&name)).unwrap(); (name, content) }).collect()
            };
        }
        let dir = tempfile::tempdir().unwrap();
        FILES.with(|files| {
            for (name, content) in files {
                std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
                std::fs::write(dir.path().join(name), content).unwrap();
            }
        });
        let path = dir.path().join("state.json");
        let mut state = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for (at, with) in changes {
            mutate(&mut state, &mut at.clone(), &with);
        }
        std::fs::write(&path, state.to_string()).unwrap();
        let now = time(START.plus(500));
        let (mut window, restored) = again(dir.path(), &["hi", "lo"], now);
        for leftover in restored.ledger.leftovers.keys() {
            prop_assert!(!leftover.contains(".."));
        }
        let first = restored.last_tick.map_or(grid().tick_at(now), Tick::next);
        let (grid, changed) = restored.grid_for(&grid(), first);
        window.begin_period(grid, first, inits(2, "b"), changed, now);
        let mut running = copy(dir.path(), restored.ledger);
        for _ in 0..5 {
            let snapshot = step(&mut window);
            running.bring(&snapshot, None).unwrap();
            served(dir.path(), &["hi", "lo"]);
        }
    }
}

#[test]
fn a_publisher_that_is_stopped_before_its_first_pass_makes_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("door");
    let mut window = started(&["hi"]);
    let mut last = step(&mut window);
    while last.tracks[0].listed.is_empty() {
        last = step(&mut window);
    }
    let (_sender, receiver) = tokio::sync::watch::channel(Arc::clone(&last));
    let plan = DiskPlan {
        dir: folder.clone(),
        manifests: playlists,
        limits: DiskLimits::default(),
        rest: Duration::from_secs(3600),
    };
    let known = || Ok(Ledger::default());
    let desk = DiskDesk::new("door", None);
    let publisher = DiskPublisher::start(plan, desk, known, receiver, |_| {}, ()).unwrap();
    assert!(publisher.finish(Duration::from_secs(20)));
    assert_eq!(contents(&folder), expected(&last));
}

/// Ends `window`, which `dir` has none of yet, and reopens what is published of it: the ticks that stay, which every track has.
fn reopened(dir: &Path, mut window: Window, tracks: &[&str]) -> u64 {
    let now = time(START.plus(600));
    window.end(now);
    let mut ended = copy(dir, Ledger::default());
    ended.bring(&window.snapshot(now), Some(SOURCE)).unwrap();
    assert!(dir.join("index.m3u8").exists());

    reopen(dir, "door").unwrap();
    let restored = restore(dir, "door", &names(tracks), now).unwrap();
    let snapshot = restored.snapshot.unwrap();
    assert!(!snapshot.ended && !restored.started_over);
    assert_eq!(restored.source, Some(SOURCE));
    let stay = restored.last_tick.unwrap().next().since(START);
    let segments = usize::try_from(stay / 60).unwrap();
    for view in &snapshot.tracks {
        assert_eq!(view.listed.len(), segments, "{}", view.name);
        assert!(view.listed.iter().all(|segment| !segment.gap));
    }
    let without_playlists = |_: &Snapshot| Vec::new();
    let limits = DiskLimits::default();
    let mut copy = Copy::new(dir.to_owned(), restored.ledger, without_playlists, limits);
    copy.bring(&snapshot, Some(SOURCE)).unwrap();
    assert!(!dir.join("index.m3u8").exists());
    for track in tracks {
        let media = std::fs::read_dir(dir.join(track)).unwrap().count();
        assert_eq!(media, segments + 1, "{track}: segments and an init");
    }
    stay
}

#[test]
fn what_has_ended_is_reopened_at_the_edge_of_its_last_whole_segment() {
    const PER_SEGMENT: usize = 4;
    for parts in [2 * PER_SEGMENT + 1, 2 * PER_SEGMENT] {
        let dir = tempfile::tempdir().unwrap();
        let mut window = started(&["a", "b"]);
        for _ in 0..parts {
            step(&mut window);
        }
        assert_eq!(reopened(dir.path(), window, &["a", "b"]), 2 * 60);
    }
}

#[test]
fn what_is_reopened_ends_where_its_shortest_rendition_is_whole() {
    // How many parts of four a segment there are of the one that is behind, and how many segments that leaves.
    for (behind, whole) in [(5, 1), (7, 1), (8, 2), (10, 2), (12, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let mut window = started(&["a", "b"]);
        for track in [0, 1] {
            for at in 0..[13, behind][track] {
                push(&mut window, track, &grid(), START.plus(15 * at));
            }
        }
        assert_eq!(reopened(dir.path(), window, &["a", "b"]), whole * 60);
    }
}

#[test]
fn with_sound_a_segment_more_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut window = Window::new(settings(&["a", "sound"]), None);
    let mut tracks = inits(2, "a");
    let frame = NonZeroU32::new(1024).unwrap();
    tracks[1].description.audio = Some(AudioFormat {
        channels: 2,
        frame,
        copied_rate: None,
    });
    let sound = grid().for_audio(frame).unwrap();
    window.begin_period(grid(), START, tracks, false, time(START));
    for at in 0..14 {
        push(&mut window, 0, &grid(), START.plus(15 * at));
    }
    let last = grid().segment_of(START).plus(3);
    let next = |window: &Window| {
        window
            .next_tick(1)
            .filter(|tick| sound.segment_of(*tick) <= last)
    };
    while let Some(tick) = next(&window) {
        push(&mut window, 1, &sound, tick);
    }
    assert_eq!(reopened(dir.path(), window, &["a", "sound"]), 2 * 60);
}
