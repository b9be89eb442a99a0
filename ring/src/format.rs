//! Pixel formats and how a frame lies in memory: planes, strides, sizes, all checked.

use serde::{Deserialize, Serialize};

/// The largest width and height of a frame, in pixels.
pub const MAX_DIMENSION: u32 = 16_384;

/// How a frame's pixels are stored. Names are FFmpeg's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelFormat {
    /// Packed 8-bit B, G, R: OpenCV's order.
    Bgr24,
    /// Packed 8-bit R, G, B.
    Rgb24,
    /// Packed 8-bit B, G, R, A; alpha is ignored.
    Bgra,
    /// Packed 8-bit R, G, B, A; alpha is ignored.
    Rgba,
    /// 8-bit luma alone, full range.
    Gray,
    /// Planar 4:2:0, BT.709 limited range: Y, then U, then V (I420).
    Yuv420p,
    /// 4:2:0 in two planes, BT.709 limited range: Y, then U and V interleaved.
    Nv12,
    /// Packed 4:2:2, BT.709 limited range: Y U Y V (YUY2).
    Yuyv422,
    /// Packed 4:2:2, BT.709 limited range: U Y V Y.
    Uyvy422,
}

impl PixelFormat {
    /// Every format, in the order of their codes.
    pub const ALL: [Self; 9] = [
        Self::Bgr24,
        Self::Rgb24,
        Self::Bgra,
        Self::Rgba,
        Self::Gray,
        Self::Yuv420p,
        Self::Nv12,
        Self::Yuyv422,
        Self::Uyvy422,
    ];

    /// The format's name, as in messages and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bgr24 => "bgr24",
            Self::Rgb24 => "rgb24",
            Self::Bgra => "bgra",
            Self::Rgba => "rgba",
            Self::Gray => "gray",
            Self::Yuv420p => "yuv420p",
            Self::Nv12 => "nv12",
            Self::Yuyv422 => "yuyv422",
            Self::Uyvy422 => "uyvy422",
        }
    }

    /// The format called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The number that stands for the format in the ring's header.
    pub const fn code(self) -> u32 {
        match self {
            Self::Bgr24 => 1,
            Self::Rgb24 => 2,
            Self::Bgra => 3,
            Self::Rgba => 4,
            Self::Gray => 5,
            Self::Yuv420p => 6,
            Self::Nv12 => 7,
            Self::Yuyv422 => 8,
            Self::Uyvy422 => 9,
        }
    }

    /// The format that `code` stands for.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.code() == code)
    }
}

impl std::fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One plane of a frame: where its rows lie, in bytes from the frame's first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plane {
    /// The first row's offset.
    pub offset: usize,
    /// From one row's start to the next.
    pub stride: usize,
    /// Bytes of a row that hold pixels.
    pub row_bytes: usize,
    /// Rows.
    pub rows: usize,
}

impl Plane {
    /// The offset just past the last pixel.
    pub const fn end(&self) -> usize {
        self.offset + self.stride * self.rows.saturating_sub(1) + self.row_bytes
    }
}

/// A frame's format, fixed for a session: pixels, size, and the planes' layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameFormat {
    pixels: PixelFormat,
    width: u32,
    height: u32,
    planes: Vec<Plane>,
    bytes: usize,
}

/// Why a frame format is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The size is not one that a ring carries.
    #[error(
        "a frame of {width}x{height} is out of range: 2x2 to {MAX_DIMENSION}x{MAX_DIMENSION} pixels"
    )]
    Size {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Chroma is shared by pairs of pixels.
    #[error("{format} needs an even width{and_height}, not {width}x{height}")]
    Odd {
        /// The format.
        format: PixelFormat,
        /// `" and height"` where both have to be even.
        and_height: &'static str,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The number of strides is not the number of planes.
    #[error("{format} has {planes} planes, but {given} strides are given")]
    Strides {
        /// The format.
        format: PixelFormat,
        /// How many it has.
        planes: usize,
        /// How many were given.
        given: usize,
    },
    /// A stride that can't hold a row, or is absurdly long.
    #[error(
        "a stride of {stride} bytes in plane {plane}: a row of {format} has {row_bytes} bytes, and a stride may be at most 4 times that plus 4096"
    )]
    Stride {
        /// The format.
        format: PixelFormat,
        /// Which plane, from 0.
        plane: usize,
        /// The stride in bytes.
        stride: usize,
        /// Bytes in a row.
        row_bytes: usize,
    },
}

impl FrameFormat {
    /// A frame whose rows follow each other without padding, plane after plane.
    pub fn packed(pixels: PixelFormat, width: u32, height: u32) -> Result<Self, FormatError> {
        Self::build(pixels, width, height, None)
    }

    /// A frame with the given strides in bytes, one for each plane, plane after plane.
    pub fn with_strides(
        pixels: PixelFormat,
        width: u32,
        height: u32,
        strides: &[usize],
    ) -> Result<Self, FormatError> {
        Self::build(pixels, width, height, Some(strides))
    }

