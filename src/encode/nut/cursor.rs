//! NUT's values: numbers of any length, byte strings, checksums.

use super::NutError;

/// Why parsing stopped short.
pub(super) enum Stop {
    /// The bytes end before the value.
    Short,
    Bad(NutError),
}

pub(super) type Parse<T> = Result<T, Stop>;

impl From<NutError> for Stop {
    fn from(error: NutError) -> Self {
        Self::Bad(error)
    }
}

/// Reads values one after the other.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn take(&mut self, count: usize) -> Parse<&'a [u8]> {
        let bytes = self.bytes[self.at..].get(..count).ok_or(Stop::Short)?;
        self.at += count;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Parse<[u8; N]> {
        let bytes = self.bytes[self.at..].first_chunk().ok_or(Stop::Short)?;
        self.at += N;
        Ok(*bytes)
    }

    /// An unsigned number: seven bits a byte, the highest first.
    pub(super) fn v(&mut self) -> Parse<u64> {
        let mut value = 0_u64;
        loop {
            let [byte] = self.array()?;
            if value >> 57 != 0 {
                return Err(NutError::Frame("a number has more than 64 bits").into());
            }
            value = value << 7 | u64::from(byte & 0x7F);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
    }

    /// A signed number: 0, 1, -1, 2, -2...
    pub(super) fn s(&mut self) -> Parse<i64> {
        let coded = self.v()?;
        let half = i64::try_from(coded.div_ceil(2))
            .map_err(|_| NutError::Frame("a number has more than 64 bits"))?;
        Ok(if coded.is_multiple_of(2) { -half } else { half })
    }

    pub(super) fn vb(&mut self) -> Parse<&'a [u8]> {
        let count = usize::try_from(self.v()?).map_err(|_| Stop::Short)?;
        self.take(count)
    }
}

/// CRC-32 of polynomial 0x04C11DB7, highest bit first, from 0.
pub(super) fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |crc, &byte| {
        let index = crc.to_be_bytes()[0] ^ byte;
        crc << 8 ^ CRC_TABLE[usize::from(index)]
    })
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    let mut seed = 0_u32;
    while index < 256 {
        let mut value = seed << 24;
        let mut bit = 0;
        while bit < 8 {
            value = if value >> 31 == 1 {
                value << 1 ^ 0x04C1_1DB7
            } else {
                value << 1
            };
            bit += 1;
        }
        table[index] = value;
        index += 1;
        seed += 1;
    }
    table
};
