//! A stretch of a stream as one MP4 file, cut at segments' edges and not encoded again. It begins at once, for what stands before its media
//! follows from the index; the media is read as it is sent, so that a viewer, however slow, costs one buffer.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH};
use hyper::http::{HeaderValue, StatusCode};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::body::{Body, Response};
use super::cut::{self, Cut, CutError, Piece, Stock};
use super::moment::{self, MomentError};
use super::origin::MP4;
use super::reply::{self, Asked, Cache};
use super::shares::Share;
use super::{Site, StreamPort};
use crate::archive::{Archive, name_at};
use crate::package::{BOX_HEADER, MoviePlace, NoFragment, box_header, movie_start, put_in_place};
use crate::publish::{StoredFile, segment_name};
use crate::tick::UnixTime;
use crate::window::Snapshot;

/// Clips that are sent at once; more are told to come again.
pub(super) const MOST_AT_ONCE: usize = 16;
/// The same to one address.
pub(super) const MOST_OF_ONE: usize = 4;
/// What is read at once.
const BUFFER: usize = 256 << 10;
/// No header of a fragment is longer: a part has at most a few seconds of samples.
const LONGEST_HEADER: u64 = 4 << 20;

/// Answers with the clip that `query` asks for.
pub(super) async fn answer(
    site: &Site,
    asked: &Asked,
    port: &StreamPort,
    query: Option<&str>,
) -> Response {
    if let Some(refusal) = without_clock(port) {
        return refusal;
    }
    let stretch = match moment::stretch(query, site.anchor.now()) {
        Ok(stretch) => stretch,
        Err(error) => return bad_moment(&error),
    };
    let share = site.clips.take(asked.counted, Duration::ZERO).await;
    let Some(share) = share else {
        return reply::not_yet(&format!(
            "{MOST_AT_ONCE} clips are being sent, or {MOST_OF_ONE} to this address: try again in a moment"
        ));
    };
    let rendition = moment::value(query, "rendition");
    let owned = port.clone();
    // Of an hour of short segments it takes longer than an async thread should be held. Who asked may be gone before it is done: the share is not.
    let cut = move || {
        let stocks = stocks(&owned, stretch);
        let cut = cut::cut(&owned.name, &stocks, stretch, rendition.as_deref());
        (cut, share)
    };
    match tokio::task::spawn_blocking(cut).await {
        Ok((Ok(cut), share)) => sent(port, cut, share),
        Ok((Err(error), _)) => no_cut(&error),
        Err(cause) => {
            let message = format!("the clip could not be cut: {cause}");
            reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", &message)
        }
    }
}

/// 404, where times mean nothing: the frames of a recording are counted, whenever they came.
pub(super) fn without_clock(port: &StreamPort) -> Option<Response> {
    let recorded = port.window.borrow().mode.is_recorded();
    recorded.then(|| {
        let message =
            "a recording of mode \"event\" or \"vod\" has no clock that a moment could be named by";
        reply::not_found("recorded", message)
    })
}

/// What there is of a stream between two moments: its recordings, then its window. May read the disk.
pub(super) fn stocks(port: &StreamPort, (from, to): (UnixTime, UnixTime)) -> Vec<Stock> {
    let mut stocks = Vec::new();
    if let Some(archive) = &port.archive {
        for view in archive.views(from, to) {
            stocks.push((Arc::clone(view.snapshot()), Some(Arc::from(view.folder()))));
        }
    }
    // Looked at last: what left it meanwhile is kept, or was not to be had.
    stocks.push((Arc::clone(&port.window.borrow()), None));
    stocks
}

/// 400, with what is wrong with the times.
pub(super) fn bad_moment(error: &MomentError) -> Response {
    reply::error(StatusCode::BAD_REQUEST, "bad_time", &error.to_string())
}

