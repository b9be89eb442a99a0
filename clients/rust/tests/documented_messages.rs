//! The messages on docs/protocol.md are the ones that the code reads and writes: each example, each field, each code.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use ringgear_producer::MemoryKind;
use ringgear_producer::messages::{
    DEFAULT_SOCKET, EndCode, MAX_LINE, Open, OpenSound, PROTOCOL, RefusalCode, Reply, Request,
};
use serde_json::Value;

fn page() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol.md");
    std::fs::read_to_string(page).unwrap()
}

/// The lines of the page's `json` blocks and of its conversation.
fn examples(page: &str) -> Vec<String> {
    let (mut examples, mut block) = (Vec::new(), None);
    for line in page.lines() {
        match (line.strip_prefix("```"), block) {
            (Some(language), None) => block = Some(language),
            (Some(_), Some(_)) => block = None,
            (None, Some("json")) => examples.push(line.to_owned()),
            (None, Some("")) if line.starts_with("> {") || line.starts_with("< {") => {
                let message = &line[2..=line.rfind('}').unwrap()];
                examples.push(message.to_owned());
            }
            (None, _) => {}
        }
    }
    examples
}

/// The first column of the table that has `heading` in the page's section `section`.
fn column(page: &str, section: &str, heading: &str) -> Vec<String> {
    let section = page.split_once(section).unwrap().1;
    let rows = section
        .lines()
        .skip_while(|line| !line.starts_with(heading))
        .skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .flat_map(|row| row.split('|').nth(1).unwrap().split(','))
        .map(|cell| cell.trim().trim_matches('`').to_owned())
        .collect()
}

#[test]
fn every_example_is_a_message_with_no_field_that_the_code_does_not_know() {
    let mut types = BTreeSet::new();
    for example in examples(&page()) {
        let given: Value = serde_json::from_str(&example).unwrap();
        let kind = given["type"].as_str().unwrap().to_owned();
        // `status` is a request, and a reply where it has a status.
        let asked = given.get("status").is_none();
        let again = match kind.as_str() {
            "open" | "open_sound" | "close" | "stop" | "reload" => None,
            "status" if asked => None,
            _ => Some(serde_json::from_str::<Reply>(&example)),
        };
        let again = match again {
            None => serde_json::from_str::<Request>(&example).map(serde_json::to_value),
            Some(reply) => reply.map(serde_json::to_value),
        };
        let again = again.unwrap_or_else(|error| panic!("{example}: {error}"));
        assert_eq!(again.unwrap(), given, "{example}");
        types.insert(match asked || kind != "status" {
            true => kind,
            false => "status, answered".to_owned(),
        });
    }
    let known = [
        "close",
        "closed",
        "done",
        "ended",
        "open",
        "open_sound",
        "opened",
        "refused",
        "reload",
        "reloaded",
        "status",
        "status, answered",
        "stop",
    ];
    assert_eq!(types, known.map(str::to_owned).into());
}

#[test]
fn the_fields_of_open_are_the_documented_ones() {
    let open = Open {
        protocol: PROTOCOL,
        stream: "door".to_owned(),
        format: "gray".to_owned(),
        width: 2,
        height: 2,
        strides: Some(vec![2]),
        slots: Some(3),
        memory: MemoryKind::Named,
        take_over: true,
        client: Some("mycam/2.1".to_owned()),
    };
    let known = serde_json::to_value(open).unwrap();
    let known: BTreeSet<String> = known.as_object().unwrap().keys().cloned().collect();
    let documented = column(&page(), "### `open`", "| field |");
    let documented = documented
        .iter()
        .map(|name| name.trim_matches('`').to_owned());
    assert_eq!(documented.collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_fields_of_open_sound_are_the_documented_ones() {
    let open = OpenSound {
        protocol: PROTOCOL,
        stream: "door".to_owned(),
        format: "s16le".to_owned(),
        rate: 8000,
        channels: 1,
        slots: Some(3),
        memory: MemoryKind::Named,
        take_over: true,
        client: Some("mymic/1.0".to_owned()),
    };
    let known = serde_json::to_value(open).unwrap();
    let known: BTreeSet<String> = known.as_object().unwrap().keys().cloned().collect();
    let documented = column(&page(), "### `open_sound`", "| field |");
    let documented = documented
        .iter()
        .map(|name| name.trim_matches('`').to_owned());
    assert_eq!(documented.collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_codes_are_the_documented_ones() {
    // What is forgotten here does not compile.
    let all: Vec<RefusalCode> = {
        use RefusalCode::*;
        let all = [
            ProtocolMismatch,
            BadRequest,
            UnknownStream,
            UnknownFormat,
            BadSize,
            StreamBusy,
            NotPermitted,
            OutOfResources,
            Stopping,
            OutOfOrder,
            BadConfig,
        ];
        for code in all {
            match code {
                ProtocolMismatch | BadRequest | UnknownStream | UnknownFormat | BadSize
                | StreamBusy | NotPermitted | OutOfResources | Stopping | OutOfOrder
                | BadConfig => {}
            }
        }
        all.into()
    };
    let ends: Vec<EndCode> = {
        use EndCode::*;
        let all = [Stopping, StreamGone, RingCorrupt, TakenOver];
        for code in all {
            match code {
                Stopping | StreamGone | RingCorrupt | TakenOver => {}
            }
        }
        all.into()
    };
    let page = page();
    let read = |codes: Vec<String>| Value::from(codes);
    let refusals = read(column(&page, "### `refused`", "| `code` |"));
    assert_eq!(
        serde_json::from_value::<Vec<RefusalCode>>(refusals).unwrap(),
        all
    );
    let documented = read(column(&page, "### `ended`", "| `code` |"));
    assert_eq!(
        serde_json::from_value::<Vec<EndCode>>(documented).unwrap(),
        ends
    );
}

#[test]
fn the_numbers_are_the_documented_ones() {
    let page = page();
    for said in [
        format!("**protocol {PROTOCOL}**"),
        format!("`{DEFAULT_SOCKET}`"),
        format!("{MAX_LINE} bytes"),
    ] {
        assert!(page.contains(&said), "the page does not say {said}");
    }
}
