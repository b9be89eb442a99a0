//! The threads that viewers' connections are spread over. Each has an event loop of its own, so that none wakes another one for its work, as those of
//! one runtime do.

use std::io;

use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::oneshot;

/// How many there are.
const COUNT: usize = 2;

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
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("ringgear viewers".to_owned());
        thread.spawn(move || runtime.block_on(ended))?;
        Ok((handle, end))
    }

    /// The one whose turn it is.
    pub(super) fn next(&mut self) -> Handle {
        let turn = self.all.get(self.next % self.all.len().max(1));
        self.next = self.next.wrapping_add(1);
        turn.map_or_else(Handle::current, |(handle, _)| handle.clone())
    }
}
