//! The publish folder's disk in trouble for longer than its window is long: full, read-only, taken away, with strangers' files in it. The folder
//! catches up by itself, and nothing that the daemon did not write goes. What viewers notice is shown in `tests/faults/disk.rs`.
//!
//! The file systems are real ones, mounted for the test. That takes root; without it those tests say so and show nothing.

use std::io::Write as _;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use ringgear::status::StreamStatus;
use ringgear_producer::messages::FrameCounts;
use ringgear_producer::{FrameFormat, PixelFormat, Producer, ProducerOptions};
use tempfile::TempDir;

use crate::harness::checker::Checker;
use crate::harness::daemon::Daemon;
use crate::harness::held::memory_kb;
use crate::harness::mount::Mount;
use crate::harness::place::{Place, give_to_daemon, is_root};
use crate::harness::streams::small_stream;
use crate::harness::{beside_others, hls, media, not_shown, wait_for};

fn stream() -> String {
    let stream = small_stream("cam", "window = \"6s\"");
    format!("keep_free = \"0\"\n{stream}")
}

/// A daemon that publishes to `folder`, its producer, and a checker of what it serves over HTTP.
fn live(folder: &Path) -> (Daemon, crate::harness::process::Process, Checker) {
    let place = Place::new();
    place.publish_to(folder);
    let daemon = Daemon::start_in(place, &stream(), &[]);
    let camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    daemon.wait_for_slates(&["cam"]);
    wait_for("the folder has a playlist", Duration::from_secs(5), || {
        folder.join("cam/small/media.m3u8").exists().then_some(())
    });
    let checker = Checker::over_http(&daemon, "cam");
    (daemon, camera, checker)
}

/// Waits until `status` says why the folder stands still.
#[track_caller]
fn wait_for_detail(daemon: &Daemon, text: &str) -> StreamStatus {
    wait_for(
        &format!("status says '{text}'"),
        Duration::from_secs(15),
        || {
            let now = daemon.stream("cam");
            let says = now
                .detail
                .as_ref()
                .is_some_and(|detail| detail.contains(text));
            says.then_some(now)
        },
    )
}

/// Waits until the origin lists so many segments more than in `before`: nothing holds it up.
#[track_caller]
fn wait_for_segments(daemon: &Daemon, before: &StreamStatus, more: u64) {
    let last = before.window.last_segment.unwrap();
    wait_for("the origin goes on", Duration::from_secs(30), || {
        let now = daemon.stream("cam").window.last_segment;
        (now >= Some(last + more)).then_some(())
    });
}

/// Waits until the folder has caught up, and checks that every file that its playlist lists is whole.
#[track_caller]
fn wait_until_whole(daemon: &Daemon, folder: &Path) {
    let reached = daemon.stream("cam").window.last_segment.unwrap();
    let read =
        || hls::media(&std::fs::read_to_string(folder.join("cam/small/media.m3u8")).ok()?).ok();
    wait_for("the folder has caught up", Duration::from_secs(15), || {
        let playlist = read()?;
        let last = playlist.segments.last()?.number;
        (last > reached && daemon.stream("cam").detail.is_none()).then_some(())
    });
    let playlist = read().unwrap();
    assert!(playlist.segments.len() >= 3, "{playlist:?}");
    for segment in playlist.segments.iter().skip(1) {
        let path = format!("cam/small/{}", segment.uri);
        let on_disk =
            std::fs::read(folder.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let served = daemon.get(&format!("/{path}"));
        assert_eq!(served.status, 200, "{path}");
        assert_eq!(on_disk, served.body, "{path}");
    }
    let init = std::fs::read_dir(folder.join("cam/small")).unwrap();
    let mut names = init.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.any(|name| name.starts_with("init-")));
}

/// How many lines of the log have `text`.
fn logged(daemon: &Daemon, text: &str) -> usize {
    daemon
        .log()
        .lines()
        .filter(|line| line.contains(text))
        .count()
}

/// Fills a disk up, and holds what is in `folder`, so that it is no less full when the daemon removes that.
fn fill(filler: &Path, held: &Path, folder: &Path) {
    std::fs::create_dir(held).unwrap();
    let mut filler = std::fs::File::create(filler).unwrap();
    let mut full = false;
    loop {
        let mut new = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            // What the daemon has removed meanwhile is not there.
            new +=
                usize::from(std::fs::hard_link(entry.path(), held.join(entry.file_name())).is_ok());
        }
        if full && new == 0 {
            return;
        }
        while filler.write_all(&[0; 4096]).is_ok() {}
        full = true;
    }
}

#[test]
fn a_full_or_read_only_disk_is_told_once_and_caught_up_with() {
    let _machine = beside_others();
    if !is_root() {
        not_shown("file systems can't be mounted without root");
        return;
    }
    let mount = Mount::tmpfs("4m");
    let (mut daemon, _camera, checker) = live(&mount.at);
    let (filler, held) = (mount.at.join("filler"), mount.at.join("held"));
    // It stays full for longer than the window is long.
    fill(&filler, &held, &mount.at.join("cam/small"));
    let full = wait_for_detail(&daemon, "free some space");
    wait_for_segments(&daemon, &full, 20);
    assert!(filler.exists(), "what others wrote stays");
    std::fs::remove_dir_all(&held).unwrap();
    std::fs::remove_file(&filler).unwrap();
    wait_until_whole(&daemon, &mount.at);
    assert_eq!(logged(&daemon, "No space left"), 1, "{}", daemon.log());

    mount.remount("ro");
    let before = wait_for_detail(&daemon, "mount it writable");
    wait_for_segments(&daemon, &before, 3);
    mount.remount("rw");
    wait_until_whole(&daemon, &mount.at);
    assert_eq!(logged(&daemon, "Read-only file system"), 1);
    assert_eq!(logged(&daemon, "up to date again"), 2);
    assert_eq!(daemon.stream("cam").ticks.missed, 0);
    checker.finish().assert_clean();
    daemon.stop();
}

