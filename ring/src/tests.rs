//! The ring as a whole: against a model, against a writer in another thread, and against a writer that lies.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use crate::format::{FrameFormat, PixelFormat};
use crate::layout::{COMMITTED, Layout, Policy, SLOT_HEADERS, VERSION};
use crate::memory::{MemoryKind, RingMemory};
use crate::slots::{SlotWord, State, Words};
use crate::{Captured, Deadline, Reader, RingError, Writer, sweep_leftovers};

fn pair(format: &FrameFormat, slots: u32) -> (Reader, Writer) {
    let memory = RingMemory::create(format, slots).unwrap();
    let fd = memory.fd().try_clone_to_owned().unwrap();
    let bytes = memory.bytes() as u64;
    let writer = Writer::from_fd(fd, format, bytes, slots).unwrap();
    (Reader::new(memory), writer)
}

fn pair_as(kind: MemoryKind, policy: Policy, format: &FrameFormat, slots: u32) -> (Reader, Writer) {
    let memory = RingMemory::create_as(kind, policy, format, slots).unwrap();
    let bytes = memory.bytes() as u64;
    let writer = match memory.name() {
        Some(name) => Writer::open_named(name, format, bytes, slots),
        None => {
            let fd = memory.fd().try_clone_to_owned().unwrap();
            Writer::from_fd(fd, format, bytes, slots)
        }
    };
    (Reader::new(memory), writer.unwrap())
}

/// A deadline that no test that goes well meets.
fn long() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn small() -> FrameFormat {
    FrameFormat::packed(PixelFormat::Gray, 64, 48).unwrap()
}

fn put(writer: &mut Writer, value: u8) -> u64 {
    let mut slot = writer.begin().unwrap();
    slot.bytes_mut().fill(value);
    slot.commit(u64::from(value), Some(Captured(1000 + u64::from(value))))
}

#[test]
fn a_frame_arrives_with_its_number_and_time() {
    let (mut reader, mut writer) = pair(&small(), 2);
    assert!(reader.take_oldest().unwrap().is_none());
    assert_eq!(put(&mut writer, 7), 1);
    let taken = reader.take_oldest().unwrap().unwrap();
    assert_eq!((taken.sequence(), taken.frame_number()), (1, 7));
    assert_eq!(taken.captured(), Some(Captured(1007)));
    let mut rows = [0; 64 * 48];
    taken.copy_rows(0, 0, 48, &mut rows).unwrap();
    assert!(rows.iter().all(|&byte| byte == 7));
    drop(taken);
    assert!(reader.take_oldest().unwrap().is_none());
    assert_eq!(reader.committed().unwrap(), 1);
}

#[test]
fn a_full_ring_gives_back_the_oldest_frame() {
    let (mut reader, mut writer) = pair(&small(), 3);
    for value in 1..=5 {
        put(&mut writer, value);
    }
    let ready = reader.ready().unwrap();
    let sequences: Vec<_> = ready.iter().map(|slot| slot.sequence).collect();
    assert_eq!(sequences, [3, 4, 5]);
    assert_eq!((writer.superseded(), reader.superseded().unwrap()), (2, 2));
    assert!(reader.skip(ready[0]) && !reader.skip(ready[0]));
    put(&mut writer, 6);
    assert_eq!(
        writer.superseded(),
        2,
        "the skipped frame's slot was free again"
    );
    assert_eq!(reader.take(ready[2]).unwrap().frame_number(), 5);
    assert!(
        reader.take(ready[0]).is_none(),
        "a frame that is gone can't be taken"
    );
}

#[test]
fn a_slot_dropped_uncommitted_is_free_again() {
    let (mut reader, mut writer) = pair(&small(), 2);
    put(&mut writer, 1);
    writer.begin().unwrap().bytes_mut().fill(99);
    assert_eq!(put(&mut writer, 2), 2);
    let ready = reader.ready().unwrap();
    assert_eq!(
        ready.iter().map(|s| s.frame_number).collect::<Vec<_>>(),
        [1, 2]
    );
}

