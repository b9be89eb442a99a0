//! Paints the test pattern straight into a frame of any format: a scrolling background, a disc that crosses it, and the bars.
//!
//! The background is painted once, twice as wide as the frame, and each frame copies its rows from another place in it. All else is rectangles.

use std::ops::Range;

use ringgear_ring::format::{FrameFormat, PixelFormat, Plane, Storage};

use super::bars::{BAR_ROWS, Bars, COLUMNS, ROWS, cell_start};

/// A colour, red, green and blue.
type Rgb = [u8; 3];

const WHITE: Rgb = [255; 3];
const BLACK: Rgb = [0; 3];
const DISC: Rgb = [255, 214, 92];
/// The background's colours from left to right; it begins again after the last.
const HUES: [Rgb; 4] = [[24, 52, 96], [34, 120, 128], [116, 76, 140], [176, 92, 84]];
/// How far the background moves in a frame, in pixels; even, for shared chroma.
const SCROLL: usize = 2;

/// Paints test frames of one format.
#[derive(Debug)]
pub struct PatternPainter {
    format: FrameFormat,
    /// Each plane's background rows, each twice the frame's row.
    background: Vec<Vec<u8>>,
}

impl PatternPainter {
    /// A painter of frames of `format`.
    pub fn new(format: FrameFormat) -> Self {
        let planes = format.planes();
        let mut painter = Self {
            background: planes
                .iter()
                .map(|plane| vec![0; plane.row_bytes * 2 * plane.rows])
                .collect(),
            format: format.clone(),
        };
        painter.paint_background();
        painter
    }

    /// The frames' format.
    pub fn format(&self) -> &FrameFormat {
        &self.format
    }

    /// Paints the frame that `bars` says into `frame`, which has to be of the format's bytes. The picture follows from the frame number alone, but for the time in the bars.
    ///
    /// # Panics
    /// If `frame` has another length.
    pub fn paint(&self, bars: Bars, frame: &mut [u8]) {
        assert_eq!(
            frame.len(),
            self.format.bytes(),
            "a frame's bytes follow from its format"
        );
        let (width, height) = (self.format.width(), self.format.height());
        let number = bars.frame_number as usize;
        // Even, also where the background begins again.
        let shift = number * SCROLL % (width as usize & !1);
        let planes = self.format.planes().iter().zip(&self.background);
        for (index, (plane, background)) in planes.enumerate() {
            let shift = bytes_of_pixels(self.format.pixels(), index, shift);
            for (row, source) in background.chunks_exact(plane.row_bytes * 2).enumerate() {
                let start = plane.offset + plane.stride * row;
                frame[start..start + plane.row_bytes]
                    .copy_from_slice(&source[shift..shift + plane.row_bytes]);
            }
        }
        let mut canvas = Canvas {
            format: &self.format,
            frame,
        };
        Self::paint_disc(&mut canvas, width, height, number);
        for row in 0..BAR_ROWS {
            let top = cell_start(row, ROWS, height);
            let bottom = cell_start(row + 1, ROWS, height);
            for column in 0..COLUMNS {
                let left = cell_start(column, COLUMNS, width);
                let right = cell_start(column + 1, COLUMNS, width);
                let colour = if bars.is_white(row, column) {
                    WHITE
                } else {
                    BLACK
                };
                canvas.fill(left..right, top..bottom, colour);
            }
        }
    }

    /// Makes all of `frame` below the bars white: the flash that a clap in the sound goes with.
    ///
    /// # Panics
    /// If `frame` has another length than the format's.
    pub fn flash(&self, frame: &mut [u8]) {
        assert_eq!(frame.len(), self.format.bytes());
        let (width, height) = (self.format.width(), self.format.height());
        let format = &self.format;
        let mut canvas = Canvas { format, frame };
        canvas.fill(0..width, cell_start(BAR_ROWS, ROWS, height)..height, WHITE);
    }

