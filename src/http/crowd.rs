//! What one address may use up: connections at once, and requests in a second. Addresses that stand for many viewers (this machine's, for a proxy
//! on it, and trusted proxies') have no such limits; a trusted proxy says who asks. Bounded, whoever asks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::http::{HeaderMap, HeaderName};

use crate::complaint::Complaint;
use crate::config::ViewerLimits;
use crate::network;

/// How many addresses without a connection are remembered; beyond that, those whose requests are paid off are forgotten first.
const MAX_REMEMBERED: usize = 16_384;
/// An IPv6 host takes any address of its network.
const V6_NETWORK: u32 = 64;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// All viewers.
pub(super) struct Crowd {
    limits: ViewerLimits,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    by_address: HashMap<IpAddr, Seat>,
    connections: Complaint,
    requests: Complaint,
}

/// What one address uses.
struct Seat {
    connections: u32,
    /// When all its requests are paid off, of which each costs its part of a second.
    paid: Instant,
}

/// A connection's place among those of its address; free again when this goes.
pub(super) struct Place {
    crowd: Arc<Crowd>,
    address: Option<IpAddr>,
}

impl Crowd {
    pub(super) fn new(limits: ViewerLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            seats: Mutex::default(),
        })
    }

    /// A place for a new connection of `peer`; none if it has as many as it may.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Option<Place> {
        let place = |address| Place {
            crowd: Arc::clone(self),
            address,
        };
        let Some(address) = self.counted(peer) else {
            return Some(place(None));
        };
        let mut seats = self.seats();
        let most = self.limits.connections_per_address;
        let seat = seats.of(address, now);
        if seat.connections < most {
            seat.connections += 1;
            return Some(place(Some(address)));
        }
        if seats.connections.is_due(now) {
            tracing::warn!(%peer, most, "a viewer's new connections are closed: it has as many as [http] connections_per_address allows; raise that, or name it in trusted_proxies if it is a proxy");
        }
        None
    }

    /// Whether `viewer` may ask once more; else it is to ask later.
    pub(super) fn may_ask(&self, viewer: IpAddr, now: impl FnOnce() -> Instant) -> bool {
        let Some(address) = self.counted(viewer) else {
            return true;
        };
        let now = now();
        let most = self.limits.requests_per_second;
        let mut seats = self.seats();
        let seat = seats.of(address, now);
        let paid = seat.paid.max(now) + Duration::from_secs(1) / most;
        if paid <= now + Duration::from_secs(1) {
            seat.paid = paid;
            return true;
        }
        if seats.requests.is_due(now) {
            tracing::warn!(%viewer, most, "a viewer's requests are refused: they are more than [http] requests_per_second allows; raise that, or name it in trusted_proxies if it is a proxy");
        }
        false
    }

    /// Who asks by a connection of `peer`: the peer, or who a trusted proxy says it is, the last that no proxy of ours has added; and whether that one
    /// asked the proxy over TLS.
    pub(super) fn viewer(&self, peer: IpAddr, headers: &HeaderMap) -> (IpAddr, bool) {
        if !self.is_proxy(peer) {
            return (peer, false);
        }
        let encrypted = headers
            .get(FORWARDED_PROTO)
            .is_some_and(|proto| proto == "https");
        let named = headers.get_all(FORWARDED_FOR).into_iter();
        let named: Vec<&str> = named
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .collect();
        let mut viewer = peer;
        for address in named.into_iter().rev() {
            let Ok(address) = address.trim().parse() else {
                break;
            };
            viewer = address;
            if !self.is_proxy(viewer) {
                break;
            }
        }
        (viewer, encrypted)
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        let mut proxies = self.limits.trusted_proxies.iter();
        proxies.any(|network| network.contains(address))
    }

    /// The address that `address` is counted as; none if it stands for many.
    pub(super) fn counted(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        if address.is_loopback() || self.is_proxy(address) {
            return None;
        }
        Some(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(_) => network::first(address, V6_NETWORK),
        })
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    fn of(&mut self, address: IpAddr, now: Instant) -> &mut Seat {
        if self.by_address.len() >= MAX_REMEMBERED && !self.by_address.contains_key(&address) {
            self.by_address
                .retain(|_, seat| seat.connections > 0 || seat.paid > now);
            if self.by_address.len() >= MAX_REMEMBERED {
                // So many addresses at once: what they have asked for is let go, connections are not.
                self.by_address.retain(|_, seat| seat.connections > 0);
            }
        }
        self.by_address.entry(address).or_insert(Seat {
            connections: 0,
            paid: now,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            let mut seats = self.crowd.seats();
            if let Some(seat) = seats.by_address.get_mut(&address) {
                seat.connections = seat.connections.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd() -> Arc<Crowd> {
        Crowd::new(ViewerLimits {
            trusted_proxies: vec!["10.9.0.0/16".parse().unwrap()],
            connections_per_address: 2,
            requests_per_second: 10,
            ..ViewerLimits::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_connections_and_a_closed_one_makes_room() {
        let (crowd, now) = (crowd(), Instant::now());
        let held: Vec<_> = ["192.0.2.1", "::ffff:192.0.2.1"]
            .map(|peer| crowd.admit(ip(peer), now).unwrap())
            .into();
        assert!(crowd.admit(ip("192.0.2.1"), now).is_none());
        assert!(crowd.admit(ip("192.0.2.2"), now).is_some());
        drop(held);
        assert!(crowd.admit(ip("192.0.2.1"), now).is_some());
        let _one = crowd.admit(ip("2001:db8::1"), now).unwrap();
        let _other = crowd.admit(ip("2001:db8::2"), now).unwrap();
        assert!(crowd.admit(ip("2001:db8::3"), now).is_none(), "one network");
    }

    #[test]
    fn this_machine_and_proxies_stand_for_many() {
        let (crowd, now) = (crowd(), Instant::now());
        for peer in ["127.0.0.1", "::1", "10.9.1.1"] {
            let held: Vec<_> = (0..100).map(|_| crowd.admit(ip(peer), now)).collect();
            assert!(held.iter().all(Option::is_some), "{peer}");
            assert!((0..100).all(|_| crowd.may_ask(ip(peer), || now)), "{peer}");
        }
    }

    #[test]
    fn an_address_asks_so_often_in_a_second() {
        let (crowd, start) = (crowd(), Instant::now());
        let asked = |after: u64| {
            let now = start + Duration::from_millis(after);
            (0..50)
                .filter(|_| crowd.may_ask(ip("192.0.2.1"), || now))
                .count()
        };
        assert_eq!(
            [0, 0, 100, 100, 1100, 9000].map(asked),
            [10, 0, 1, 0, 10, 10]
        );
        assert!(crowd.may_ask(ip("192.0.2.2"), || start));
    }

    #[test]
    fn proxies_are_believed_and_nobody_else() {
        let crowd = crowd();
        let asked = |peer: &str, forwarded: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED_FOR, forwarded.parse().unwrap());
            headers.insert(FORWARDED_PROTO, "https".parse().unwrap());
            let (viewer, encrypted) = crowd.viewer(ip(peer), &headers);
            (viewer.to_string(), encrypted)
        };
        for (peer, forwarded, viewer, encrypted) in [
            ("192.0.2.1", "198.51.100.7", "192.0.2.1", false),
            ("127.0.0.1", "198.51.100.7", "127.0.0.1", false),
            ("10.9.0.1", "198.51.100.7", "198.51.100.7", true),
            (
                "10.9.0.1",
                "203.0.113.1, 198.51.100.7, 10.9.0.2",
                "198.51.100.7",
                true,
            ),
            ("10.9.0.1", "127.0.0.1, nonsense", "10.9.0.1", true),
            ("10.9.0.1", "", "10.9.0.1", true),
        ] {
            assert_eq!(
                asked(peer, forwarded),
                (viewer.to_owned(), encrypted),
                "{peer} {forwarded}"
            );
        }
    }

    #[test]
    fn a_flood_of_addresses_stays_bounded() {
        let (crowd, now) = (crowd(), Instant::now());
        let _held = crowd.admit(ip("192.0.2.1"), now);
        for n in 0..40_000_u32 {
            crowd.may_ask(IpAddr::V4((0x0b00_0000 + n).into()), || now);
        }
        let seats = crowd.seats();
        assert!(seats.by_address.len() <= MAX_REMEMBERED);
        assert!(seats.by_address.contains_key(&ip("192.0.2.1")));
    }
}
