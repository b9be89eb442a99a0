use proptest::prelude::*;
use roxmltree::{Document, Node};

use super::*;
use crate::manifest::testing::{
    ONE_TRACK, TWO_TRACKS, grid, lives, open, period, segment, snapshot,
};
use crate::picture::Size;

fn origin() -> MpdOptions {
    MpdOptions {
        utc_timing: UtcTiming::HttpIso("time".to_owned()),
    }
}

#[test]
fn an_mpd_of_a_small_window() {
    let grid = grid("29.97", 60);
    // 2027-01-15T08:00:00Z lies in tick 53 946 053 946.
    let first = period(grid, 53_946_053_910, false, "a", ONE_TRACK);
    let second = period(grid, 53_946_054_240, true, "b", ONE_TRACK);
    let mut snapshot = snapshot(
        ONE_TRACK,
        &[
            segment(&first, 53_946_053_940, 53_946_054_000, false),
            segment(&first, 53_946_054_000, 53_946_054_060, false),
            segment(&first, 53_946_054_060, 53_946_054_070, false),
            segment(&first, 53_946_054_120, 53_946_054_180, true),
            segment(&first, 53_946_054_180, 53_946_054_240, true),
            segment(&second, 53_946_054_240, 53_946_054_300, false),
        ],
    );
    let live = r#"<?xml version="1.0" encoding="UTF-8"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019" type="dynamic"
  availabilityStartTime="1970-01-01T00:00:00Z"
  publishTime="2027-01-15T08:00:00.000Z"
  minimumUpdatePeriod="PT2.002S"
  timeShiftBufferDepth="PT30.03S"
  suggestedPresentationDelay="PT6.006S"
  maxSegmentDuration="PT2.002S"
  minBufferTime="PT2.002S">
  <Period id="p53946053910" start="PT1799999998.797S" duration="PT5.338666667S">
    <AdaptationSet id="1" contentType="video" segmentAlignment="true" startWithSAP="1">
      <Representation id="720p" mimeType="video/mp4" codecs="avc1.64001f" width="1280" height="720" frameRate="30000/1001" bandwidth="2600000">
        <SegmentTemplate timescale="30000" presentationTimeOffset="53999999963910" startNumber="899100899" media="720p/$Number$.m4s" initialization="720p/init-a0.mp4">
          <SegmentTimeline>
            <S t="53999999993940" d="60060" r="1"/>
            <S d="10010"/>
          </SegmentTimeline>
        </SegmentTemplate>
      </Representation>
    </AdaptationSet>
  </Period>
  <Period id="p53946054240" start="PT1800000009.808S">
    <AdaptationSet id="1" contentType="video" segmentAlignment="true" startWithSAP="1">
      <Representation id="720p" mimeType="video/mp4" codecs="avc1.64001f" width="1280" height="720" frameRate="30000/1001" bandwidth="2600000">
        <SegmentTemplate timescale="30000" presentationTimeOffset="54000000294240" startNumber="899100904" media="720p/$Number$.m4s" initialization="720p/init-b0.mp4">
          <SegmentTimeline>
            <S t="54000000294240" d="60060"/>
          </SegmentTimeline>
        </SegmentTemplate>
      </Representation>
    </AdaptationSet>
  </Period>
  <UTCTiming schemeIdUri="urn:mpeg:dash:utc:http-iso:2014" value="time"/>
</MPD>
"#;
    assert_eq!(mpd(&snapshot, &origin()), live);
    snapshot.ended = true;
    let ended = mpd(&snapshot, &origin());
    let head = r#" type="static"
  mediaPresentationDuration="PT1800000011.81S"
  maxSegmentDuration="PT2.002S"
  minBufferTime="PT2.002S">"#;
    assert!(ended.contains(head), "{ended}");
    assert!(
        ended.contains(
            r#"<Period id="p53946054240" start="PT1800000009.808S" duration="PT2.002S">"#
        )
    );
    assert!(!ended.contains("UTCTiming"));
}

#[test]
fn rule_27_the_publish_folder_tells_the_time_by_its_own_mpd() {
    let period = period(grid("30", 60), 60, false, "a", ONE_TRACK);
    let snapshot = snapshot(ONE_TRACK, &[segment(&period, 60, 120, false)]);
    let options = MpdOptions {
        utc_timing: UtcTiming::HttpHead("manifest.mpd".to_owned()),
    };
    let element =
        r#"<UTCTiming schemeIdUri="urn:mpeg:dash:utc:http-head:2014" value="manifest.mpd"/>"#;
    assert!(mpd(&snapshot, &options).contains(element));
}