    /// A disc that goes to and fro below the bars.
    fn paint_disc(canvas: &mut Canvas<'_>, width: u32, height: u32, number: usize) {
        let top = cell_start(BAR_ROWS, ROWS, height);
        let radius = (height / 8).min(width / 8);
        // Up to the far side and back again.
        let bounce = |steps: usize, room: u32| {
            let room = room.max(1) as usize;
            let at = steps % (2 * room);
            u32::try_from(at.min(2 * room - at)).unwrap_or(0)
        };
        let centre_x = radius + bounce(number * 6, width.saturating_sub(2 * radius));
        let centre_y = top + radius + bounce(number * 4, (height - top).saturating_sub(2 * radius));
        for y in (0..2 * radius).step_by(2) {
            let off = y.abs_diff(radius);
            let half = (radius * radius - off * off).isqrt();
            let y = centre_y - radius + y;
            canvas.fill(centre_x - half..centre_x + half, y..y + 2, DISC);
        }
    }

    /// The background: hues that run into each other and get darker downwards, with a lattice of lines that shows the movement.
    fn paint_background(&mut self) {
        let (width, height) = (self.format.width(), self.format.height());
        let mut column = vec![0; self.format.bytes()];
        let mut canvas = Canvas {
            format: &self.format,
            frame: &mut column,
        };
        for left in (0..width).step_by(2) {
            let along = left as usize * HUES.len() * 256 / width as usize;
            let (from, to) = (
                HUES[along / 256 % HUES.len()],
                HUES[(along / 256 + 1) % HUES.len()],
            );
            let share = along % 256;
            for top in (0..height).step_by(2) {
                let line = left % 64 < 2 || top % 64 < 2;
                let light = 256 - 128 * top as usize / height as usize + if line { 48 } else { 0 };
                let mix = |i: usize| {
                    let blend = usize::from(from[i]) * (256 - share) + usize::from(to[i]) * share;
                    u8::try_from((blend * light) >> 16).unwrap_or(u8::MAX)
                };
                canvas.fill(left..left + 2, top..top + 2, [mix(0), mix(1), mix(2)]);
            }
        }
        for (plane, background) in self.format.planes().iter().zip(&mut self.background) {
            for (row, target) in background.chunks_exact_mut(plane.row_bytes * 2).enumerate() {
                let start = plane.offset + plane.stride * row;
                let once = &column[start..start + plane.row_bytes];
                target[..plane.row_bytes].copy_from_slice(once);
                target[plane.row_bytes..].copy_from_slice(once);
            }
        }
    }
}

/// A frame to fill rectangles in.
struct Canvas<'a> {
    format: &'a FrameFormat,
    frame: &'a mut [u8],
}

impl Canvas<'_> {
    /// Fills the pixels of `columns` and `rows`, cut at the frame's edges. Shared chroma is taken from the rectangle that covers its first pixel.
    fn fill(&mut self, columns: Range<u32>, rows: Range<u32>, colour: Rgb) {
        let x = columns.start as usize..columns.end.min(self.format.width()) as usize;
        let y = rows.start as usize..rows.end.min(self.format.height()) as usize;
        let (pixels, planes) = (self.format.pixels(), self.format.planes());
        let yuv = bt709(colour);
        let [luma, u, v] = yuv.map(|value| component(pixels, value));
        let shared = |range: &Range<usize>, by| range.start.div_ceil(by)..range.end.div_ceil(by);
        match pixels.storage() {
            Storage::Packed(_) => {
                fill_plane(self.frame, planes[0], x, y, &packed(pixels, colour));
            }
            Storage::Pairs => {
                let luma_at = usize::from(pixels == PixelFormat::Uyvy422);
                fill_pairs(self.frame, planes[0], x, y, yuv, luma_at);
            }
            Storage::Planar { across, down, .. } => {
                let (cx, cy) = (shared(&x, across), shared(&y, down));
                fill_plane(self.frame, planes[0], x, y, &luma);
                fill_plane(self.frame, planes[1], cx.clone(), cy.clone(), &u);
                fill_plane(self.frame, planes[2], cx, cy, &v);
            }
            Storage::SemiPlanar { .. } => {
                let (cx, cy) = (shared(&x, 2), shared(&y, 2));
                fill_plane(self.frame, planes[0], x, y, &luma);
                fill_plane(self.frame, planes[1], cx, cy, &[u, v].concat());
            }
        }
    }
}