/// What is answered where there is nothing to cut.
pub(super) fn no_cut(error: &CutError) -> Response {
    let message = error.to_string();
    match error {
        CutError::Nothing(_) => reply::not_yet(&message),
        CutError::Outside { .. } | CutError::Hole { .. } => {
            reply::not_found("no_such_media", &message)
        }
        CutError::UnknownRendition(_) => reply::not_found("unknown_rendition", &message),
        CutError::EncodingChanges(_) => {
            reply::error(StatusCode::CONFLICT, "encoding_changes", &message)
        }
        CutError::TooMany(_) => reply::error(StatusCode::BAD_REQUEST, "too_long", &message),
    }
}

fn sent(port: &StreamPort, cut: Cut, share: Share) -> Response {
    let tracks: Vec<_> = cut.tracks.iter().collect();
    let start = movie_start(&tracks, &cut.references);
    let media: u64 = cut.pieces.iter().map(|piece| piece.bytes).sum();
    let length = start.len() as u64 + media;
    let reader = Reader {
        pieces: cut.pieces.into_iter(),
        current: None,
        fragments: 0,
        window: port.window.clone(),
        archive: port.archive.clone(),
    };
    let body = ClipBody {
        start: Some(start),
        left: length,
        reading: None,
        reader: Some(Box::new(reader)),
        stream: port.name.clone(),
        _share: share,
    };
    let mut response = reply::growing(MP4, Cache::NoStore, Body::coming(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, length.into());
    let name = format!(
        "inline; filename=\"{}-{}.mp4\"",
        port.name,
        name_at(cut.from)
    );
    let told = [
        (CONTENT_DISPOSITION.as_str(), name),
        ("clip-from", cut.from.rfc3339()),
        ("clip-to", cut.to.rfc3339()),
    ];
    for (header, value) in told {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(header, value);
        }
    }
    response
}

/// A clip's bytes.
struct ClipBody {
    start: Option<Bytes>,
    left: u64,
    reading: Option<JoinHandle<(Box<Reader>, io::Result<Bytes>)>>,
    /// None while it reads.
    reader: Option<Box<Reader>>,
    stream: String,
    _share: Share,
}

