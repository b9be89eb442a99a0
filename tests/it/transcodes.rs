//! `ringgear transcode`: all of a file is in its folder when it ends well; what cuts it off is told, with what there is by then and the command
//! that goes on, and that goes on with each picture once.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use super::sources::pattern_file;
use crate::harness::broken_ffmpeg::BrokenFfmpeg;
use crate::harness::clap::{apart, clap_film, claps, listed};
use crate::harness::mount::Mount;
use crate::harness::place::{Place, Who, give_to_daemon, is_root};
use crate::harness::process::{Outcome, Process, run};
use crate::harness::{hls, media, not_shown, wait_for};

const PATIENCE: Duration = Duration::from_secs(120);

/// The program that is to transcode `input` into `out`, both in `place`.
fn transcode(place: &Place, input: impl AsRef<Path>, out: &Path, more: &[&str]) -> Command {
    let mut command = place.command(Who::Daemon);
    let input = place.path().join(input);
    command.arg("transcode").arg(input).arg(out).args(more);
    command
}

/// Starts it, and does `what` to it once segment `number` of rendition `low` is in `out`.
fn cut_off(command: &mut Command, out: &Path, number: u32, what: Signal) -> Process {
    let process = Process::start("transcode", command);
    let segment = out.join(format!("low/{number}.m4s"));
    wait_for("some of it is there", PATIENCE, || {
        segment.exists().then_some(())
    });
    process.signal(what);
    process
}

/// The numbers of the frames that `folder` lists, which has to have each tick once; and whether they are all.
fn shown(folder: &Path) -> (Vec<u32>, bool) {
    let listed = listed(folder);
    let pictures = media::decode_published(folder, &listed);
    for (tick, picture) in pictures.iter().enumerate() {
        assert_eq!(picture.time, u64::try_from(tick).unwrap(), "each tick once");
    }
    let numbers = pictures
        .iter()
        .map(|picture| picture.bars.unwrap().frame_number);
    (numbers.collect(), listed.ended)
}

const LADDER: &[&str] = &[
    "--segment",
    "1s",
    "--rendition",
    "big=640x360@1M",
    "--rendition",
    "low=@100k",
];

/// The command ends well, and each of so many pictures is in `out` once.
#[track_caller]
fn goes_on_to_the_end(command: &mut Command, out: &Path, pictures: u32) {
    let done = run(command, PATIENCE);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let (frames, ended) = shown(&out.join("low"));
    assert!(ended && frames == Vec::from_iter(0..pictures), "{frames:?}");
}

#[test]
fn a_file_is_transcoded_without_a_daemon_and_what_is_wrong_is_said() {
    let place = Place::new();
    let path = |name: &str| place.path().join(name);
    pattern_file(&path("in.mp4"), 100);
    let transcode = |input: &str, out: &str, more: &[&str]| {
        run(&mut transcode(&place, input, &path(out), more), PATIENCE)
    };
    let renditions = ["--rendition", "big=@300k", "--rendition", "low=160x90@100k"];
    let done = transcode("in.mp4", "out", &renditions);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stderr.contains("100 pictures, 4.0 s"),
        "{}",
        done.stderr
    );
    for name in ["big", "low"] {
        let folder = path("out").join(name);
        let text = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
        let listed = hls::media(&text).unwrap();
        assert!(
            listed.ended && (listed.seconds() - 4.0).abs() < 0.001,
            "{text}"
        );
        let file = path(&format!("{name}.mp4"));
        media::join(&folder, &listed, &file);
        assert_eq!(media::packet_times(&file).0, Vec::from_iter(0..100));
    }
    assert!(!path("out/transcode.toml").exists());
    // A phone's film is shown as it was meant.
    let turn = "-v error -i in.mp4 -c copy -metadata:s:v rotate=90 turned.mp4";
    let mut ffmpeg = Command::new("ffmpeg");
    run(
        ffmpeg.args(turn.split(' ')).current_dir(place.path()),
        PATIENCE,
    );
    let turned = transcode("turned.mp4", "turned", &[]);
    assert_eq!(turned.code, Some(0), "{}", turned.stderr);
    let index = std::fs::read_to_string(path("turned/index.m3u8")).unwrap();
    assert!(index.contains("RESOLUTION=180x320"), "{index}");
    std::fs::create_dir(path("mine")).unwrap();
    std::fs::write(path("mine/letter"), "").unwrap();
    for (input, out, code, said) in [
        ("in.mp4", "out", 2, "has no unfinished transcode"),
        ("in.mp4", "mine", 2, "is not empty"),
        ("none.mp4", "new", 1, "name another in INPUT"),
    ] {
        let refused = transcode(input, out, &[]);
        assert_eq!(refused.code, Some(code), "{}", refused.stderr);
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }
    assert!(!path("new").exists(), "nothing is made for nothing");
}

