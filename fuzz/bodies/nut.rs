//! Any bytes as FFmpeg's output: however they are cut, the same events and the same end, in bounded memory.

use ringgear::encode::nut::{NutError, NutEvent, Reader};

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
}
