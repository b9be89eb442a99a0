//! A frame's way out of shared memory. A stripe of rows is copied into private memory and converted from there while
//! it is in cache, so that the one copy also halves what the encoder reads, and nobody can change a picture afterwards.

mod reduce;

use ringgear_ring::RingError;
use ringgear_ring::format::{FrameFormat, PixelFormat, Storage};
use yuv::{
    BufferStoreMut, YuvConversionMode, YuvError, YuvPackedImage, YuvPlanarImageMut, YuvRange,
    YuvStandardMatrix,
};

use crate::clock::MonotonicTime;
use crate::picture::{Picture, PictureFormat, PicturePool, Size};
use reduce::Reduction;

/// How much of a frame is copied before it is converted: well inside a core's second-level cache.
const STRIPE_BYTES: usize = 128 * 1024;

/// Where a frame's rows come from.
pub trait Rows {
    /// Copies `rows` rows of `plane`, from `first` on, into `into`, without the padding between rows.
    ///
    /// # Errors
    /// When the ring's memory is not what it should be.
    fn copy_rows(
        &self,
        plane: usize,
        first: usize,
        rows: usize,
        into: &mut [u8],
    ) -> Result<(), RingError>;
}

/// Why a frame became no picture.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The ring's memory is not what it should be.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The system has no memory for a picture.
    #[error(
        "there is no memory for a picture: {0}; run fewer streams, or give the daemon more memory"
    )]
    Memory(std::io::Error),
    /// The conversion library refused the geometry.
    #[error("frames of {format} can't be converted: {source}")]
    Geometry {
        /// The frames' format.
        format: FrameFormat,
        /// What the library says.
        source: YuvError,
    },
}

/// Makes pictures of a session's frames, in memory that is used again and again.
pub struct Converter {
    format: FrameFormat,
    size: Size,
    stripe: Vec<u8>,
    stripe_rows: usize,
    sums: Vec<u32>,
    pool: PicturePool,
}

/// How pictures of frames of `format` are stored, and their size.
pub(crate) fn input_of(format: &FrameFormat) -> (PictureFormat, Size) {
    let size = Size::new(format.width(), format.height()).padded_to_even();
    (picture_format(format.pixels()), size)
}

impl Converter {
    /// A converter for frames of `format`.
    pub fn new(format: FrameFormat) -> Self {
        let (stored, size) = input_of(&format);
        let planes = format.planes().iter().map(|plane| plane.row_bytes);
        let packed_row = planes.fold(padded_row_bytes(&format, size), usize::max);
        let stripe_rows = ((STRIPE_BYTES / packed_row) & !1).clamp(2, size.height as usize);
        let pool = PicturePool::for_pipes(stored.bytes(size));
        Self {
            stripe: vec![0; packed_row * stripe_rows],
            format,
            size,
            stripe_rows,
            sums: Vec::new(),
            pool,
        }
    }

    /// How its pictures are stored.
    pub fn picture_format(&self) -> PictureFormat {
        picture_format(self.format.pixels())
    }

    /// The picture of one frame.
    ///
    /// # Errors
    /// As [`ConvertError`] lists.
    pub fn convert(
        &mut self,
        frame: &impl Rows,
        captured: MonotonicTime,
    ) -> Result<Picture, ConvertError> {
        let mut buffer = self.pool.take().map_err(ConvertError::Memory)?;
        let pixels = self.format.pixels();
        let is_padded = self.size != Size::new(self.format.width(), self.format.height());
        match (chroma_reduction(pixels), pixels.storage()) {
            (Some(chroma), _) if chroma.is_none() && !is_padded => {
                self.copy_planes(frame, buffer.bytes_mut())?;
            }
            (Some(chroma), _) => self.reduce_planes(frame, buffer.bytes_mut(), chroma)?,
            (None, Storage::Packed(1 | 2)) => self.widen_gray(frame, buffer.bytes_mut())?,
            (None, _) => self.convert_stripes(frame, buffer.bytes_mut())?,
        }
        Ok(Picture::new(
            self.picture_format(),
            self.size,
            captured,
            buffer,
        ))
    }

    fn copy_planes(&self, frame: &impl Rows, mut out: &mut [u8]) -> Result<(), ConvertError> {
        for (index, plane) in self.format.planes().iter().enumerate() {
            let (here, rest) = out.split_at_mut(plane.row_bytes * plane.rows);
            frame.copy_rows(index, 0, plane.rows, here)?;
            out = rest;
        }
        Ok(())
    }

