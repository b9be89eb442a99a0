//! A plane of any depth and sharing, as a plane of 8 bits: each of its samples is the mean of those that it stands for.
//! Pure.

/// What becomes of a plane's samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reduction {
    /// Bytes of a sample; two are little endian.
    pub(super) sample: usize,
    /// Bits that a sample has more than 8, at its lower end.
    pub(super) surplus: u32,
    /// How many samples beside each other become one.
    pub(super) across: usize,
    /// How many above each other.
    pub(super) down: usize,
}

impl Reduction {
    /// Whether samples stay as they are.
    pub(super) fn is_none(self) -> bool {
        self.sample * self.across * self.down == 1
    }

    /// Fills `out`, rows of `width` samples, from `source`, packed rows of `row_bytes` bytes. What is missing at the right and at the bottom
    /// repeats what is there. `sums` is scratch memory.
    pub(super) fn reduce(
        self,
        source: &[u8],
        row_bytes: usize,
        out: &mut [u8],
        width: usize,
        sums: &mut Vec<u32>,
    ) {
        let rows = source.len() / row_bytes;
        for (y, out) in out.chunks_exact_mut(width).enumerate() {
            sums.clear();
            sums.resize(row_bytes / self.sample, 0);
            for row in y * self.down..(y + 1) * self.down {
                let start = row.min(rows - 1) * row_bytes;
                self.add_row(&source[start..start + row_bytes], sums);
            }
            let last = sums.last().copied().unwrap_or_default();
            sums.resize(width * self.across, last);
            self.narrow(sums, out);
        }
    }

    fn add_row(self, row: &[u8], sums: &mut [u32]) {
        if self.sample == 1 {
            for (sum, &sample) in sums.iter_mut().zip(row) {
                *sum += u32::from(sample);
            }
        } else {
            for (sum, sample) in sums.iter_mut().zip(row.chunks_exact(2)) {
                *sum += u32::from(u16::from_le_bytes([sample[0], sample[1]]));
            }
        }
    }

    /// The means, rounded. What a sample holds beyond its depth makes it white and no more.
    fn narrow(self, sums: &[u32], out: &mut [u8]) {
        let samples = self.across * self.down;
        let shift = self.surplus + samples.trailing_zeros();
        let half = (1 << shift) >> 1;
        let narrowed = |sum: u32| ((sum + half) >> shift).min(255).to_le_bytes()[0];
        if self.across == 1 {
            for (out, &sum) in out.iter_mut().zip(sums) {
                *out = narrowed(sum);
            }
        } else {
            for (out, pair) in out.iter_mut().zip(sums.chunks_exact(2)) {
                *out = narrowed(pair[0] + pair[1]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced(
        reduction: Reduction,
        source: &[u8],
        row_bytes: usize,
        width: usize,
        rows: usize,
    ) -> Vec<u8> {
        let mut out = vec![0; width * rows];
        reduction.reduce(source, row_bytes, &mut out, width, &mut Vec::new());
        out
    }

    #[test]
    fn shared_chroma_is_the_mean_of_what_it_stands_for() {
        let quads = Reduction {
            sample: 1,
            surplus: 0,
            across: 2,
            down: 2,
        };
        let source = [10, 20, 200, 30, 41, 200];
        assert_eq!(reduced(quads, &source, 3, 2, 1), [25, 200]);
        let pairs = Reduction { across: 1, ..quads };
        assert_eq!(reduced(pairs, &source, 3, 3, 1), [20, 31, 200]);
        assert_eq!(reduced(pairs, &source, 2, 2, 2), [105, 25, 41, 200]);
    }

    #[test]
    fn deep_samples_are_rounded_and_those_beyond_their_depth_are_white() {
        let ten = Reduction {
            sample: 2,
            surplus: 2,
            across: 1,
            down: 1,
        };
        let source: Vec<u8> = [64_u16, 65, 66, 940, 1023, 65_535]
            .into_iter()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(
            reduced(ten, &source, 12, 8, 1),
            [16, 16, 17, 235, 255, 255, 255, 255]
        );
        let upper = Reduction { surplus: 8, ..ten };
        let source: Vec<u8> = [940_u16 << 6, 64 << 6]
            .into_iter()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(reduced(upper, &source, 4, 2, 2), [235, 16, 235, 16]);
    }
}
