//! The config's kinds of values: each is read from TOML by itself, and says what to write instead when it is refused.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use crate::picture::Size;
use crate::tick::Framerate;

/// The longest text that any value may have, in bytes.
const MAX_TEXT: usize = 4096;

/// A kind of value. `Err` says what to write instead; none: [`Kind::write`].
pub(super) trait Kind: Sized {
    /// What to write: follows "write".
    fn write() -> String;

    fn from_text(_text: &str) -> Result<Self, Refused> {
        Err(Refused::Type)
    }

    fn from_whole(_number: i64) -> Result<Self, Refused> {
        Err(Refused::Type)
    }

    fn from_decimal(_number: f64) -> Result<Self, Refused> {
        Err(Refused::Type)
    }

    fn from_flag(_flag: bool) -> Result<Self, Refused> {
        Err(Refused::Type)
    }
}

/// Why a kind refuses a value.
pub(super) enum Refused {
    /// Such a value can't be this kind at all.
    Type,
    /// The value is not one of the kind.
    Value,
    /// The same, and this is what to write instead.
    Write(String),
}

/// A value of kind `T`, read from TOML.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read<T>(pub(super) T);

impl<'de, T: Kind> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor(PhantomData))
    }
}

struct KindVisitor<T>(PhantomData<T>);

impl<T: Kind> KindVisitor<T> {
    fn read<E: Error>(result: Result<T, Refused>, given: Unexpected<'_>) -> Result<Read<T>, E> {
        result.map(Read).map_err(|refused| match refused {
            Refused::Type => E::invalid_type(given, &T::write().as_str()),
            Refused::Value => E::invalid_value(given, &T::write().as_str()),
            Refused::Write(write) => E::invalid_value(given, &write.as_str()),
        })
    }
}

