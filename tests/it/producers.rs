//! Producers that come, go, die and collide.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ringgear::status::StreamState;
use ringgear_producer::MemoryKind;
use ringgear_producer::messages::{EndCode, Open, PROTOCOL, RefusalCode, Refused, Reply, Request};

use crate::harness::daemon::Daemon;
use crate::harness::held::{Held, memory_kb};
use crate::harness::place::{Who, command_as, is_root};
use crate::harness::process::Process;
use crate::harness::streams::small_stream;
use crate::harness::tick_log::{self, Kind, Row};
use crate::harness::{alone, beside_others, wait_for};

fn stream() -> String {
    small_stream("cam", "window = \"6s\"\nstale_after = \"2s\"")
}

const PATTERN: [&str; 4] = ["pattern", "cam", "--size", "320x180"];

fn open_request() -> Open {
    Open {
        protocol: PROTOCOL,
        stream: "cam".to_owned(),
        format: "bgr24".to_owned(),
        width: 320,
        height: 180,
        strides: None,
        slots: None,
        memory: MemoryKind::Memfd,
        take_over: false,
        client: None,
    }
}

/// Says `line` to the daemon on a connection of its own, and returns what it answers.
fn ask(daemon: &Daemon, line: &str) -> Reply {
    let mut socket = UnixStream::connect(daemon.place.socket()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket.write_all(line.as_bytes()).unwrap();
    socket.write_all(b"\n").unwrap();
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn refusal(daemon: &Daemon, open: Open) -> Refused {
    let line = serde_json::to_string(&Request::Open(open)).unwrap();
    match ask(daemon, &line) {
        Reply::Refused(refused) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn each_wrong_request_has_a_refusal_of_its_own() {
    let _machine = beside_others();
    let daemon = Daemon::start(&stream());
    let cases = [
        (
            RefusalCode::UnknownStream,
            Open {
                stream: "gate".to_owned(),
                ..open_request()
            },
            "gate",
        ),
        (
            RefusalCode::UnknownFormat,
            Open {
                format: "mauve".to_owned(),
                ..open_request()
            },
            "mauve",
        ),
        (
            RefusalCode::ProtocolMismatch,
            Open {
                protocol: PROTOCOL + 1,
                ..open_request()
            },
            "protocol",
        ),
        (
            RefusalCode::BadSize,
            Open {
                width: 0,
                ..open_request()
            },
            "0x180",
        ),
        (
            RefusalCode::BadSize,
            Open {
                strides: Some(vec![3]),
                ..open_request()
            },
            "stride",
        ),
    ];
    for (code, open, word) in cases {
        let refused = refusal(&daemon, open);
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.message.contains(word), "{refused:?}");
        assert!(!refused.message.contains('\n'), "one line: {refused:?}");
    }
    for line in ["", "hello", "{}", "{\"type\":\"dance\"}", "[1,2]"] {
        let reply = ask(&daemon, line);
        let refused =
            matches!(&reply, Reply::Refused(refused) if refused.code == RefusalCode::BadRequest);
        assert!(refused, "{line}: {reply:?}");
    }
    let reply = ask(&daemon, "{\"type\":\"close\"}");
    let refused =
        matches!(&reply, Reply::Refused(refused) if refused.code == RefusalCode::OutOfOrder);
    assert!(refused, "close without a session: {reply:?}");
    assert_eq!(daemon.stream("cam").state, StreamState::Waiting);
}

#[test]
fn a_second_producer_is_refused_with_the_holders_pid_unless_it_takes_over() {
    let _machine = beside_others();
    let daemon = Daemon::start(&stream());
    let mut first = daemon.producer(&PATTERN);
    daemon.wait_for_state("cam", StreamState::Live, Duration::from_secs(15));
    let refused = refusal(&daemon, open_request());
    assert_eq!(refused.code, RefusalCode::StreamBusy, "{refused:?}");
    assert_eq!(refused.holder_pid, i32::try_from(first.pid()).ok());
    assert!(
        refused.message.contains(&first.pid().to_string()),
        "{refused:?}"
    );

    let second = daemon.producer(&["pattern", "cam", "--size", "320x180", "--take-over"]);
    let status = first.wait(Duration::from_secs(10));
    assert_eq!(
        status.code(),
        Some(1),
        "the first one ends: {}",
        first.said()
    );
    assert!(
        first.said().contains("taken"),
        "and says why: {}",
        first.said()
    );
    wait_for(
        "the second one holds the stream",
        Duration::from_secs(5),
        || {
            let session = daemon.stream("cam").session?;
            (u32::try_from(session.pid) == Ok(second.pid()) && session.committed > 0).then_some(())
        },
    );
}

/// The named rings of the daemon.
fn named_rings(daemon: &Daemon) -> Vec<std::path::PathBuf> {
    let prefix = format!("ringgear-{}-", daemon.pid());
    let mut rings = Vec::new();
    for entry in std::fs::read_dir("/dev/shm").unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with(&prefix)
        {
            rings.push(path);
        }
    }
    rings
}

/// The system's Python as the daemon's own user, who can't run one in somebody's home.
fn python() -> std::process::Command {
    let mut command = command_as(Who::Daemon, "python3");
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}

/// A producer of the daemon's own user that feeds a named ring and then cuts it to `bytes`.
fn cutter(daemon: &Daemon, bytes: u64) -> Process {
    let mut command = python();
    command
        .args(["-c", include_str!("cut_ring.py")])
        .arg(daemon.place.socket())
        .arg(bytes.to_string());
    Process::start("cut_ring.py", &mut command)
}

#[test]
fn a_producer_that_cuts_its_named_ring_ends_its_own_session_and_the_daemon_lives() {
    let _machine = beside_others();
    let daemon = Daemon::start(&stream());
    // The words and all, then the pixels alone.
    for bytes in [0, 8192] {
        let mut producer = cutter(&daemon, bytes);
        producer.wait_for_line("fed ringgear-", Duration::from_secs(15));
        let line = producer.wait_for_line("\"ended\"", Duration::from_secs(5));
        let Reply::Ended(ended) = serde_json::from_str(&line).unwrap() else {
            panic!("{line}")
        };
        assert_eq!(ended.code, EndCode::RingCorrupt);
        assert!(ended.message.contains("truncated"), "{}", ended.message);
        assert!(producer.wait(Duration::from_secs(5)).success());
        wait_for("the name is gone", Duration::from_secs(5), || {
            named_rings(&daemon).is_empty().then_some(())
        });
    }
    let _camera = daemon.producer(&PATTERN);
    daemon.wait_until_playable("cam");
}

#[test]
fn what_a_killed_daemon_leaves_in_dev_shm_the_next_one_removes() {
    let _machine = beside_others();
    let mut daemon = Daemon::start(&stream());
    let mut command = python();
    // It says nothing after its request, and holds the session until it is killed.
    let open = Open {
        memory: MemoryKind::Named,
        ..open_request()
    };
    let hold = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                s.sendall(sys.argv[2].encode() + b'\\n'); print(s.recv(4096), flush=True); s.recv(1)";
    command.args(["-c", hold]).arg(daemon.place.socket());
    command.arg(serde_json::to_string(&Request::Open(open)).unwrap());
    let holder = Process::start("a holder", &mut command);
    holder.wait_for_line("opened", Duration::from_secs(5));
    let left = named_rings(&daemon);
    assert_eq!(left.len(), 1, "{left:?}");
    daemon.kill();
    assert!(left[0].exists());
    daemon.restart();
    assert!(!left[0].exists());
}

#[test]
fn named_memory_is_refused_to_other_users() {
    let _machine = beside_others();
    let daemon = Daemon::start(&stream());
    if !is_root() {
        eprintln!("not tested: only root can be somebody else than the daemon's user");
        return;
    }
    let refused = refusal(
        &daemon,
        Open {
            memory: MemoryKind::Named,
            ..open_request()
        },
    );
    assert_eq!(refused.code, RefusalCode::NotPermitted, "{refused:?}");
}

mod alone {
    use super::*;

    #[test]
    fn a_killed_producer_leaves_the_stream_going_repeating_then_with_the_slate() {
        /// What `stale_after` allows: two seconds of the stream's ticks.
        const REPEATED: usize = 50;
        let _machine = alone();
        let mut daemon = Daemon::start(&stream());
        let mut camera = daemon.producer(&PATTERN);
        daemon.wait_until_playable("cam");
        camera.kill();
        let slate = wait_for("the slate is published", Duration::from_secs(10), || {
            let stream = daemon.stream("cam");
            (stream.ticks.slate > 25).then_some(stream)
        });
        assert_eq!(
            (slate.state, &slate.session),
            (StreamState::NoSignal, &None)
        );
        assert_eq!(
            (slate.ticks.missed, slate.encoder.restarts),
            (0, 0),
            "{slate:?}"
        );

        let started = Instant::now();
        let next = daemon.producer(&[&PATTERN[..], &["--tell-commits"]].concat());
        wait_for(
            "the next one's frames arrive",
            Duration::from_secs(10),
            || {
                let session = daemon.stream("cam").session?;
                (u32::try_from(session.pid) == Ok(next.pid()) && session.committed > 0)
                    .then_some(())
            },
        );
        daemon.wait_for_state("cam", StreamState::Live, Duration::from_secs(3));
        eprintln!(
            "live {:?} after the next one was started",
            started.elapsed()
        );
        let first = next.wait_for_line("committed,0,", Duration::from_secs(5));
        daemon.stop();

        let log = tick_log::read(&daemon.place.tick_logs(), "cam");
        let runs: Vec<&[Row]> = log.chunk_by(|a, b| a.kind == b.kind).collect();
        let at = runs.iter().position(|run| run[0].kind == Kind::Slate);
        let at = at.expect("the slate is logged");
        let [last, repeated, slate, again] = runs[at - 2..at + 2] else {
            panic!("what is around the slate: {runs:?}")
        };
        assert_eq!(
            [last[0].kind, repeated[0].kind, again[0].kind],
            [Kind::Fresh, Kind::Repeated, Kind::Fresh]
        );
        assert_eq!(repeated.len(), REPEATED, "stale_after is 2 s");
        assert_eq!(repeated[0].frame, last.last().unwrap().frame);
        // A tick that was being made when the first frame came may not have it, and the next has it.
        let committed = tick_log::commits(&next)[&0];
        let late = slate.iter().filter(|row| row.looked > committed).count();
        assert!(
            late <= 1,
            "{first}: {late} ticks showed the slate after that"
        );
    }

    #[test]
    fn two_hundred_killed_producers_leave_nothing_behind() {
        const KILLS: usize = 200;
        const WARM: usize = 20;
        let _machine = alone();
        // Nobody's cameras come so fast.
        let limits = "[limits]\nsessions_per_second = 1000\n";
        let daemon = Daemon::start(&format!("{limits}{}", stream()));
        // What it does once and for all is done before.
        let camera = daemon.producer(&PATTERN);
        daemon.wait_until_playable("cam");
        daemon.wait_for_slates(&["cam"]);
        drop(camera);
        let mut warm = None;
        for kill in 0..KILLS {
            let mut camera = daemon.producer(&PATTERN);
            wait_for(
                "the producer's frames arrive",
                Duration::from_secs(5),
                || {
                    let session = daemon.stream("cam").session?;
                    (u32::try_from(session.pid) == Ok(camera.pid()) && session.committed > 0)
                        .then_some(())
                },
            );
            camera.kill();
            if kill == WARM {
                warm = Some(at_rest(&daemon, |held| held.rings == 0));
            }
        }
        let (before, warm_resident) = warm.unwrap();
        // What is leaked stays; a file that is being written, or a ring until the next tick, goes.
        let (held, resident) = at_rest(&daemon, |held| held.is_no_more_than(&before));
        eprintln!("{before:?} -> {held:?}, resident {warm_resident} -> {resident} kB");
        assert!(
            resident <= warm_resident + 8 * 1024,
            "resident kB: {warm_resident} after {WARM} kills, {resident} after {KILLS}"
        );
    }

    /// What the daemon holds, and its resident kB, once the last session is gone and `rests` says that it is at rest.
    fn at_rest(daemon: &Daemon, rests: impl Fn(&Held) -> bool) -> (Held, u64) {
        wait_for("the last session is gone", Duration::from_secs(5), || {
            daemon.stream("cam").session.is_none().then_some(())
        });
        // Threads that helped out for a moment, while a ring was made, stay for ten seconds.
        let held = wait_for(
            "nothing is held that was not",
            Duration::from_secs(20),
            || {
                let held = Held::by(daemon);
                rests(&held).then_some(held)
            },
        );
        (held, memory_kb(daemon.pid(), "VmRSS"))
    }
}
