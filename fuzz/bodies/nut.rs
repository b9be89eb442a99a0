//! Any bytes as FFmpeg's output: however they are cut, the same events and the same end, in bounded memory.

use ringgear::encode::nut::{NutError, NutEvent, NutHead, Reader};

const MAX_PACKET: usize = 1 << 16;

fn read(bytes: &[u8], step: usize) -> (Vec<NutEvent>, Option<NutError>) {
    let mut reader = Reader::new(MAX_PACKET);
    let mut events = Vec::new();
    for piece in bytes.chunks(step) {
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(reader.next(), Err(error.clone()), "an error is final");
                    return (events, Some(error));
                }
            }
        }
    }
    (events, None)
}

/// The same by heads: how many packets, and their bytes in all.
fn read_heads(bytes: &[u8], step: usize) -> (usize, usize) {
    let mut reader = Reader::new(MAX_PACKET);
    let (mut packets, mut taken, mut at, mut left) = (0, 0, 0, 0);
    let mut place = vec![0; MAX_PACKET];
    while at < bytes.len() {
        if left > 0 {
            // Past the reader, as from a pipe.
            let count = left.min(step).min(bytes.len() - at);
            reader.passed(count);
            (at, left) = (at + count, left - count);
            if left == 0 {
                packets += 1;
            }
            continue;
        }
        let end = bytes.len().min(at + step);
        reader.push(&bytes[at..end]);
        at = end;
        while let Ok(Some(head)) = reader.head() {
            let NutHead::Packet(head) = head else {
                continue;
            };
            assert!(head.bytes <= MAX_PACKET);
            taken += head.bytes;
            left = head.bytes - reader.take(&mut place[..head.bytes]);
            if left > 0 {
                break;
            }
            packets += 1;
        }
    }
    if left > 0 {
        taken = 0;
    }
    (packets, taken)
}

/// One input.
pub fn run(bytes: &[u8]) {
    let Some((&step, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = read(bytes, bytes.len().max(1));
    for event in &whole.0 {
        if let NutEvent::Packet(packet) = event {
            assert!(packet.data.len() <= MAX_PACKET);
        }
    }
    assert_eq!(read(bytes, usize::from(step) + 1), whole);
    let packets = whole.0.iter().filter_map(|event| match event {
        NutEvent::Packet(packet) => Some(packet.data.len()),
        NutEvent::Track(_) => None,
    });
    let (count, sum) = packets.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
    let (by_heads, taken) = read_heads(bytes, usize::from(step) + 1);
    assert_eq!(by_heads, count);
    // A last packet that is cut has a head, and no end.
    assert!(taken == 0 || taken == sum);
}
