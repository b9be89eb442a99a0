//! Viewers that stop reading, or stop asking. A connection whose peer takes nothing for a while ends; over HTTP/2, where a peer may go on talking
//! and take nothing of an answer, so does one with such an answer, and one that asks for nothing.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What is handed to HTTP/2 at once: so much of an answer it may hold beside what the peer has asked for.
const AT_ONCE: usize = 64 << 10;

/// A connection that fails when its peer takes nothing for a while.
pub(super) struct Impatient<S> {
    inner: S,
    patience: Duration,
    /// Since nothing more can be written.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    pub(super) fn new(inner: S, patience: Duration) -> Self {
        Self {
            inner,
            patience,
            waiting: None,
        }
    }

    /// `written`, or the end of patience.
    fn within(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the peer takes nothing",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.within(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.within(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Of a socket this is always done, and says nothing of what could not be written.
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// The answers under way on one HTTP/2 connection.
#[derive(Default)]
pub(super) struct Answers {
    books: Mutex<Books>,
}

struct Books {
    /// Of each, since when some of it has been handed on and no more was wanted.
    under_way: HashMap<u64, Option<Instant>>,
    next: u64,
    /// When the last one began or ended.
    changed: Instant,
}

impl Default for Books {
    fn default() -> Self {
        Self {
            under_way: HashMap::new(),
            next: 0,
            changed: Instant::now(),
        }
    }
}

/// One of them; over when this goes.
pub(super) struct UnderWay {
    answers: Arc<Answers>,
    number: u64,
}

impl Answers {
    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        let mut books = self.books();
        let number = books.next;
        books.next += 1;
        books.changed = Instant::now();
        books.under_way.insert(number, None);
        UnderWay {
            answers: Arc::clone(self),
            number,
        }
    }

    /// Why the connection is to end at `now`, if it is.
    pub(super) fn over(
        &self,
        now: Instant,
        patience: Duration,
        rest: Duration,
    ) -> Option<&'static str> {
        let books = self.books();
        let since = |then: Instant| now.saturating_duration_since(then);
        if books.under_way.is_empty() {
            return (since(books.changed) > rest).then_some("it asks for nothing");
        }
        let mut waiting = books.under_way.values().flatten();
        let stalled = waiting.any(|handed_on| since(*handed_on) > patience);
        stalled.then_some("the peer takes nothing of an answer")
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    fn note(&self, handed_on: Option<Instant>) {
        let mut books = self.answers.books();
        books.under_way.insert(self.number, handed_on);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut books = self.answers.books();
        books.under_way.remove(&self.number);
        books.changed = Instant::now();
    }
}

/// An answer's body, handed on in pieces, so that it is seen when no more is wanted.
pub(super) struct Watched<B> {
    inner: B,
    rest: Bytes,
    under_way: UnderWay,
}

impl<B> Watched<B> {
    pub(super) fn new(inner: B, under_way: UnderWay) -> Self {
        Self {
            inner,
            rest: Bytes::new(),
            under_way,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.rest.is_empty() {
            self.under_way.note(None);
            let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        self.under_way.note(Some(Instant::now()));
        let length = self.rest.len().min(AT_ONCE);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncWriteExt as _;

    use super::super::range::Slices;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    const REST: Duration = Duration::from_secs(10);

    #[test]
    fn an_answer_of_which_no_more_is_wanted_ends_its_connection_and_so_does_rest() {
        let answers = Arc::<Answers>::default();
        let over = |seconds| {
            answers.over(
                Instant::now() + Duration::from_secs(seconds),
                PATIENCE,
                REST,
            )
        };
        assert_eq!((over(9), over(11)), (None, Some("it asks for nothing")));
        let slices = Slices::new([Bytes::from(vec![7; 100_000]), Bytes::from(vec![8; 10])]);
        let mut body = Watched::new(slices, answers.begin());
        // What waits for us, and not for the peer, may take its time.
        assert_eq!(over(1000), None);
        let mut context = Context::from_waker(Waker::noop());
        let mut next = || {
            let left = body.size_hint().exact();
            match Pin::new(&mut body).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) => (left, frame.into_data().unwrap().len()),
                _ => (left, 0),
            }
        };
        assert_eq!(next(), (Some(100_010), 65_536));
        assert_eq!(
            (over(29), over(31)),
            (None, Some("the peer takes nothing of an answer"))
        );
        assert_eq!(next(), (Some(34_474), 34_464));
        assert_eq!(next(), (Some(10), 10));
        assert!(over(31).is_some());
        assert_eq!(next(), (Some(0), 0));
        assert_eq!(over(1000), None);
        drop(body);
        assert_eq!((over(9), over(11)), (None, Some("it asks for nothing")));
    }

    #[test]
    fn who_takes_nothing_is_given_up_and_who_takes_a_little_is_not() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        runtime.block_on(async {
            let patience = Duration::from_millis(50);
            let (near, mut far) = tokio::io::duplex(64);
            let mut near = Impatient::new(near, patience);
            near.write_all(&[0; 64]).await.unwrap();
            let mut taken = [0; 64];
            tokio::io::AsyncReadExt::read_exact(&mut far, &mut taken)
                .await
                .unwrap();
            near.write_all(&[0; 64]).await.unwrap();
            let error = near.write_all(&[0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }
}
