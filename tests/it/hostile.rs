//! Producers that lie, flood, hoard and stall: each one's own session ends with a named error, what the daemon holds stays
//! bounded, and not one tick of the neighbour's stream is overdue.

mod users;

mod besieged {
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd as _;
    use std::time::{Duration, Instant};

    use ringgear_producer::messages::{EndCode, RefusalCode, Reply, Request};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use crate::harness::dice::Dice;
    use crate::harness::held::Held;
    use crate::harness::liar::{
        COMMITTED, FREE, Liar, READING, READY, SLOT_HEADER_BYTES, SLOT_HEADERS, SUPERSEDED,
        WRITING, open_request,
    };
    use crate::harness::wait_for;
    use crate::siege::{Siege, TICK, free};

    #[test]
    fn random_bytes_all_over_the_memory_end_only_their_own_session() {
        let siege = Siege::begin("sessions_per_second = 1000");
        let mut dice = Dice(7);
        let mut ended = 0;
        for round in 0..60 {
            let mut liar = Liar::session(&siege.daemon, "bad");
            let bytes = liar.opened.as_ref().unwrap().memory_bytes;
            liar.commit(0, 1);
            let until = Instant::now() + 4 * TICK;
            while Instant::now() < until {
                if round % 2 == 0 {
                    // All of it, words and pixels.
                    let length = usize::try_from(bytes).unwrap();
                    liar.write(0, &dice.bytes(length));
                } else {
                    // One live word at a time, small values as likely as large ones.
                    let slot = SLOT_HEADERS + SLOT_HEADER_BYTES * dice.below(6);
                    let offset = [COMMITTED, SUPERSEDED, slot, slot + 8, slot + 16]
                        [usize::try_from(dice.below(5)).unwrap()];
                    let shift = dice.below(64);
                    liar.word(offset, dice.roll() >> shift);
                }
            }
            match liar.reply(4 * TICK) {
                Some(Reply::Ended(said)) => {
                    assert_eq!(said.code, EndCode::RingCorrupt, "{said:?}");
                    assert!(!said.message.contains('\n'), "{said:?}");
                    ended += 1;
                }
                None => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(ended >= 50, "{ended} of 60 sessions were ended");
        siege.end("random bytes", 0.7);
    }

    #[test]
    fn each_lie_in_the_ring_ends_the_session_by_its_name() {
        let siege = Siege::begin("sessions_per_second = 1000");
        let five = |liar: &Liar| (1..=5).for_each(|at| liar.commit(at - 1, at));
        type Lie = (&'static str, fn(&Liar));
        let lies: [Lie; 9] = [
            ("sequence number 0", |liar| liar.slot(0, 0, READY)),
            ("in state writing with sequence number 0", |liar| {
                liar.slot(0, 0, WRITING);
            }),
            ("nobody reads it", |liar| liar.slot(1, 9, READING)),
            ("only 5 are committed", |liar| liar.slot(5, 7, READY)),
            ("both hold frame 6", |liar| {
                liar.slot(0, 6, READY);
                liar.slot(5, 6, READY);
                liar.word(COMMITTED, 6);
            }),
            ("committed fell from 5 to 3", |liar| liar.word(COMMITTED, 3)),
            ("9 frames were stolen back, but only 5", |liar| {
                liar.word(SUPERSEDED, 9);
            }),
            ("was read already", |liar| liar.slot(0, 1, READY)),
            ("committed rose by", |liar| liar.word(COMMITTED, 1 << 60)),
        ];
        for (name, lie) in lies {
            let mut liar = Liar::session(&siege.daemon, "bad");
            five(&liar);
            wait_for(
                "the frames are counted and taken",
                Duration::from_secs(2),
                || (siege.daemon.stream("bad").session?.committed == 5).then_some(()),
            );
            wait_for("the last frame is shown", Duration::from_secs(2), || {
                let free = |slot: u64| {
                    let mut word = [0; 8];
                    let at = SLOT_HEADERS + SLOT_HEADER_BYTES * slot;
                    rustix::io::pread(liar.memory.as_ref().unwrap(), &mut word, at).unwrap();
                    u64::from_le_bytes(word) & 3 == FREE
                };
                (0..5).all(free).then_some(())
            });
            lie(&liar);
            match liar.reply(Duration::from_secs(2)) {
                Some(Reply::Ended(said)) => {
                    assert_eq!(said.code, EndCode::RingCorrupt, "{name}: {said:?}");
                    assert!(said.message.contains(name), "{name}: {said:?}");
                }
                other => panic!("{name}: {other:?}"),
            }
            assert_eq!(liar.reply(Duration::from_secs(2)), None, "{name}: the end");
        }
        siege.end("lies in the ring", 0.7);
    }

    #[test]
    fn lies_about_pixels_times_and_the_daemons_own_words_harm_nobody() {
        let siege = Siege::begin("");
        let mut liar = Liar::session(&siege.daemon, "bad");
        let mut dice = Dice(3);
        liar.write(0, &dice.bytes(1024));
        liar.word(1152, u64::MAX);
        for sequence in 1..=20 {
            let slot = (sequence - 1) % 6;
            let header = SLOT_HEADERS + SLOT_HEADER_BYTES * slot;
            liar.word(
                header + 8,
                [0, u64::MAX, 1 << 63][usize::try_from(sequence % 3).unwrap()],
            );
            liar.word(
                header + 16,
                [1, u64::MAX, 1 << 62][usize::try_from(sequence % 3).unwrap()],
            );
            liar.commit(slot, sequence);
            wait_for("the frame is taken", Duration::from_secs(2), || {
                (siege.daemon.stream("bad").session?.committed == sequence).then_some(())
            });
        }
        match liar.ask(&Request::Close {}) {
            Some(Reply::Closed(counts)) => {
                assert_eq!(counts.used + counts.superseded + counts.late, 20);
            }
            other => panic!("{other:?}"),
        }
        drop(liar);
        siege.end("harmless lies", 0.7);
    }

    #[test]
    fn who_commits_on_after_its_close_or_end_is_not_listened_to() {
        let siege = Siege::begin("");
        let mut liar = Liar::session(&siege.daemon, "bad");
        liar.commit(0, 1);
        assert!(liar.say(b"{\"type\":\"close\"}\n"));
        let mut sequence = 1;
        let deadline = Instant::now() + Duration::from_secs(5);
        let closed = loop {
            sequence += 1;
            liar.commit(sequence % 6, sequence);
            if let Some(Reply::Closed(counts)) = liar.reply(TICK / 4) {
                break counts;
            }
            assert!(Instant::now() < deadline, "the close was never answered");
        };
        assert!(closed.used <= 33, "{closed:?}");
        let memory = liar.memory.take().unwrap();
        drop(liar);
        wait_for("the pages are given back", Duration::from_secs(5), || {
            // But for the two pages of words, should the last commit have come after.
            (rustix::fs::fstat(&memory).unwrap().st_blocks <= 16).then_some(())
        });
        siege.end("frames after the close", 0.7);
    }

    #[test]
    fn messages_out_of_order_change_nothing() {
        let siege = Siege::begin("");
        let mut liar = Liar::session(&siege.daemon, "bad");
        for _ in 0..5 {
            match liar.ask(&Request::Open(open_request("bad"))) {
                Some(Reply::Refused(refused)) => assert_eq!(refused.code, RefusalCode::OutOfOrder),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(
            liar.ask(&Request::Close {}),
            Some(Reply::Closed(_))
        ));
        match liar.ask(&Request::Close {}) {
            Some(Reply::Refused(refused)) => assert_eq!(refused.code, RefusalCode::OutOfOrder),
            other => panic!("{other:?}"),
        }
        drop(liar);
        siege.end("messages out of order", 0.7);
    }

    #[test]
    fn a_flood_of_messages_ends_its_own_connection() {
        let siege = Siege::begin("");
        let until = Instant::now() + Duration::from_secs(3);
        let mut floods = 0;
        while Instant::now() < until {
            let mut liar = Liar::connect(&siege.daemon);
            for _ in 0..200 {
                if !liar.say(b"{\"type\":\"status\"}\n") {
                    break;
                }
            }
            match liar.last_reply(Duration::from_secs(8)) {
                Some(Reply::Refused(refused)) => {
                    assert_eq!(refused.code, RefusalCode::OutOfResources, "{refused:?}");
                    assert!(
                        refused.message.contains("messages_per_second"),
                        "{refused:?}"
                    );
                }
                // The refusal may have met a closed ear.
                Some(Reply::Status { .. }) | None => {}
                other => panic!("{other:?}"),
            }
            floods += 1;
        }
        eprintln!("{floods} floods");
        assert!(
            siege.daemon.log().lines().count() < 500,
            "the log is not flooded"
        );
        siege.end("a flood of messages", 0.8);
    }

    #[test]
    fn half_messages_and_endless_ones_end() {
        let siege = Siege::begin("idle_timeout = \"1s\"\nmessage_bytes = \"2KiB\"");
        let mut waiting: Vec<Liar> = (0..60)
            .map(|_| {
                let mut liar = Liar::connect(&siege.daemon);
                assert!(liar.say(b"{\"type\":\"open\",\"protocol\":1,"));
                liar
            })
            .collect();
        let mut endless = Liar::connect(&siege.daemon);
        let _ = endless.say(&[b'x'; 4096]);
        let limits = [(&mut endless, "message_bytes")];
        let all = waiting.iter_mut().map(|liar| (liar, "idle_timeout"));
        for (liar, limit) in limits.into_iter().chain(all) {
            match liar.last_reply(Duration::from_secs(5)) {
                Some(Reply::Refused(refused)) => {
                    assert_eq!(refused.code, RefusalCode::BadRequest);
                    assert!(refused.message.contains(limit), "{refused:?}");
                }
                other => panic!("{limit}: {other:?}"),
            }
        }
        siege.end("half messages", 0.7);
    }

    #[test]
    fn descriptors_that_nobody_asked_for_are_closed() {
        let siege = Siege::begin("messages_per_second = 10000");
        let mut liar = Liar::session(&siege.daemon, "bad");
        let file = tempfile::tempfile().unwrap();
        let fds = [file.as_fd(); 100];
        for _ in 0..100 {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            let line = [IoSlice::new(b"{\"type\":\"status\"}\n")];
            sendmsg(&liar.socket, &line, &mut control, SendFlags::NOSIGNAL).unwrap();
            // Once answered, the message has been read; who never reads is given up after a while.
            let answer = liar.reply(Duration::from_secs(5));
            assert!(matches!(answer, Some(Reply::Status { .. })), "{answer:?}");
            assert!(Held::by(&siege.daemon).descriptors <= siege.held.descriptors + 8);
        }
        drop(liar);
        siege.end("descriptors", 0.8);
    }

    #[test]
    fn a_thousand_sessions_are_not_had() {
        let siege = Siege::begin("sessions_per_user = 8\nsessions_per_second = 5");
        let mut liars = Vec::new();
        let mut refused = std::collections::BTreeMap::new();
        for _ in 0..1000 {
            let mut liar = Liar::connect(&siege.daemon);
            match liar.ask(&Request::Open(open_request("bad"))) {
                Some(Reply::Opened(_)) => {}
                Some(Reply::Refused(said)) => {
                    assert_eq!(said.code, RefusalCode::OutOfResources, "{said:?}");
                    let key = said.message.split("[limits] ").nth(1).map(str::to_owned);
                    *refused.entry(key.expect("it names the limit")).or_insert(0) += 1;
                }
                other => panic!("{other:?}"),
            }
            liars.push(liar);
            if liars.len() == 20 {
                // The first ones' rings go, so that it is their pace that counts from here.
                std::thread::sleep(4 * TICK);
            }
        }
        eprintln!("refused: {refused:?}");
        assert!(refused.contains_key("connections_per_user"), "{refused:?}");
        assert!(refused.contains_key("sessions_per_second"), "{refused:?}");
        let held = Held::by(&siege.daemon);
        assert!(
            held.descriptors <= siege.held.descriptors + 128 + 20,
            "{held:?}"
        );
        drop(liars);
        siege.end("a thousand sessions", 0.7);
    }

    #[test]
    fn memory_beyond_the_limits_is_refused_and_hoarded_memory_is_taken_back() {
        let siege = Siege::begin("memory_per_session = \"8MiB\"\nsessions_per_second = 1000");
        let mut liar = Liar::connect(&siege.daemon);
        let mut large = open_request("bad");
        (large.width, large.height) = (1920, 1080);
        match liar.ask(&Request::Open(large)) {
            Some(Reply::Refused(refused)) => {
                assert_eq!(refused.code, RefusalCode::OutOfResources);
                assert!(
                    refused.message.contains("memory_per_session"),
                    "{refused:?}"
                );
            }
            other => panic!("{other:?}"),
        }
        let hoard: Vec<_> = (0..100)
            .map(|_| Liar::session(&siege.daemon, "bad").memory.unwrap())
            .collect();
        wait_for("every page is given back", Duration::from_secs(5), || {
            let kept = hoard
                .iter()
                .map(|fd| rustix::fs::fstat(fd).unwrap().st_blocks);
            (kept.sum::<i64>() == 0).then_some(())
        });
        drop(liar);
        siege.end("hoarded memory", 0.7);
    }

    #[test]
    fn who_reads_no_replies_is_dropped_and_keeps_no_stream() {
        let siege = Siege::begin("messages_per_second = 10000");
        let mut liar = Liar::session(&siege.daemon, "bad");
        liar.socket.set_nonblocking(true).unwrap();
        let said = Instant::now();
        let dropped = wait_for("the daemon gives up on it", Duration::from_secs(15), || {
            for _ in 0..100 {
                match std::io::Write::write(&mut liar.socket, b"{\"type\":\"status\"}\n") {
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
                    Err(error) => return Some(error),
                }
            }
            None
        });
        eprintln!("dropped after {:?}: {dropped}", said.elapsed());
        free(&siege.daemon);
        siege.end("unread replies", 0.8);
    }

    fn encoders_started(siege: &Siege) -> usize {
        let log = siege.daemon.log();
        let started = |line: &&str| line.contains("encoder started stream=bad");
        log.lines().filter(started).count()
    }

    #[test]
    fn frames_are_as_large_as_the_limit_at_most_and_cost_what_it_allows() {
        let siege = Siege::begin("");
        let mut open = open_request("bad");
        (open.format, open.slots) = ("nv12".to_owned(), Some(3));
        (open.width, open.height) = (7280, 4000);
        match Liar::connect(&siege.daemon).ask(&Request::Open(open.clone())) {
            Some(Reply::Refused(refused)) => {
                assert_eq!(refused.code, RefusalCode::BadSize, "{refused:?}");
                assert!(refused.message.contains("frame_pixels"), "{refused:?}");
            }
            other => panic!("{other:?}"),
        }
        // The largest that is allowed, for a rendition of 320x180.
        (open.width, open.height) = (4096, 2160);
        let liar = Liar::session_of(&siege.daemon, open);
        for sequence in 1..=100 {
            liar.commit(sequence % 3, sequence);
            std::thread::sleep(TICK);
        }
        // What is kept for an encoder that has just started, and for its death: 2.5 s and 500 ms of pictures of 13 MiB.
        let picture_kb = 4096 * 2160 * 3 / 2 / 1024;
        let peak = siege.peak_grew_by_kb();
        eprintln!("its memory grew by {peak} kB at most");
        assert!(peak < 100 * picture_kb, "its memory grew by {peak} kB");
        drop(liar);
        // The stream shows its last picture until another comes.
        let liar = Liar::session(&siege.daemon, "bad");
        let before = siege.daemon.stream("bad").ticks.fresh;
        liar.commit(0, 1);
        wait_for("a small one is taken", Duration::from_secs(5), || {
            (siege.daemon.stream("bad").ticks.fresh > before).then_some(())
        });
        drop(liar);
        siege.end("the largest frames", 0.7);
    }

    #[test]
    fn a_size_that_changes_with_each_session_starts_few_encoders() {
        let siege = Siege::begin("sessions_per_second = 1000");
        let before = encoders_started(&siege);
        let mut refused = 0;
        for session in 0..60 {
            let mut open = open_request("bad");
            open.width += 2 * (session % 2);
            let mut liar = Liar::connect(&siege.daemon);
            match liar.ask(&Request::Open(open)) {
                Some(Reply::Opened(_)) => {
                    liar.commit(0, 1);
                    std::thread::sleep(4 * TICK);
                }
                Some(Reply::Refused(said)) => {
                    assert_eq!(said.code, RefusalCode::OutOfResources, "{said:?}");
                    assert!(said.message.contains("changed their size"), "{said:?}");
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        // After six changes, only those of the size that the last one brought are let in.
        assert_eq!(refused, 27);
        let started = encoders_started(&siege) - before;
        eprintln!("{started} encoders were started, {refused} sessions refused");
        // Six changes; the slate between two sessions has the size of the pictures before.
        assert!(started <= 7, "{started} encoders were started");
        siege.end("changing sizes", 0.7);
    }

    #[test]
    fn sessions_without_end_do_not_fill_the_log() {
        let siege = Siege::begin("sessions_per_second = 1000\nsessions_per_user = 16");
        let before = siege.daemon.log().lines().count();
        for _ in 0..200 {
            drop(Liar::session(&siege.daemon, "bad"));
            std::thread::sleep(TICK / 2);
        }
        let lines = siege.daemon.log().lines().count() - before;
        eprintln!("{lines} lines for 200 sessions");
        // Begin and end of the first 16, and of one in 3 s.
        assert!((20..=60).contains(&lines), "{}", siege.daemon.log());
        siege.end("sessions without end", 0.8);
    }
}