#[test]
fn what_was_interrupted_or_killed_plays_or_waits_and_the_same_command_goes_on_with_each_picture_once()
 {
    const FRAMES: u32 = 600;
    let place = Place::new();
    let out = place.path().join("out");
    pattern_file(&place.path().join("in.mp4"), FRAMES);
    let command = || transcode(&place, "in.mp4", &out, LADDER);
    for (segment, signal, number) in [(1, Signal::INT, 2), (4, Signal::TERM, 15)] {
        let mut process = cut_off(&mut command(), &out, segment, signal);
        // A shell shows 128 and the signal's number, and its loops end with it.
        assert_eq!(
            process.wait(PATIENCE).signal(),
            Some(number),
            "{}",
            process.said()
        );
        let said = process.said();
        let interrupted = said.contains("interrupted by SIG") && said.contains("s, and plays");
        let command = format!(
            "to go on from there: {} transcode ",
            place.program().display()
        );
        assert!(interrupted && said.contains(&command), "{said}");
        assert!(said.contains("low=@100k\n"), "{said}");
        for rendition in ["big", "low"] {
            let (frames, ended) = shown(&out.join(rendition));
            let count = u32::try_from(frames.len()).unwrap();
            assert_eq!(frames, Vec::from_iter(0..count));
            assert!(
                ended && count >= 25 * (segment + 1) && count < FRAMES,
                "{count}"
            );
        }
    }
    // Whoever asks for something else is refused, and changes nothing.
    let mut other = transcode(&place, "in.mp4", &out, LADDER);
    other.args(["--codec", "libx265"]);
    let refused = run(&mut other, PATIENCE);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("now codec = \"libx265\""),
        "{}",
        refused.stderr
    );

    // What goes on has no playlists until it ends, and nothing of a process that is killed is lost either.
    let mut killed = cut_off(&mut command(), &out, 8, Signal::KILL);
    assert_eq!(killed.wait(PATIENCE).signal(), Some(9));
    assert!(killed.said().contains("goes on at "), "{}", killed.said());
    for playlist in [
        "index.m3u8",
        "manifest.mpd",
        "low/media.m3u8",
        "big/media.m3u8",
    ] {
        assert!(!out.join(playlist).exists(), "{playlist}");
    }
    let done = run(&mut command(), PATIENCE);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stderr.contains("600 pictures, 24.0 s"),
        "{}",
        done.stderr
    );
    for rendition in ["big", "low"] {
        let (frames, ended) = shown(&out.join(rendition));
        assert!(ended && frames == Vec::from_iter(0..FRAMES), "{frames:?}");
        let files = std::fs::read_dir(out.join(rendition)).unwrap().count();
        assert_eq!(files, 24 + 2, "segments, one init, a playlist");
    }
    assert!(!out.join("transcode.toml").exists());
}

#[test]
fn a_closed_terminal_ends_it_as_ctrl_c_does_and_does_nothing_to_what_nohup_started() {
    const FRAMES: u32 = 400;
    let place = Place::new();
    let out = place.path().join("out");
    pattern_file(&place.path().join("in.mp4"), FRAMES);
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    // Nothing can be written there, as to a terminal that is gone.
    let mut child = transcode(&place, "in.mp4", &out, LADDER)
        .stderr(closed)
        .spawn()
        .unwrap();
    let segment = out.join("low/1.m4s");
    wait_for("some of it is there", PATIENCE, || {
        segment.exists().then_some(())
    });
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(1));
    assert!(shown(&out.join("low")).1);

    let mut command = place.command_of(Who::Daemon, "nohup");
    let input = place.path().join("in.mp4");
    command.arg(place.program()).arg("transcode").arg(input);
    command.arg(&out).args(LADDER);
    let mut left_alone = cut_off(&mut command, &out, 4, Signal::HUP);
    let ended = left_alone.wait(PATIENCE);
    assert_eq!(ended.code(), Some(0), "{}", left_alone.said());
    let (frames, ended) = shown(&out.join("low"));
    assert!(ended && frames == Vec::from_iter(0..FRAMES), "{frames:?}");
}

#[test]
fn the_sound_of_what_was_cut_off_stays_in_step() {
    const SECONDS: u32 = 40;
    let place = Place::new();
    let out = place.path().join("out");
    clap_film(&place.path().join("in.mkv"), SECONDS, "");
    let options = [
        "--segment",
        "1s",
        "--rendition",
        "low=@200k",
        "--preset",
        "slow",
    ];
    let command = || transcode(&place, "in.mkv", &out, &options);
    for (segment, signal) in [(3, Signal::KILL), (20, Signal::INT)] {
        cut_off(&mut command(), &out, segment, signal).wait(PATIENCE);
    }
    let done = run(&mut command(), PATIENCE);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    super::source_sound::whole(&out, "low", "audio");
    let claps = claps(&out, "low", "audio");
    let apart = apart(&claps);
    assert!(
        apart.len() >= 15 && apart.len() == claps.0.len(),
        "{claps:?}"
    );
    assert!(apart.iter().all(|off| off.abs() < 20.0), "{apart:?}");
}