    /// Planes of any depth and sharing become those of the picture: `chroma` says how.
    fn reduce_planes(
        &mut self,
        frame: &impl Rows,
        out: &mut [u8],
        chroma: Reduction,
    ) -> Result<(), ConvertError> {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let luma = Reduction {
            across: 1,
            down: 1,
            ..chroma
        };
        let (y, shared) = out.split_at_mut(width * height);
        self.reduce_plane(frame, 0, y, width, luma)?;
        if self.format.planes().len() == 2 {
            return self.reduce_plane(frame, 1, shared, width, chroma);
        }
        let (u, v) = shared.split_at_mut(shared.len() / 2);
        self.reduce_plane(frame, 1, u, width / 2, chroma)?;
        self.reduce_plane(frame, 2, v, width / 2, chroma)
    }

    /// Fills `out`, rows of `width` samples, from plane `index`.
    fn reduce_plane(
        &mut self,
        frame: &impl Rows,
        index: usize,
        out: &mut [u8],
        width: usize,
        reduction: Reduction,
    ) -> Result<(), ConvertError> {
        let plane = self.format.planes()[index];
        let rows = self.stripe_rows / reduction.down;
        let stripes = out.chunks_mut(width * rows);
        for (out, first) in stripes.zip((0..).step_by(self.stripe_rows)) {
            let rows = self.stripe_rows.min(plane.rows - first);
            let source = &mut self.stripe[..rows * plane.row_bytes];
            frame.copy_rows(index, first, rows, source)?;
            reduction.reduce(source, plane.row_bytes, out, width, &mut self.sums);
        }
        Ok(())
    }

    /// Full-range grey becomes limited-range luma with neutral chroma.
    fn widen_gray(&mut self, frame: &impl Rows, out: &mut [u8]) -> Result<(), ConvertError> {
        let width = self.size.width as usize;
        let (luma, chroma) = out.split_at_mut(width * self.size.height as usize);
        for (stripe, first) in luma
            .chunks_mut(width * self.stripe_rows)
            .zip((0..).step_by(self.stripe_rows))
        {
            let rows = stripe.len() / width;
            self.read_stripe(frame, first, rows)?;
            match self.format.pixels() {
                PixelFormat::Gray16le => {
                    for (y, gray) in stripe.iter_mut().zip(self.stripe.chunks_exact(2)) {
                        *y = limited_range(u16::from_le_bytes([gray[0], gray[1]]));
                    }
                }
                pixels => {
                    let pixel = if pixels == PixelFormat::Ya8 { 2 } else { 1 };
                    for (y, gray) in stripe.iter_mut().zip(self.stripe.chunks_exact(pixel)) {
                        // As 16 bits: 255 is 65535.
                        *y = limited_range(u16::from(gray[0]) * 257);
                    }
                }
            }
        }
        chroma.fill(128);
        Ok(())
    }

    fn convert_stripes(&mut self, frame: &impl Rows, out: &mut [u8]) -> Result<(), ConvertError> {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let (y, chroma) = out.split_at_mut(width * height);
        let (u, v) = chroma.split_at_mut(width * height / 4);
        let planes = y
            .chunks_mut(width * self.stripe_rows)
            .zip(u.chunks_mut(width / 2 * (self.stripe_rows / 2)))
            .zip(v.chunks_mut(width / 2 * (self.stripe_rows / 2)));
        for (((y, u), v), first) in planes.zip((0..).step_by(self.stripe_rows)) {
            let rows = y.len() / width;
            self.read_stripe(frame, first, rows)?;
            let mut image = YuvPlanarImageMut {
                y_plane: BufferStoreMut::Borrowed(y),
                y_stride: self.size.width,
                u_plane: BufferStoreMut::Borrowed(u),
                u_stride: self.size.width / 2,
                v_plane: BufferStoreMut::Borrowed(v),
                v_stride: self.size.width / 2,
                width: self.size.width,
                height: u32::try_from(rows).unwrap_or(u32::MAX),
            };
            self.convert_stripe(&mut image)
                .map_err(|source| ConvertError::Geometry {
                    format: self.format.clone(),
                    source,
                })?;
        }
        Ok(())
    }

