//! What docs/protocol.md shows is what the daemon says, to the word, but for the numbers.

use ringgear_producer::messages::{Open, RefusalCode, Refused, Reply, Request};

use crate::harness::beside_others;
use crate::harness::daemon::Daemon;
use crate::harness::liar::{Liar, open_request};

/// The text with each number as one `#`: pids, times and users differ.
fn blanked(text: &str) -> String {
    let mut blanked = String::new();
    for letter in text.chars() {
        if !letter.is_ascii_digit() {
            blanked.push(letter);
        } else if !blanked.ends_with('#') {
            blanked.push('#');
        }
    }
    blanked
}

/// The page's refusals.
fn documented() -> Vec<Refused> {
    let page = include_str!("../../docs/protocol.md");
    let lines = page.lines().map(|line| line.trim_start_matches("< "));
    lines
        .filter_map(|line| match serde_json::from_str(line) {
            Ok(Reply::Refused(refused)) => Some(refused),
            _ => None,
        })
        .collect()
}

#[test]
fn refusals_are_worded_as_on_the_page() {
    let _machine = beside_others();
    let mut daemon = Daemon::start("[streams.door]\nframerate = 5\n");
    let _holder = Liar::session(&daemon, "door");
    for (code, format) in [
        (RefusalCode::StreamBusy, "bgr24"),
        (RefusalCode::UnknownFormat, "mauve"),
    ] {
        let open = Open {
            format: format.to_owned(),
            take_over: false,
            ..open_request("door")
        };
        let said = match Liar::connect(&daemon).ask(&Request::Open(open)) {
            Some(Reply::Refused(refused)) => refused,
            other => panic!("not refused: {other:?}"),
        };
        assert_eq!(said.code, code);
        let shown = documented().into_iter().find(|shown| shown.code == code);
        let shown = shown.unwrap_or_else(|| panic!("the page shows no {code:?}"));
        assert_eq!(shown.holder_pid.is_some(), said.holder_pid.is_some());
        let (shown, mut said) = (blanked(&shown.message), blanked(&said.message));
        // What the page cuts short, so does this.
        let shown = shown.strip_suffix("...").map_or(shown.as_str(), |begin| {
            said.truncate(begin.len());
            begin
        });
        assert_eq!(shown, said);
    }
    daemon.stop();
}
