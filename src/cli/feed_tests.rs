//! `push` and `pattern` against a daemon's end made of a real socket, real memory and a real descriptor.

use std::io::{BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use clap::Parser;
use ringgear_producer::messages::{FrameCounts, Open, Opened, PROTOCOL, Reply, Request};
use ringgear_producer::pattern::{Bars, decode_luma};
use ringgear_producer::{FrameFormat, PixelFormat};
use ringgear_ring::{Reader, RingMemory};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::CliError;
use super::feed::Stop;
use super::pattern::PatternArgs;
use super::push::PushArgs;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a session brought: its request, and each frame's number and pixels.
struct Session {
    open: Open,
    frames: Vec<(u64, Vec<u8>)>,
}

fn say(mut stream: &UnixStream, reply: &Reply) {
    let line = serde_json::to_string(reply).unwrap() + "\n";
    stream.write_all(line.as_bytes()).unwrap();
}

/// Takes one session's frames until it closes.
fn serve(listener: &UnixListener) -> Session {
    let (stream, _) = listener.accept().unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let Request::Open(open) = serde_json::from_str(&line).unwrap() else {
        panic!("{line}")
    };
    let pixels = PixelFormat::from_name(&open.format).unwrap();
    let format = FrameFormat::packed(pixels, open.width, open.height).unwrap();
    let memory = RingMemory::create(&format, 16).unwrap();
    let opened = serde_json::to_string(&Reply::Opened(Opened {
        protocol: PROTOCOL,
        session: 1,
        memory_bytes: memory.bytes() as u64,
        slots: 16,
        name: None,
        framerate_num: 200.try_into().unwrap(),
        framerate_den: 1.try_into().unwrap(),
    }));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [memory.fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let opened = opened.unwrap() + "\n";
    let parts = [IoSlice::new(opened.as_bytes())];
    sendmsg(&stream, &parts, &mut control, SendFlags::NOSIGNAL).unwrap();

    let mut reader = Reader::new(memory);
    stream.set_nonblocking(true).unwrap();
    let (mut frames, mut closing) = (Vec::new(), false);
    let deadline = Instant::now() + PATIENCE;
    loop {
        while let Some(taken) = reader.take_oldest().unwrap() {
            let mut frame = vec![0; format.bytes()];
            for (index, plane) in format.planes().iter().enumerate() {
                let bytes = plane.offset..plane.offset + plane.row_bytes * plane.rows;
                taken
                    .copy_rows(index, 0, plane.rows, &mut frame[bytes])
                    .unwrap();
            }
            frames.push((taken.frame_number(), frame));
        }
        if closing {
            break;
        }
        line.clear();
        closing = lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0);
        assert!(Instant::now() < deadline, "no close came");
        std::thread::yield_now();
    }
    let used = frames.len() as u64;
    say(
        &stream,
        &Reply::Closed(FrameCounts {
            used,
            ..FrameCounts::default()
        }),
    );
    Session { open, frames }
}

/// A daemon's end for one session, its socket, and the folder that holds it.
fn daemon() -> (Receiver<Session>, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let _ = send.send(serve(&listener));
    });
    (receive, socket, folder)
}

#[derive(Parser)]
struct Push {
    #[command(flatten)]
    args: PushArgs,
}

#[derive(Parser)]
struct Pattern {
    #[command(flatten)]
    args: PatternArgs,
}

fn push(arguments: &str, input: &[u8]) -> (Result<(), CliError>, Option<Session>) {
    let (session, socket, _folder) = daemon();
    let words = std::iter::once("push").chain(arguments.split(' '));
    let args = Push::try_parse_from(words).unwrap().args;
    let result = super::push::push(args, &socket, input, &Stop::default());
    let patience = if result.is_ok() {
        PATIENCE
    } else {
        Duration::from_secs(1)
    };
    (result, session.recv_timeout(patience).ok())
}

#[test]
fn push_carries_yuv4mpeg2_frame_by_frame() {
    let mut input = b"YUV4MPEG2 W4 H2 F100:1 Ip C420mpeg2\n".to_vec();
    for value in 1..=7 {
        input.extend_from_slice(b"FRAME\n");
        input.extend_from_slice(&[value; 12]);
    }
    let began = Instant::now();
    let (result, session) = push("door", &input);
    result.unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(60),
        "paced by the header's rate"
    );
    let session = session.unwrap();
    assert_eq!(
        (session.open.stream.as_str(), session.open.format.as_str()),
        ("door", "yuv420p")
    );
    let expected: Vec<_> = (1..=7).map(|v| (u64::from(v) - 1, vec![v; 12])).collect();
    assert_eq!(session.frames, expected);
}

#[test]
fn push_carries_raw_frames_and_tells_where_input_is_cut() {
    let input: Vec<u8> = (0..40).collect();
    let raw = "door --size 4x2 --format gray --framerate 100";
    let (result, session) = push(raw, &input);
    result.unwrap();
    let frames = session.unwrap().frames;
    assert_eq!(frames.len(), 5);
    assert_eq!(frames[4], (4, (32..40).collect()));
    let (result, session) = push(raw, &input[..20]);
    assert_eq!(
        result.unwrap_err().to_string(),
        "the input ends within frame 2, at byte 20: 4 of the frame's 8 bytes came"
    );
    let sent = session.expect("the session was closed in good order");
    assert_eq!(sent.frames.len(), 2);
    assert!(Push::try_parse_from(["push", "door", "--size", "4x2"]).is_err());
}

#[test]
fn formats_of_sound_and_of_frames_are_told_apart() {
    let usage = |words: &str| {
        let args = Push::try_parse_from(words.split(' ')).unwrap().args;
        let (nowhere, stop) = (PathBuf::from("/nowhere"), Stop::default());
        let result = match args.audio {
            true => super::push::push_sound(&args, false, &nowhere, &[][..], &stop),
            false => super::push::push(args, &nowhere, &[][..], &stop),
        };
        match result {
            Err(CliError::Usage(message)) => message,
            other => panic!("{other:?}"),
        }
    };
    for (words, mend) in [
        ("push door --format s16le", "say --audio"),
        ("push door --format gray", "say --size"),
        ("push door --audio --format gray", "s16le or f32le"),
        ("push door --audio --rate 7000", "8000 to 192000"),
        ("push door --audio --channels 9", "1 to 8"),
    ] {
        let said = usage(words);
        assert!(said.contains(mend), "{words}: {said}");
    }
    let parsed = |words: &str| Push::try_parse_from(words.split(' ')).map(drop);
    assert!(parsed("push door --format mauve").is_err());
    assert!(parsed("push door --audio --size 4x2").is_err());
    assert!(parsed("push door --rate 48000").is_err());
}

#[test]
fn pattern_sends_as_many_frames_as_asked_at_the_stream_s_rate() {
    let (session, socket, _folder) = daemon();
    let words = "pattern door --size 320x180 --format yuv420p --frames 12 --jitter 2ms";
    let args = Pattern::try_parse_from(words.split(' ')).unwrap().args;
    let began = Instant::now();
    super::pattern::run(args, &socket).unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(55),
        "200 frames a second"
    );
    let frames = session.recv_timeout(PATIENCE).unwrap().frames;
    assert_eq!(frames.len(), 12);
    for (k, (number, frame)) in (0..).zip(&frames) {
        let Some(Bars { frame_number, .. }) = decode_luma(frame, 320, 180, 320) else {
            panic!("frame {k} has no bars")
        };
        assert_eq!((u64::from(frame_number), *number), (k, k));
    }
}