impl<T: Kind> Visitor<'_> for KindVisitor<T> {
    type Value = Read<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&T::write())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let result = if text.len() > MAX_TEXT || text.contains('\0') {
            Err(Refused::Write(format!(
                "text of at most {MAX_TEXT} bytes, without a NUL"
            )))
        } else {
            T::from_text(text)
        };
        Self::read(result, Unexpected::Str(text))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Self::read(T::from_whole(number), Unexpected::Signed(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Self::read(T::from_decimal(number), Unexpected::Float(number))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Self::Value, E> {
        Self::read(T::from_flag(flag), Unexpected::Bool(flag))
    }
}

/// True or false.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag(pub(super) bool);

impl Kind for Flag {
    fn write() -> String {
        "true or false, without quotes".into()
    }

    fn from_flag(flag: bool) -> Result<Self, Refused> {
        Ok(Self(flag))
    }
}

/// Text that is not empty.
#[derive(Clone, Debug)]
pub(super) struct Text(pub(super) String);

impl Kind for Text {
    fn write() -> String {
        "text in quotes, not empty".into()
    }

    fn from_text(text: &str) -> Result<Self, Refused> {
        if text.is_empty() {
            return Err(Refused::Value);
        }
        Ok(Self(text.to_owned()))
    }
}

/// A length of time from `MIN` to `MAX` milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Length<const MIN: u64, const MAX: u64>(pub(super) Duration);

impl<const MIN: u64, const MAX: u64> Kind for Length<MIN, MAX> {
    fn write() -> String {
        let show = |millis| humantime::format_duration(Duration::from_millis(millis)).to_string();
        format!(
            "a length of time from {} to {} in quotes, like \"2s\", \"333ms\" or \"1m30s\"",
            show(MIN),
            show(MAX)
        )
    }

    fn from_text(text: &str) -> Result<Self, Refused> {
        let length = humantime::parse_duration(text).map_err(|_| Refused::Value)?;
        if length < Duration::from_millis(MIN) || length > Duration::from_millis(MAX) {
            return Err(Refused::Value);
        }
        Ok(Self(length))
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<const MIN: u32, const MAX: u32> Kind for Whole<MIN, MAX> {
    fn write() -> String {
        format!("a whole number from {MIN} to {MAX}, without quotes")
    }

    fn from_whole(number: i64) -> Result<Self, Refused> {
        match u32::try_from(number) {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => Err(Refused::Value),
        }
    }
}

/// An amount of memory from `MIN` to `MAX` bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<const MIN: u64, const MAX: u64>(pub(super) u64);

/// The units of an amount of memory, largest first.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// An amount of memory in the largest unit that it is a whole number of.
fn show_bytes(bytes: u64) -> String {
    let unit = UNITS
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match unit {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

impl<const MIN: u64, const MAX: u64> Bytes<MIN, MAX> {
    fn checked(bytes: u64) -> Result<Self, Refused> {
        if (MIN..=MAX).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(Refused::Value)
        }
    }
}

impl<const MIN: u64, const MAX: u64> Kind for Bytes<MIN, MAX> {
    fn write() -> String {
        format!(
            "{} to {} of memory, like \"64KiB\", \"256MiB\", \"2GiB\" or 1048576",
            show_bytes(MIN),
            show_bytes(MAX)
        )
    }

    fn from_text(text: &str) -> Result<Self, Refused> {
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
            .unwrap_or((text, 1));
        let number = number.trim_end();
        if number.is_empty() || number.bytes().any(|b| !b.is_ascii_digit()) {
            return Err(Refused::Value);
        }
        let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
        Self::checked(bytes.ok_or(Refused::Value)?)
    }

    fn from_whole(number: i64) -> Result<Self, Refused> {
        Self::checked(u64::try_from(number).map_err(|_| Refused::Value)?)
    }
}

impl Kind for Framerate {
    fn write() -> String {
        "1 to 240 frames per second, like 30, 29.97 or \"30000/1001\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Refused> {
        text.parse().map_err(|_| Refused::Value)
    }

    fn from_whole(number: i64) -> Result<Self, Refused> {
        Self::from_text(&number.to_string())
    }

    fn from_decimal(number: f64) -> Result<Self, Refused> {
        Self::from_text(&number.to_string())
    }
}

impl Kind for SocketAddr {
    fn write() -> String {
        "an IP address and a port in quotes, like \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::]:8080\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Refused> {
        text.parse().map_err(|_| Refused::Value)
    }
}

/// A file's permission bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode(pub(super) u32);

impl Kind for Mode {
    fn write() -> String {
        "the permissions as octal digits in quotes, like \"0660\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Refused> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        if digits.is_empty() || digits.len() > 4 || digits.bytes().any(|b| !b.is_ascii_digit()) {
            return Err(Refused::Value);
        }
        let mode = u32::from_str_radix(digits, 8).map_err(|_| Refused::Value)?;
        if mode > 0o777 {
            return Err(Refused::Write("permissions up to \"0777\"".into()));
        }
        if mode & 0o600 != 0o600 {
            let write = "a mode that lets the daemon's own user read and write, like \"0660\"";
            return Err(Refused::Write(write.into()));
        }
        Ok(Self(mode))
    }
}

/// Bits per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits(pub(super) u64);

impl Bits {
    fn checked(bits: u64) -> Result<Self, Refused> {
        if (16_000..=1_000_000_000).contains(&bits) {
            Ok(Self(bits))
        } else {
            Err(Refused::Value)
        }
    }
}

impl Kind for Bits {
    fn write() -> String {
        "16k to 1000M bits per second, like \"2500k\", \"2.5M\" or 2500000".into()
    }

    fn from_text(text: &str) -> Result<Self, Refused> {
        let (number, unit) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (&text[..text.len() - 1], 1000),
            Some(b'm' | b'M') => (&text[..text.len() - 1], 1_000_000),
            _ => (text, 1),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| {
            let good = (1..=9).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            good.then(|| part.parse::<u64>().ok()).flatten()
        };
        let (Some(above), Some(below)) = (digits(whole), digits(fraction)) else {
            return Err(Refused::Value);
        };
        let scale = 10_u64.pow(u32::try_from(fraction.len()).unwrap_or(9));
        Self::checked(above * unit + below * unit / scale)
    }

    fn from_whole(number: i64) -> Result<Self, Refused> {
        Self::checked(u64::try_from(number).map_err(|_| Refused::Value)?)
    }
}

/// The smallest and largest side of a rendition in pixels.
const SIDES: std::ops::RangeInclusive<u32> = 2..=ringgear_ring::format::MAX_DIMENSION;

impl Kind for Size {
    fn write() -> String {
        "width x height in pixels, like \"1280x720\"".into()
    }

    fn from_text(text: &str) -> Result<Self, Refused> {
        let size: Self = text.parse().map_err(|_| Refused::Value)?;
        if !SIDES.contains(&size.width) || !SIDES.contains(&size.height) {
            let write = format!("sides from {} to {} pixels", SIDES.start(), SIDES.end());
            return Err(Refused::Write(write));
        }
        if !size.is_even() {
            let write = format!("even sides, like \"{}\"", size.padded_to_even());
            return Err(Refused::Write(write));
        }
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitrates_are_read_as_people_write_them() {
        for (text, bits) in [
            ("2500k", Some(2_500_000)),
            ("2.5M", Some(2_500_000)),
            ("2.5m", Some(2_500_000)),
            ("2500000", Some(2_500_000)),
            ("0.016M", Some(16_000)),
            ("1000M", Some(1_000_000_000)),
            ("1000.5M", None),
            ("15k", None),
            ("", None),
            ("k", None),
            ("-5M", None),
            ("2.5.5M", None),
            (".5M", None),
            ("5.M", None),
            ("2500kbit", None),
            ("99999999999999999999M", None),
        ] {
            assert_eq!(Bits::from_text(text).ok().map(|b| b.0), bits, "{text}");
        }
    }

    #[test]
    fn memory_is_read_as_people_write_it() {
        for (text, bytes) in [
            ("64KiB", Some(65_536)),
            ("256 MiB", Some(256 << 20)),
            ("2GiB", Some(2 << 30)),
            ("1024", Some(1024)),
            ("1023", None),
            ("5GiB", None),
            ("1GB", None),
            ("1.5GiB", None),
            ("GiB", None),
            ("-1MiB", None),
            ("99999999999999999999GiB", None),
            ("18014398509481985KiB", None),
        ] {
            let read = Bytes::<1024, { 4 << 30 }>::from_text(text);
            assert_eq!(read.ok().map(|b| b.0), bytes, "{text}");
        }
        assert_eq!(show_bytes(64 << 10), "64KiB");
        assert_eq!(show_bytes(1000), "1000");
    }

    #[test]
    fn modes_are_octal_and_let_the_daemon_in() {
        for (text, mode) in [
            ("0660", Some(0o660)),
            ("666", Some(0o666)),
            ("0o600", Some(0o600)),
            ("0680", None),
            ("0440", None),
            ("4755", None),
            ("+660", None),
            ("", None),
        ] {
            assert_eq!(Mode::from_text(text).ok().map(|m| m.0), mode, "{text}");
        }
    }
}