#[test]
fn rule_30_a_period_appears_with_its_first_listed_segment_and_leaves_with_its_last() {
    let grid = grid("30", 60);
    let old = period(grid, 0, false, "a", TWO_TRACKS);
    let new = period(grid, 300, false, "a", TWO_TRACKS);
    let ids = |snapshot: &Snapshot| -> Vec<(String, bool)> {
        let text = mpd(snapshot, &origin());
        let document = Document::parse(&text).unwrap();
        named(document.root_element(), "Period")
            .map(|p| (attribute(p, "id").to_owned(), p.has_attribute("duration")))
            .collect()
    };
    let ends = [segment(&old, 0, 60, false), segment(&old, 60, 120, true)];
    let mut snapshot = snapshot(TWO_TRACKS, &ends);
    for track in &mut snapshot.tracks {
        track.open = Some(open(&new, 300, 10));
    }
    assert_eq!(
        ids(&snapshot),
        [("p0".to_owned(), false)],
        "nothing of p300 is listed"
    );
    // The first track is one segment ahead of the second: p300 has one Representation.
    snapshot.tracks[0]
        .listed
        .push(segment(&new, 300, 360, false));
    assert_eq!(
        ids(&snapshot),
        [("p0".to_owned(), true), ("p300".to_owned(), false)]
    );
    let text = mpd(&snapshot, &origin());
    assert_eq!(text.matches("<Representation").count(), 3);
    snapshot.tracks[1]
        .listed
        .push(segment(&new, 300, 360, false));
    for track in &mut snapshot.tracks {
        track.listed.remove(0);
    }
    assert_eq!(
        ids(&snapshot),
        [("p300".to_owned(), false)],
        "p0 lists only a gap"
    );
}

