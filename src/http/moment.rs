//! Moments and stretches of a stream's time, as a query names them.

use std::time::Duration;

use crate::tick::UnixTime;

/// No clip is longer: what a viewer asks for at once stays bounded.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);
/// How far a viewer's clock may be ahead of ours.
const AHEAD: Duration = Duration::from_secs(2);

/// Why a query names no moment or stretch that there can be. The text is for who asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MomentError {
    #[error("{0} is missing: write {0}=2026-11-23T07:03:12Z, or the seconds since 1970")]
    Missing(&'static str),
    #[error(
        "{key} is {value:?}, which is no time: write it like 2026-11-23T07:03:12Z, 2026-11-23T08:03:12.5+01:00 or 1795416192.5"
    )]
    NoTime { key: &'static str, value: String },
    #[error("last is {0:?}, which is no length of time: write it like 30s or 5m")]
    NoLength(String),
    #[error("write either last, or from and to")]
    Both,
    #[error("to ({to}) is not after from ({from}): swap them, or ask for more")]
    Empty { from: UnixTime, to: UnixTime },
    #[error("{key} ({time}) is in the future: it is {now} here")]
    Future {
        key: &'static str,
        time: UnixTime,
        now: UnixTime,
    },
    #[error("{} are asked for, and a clip has at most {}: ask for it in pieces", humantime::format_duration(*.0), humantime::format_duration(LONGEST))]
    TooLong(Duration),
}

/// The value of `key` in `query`, without its escapes.
pub(super) fn value(query: Option<&str>, key: &str) -> Option<String> {
    let fields = query?.split('&').filter_map(|field| field.split_once('='));
    let (_, value) = { fields }.find(|(name, _)| *name == key)?;
    Some(unescaped(value))
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|_| *first == b'%');
        let byte = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The moment that `key` of `query` names: none without it.
pub(super) fn moment(
    query: Option<&str>,
    key: &'static str,
    now: UnixTime,
) -> Result<Option<UnixTime>, MomentError> {
    let Some(value) = value(query, key) else {
        return Ok(None);
    };
    let Some(time) = parse(&value) else {
        let value = value.chars().take(64).collect();
        return Err(MomentError::NoTime { key, value });
    };
    if time > now.saturating_add(AHEAD) {
        return Err(MomentError::Future { key, time, now });
    }
    Ok(Some(time))
}

/// The stretch that `query` names: `from` and `to`, or the `last` so much.
pub(super) fn stretch(
    query: Option<&str>,
    now: UnixTime,
) -> Result<(UnixTime, UnixTime), MomentError> {
    let from = moment(query, "from", now)?;
    let to = moment(query, "to", now)?;
    let (from, to) = match (value(query, "last"), from, to) {
        (None, Some(from), Some(to)) => (from, to),
        (None, None, _) => return Err(MomentError::Missing("from")),
        (None, _, None) => return Err(MomentError::Missing("to")),
        (Some(last), None, None) => {
            let length = humantime::parse_duration(&last);
            let length =
                length.map_err(|_| MomentError::NoLength(last.chars().take(64).collect()))?;
            (now.saturating_sub(length), now)
        }
        (Some(_), ..) => return Err(MomentError::Both),
    };
    if from >= to {
        return Err(MomentError::Empty { from, to });
    }
    let length = to.saturating_since(from);
    if length > LONGEST {
        return Err(MomentError::TooLong(length));
    }
    Ok((from, to))
}

/// A time in RFC 3339, in any zone, or in seconds since 1970.
fn parse(text: &str) -> Option<UnixTime> {
    let seconds = text.strip_suffix('.').is_none()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if seconds {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let nanos = format!("{fraction:0<9}");
        let nanos: u64 = nanos.get(..9)?.parse().ok()?;
        let seconds: u64 = whole.parse().ok()?;
        return Some(UnixTime::from_nanos(
            seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?,
        ));
    }
    if text.ends_with(['Z', 'z']) {
        return of_utc(text);
    }
    let (local, zone) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = Duration::from_secs(hours * 3600 + minutes * 60);
    let local = of_utc(&format!("{local}Z"))?;
    match zone.as_bytes().first()? {
        // A plus that was not escaped is a space.
        b'+' | b' ' => Some(local.saturating_sub(offset)),
        b'-' => Some(local.saturating_add(offset)),
        _ => None,
    }
}

fn of_utc(text: &str) -> Option<UnixTime> {
    let time = humantime::parse_rfc3339(text).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(UnixTime::from_nanos(u64::try_from(since.as_nanos()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_795_416_192);

    #[test]
    fn a_time_is_written_in_any_zone_or_in_seconds() {
        for text in [
            "2026-11-23T06:43:12Z",
            "2026-11-23T06%3A43%3A12Z",
            "2026-11-23T07:43:12+01:00",
            "2026-11-23T07:43:12%2B01:00",
            "2026-11-23T07:43:12 01:00",
            "2026-11-23T01:13:12-05:30",
            "1795416192",
            "1795416192.0",
        ] {
            let query = format!("width=3&at={text}");
            assert_eq!(moment(Some(&query), "at", NOW), Ok(Some(NOW)), "{text}");
        }
        let half = moment(Some("at=1795416190.5"), "at", NOW).unwrap();
        assert_eq!(half, Some(NOW.saturating_sub(Duration::from_millis(1500))));
        assert_eq!(moment(Some("a=1"), "at", NOW), Ok(None));
    }

    #[test]
    fn what_is_no_stretch_is_told_with_its_mend() {
        for (query, told) in [
            ("", "from is missing"),
            ("from=1795416100", "to is missing"),
            ("from=x&to=1795416100", "no time"),
            ("from=&to=1795416100", "no time"),
            ("from=1795416100&to=1795416100", "not after"),
            ("from=1795416100&to=1795416000", "not after"),
            ("from=1795416100&to=1795416292", "in the future"),
            ("from=1795400000&to=1795416100", "in pieces"),
            ("from=99999999999999999999&to=1795416100", "no time"),
            ("from=2026-11-23T06:43:12%2B99:00&to=1795416100", "no time"),
            ("last=x", "no length"),
            ("last=0s", "not after"),
            ("last=30s&to=1795416100", "either"),
        ] {
            let error = stretch(Some(query), NOW).unwrap_err().to_string();
            assert!(error.contains(told), "{query}: {error}");
        }
        let before = NOW.saturating_sub(Duration::from_secs(30));
        assert_eq!(stretch(Some("last=30s"), NOW), Ok((before, NOW)));
    }
}
