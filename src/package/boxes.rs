//! Writes boxes (ISO/IEC 14496-12, 4.2) into one buffer. Sizes are filled in when a box ends, so that
//! writing reads like the boxes' nesting.

use std::collections::TryReserveError;

/// A buffer of boxes.
pub(super) struct BoxWriter {
    bytes: Vec<u8>,
}

impl BoxWriter {
    /// A buffer with room for `capacity` bytes, which are few; more is allocated when needed.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
        }
    }

    /// The same for as many bytes as there may be.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(super) fn try_with_capacity(capacity: usize) -> Result<Self, TryReserveError> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(capacity)?;
        Ok(Self { bytes })
    }

    /// The boxes written.
    pub(super) fn into_bytes(self) -> bytes::Bytes {
        bytes::Bytes::from(self.bytes)
    }

    /// How many bytes are written.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A box of type `kind` whose payload `body` writes.
    pub(super) fn container(&mut self, kind: [u8; 4], body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.u32(0);
        self.raw(&kind);
        body(self);
        let size = u32::try_from(self.bytes.len() - start).expect(
            "no box reaches 4 GiB: parts are bounded, and a sample entry is an encoder's few bytes",
        );
        self.bytes[start..start + 4].copy_from_slice(&size.to_be_bytes());
    }

    /// A full box (ISO/IEC 14496-12, 4.2.2): a box with a version and 24 bits of flags before its payload.
    pub(super) fn full(
        &mut self,
        kind: [u8; 4],
        version: u8,
        flags: u32,
        body: impl FnOnce(&mut Self),
    ) {
        self.container(kind, |b| {
            b.u32(u32::from(version) << 24 | flags & 0x00ff_ffff);
            body(b);
        });
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    pub(super) fn zeros(&mut self, count: usize) {
        self.bytes.resize(self.bytes.len() + count, 0);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_cant_be_had_is_an_error() {
        assert!(BoxWriter::try_with_capacity(usize::MAX >> 1).is_err());
    }
}
