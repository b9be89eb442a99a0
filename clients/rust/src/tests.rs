//! Producers against a daemon's end made of a real socket, real memory and real descriptors.

use std::io::{BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ringgear_ring::layout::{Policy, SlotFormat};
use ringgear_ring::{Deadline, MemoryKind, Reader, RingMemory};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, bind, sendmsg, socket_with,
};

use crate::connection::Connection;
use crate::messages::*;
use crate::*;

const PATIENCE: Duration = Duration::from_secs(20);

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringgear-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn format() -> FrameFormat {
    FrameFormat::packed(PixelFormat::Gray, 16, 8).unwrap()
}

fn options(socket: &Path) -> ProducerOptions {
    let options = ProducerOptions::new("door", format());
    ProducerOptions {
        socket: socket.to_owned(),
        ..options
    }
}

fn listen(socket: &Path) -> UnixListener {
    let _ = std::fs::remove_file(socket);
    UnixListener::bind(socket).unwrap()
}

/// The daemon's end of a session.
struct Peer {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Peer {
    fn connected(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        Self { stream, lines }
    }

    fn accept(listener: &UnixListener) -> (Self, Open) {
        let mut peer = Self::connected(listener);
        let Request::Open(open) = peer.request() else {
            panic!("no open")
        };
        (peer, open)
    }

