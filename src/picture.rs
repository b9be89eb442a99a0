//! Pictures: frames that the daemon has taken out of a ring, in its own memory, immutable, ready for the encoder.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, OnceLock};

use memmap2::MmapMut;
use ringgear_ring::{Block, BlockPool, Kept};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::clock::MonotonicTime;

/// A size in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Size {
    /// `width` by `height` pixels.
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Whether 4:2:0 chroma divides both sides.
    pub const fn is_even(self) -> bool {
        self.width.is_multiple_of(2) && self.height.is_multiple_of(2)
    }

    /// This size with each odd side one pixel longer.
    #[must_use]
    pub const fn padded_to_even(self) -> Self {
        Self {
            width: self.width.next_multiple_of(2),
            height: self.height.next_multiple_of(2),
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = |side: &str| side.trim().parse::<u32>().ok();
        text.split_once('x')
            .and_then(|(w, h)| Some(Self::new(parse(w)?, parse(h)?)))
            .ok_or_else(|| format!("'{text}' is not a size: write it like 1280x720"))
    }
}

/// How a picture's pixels are stored: 8 bit, 4:2:0, BT.709 limited range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PictureFormat {
    /// Y, then U, then V, rows without padding.
    I420,
    /// Y, then U and V interleaved, rows without padding.
    Nv12,
}

impl PictureFormat {
    /// FFmpeg's name for it.
    pub const fn pix_fmt(self) -> &'static str {
        match self {
            Self::I420 => "yuv420p",
            Self::Nv12 => "nv12",
        }
    }

    /// Bytes of a picture of `size`, which has to be even.
    pub const fn bytes(self, size: Size) -> usize {
        size.width as usize * size.height as usize * 3 / 2
    }
}

/// A frame out of a ring, or a slate. Cheap to clone: the pixels are shared.
#[derive(Clone)]
pub struct Picture {
    /// How `pixels` are stored.
    pub format: PictureFormat,
    /// Even in both sides.
    pub size: Size,
    /// When it was captured.
    pub captured: MonotonicTime,
    /// `format.bytes(size)` bytes.
    pixels: PixelBuffer,
}

impl Picture {
    /// A picture of `pixels`, which have to be `format.bytes(size)` bytes.
    pub fn new(
        format: PictureFormat,
        size: Size,
        captured: MonotonicTime,
        pixels: PixelBuffer,
    ) -> Self {
        assert_eq!(
            pixels.len(),
            format.bytes(size),
            "a picture's bytes follow from its size"
        );
        Self {
            format,
            size,
            captured,
            pixels,
        }
    }

    /// The same pixels, said to be captured at another time.
    #[must_use]
    pub fn captured_at(&self, captured: MonotonicTime) -> Self {
        Self {
            captured,
            ..self.clone()
        }
    }

    /// What an encoder has to be made for to take it.
    pub fn input(&self) -> (PictureFormat, Size) {
        (self.format, self.size)
    }

    /// Whether `other` is the same pixels in the same memory.
    pub fn shares_pixels(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.pixels.shared(), other.pixels.shared())
    }

    /// The pixels, plane after plane.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Puts the pixels from byte `from` on into `pipe` without a copy, as far as that has room; says how many bytes. The picture has to be kept until
    /// the pipe's reader has read them.
    ///
    /// # Errors
    /// `AGAIN` where the pipe is full; anything else where that can't be done with this picture or on this system.
    pub(crate) fn splice_into(&self, from: usize, pipe: impl AsFd) -> Result<usize, Errno> {
        match &self.pixels.shared().bytes {
            Bytes::Block(block) => block.splice_into(from, pipe),
            Bytes::Mapped(_) | Bytes::Owned(_) => Err(Errno::INVAL),
        }
    }
}

/// Pixel memory, shared by the pictures over it. It goes back to its pool with the last of them.
#[derive(Clone)]
pub struct PixelBuffer(
    /// None once it is dropped.
    Option<Arc<Shared>>,
);

