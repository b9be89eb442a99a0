//! Pictures: frames that the daemon has taken out of a ring, in its own memory, immutable, ready for the encoder.

use std::sync::{Arc, Mutex};

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
    pixels: Arc<PixelBuffer>,
}

impl Picture {
    /// A picture of `pixels`, which have to be `format.bytes(size)` bytes.
    pub fn new(
        format: PictureFormat,
        size: Size,
        captured: MonotonicTime,
        pixels: Arc<PixelBuffer>,
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
        Arc::ptr_eq(&self.pixels, &other.pixels)
    }

    /// The pixels, plane after plane.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

/// Pixel memory that goes back to its pool when the last picture over it is dropped.
pub struct PixelBuffer {
    bytes: Vec<u8>,
    pool: Option<PicturePool>,
}

impl PixelBuffer {
    /// Memory of its own, in no pool.
    pub fn unpooled(bytes: Vec<u8>) -> Self {
        Self { bytes, pool: None }
    }

    /// The bytes, to be filled before the buffer becomes a picture.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl std::ops::Deref for PixelBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PixelBuffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

/// Picture memory for reuse, so that a running stream allocates nothing. Keeps buffers of one size, and few.
#[derive(Clone)]
pub struct PicturePool {
    idle: Arc<Mutex<Vec<Vec<u8>>>>,
    bytes: usize,
}

impl PicturePool {
    /// How many idle buffers are kept; more are freed.
    const MAX_IDLE: usize = 4;

    /// A pool of buffers of `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            idle: Arc::default(),
            bytes,
        }
    }

    /// The size of its buffers.
    pub fn buffer_bytes(&self) -> usize {
        self.bytes
    }

    /// A buffer with arbitrary content.
    pub fn take(&self) -> PixelBuffer {
        let idle = self.lock().pop();
        let bytes = idle.unwrap_or_else(|| vec![0; self.bytes]);
        PixelBuffer {
            bytes,
            pool: Some(self.clone()),
        }
    }

    fn give_back(&self, bytes: Vec<u8>) {
        let mut idle = self.lock();
        if idle.len() < Self::MAX_IDLE && bytes.len() == self.bytes {
            idle.push(bytes);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.idle
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