    fn request(&mut self) -> Request {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn say(&self, reply: &Reply, fds: &[BorrowedFd<'_>]) {
        let mut line = serde_json::to_vec(reply).unwrap();
        line.push(b'\n');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        // The descriptor goes with the first byte, and the rest follows on its own: a client has to put lines together.
        let first = [IoSlice::new(&line[..1])];
        sendmsg(&self.stream, &first, &mut control, SendFlags::NOSIGNAL).unwrap();
        // A client that has seen enough in the first byte may be gone already.
        let _ = (&self.stream).write_all(&line[1..]);
    }

    fn opened<F: SlotFormat>(&self, memory: &RingMemory<F>) -> Opened {
        Opened {
            protocol: PROTOCOL,
            session: 1,
            memory_bytes: memory.bytes() as u64,
            slots: memory.slots(),
            name: memory.name().map(str::to_owned),
            framerate_num: 30.try_into().unwrap(),
            framerate_den: 1.try_into().unwrap(),
        }
    }

    fn open_ring(&self) -> Reader {
        self.open_ring_of(&format(), 3)
    }

    fn open_ring_of<F: SlotFormat>(&self, format: &F, slots: u32) -> Reader<F> {
        let memory = RingMemory::create(format, slots).unwrap();
        self.say(&Reply::Opened(self.opened(&memory)), &[memory.fd()]);
        Reader::new(memory)
    }
}

fn on_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (send, receive) = channel();
    std::thread::spawn(move || send.send(run()));
    receive
}

#[test]
fn a_session_opens_carries_frames_and_closes() {
    let folder = Folder::new("session");
    let listener = listen(&folder.socket());
    let socket = folder.socket();
    let client = on_thread(move || {
        let mut producer = Producer::open(&options(&socket)).unwrap();
        producer.set_next_frame_number(41);
        producer.write(&[5; 128], Some(Captured(77))).unwrap();
        drop(producer.begin().unwrap());
        producer.write(&[6; 128], None).unwrap();
        assert_eq!((producer.committed(), producer.superseded()), (2, 0));
        producer.close()
    });
    let (mut peer, open) = Peer::accept(&listener);
    assert_eq!(
        (open.stream.as_str(), open.format.as_str()),
        ("door", "gray")
    );
    assert_eq!((open.width, open.height, open.strides), (16, 8, None));
    let mut reader = peer.open_ring();
    assert_eq!(peer.request(), Request::Close {});
    let taken = reader.take_oldest().unwrap().unwrap();
    assert_eq!(
        (taken.frame_number(), taken.captured()),
        (41, Some(Captured(77)))
    );
    drop(taken);
    let taken = reader.take_oldest().unwrap().unwrap();
    assert_eq!(taken.frame_number(), 42);
    assert!(taken.captured().unwrap() <= now());
    let counts = FrameCounts {
        used: 2,
        ..FrameCounts::default()
    };
    peer.say(&Reply::Closed(counts), &[]);
    assert_eq!(client.recv_timeout(PATIENCE).unwrap().unwrap(), counts);
}

#[test]
fn a_named_lossless_ring_takes_every_frame_and_the_daemons_end_is_noticed_while_waiting() {
    let folder = Folder::new("named");
    let listener = listen(&folder.socket());
    let options = ProducerOptions {
        memory: MemoryKind::Named,
        ..options(&folder.socket())
    };
    let client = on_thread(move || {
        let mut producer = Producer::open(&options).unwrap();
        for number in 0..200 {
            producer.write(&[number; 128], None).unwrap();
        }
        // Nobody reads any more: the ring is full after three, and then the connection breaks.
        loop {
            if let Err(error) = producer.write(&[0; 128], None) {
                break error;
            }
        }
    });
    let (peer, open) = Peer::accept(&listener);
    assert_eq!(open.memory, MemoryKind::Named);
    let (kind, policy) = (MemoryKind::Named, Policy::Lossless);
    let memory = RingMemory::create_as(kind, policy, &format(), 3).unwrap();
    peer.say(&Reply::Opened(peer.opened(&memory)), &[]);
    let mut reader = Reader::new(memory);
    for number in 0..200 {
        let taken = loop {
            if let Some(taken) = reader.take_oldest().unwrap() {
                break taken;
            }
            assert!(reader.wait(Deadline::after(PATIENCE)).unwrap());
        };
        assert_eq!(taken.frame_number(), number);
        // The last one is kept in the reader's hands, so that the ring fills up.
        if number == 199 {
            std::mem::forget(taken);
        }
    }
    drop(peer);
    let error = client.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(error, ProducerError::Gone), "{error}");
}

#[test]
fn sound_goes_in_blocks_that_say_which_sample_is_their_first_and_when_it_was_heard() {
    let folder = Folder::new("sound");
    let listener = listen(&folder.socket());
    let format = SoundFormat::new(SampleFormat::S16le, 8000, 2).unwrap();
    let options = AudioProducerOptions {
        socket: folder.socket(),
        take_over: true,
        ..AudioProducerOptions::new("door", format)
    };
    let (to_test, from_client) = channel();
    let (to_client, go_on) = channel::<()>();
    let client = on_thread(move || {
        let mut producer = AudioProducer::open(options, |_| ()).unwrap();
        assert!(producer.write(&[1; 4 * 80], None).unwrap());
        // Two blocks and a half: an eighth of a second each.
        assert!(producer.write(&[2; 4 * 2500], Some(Captured(77))).unwrap());
        let error = producer.write(&[0; 6], None).unwrap_err();
        let uneven = RingError::BlockUneven {
            bytes: 6,
            sample: 4,
        };
        assert!(matches!(error, ProducerError::Ring(known) if known == uneven));
        assert_eq!((producer.samples(), producer.committed()), (2580, 4));
        to_test.send(()).unwrap();
        go_on.recv_timeout(PATIENCE).unwrap_err();
        let deadline = Instant::now() + PATIENCE;
        while producer.dropped() == 0 || !producer.is_connected() {
            assert!(Instant::now() < deadline);
            producer.write(&[3; 4], None).unwrap();
        }
        assert_eq!(producer.sessions(), 2);
        let before = (producer.samples() - 1, producer.dropped());
        producer.write(&[4; 4], None).unwrap();
        to_test.send(()).unwrap();
        before
    });
    let mut peer = Peer::connected(&listener);
    let Request::OpenSound(open) = peer.request() else {
        panic!("no sound")
    };
    let asked = (open.format.as_str(), open.rate, open.channels);
    assert_eq!(asked, ("s16le", 8000, 2));
    assert!(open.take_over && open.slots.is_none());
    let mut reader = peer.open_ring_of(&format, 8);
    from_client.recv_timeout(PATIENCE).unwrap();
    let mut block = Vec::new();
    let known = |nanos: u64| Some(Captured(77 + nanos));
    for (count, first, captured) in [
        (80, 0, None),
        (1000, 80, known(0)),
        (1000, 1080, known(125_000_000)),
        (500, 2080, known(250_000_000)),
    ] {
        let taken = reader.take_oldest().unwrap().unwrap();
        assert_eq!((taken.frame_number(), taken.captured()), (first, captured));
        taken.copy_block(&mut block).unwrap();
        assert_eq!(block.len(), 4 * count);
    }
    drop((peer, reader, to_client));
    let mut peer = Peer::connected(&listener);
    let Request::OpenSound(open) = peer.request() else {
        panic!("no sound")
    };
    assert!(!open.take_over, "who took over once does not do so again");
    let mut reader = peer.open_ring_of(&format, 8);
    from_client.recv_timeout(PATIENCE).unwrap();
    let (number, dropped) = client.recv_timeout(PATIENCE).unwrap();
    assert!(number > 2580 && dropped > 0);
    let mut last = None;
    while let Some(taken) = reader.take_oldest().unwrap() {
        last = Some(taken.frame_number());
    }
    assert_eq!(last, Some(number + 1), "dropped samples are counted");
}

/// Opens a session against a daemon that answers by `answer`.
fn open_against(name: &str, answer: impl FnOnce(&Peer) + Send + 'static) -> ProducerError {
    let folder = Folder::new(name);
    let listener = listen(&folder.socket());
    let peer = on_thread(move || answer(&Peer::accept(&listener).0));
    let error = Producer::open(&options(&folder.socket())).unwrap_err();
    peer.recv_timeout(PATIENCE).unwrap();
    error
}

#[test]
fn wrong_answers_to_open_are_errors() {
    let refused = Refused {
        code: RefusalCode::UnknownStream,
        message: "no stream 'door'".to_owned(),
        holder_pid: None,
    };
    let reply = Reply::Refused(refused.clone());
    let error = open_against("refused", move |peer| peer.say(&reply, &[]));
    assert!(!error.can_heal());
    assert!(matches!(error, ProducerError::Refused(r) if r == refused));

    let memory = || RingMemory::create(&format(), 3).unwrap();
    let error = open_against("no-fd", move |peer| {
        peer.say(&Reply::Opened(peer.opened(&memory())), &[]);
    });
    assert!(matches!(error, ProducerError::Protocol { .. }), "{error}");

    let error = open_against("two-fds", move |peer| {
        let memory = memory();
        peer.say(
            &Reply::Opened(peer.opened(&memory)),
            &[memory.fd(), memory.fd()],
        );
    });
    assert!(error.to_string().contains("more than one"), "{error}");

    let error = open_against("no-ring", move |peer| {
        let file = std::fs::File::open("/dev/null").unwrap();
        peer.say(&Reply::Opened(peer.opened(&memory())), &[file.as_fd()]);
    });
    assert!(
        matches!(error, ProducerError::Ring(RingError::NotSealed { .. })),
        "{error}"
    );

    let error = open_against("hang-up", |_| {});
    assert!(matches!(error, ProducerError::Gone), "{error}");

    let error = open_against("nonsense", |peer| {
        (&peer.stream)
            .write_all(b"HTTP/1.1 400 Bad Request\n")
            .unwrap();
    });
    assert!(matches!(error, ProducerError::Protocol { .. }), "{error}");

    let error = open_against("endless", |peer| {
        let _ = (&peer.stream).write_all(&vec![b' '; MAX_LINE * 2]);
    });
    assert!(error.to_string().contains("without an end"), "{error}");
}

#[test]
fn an_absent_daemon_is_told_from_a_dead_one() {
    let folder = Folder::new("absent");
    let error = Producer::open(&options(&folder.socket())).unwrap_err();
    assert!(matches!(&error, ProducerError::NoSocket(path) if *path == folder.socket()));
    assert!(error.to_string().contains("is the daemon running?"));
    drop(listen(&folder.socket()));
    let error = Producer::open(&options(&folder.socket())).unwrap_err();
    assert!(matches!(error, ProducerError::NobodyListens(_)), "{error}");
}

fn ended(code: EndCode) -> Reply {
    let message = "so it is".to_owned();
    Reply::Ended(Ended { code, message })
}

/// Feeds frames until `done`, with a deadline.
fn feed(producer: &mut SteadyProducer, mut done: impl FnMut(bool) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let written = producer.write(&[1; 128], None).unwrap();
        if done(written) {
            return;
        }
        assert!(Instant::now() < deadline, "nothing happens");
        std::thread::yield_now();
    }
}

