//! The test vector of docs/protocol.md is what the code writes, to the byte.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use ringgear_ring::format::{FrameFormat, PixelFormat};
use ringgear_ring::sound::{SampleFormat, SoundFormat};
use ringgear_ring::{Captured, RingMemory, Writer};

/// What `hexdump -C` prints: 16 bytes a line, equal lines after the first as one star.
fn hexdump(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut before: Option<&[u8]> = None;
    let mut starred = false;
    for (line, chunk) in bytes.chunks(16).enumerate() {
        if before == Some(chunk) {
            if !starred {
                text.push_str("*\n");
            }
            starred = true;
            continue;
        }
        (before, starred) = (Some(chunk), false);
        write!(text, "{:08x} ", line * 16).unwrap();
        for (at, byte) in chunk.iter().enumerate() {
            let gap = if at == 8 { "  " } else { " " };
            write!(text, "{gap}{byte:02x}").unwrap();
        }
        let shown = |&byte: &u8| match byte {
            0x20..0x7f => char::from(byte),
            _ => '.',
        };
        let shown: String = chunk.iter().map(shown).collect();
        writeln!(text, "  |{shown}|").unwrap();
    }
    writeln!(text, "{:08x}", bytes.len()).unwrap();
    text
}

#[test]
fn the_documented_hexdumps_are_what_the_memory_holds() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
    let page = std::fs::read_to_string(page).unwrap();
    let documented: Vec<&str> = page
        .split("```hexdump\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();

    let format = FrameFormat::packed(PixelFormat::Gray, 2, 2).unwrap();
    let memory = RingMemory::create(&format, 2).unwrap();
    let file = File::from(memory.fd().try_clone_to_owned().unwrap());
    let dump = || {
        let mut bytes = vec![0; memory.bytes()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        hexdump(&bytes)
    };
    let before = dump();
    let fd = memory.fd().try_clone_to_owned().unwrap();
    let mut writer = Writer::from_fd(fd, &format, memory.bytes() as u64, 2).unwrap();
    let mut slot = writer.begin().unwrap();
    slot.fill(&[0x11, 0x22, 0x33, 0x44]).unwrap();
    slot.commit(7, Some(Captured(1_000_000_000)));
    let after = dump();
    let sound = dump_of_sound();

    assert_eq!(
        documented,
        [before.as_str(), &after, &sound],
        "the page should have\n{before}\nand\n{after}\nand\n{sound}"
    );
}

/// A ring of sound after its first block.
fn dump_of_sound() -> String {
    let format = SoundFormat::new(SampleFormat::S16le, 8000, 1).unwrap();
    let memory = RingMemory::create(&format, 2).unwrap();
    let fd = memory.fd().try_clone_to_owned().unwrap();
    let mut writer = Writer::from_fd(fd, &format, memory.bytes() as u64, 2).unwrap();
    let slot = writer.begin().unwrap();
    let heard = Some(Captured(1_000_000_000));
    slot.commit_block(&[1, 0, 0xff, 0xff], 480, heard).unwrap();
    let file = File::from(memory.fd().try_clone_to_owned().unwrap());
    let mut bytes = vec![0; memory.bytes()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    hexdump(&bytes)
}
