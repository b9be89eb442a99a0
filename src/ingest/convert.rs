//! A frame's way out of shared memory. A stripe of rows is copied into private memory and converted from there while
//! it is in cache, so that the one copy also halves what the encoder reads, and nobody can change a picture afterwards.

use std::sync::Arc;

use ringgear_ring::RingError;
use ringgear_ring::format::{FrameFormat, PixelFormat};
use yuv::{
    BufferStoreMut, YuvConversionMode, YuvError, YuvPackedImage, YuvPlanarImageMut, YuvRange,
    YuvStandardMatrix,
};

use crate::clock::MonotonicTime;
use crate::picture::{Picture, PictureFormat, PicturePool, Size};

/// How much of a frame is copied before it is converted: well inside a core's second-level cache.
const STRIPE_BYTES: usize = 128 * 1024;

/// Where a frame's rows come from.
pub(crate) trait Rows {
    /// Copies `rows` rows of `plane`, from `first` on, into `into`, without the padding between rows.
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
pub(crate) enum ConvertError {
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
pub(crate) struct Converter {
    format: FrameFormat,
    size: Size,
    stripe: Vec<u8>,
    stripe_rows: usize,
    pool: PicturePool,
}

/// How pictures of frames of `format` are stored, and their size.
pub(crate) fn input_of(format: &FrameFormat) -> (PictureFormat, Size) {
    let size = Size::new(format.width(), format.height()).padded_to_even();
    (picture_format(format.pixels()), size)
}

impl Converter {
    /// A converter for frames of `format`.
    pub(crate) fn new(format: FrameFormat) -> Self {
        let (stored, size) = input_of(&format);
        let packed_row = padded_row_bytes(&format, size);
        let stripe_rows = ((STRIPE_BYTES / packed_row) & !1).clamp(2, size.height as usize);
        let pool = PicturePool::new(stored.bytes(size));
        Self {
            stripe: vec![0; packed_row * stripe_rows],
            format,
            size,
            stripe_rows,
            pool,
        }
    }

    /// How its pictures are stored.
    pub(crate) fn picture_format(&self) -> PictureFormat {
        picture_format(self.format.pixels())
    }

