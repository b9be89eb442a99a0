//! A trouble that comes back many times a second is told when it begins, and then once a minute.

use std::time::{Duration, Instant};

const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// When a trouble was last told.
#[derive(Debug, Default)]
pub(crate) struct Complaint {
    told: Option<Instant>,
}

impl Complaint {
    /// Whether it is to be told now.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let due = self
            .told
            .is_none_or(|told| now.saturating_duration_since(told) >= AGAIN_AFTER);
        if due {
            self.told = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_a_minute() {
        let start = Instant::now();
        let mut complaint = Complaint::default();
        let told = |second| complaint.is_due(start + Duration::from_secs(second));
        let told: Vec<bool> = [0, 1, 59, 60, 61, 121].map(told).to_vec();
        assert_eq!(told, [true, false, false, true, false, true]);
    }
}
