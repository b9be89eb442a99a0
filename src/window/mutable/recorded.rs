//! A recording: nothing rotates, and what the publish folder has is served from there, so that memory holds only what is newer.

use std::sync::Arc;

use super::{Cell, Window};
use crate::tick::SegmentNumber;

impl Window {
    /// The publish folder has every segment up to and with `last`: their bytes are let go.
    pub fn keep_in_folder(&mut self, last: SegmentNumber) {
        let mut given = 0;
        // Those before have been let go already.
        let newer = self.columns.iter_mut().rev();
        for column in newer.skip_while(|column| column.number > last) {
            let held = column.bytes();
            if held == 0 {
                break;
            }
            given += held;
            for cell in &mut column.cells {
                if let Cell::Done(segment) = cell {
                    *segment = Arc::new(segment.kept_in_folder());
                }
            }
            given -= column.bytes();
        }
        self.account.give(given);
    }

    /// The bytes that are in memory.
    pub fn held_bytes(&self) -> u64 {
        self.account.own()
    }

    /// How many segments are listed or being written.
    pub fn segments(&self) -> usize {
        self.columns.len()
    }
}