#[test]
fn a_daemon_starts_on_a_read_only_disk_and_publishes_once_it_can() {
    let _machine = beside_others();
    if !is_root() {
        not_shown("file systems can't be mounted without root");
        return;
    }
    let mount = Mount::tmpfs("8m");
    let place = Place::new();
    place.publish_to(&mount.at);
    mount.remount("ro");
    let mut daemon = Daemon::start_in(place, &stream(), &[]);
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    wait_for_detail(&daemon, "mount it writable");
    mount.remount("rw");
    wait_until_whole(&daemon, &mount.at);
    daemon.stop();
}

/// Frames of noise, which no encoder makes small.
fn feed_noise(daemon: &Daemon, frames: u64) -> JoinHandle<FrameCounts> {
    let format = FrameFormat::packed(PixelFormat::Gray, 640, 360).unwrap();
    let mut options = ProducerOptions::new("cam", format);
    options.socket = daemon.place.socket();
    std::thread::spawn(move || {
        let mut producer = Producer::open(&options).unwrap();
        let mut state = 1_u64;
        for _ in 0..frames {
            let mut frame = producer.begin().unwrap();
            for byte in frame.bytes_mut() {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                *byte = state.to_be_bytes()[0];
            }
            frame.commit(None);
        }
        producer.close().unwrap()
    })
}

#[test]
fn a_full_disk_holds_a_recording_back_in_bounded_memory_and_costs_it_no_frame() {
    const FRAMES: u64 = 600;
    let _machine = beside_others();
    if !is_root() {
        not_shown("file systems can't be mounted without root");
        return;
    }
    let mount = Mount::tmpfs("24m");
    let place = Place::new();
    place.publish_to(&mount.at);
    let config = "keep_free = \"0\"\n[streams.cam]\nframerate = 25\nsegment = \"1s\"\nmode = \"event\"\n\
        [[streams.cam.renditions]]\nname = \"large\"\ncrf = 1\npreset = \"ultrafast\"\n";
    let daemon = Daemon::start_in(place, config, &[]);
    let camera = feed_noise(&daemon, FRAMES);
    wait_for_detail(&daemon, "free some space");
    // It goes on until so much waits in memory, and no further.
    let held = wait_for("the producer is held back", Duration::from_secs(30), || {
        let before = daemon.stream("cam").frames.used;
        std::thread::sleep(Duration::from_secs(1));
        let now = daemon.stream("cam").frames.used;
        (before > 0 && now == before).then_some(now)
    });
    assert!(held < FRAMES && !camera.is_finished(), "{held} frames");
    let memory = memory_kb(daemon.pid(), "RssAnon");
    assert!(memory < 200 << 10, "{memory} kB");
    mount.remount("size=512m");
    let counts = camera.join().unwrap();
    assert_eq!(
        (counts.used, counts.superseded, counts.late),
        (FRAMES, 0, 0)
    );
    let name = daemon.stream("cam").recordings.remove(0);
    let folder = mount.at.join("cam").join(name).join("large");
    let text = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
    let playlist = hls::media(&text).unwrap();
    assert!(playlist.ended);
    let file = daemon.place.path().join("whole.mp4");
    media::join(&folder, &playlist, &file);
    assert_eq!(media::packet_times(&file).0, Vec::from_iter(0..FRAMES));
}

#[test]
fn a_folder_that_is_removed_or_replaced_is_made_again_and_strangers_files_stay() {
    let _machine = beside_others();
    let dir = TempDir::with_prefix("ringgear-disk-").unwrap();
    let folder = dir.path().to_owned();
    give_to_daemon(&folder);
    let (mut daemon, _camera, checker) = live(&folder);
    let foreign = [
        "cam/notes.txt",
        "cam/small/7.m4s",
        "cam/small/init-mine.mp4",
    ];
    for name in foreign {
        std::fs::write(folder.join(name), "a stranger's").unwrap();
    }
    let kept = |folder: &Path| {
        for name in foreign {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            assert_eq!(text, "a stranger's", "{name}");
        }
    };
    let before = daemon.stream("cam");
    wait_for_segments(&daemon, &before, 2);
    kept(&folder);

    // Moved away: what is in it then is nobody's but the administrator's.
    let aside = folder.join("aside");
    std::fs::create_dir(&aside).unwrap();
    std::fs::rename(folder.join("cam"), aside.join("cam")).unwrap();
    wait_until_whole(&daemon, &folder);
    kept(&aside);

    std::fs::remove_dir_all(folder.join("cam")).unwrap();
    wait_until_whole(&daemon, &folder);

    // A link in its place is not followed, and once it is gone all is well.
    let outside = TempDir::new().unwrap();
    give_to_daemon(outside.path());
    std::fs::rename(folder.join("cam/small"), aside.join("small")).unwrap();
    let link = folder.join("cam/small");
    wait_for("the link is in its place", Duration::from_secs(10), || {
        let _ = std::fs::remove_dir_all(&link);
        std::os::unix::fs::symlink(outside.path(), &link).ok()
    });
    wait_for_detail(&daemon, "no symbolic link");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    std::fs::remove_file(&link).unwrap();
    wait_until_whole(&daemon, &folder);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    checker.finish().assert_clean();
    daemon.stop();
}
