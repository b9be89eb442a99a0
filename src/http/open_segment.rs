//! The segment that is being written, sent part by part as its parts close (rule 34): what was sent in the end is byte for byte what the finished
//! segment is, or the transfer breaks off, so that nobody keeps a piece for the whole.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::watch;
use tokio::time::Instant;

use super::StreamPort;
use super::waiting::{Waited, Waiting};
use crate::sample::TrackIndex;
use crate::tick::SegmentNumber;
use crate::window::{Place, Snapshot};

/// Where a segment's parts come from.
#[derive(Clone)]
pub(super) struct Source {
    window: watch::Receiver<Arc<Snapshot>>,
    waiting: Arc<Waiting>,
    track: TrackIndex,
    number: SegmentNumber,
    /// How long a part is waited for.
    patience: Duration,
}

/// The parts that have come since.
pub(super) struct More {
    pub(super) parts: VecDeque<Bytes>,
    /// Whether these are the segment's last.
    pub(super) done: bool,
}

/// Why there are no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoMore {
    /// The segment was given up, or has expired.
    Gone,
    /// None came in time.
    TooLong,
}

impl Source {
    pub(super) fn new(
        port: &StreamPort,
        track: TrackIndex,
        number: SegmentNumber,
        patience: Duration,
    ) -> Self {
        Self {
            window: port.window.clone(),
            waiting: Arc::clone(&port.waiting),
            track,
            number,
            patience,
        }
    }

    /// The parts after the first `sent`, at least one, or the end.
    pub(super) async fn more(&self, sent: usize) -> Result<More, NoMore> {
        let deadline = Instant::now() + self.patience;
        let mut snapshot = Arc::clone(&self.window.borrow());
        loop {
            if let Some(more) = self.look(&snapshot, sent) {
                return more;
            }
            let place = Place {
                segment: self.number,
                part: u32::try_from(sent).unwrap_or(u32::MAX).saturating_add(1),
            };
            drop(snapshot);
            let waited = self
                .waiting
                .until(&self.window, self.track, place, deadline)
                .await;
            snapshot = match waited {
                Waited::Reached(snapshot) if snapshot.ended => {
                    return self.look(&snapshot, sent).unwrap_or(Err(NoMore::Gone));
                }
                Waited::Reached(snapshot) => snapshot,
                Waited::TooLong => return Err(NoMore::TooLong),
                Waited::Over => return Err(NoMore::Gone),
            };
        }
    }

    fn look(&self, snapshot: &Snapshot, sent: usize) -> Option<Result<More, NoMore>> {
        let view = snapshot.tracks.get(self.track)?;
        let (parts, done) = match (view.segment(self.number), &view.open) {
            (Some(segment), _) => (&segment.parts, true),
            (None, Some(open)) if open.number == self.number => (&open.parts, open.is_whole()),
            _ => {
                let passed = view
                    .next_place()
                    .is_some_and(|next| next.segment > self.number);
                return passed.then_some(Err(NoMore::Gone));
            }
        };
        let new = parts.iter().skip(sent).map(|part| part.bytes.clone());
        let parts: VecDeque<Bytes> = new.collect();
        (done || !parts.is_empty()).then_some(Ok(More { parts, done }))
    }
}

type Pending = Pin<Box<dyn Future<Output = Result<More, NoMore>> + Send>>;

/// The body of an open segment.
pub(super) struct OpenBody {
    source: Source,
    here: More,
    sent: usize,
    pending: Option<Pending>,
}

impl OpenBody {
    /// What `source` has, beginning with `first`.
    pub(super) fn new(source: Source, first: More) -> Self {
        Self {
            source,
            here: first,
            sent: 0,
            pending: None,
        }
    }
}

impl Body for OpenBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(part) = self.here.parts.pop_front() {
                self.sent += 1;
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            if self.here.done {
                return Poll::Ready(None);
            }
            let mut pending = match self.pending.take() {
                Some(pending) => pending,
                None => {
                    let (source, sent) = (self.source.clone(), self.sent);
                    Box::pin(async move { source.more(sent).await })
                }
            };
            let more = match pending.as_mut().poll(context) {
                Poll::Ready(more) => more,
                Poll::Pending => {
                    self.pending = Some(pending);
                    return Poll::Pending;
                }
            };
            match more {
                Ok(more) => self.here = more,
                Err(cause) => {
                    let number = self.source.number;
                    let message = format!("segment {number} was not finished: {cause:?}");
                    return Poll::Ready(Some(Err(io::Error::other(message))));
                }
            }
        }
    }
}