impl HttpBody for ClipBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(start) = self.start.take() {
            self.left -= start.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(start))));
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if let Some(mut reader) = self.reader.take() {
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let read = reader.next();
                (reader, read)
            }));
        }
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        let read = read.map_err(io::Error::other).and_then(|(reader, read)| {
            self.reader = Some(reader);
            read
        });
        let checked = read.and_then(|bytes| match self.left.checked_sub(bytes.len() as u64) {
            Some(left) if !bytes.is_empty() => {
                self.left = left;
                Ok(bytes)
            }
            _ => Err(io::Error::other(NoFragment)),
        });
        if let Err(error) = &checked {
            tracing::debug!(stream = self.stream, %error, "a clip was cut off");
        }
        Poll::Ready(Some(checked.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Reads the pieces of a clip one after another.
struct Reader {
    pieces: std::vec::IntoIter<Piece>,
    current: Option<Opened>,
    fragments: u32,
    window: watch::Receiver<Arc<Snapshot>>,
    archive: Option<Archive>,
}

/// A piece that is being read.
struct Opened {
    source: Source,
    place: MoviePlace,
    at: u64,
    end: u64,
    /// What is left of the samples.
    samples: u64,
}

/// Where a segment's bytes are.
pub(super) enum Source {
    File(std::fs::File),
    Memory(Vec<Bytes>),
}

impl Reader {
    /// The next bytes; none at the end.
    fn next(&mut self) -> io::Result<Bytes> {
        let mut out = Vec::new();
        while out.len() < BUFFER {
            let mut opened = match self.current.take() {
                Some(opened) => opened,
                None => match self.pieces.next() {
                    Some(piece) => self.open(&piece)?,
                    None => break,
                },
            };
            opened.read(&mut out, &mut self.fragments)?;
            if opened.at < opened.end {
                self.current = Some(opened);
            }
        }
        Ok(Bytes::from(out))
    }

    fn open(&self, piece: &Piece) -> io::Result<Opened> {
        let source = Source::of(piece, &self.window.borrow(), self.archive.as_ref())?;
        Ok(Opened {
            source,
            place: piece.place,
            at: 0,
            end: piece.bytes,
            samples: 0,
        })
    }
}

impl Opened {
    /// Reads on for a box, or for as much of its samples as fits.
    fn read(&mut self, out: &mut Vec<u8>, fragments: &mut u32) -> io::Result<()> {
        if self.samples == 0 {
            let header = self.source.read(self.at, BOX_HEADER)?;
            let (size, kind) = box_header(&header).map_err(io::Error::other)?;
            let size = u64::from(size);
            let fits = size <= self.end - self.at;
            match &kind {
                b"mdat" if fits => self.samples = size,
                b"moof" if fits && size <= LONGEST_HEADER => {
                    let mut moof = self.source.read(self.at, length(size)?)?.to_vec();
                    *fragments = fragments.wrapping_add(1);
                    let place = MoviePlace {
                        sequence: *fragments,
                        ..self.place
                    };
                    put_in_place(&mut moof, place).map_err(io::Error::other)?;
                    out.extend_from_slice(&moof);
                    self.at += size;
                }
                // What is said of a live stream's parts is not for a file.
                _ if fits && size <= LONGEST_HEADER => {
                    out.extend_from_slice(&header[..4]);
                    out.extend_from_slice(b"free");
                    out.resize(out.len() + length(size)? - BOX_HEADER, 0);
                    self.at += size;
                }
                _ => return Err(io::Error::other(NoFragment)),
            }
            return Ok(());
        }
        let some = self.samples.min(BUFFER as u64);
        out.extend_from_slice(&self.source.read(self.at, length(some)?)?);
        self.samples -= some;
        self.at += some;
        Ok(())
    }
}

fn length(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}

impl Source {
    /// Where the bytes of `piece` are now: in its recording, in the window, or in a recording since.
    pub(super) fn of(
        piece: &Piece,
        window: &Snapshot,
        archive: Option<&Archive>,
    ) -> io::Result<Self> {
        if let Some(folder) = &piece.folder {
            return Self::stored(folder, piece);
        }
        let view = window
            .tracks
            .iter()
            .find(|view| *view.name == *piece.rendition);
        let segment = view.and_then(|view| view.segment(piece.number));
        let open = view
            .and_then(|view| view.open.as_ref())
            .filter(|open| open.number == piece.number);
        let parts = match (segment, open) {
            (Some(segment), _) => &segment.parts,
            (None, Some(open)) => &open.parts,
            (None, None) => {
                let folder = archive.and_then(|archive| archive.folder_of(piece.starts));
                return match folder {
                    Some(folder) => Self::stored(&folder, piece),
                    None => Err(gone()),
                };
            }
        };
        let source = parts.iter().map(|part| part.bytes.clone());
        Ok(Self::Memory(source.collect()))
    }

    fn stored(folder: &Path, piece: &Piece) -> io::Result<Self> {
        let opened = StoredFile::open(folder, &piece.rendition, &segment_name(piece.number));
        match opened.map_err(io::Error::other)? {
            Some(stored) if stored.len >= piece.bytes => Ok(Self::File(stored.file)),
            _ => Err(gone()),
        }
    }

    /// `length` bytes from `at` on.
    pub(super) fn read(&self, at: u64, length: usize) -> io::Result<Bytes> {
        match self {
            Self::File(file) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, at)?;
                Ok(Bytes::from(bytes))
            }
            Self::Memory(parts) => {
                let mut bytes = Vec::with_capacity(length);
                let mut skip = usize::try_from(at).map_err(io::Error::other)?;
                for part in parts {
                    let from = skip.min(part.len());
                    skip -= from;
                    let until = part.len().min(from + length - bytes.len());
                    bytes.extend_from_slice(&part[from..until]);
                }
                match bytes.len() == length {
                    true => Ok(Bytes::from(bytes)),
                    false => Err(gone()),
                }
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        "a segment has left the window, or the recording, meanwhile",
    )
}
