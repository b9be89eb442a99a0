//! Rows of the publish folder. Viewers of the origin notice nothing; the folder is right again by itself.

use std::time::Duration;

use crate::harness::checker::Checker;
use crate::harness::daemon::Daemon;
use crate::harness::mount::Mount;
use crate::harness::place::{Place, give_to_daemon, is_root};
use crate::harness::streams::small_stream;
use crate::harness::{beside_others, not_shown, wait_for};
use crate::scene::{Allowed, CAMERA, Scene, stream};

/// The folder's own rules can't hold while it is not there.
const FOLDER: &[u8] = &[1, 2, 3, 5, 6];

#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn removed_then_replaced() {
    let mut scene = Scene::begin("folder removed", &stream());
    let folder = scene.daemon.place.live().join("cam");
    // The daemon writes into it meanwhile.
    wait_for("the folder is gone", Duration::from_secs(5), || {
        std::fs::remove_dir_all(&folder).ok()
    });
    scene.recovers();
    wait_for("the folder is back", Duration::from_secs(5), || {
        folder.join("small/media.m3u8").exists().then_some(())
    });
    // Another folder in its place, with a file of somebody else's.
    let aside = scene.daemon.place.path().join("aside");
    std::fs::rename(&folder, &aside).unwrap();
    std::fs::create_dir_all(folder.join("small")).unwrap();
    give_to_daemon(&folder);
    give_to_daemon(&folder.join("small"));
    std::fs::write(folder.join("small/notes.txt"), "somebody else's").unwrap();
    scene.recovers();
    assert!(folder.join("small/notes.txt").exists());
    let checker = Checker::of_folder(&scene.daemon, "cam");
    std::thread::sleep(Duration::from_secs(3));
    checker.finish().assert_clean();
    scene.end(Allowed {
        folder_rules: FOLDER,
        ..Allowed::NOTHING
    });
}

#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn foreign_files() {
    let mut scene = Scene::begin("foreign files", &stream());
    let folder = scene.daemon.place.live().join("cam/small");
    let outside = scene.daemon.place.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "somebody else's").unwrap();
    std::fs::write(folder.join("1.m4s"), "somebody else's").unwrap();
    std::fs::write(folder.join("notes.txt"), "somebody else's").unwrap();
    std::fs::create_dir(folder.join("archive")).unwrap();
    std::os::unix::fs::symlink(&outside, folder.join("link")).unwrap();
    scene.recovers();
    for _ in 0..2 {
        assert!(outside.join("precious").exists());
        for name in ["1.m4s", "notes.txt", "archive", "link"] {
            assert!(
                folder.join(name).symlink_metadata().is_ok(),
                "{name} is gone"
            );
        }
        scene.stop_daemon();
        scene.daemon.restart();
        scene.recovers();
    }
    scene.end(Allowed {
        filled: 100,
        replaced: 50,
        ..Allowed::AWAY
    });
}

/// A scene whose publish folder is `mount`.
#[track_caller]
fn on(mount: &Mount, row: &'static str, config: &str) -> Scene {
    let machine = beside_others();
    let place = Place::new();
    place.publish_to(&mount.at);
    let daemon = Daemon::start_in(place, config, &[]);
    let camera = daemon.producer(&CAMERA);
    Scene::of(row, machine, daemon, Some(camera))
}

/// Waits until `status` says why the folder stands still.
#[track_caller]
fn stands_still(scene: &Scene, why: &str) {
    wait_for(why, Duration::from_secs(15), || {
        let detail = scene.daemon.stream("cam").detail?;
        detail.contains(why).then_some(())
    });
}

/// Waits until the folder is as it should be, and is so for a while.
#[track_caller]
fn is_whole_again(scene: &Scene) {
    wait_for("the folder goes on", Duration::from_secs(15), || {
        scene.daemon.stream("cam").detail.is_none().then_some(())
    });
    let checker = Checker::of_folder(&scene.daemon, "cam");
    std::thread::sleep(Duration::from_secs(3));
    checker.finish().assert_clean();
}

/// How many lines of the log have `text`.
fn logged(scene: &Scene, text: &str) -> usize {
    let log = scene.daemon.log();
    log.lines().filter(|line| line.contains(text)).count()
}

