//! The checker can fail: FFmpeg's own HLS muxer, with its usual settings, breaks rules that Ringgear keeps.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::checker::{Checker, FolderOrigin};
use crate::harness::process::Process;
use crate::harness::{beside_others, wait_for};

#[test]
fn the_checker_sees_what_ffmpegs_own_window_breaks() {
    let _machine = beside_others();
    let dir = tempfile::tempdir().unwrap();
    let cam = dir.path().join("cam");
    std::fs::create_dir_all(cam.join("a")).unwrap();
    let mut ffmpeg = Process::start(
        "ffmpeg -f hls",
        Command::new("ffmpeg")
            .args([
                "-v",
                "error",
                "-nostdin",
                "-re",
                "-f",
                "lavfi",
                "-i",
                "testsrc=size=160x90:rate=25",
            ])
            .args([
                "-c:v",
                "libx264",
                "-preset",
                "ultrafast",
                "-b:v",
                "200k",
                "-g",
                "25",
                "-f",
                "hls",
                "-hls_time",
                "1",
            ])
            .args([
                "-hls_list_size",
                "3",
                "-hls_delete_threshold",
                "1",
                "-hls_flags",
                "delete_segments",
            ])
            .args(["-hls_segment_type", "fmp4", "-master_pl_name", "index.m3u8"])
            .args(["-var_stream_map", "v:0,name:a", "-hls_segment_filename"])
            .arg(cam.join("%v/%d.m4s"))
            .arg(cam.join("%v/media.m3u8"))
            .stdin(Stdio::null()),
    );
    wait_for("FFmpeg's playlist appears", Duration::from_secs(20), || {
        (cam.join("index.m3u8").exists() && cam.join("a/media.m3u8").exists()).then_some(())
    });
    let origin = FolderOrigin {
        dir: dir.path().to_owned(),
    };
    let checker = Checker::start(origin, "cam");
    wait_for(
        "FFmpeg has deleted its first segments",
        Duration::from_secs(30),
        || cam.join("a/9.m4s").exists().then_some(()),
    );
    let report = checker.finish();
    ffmpeg.kill();
    let broken = report.rules_broken();
    assert!(report.listed >= 8, "{report:?}");
    // Segments go too early; no PROGRAM-DATE-TIME; fewer than six segments.
    for rule in [2, 3, 21, 22] {
        assert!(
            broken.contains(&rule),
            "rule {rule} is not among {broken:?}: {report:?}"
        );
    }
    // What FFmpeg does right is not reported.
    for rule in [1, 4, 10, 23] {
        assert!(
            !broken.contains(&rule),
            "rule {rule} is among {broken:?}: {report:?}"
        );
    }
}
