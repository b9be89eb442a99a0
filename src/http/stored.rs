//! Segments of recordings that the publish folder has and memory has not: read as they are sent, so that a viewer costs one buffer and one
//! descriptor; so many at once.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::JoinHandle;

use super::Site;
use super::body::{Body, Response};
use super::origin::{A_YEAR, MP4, no_such_media};
use super::reply::{self, Asked, Cache};
use super::shares::Share;
use crate::publish::{StoredFile, segment_name};
use crate::window::Segment;

/// How long a viewer waits until it is among those that a file is sent to.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is read at once.
const BUFFER: u64 = 64 << 10;

/// `segment` of the rendition in `folder`, or the range of it that was asked for. 404 if somebody took it away.
pub(super) async fn answer(
    site: &Site,
    asked: &Asked,
    folder: &Arc<Path>,
    rendition: &str,
    segment: &Segment,
) -> Response {
    let Some(share) = site.files.take(asked.counted, PATIENCE).await else {
        let message = "as many segments of recordings are being sent, in all or to this address, as can be at once: try again in a moment";
        return reply::not_yet(message);
    };
    let (folder, rendition) = (Arc::clone(folder), rendition.to_owned());
    let name = segment_name(segment.number);
    // Whoever asked may be gone before a slow disk answers: until it does, the share is taken.
    let share = Arc::new(share);
    let held = Arc::clone(&share);
    let opened = tokio::task::spawn_blocking(move || {
        let _held = held;
        StoredFile::open(&folder, &rendition, &name)
    });
    match opened.await {
        Ok(Ok(Some(stored))) if stored.len == segment.stored => {
            let file = Arc::new(stored.file);
            // It may go when somebody removes the recording; what was fetched of it stays true.
            let cache = Cache::Immutable(A_YEAR);
            reply::ranged(asked, MP4, cache, stored.len, |first, last| {
                Body::coming(FileBody {
                    file,
                    at: first,
                    left: last - first,
                    reading: None,
                    share,
                })
            })
        }
        _ => no_such_media(),
    }
}

/// Bytes of a file, in order.
struct FileBody {
    file: Arc<std::fs::File>,
    at: u64,
    left: u64,
    reading: Option<JoinHandle<std::io::Result<Bytes>>>,
    share: Arc<Share>,
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let (at, length) = (self.at, self.left.min(BUFFER));
        let (file, share) = (Arc::clone(&self.file), Arc::clone(&self.share));
        let reading = self.reading.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                let _held = share;
                read(&file, at, length)
            })
        });
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        let bytes = read.map_err(std::io::Error::other)??;
        self.at += bytes.len() as u64;
        self.left -= bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn read(file: &std::fs::File, at: u64, length: u64) -> std::io::Result<Bytes> {
    let length = usize::try_from(length).map_err(std::io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)?;
    Ok(Bytes::from(bytes))
}