#[test]
fn a_parked_slot_goes_on_in_its_own_ring_alone() {
    let (mut reader, mut writer) = pair(&small(), 3);
    let (_other_reader, mut other) = pair(&small(), 3);
    let parked = writer.begin().unwrap().park();
    let memory = parked.memory().clone();
    assert_eq!(memory.bytes(), 64 * 48);
    assert_eq!(put(&mut writer, 1), 1, "others are committed meanwhile");
    let mut slot = writer.resume(parked).unwrap();
    let bytes = slot.bytes_mut();
    assert_eq!(bytes.as_ptr().addr(), memory.address());
    bytes.fill(2);
    assert_eq!(slot.commit(2, None), 2);
    for expected in [1, 2] {
        let taken = reader.take_oldest().unwrap().unwrap();
        let mut row = [0; 64];
        taken.copy_rows(0, 0, 1, &mut row).unwrap();
        assert_eq!((taken.frame_number(), row), (expected, [row[0]; 64]));
        assert_eq!(u64::from(row[0]), expected);
    }
    let parked = writer.begin().unwrap().park();
    assert!(other.resume(parked).is_none());
}

#[test]
fn a_slot_being_read_is_never_given_back() {
    let (mut reader, mut writer) = pair(&small(), 2);
    put(&mut writer, 1);
    let taken = reader.take_oldest().unwrap().unwrap();
    for value in 2..=9 {
        put(&mut writer, value);
    }
    let mut row = [0; 64];
    taken.copy_rows(0, 47, 1, &mut row).unwrap();
    assert_eq!(row, [1; 64]);
    drop(taken);
    assert_eq!(reader.take_oldest().unwrap().unwrap().frame_number(), 9);
}

#[test]
fn strides_are_honoured_on_both_sides() {
    let format = FrameFormat::with_strides(PixelFormat::Yuv420p, 6, 4, &[16, 8, 5]).unwrap();
    let (mut reader, mut writer) = pair(&format, 2);
    let frame: Vec<u8> = (0..36).collect();
    let mut slot = writer.begin().unwrap();
    slot.bytes_mut().fill(0xEE);
    slot.fill(&frame).unwrap();
    assert_eq!(
        &slot.bytes_mut()[16..24],
        &[6, 7, 8, 9, 10, 11, 0xEE, 0xEE],
        "the second row, then padding"
    );
    assert!(matches!(
        slot.fill(&frame[1..]),
        Err(RingError::FrameBytes {
            expected: 36,
            given: 35
        })
    ));
    assert!(matches!(
        slot.write_plane_rows(1, 1, &frame[..6]),
        Err(RingError::Rows { .. })
    ));
    slot.commit(1, None);
    let taken = reader.take_oldest().unwrap().unwrap();
    assert_eq!(taken.captured(), None);
    let mut read = vec![0; 36];
    taken.copy_rows(0, 0, 4, &mut read[..24]).unwrap();
    taken.copy_rows(1, 0, 2, &mut read[24..30]).unwrap();
    taken.copy_rows(2, 0, 2, &mut read[30..]).unwrap();
    assert_eq!(read, frame);
    for (plane, first, rows, bytes) in [
        (3, 0, 1, 3),
        (1, 1, 2, 6),
        (1, 0, 2, 7),
        (0, usize::MAX, 2, 12),
    ] {
        let mut target = vec![0; bytes];
        assert!(matches!(
            taken.copy_rows(plane, first, rows, &mut target),
            Err(RingError::Rows { .. })
        ));
    }
}

