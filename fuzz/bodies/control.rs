//! Whatever a client says on the control socket: lines are requests or refused, and the geometry that they ask for is
//! checked. What the daemon says must be as harmless to a producer.

use ringgear_producer::messages::{Reply, Request};
use ringgear_ring::format::{FrameFormat, PixelFormat};
use ringgear_ring::layout::{Layout, MAX_MEMORY_BYTES, SlotFormat};
use ringgear_ring::sound::{SampleFormat, SoundFormat};

/// One input.
pub fn run(bytes: &[u8]) {
    for line in bytes.split(|&byte| byte == b'\n') {
        if let Ok(reply) = serde_json::from_slice::<Reply>(line) {
            let again = serde_json::to_vec(&reply).expect("a reply can be written");
            let again: Reply = serde_json::from_slice(&again).expect("and read back");
            // A status is free JSON, whose numbers may come back another in the last digit.
            if !matches!(reply, Reply::Status { .. }) {
                assert_eq!(again, reply);
            }
        }
        let Ok(request) = serde_json::from_slice::<Request>(line) else {
            continue;
        };
        let again = serde_json::to_vec(&request).expect("a request can be written");
        let again: Request = serde_json::from_slice(&again).expect("and read back");
        assert_eq!(again, request);
        if let Request::Open(open) = request {
            let Some(pixels) = PixelFormat::from_name(&open.format) else {
                continue;
            };
            let format = match &open.strides {
                None => FrameFormat::packed(pixels, open.width, open.height),
                Some(strides) => {
                    FrameFormat::with_strides(pixels, open.width, open.height, strides)
                }
            };
            if let Ok(format) = format {
                holds(&format, open.slots);
            }
        } else if let Request::OpenSound(open) = request
            && let Some(samples) = SampleFormat::from_name(&open.format)
            && let Ok(format) = SoundFormat::new(samples, open.rate, open.channels)
        {
            holds(&format, open.slots);
        }
    }
}

/// The ring for such slots, if there is one, holds them all.
fn holds<F: SlotFormat>(format: &F, slots: Option<u32>) {
    if let Ok(layout) = Layout::new(format, slots.unwrap_or(6)) {
        assert!(layout.bytes() <= MAX_MEMORY_BYTES);
        let last = layout.slot_offset(layout.slots() - 1);
        assert!(last + format.bytes() <= layout.bytes());
    }
}