#[test]
fn a_steady_producer_waits_once_comes_back_once_and_counts_on() {
    let folder = Folder::new("steady");
    let listener = listen(&folder.socket());
    let socket = folder.socket();
    let first = on_thread(move || {
        let (peer, _) = Peer::accept(&listener);
        (peer.open_ring(), peer)
    });
    let (tell, events) = channel();
    let mut producer = SteadyProducer::open(
        ProducerOptions {
            take_over: true,
            ..options(&socket)
        },
        move |event| tell.send(event).unwrap(),
    )
    .unwrap();
    let session = first.recv_timeout(PATIENCE).unwrap();
    let mut written = 0;
    feed(&mut producer, |done| {
        written += u32::from(done);
        written == 5
    });
    assert_eq!((producer.committed(), producer.sessions()), (5, 1));
    drop(session); // as kill -9 would
    feed(&mut producer, |written| !written);
    assert!(!producer.is_connected());
    let before = producer.committed();
    assert!(matches!(
        events.try_recv().unwrap(),
        LinkEvent::Waiting {
            cause: ProducerError::Gone
        }
    ));
    let listener = listen(&socket);
    let second = on_thread(move || {
        let (peer, open) = Peer::accept(&listener);
        (peer.open_ring(), peer, open)
    });
    feed(&mut producer, |written| written);
    let LinkEvent::Back { dropped, .. } = events.try_recv().unwrap() else {
        panic!("not back")
    };
    assert_eq!(dropped, producer.dropped());
    assert!(producer.is_connected());
    assert_eq!((producer.committed(), producer.sessions()), (before + 1, 2));
    let (mut reader, peer, open) = second.recv_timeout(PATIENCE).unwrap();
    assert!(!open.take_over, "who comes back takes nothing over");
    let first_again = reader.take_oldest().unwrap().unwrap();
    assert_eq!(first_again.frame_number(), 5 + dropped);
    drop(first_again);
    assert!(events.try_recv().is_err(), "each is told once");
    // A takeover is final.
    peer.say(&ended(EndCode::TakenOver), &[]);
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        if let Err(error) = producer.check() {
            break error;
        }
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    };
    assert!(matches!(
        error,
        ProducerError::Ended(Ended {
            code: EndCode::TakenOver,
            ..
        })
    ));
    assert!(producer.begin().is_err());
}

