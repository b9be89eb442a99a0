//! What recordings are called: by when they began.

use crate::tick::UnixTime;

/// What a recording that begins at `time` is called: `20261123t070312z`.
pub(crate) fn name_at(time: UnixTime) -> String {
    let text = time.rfc3339();
    let digits: String = text
        .chars()
        .take_while(|c| *c != '.')
        .filter(|c| c.is_ascii_digit() || *c == 'T')
        .collect();
    digits.to_ascii_lowercase() + "z"
}

/// Sorts names by when their recordings began.
pub(crate) fn age_key(name: &str) -> (String, u32) {
    let (time, number) = name.split_once('-').unwrap_or((name, "1"));
    (time.to_owned(), number.parse().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http;

    #[test]
    fn a_recording_is_named_by_the_second_in_which_it_began_and_later_ones_sort_after_it() {
        let time = UnixTime::from_secs(1_795_416_192);
        let name = name_at(time.saturating_add(Duration::from_millis(345)));
        assert_eq!(name, "20261123t064312z");
        assert!(http::is_recording(&name) && http::is_recording(&format!("{name}-2")));
        let mut names = [format!("{name}-10"), format!("{name}-2"), name.clone()];
        names.sort_by_key(|name| age_key(name));
        assert_eq!(
            names,
            [name.clone(), format!("{name}-2"), format!("{name}-10")]
        );
    }
}