    fn convert_stripe(&self, out: &mut YuvPlanarImageMut<'_, u8>) -> Result<(), YuvError> {
        let row_bytes = padded_row_bytes(&self.format, self.size);
        let stride = u32::try_from(row_bytes).unwrap_or(u32::MAX);
        let stripe = &self.stripe[..row_bytes * out.height as usize];
        let (range, matrix) = (YuvRange::Limited, YuvStandardMatrix::Bt709);
        let mode = YuvConversionMode::Balanced;
        let packed = || YuvPackedImage {
            yuy: stripe,
            yuy_stride: stride,
            width: out.width,
            height: out.height,
        };
        match self.format.pixels() {
            PixelFormat::Bgr24 => yuv::bgr_to_yuv420(out, stripe, stride, range, matrix, mode),
            PixelFormat::Rgb24 => yuv::rgb_to_yuv420(out, stripe, stride, range, matrix, mode),
            PixelFormat::Bgra => yuv::bgra_to_yuv420(out, stripe, stride, range, matrix, mode),
            PixelFormat::Rgba => yuv::rgba_to_yuv420(out, stripe, stride, range, matrix, mode),
            PixelFormat::Yuyv422 => {
                let packed = packed();
                yuv::yuyv422_to_yuv420(out, &packed)
            }
            PixelFormat::Uyvy422 => {
                let packed = packed();
                yuv::uyvy422_to_yuv420(out, &packed)
            }
            // These are converted plane by plane.
            _ => Ok(()),
        }
    }

    /// Gives the second pixel of each row's last pair, which is outside of the frame, the brightness of the first.
    fn complete_pairs(&mut self, row_bytes: usize, rows: usize) {
        let luma = match self.format.pixels() {
            PixelFormat::Uyvy422 => 1,
            _ => 0,
        };
        for row in self.stripe.chunks_exact_mut(row_bytes).take(rows) {
            row[row_bytes - 2 + luma] = row[row_bytes - 4 + luma];
        }
    }

    /// Fills the stripe with `rows` rows from `first` on. An odd side's last pixels are repeated once.
    fn read_stripe(
        &mut self,
        frame: &impl Rows,
        first: usize,
        rows: usize,
    ) -> Result<(), RingError> {
        let plane = self.format.planes()[0];
        let padded = padded_row_bytes(&self.format, self.size);
        let real_rows = rows.min(plane.rows - first);
        if padded == plane.row_bytes {
            frame.copy_rows(0, first, real_rows, &mut self.stripe[..real_rows * padded])?;
            if self.format.width() < self.size.width {
                self.complete_pairs(padded, real_rows);
            }
        } else {
            let pixel = padded - plane.row_bytes;
            for row in 0..real_rows {
                let here = &mut self.stripe[row * padded..(row + 1) * padded];
                frame.copy_rows(0, first + row, 1, &mut here[..plane.row_bytes])?;
                here.copy_within(plane.row_bytes - pixel..plane.row_bytes, plane.row_bytes);
            }
        }
        if real_rows < rows {
            self.stripe.copy_within(
                (real_rows - 1) * padded..real_rows * padded,
                real_rows * padded,
            );
        }
        Ok(())
    }
}

fn picture_format(pixels: PixelFormat) -> PictureFormat {
    match pixels.storage() {
        Storage::SemiPlanar { .. } => PictureFormat::Nv12,
        _ => PictureFormat::I420,
    }
}

/// A row of the first plane, packed, an odd width made even.
fn padded_row_bytes(format: &FrameFormat, size: Size) -> usize {
    match format.pixels().storage() {
        Storage::Packed(pixel) => pixel * size.width as usize,
        _ => format.planes()[0].row_bytes,
    }
}

/// How the chroma of planes becomes a picture's; none for frames of one plane.
fn chroma_reduction(pixels: PixelFormat) -> Option<Reduction> {
    let (sample, across, down) = match pixels.storage() {
        Storage::Planar {
            sample,
            across,
            down,
        } => (sample, 2 / across, 2 / down),
        Storage::SemiPlanar { sample } => (sample, 1, 1),
        Storage::Packed(_) | Storage::Pairs => return None,
    };
    let surplus = match (sample, pixels) {
        (1, _) => 0,
        (_, PixelFormat::P010le) => 8,
        _ => 2,
    };
    Some(Reduction {
        sample,
        surplus,
        across,
        down,
    })
}

/// 0..65535 to 16..235.
fn limited_range(gray: u16) -> u8 {
    let scaled = (u32::from(gray) * 219 + 32_767) / 65_535 + 16;
    scaled.to_le_bytes()[0]
}

#[cfg(test)]
mod colour_tests;
#[cfg(test)]
mod tests;