#[test]
fn a_disk_that_is_full_is_told_and_gone_on_with_once_there_is_room() {
    if !is_root() {
        not_shown("file systems can't be mounted without root");
        return;
    }
    const FRAMES: u32 = 1000;
    let place = Place::new();
    pattern_file(&place.path().join("in.mp4"), FRAMES);
    // 64 MiB stay free.
    let mount = Mount::tmpfs("65m");
    let out = mount.at.join("out");
    std::fs::create_dir(&out).unwrap();
    give_to_daemon(&out);
    let options = ["--segment", "1s", "--rendition", "low=640x360@1M"];
    let command = || transcode(&place, "in.mp4", &out, &options);
    let full = run(&mut command(), PATIENCE);
    assert_eq!(full.code, Some(1), "{}", full.stderr);
    for said in [
        "free some space\n",
        "s, but does not play yet\n",
        "to go on from there: ",
    ] {
        assert!(full.stderr.contains(said), "{said}: {}", full.stderr);
    }
    let told = full
        .stderr
        .lines()
        .find(|line| line.starts_with("ringgear: "));
    assert!(!told.unwrap().contains("[publish]"), "{}", full.stderr);
    mount.remount("size=200m");
    goes_on_to_the_end(&mut command(), &out, FRAMES);
}

#[test]
fn a_file_that_is_cut_short_fails_with_what_it_has() {
    let place = Place::new();
    let path = |name: &str| place.path().join(name);
    pattern_file(&path("in.mkv"), 300);
    let bytes = std::fs::read(path("in.mkv")).unwrap();
    std::fs::write(path("cut.mkv"), &bytes[..bytes.len() / 2]).unwrap();
    for more in [&["--preset", "ultrafast"][..], &["--copy"]] {
        let out = path(more[0]);
        let cut = run(&mut transcode(&place, "cut.mkv", &out, more), PATIENCE);
        assert_eq!(cut.code, Some(1), "{}", cut.stderr);
        for said in [
            "and should be 12.0 s long",
            "s, and plays\n",
            "to begin anew, remove ",
        ] {
            assert!(cut.stderr.contains(said), "{said}: {}", cut.stderr);
        }
        let listed = listed(&out.join("source"));
        assert!(
            listed.ended && (3.0..9.0).contains(&listed.seconds()),
            "{listed:?}"
        );
    }
}

/// A web server of one file, which until it is mended hangs up where half of that is sent.
struct HalfServer {
    url: String,
    mended: Arc<AtomicBool>,
}

impl HalfServer {
    fn of(file: &Path) -> Self {
        let content: Arc<[u8]> = std::fs::read(file).unwrap().into();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&mended);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (content, mended) = (Arc::clone(&content), told.load(Ordering::Relaxed));
                std::thread::spawn(move || answer(client.unwrap(), &content, mended));
            }
        });
        Self {
            url: format!("http://me:secret@127.0.0.1:{port}/film.mkv"),
            mended,
        }
    }
}

fn answer(mut client: TcpStream, content: &[u8], mended: bool) {
    let lines = BufReader::new(client.try_clone().unwrap()).lines();
    let head: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let range = head
        .iter()
        .find_map(|line| line.strip_prefix("Range: bytes="));
    let from = range
        .and_then(|range| range.split('-').next()?.parse().ok())
        .unwrap_or(0);
    let (all, sent) = (
        content.len(),
        if mended {
            content.len()
        } else {
            content.len() / 2
        },
    );
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{all}\r\nAccept-Ranges: bytes\r\nConnection: close\r\n\r\n",
        all - from,
        all - 1
    );
    // A client that has what it wants goes.
    let _ = client.write_all(head.as_bytes());
    let _ = client.write_all(content.get(from..sent).unwrap_or_default());
}

