//! A producer that writes any words at any moment, between any two steps of the daemon's reader.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgear_ring::format::{FrameFormat, PixelFormat};
use ringgear_ring::layout::{COMMITTED, SLOT_HEADER_BYTES, SLOT_HEADERS, SUPERSEDED, TAKEN};
use ringgear_ring::{Reader, RingMemory};

const SLOTS: u8 = 4;
const SIDE: usize = 16;

fuzz_target!(|bytes: &[u8]| {
    let side = u32::try_from(SIDE).expect("a small number");
    let format = FrameFormat::packed(PixelFormat::Gray, side, side).expect("a possible format");
    let memory = RingMemory::create(&format, u32::from(SLOTS)).expect("a small ring");
    let fd = memory.fd().try_clone_to_owned().expect("one more descriptor");
    let mut reader = Reader::new(memory);
    let mut pixels = [0; SIDE * SIDE];
    // Each step: what is done, where, and a value whose magnitude is as random as its digits.
    for step in bytes.chunks_exact(4) {
        let [what, place, low, high] = [step[0], step[1], step[2], step[3]];
        let value = u64::from(low) << (high & 63) | u64::from(high >> 6);
        let slot = SLOT_HEADERS + SLOT_HEADER_BYTES * usize::from(place % SLOTS);
        let offset = match what % 16 {
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
                    assert!(ready.windows(2).all(|two| two[0].sequence < two[1].sequence));
                    assert!(ready.len() <= usize::from(SLOTS));
                    if let Some(newest) = ready.last()
                        && let Some(taken) = reader.take(*newest)
                    {
                        assert_eq!(taken.sequence(), newest.sequence);
                        // Out of range in every way is refused, never read.
                        let rows = usize::from(low);
                        let _ = taken.copy_rows(usize::from(place), rows, usize::from(high), &mut pixels);
                        let _ = taken.copy_rows(0, usize::MAX, rows, &mut pixels[..rows]);
                    }
                }
                continue;
            }
            _ => {
                let _ = reader.superseded();
                continue;
            }
        };
        let word = value.to_le_bytes();
        rustix::io::pwrite(&fd, &word, offset as u64).expect("inside of the memory");
    }
});