struct Shared {
    bytes: Bytes,
    /// Where it came from, while it is lent.
    pool: Option<PicturePool>,
}

/// A picture of 1080p is three megabytes. Mapped memory goes back to the system the moment that it is freed; a heap
/// keeps what a burst of pictures took for ever.
enum Bytes {
    Block(Block),
    Mapped(MmapMut),
    Owned(Vec<u8>),
}

impl PixelBuffer {
    /// Memory of its own, in no pool.
    pub fn unpooled(bytes: Vec<u8>) -> Self {
        Self(Some(Arc::new(Shared {
            bytes: Bytes::Owned(bytes),
            pool: None,
        })))
    }

    /// The bytes, to be filled before the buffer becomes a picture.
    ///
    /// # Panics
    /// If it is shared already.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let shared = self.0.as_mut().and_then(Arc::get_mut);
        match &mut shared.expect("it is filled before it is shared").bytes {
            Bytes::Block(bytes) => bytes,
            Bytes::Mapped(bytes) => bytes,
            Bytes::Owned(bytes) => bytes,
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl std::ops::Deref for PixelBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.shared().bytes {
            Bytes::Block(bytes) => bytes,
            Bytes::Mapped(bytes) => bytes,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

impl Drop for PixelBuffer {
    fn drop(&mut self) {
        let Some(mut shared) = self.0.take() else {
            return;
        };
        // Where two are the last ones at the same moment, neither is: then it is freed.
        let last = Arc::get_mut(&mut shared);
        if let Some(pool) = last.and_then(|last| last.pool.take()) {
            pool.give_back(shared);
        }
    }
}

/// Picture memory for reuse, so that a running stream allocates nothing. Keeps buffers of one size, and few.
#[derive(Clone)]
pub struct PicturePool {
    idle: Arc<Mutex<Idle>>,
    bytes: usize,
    /// What can be put into a pipe without a copy, made for the first picture; none where the system has nothing of the kind.
    blocks: Option<Arc<OnceLock<Option<BlockPool>>>>,
}

/// What waits for its next use.
#[derive(Default)]
struct Idle {
    mapped: Vec<MmapMut>,
    /// What was shared, without its bytes.
    counters: Vec<Arc<Shared>>,
}

impl PicturePool {
    /// How many idle buffers are kept; more are freed.
    const MAX_IDLE: usize = 3;
    /// How many pictures can be put into a pipe without a copy: more than are on their way to an encoder that is in time, or that a recording has there.
    const MOST_BLOCKS: usize = 32;
    /// How much of their memory is kept while it is idle: pictures come and go in bursts, and new pages cost more than a copy.
    const KEPT: Kept = Kept {
        least: Self::MAX_IDLE,
        most: 8,
    };
    /// Below this, a copy is as cheap.
    const LEAST_BLOCK: usize = 128 * 1024;

    /// A pool of buffers of `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            idle: Arc::default(),
            bytes,
            blocks: None,
        }
    }

    /// A pool of buffers of `bytes` bytes that an encoder's pipe is given without a copy, where the system can do that.
    pub fn for_pipes(bytes: usize) -> Self {
        Self {
            blocks: (bytes >= Self::LEAST_BLOCK).then(Arc::default),
            ..Self::new(bytes)
        }
    }

    /// A buffer with arbitrary content.
    ///
    /// # Errors
    /// When the system has no memory for one.
    pub fn take(&self) -> std::io::Result<PixelBuffer> {
        let block = self.block();
        let (mapped, counter) = {
            let mut idle = self.lock();
            let mapped = if block.is_none() {
                idle.mapped.pop()
            } else {
                None
            };
            (mapped, idle.counters.pop())
        };
        let bytes = match (block, mapped) {
            (Some(block), _) => Bytes::Block(block),
            (None, Some(mapped)) => Bytes::Mapped(mapped),
            (None, None) => Bytes::Mapped(MmapMut::map_anon(self.bytes)?),
        };
        let lent = Shared {
            bytes,
            pool: Some(self.clone()),
        };
        let shared = match counter {
            Some(mut counter) => {
                *Arc::get_mut(&mut counter).expect("what is idle has one owner") = lent;
                counter
            }
            None => Arc::new(lent),
        };
        Ok(PixelBuffer(Some(shared)))
    }

    /// Memory for a pipe, if there is any left.
    fn block(&self) -> Option<Block> {
        let make = || BlockPool::new(self.bytes, Self::MOST_BLOCKS, Self::KEPT).ok();
        let blocks = self.blocks.as_ref()?.get_or_init(make).as_ref()?;
        blocks.take().ok().flatten()
    }

    /// Takes back what nobody shares any more.
    fn give_back(&self, mut shared: Arc<Shared>) {
        let Some(last) = Arc::get_mut(&mut shared) else {
            return;
        };
        let bytes = std::mem::replace(&mut last.bytes, Bytes::Owned(Vec::new()));
        let mut idle = self.lock();
        if idle.counters.len() < Self::MOST_BLOCKS {
            idle.counters.push(shared);
        }
        if let Bytes::Mapped(mapped) = bytes
            && idle.mapped.len() < Self::MAX_IDLE
        {
            idle.mapped.push(mapped);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_for_pipes_are_put_there_and_those_that_are_too_many_are_not() {
        let size = Size::new(640, 360);
        let pool = PicturePool::for_pipes(PictureFormat::I420.bytes(size));
        let picture = || {
            let mut buffer = pool.take().unwrap();
            buffer.bytes_mut().fill(7);
            Picture::new(PictureFormat::I420, size, MonotonicTime(0), buffer)
        };
        let many: Vec<_> = (0..=PicturePool::MOST_BLOCKS).map(|_| picture()).collect();
        let (_reader, writer) = std::io::pipe().unwrap();
        assert!(many[0].splice_into(0, &writer).unwrap() > 0);
        let last = many.last().unwrap();
        assert_eq!(last.splice_into(0, &writer), Err(Errno::INVAL));
        assert!(last.pixels().iter().all(|y| *y == 7));
    }

    #[test]
    fn a_dropped_pictures_memory_is_used_again_and_little_is_kept() {
        let size = Size::new(64, 64);
        let pool = PicturePool::new(PictureFormat::I420.bytes(size));
        let picture = |mark| {
            let mut buffer = pool.take().unwrap();
            buffer.bytes_mut().fill(mark);
            Picture::new(PictureFormat::I420, size, MonotonicTime(0), buffer)
        };
        let many: Vec<_> = (0..10).map(picture).collect();
        assert!(
            many.iter()
                .zip(0..)
                .all(|(picture, mark)| picture.pixels().iter().all(|&y| y == mark))
        );
        drop(many);
        assert_eq!(pool.lock().mapped.len(), PicturePool::MAX_IDLE);
        let one = picture(1);
        assert_eq!(pool.lock().mapped.len(), PicturePool::MAX_IDLE - 1);
        drop(pool.clone());
        assert_eq!(one.pixels()[0], 1);
    }

    #[test]
    fn what_shares_a_pictures_memory_is_used_again() {
        let size = Size::new(64, 64);
        let pool = PicturePool::new(PictureFormat::I420.bytes(size));
        let place = |picture: &Picture| Arc::as_ptr(picture.pixels.shared());
        let picture = || {
            Picture::new(
                PictureFormat::I420,
                size,
                MonotonicTime(0),
                pool.take().unwrap(),
            )
        };
        let first = picture();
        let was = place(&first);
        let again = first.clone();
        drop(first);
        assert!(pool.lock().counters.is_empty());
        drop(again);
        assert_eq!(place(&picture()), was);
        let many: Vec<_> = (0..=PicturePool::MOST_BLOCKS).map(|_| picture()).collect();
        drop(many);
        assert_eq!(pool.lock().counters.len(), PicturePool::MOST_BLOCKS);
        // Nothing that is idle keeps its pool.
        assert_eq!(Arc::strong_count(&pool.idle), 1);
    }
}
