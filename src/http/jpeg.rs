//! Pictures as JPEG: scaled down by averaging, and from BT.709 limited range to the BT.601 full range that JFIF means.

use jpeg_encoder::{Encoder, EncodingError, ImageBuffer, JpegColorType};

use crate::picture::{Picture, PictureFormat};

/// Where flat surfaces stay clean.
const QUALITY: u8 = 82;

/// `picture` as a JPEG of at most `width` pixels in a row, its shape kept; never enlarged.
pub(super) fn encode(picture: &Picture, width: Option<u16>) -> Result<Vec<u8>, EncodingError> {
    let image = Scaled::new(picture, width);
    let mut jpeg = Vec::with_capacity(usize::from(image.width) * usize::from(image.height) / 8);
    Encoder::new(&mut jpeg, QUALITY).encode_image(image)?;
    Ok(jpeg)
}

/// A plane's samples: every `step`th byte of each row of `bytes`, from the one at `offset`.
#[derive(Clone, Copy)]
struct Plane<'a> {
    bytes: &'a [u8],
    offset: usize,
    step: usize,
    width: usize,
    height: usize,
}

impl Plane<'_> {
    /// The mean of the samples that pixel `x`, `y` of a `width` by `height` image covers.
    fn mean(&self, x: usize, y: usize, width: usize, height: usize) -> i32 {
        let (left, right) = cover(x, width, self.width);
        let (top, bottom) = cover(y, height, self.height);
        let stride = self.width * self.step;
        let mut sum = 0_u32;
        for row in top..bottom {
            let row = &self.bytes[row * stride..][..stride];
            for column in left..right {
                sum += u32::from(row[column * self.step + self.offset]);
            }
        }
        let count = u32::try_from((right - left) * (bottom - top)).unwrap_or(u32::MAX);
        // At most 255, as a mean of bytes.
        i32::try_from((sum + count / 2) / count).unwrap_or(255)
    }
}

/// Which of `from` samples sample `at` of `to` covers; at least one.
fn cover(at: usize, to: usize, from: usize) -> (usize, usize) {
    let start = at * from / to;
    (start, ((at + 1) * from / to).max(start + 1))
}

struct Scaled<'a> {
    planes: [Plane<'a>; 3],
    width: u16,
    height: u16,
}

impl<'a> Scaled<'a> {
    fn new(picture: &'a Picture, width: Option<u16>) -> Self {
        let side = |side: u32| u16::try_from(side).unwrap_or(u16::MAX);
        let (full_width, full_height) = (side(picture.size.width), side(picture.size.height));
        let width = width.unwrap_or(full_width).clamp(1, full_width);
        let height = u32::from(full_height) * u32::from(width) / u32::from(full_width);
        let (w, h) = (picture.size.width as usize, picture.size.height as usize);
        let (luma, chroma) = picture.pixels().split_at(w * h);
        let plane = |bytes, offset, step| Plane {
            bytes,
            offset,
            step,
            width: w / 2,
            height: h / 2,
        };
        let [blue, red] = match picture.format {
            PictureFormat::I420 => {
                let (blue, red) = chroma.split_at(chroma.len() / 2);
                [plane(blue, 0, 1), plane(red, 0, 1)]
            }
            PictureFormat::Nv12 => [plane(chroma, 0, 2), plane(chroma, 1, 2)],
        };
        let luma = Plane {
            bytes: luma,
            offset: 0,
            step: 1,
            width: w,
            height: h,
        };
        Self {
            planes: [luma, blue, red],
            width,
            height: side(height).max(1),
        }
    }
}

impl ImageBuffer for Scaled<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.width
    }

    fn height(&self) -> u16 {
        self.height
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let (width, height) = (usize::from(self.width), usize::from(self.height));
        for x in 0..width {
            let [luma, blue, red] = self
                .planes
                .map(|plane| plane.mean(x, usize::from(y), width, height));
            let pixel = full_range_601(luma, blue, red);
            for (buffer, value) in buffers.iter_mut().zip(pixel) {
                buffer.push(value);
            }
        }
    }
}

/// One pixel from BT.709 limited range to BT.601 full range. The factors are the product of the two standards' matrices
/// and the ranges' 255/219 and 255/224, times 65536.
fn full_range_601(luma: i32, blue: i32, red: i32) -> [u8; 3] {
    let (luma, blue, red) = (luma - 16, blue - 128, red - 128);
    let scaled = |sum: i32, zero: i32| {
        let value = ((sum + 32_768) >> 16) + zero;
        u8::try_from(value.clamp(0, 255)).expect("clamped to a byte")
    };
    [
        scaled(76_309 * luma + 7_578 * blue + 14_629 * red, 0),
        scaled(73_848 * blue - 8_255 * red, 128),
        scaled(73_366 * red - 5_405 * blue, 128),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MonotonicTime;
    use crate::picture::{PixelBuffer, Size};
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// Bars of white, red, blue and black in BT.709 limited range.
    fn bars(format: PictureFormat, size: Size) -> Picture {
        let (w, h) = (size.width as usize, size.height as usize);
        let colours = [
            [235, 128, 128],
            [63, 102, 240],
            [32, 240, 118],
            [16, 128, 128],
        ];
        let at = |x: usize, width: usize| colours[x * 4 / width];
        let mut bytes = Vec::new();
        for _ in 0..h {
            bytes.extend((0..w).map(|x| at(x, w)[0]));
        }
        match format {
            PictureFormat::I420 => {
                for plane in [1, 2] {
                    for _ in 0..h / 2 {
                        bytes.extend((0..w / 2).map(|x| at(x, w / 2)[plane]));
                    }
                }
            }
            PictureFormat::Nv12 => {
                for _ in 0..h / 2 {
                    bytes.extend((0..w / 2).flat_map(|x| [at(x, w / 2)[1], at(x, w / 2)[2]]));
                }
            }
        }
        let pixels = PixelBuffer::unpooled(bytes);
        Picture::new(format, size, MonotonicTime(0), pixels)
    }

    fn decode(jpeg: &[u8]) -> Vec<u8> {
        let mut child = Command::new("ffmpeg")
            .args([
                "-v", "error", "-f", "mjpeg", "-i", "-", "-f", "rawvideo", "-pix_fmt", "rgb24", "-",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(jpeg).unwrap();
        child.wait_with_output().unwrap().stdout
    }

    #[test]
    fn colours_survive_in_both_formats_at_every_size() {
        for format in [PictureFormat::I420, PictureFormat::Nv12] {
            let picture = bars(format, Size::new(320, 180));
            for (width, shape) in [
                (None, (320, 180)),
                (Some(160), (160, 90)),
                (Some(640), (320, 180)),
            ] {
                let jpeg = encode(&picture, width).unwrap();
                let rgb = decode(&jpeg);
                assert_eq!(rgb.len(), shape.0 * shape.1 * 3, "{format:?} {width:?}");
                let expected = [[255, 255, 255], [255, 0, 0], [0, 0, 255], [0, 0, 0]];
                for (bar, expected) in expected.into_iter().enumerate() {
                    let x = shape.0 * (2 * bar + 1) / 8;
                    let at = (shape.1 / 2 * shape.0 + x) * 3;
                    for (got, want) in rgb[at..at + 3].iter().zip(expected) {
                        assert!(got.abs_diff(want) < 9, "bar {bar}: {:?}", &rgb[at..at + 3]);
                    }
                }
            }
        }
    }
}