/// What a frame of number `number` holds: words that each depend on the number and their place.
fn checked_pattern(number: u64, frame: &mut [u8]) {
    for (place, word) in frame.chunks_exact_mut(8).enumerate() {
        let value = (number ^ (place as u64) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        word.copy_from_slice(&value.to_le_bytes());
    }
}

#[test]
fn every_frame_read_under_a_hammering_writer_is_whole_and_newer() {
    const FRAMES: u64 = 60_000;
    for slots in [2, 3, 5] {
        let (mut reader, mut writer) = pair(&small(), slots);
        let done = Arc::new(AtomicBool::new(false));
        let finished = Arc::clone(&done);
        let hammer = std::thread::spawn(move || {
            for number in 0..FRAMES {
                let mut slot = writer.begin().unwrap();
                checked_pattern(number, slot.bytes_mut());
                if number % 97 == 0 {
                    continue; // dropped uncommitted now and then
                }
                slot.commit(number, Some(Captured(number + 1)));
            }
            finished.store(true, Ordering::Release);
            writer.superseded()
        });
        let (mut seen, mut last, mut skipped) = (0, (0, 0), 0);
        let (mut read, mut expected) = (vec![0; 64 * 48], vec![0; 64 * 48]);
        loop {
            let over = done.load(Ordering::Acquire);
            let ready = reader.ready().unwrap();
            for pair in ready.windows(2) {
                assert!(pair[0].sequence < pair[1].sequence);
                assert!(pair[0].frame_number < pair[1].frame_number);
            }
            // Each third look takes the newest, as ingest may.
            if seen % 3 == 2 && ready.len() > 1 {
                skipped += ready[..ready.len() - 1]
                    .iter()
                    .filter(|&&old| reader.skip(old))
                    .count() as u64;
            }
            let Some(taken) = reader.take_oldest().unwrap() else {
                if over {
                    break;
                }
                std::hint::spin_loop();
                continue;
            };
            let now = (taken.sequence(), taken.frame_number());
            assert!(now.0 > last.0 && now.1 > last.1, "{now:?} after {last:?}");
            assert_eq!(taken.captured(), Some(Captured(now.1 + 1)));
            taken.copy_rows(0, 0, 48, &mut read).unwrap();
            checked_pattern(now.1, &mut expected);
            assert!(read == expected, "frame {} is torn", now.1);
            last = now;
            seen += 1;
        }
        let superseded = hammer.join().unwrap();
        assert_eq!(reader.superseded().unwrap(), superseded);
        assert_eq!(reader.committed().unwrap(), seen + skipped + superseded);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Commit,
    Abandon,
    TakeOldest,
    TakeNewest,
    SkipOldest,
    Look,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Commit),
        1 => Just(Step::Abandon),
        2 => Just(Step::TakeOldest),
        1 => Just(Step::TakeNewest),
        1 => Just(Step::SkipOldest),
        1 => Just(Step::Look),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_ring_is_a_queue_that_loses_its_oldest_or_nothing(
        slots in 2_u32..=6, steps in steps(), named: bool, lossless: bool
    ) {
        let kind = if named { MemoryKind::Named } else { MemoryKind::Memfd };
        let policy = if lossless { Policy::Lossless } else { Policy::Latest };
        let format = FrameFormat::packed(PixelFormat::Gray, 8, 2).unwrap();
        let (mut reader, mut writer) = pair_as(kind, policy, &format, slots);
        let mut model: VecDeque<u64> = VecDeque::new();
        let (mut committed, mut superseded) = (0, 0);
        for step in steps {
            reader.ready().unwrap();
            match step {
                Step::Commit | Step::Abandon => {
                    if lossless && model.len() == slots as usize {
                        prop_assert_eq!(writer.begin().unwrap_err(), RingError::Full { slots });
                        prop_assert!(!writer.wait_for_room(Deadline(0)).unwrap());
                        continue;
                    }
                    if model.len() == slots as usize {
                        model.pop_front();
                        superseded += 1;
                    }
                    let slot = writer.begin().unwrap();
                    if matches!(step, Step::Commit) {
                        committed += 1;
                        model.push_back(committed);
                        prop_assert_eq!(slot.commit(committed, None), committed);
                    }
                }
                Step::TakeOldest => {
                    let taken = reader.take_oldest().unwrap().map(|taken| taken.sequence());
                    prop_assert_eq!(taken, model.pop_front());
                }
                Step::TakeNewest => {
                    let newest = reader.ready().unwrap().last().copied();
                    let taken = newest.map(|newest| reader.take(newest).unwrap().frame_number());
                    prop_assert_eq!(taken, model.pop_back());
                }
                Step::SkipOldest => {
                    let oldest = reader.ready().unwrap().first().copied();
                    prop_assert_eq!(oldest.map(|slot| slot.sequence), model.pop_front());
                    prop_assert!(oldest.is_none_or(|slot| reader.skip(slot)));
                }
                Step::Look => {
                    // What was there at the last look is no news.
                    prop_assert!(!reader.wait(Deadline(0)).unwrap());
                }
            }
            let ready: Vec<_> = reader.ready().unwrap().iter().map(|slot| slot.sequence).collect();
            prop_assert_eq!(ready, model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(reader.committed().unwrap(), committed);
            prop_assert_eq!(reader.superseded().unwrap(), superseded);
        }
    }

    #[test]
    fn no_words_make_the_reader_panic_or_leave_its_slots(words in prop::collection::vec(any::<u64>(), 16)) {
        let (mut reader, _writer) = pair(&FrameFormat::packed(PixelFormat::Gray, 8, 2).unwrap(), 4);
        for round in words.chunks_exact(8) {
            let ring = &reader.memory().mapped;
            for (slot, word) in (0..4).zip(round) {
                // Small numbers too, or nothing would ever look possible.
                let word = if word % 2 == 0 { word >> 58 } else { *word };
                ring.word(slot).store(word, Ordering::Relaxed);
            }
            ring.committed().store(round[4] >> (round[5] % 64), Ordering::Relaxed);
            ring.superseded().store(round[6] >> (round[7] % 64), Ordering::Relaxed);
            if let Ok(ready) = reader.ready() {
                prop_assert!(ready.len() <= 4);
            }
            let _ = reader.take_oldest();
        }
    }
}

/// Sets one slot's word and the counters, and looks.
fn look(slot: u32, word: SlotWord, committed: u64) -> RingError {
    let (mut reader, mut writer) = pair(&small(), 3);
    put(&mut writer, 1);
    drop(reader.take_oldest().unwrap().unwrap());
    put(&mut writer, 2); // sequence 2, in slot 0 again
    let ring = &reader.memory().mapped;
    ring.word(slot).store(word.0, Ordering::Relaxed);
    ring.committed().store(committed, Ordering::Relaxed);
    let error = reader.ready().unwrap_err();
    assert_eq!(reader.take_oldest().unwrap_err(), error);
    error
}

#[test]
fn each_impossible_word_is_its_own_error() {
    let ready = |sequence| SlotWord::new(sequence, State::Ready);
    assert_eq!(
        look(1, ready(0), 2),
        RingError::SequenceZero {
            slot: 1,
            state: "ready"
        }
    );
    let writing = SlotWord::new(0, State::Writing);
    assert_eq!(
        look(1, writing, 2),
        RingError::SequenceZero {
            slot: 1,
            state: "writing"
        }
    );
    assert_eq!(
        look(1, ready(9), 7),
        RingError::SequenceAhead {
            slot: 1,
            sequence: 9,
            committed: 7
        }
    );
    assert_eq!(
        look(0, ready(1), 2),
        RingError::SequenceBack {
            slot: 0,
            sequence: 1,
            last: 1
        }
    );
    assert_eq!(
        look(2, ready(2), 2),
        RingError::SequenceTwice {
            first: 0,
            second: 2,
            sequence: 2
        }
    );
    let reading = SlotWord::new(2, State::Reading);
    assert_eq!(look(0, reading, 2), RingError::NotReading { slot: 0 });
    assert_eq!(
        look(1, SlotWord(0), 0),
        RingError::CounterBack {
            counter: "committed",
            before: 1,
            now: 0
        }
    );
}

#[test]
fn counters_that_lie_are_errors() {
    let (mut reader, mut writer) = pair(&small(), 2);
    put(&mut writer, 1);
    let superseded = |reader: &Reader, value| {
        reader
            .memory()
            .mapped
            .superseded()
            .store(value, Ordering::Relaxed);
    };
    superseded(&reader, 2);
    assert_eq!(
        reader.committed().unwrap_err(),
        RingError::SupersededAhead {
            superseded: 2,
            committed: 1
        }
    );
    superseded(&reader, 1);
    assert_eq!(
        reader.superseded().unwrap_err(),
        RingError::CounterBack {
            counter: "superseded",
            before: 2,
            now: 1
        }
    );
}

#[test]
fn a_ring_can_neither_shrink_nor_grow_nor_be_unsealed() {
    let memory = RingMemory::create(&small(), 2).unwrap();
    let bytes = memory.bytes() as u64;
    assert!(rustix::fs::ftruncate(memory.fd(), bytes - 1).is_err());
    assert!(rustix::fs::ftruncate(memory.fd(), bytes + 1).is_err());
    assert!(rustix::fs::fcntl_add_seals(memory.fd(), rustix::fs::SealFlags::WRITE).is_err());
    assert!(
        rustix::io::fcntl_getfd(memory.fd())
            .unwrap()
            .contains(rustix::io::FdFlags::CLOEXEC)
    );
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut version = release
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (version.next().unwrap_or(0), version.next().unwrap_or(0));
    if version >= (6, 3) {
        let path = format!("/proc/self/fd/{}", memory.fd().as_raw_fd());
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0, "it can't be executed");
    }
}

/// A memfd's seals keep it from being cut short, and no page of it can be made unavailable without hurting the whole machine: so this one
/// is not sealed, and cut short.
#[test]
fn a_memfd_whose_pages_are_gone_is_an_error_and_no_signal() {
    for left in [0, 8192] {
        let layout = Layout::new(&small(), 3).unwrap();
        let fd = rustix::fs::memfd_create("ringgear-test", rustix::fs::MemfdFlags::CLOEXEC);
        let fd = fd.unwrap();
        rustix::fs::ftruncate(&fd, layout.bytes() as u64).unwrap();
        let mut reader = Reader::new(RingMemory::unsealed(fd, layout));
        // As a commit would leave them.
        let memory = reader.memory();
        rustix::io::pwrite(memory.fd(), &6u64.to_le_bytes(), SLOT_HEADERS as u64).unwrap();
        rustix::io::pwrite(memory.fd(), &1u64.to_le_bytes(), COMMITTED as u64).unwrap();
        let cut = memory.fd().try_clone_to_owned().unwrap();
        let taken = reader.take_oldest().unwrap().unwrap();
        rustix::fs::ftruncate(&cut, left).unwrap();
        let mut rows = [1; 64 * 48];
        assert_eq!(
            taken.copy_rows(0, 0, 48, &mut rows),
            Err(RingError::Truncated)
        );
        // It gives the slot back, which writes a word.
        drop(taken);
        assert_eq!(reader.ready().unwrap_err(), RingError::Truncated);
    }
}

#[test]
fn a_writer_checks_what_it_is_handed() {
    let format = small();
    let bytes = Layout::new(&format, 2).unwrap().bytes() as u64;
    let unsealed = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&unsealed, bytes).unwrap();
    assert_eq!(
        Writer::from_fd(unsealed, &format, bytes, 2).unwrap_err(),
        RingError::NotSealed { found: 0 }
    );
    let memory = RingMemory::create(&format, 2).unwrap();
    let fd = || memory.fd().as_fd().try_clone_to_owned().unwrap();
    assert_eq!(
        Writer::from_fd(fd(), &format, bytes + 4096, 2).unwrap_err(),
        RingError::Size {
            expected: bytes,
            found: bytes + 4096
        }
    );
    let expected = Layout::new(&format, 3).unwrap().bytes() as u64;
    assert_eq!(
        Writer::from_fd(fd(), &format, expected, 3).unwrap_err(),
        RingError::Size {
            expected,
            found: bytes
        }
    );
    // Every fixed word, one after the other.
    for word in memory.mapped.layout.header_words() {
        let there = memory.mapped.mapping.word(word.offset);
        there.store(word.value ^ 1 << 33, Ordering::Relaxed);
        let error = Writer::from_fd(fd(), &format, bytes, 2).unwrap_err();
        assert!(
            matches!(error, RingError::Header { word: name, .. } if name == word.name),
            "{error}"
        );
        there.store(word.value, Ordering::Relaxed);
    }
    assert_eq!(
        memory.mapped.mapping.word(8).load(Ordering::Relaxed),
        VERSION
    );
    assert!(Writer::from_fd(fd(), &format, bytes, 2).is_ok());
}

