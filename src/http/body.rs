//! Bodies of answers. What is there already is handed on as a whole, so that it can be written at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::range::Slices;
use super::stalled::{Answer, Watched};

pub(super) type Response = hyper::Response<Body>;

/// The body of an answer.
pub(super) enum Body {
    /// All of it is there.
    Whole(Slices),
    /// It comes little by little.
    Coming(Pin<Box<dyn HttpBody<Data = Bytes, Error = io::Error> + Send>>),
    /// One of the others, by HTTP/2.
    Watched(Box<Watched<Self>>),
}

impl Body {
    pub(super) fn coming(
        body: impl HttpBody<Data = Bytes, Error = io::Error> + Send + 'static,
    ) -> Self {
        Self::Coming(Box::pin(body))
    }

    /// This one, of which it is seen whether the peer takes it.
    pub(super) fn watched(self, answer: Answer) -> Self {
        Self::Watched(Box::new(Watched::new(self, answer)))
    }
}

impl From<Slices> for Body {
    fn from(slices: Slices) -> Self {
        Self::Whole(slices)
    }
}

impl HttpBody for Body {
    type Data = Slices;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Slices>>>> {
        match &mut *self {
            Self::Whole(slices) => {
                let all = std::mem::take(slices);
                Poll::Ready((all.len() > 0).then(|| Ok(Frame::data(all))))
            }
            Self::Coming(body) => {
                let frame = body.as_mut().poll_frame(context);
                frame.map_ok(|frame| frame.map_data(Slices::from))
            }
            Self::Watched(body) => Pin::new(&mut **body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(slices) => slices.len() == 0,
            Self::Coming(body) => body.is_end_stream(),
            Self::Watched(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(slices) => SizeHint::with_exact(slices.len()),
            Self::Coming(body) => body.size_hint(),
            Self::Watched(body) => body.size_hint(),
        }
    }
}