    fn build(
        pixels: PixelFormat,
        width: u32,
        height: u32,
        strides: Option<&[usize]>,
    ) -> Result<Self, FormatError> {
        use PixelFormat::{Bgr24, Bgra, Gray, Nv12, Rgb24, Rgba, Uyvy422, Yuv420p, Yuyv422};
        let in_range = |side: u32| (2..=MAX_DIMENSION).contains(&side);
        if !in_range(width) || !in_range(height) {
            return Err(FormatError::Size { width, height });
        }
        let odd = |and_height| FormatError::Odd {
            format: pixels,
            and_height,
            width,
            height,
        };
        match pixels {
            Yuv420p | Nv12 if width % 2 + height % 2 > 0 => return Err(odd(" and height")),
            Yuyv422 | Uyvy422 if !width.is_multiple_of(2) => return Err(odd("")),
            _ => {}
        }
        let (w, h) = (width as usize, height as usize);
        let rows: &[(usize, usize)] = match pixels {
            Bgr24 | Rgb24 => &[(w * 3, h)],
            Bgra | Rgba => &[(w * 4, h)],
            Gray => &[(w, h)],
            Yuv420p => &[(w, h), (w / 2, h / 2), (w / 2, h / 2)],
            Nv12 => &[(w, h), (w, h / 2)],
            Yuyv422 | Uyvy422 => &[(w * 2, h)],
        };
        if let Some(strides) = strides
            && strides.len() != rows.len()
        {
            let (planes, given) = (rows.len(), strides.len());
            return Err(FormatError::Strides {
                format: pixels,
                planes,
                given,
            });
        }
        let mut planes = Vec::with_capacity(rows.len());
        let mut bytes = 0;
        for (index, &(row_bytes, rows)) in rows.iter().enumerate() {
            let stride = strides.map_or(row_bytes, |strides| strides[index]);
            if stride < row_bytes || stride > row_bytes * 4 + 4096 {
                return Err(FormatError::Stride {
                    format: pixels,
                    plane: index,
                    stride,
                    row_bytes,
                });
            }
            planes.push(Plane {
                offset: bytes,
                stride,
                row_bytes,
                rows,
            });
            bytes += stride * rows;
        }
        Ok(Self {
            pixels,
            width,
            height,
            planes,
            bytes,
        })
    }

    /// The pixel format.
    pub fn pixels(&self) -> PixelFormat {
        self.pixels
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The planes, in memory order; 1 to 3.
    pub fn planes(&self) -> &[Plane] {
        &self.planes
    }

    /// A frame's bytes, padding of rows included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl std::fmt::Display for FrameFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{} {}", self.width, self.height, self.pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_frames_have_the_size_that_the_format_says() {
        for (pixels, bytes) in [
            (PixelFormat::Bgr24, 64 * 48 * 3),
            (PixelFormat::Rgba, 64 * 48 * 4),
            (PixelFormat::Gray, 64 * 48),
            (PixelFormat::Yuv420p, 64 * 48 * 3 / 2),
            (PixelFormat::Nv12, 64 * 48 * 3 / 2),
            (PixelFormat::Uyvy422, 64 * 48 * 2),
        ] {
            assert_eq!(
                FrameFormat::packed(pixels, 64, 48).unwrap().bytes(),
                bytes,
                "{pixels}"
            );
        }
    }

    #[test]
    fn strides_are_checked_against_rows() {
        let padded = FrameFormat::with_strides(PixelFormat::Nv12, 60, 48, &[64, 64]).unwrap();
        assert_eq!(padded.bytes(), 64 * 72);
        assert_eq!(padded.planes()[1].offset, 64 * 48);
        for strides in [&[59, 60][..], &[60], &[60, 60, 60], &[usize::MAX, 60]] {
            assert!(FrameFormat::with_strides(PixelFormat::Nv12, 60, 48, strides).is_err());
        }
    }

    #[test]
    fn shared_chroma_needs_even_sides() {
        assert!(FrameFormat::packed(PixelFormat::Yuv420p, 63, 48).is_err());
        assert!(FrameFormat::packed(PixelFormat::Yuv420p, 64, 47).is_err());
        assert!(FrameFormat::packed(PixelFormat::Yuyv422, 63, 47).is_err());
        assert!(FrameFormat::packed(PixelFormat::Yuyv422, 64, 47).is_ok());
        assert!(FrameFormat::packed(PixelFormat::Bgr24, 63, 47).is_ok());
        assert!(FrameFormat::packed(PixelFormat::Bgr24, 0, 47).is_err());
        assert!(FrameFormat::packed(PixelFormat::Bgr24, 20_000, 47).is_err());
    }

    #[test]
    fn names_and_codes_lead_back_to_their_format() {
        for format in PixelFormat::ALL {
            assert_eq!(PixelFormat::from_name(format.name()), Some(format));
            assert_eq!(PixelFormat::from_code(format.code()), Some(format));
            assert_eq!(serde_json_name(format), format.name());
        }
        assert_eq!(PixelFormat::from_code(0), None);
    }

    fn serde_json_name(format: PixelFormat) -> String {
        format!("{format:?}").to_lowercase()
    }
}
