//! Frames of every format, in ordinary memory.

use ringgear_producer::pattern::fill;

use super::*;

/// A frame in ordinary memory.
pub(super) struct Memory(pub(super) FrameFormat, pub(super) Vec<u8>);

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

/// A frame of one colour, given as RGB.
fn solid(pixels: PixelFormat, width: u32, height: u32, rgb: [u8; 3]) -> Memory {
    let format = FrameFormat::packed(pixels, width, height).unwrap();
    let mut bytes = vec![0; format.bytes()];
    fill(&format, &mut bytes, 0..width, 0..height, rgb);
    Memory(format, bytes)
}

// BT.709 limited: red, green, blue, white, black (ITU-R BT.709-6, item 3).
const COLOURS: [([u8; 3], [u8; 3]); 5] = [
    ([255, 0, 0], [63, 102, 240]),
    ([0, 255, 0], [173, 42, 26]),
    ([0, 0, 255], [32, 240, 118]),
    ([255, 255, 255], [235, 128, 128]),
    ([0, 0, 0], [16, 128, 128]),
];

pub(super) fn is_gray(pixels: PixelFormat) -> bool {
    matches!(
        pixels,
        PixelFormat::Gray | PixelFormat::Ya8 | PixelFormat::Gray16le
    )
}

/// The picture is of one colour throughout.
fn assert_colour(picture: &Picture, yuv: [u8; 3], what: &str) {
    let pixels = (picture.size.width * picture.size.height) as usize;
    let (luma, chroma) = picture.pixels().split_at(pixels);
    let (u, v): (Vec<u8>, Vec<u8>) = match picture.format {
        PictureFormat::Nv12 => chroma.chunks_exact(2).map(|uv| (uv[0], uv[1])).unzip(),
        PictureFormat::I420 => {
            let (u, v) = chroma.split_at(chroma.len() / 2);
            (u.to_vec(), v.to_vec())
        }
    };
    for (name, plane, wanted) in [("Y", luma, yuv[0]), ("U", &u, yuv[1]), ("V", &v, yuv[2])] {
        let far = plane.iter().position(|value| value.abs_diff(wanted) > 2);
        assert_eq!(far, None, "{what}: {name} is not {wanted}: {plane:?}");
    }
}

#[test]
fn every_format_comes_out_in_its_colour_and_odd_sides_are_padded_with_their_last_pixels() {
    for pixels in PixelFormat::ALL {
        for (rgb, yuv) in COLOURS {
            if is_gray(pixels) && yuv[1] != 128 {
                continue;
            }
            for (width, height) in [(34, 18), (33, 18), (34, 17), (33, 17), (3, 3)] {
                let frame = solid(pixels, width, height, rgb);
                let mut converter = Converter::new(frame.0.clone());
                let picture = converter.convert(&frame, MonotonicTime(7)).unwrap();
                assert_eq!(picture.size, Size::new(width, height).padded_to_even());
                assert_eq!(picture.captured, MonotonicTime(7));
                assert_colour(&picture, yuv, &format!("{} {rgb:?}", frame.0));
            }
        }
    }
}

#[test]
fn stripes_join_without_a_seam() {
    for pixels in PixelFormat::ALL {
        // Taller than a stripe in every format.
        let (width, height) = (512, 1027);
        let format = FrameFormat::packed(pixels, width, height).unwrap();
        let mut bytes = vec![0; format.bytes()];
        for top in (0..height).step_by(4) {
            fill(&format, &mut bytes, 0..width, top..top + 2, [40; 3]);
            fill(&format, &mut bytes, 0..width, top + 2..top + 4, [200; 3]);
        }
        let frame = Memory(format, bytes);
        let mut converter = Converter::new(frame.0.clone());
        let picture = converter.convert(&frame, MonotonicTime(0)).unwrap();
        let luma = &picture.pixels()[..(width * (height + 1)) as usize];
        for (row, luma) in luma.chunks(width as usize).enumerate() {
            let wanted = if row % 4 < 2 { 50 } else { 188 };
            let far = luma.iter().find(|y| y.abs_diff(wanted) > 2);
            assert_eq!(far, None, "{pixels} row {row}");
        }
    }
}