#[test]
fn an_input_that_breaks_off_is_gone_on_with_once_it_is_there_again() {
    const FRAMES: u32 = 400;
    let place = Place::new();
    let out = place.path().join("out");
    pattern_file(&place.path().join("in.mkv"), FRAMES);
    let server = HalfServer::of(&place.path().join("in.mkv"));
    let command = |url: &str| {
        let mut command = place.command(Who::Daemon);
        let options = ["--segment", "1s", "--rendition", "low=@200k"];
        command.args(["transcode", url]).arg(&out).args(options);
        command
    };
    let broken = run(&mut command(&server.url), PATIENCE);
    assert_eq!(broken.code, Some(1), "{}", broken.stderr);
    for said in [
        "breaks off: it should be 16.0 s long",
        "s, and plays\n",
        "to go on from there, with its user, password and query: ",
    ] {
        assert!(broken.stderr.contains(said), "{said}: {}", broken.stderr);
    }
    let work = std::fs::read_to_string(out.join("transcode.toml")).unwrap();
    assert!(!work.contains("secret") && !broken.stderr.contains("secret"));
    let (frames, ended) = shown(&out.join("low"));
    assert!(ended && frames == Vec::from_iter(0..u32::try_from(frames.len()).unwrap()));
    // As it was signed the first time: what that gave may differ.
    let state = std::fs::read(out.join("state.json")).unwrap();
    let other = server.url.replace("secret", "hidden");
    let refused = run(&mut command(&other), PATIENCE);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    let said = "with another user, password or query than now";
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
    assert_eq!(std::fs::read(out.join("state.json")).unwrap(), state);
    assert!(out.join("index.m3u8").exists());
    server.mended.store(true, Ordering::Relaxed);
    goes_on_to_the_end(&mut command(&server.url), &out, FRAMES);
}

#[test]
fn a_folder_that_was_changed_meanwhile_is_not_gone_on_with_nor_is_another_input() {
    let place = Place::new();
    let path = |name: &str| place.path().join(name);
    pattern_file(&path("in.mp4"), 1000);
    let out = path("out");
    let refused = |code: i32, said: &str| {
        let refused: Outcome = run(&mut transcode(&place, "in.mp4", &out, LADDER), PATIENCE);
        assert_eq!(refused.code, Some(code), "{}", refused.stderr);
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    };
    let mut first = cut_off(
        &mut transcode(&place, "in.mp4", &out, LADDER),
        &out,
        2,
        Signal::STOP,
    );
    refused(1, "another ringgear works in");
    first.signal(Signal::CONT);
    first.signal(Signal::INT);
    first.wait(PATIENCE);
    let segment: PathBuf = out.join("low/1.m4s");
    let kept = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, b"something else").unwrap();
    let state = std::fs::read(out.join("state.json")).unwrap();
    refused(1, "is not as it was left");
    assert_eq!(std::fs::read(out.join("state.json")).unwrap(), state);
    std::fs::write(&segment, kept).unwrap();
    pattern_file(&path("new.mp4"), 30);
    std::fs::rename(path("new.mp4"), path("in.mp4")).unwrap();
    refused(2, "bytes, changed ");
}

#[test]
fn what_another_one_makes_in_the_same_folder_is_left_alone() {
    let place = Place::new();
    let out = place.path().join("out");
    pattern_file(&place.path().join("in.mp4"), 100);
    std::fs::create_dir(&out).unwrap();
    give_to_daemon(&out);
    // The other one has the folder, and has published nothing yet.
    let claim = std::fs::File::open(&out).unwrap();
    flock(&claim, FlockOperation::NonBlockingLockExclusive).unwrap();
    let refused = run(&mut transcode(&place, "in.mp4", &out, LADDER), PATIENCE);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("stop it, or name another folder"),
        "{}",
        refused.stderr
    );
    assert!(out.join("transcode.toml").exists());
}

#[test]
fn what_comes_through_a_pipe_is_refused_before_anything_is_read() {
    let place = Place::new();
    let out = place.path().join("out");
    let fifo = place.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    for input in ["-", fifo.to_str().unwrap()] {
        let mut command = place.command(Who::Daemon);
        command.args(["transcode", input]).arg(&out);
        let refused = run(&mut command, PATIENCE);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("write it to a file"),
            "{}",
            refused.stderr
        );
        assert!(!out.exists());
    }
}

#[test]
fn an_encoder_that_never_works_is_told_and_nothing_is_left() {
    let place = Place::new();
    let out = place.path().join("out");
    pattern_file(&place.path().join("in.mp4"), 200);
    let ffmpeg = BrokenFfmpeg::at("libx264", "[ -e BROKEN ]");
    let program = ffmpeg.program();
    let options = ["--ffmpeg", program.to_str().unwrap()];
    let command = || transcode(&place, "in.mp4", &out, &options);
    ffmpeg.break_it();
    let failed = run(&mut command(), PATIENCE);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    let told: Vec<&str> = failed
        .stderr
        .lines()
        .skip_while(|line| !line.starts_with("ringgear: "))
        .collect();
    let [why, what, how] = told[..] else {
        panic!("{}", failed.stderr)
    };
    assert!(
        why.contains("the device is lost") && !why.contains("tried again"),
        "{why}"
    );
    assert!(
        what.ends_with(" has nothing of it") && how.starts_with("to begin anew: "),
        "{what} {how}"
    );
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
    ffmpeg.mend_it();
    assert_eq!(run(&mut command(), PATIENCE).code, Some(0));
}
