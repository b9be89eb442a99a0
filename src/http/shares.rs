//! What few can have at once: so many in all, and of one address a part of them, so that no viewer keeps it from the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Something of which there is so much at once.
pub(super) struct Shares {
    all: Arc<Semaphore>,
    of_one: usize,
    /// Of those who have some or wait for it.
    by_address: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
}

/// One of them, given back when this goes.
pub(super) struct Share {
    _all: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
}

impl Shares {
    /// `all` at once, and `of_one` of each address.
    pub(super) fn new(all: usize, of_one: usize) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(all)),
            of_one,
            by_address: Mutex::default(),
        })
    }

    /// One for `address`, or for somebody who stands for many; none if it takes longer than `patience` until there is one.
    pub(super) async fn take(&self, address: Option<IpAddr>, patience: Duration) -> Option<Share> {
        let taken = async {
            let own = match address {
                Some(address) => Some(self.of(address).acquire_owned().await.ok()?),
                None => None,
            };
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Share {
                _all: all,
                _own: own,
            })
        };
        tokio::time::timeout(patience, taken).await.ok()?
    }

    fn of(&self, address: IpAddr) -> Arc<Semaphore> {
        let by_address = self.by_address.lock();
        let mut by_address = by_address.unwrap_or_else(PoisonError::into_inner);
        by_address.retain(|_, own| Arc::strong_count(own) > 1);
        let own = by_address.entry(address);
        Arc::clone(own.or_insert_with(|| Arc::new(Semaphore::new(self.of_one))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_its_part_and_the_others_have_the_rest() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        let shares = Shares::new(4, 2);
        let take = |address: Option<u8>| {
            let address = address.map(|last| IpAddr::from([192, 0, 2, last]));
            runtime.block_on(shares.take(address, Duration::ZERO))
        };
        let mut held = vec![take(Some(1)).unwrap(), take(Some(1)).unwrap()];
        assert!(take(Some(1)).is_none(), "more than its part");
        held.push(take(Some(2)).unwrap());
        // A proxy on this machine.
        held.push(take(None).unwrap());
        assert!(
            take(Some(2)).is_none() && take(None).is_none(),
            "all are out"
        );
        held.remove(0);
        assert!(take(Some(3)).is_some());
        held.clear();
        assert!(take(Some(1)).is_some());
        assert!(shares.by_address.lock().unwrap().len() <= 1);
    }
}