    /// The picture of one frame.
    pub(crate) fn convert(
        &mut self,
        frame: &impl Rows,
        captured: MonotonicTime,
    ) -> Result<Picture, ConvertError> {
        let mut buffer = self.pool.take().map_err(ConvertError::Memory)?;
        match self.format.pixels() {
            PixelFormat::Yuv420p | PixelFormat::Nv12 => {
                self.copy_planes(frame, buffer.bytes_mut())?
            }
            PixelFormat::Gray => self.widen_gray(frame, buffer.bytes_mut())?,
            _ => self.convert_stripes(frame, buffer.bytes_mut())?,
        }
        Ok(Picture::new(
            self.picture_format(),
            self.size,
            captured,
            Arc::new(buffer),
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
            for (y, gray) in stripe.iter_mut().zip(&self.stripe) {
                *y = limited_range(*gray);
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
            PixelFormat::Gray | PixelFormat::Yuv420p | PixelFormat::Nv12 => Ok(()),
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
    match pixels {
        PixelFormat::Nv12 => PictureFormat::Nv12,
        _ => PictureFormat::I420,
    }
}

/// A row of the first plane, packed, an odd width made even.
fn padded_row_bytes(format: &FrameFormat, size: Size) -> usize {
    let row = format.planes()[0].row_bytes;
    row / format.width() as usize * size.width as usize
}

/// 0..255 to 16..235.
fn limited_range(gray: u8) -> u8 {
    let scaled = (u16::from(gray) * 219 + 127) / 255 + 16;
    scaled.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame in ordinary memory.
    struct Memory(FrameFormat, Vec<u8>);

    impl Rows for Memory {
        fn copy_rows(
            &self,
            plane: usize,
            first: usize,
            rows: usize,
            into: &mut [u8],
        ) -> Result<(), RingError> {
            let plane = self.0.planes()[plane];
            for row in 0..rows {
                let from = plane.offset + (first + row) * plane.stride;
                into[row * plane.row_bytes..(row + 1) * plane.row_bytes]
                    .copy_from_slice(&self.1[from..from + plane.row_bytes]);
            }
            Ok(())
        }
    }

    /// A frame of one colour, given as BGR, in `pixels`.
    fn solid(
        pixels: PixelFormat,
        width: u32,
        height: u32,
        [b, g, r]: [u8; 3],
        [y, u, v]: [u8; 3],
    ) -> Memory {
        let format = FrameFormat::packed(pixels, width, height).unwrap();
        let unit: &[u8] = match pixels {
            PixelFormat::Bgr24 => &[b, g, r],
            PixelFormat::Rgb24 => &[r, g, b],
            PixelFormat::Bgra => &[b, g, r, 9],
            PixelFormat::Rgba => &[r, g, b, 9],
            PixelFormat::Yuyv422 => &[y, u, y, v],
            PixelFormat::Uyvy422 => &[u, y, v, y],
            PixelFormat::Gray => &[g],
            PixelFormat::Yuv420p | PixelFormat::Nv12 => {
                let mut bytes = vec![y; format.planes()[0].rows * format.planes()[0].stride];
                if pixels == PixelFormat::Nv12 {
                    bytes.extend(
                        [u, v].repeat(format.planes()[1].rows * format.planes()[1].row_bytes / 2),
                    );
                } else {
                    bytes.extend(std::iter::repeat_n(
                        u,
                        format.planes()[1].rows * format.planes()[1].stride,
                    ));
                    bytes.extend(std::iter::repeat_n(
                        v,
                        format.planes()[2].rows * format.planes()[2].stride,
                    ));
                }
                return Memory(format, bytes);
            }
        };
        let bytes = unit.repeat(format.bytes() / unit.len());
        Memory(format, bytes)
    }

    // BT.709 limited: red, green, blue, white, black (ITU-R BT.709-6, item 3).
    const COLOURS: [([u8; 3], [u8; 3]); 5] = [
        ([0, 0, 255], [63, 102, 240]),
        ([0, 255, 0], [173, 42, 26]),
        ([255, 0, 0], [32, 240, 118]),
        ([255, 255, 255], [235, 128, 128]),
        ([0, 0, 0], [16, 128, 128]),
    ];

    #[test]
    fn every_format_comes_out_in_its_colour() {
        for pixels in PixelFormat::ALL {
            for (bgr, yuv) in COLOURS {
                if pixels == PixelFormat::Gray && yuv[1] != 128 {
                    continue;
                }
                let frame = solid(pixels, 66, 50, bgr, yuv);
                let mut converter = Converter::new(frame.0.clone());
                let picture = converter.convert(&frame, MonotonicTime(7)).unwrap();
                let (luma, chroma) = picture.pixels().split_at(66 * 50);
                let near = |a: u8, b: u8| a.abs_diff(b) <= 2;
                assert!(
                    luma.iter().all(|&y| near(y, yuv[0])),
                    "{pixels} {bgr:?}: luma {}",
                    luma[0]
                );
                let (u, v) = if picture.format == PictureFormat::Nv12 {
                    (chroma[0], chroma[1])
                } else {
                    (chroma[0], chroma[66 * 50 / 4])
                };
                assert!(
                    near(u, yuv[1]) && near(v, yuv[2]),
                    "{pixels} {bgr:?}: chroma {u} {v}"
                );
                assert_eq!(picture.captured, MonotonicTime(7));
            }
        }
    }

    #[test]
    fn odd_sizes_are_padded_to_even_with_their_last_pixels() {
        for pixels in [PixelFormat::Bgr24, PixelFormat::Rgba, PixelFormat::Gray] {
            let frame = solid(pixels, 63, 47, [255; 3], [235, 128, 128]);
            let picture = Converter::new(frame.0.clone())
                .convert(&frame, MonotonicTime(0))
                .unwrap();
            assert_eq!(picture.size, Size::new(64, 48));
            assert!(
                picture.pixels()[..64 * 48]
                    .iter()
                    .all(|&y| y.abs_diff(235) <= 1),
                "{pixels}"
            );
        }
    }

    #[test]
    fn stripes_join_without_a_seam() {
        let format = FrameFormat::packed(PixelFormat::Bgr24, 1280, 722).unwrap();
        let bytes = (0..format.bytes())
            .map(|at| if at / 3 / 1280 % 4 < 2 { 40 } else { 200 })
            .collect();
        let frame = Memory(format, bytes);
        let picture = Converter::new(frame.0.clone())
            .convert(&frame, MonotonicTime(0))
            .unwrap();
        for (row, luma) in picture.pixels()[..1280 * 722].chunks(1280).enumerate() {
            let wanted = if row % 4 < 2 { 50 } else { 188 };
            assert!(
                luma.iter().all(|y| y.abs_diff(wanted) <= 2),
                "row {row}: {}",
                luma[0]
            );
        }
    }
}
