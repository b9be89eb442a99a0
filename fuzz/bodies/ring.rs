//! A producer that writes any words, cuts its memory short and punches holes into it, between any two steps of the daemon's reader. (What it does
//! during a step is what the ring's own tests are for: a model checker's, and threads that race.)

use ringgear_ring::format::{FrameFormat, PixelFormat};
use ringgear_ring::layout::{
    COMMITTED, Policy, SLOT_HEADER_BYTES, SLOT_HEADERS, SUPERSEDED, TAKEN,
};
use ringgear_ring::{Deadline, MemoryKind, Reader, RingMemory};
use rustix::fs::{FallocateFlags, fallocate, ftruncate};

const SLOTS: u8 = 4;
const SIDE: usize = 16;

/// One input: its first byte says what kind of ring it is about, the rest are steps.
pub fn run(bytes: &[u8]) {
    let Some((&ring, bytes)) = bytes.split_first() else {
        return;
    };
    let policy = [Policy::Latest, Policy::Lossless][usize::from(ring & 1)];
    let kind = [MemoryKind::Memfd, MemoryKind::Named][usize::from(ring >> 1 & 1)];
    let side = u32::try_from(SIDE).expect("a small number");
    let format = FrameFormat::packed(PixelFormat::Gray, side, side).expect("a possible format");
    let memory = RingMemory::create_as(kind, policy, &format, u32::from(SLOTS));
    let memory = memory.expect("a small ring");
    let whole = memory.bytes();
    let fd = memory
        .fd()
        .try_clone_to_owned()
        .expect("one more descriptor");
    let mut reader = Reader::new(memory);
    let mut pixels = [0; SIDE * SIDE];
    // Each step: what is done, where, and a value whose magnitude is as random as its digits.
    for step in bytes.chunks_exact(4) {
        let [what, place, low, high] = [step[0], step[1], step[2], step[3]];
        let value = u64::from(low) << (high & 63) | u64::from(high >> 6);
        let slot = SLOT_HEADERS + SLOT_HEADER_BYTES * usize::from(place % SLOTS);
        let offset = match what % 20 {
            0..=3 => slot,
            4 => slot + 8,
            5 => slot + 16,
            6 | 7 => COMMITTED,
            8 => SUPERSEDED,
            9 => TAKEN,
            10 => usize::from(place) * 8,
            11 => {
                if let Ok(Some(taken)) = reader.take_oldest() {
                    let _ = taken.copy_rows(0, 0, SIDE, &mut pixels);
                }
                continue;
            }
            12 => {
                if let Ok(ready) = reader.ready()
                    && let Some(oldest) = ready.first()
                {
                    reader.skip(*oldest);
                }
                continue;
            }
            13 => {
                let before = reader.committed();
                if let (Ok(before), Ok(after)) = (before, reader.committed()) {
                    assert!(before <= after);
                }
                continue;
            }
            14 => {
                if let Ok(ready) = reader.ready() {
                    assert!(
                        ready
                            .windows(2)
                            .all(|two| two[0].sequence < two[1].sequence)
                    );
                    assert!(ready.len() <= usize::from(SLOTS));
                    if let Some(newest) = ready.last()
                        && let Some(taken) = reader.take(*newest)
                    {
                        assert_eq!(taken.sequence(), newest.sequence);
                        // Out of range in every way is refused, never read.
                        let rows = usize::from(low);
                        let _ = taken.copy_rows(
                            usize::from(place),
                            rows,
                            usize::from(high),
                            &mut pixels,
                        );
                        let _ = taken.copy_rows(0, usize::MAX, rows, &mut pixels[..rows]);
                    }
                }
                continue;
            }
            15 => {
                let _ = reader.superseded();
                continue;
            }
            16 => {
                // Its deadline is over, so it looks and does not sleep.
                let _ = reader.wait(Deadline(0));
                continue;
            }
            17 => {
                // A memfd's seals forbid it, but for the length that it has.
                let bytes = (usize::from(place) * 256 + usize::from(low)).min(whole);
                let cut = ftruncate(&fd, bytes as u64);
                assert_eq!(cut.is_ok(), kind == MemoryKind::Named || bytes == whole);
                continue;
            }
            18 => {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let (start, bytes) = (u64::from(place) * 256, u64::from(low) * 256 + 1);
                fallocate(&fd, hole, start, bytes).expect("both kinds take holes");
                continue;
            }
            _ => {
                let _ = reader.take_oldest().map(drop);
                continue;
            }
        };
        let word = value.to_le_bytes();
        rustix::io::pwrite(&fd, &word, offset as u64).expect("inside of the memory");
    }
}
