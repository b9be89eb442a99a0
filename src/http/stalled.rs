//! Viewers that take too little, or stop asking. A connection whose peer takes nothing for a while, or less than the least rate for longer, ends;
//! over HTTP/2, where a peer may go on talking and take nothing of an answer, so does one with such an answer, and one that asks for nothing.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::range::Slices;

/// What is handed to HTTP/2 at once: so much of an answer it may hold beside what the peer has asked for.
const AT_ONCE: usize = 64 << 10;
/// What a peer takes at the least in a second, in the mean, of what is there for it.
const LEAST_RATE: u32 = 16 << 10;

/// The patience with a peer: it goes while the peer is waited for, and comes back with each byte that is taken, up to what it was at first. So
/// what takes longer than that and the time for its bytes at [`LEAST_RATE`] is given up.
#[derive(Clone, Copy, Debug)]
struct Patience {
    most: Duration,
    left: Duration,
}

impl Patience {
    fn new(most: Duration) -> Self {
        Self { most, left: most }
    }

    /// The peer was waited for.
    fn waited(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }

    /// It was not, for so long.
    fn rested(&mut self, time: Duration) {
        self.left = self.left.saturating_add(time).min(self.most);
    }

    /// The peer has taken so many bytes.
    fn taken(&mut self, bytes: usize) {
        self.rested(Duration::from_secs(bytes as u64) / LEAST_RATE);
    }
}

/// A connection that fails when its peer takes too little.
pub(super) struct Impatient<S> {
    inner: S,
    patience: Patience,
    /// Since nothing more can be written, and until when that may last.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// When it ended for the last time.
    waited: Instant,
}

impl<S> Impatient<S> {
    pub(super) fn new(inner: S, patience: Duration) -> Self {
        Self {
            inner,
            patience: Patience::new(patience),
            waiting: None,
            waited: Instant::now(),
        }
    }