/// Fills the pixels of `columns` and `rows` of a frame of `format` with a colour, red, green and blue, as the pattern is painted: for test
/// pictures of any kind. `frame` has to be of the format's bytes. What lies outside of the frame is left out, and
/// chroma that pixels share is taken from the rectangle that covers the first of them.
///
/// # Panics
/// If `frame` has another length.
pub fn fill(
    format: &FrameFormat,
    frame: &mut [u8],
    columns: Range<u32>,
    rows: Range<u32>,
    colour: [u8; 3],
) {
    assert_eq!(
        frame.len(),
        format.bytes(),
        "a frame's bytes follow from its format"
    );
    Canvas { format, frame }.fill(columns, rows, colour);
}

/// How many bytes `count` pixels beside each other, an even number, have in a row of plane `index`.
fn bytes_of_pixels(pixels: PixelFormat, index: usize, count: usize) -> usize {
    match pixels.storage() {
        Storage::Packed(pixel) => count * pixel,
        Storage::Pairs => count * 2,
        Storage::Planar { sample, across, .. } if index > 0 => count / across * sample,
        Storage::Planar { sample, .. } | Storage::SemiPlanar { sample } => count * sample,
    }
}

/// One pixel of a format that is packed.
fn packed(pixels: PixelFormat, [r, g, b]: Rgb) -> Vec<u8> {
    let gray = full_range(bt709([r, g, b])[0]);
    match pixels {
        PixelFormat::Bgr24 => vec![b, g, r],
        PixelFormat::Rgb24 => vec![r, g, b],
        PixelFormat::Bgra => vec![b, g, r, 255],
        PixelFormat::Rgba => vec![r, g, b, 255],
        PixelFormat::Ya8 => vec![gray, 255],
        // The same byte twice: 255 is 65535.
        PixelFormat::Gray16le => vec![gray, gray],
        _ => vec![gray],
    }
}

/// A component of YUV as its format stores it.
fn component(pixels: PixelFormat, value: u8) -> Vec<u8> {
    match pixels {
        PixelFormat::P010le => (u16::from(value) << 8).to_le_bytes().to_vec(),
        PixelFormat::Yuv420p10le | PixelFormat::Yuv422p10le | PixelFormat::Yuv444p10le => {
            (u16::from(value) << 2).to_le_bytes().to_vec()
        }
        _ => vec![value],
    }
}

/// Fills a rectangle of a plane, in units of `unit`.
fn fill_plane(frame: &mut [u8], plane: Plane, x: Range<usize>, y: Range<usize>, unit: &[u8]) {
    if x.is_empty() {
        return;
    }
    for row in y {
        let start = plane.offset + plane.stride * row;
        let target = &mut frame[start + x.start * unit.len()..start + x.end * unit.len()];
        if let [byte] = unit {
            target.fill(*byte);
        } else {
            for pixel in target.chunks_exact_mut(unit.len()) {
                pixel.copy_from_slice(unit);
            }
        }
    }
}

/// Fills a rectangle of packed 4:2:2, where luma lies at the odd or even bytes and chroma between.
fn fill_pairs(
    frame: &mut [u8],
    plane: Plane,
    x: Range<usize>,
    y: Range<usize>,
    [luma, u, v]: [u8; 3],
    luma_at: usize,
) {
    for row in y {
        let start = plane.offset + plane.stride * row;
        let row = &mut frame[start..start + plane.row_bytes];
        for pixel in x.clone() {
            row[pixel * 2 + luma_at] = luma;
            if pixel % 2 == 0 {
                row[pixel * 2 + 1 - luma_at] = u;
                row[pixel * 2 + 3 - luma_at] = v;
            }
        }
    }
}

/// BT.709 limited range Y, Cb, Cr of a colour, in 16-bit fixed point.
fn bt709([r, g, b]: Rgb) -> [u8; 3] {
    let (r, g, b) = (i32::from(r), i32::from(g), i32::from(b));
    let scaled = |sum: i32, offset: i32| {
        u8::try_from((sum + (offset << 16) + (1 << 15)) >> 16).unwrap_or(u8::MAX)
    };
    [
        scaled(11_966 * r + 40_254 * g + 4_064 * b, 16),
        scaled(-6_596 * r - 22_189 * g + 28_785 * b, 128),
        scaled(28_785 * r - 26_145 * g - 2_640 * b, 128),
    ]
}

