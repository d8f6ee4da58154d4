//! A fuzzer's bytes, read as choices.
//!
//! Owns:   the reading; nothing where the bytes have run out.

/// What is left of the bytes.
#[derive(Clone, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
    }

    /// Up to 255 bytes, their number first.
    pub fn short(&mut self) -> Option<&'a [u8]> {
        let n = usize::from(self.u8()?).min(self.0.len());
        self.take(n)
    }

    /// A number in place of `old`: small, near it, or where numbers run over.
    pub fn number(&mut self, old: u64) -> Option<u64> {
        let way = self.u8()? % 8;
        if way == 7 {
            return self.take(8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        }
        if way == 6 {
            return self.u16().map(u64::from);
        }
        let by = u64::from(self.u8()?);
        Some(match way {
            0 => by,
            1 => old.wrapping_add(by),
            2 => old.wrapping_sub(by),
            3 => u64::MAX - by,
            4 => u64::from(u32::MAX).wrapping_add(by),
            _ => (1 << 62) - 128 + by,
        })
    }

    /// A number of 32 bits, likewise.
    pub fn number_u32(&mut self, old: u32) -> Option<u32> {
        self.number(u64::from(old)).map(|number| (number & u64::from(u32::MAX)) as u32)
    }
}
