//! Numbers as bytes (LEB128), and taking bytes apart: everything that is read is checked.

/// Puts a number as LEB128.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_all(out: &mut Vec<u8>, values: &[u64]) {
    for value in values {
        put(out, *value);
    }
}

/// The low seven bits of each byte, side by side.
fn squeeze(word: u64) -> u64 {
    let word = word & 0x7f7f_7f7f_7f7f_7f7f;
    let word = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = word & 0x0000_3fff_0000_3fff | (word & 0x3fff_0000_3fff_0000) >> 2;
    word & 0x0fff_ffff | (word & 0x0fff_ffff_0000_0000) >> 4
}

/// A number of any length, and what follows it. By value, so that the rest of a record can stay in
/// registers.
#[cold]
fn any_number(mut input: &[u8]) -> Result<(u64, &[u8]), &'static str> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or(TOO_SHORT)?;
        input = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            break;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Ok((value, input));
        }
    }
    Err("a number that is too large")
}

const TOO_SHORT: &str = "it ends too early";

/// What is left of a record.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?[0])
    }

    #[inline(always)]
    pub(crate) fn number(&mut self) -> Result<u64, &'static str> {
        // Recovery reads millions of numbers, and nearly all of them end within eight bytes: those
        // eight are taken at once.
        if let Some(bytes) = self.0.first_chunk() {
            let word = u64::from_le_bytes(*bytes);
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                let len = ends.trailing_zeros() as usize / 8 + 1;
                self.0 = &self.0[len..];
                return Ok(squeeze(word & (u64::MAX >> (64 - 8 * len))));
            }
        }
        let (value, rest) = any_number(self.0)?;
        self.0 = rest;
        Ok(value)
    }

    /// Takes a number that is at most `max`.
    #[inline]
    pub(crate) fn up_to(&mut self, max: usize) -> Result<usize, &'static str> {
        let value = self.number()?;
        if value <= max as u64 { Ok(value as usize) } else { Err("a place that does not lie in a page") }
    }

    /// Takes the number of a type of the user's.
    pub(crate) fn type_number(&mut self) -> Result<u16, &'static str> {
        u16::try_from(self.number()?).map_err(|_| "a type that cannot be")
    }
}