#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn full_then_read_only() {
    if !is_root() {
        not_shown("file systems can't be mounted without root");
        return;
    }
    let mount = Mount::tmpfs("24m");
    let config = format!("keep_free = \"0\"\n{}", stream());
    let mut scene = on(&mount, "disk full, read-only", &config);
    let filler = mount.at.join("filler");
    // As much of it as there is room for.
    let _ = std::fs::write(&filler, vec![0; 32 << 20]);
    stands_still(&scene, "No space left on device");
    scene.recovers();
    assert!(filler.exists(), "what others wrote stays");
    std::fs::remove_file(&filler).unwrap();
    is_whole_again(&scene);
    mount.remount("ro");
    stands_still(&scene, "mount it writable");
    scene.recovers();
    mount.remount("rw");
    is_whole_again(&scene);
    assert_eq!(logged(&scene, "up to date again"), 2);
    assert_eq!(scene.daemon.stream("cam").ticks.missed, 0);
    scene.end(Allowed {
        folder_rules: FOLDER,
        ..Allowed::NOTHING
    });
}

/// There is room, and it is kept for others.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn below_its_floor() {
    if !is_root() {
        not_shown("file systems can't be mounted without root");
        return;
    }
    let mount = Mount::tmpfs("48m");
    let config = format!("keep_free = \"16MiB\"\n{}", stream());
    let mut scene = on(&mount, "disk below its floor", &config);
    let filler = mount.at.join("filler");
    std::fs::write(&filler, vec![0; 33 << 20]).unwrap();
    stands_still(&scene, "[publish] keep_free");
    scene.recovers();
    std::fs::remove_file(&filler).unwrap();
    is_whole_again(&scene);
    assert_eq!(scene.daemon.stream("cam").ticks.missed, 0);
    scene.end(Allowed {
        folder_rules: FOLDER,
        ..Allowed::NOTHING
    });
}

/// The budget is enough for what is listed, and for little of what has left the playlists.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn over_its_budget() {
    const BUDGET: u64 = 1 << 20;
    let config = small_stream("cam", "window = \"20s\"\nmax_bytes = \"1MiB\"");
    let mut scene = Scene::begin("disk budget", &config);
    // Until as much has left the window as it holds.
    let began = scene.daemon.stream("cam").window.last_segment;
    wait_for("the window has gone by", Duration::from_secs(60), || {
        let now = scene.daemon.stream("cam").window.last_segment;
        (now >= began.map(|at| at + 30)).then_some(())
    });
    scene.recovers();
    assert_eq!(scene.daemon.stream("cam").detail, None);
    let (segments, bytes) = media(&scene);
    eprintln!("disk budget: {segments} segments of {bytes} bytes, of {BUDGET}");
    assert!(bytes <= BUDGET, "{bytes} bytes");
    // As many have left the playlists, and would stay so long as well.
    assert!(segments < 38, "{segments} segments");
    scene.end(Allowed {
        // Before their time.
        folder_rules: &[2],
        ..Allowed::NOTHING
    });
}

/// How many segments the folder holds, and how many bytes those and the parts of the open one have.
fn media(scene: &Scene) -> (usize, u64) {
    let folder = scene.daemon.place.live().join("cam/small");
    let (mut segments, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        // One that goes while it is looked at takes nothing.
        if let (Some(name), Ok(metadata)) = (name.strip_suffix(".m4s"), entry.metadata()) {
            segments += usize::from(!name.contains('.'));
            bytes += metadata.len();
        }
    }
    (segments, bytes)
}

/// Every write waits in the kernel, fsync too.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn does_not_answer() {
    if !is_root() {
        not_shown("file systems can't be frozen without root");
        return;
    }
    let mut mount = Mount::ext4(64 << 20);
    let config = format!("keep_free = \"0\"\n{}", stream());
    let mut scene = on(&mount, "disk does not answer", &config);
    let before = scene.daemon.stream("cam");
    mount.freeze();
    stands_still(&scene, "does not answer");
    scene.recovers();
    let during = scene.daemon.stream("cam");
    assert_eq!(during.ticks.missed, 0, "{during:?}");
    assert!(during.window.last_segment > before.window.last_segment);
    // Producers come and go meanwhile.
    let mut arguments = CAMERA.to_vec();
    arguments.push("--take-over");
    let second = scene.daemon.producer(&arguments);
    wait_for("another takes over", Duration::from_secs(5), || {
        let session = scene.daemon.stream("cam").session?;
        (u32::try_from(session.pid) == Ok(second.pid())).then_some(())
    });
    scene.camera = Some(second);
    mount.thaw();
    is_whole_again(&scene);
    scene.recovers();
    assert_eq!(logged(&scene, "does not answer"), 1);
    scene.end(Allowed {
        folder_rules: FOLDER,
        another_camera: true,
        ..Allowed::NOTHING
    });
}