#[test]
fn a_commit_wakes_a_reader_that_sleeps() {
    let (mut reader, mut writer) = pair(&small(), 3);
    assert!(
        !reader
            .wait(Deadline::after(Duration::from_millis(5)))
            .unwrap()
    );
    put(&mut writer, 1);
    assert!(
        reader.wait(Deadline(0)).unwrap(),
        "what is there needs no sleep"
    );
    drop(reader.take_oldest().unwrap().unwrap());
    let waits = Arc::new(AtomicBool::new(false));
    let about_to = Arc::clone(&waits);
    let sleeper = std::thread::spawn(move || {
        about_to.store(true, Ordering::Release);
        assert!(reader.wait(long()).unwrap());
        assert_eq!(reader.take_oldest().unwrap().unwrap().frame_number(), 2);
    });
    while !waits.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    put(&mut writer, 2);
    sleeper.join().unwrap();
}

#[test]
fn a_lossless_ring_loses_nothing_whichever_side_is_slow() {
    const FRAMES: u64 = 20_000;
    for kind in [MemoryKind::Memfd, MemoryKind::Named] {
        let (mut reader, mut writer) = pair_as(kind, Policy::Lossless, &small(), 3);
        assert_eq!(writer.policy(), Policy::Lossless);
        let hammer = std::thread::spawn(move || {
            for number in 1..=FRAMES {
                assert!(writer.wait_for_room(long()).unwrap());
                let mut slot = writer.begin().unwrap();
                checked_pattern(number, slot.bytes_mut());
                slot.commit(number, None);
            }
            writer
        });
        let (mut read, mut expected) = (vec![0; 64 * 48], vec![0; 64 * 48]);
        let mut next = 1;
        while next <= FRAMES {
            let Some(taken) = reader.take_oldest().unwrap() else {
                assert!(reader.wait(long()).unwrap());
                continue;
            };
            assert_eq!(taken.frame_number(), next);
            taken.copy_rows(0, 0, 48, &mut read).unwrap();
            checked_pattern(next, &mut expected);
            assert!(read == expected, "frame {next} is torn");
            next += 1;
        }
        let mut writer = hammer.join().unwrap();
        for value in 1..=3 {
            put(&mut writer, value);
        }
        let soon = Deadline::after(Duration::from_millis(5));
        assert!(
            !writer.wait_for_room(soon).unwrap(),
            "full, and nobody reads"
        );
        assert_eq!(reader.superseded().unwrap(), 0);
    }
}

