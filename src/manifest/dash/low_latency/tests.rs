use roxmltree::{Document, Node};

use super::*;
use crate::manifest::dash::UtcTiming;
use crate::manifest::testing::{ONE_TRACK, TWO_TRACKS, grid, open, period, segment, snapshot};

fn origin() -> MpdOptions {
    MpdOptions {
        utc_timing: UtcTiming::HttpIso("time".to_owned()),
    }
}

fn all<'a, 'i>(document: &'a Document<'i>, name: &str) -> Vec<Node<'a, 'i>> {
    let nodes = document.descendants();
    nodes
        .filter(|node| node.tag_name().name() == name)
        .collect()
}

#[test]
fn rule_33_what_low_latency_players_need_is_said() {
    // Segments of 60 ticks, parts of 15.
    let period = period(grid("30", 60), 54_000_000_000, false, "a", TWO_TRACKS);
    let listed = [segment(&period, 54_000_000_060, 54_000_000_120, false)];
    let text = mpd_low_latency(&snapshot(TWO_TRACKS, &listed), &origin());
    let document = Document::parse(&text).unwrap();
    let latency = all(&document, "Latency");
    assert_eq!(latency[0].attribute("target"), Some("2000"), "{text}");
    assert_eq!(all(&document, "PlaybackRate").len(), 1);
    let reference = &all(&document, "ProducerReferenceTime")[0];
    assert_eq!(reference.attribute("type"), Some("captured"));
    assert_eq!(
        reference.attribute("wallClockTime"),
        Some("2027-01-15T08:00:00.000Z")
    );
    assert_eq!(reference.attribute("presentationTime"), Some("54000000000"));
    let timings = all(&document, "UTCTiming");
    assert!(
        timings
            .iter()
            .any(|node| node.parent().unwrap().tag_name().name() == "MPD")
    );
    let templates = all(&document, "SegmentTemplate");
    assert_eq!(templates.len(), 2);
    for template in templates {
        let said = |name| template.attribute(name).unwrap();
        assert_eq!(said("availabilityTimeComplete"), "false");
        assert_eq!(
            said("availabilityTimeOffset"),
            "1.500000000",
            "segment - part"
        );
        assert_eq!((said("timescale"), said("duration")), ("30", "60"));
        assert_eq!(said("startNumber"), "900000000");
    }
}

#[test]
fn numbers_follow_from_the_time_even_when_a_period_begins_inside_a_segment() {
    let period = period(grid("29.97", 60), 53_946_053_910, false, "a", ONE_TRACK);
    let mut snapshot = snapshot(
        ONE_TRACK,
        &[segment(&period, 53_946_053_910, 53_946_053_940, false)],
    );
    for ticks in [0, 15] {
        if ticks > 0 {
            snapshot.tracks[0].open = Some(open(&period, 53_946_053_940, ticks));
        }
        let text = mpd_low_latency(&snapshot, &origin());
        let document = Document::parse(&text).unwrap();
        let period = &all(&document, "Period")[0];
        assert_eq!(period.attribute("id"), Some("p53946053940"));
        assert_eq!(period.attribute("start"), Some("PT1799999999.798S"));
        let template = &all(&document, "SegmentTemplate")[0];
        assert_eq!(template.attribute("startNumber"), Some("899100899"));
        assert_eq!(
            template.attribute("presentationTimeOffset"),
            Some("53999999993940")
        );
    }
}

#[test]
fn a_new_period_is_there_with_its_first_part_and_the_one_before_ends() {
    let grid = grid("30", 60);
    let first = period(grid, 54_000_000_000, false, "a", ONE_TRACK);
    let second = period(grid, 54_000_000_180, true, "b", ONE_TRACK);
    let listed = [
        segment(&first, 54_000_000_000, 54_000_000_060, false),
        segment(&first, 54_000_000_060, 54_000_000_120, false),
        segment(&first, 54_000_000_120, 54_000_000_180, true),
    ];
    let mut snapshot = snapshot(ONE_TRACK, &listed);
    snapshot.tracks[0].open = Some(open(&second, 54_000_000_180, 15));
    let text = mpd_low_latency(&snapshot, &origin());
    let document = Document::parse(&text).unwrap();
    let periods = all(&document, "Period");
    let said: Vec<_> = periods
        .iter()
        .map(|period| (period.attribute("id"), period.attribute("duration")))
        .collect();
    assert_eq!(
        said,
        [
            (Some("p54000000000"), Some("PT4S")),
            (Some("p54000000180"), None)
        ]
    );
}

#[test]
fn an_ended_stream_claims_only_what_is_there() {
    let period = period(grid("30", 60), 54_000_000_000, false, "a", ONE_TRACK);
    let listed = [segment(&period, 54_000_000_060, 54_000_000_120, false)];
    let mut snapshot = snapshot(ONE_TRACK, &listed);
    snapshot.ended = true;
    let text = mpd_low_latency(&snapshot, &origin());
    assert_eq!(text, mpd(&snapshot, &origin()));
    assert!(text.contains("type=\"static\""));
}
