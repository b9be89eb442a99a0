//! The tables of docs/protocol.md are what the code has: each word of the memory at its offset, each pixel format with its planes.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use ringgear_ring::format::{FrameFormat, PixelFormat};
use ringgear_ring::layout::{self, Layout, Policy, SlotFormat};
use ringgear_ring::sound::{SampleFormat, SoundFormat};

fn page() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
    std::fs::read_to_string(page).unwrap()
}

/// The cells of the table that begins with `heading`.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let rows = page
        .lines()
        .skip_while(|line| !line.starts_with(heading))
        .skip(2);
    let cells = |row: &str| {
        // A bar with a backslash is a bar in a cell.
        let row = row.replace("\\|", "\u{0}");
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    rows.take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect()
}

/// The names in backquotes.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_word_is_where_the_page_says() {
    let page = page();
    let mut documented = BTreeMap::new();
    for row in table(&page, "| offset | word |") {
        let (offset, word) = (&row[0], names(&row[1]));
        if let Some(first) = offset.strip_suffix(" + 32p") {
            let first: usize = first.parse().unwrap();
            for plane in 0..3 {
                for (place, name) in word.iter().enumerate() {
                    let name = match name.strip_prefix("plane{p}") {
                        Some(rest) => format!("plane{plane}{rest}"),
                        None => format!("plane{plane}{name}"),
                    };
                    documented.insert(name, first + 32 * plane + 8 * place);
                }
            }
        } else if let Some(within) = offset.strip_prefix("4096 + 128i") {
            let within = within.strip_prefix(" + ").unwrap_or("0").parse().unwrap();
            let name = word.first().map_or("slot", |name| name);
            documented.insert(name.to_owned(), within);
        } else if !offset.starts_with('`') {
            for (offset, name) in offset.split(", ").zip(word) {
                documented.insert(name.to_owned(), offset.parse().unwrap());
            }
        }
    }

    let format = FrameFormat::packed(PixelFormat::Yuv420p, 64, 48).unwrap();
    let layout = Layout::new(&format, 3).unwrap();
    let fixed = layout
        .header_words()
        .map(|word| (word.name.to_owned(), word.offset));
    let sound = SoundFormat::new(SampleFormat::S16le, 44_100, 1).unwrap();
    let of_sound = Layout::new(&sound, 3).unwrap().header_words();
    let of_sound: BTreeMap<_, _> = of_sound
        .map(|word| (word.name.to_owned(), word.offset))
        .collect();
    let live = [
        ("committed", layout::COMMITTED),
        ("superseded", layout::SUPERSEDED),
        ("writer_waits", layout::WRITER_WAITS),
        ("taken", layout::TAKEN),
        ("reader_waits", layout::READER_WAITS),
        ("freed", layout::FREED),
        ("slot", layout::SLOT_WORD),
        ("frame_number", layout::SLOT_FRAME_NUMBER),
        ("captured", layout::SLOT_CAPTURED),
        ("block_bytes", layout::SLOT_BLOCK_BYTES),
    ];
    let live = live.map(|(name, offset)| (name.to_owned(), offset));
    assert_eq!(documented, fixed.chain(of_sound).chain(live).collect());
    assert_eq!(
        (layout::SLOT_HEADERS, layout::SLOT_HEADER_BYTES),
        (4096, 128)
    );
    assert_eq!(layout.data_offset(), 8192);
    for policy in [Policy::Latest, Policy::Lossless] {
        let said = format!("{}: {policy:?}", policy.code()).to_lowercase();
        assert!(page.contains(&said), "the page does not say {said}");
    }
}

/// What `3W`, `2w` or `h` comes to.
fn length(text: &str, width: usize, height: usize) -> usize {
    let (times, side) = text.split_at(text.len() - 1);
    let side = match side {
        "W" => width,
        "H" => height,
        "w" => width.div_ceil(2),
        "h" => height.div_ceil(2),
        other => panic!("'{other}' is no side"),
    };
    let times: usize = if times.is_empty() {
        1
    } else {
        times.parse().unwrap()
    };
    times * side
}

#[test]
fn every_pixel_format_is_as_the_page_says() {
    let rows = table(&page(), "| name | code |");
    assert_eq!(rows.len(), PixelFormat::ALL.len());
    for (row, (width, height)) in rows
        .iter()
        .flat_map(|row| [(row, (64, 48)), (row, (63, 47))])
    {
        let pixels = PixelFormat::from_name(names(&row[0])[0]).unwrap();
        assert_eq!(row[1], pixels.code().to_string());
        let format = FrameFormat::packed(pixels, width, height).unwrap();
        let (width, height) = (width as usize, height as usize);
        let planes = row[2].split("; ").map(|plane| {
            let (bytes, rest) = plane.split_once(" x ").unwrap();
            let rows = rest.split_once(':').unwrap().0;
            (length(bytes, width, height), length(rows, width, height))
        });
        let actual = format
            .planes()
            .iter()
            .map(|plane| (plane.row_bytes, plane.rows));
        assert_eq!(
            planes.collect::<Vec<_>>(),
            actual.collect::<Vec<_>>(),
            "{format}"
        );
    }
}

#[test]
fn every_sound_format_is_as_the_page_says() {
    let rows = table(&page(), "| name of a sound format |");
    assert_eq!(rows.len(), SampleFormat::ALL.len());
    for row in rows {
        let samples = SampleFormat::from_name(names(&row[0])[0]).unwrap();
        assert_eq!(row[1], samples.code().to_string());
        assert_eq!(row[2], samples.bytes().to_string());
        // A slot holds what the page says: an eighth of a second, rounded up.
        let format = SoundFormat::new(samples, 44_100, 3).unwrap();
        assert_eq!(format.bytes(), 5513 * 3 * samples.bytes());
    }
    assert!(page().contains("samples in a slot: `rate / 8`, rounded up"));
}