#[test]
fn rule_30_what_comes_before_a_hole_in_a_period_is_left_out() {
    let period = period(grid("30", 60), 0, false, "a", ONE_TRACK);
    let holed = [(0, 60), (60, 120), (180, 240), (240, 300)];
    let listed = holed.map(|(first, end)| segment(&period, first, end, false));
    let text = mpd(&snapshot(ONE_TRACK, &listed), &origin());
    assert!(text.contains(r#"startNumber="3""#) && text.contains(r#"<S t="180" d="60" r="1"/>"#));
}

#[test]
fn tracks_of_different_codecs_are_not_to_be_switched_between() {
    let tracks: &[_] = &[
        ("a", "avc1.64001f", Size::new(1280, 720)),
        ("b", "hvc1.1.6.L93.B0", Size::new(1280, 720)),
        ("c", "avc1.42c00d", Size::new(320, 180)),
    ];
    let period = period(grid("30", 60), 60, false, "i", tracks);
    let text = mpd(
        &snapshot(tracks, &[segment(&period, 60, 120, false)]),
        &origin(),
    );
    let document = Document::parse(&text).unwrap();
    let sets: Vec<(String, Vec<&str>)> = named(document.root_element(), "AdaptationSet")
        .map(|set| {
            let ids = named(set, "Representation").map(|r| r.attribute("id").unwrap());
            (attribute(set, "id").to_owned(), ids.collect())
        })
        .collect();
    assert_eq!(
        sets,
        [
            ("1".to_owned(), vec!["a", "c"]),
            ("2".to_owned(), vec!["b"])
        ]
    );
}

#[test]
fn hostile_text_stays_text() {
    let tracks: &[_] = &[("a<&\"'$Time$\u{1}", "avc1.\"><x/>", Size::new(2, 2))];
    let period = period(grid("30", 60), 60, false, "\"&", tracks);
    let options = MpdOptions {
        utc_timing: UtcTiming::HttpIso("\"/><x a=\"".to_owned()),
    };
    let text = mpd(
        &snapshot(tracks, &[segment(&period, 60, 120, false)]),
        &options,
    );
    let document = Document::parse(&text).unwrap();
    let representation = named(document.root_element(), "Representation")
        .next()
        .unwrap();
    assert_eq!(attribute(representation, "id"), "a<&\"'$Time$\u{fffd}");
    assert_eq!(attribute(representation, "codecs"), "avc1.\"><x/>");
    let template = named(representation, "SegmentTemplate").next().unwrap();
    assert_eq!(
        attribute(template, "media"),
        "a<&\"'$$Time$$\u{fffd}/$Number$.m4s"
    );
    assert_eq!(named(document.root_element(), "x").count(), 0);
}

#[test]
fn durations_are_written_without_loss() {
    for (nanos, text) in [
        (0, "PT0S"),
        (10_000_000_000, "PT10S"),
        (1, "PT0.000000001S"),
        (1_800_000_000_033_333_334, "PT1800000000.033333334S"),
    ] {
        assert_eq!(iso_duration(nanos), text);
        assert_eq!(nanos_in(text), nanos);
    }
}

fn named<'a>(node: Node<'a, 'a>, name: &'a str) -> impl Iterator<Item = Node<'a, 'a>> {
    node.descendants()
        .filter(move |node| node.has_tag_name(("urn:mpeg:dash:schema:mpd:2011", name)))
}

fn attribute<'a>(node: Node<'a, 'a>, name: &str) -> &'a str {
    node.attribute(name).unwrap()
}

fn number(node: Node<'_, '_>, name: &str) -> u64 {
    node.attribute(name).unwrap().parse().unwrap()
}

fn nanos_in(text: &str) -> u64 {
    let seconds = text.strip_prefix("PT").unwrap().strip_suffix('S').unwrap();
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    whole.parse::<u64>().unwrap() * 1_000_000_000
        + format!("{fraction:0<9}").parse::<u64>().unwrap()
}

/// The segments of a Representation as a player finds them: number, start and duration in the timescale.
fn timeline(representation: Node<'_, '_>) -> Vec<(u64, u64, u64)> {
    let template = named(representation, "SegmentTemplate").next().unwrap();
    let mut number_ = number(template, "startNumber");
    let (mut segments, mut time) = (Vec::new(), None);
    for s in named(template, "S") {
        let t = s.attribute("t").map(|t| t.parse::<u64>().unwrap());
        assert_eq!(
            t.is_some(),
            time.is_none(),
            "only the first S has a time: the rest follow"
        );
        let d = number(s, "d");
        for _ in 0..=s.attribute("r").map_or(0, |r| r.parse::<u64>().unwrap()) {
            let start = time.or(t).unwrap();
            segments.push((number_, start, d));
            time = Some(start + d);
            number_ += 1;
        }
    }
    segments
}

proptest! {
    #[test]
    fn rules_11_28_and_30_the_timelines_are_the_listed_segments_and_tile(life in lives()) {
        let text = mpd(&life.snapshot, &origin());
        let document = Document::parse(&text).unwrap();
        let mut claimed = vec![Vec::new(); 2];
        for period in named(document.root_element(), "Period") {
            let representations: Vec<_> = named(period, "Representation").collect();
            prop_assert_eq!(representations.len(), 2, "no Period is empty");
            for (track, representation) in representations.into_iter().enumerate() {
                let segments = timeline(representation);
                prop_assert!(!segments.is_empty());
                claimed[track].extend(segments);
            }
        }
        let listed: Vec<_> = life.all[life.dropped..].iter().filter(|segment| !segment.gap).map(|segment| {
            let grid = &segment.period.grid;
            let duration = u64::from(segment.ticks) * u64::from(grid.framerate.den());
            (segment.number.0, grid.decode_time(segment.first_tick), duration)
        }).collect();
        prop_assert_eq!(&claimed[0], &listed);
        prop_assert_eq!(&claimed[1], &listed);
    }

    #[test]
    fn rules_25_26_29_31_and_32_what_stays_stays_and_what_must_stand_stands(life in lives()) {
        let text = mpd(&life.snapshot, &origin());
        let document = Document::parse(&text).unwrap();
        let root = document.root_element();
        let ended = life.snapshot.ended;
        prop_assert_eq!(attribute(root, "type"), if ended { "static" } else { "dynamic" });
        for name in ["availabilityStartTime", "publishTime", "minimumUpdatePeriod", "timeShiftBufferDepth"] {
            prop_assert_eq!(root.has_attribute(name), !ended);
        }
        prop_assert_eq!(named(root, "UTCTiming").count(), usize::from(!ended));
        if !ended {
            prop_assert_eq!(attribute(root, "availabilityStartTime"), "1970-01-01T00:00:00Z");
            let nanos = |name| nanos_in(attribute(root, name));
            prop_assert!(nanos("suggestedPresentationDelay") < nanos("timeShiftBufferDepth"));
        }
        let periods: Vec<_> = named(root, "Period").collect();
        for (index, period) in periods.iter().enumerate() {
            let last = index + 1 == periods.len();
            let start = nanos_in(attribute(*period, "start"));
            prop_assert_eq!(period.has_attribute("duration"), !last || ended);
            let end = period.attribute("duration").map(|duration| start + nanos_in(duration));
            if let (Some(end), Some(next)) = (end, periods.get(index + 1)) {
                prop_assert!(end <= nanos_in(attribute(*next, "start")));
            }
            if last && ended {
                prop_assert_eq!(end, Some(nanos_in(attribute(root, "mediaPresentationDuration"))));
            }
            prop_assert_eq!(named(*period, "AdaptationSet").map(|set| attribute(set, "id")).collect::<Vec<_>>(), ["1"]);
            let ids: Vec<_> = named(*period, "Representation").map(|r| attribute(r, "id")).collect();
            prop_assert_eq!(ids, ["720p", "low"]);
            for representation in named(*period, "Representation") {
                for name in ["mimeType", "codecs", "width", "height", "frameRate", "bandwidth"] {
                    prop_assert!(representation.has_attribute(name));
                }
                // The Period's start, in the media's own time, is where the grid has it.
                let template = named(representation, "SegmentTemplate").next().unwrap();
                let scale = u128::from(number(template, "timescale"));
                let offset = u128::from(number(template, "presentationTimeOffset")) * 1_000_000_000;
                prop_assert_eq!(u128::from(start), offset.div_ceil(scale));
                let first = &life.all.iter().find(|segment| {
                    attribute(*period, "id") == format!("p{}", segment.period.first_tick)
                }).unwrap();
                prop_assert_eq!(start, first.period.grid.time_of(first.period.first_tick).as_nanos());
                let (_, end_time, d) = *timeline(representation).last().unwrap();
                if let Some(end) = end {
                    prop_assert_eq!(u128::from(end), (u128::from(end_time + d) * 1_000_000_000).div_ceil(scale));
                }
            }
        }
    }
}
