//! Rows of the publish folder. Viewers of the origin notice nothing; the folder is right again by itself.

use std::time::Duration;

use crate::harness::checker::Checker;
use crate::harness::place::give_to_daemon;
use crate::harness::wait_for;
use crate::scene::{Allowed, Scene, stream};

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
        ..Allowed::default()
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
        scene.daemon.stop();
        scene.daemon.restart();
        scene.recovers();
    }
    scene.end(Allowed {
        rules: &[2, 5],
        filled: 100,
        replaced: 50,
        ..Allowed::default()
    });
}