#[test]
fn a_stopping_daemon_is_waited_for_and_a_lost_stream_is_not() {
    let folder = Folder::new("lost-stream");
    let listener = listen(&folder.socket());
    let socket = folder.socket();
    let daemon = on_thread(move || {
        let (peer, _) = Peer::accept(&listener);
        let _reader = peer.open_ring();
        peer.say(&ended(EndCode::Stopping), &[]);
        for code in [RefusalCode::Stopping, RefusalCode::UnknownStream] {
            let (peer, _) = Peer::accept(&listener);
            let message = "no".to_owned();
            peer.say(
                &Reply::Refused(Refused {
                    code,
                    message,
                    holder_pid: None,
                }),
                &[],
            );
        }
    });
    let mut producer = SteadyProducer::open(options(&socket), |_| {}).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        match producer.begin() {
            Ok(_) => assert!(Instant::now() < deadline),
            Err(error) => break error,
        }
        std::thread::yield_now();
    };
    daemon.recv_timeout(PATIENCE).unwrap();
    assert!(
        matches!(&error, ProducerError::Refused(r) if r.code == RefusalCode::UnknownStream),
        "{error}"
    );
}

#[test]
fn a_daemon_that_accepts_nobody_is_not_waited_for_for_ever() {
    let folder = Folder::new("queue");
    let socket = folder.socket();
    let queue = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    bind(&queue, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
    rustix::net::listen(&queue, 0).unwrap();
    let patience = Duration::from_millis(200);
    let outcome = on_thread(move || {
        let mut queued = Vec::new();
        // How many fit into the queue of none is the kernel's to say: one or two.
        loop {
            let began = Instant::now();
            match Connection::open(&socket, patience) {
                Ok(connection) => queued.push(connection),
                Err(error) => return (error, began.elapsed(), queued.len()),
            }
        }
    });
    let (error, waited, queued) = outcome.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(error, ProducerError::NoAnswer { .. }), "{error}");
    // The kernel counts such a wait in ticks of its own, of 10 ms at most, and begins within one.
    let tick = Duration::from_millis(10);
    assert!(waited + tick >= patience, "{waited:?}");
    assert!(queued < 10);
}
