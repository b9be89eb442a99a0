//! Threads that work for a stream, and those that they start: each line that one of them logs names that stream.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

thread_local! {
    static STREAM: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// The stream that this thread works for.
pub(crate) fn stream() -> Option<Arc<str>> {
    // A thread that is being torn down works for none any more.
    STREAM.try_with(|stream| stream.borrow().clone()).ok()?
}

/// Starts a thread for a task of `stream`, named after both.
///
/// # Errors
/// When the system gives no thread, as of the functions below.
pub(crate) fn spawn_for<T: Send + 'static>(
    stream: &str,
    task: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let name = format!("{task} {stream}");
    Builder::new()
        .name(name)
        .spawn(working_for(Some(stream.into()), body))
}

/// Starts a thread that works for the same stream as this one.
pub(crate) fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new()
        .name(name.into())
        .spawn(working_for(stream(), body))
}

/// The same in a scope.
pub(crate) fn spawn_scoped<'scope, 'env, T: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new()
        .name(name.into())
        .spawn_scoped(scope, working_for(stream(), body))
}

fn working_for<T>(stream: Option<Arc<str>>, body: impl FnOnce() -> T) -> impl FnOnce() -> T {
    move || {
        STREAM.set(stream);
        body()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_of_a_stream_starts_works_for_it_too() {
        assert_eq!(stream(), None);
        let inner = || {
            let own = spawn("inner", stream).unwrap().join().unwrap();
            let scoped = std::thread::scope(|scope| {
                let scoped = spawn_scoped(scope, "scoped", stream).unwrap();
                scoped.join().unwrap()
            });
            (stream(), own, scoped)
        };
        let door: Option<Arc<str>> = Some("door".into());
        let outer = spawn_for("door", "outer", inner).unwrap().join().unwrap();
        assert_eq!(outer, (door.clone(), door.clone(), door));
        assert_eq!(spawn("other", stream).unwrap().join().unwrap(), None);
    }
}
