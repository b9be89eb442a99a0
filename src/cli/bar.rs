//! Bars of block characters.

/// A bar of `width` characters, full at 1; by eighths of a character.
pub(super) fn bar(part: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (0..=8 * width).rev().find(|&eighths| {
        let whole = (8 * width) as f64;
        (eighths as f64) <= part.clamp(0.0, 1.0) * whole + 0.5
    });
    let eighths = eighths.unwrap_or(0);
    let filled = "█".repeat(eighths / 8) + EIGHTHS[eighths % 8];
    let rest = width - filled.chars().count();
    filled + &"·".repeat(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_what_they_show() {
        assert_eq!(bar(0.0, 4), "····");
        assert_eq!(bar(0.5, 4), "██··");
        assert_eq!(bar(0.625, 4), "██▌·");
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(bar(7.0, 4), "████");
        assert_eq!(bar(f64::NAN, 4), "····");
    }
}
