//! The bars: what they say, as cells, and back from a picture's luma.
//!
//! The picture is divided into 36 columns and 20 rows of cells; the bars are the first three rows. Each row begins with a white and a black
//! cell and ends with a white and a black one; between them are 32 bits, the highest first, white for 1. The first row is the frame number, the second the upper
//! 32 of the capture time's 48 bits, the third the lower 16 and the CRC.

/// How many columns of cells a picture has.
pub const COLUMNS: u32 = 36;
/// How many rows of cells a picture has; the bars take the first three.
pub const ROWS: u32 = 20;
/// How many rows the bars take.
pub(super) const BAR_ROWS: u32 = 3;
/// How much brighter white cells have to be than black ones.
const MIN_CONTRAST: u32 = 48;

/// What the bars of one frame say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bars {
    /// The frame's number, as the producer counts.
    pub frame_number: u32,
    /// When it was captured: milliseconds since the Unix epoch; 48 bits of it.
    pub captured_ms: u64,
}

impl Bars {
    /// The three rows' bits.
    fn rows(self) -> [u32; 3] {
        let [_, _, a, b, c, d, e, f] = self.captured_ms.to_be_bytes();
        let [crc_high, crc_low] = self.crc().to_be_bytes();
        [
            self.frame_number,
            u32::from_be_bytes([a, b, c, d]),
            u32::from_be_bytes([e, f, crc_high, crc_low]),
        ]
    }

    /// CRC-16/CCITT-FALSE over the frame number's 4 bytes and the time's 6, big endian.
    fn crc(self) -> u16 {
        let number = self.frame_number.to_be_bytes();
        let time = self.captured_ms.to_be_bytes();
        let mut crc = 0xFFFF_u16;
        for byte in number.into_iter().chain(time.into_iter().skip(2)) {
            crc ^= u16::from(byte) << 8;
            for _ in 0..8 {
                crc = if crc & 0x8000 == 0 {
                    crc << 1
                } else {
                    crc << 1 ^ 0x1021
                };
            }
        }
        crc
    }

    /// Whether the cell in `column` of bar row `row` is white.
    pub(super) fn is_white(self, row: u32, column: u32) -> bool {
        match column {
            0 | 34 => true,
            1 | 35 => false,
            _ => self.rows()[row as usize] >> (33 - column) & 1 == 1,
        }
    }
}

/// Where cell `index` of `count` begins in a side of `length` pixels.
pub(super) fn cell_start(index: u32, count: u32, length: u32) -> u32 {
    index * length / count
}

/// Reads the bars from a picture's luma (or any brightness): `height` rows of `width` bytes, `stride` bytes from row to row. The picture may have any size, so long as it
/// shows the whole frame. None when there are no bars, or what they say fails its CRC.
pub fn decode_luma(luma: &[u8], width: u32, height: u32, stride: usize) -> Option<Bars> {
    if width < COLUMNS * 2 || height < ROWS * 2 || width > 1 << 16 || height > 1 << 16 {
        return None;
    }
    let rows_before_last = (height as usize - 1).checked_mul(stride)?;
    let needed = rows_before_last.checked_add(width as usize)?;
    if stride < width as usize || luma.len() < needed {
        return None;
    }
    // The mean over the middle half of a cell, where its neighbours' blur does not reach.
    let brightness = |row: u32, column: u32| {
        let middle = |index: u32, count: u32, length: u32| {
            let start = (4 * index + 1) * length / (4 * count);
            start..((4 * index + 3) * length / (4 * count)).max(start + 1)
        };
        let (mut sum, mut pixels) = (0, 0);
        for y in middle(row, ROWS, height) {
            for x in middle(column, COLUMNS, width) {
                sum += u32::from(luma[y as usize * stride + x as usize]);
                pixels += 1;
            }
        }
        sum / pixels
    };
    let mut rows = [0_u32; 3];
    for (row, bits) in (0..BAR_ROWS).zip(&mut rows) {
        let white = brightness(row, 0).min(brightness(row, 34));
        let black = brightness(row, 1).max(brightness(row, 35));
        if white < black + MIN_CONTRAST {
            return None;
        }
        let threshold = (white + black) / 2;
        for column in 2..34 {
            *bits = *bits << 1 | u32::from(brightness(row, column) > threshold);
        }
    }
    let bars = Bars {
        frame_number: rows[0],
        captured_ms: u64::from(rows[1]) << 16 | u64::from(rows[2] >> 16),
    };
    (u32::from(bars.crc()) == rows[2] & 0xFFFF).then_some(bars)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drawn(bars: Bars, width: u32, height: u32) -> Vec<u8> {
        let mut luma = vec![128; (width * height) as usize];
        for y in 0..cell_start(BAR_ROWS, ROWS, height) {
            for x in 0..width {
                let row = (0..BAR_ROWS).rfind(|&r| cell_start(r, ROWS, height) <= y);
                let column = (0..COLUMNS).rfind(|&c| cell_start(c, COLUMNS, width) <= x);
                let white = bars.is_white(row.unwrap(), column.unwrap());
                luma[(y * width + x) as usize] = if white { 235 } else { 16 };
            }
        }
        luma
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_drawn_is_read_back_at_any_size(
            frame_number in any::<u32>(), captured_ms in 0_u64..1 << 48, width in 72_u32..700, height in 40_u32..400,
        ) {
            let bars = Bars { frame_number, captured_ms };
            let luma = drawn(bars, width, height);
            prop_assert_eq!(decode_luma(&luma, width, height, width as usize), Some(bars));
        }

        #[test]
        fn a_flipped_bit_is_noticed(bit in 0_u32..96) {
            let bars = Bars { frame_number: 12_345, captured_ms: 1_700_000_000_123 };
            let mut luma = drawn(bars, 360, 200);
            let (left, top) = ((bit % 32 + 2) * 10, bit / 32 * 10);
            for y in top..top + 10 {
                for x in left..left + 10 {
                    let pixel = &mut luma[(y * 360 + x) as usize];
                    *pixel = 251 - *pixel;
                }
            }
            prop_assert_eq!(decode_luma(&luma, 360, 200, 360), None);
        }

        #[test]
        fn noise_and_wrong_sizes_are_no_bars(luma in prop::collection::vec(any::<u8>(), 0..9000), width in 0_u32..200, height in 0_u32..100, stride in 0_usize..300) {
            prop_assert_eq!(decode_luma(&luma, width, height, stride), None);
        }
    }

    #[test]
    fn a_plain_picture_has_no_bars() {
        for value in [0, 16, 128, 235] {
            assert_eq!(decode_luma(&vec![value; 320 * 180], 320, 180, 320), None);
        }
    }

    #[test]
    fn the_documented_example_holds() {
        let bars = Bars {
            frame_number: 1,
            captured_ms: 1_700_000_000_000,
        };
        assert_eq!(
            bars.rows(),
            [1, 0x018B_CFE5, 0x6800_0000 | u32::from(bars.crc())]
        );
        // The ten bytes "1234567890".
        assert_eq!(
            Bars {
                frame_number: 0x3132_3334,
                captured_ms: 0x3536_3738_3930
            }
            .crc(),
            0x3218
        );
    }
}
