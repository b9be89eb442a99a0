//! Pixel formats and how a frame lies in memory: planes, strides, sizes, all checked.

use serde::{Deserialize, Serialize};

/// The largest width and height of a frame, in pixels.
pub const MAX_DIMENSION: u32 = 16_384;

/// How a frame's pixels are stored. Names are FFmpeg's. YUV is BT.709, limited range; where a component has more than 8 bits, it
/// is 16 bits in memory, little endian.
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
    /// Planar 4:2:0: Y, then U, then V (I420).
    Yuv420p,
    /// 4:2:0 in two planes: Y, then U and V interleaved.
    Nv12,
    /// Packed 4:2:2: Y U Y V (YUY2).
    Yuyv422,
    /// Packed 4:2:2: U Y V Y.
    Uyvy422,
    /// 8-bit luma, full range, and alpha, which is ignored.
    Ya8,
    /// 16-bit luma alone, full range.
    Gray16le,
    /// Planar 4:2:2: Y, then U, then V.
    Yuv422p,
    /// Planar 4:4:4: Y, then U, then V.
    Yuv444p,
    /// As [`Self::Nv12`], 10 bits in the upper end of 16.
    P010le,
    /// As [`Self::Yuv420p`], 10 bits in the lower end of 16.
    Yuv420p10le,
    /// As [`Self::Yuv422p`], 10 bits in the lower end of 16.
    Yuv422p10le,
    /// As [`Self::Yuv444p`], 10 bits in the lower end of 16.
    Yuv444p10le,
}

/// How a format's components lie in its planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// One plane, so many bytes for each pixel.
    Packed(usize),
    /// One plane, four bytes for two pixels beside each other, whose chroma is shared. An odd row has a whole pair at its end.
    Pairs,
    /// Three planes, Y, U and V.
    Planar {
        /// Bytes of a component.
        sample: usize,
        /// How many pixels beside each other share their chroma.
        across: usize,
        /// How many above each other.
        down: usize,
    },
    /// Two planes, Y, and U and V in turn, shared by two by two pixels.
    SemiPlanar {
        /// Bytes of a component.
        sample: usize,
    },
}

impl PixelFormat {
    /// Every format, in the order of their codes.
    pub const ALL: [Self; 17] = [
        Self::Bgr24,
        Self::Rgb24,
        Self::Bgra,
        Self::Rgba,
        Self::Gray,
        Self::Yuv420p,
        Self::Nv12,
        Self::Yuyv422,
        Self::Uyvy422,
        Self::Ya8,
        Self::Gray16le,
        Self::Yuv422p,
        Self::Yuv444p,
        Self::P010le,
        Self::Yuv420p10le,
        Self::Yuv422p10le,
        Self::Yuv444p10le,
    ];

    /// Its name, its code and its planes.
    const fn facts(self) -> (&'static str, u32, Storage) {
        const fn planar(sample: usize, across: usize, down: usize) -> Storage {
            Storage::Planar {
                sample,
                across,
                down,
            }
        }
        match self {
            Self::Bgr24 => ("bgr24", 1, Storage::Packed(3)),
            Self::Rgb24 => ("rgb24", 2, Storage::Packed(3)),
            Self::Bgra => ("bgra", 3, Storage::Packed(4)),
            Self::Rgba => ("rgba", 4, Storage::Packed(4)),
            Self::Gray => ("gray", 5, Storage::Packed(1)),
            Self::Yuv420p => ("yuv420p", 6, planar(1, 2, 2)),
            Self::Nv12 => ("nv12", 7, Storage::SemiPlanar { sample: 1 }),
            Self::Yuyv422 => ("yuyv422", 8, Storage::Pairs),
            Self::Uyvy422 => ("uyvy422", 9, Storage::Pairs),
            Self::Ya8 => ("ya8", 10, Storage::Packed(2)),
            Self::Gray16le => ("gray16le", 11, Storage::Packed(2)),
            Self::Yuv422p => ("yuv422p", 12, planar(1, 2, 1)),
            Self::Yuv444p => ("yuv444p", 13, planar(1, 1, 1)),
            Self::P010le => ("p010le", 14, Storage::SemiPlanar { sample: 2 }),
            Self::Yuv420p10le => ("yuv420p10le", 15, planar(2, 2, 2)),
            Self::Yuv422p10le => ("yuv422p10le", 16, planar(2, 2, 1)),
            Self::Yuv444p10le => ("yuv444p10le", 17, planar(2, 1, 1)),
        }
    }

    /// The format's name, as in messages and on the command line.
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// The format called `name`; `le` at its end may be left out, as FFmpeg allows on the machines that Ringgear runs on.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name || format.name().strip_suffix("le") == Some(name))
    }

    /// The number that stands for the format in the ring's header.
    pub const fn code(self) -> u32 {
        self.facts().1
    }

    /// The format that `code` stands for.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.code() == code)
    }

    /// How its components lie in its planes.
    pub const fn storage(self) -> Storage {
        self.facts().2
    }

    /// Bytes in a row, and rows, of each plane of a frame of `width` by `height` pixels. Half of an odd side is rounded up.
    fn plane_sizes(self, width: usize, height: usize) -> Vec<(usize, usize)> {
        match self.storage() {
            Storage::Packed(pixel) => vec![(width * pixel, height)],
            Storage::Pairs => vec![(width.div_ceil(2) * 4, height)],
            Storage::Planar {
                sample,
                across,
                down,
            } => {
                let chroma = (width.div_ceil(across) * sample, height.div_ceil(down));
                vec![(width * sample, height), chroma, chroma]
            }
            Storage::SemiPlanar { sample } => vec![
                (width * sample, height),
                (width.div_ceil(2) * 2 * sample, height.div_ceil(2)),
            ],
        }
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
        let in_range = |side: u32| (2..=MAX_DIMENSION).contains(&side);
        if !in_range(width) || !in_range(height) {
            return Err(FormatError::Size { width, height });
        }
        let rows = pixels.plane_sizes(width as usize, height as usize);
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
        for (index, (row_bytes, rows)) in rows.into_iter().enumerate() {
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
            (PixelFormat::Ya8, 64 * 48 * 2),
            (PixelFormat::Yuv422p, 64 * 48 * 2),
            (PixelFormat::Yuv420p10le, 64 * 48 * 3),
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
    fn half_of_an_odd_side_is_rounded_up() {
        for (pixels, bytes) in [
            (PixelFormat::Yuv420p, 63 * 47 + 2 * 32 * 24),
            (PixelFormat::Nv12, 63 * 47 + 64 * 24),
            (PixelFormat::P010le, 2 * (63 * 47 + 64 * 24)),
            (PixelFormat::Yuyv422, 128 * 47),
            (PixelFormat::Yuv422p10le, 2 * (63 * 47 + 2 * 32 * 47)),
            (PixelFormat::Yuv444p, 3 * 63 * 47),
            (PixelFormat::Gray16le, 2 * 63 * 47),
        ] {
            let format = FrameFormat::packed(pixels, 63, 47).unwrap();
            assert_eq!(format.bytes(), bytes, "{pixels}");
        }
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
        assert_eq!(PixelFormat::from_name("p010"), Some(PixelFormat::P010le));
        assert_eq!(PixelFormat::from_name("p010be"), None);
    }

    fn serde_json_name(format: PixelFormat) -> String {
        format!("{format:?}").to_lowercase()
    }
}
