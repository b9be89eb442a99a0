//! The threads that viewers' connections are spread over. Each has an event loop of its own, so that none wakes another one for its work, as those of
//! one runtime do.

use std::io;
use std::sync::mpsc;

use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::oneshot;

/// How many there are.
const COUNT: usize = 2;
/// What waits for a disk has threads beside each of them, this many at most; the rest waits for those.
const BESIDE: usize = 64;

/// They end with this, and what runs on them.
pub(super) struct Threads {
    all: Vec<(Handle, oneshot::Sender<()>)>,
    next: usize,
}

impl Threads {
    /// None beside a runtime that has one thread alone, or where the system gives none: all is done by that then.
    pub(super) fn start() -> Self {
        let alone = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
        let count = if alone { 0 } else { COUNT };
        let all: io::Result<_> = (0..count).map(|_| Self::one()).collect();
        let all = all.unwrap_or_else(|cause| {
            tracing::debug!(%cause, "viewers have no threads of their own");
            Vec::new()
        });
        Self { all, next: 0 }
    }

    fn one() -> io::Result<(Handle, oneshot::Sender<()>)> {
        let (end, ended) = oneshot::channel();
        let (made, is_made) = mpsc::channel();
        let run = move || {
            // It is made and dropped here: no runtime can be dropped by what runs on another one.
            let made_here = Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BESIDE)
                .build();
            match made_here {
                Ok(runtime) => {
                    let _ = made.send(Ok(runtime.handle().clone()));
                    let _ = runtime.block_on(ended);
                }
                Err(error) => drop(made.send(Err(error))),
            }
        };
        let thread = std::thread::Builder::new().name("ringgear viewers".to_owned());
        thread.spawn(run)?;
        let handle = is_made
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("a thread for viewers ended at once")))?;
        Ok((handle, end))
    }

    /// The one whose turn it is.
    pub(super) fn next(&mut self) -> Handle {
        let turn = self.all.get(self.next % self.all.len().max(1));
        self.next = self.next.wrapping_add(1);
        turn.map_or_else(Handle::current, |(handle, _)| handle.clone())
    }
}
