//! Viewers: how many distinct addresses fetched media or a playlist lately. Bounded, whoever asks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::MonotonicTime;

/// How long a viewer counts after a request.
const LATELY: Duration = Duration::from_secs(10);
/// How many addresses are told apart; beyond that, new ones aren't counted.
const MAX_ADDRESSES: usize = 4096;

/// One stream's viewers.
#[derive(Debug, Default)]
pub struct Viewers {
    seen: Mutex<HashMap<IpAddr, MonotonicTime>>,
}

impl Viewers {
    /// Notes a request by `address`.
    pub fn note(&self, address: IpAddr, now: MonotonicTime) {
        let mut seen = self.lock();
        let address = address.to_canonical();
        if seen.len() >= MAX_ADDRESSES && !seen.contains_key(&address) {
            seen.retain(|_, last| now.saturating_since(*last) < LATELY);
            if seen.len() >= MAX_ADDRESSES {
                return;
            }
        }
        seen.insert(address, now);
    }

    /// How many addresses made a request in the last ten seconds.
    pub fn count(&self, now: MonotonicTime) -> u64 {
        let mut seen = self.lock();
        seen.retain(|_, last| now.saturating_since(*last) < LATELY);
        seen.len() as u64
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, MonotonicTime>> {
        self.seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime(seconds * 1_000_000_000)
    }

    #[test]
    fn a_viewer_counts_once_and_for_ten_seconds() {
        let viewers = Viewers::default();
        viewers.note("10.0.0.1".parse().unwrap(), at(0));
        viewers.note("::ffff:10.0.0.1".parse().unwrap(), at(1));
        viewers.note("10.0.0.2".parse().unwrap(), at(5));
        assert_eq!(viewers.count(at(6)), 2);
        assert_eq!(viewers.count(at(12)), 1);
        assert_eq!(viewers.count(at(20)), 0);
    }

    #[test]
    fn a_flood_of_addresses_stays_bounded_and_passes() {
        let viewers = Viewers::default();
        let flood = |second: u64| {
            for n in 0..10_000_u32 {
                viewers.note(std::net::Ipv4Addr::from(n).into(), at(second));
            }
        };
        flood(0);
        assert_eq!(viewers.count(at(1)), 4096);
        flood(60);
        assert_eq!(viewers.count(at(60)), 4096);
        assert_eq!(viewers.count(at(80)), 0);
    }
}