    /// `written`, or the end of patience.
    fn within(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            if let Some((since, _)) = self.waiting.take() {
                self.waited = Instant::now();
                self.patience.waited(self.waited - since);
            }
            if let Ok(bytes) = written {
                self.patience.taken(bytes);
            }
            return Poll::Ready(written);
        }
        let (patience, waited) = (&mut self.patience, self.waited);
        let (_, end) = self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            patience.rested(now - waited);
            (now, Box::pin(sleep(patience.left)))
        });
        ready!(end.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the peer takes too little",
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
pub(super) struct Answers {
    patience: Duration,
    books: Mutex<Books>,
}

struct Books {
    under_way: HashMap<u64, Account>,
    next: u64,
    /// When the last one began or ended.
    changed: Instant,
}

/// What the peer makes of one answer.
struct Account {
    patience: Patience,
    /// Pieces that were handed on and are not taken yet, and since when the next of them is waited for.
    out: usize,
    since: Instant,
}

impl Account {
    fn hand_on(&mut self, now: Instant) {
        if self.out == 0 {
            self.since = now;
        }
        self.out += 1;
    }

    fn take(&mut self, bytes: usize, now: Instant) {
        self.patience.waited(now - self.since);
        self.patience.taken(bytes);
        self.out -= 1;
        self.since = now;
    }

    fn is_over(&self, now: Instant) -> bool {
        self.out > 0 && now - self.since > self.patience.left
    }
}

/// One of them; over when this goes.
struct UnderWay {
    answers: Arc<Answers>,
    number: u64,
}

impl Answers {
    /// None yet, of which each is taken with such patience.
    pub(super) fn new(patience: Duration) -> Arc<Self> {
        let books = Books {
            under_way: HashMap::new(),
            next: 0,
            changed: Instant::now(),
        };
        Arc::new(Self {
            patience,
            books: Mutex::new(books),
        })
    }

    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>) -> Answer {
        let mut books = self.books();
        let number = books.next;
        books.next += 1;
        books.changed = Instant::now();
        let account = Account {
            patience: Patience::new(self.patience),
            out: 0,
            since: books.changed,
        };
        books.under_way.insert(number, account);
        Answer(Arc::new(UnderWay {
            answers: Arc::clone(self),
            number,
        }))
    }

    /// Why the connection is to end at `now`, if it is.
    pub(super) fn over(&self, now: Instant, rest: Duration) -> Option<&'static str> {
        let books = self.books();
        if books.under_way.is_empty() {
            return (now - books.changed > rest).then_some("it asks for nothing");
        }
        let over = books.under_way.values().any(|account| account.is_over(now));
        over.then_some("the peer takes too little of an answer")
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    fn account(&self, change: impl FnOnce(&mut Account)) {
        if let Some(account) = self.answers.books().under_way.get_mut(&self.number) {
            change(account);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut books = self.answers.books();
        books.under_way.remove(&self.number);
        books.changed = Instant::now();
    }
}

/// An answer that is under way until this and all pieces of its body are gone.
pub(super) struct Answer(Arc<UnderWay>);

/// A piece of an answer, which is taken when HTTP/2 lets go of it.
struct Piece {
    bytes: Bytes,
    under_way: Arc<UnderWay>,
}

impl Piece {
    fn hand_on(bytes: Bytes, under_way: &Arc<UnderWay>) -> Bytes {
        under_way.account(|account| account.hand_on(Instant::now()));
        let under_way = Arc::clone(under_way);
        Bytes::from_owner(Self { bytes, under_way })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let taken = self.bytes.len();
        self.under_way
            .account(|account| account.take(taken, Instant::now()));
    }
}

/// An answer's body, handed on in pieces, so that it is seen when none is taken.
pub(super) struct Watched<B> {
    inner: B,
    rest: Slices,
    answer: Answer,
}

impl<B> Watched<B> {
    pub(super) fn new(inner: B, answer: Answer) -> Self {
        Self {
            inner,
            rest: Slices::default(),
            answer,
        }
    }
}

impl<B: Body<Data = Slices> + Unpin> Body for Watched<B> {
    type Data = Slices;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Slices>, B::Error>>> {
        if self.rest.len() == 0 {
            let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let piece = Piece::hand_on(self.rest.take(AT_ONCE), &self.answer.0);
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.len() == 0 && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len();
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

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    const REST: Duration = Duration::from_secs(10);
    const TOO_LITTLE: Option<&str> = Some("the peer takes too little of an answer");

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_that_is_not_taken_ends_its_connection_and_so_does_rest() {
        let answers = Answers::new(PATIENCE);
        let over = |after| answers.over(Instant::now() + seconds(after), REST);
        assert_eq!((over(5), over(11)), (None, Some("it asks for nothing")));
        let slices = Slices::new([Bytes::from(vec![7; 100_000]), Bytes::from(vec![8; 10])]);
        let mut body = Watched::new(super::super::body::Body::from(slices), answers.begin());
        // What waits for us, and not for the peer, may take its time.
        assert_eq!(over(1000), None);
        let mut context = Context::from_waker(Waker::noop());
        let mut next = || {
            let left = body.size_hint().exact();
            match Pin::new(&mut body).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) => (left, frame.into_data().unwrap().take(usize::MAX)),
                _ => (left, Bytes::new()),
            }
        };
        let (left, piece) = next();
        assert_eq!((left, piece.len(), piece[0]), (Some(100_010), 65_536, 7));
        assert_eq!((over(20), over(31)), (None, TOO_LITTLE));
        let (left, second) = next();
        assert_eq!((left, second.len()), (Some(34_474), 34_464));
        drop(piece);
        assert_eq!((over(20), over(31)), (None, TOO_LITTLE));
        drop(second);
        assert_eq!(over(1000), None);
        let (left, last) = next();
        assert_eq!((left, &last[..]), (Some(10), &[8; 10][..]));
        assert_eq!(next().0, Some(0));
        // All of it was handed on, and the end is not taken yet.
        drop(body);
        assert_eq!((over(20), over(31)), (None, TOO_LITTLE));
        drop(last);
        assert_eq!((over(5), over(11)), (None, Some("it asks for nothing")));
    }

    #[test]
    fn who_takes_16_kib_a_second_is_borne_with_for_ever_and_who_takes_less_is_not() {
        let start = Instant::now();
        // When an answer that is taken in pieces is over, each of which takes so long; not within a day.
        let ends = |each: Duration| {
            let mut account = Account {
                patience: Patience::new(PATIENCE),
                out: 0,
                since: start,
            };
            let mut now = start;
            while now < start + seconds(86_400) {
                account.hand_on(now);
                if account.is_over(now + each) {
                    return Some(now - start);
                }
                now += each;
                account.take(AT_ONCE, now);
                // The next piece is not made yet.
                now += seconds(100);
            }
            None
        };
        assert_eq!(ends(seconds(1)), None);
        assert_eq!(ends(seconds(4)), None);
        // Four seconds too long each: for the seventh there is too little patience left.
        assert_eq!(ends(seconds(8)), Some(seconds(6 * 108)));
        assert_eq!(ends(seconds(31)), Some(Duration::ZERO));
    }

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn who_takes_nothing_is_given_up_and_who_takes_it_after_a_while_is_not() {
        run(async {
            let patience = Duration::from_secs(3);
            let (near, mut far) = tokio::io::duplex(64);
            let mut near = Impatient::new(near, patience);
            near.write_all(&[0; 64]).await.unwrap();
            let late = async {
                sleep(Duration::from_millis(10)).await;
                let mut taken = [0; 64];
                far.read_exact(&mut taken).await.unwrap();
            };
            let (written, ()) = tokio::join!(near.write_all(&[0; 64]), late);
            written.unwrap();
            let error = near.write_all(&[0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn who_dribbles_is_given_up_too() {
        run(async {
            let (near, mut far) = tokio::io::duplex(64);
            let mut near = Impatient::new(near, Duration::from_millis(200));
            let dribble = async {
                loop {
                    let mut taken = [0; 8];
                    far.read_exact(&mut taken).await.unwrap();
                    sleep(Duration::from_millis(10)).await;
                }
            };
            let written = async {
                // Seconds at that rate, and a tenth of one at the least.
                near.write_all(&[0; 2048]).await.unwrap_err()
            };
            tokio::select! {
                () = dribble => unreachable!("it never ends"),
                error = written => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
            }
        });
    }
}
