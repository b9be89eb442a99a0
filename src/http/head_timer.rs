//! hyper's timer for requests' heads. It sets one for each request, and hardly any ever goes off; so nothing is set for them, but the connection
//! asks when the next is due.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// One connection's timer. Whoever polls the connection has to do so again at [`Self::due`].
#[derive(Clone, Debug, Default)]
pub(super) struct HeadTimer(Arc<Mutex<Option<Instant>>>);

impl HeadTimer {
    /// When a head has to be there; none while none is waited for.
    pub(super) fn due(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, due: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + time)
    }

    fn sleep_until(&self, due: Instant) -> Pin<Box<dyn Sleep>> {
        self.set(Some(due));
        let timer = self.clone();
        Box::pin(Waiting { due, timer })
    }
}

/// A head is waited for.
struct Waiting {
    due: Instant,
    timer: HeadTimer,
}

impl Future for Waiting {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        match Instant::now() >= self.due {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Sleep for Waiting {}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Another may have been made before this one goes.
        let mut due = self.timer.0.lock().unwrap_or_else(PoisonError::into_inner);
        due.take_if(|due| *due == self.due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_head_is_waited_for_until_it_is_there() {
        let timer = HeadTimer::default();
        let (first, second) = (Instant::now(), Instant::now() + Duration::from_secs(5));
        let mut waiting = timer.sleep_until(first);
        timer.reset(&mut waiting, second);
        assert_eq!(timer.due(), Some(second));
        drop(waiting);
        assert_eq!(timer.due(), None);
    }
}