/// Limited range luma stretched to 0..=255.
fn full_range(luma: u8) -> u8 {
    let stretched = (u32::from(luma).saturating_sub(16) * 255 + 109) / 219;
    u8::try_from(stretched).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::decode_luma;

    /// Brightness of each pixel, whatever the format.
    fn luma_of(format: &FrameFormat, frame: &[u8]) -> Vec<u8> {
        let (step, at) = match format.pixels() {
            PixelFormat::Bgr24 | PixelFormat::Rgb24 => (3, 1),
            PixelFormat::Bgra | PixelFormat::Rgba => (4, 1),
            PixelFormat::Yuyv422 | PixelFormat::Ya8 => (2, 0),
            PixelFormat::Uyvy422 | PixelFormat::Gray16le | PixelFormat::P010le => (2, 1),
            PixelFormat::Yuv420p10le | PixelFormat::Yuv422p10le | PixelFormat::Yuv444p10le => {
                return luma_of_ten_bits(format, frame);
            }
            _ => (1, 0),
        };
        let stride = format.planes()[0].stride;
        let rows = (0..format.height() as usize)
            .map(|row| &frame[row * stride..][..format.width() as usize * step]);
        rows.flat_map(|row| row.iter().skip(at).step_by(step).copied())
            .collect()
    }

    fn luma_of_ten_bits(format: &FrameFormat, frame: &[u8]) -> Vec<u8> {
        let luma = &frame[..format.planes()[0].end()];
        let samples = luma.chunks_exact(2);
        samples
            .map(|sample| (u16::from_le_bytes([sample[0], sample[1]]) >> 2).to_le_bytes()[0])
            .collect()
    }

    #[test]
    fn bars_can_be_read_from_frames_of_every_format() {
        for pixels in PixelFormat::ALL {
            for (width, height) in [(640, 480), (322, 182), (1001, 91)] {
                let format = FrameFormat::packed(pixels, width, height).unwrap();
                let painter = PatternPainter::new(format.clone());
                let mut frame = vec![0; format.bytes()];
                for frame_number in [0, 1, 77, u32::MAX] {
                    let bars = Bars {
                        frame_number,
                        captured_ms: 1_790_000_000_000,
                    };
                    painter.paint(bars, &mut frame);
                    let luma = luma_of(&format, &frame);
                    let decoded = decode_luma(&luma, width, height, width as usize);
                    assert_eq!(decoded, Some(bars), "{format}");
                }
            }
        }
    }

    #[test]
    fn tiny_odd_and_padded_frames_are_painted_without_a_fault() {
        for pixels in PixelFormat::ALL {
            for (width, height) in [(2, 2), (6, 2), (2, 64), (38, 22), (33, 17), (3, 5)] {
                let format = FrameFormat::packed(pixels, width, height).unwrap();
                let mut frame = vec![0; format.bytes()];
                PatternPainter::new(format).paint(Bars::default(), &mut frame);
            }
        }
        let padded = FrameFormat::with_strides(PixelFormat::Nv12, 320, 180, &[384, 384]).unwrap();
        let mut frame = vec![0xEE; padded.bytes()];
        PatternPainter::new(padded).paint(Bars::default(), &mut frame);
        assert!(frame[320..384].iter().all(|&byte| byte == 0xEE));
    }

    #[test]
    fn each_frame_differs_from_the_one_before() {
        let format = FrameFormat::packed(PixelFormat::Yuv420p, 320, 180).unwrap();
        let painter = PatternPainter::new(format.clone());
        let paint = |frame_number| {
            let mut frame = vec![0; format.bytes()];
            let captured_ms = 0;
            painter.paint(
                Bars {
                    frame_number,
                    captured_ms,
                },
                &mut frame,
            );
            frame
        };
        let (one, two) = (paint(1), paint(2));
        let below = 320 * 40;
        let changed = one[below..320 * 180]
            .iter()
            .zip(&two[below..])
            .filter(|(a, b)| a != b)
            .count();
        assert!(changed > 320 * 180 / 50, "{changed} pixels");
        assert_eq!(one, paint(1));
    }

    #[test]
    fn colours_are_bt709_limited() {
        assert_eq!(bt709(WHITE), [235, 128, 128]);
        assert_eq!(bt709(BLACK), [16, 128, 128]);
        assert_eq!(bt709([255, 0, 0]), [63, 102, 240]);
        assert_eq!((full_range(16), full_range(235)), (0, 255));
    }
}