#[test]
fn who_steals_from_a_lossless_ring_breaks_it() {
    let (mut reader, mut writer) = pair_as(MemoryKind::Memfd, Policy::Lossless, &small(), 2);
    put(&mut writer, 1);
    let ring = &reader.memory().mapped;
    ring.superseded().store(1, Ordering::Relaxed);
    assert_eq!(
        reader.ready().unwrap_err(),
        RingError::StolenBack { superseded: 1 }
    );
}

fn named(slots: u32) -> (Reader, Writer, std::path::PathBuf) {
    let (reader, writer) = pair_as(MemoryKind::Named, Policy::Latest, &small(), slots);
    let path = std::path::Path::new("/dev/shm").join(reader.memory().name().unwrap());
    (reader, writer, path)
}

/// Another process cuts the file to `bytes`.
fn truncate(path: &std::path::Path, bytes: usize) {
    let size = format!("--size={bytes}");
    let status = Command::new("truncate").arg(size).arg(path).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_ring_whose_words_are_cut_off_is_an_error_and_no_signal() {
    let (mut reader, mut writer, path) = named(3);
    put(&mut writer, 1);
    put(&mut writer, 2);
    let taken = reader.take_oldest().unwrap().unwrap();
    truncate(&path, 0);
    let mut rows = [0; 64 * 48];
    assert_eq!(
        taken.copy_rows(0, 0, 48, &mut rows),
        Err(RingError::Truncated)
    );
    drop(taken);
    assert_eq!(reader.ready().unwrap_err(), RingError::Truncated);
    assert_eq!(reader.take_oldest().unwrap_err(), RingError::Truncated);
    assert_eq!(reader.committed().unwrap_err(), RingError::Truncated);
    assert_eq!(reader.wait(long()).unwrap_err(), RingError::Truncated);
    // One that never had a frame, and one that sleeps.
    let (mut reader, _writer, path) = named(2);
    truncate(&path, 0);
    assert_eq!(reader.wait(long()).unwrap_err(), RingError::Truncated);
    // Others go on.
    let (mut reader, mut writer, _path) = named(2);
    put(&mut writer, 3);
    assert_eq!(reader.take_oldest().unwrap().unwrap().frame_number(), 3);
}

#[test]
fn a_ring_whose_pixels_are_cut_off_is_an_error() {
    let (mut reader, mut writer, path) = named(2);
    put(&mut writer, 1);
    truncate(&path, 8192);
    let taken = reader.take_oldest().unwrap().unwrap();
    let mut rows = [0; 64 * 48];
    assert_eq!(
        taken.copy_rows(0, 0, 48, &mut rows),
        Err(RingError::Truncated)
    );
}

#[test]
fn a_bus_error_elsewhere_still_ends_the_process() {
    const ELSEWHERE: &str = "RINGGEAR_TEST_BUS_ERROR";
    if std::env::var_os(ELSEWHERE).is_some() {
        let (_reader, mut writer, path) = named(2);
        truncate(&path, 0);
        // The writer's own mapping is not watched over.
        writer.begin().unwrap().bytes_mut().fill(1);
        unreachable!("the write went nowhere");
    }
    let me = std::env::current_exe().unwrap();
    let mut again = Command::new(me);
    again.args([
        "--exact",
        "tests::a_bus_error_elsewhere_still_ends_the_process",
    ]);
    let output = again.env(ELSEWHERE, "1").output().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert_eq!(signal, Some(libc::SIGBUS), "{output:?}");
    // It had no time to tidy up after itself.
    assert!(sweep_leftovers().unwrap() >= 1);
}

#[test]
fn names_go_with_their_rings_and_what_the_dead_left_is_swept() {
    let (reader, _writer, path) = named(2);
    assert!(path.exists());
    sweep_leftovers().unwrap();
    assert!(path.exists(), "its maker lives");
    drop(reader);
    assert!(!path.exists());
    let left = std::path::Path::new("/dev/shm").join(format!("ringgear-0-{}", std::process::id()));
    std::fs::write(&left, b"left by a daemon that was killed").unwrap();
    sweep_leftovers().unwrap();
    assert!(!left.exists());
}

#[test]
fn only_rings_are_opened_by_name() {
    let bytes = Layout::new(&small(), 2).unwrap().bytes() as u64;
    let open = |name: &str| Writer::open_named(name, &small(), bytes, 2).unwrap_err();
    for name in ["", "x", "/etc/passwd", "ringgear-/../x", "ringgear-no-such"] {
        assert!(matches!(open(name), RingError::NotARing { .. }), "{name}");
    }
    let (reader, _writer, _path) = named(3);
    let found = open(reader.memory().name().unwrap());
    assert!(matches!(found, RingError::Size { .. }), "{found}");
}

#[test]
fn a_full_dev_shm_is_a_refusal() {
    const FULL: &str = "RINGGEAR_TEST_FULL_SHM";
    let name = "tests::a_full_dev_shm_is_a_refusal";
    if std::env::var_os(FULL).is_some() {
        let format = FrameFormat::packed(PixelFormat::Bgr24, 1280, 720).unwrap();
        let create = || RingMemory::create_as(MemoryKind::Named, Policy::Latest, &format, 2);
        assert!(matches!(create(), Err(RingError::NoRoom { .. })));
        let left = std::fs::read_dir("/dev/shm").unwrap().count();
        assert_eq!(left, 0, "a refused ring leaves nothing");
        return;
    }
    // A /dev/shm of this process's own, where the system lets one have that.
    let mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm";
    let unshare = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", command]);
        unshare
    };
    if !unshare(mount).status().is_ok_and(|status| status.success()) {
        eprintln!("not tested: this system gives no mount namespace");
        return;
    }
    let me = std::env::current_exe().unwrap();
    let command = format!("{mount} && exec '{}' --exact {name}", me.display());
    let output = unshare(&command).env(FULL, "1").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

mod sound {
    use super::*;
    use crate::layout::{SLOT_BLOCK_BYTES, SlotFormat as _};
    use crate::sound::{SampleFormat, SoundFormat};

    fn sound_pair(slots: u32) -> (Reader<SoundFormat>, Writer<SoundFormat>) {
        let format = SoundFormat::new(SampleFormat::S16le, 8000, 3).unwrap();
        let memory = RingMemory::create(&format, slots).unwrap();
        let fd = memory.fd().try_clone_to_owned().unwrap();
        let bytes = memory.bytes() as u64;
        let writer = Writer::from_fd(fd, &format, bytes, slots).unwrap();
        (Reader::new(memory), writer)
    }

    fn put_block(writer: &mut Writer<SoundFormat>, samples: &[u8], first: u64) -> u64 {
        let slot = writer.begin().unwrap();
        slot.commit_block(samples, first, Some(Captured(first + 5)))
            .unwrap()
    }

    #[test]
    fn a_block_arrives_with_its_length_first_sample_and_time() {
        let (mut reader, mut writer) = sound_pair(3);
        assert_eq!(put_block(&mut writer, &[7; 12], 100), 1);
        assert_eq!(put_block(&mut writer, &[8; 6], 102), 2);
        let mut block = vec![1; 99];
        for (bytes, first) in [([7_u8; 12].as_slice(), 100), (&[8; 6], 102)] {
            let taken = reader.take_oldest().unwrap().unwrap();
            assert_eq!(taken.frame_number(), first);
            assert_eq!(taken.captured(), Some(Captured(first + 5)));
            taken.copy_block(&mut block).unwrap();
            assert_eq!(block, bytes);
        }
        for first in 0..5 {
            put_block(&mut writer, &[9; 6], first);
        }
        assert_eq!(
            reader.superseded().unwrap(),
            2,
            "nobody waits for the daemon"
        );
        let taken = reader.take_oldest().unwrap().unwrap();
        assert_eq!(taken.frame_number(), 2);
    }

    #[test]
    fn a_block_of_no_or_too_many_bytes_or_of_half_a_sample_is_refused_on_both_sides() {
        let (mut reader, mut writer) = sound_pair(3);
        let most = reader.format().bytes();
        assert_eq!(most, 6000);
        for (bytes, uneven) in [(0, false), (most + 6, false), (7, true)] {
            let slot = writer.begin().unwrap();
            let error = slot.commit_block(&vec![0; bytes], 0, None).unwrap_err();
            assert_eq!(matches!(error, RingError::BlockUneven { .. }), uneven);
        }
        assert_eq!(writer.committed(), 0);
        for (lie, uneven) in [(0, false), (u64::MAX, false), (6001, false), (8, true)] {
            put_block(&mut writer, &[1; 6], 0);
            let ready = reader.ready().unwrap()[0];
            let layout = &reader.memory().mapped.layout;
            let at = layout.slot_header(ready.slot) + SLOT_BLOCK_BYTES;
            let word = reader.memory().mapped.mapping.word(at);
            word.store(lie, Ordering::Relaxed);
            let taken = reader.take(ready).unwrap();
            let error = taken.copy_block(&mut Vec::new()).unwrap_err();
            match error {
                RingError::BlockBytes { bytes, .. } => assert!(bytes == lie && !uneven),
                RingError::BlockUneven { bytes, sample, .. } => {
                    assert!(bytes == lie && sample == 6 && uneven);
                }
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn sound_of_another_format_is_no_ring_of_this_one() {
        let format = |rate, channels| SoundFormat::new(SampleFormat::F32le, rate, channels);
        let memory = RingMemory::create(&format(8000, 2).unwrap(), 2).unwrap();
        let bytes = memory.bytes() as u64;
        // The same size, but not the same sound.
        let wrong = SoundFormat::new(SampleFormat::S16le, 8000, 4).unwrap();
        let fd = memory.fd().try_clone_to_owned().unwrap();
        let error = Writer::from_fd(fd, &wrong, bytes, 2).unwrap_err();
        let word = "format";
        assert!(matches!(error, RingError::Header { word: found, .. } if found == word));
    }
}
