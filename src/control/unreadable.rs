//! What a client is told whose line is no request of this protocol.

use ringgear_producer::messages::{PROTOCOL, RefusalCode};

/// What is wrong with a line that is no request. One that opens a session in another protocol may have other fields, so only
/// that is looked for in it.
pub(super) fn refusal(line: &[u8], error: &serde_json::Error) -> (RefusalCode, String) {
    #[derive(serde::Deserialize)]
    struct Opening {
        r#type: String,
        protocol: serde_json::Number,
    }
    match serde_json::from_slice::<Opening>(line) {
        Ok(Opening { r#type, protocol })
            if matches!(r#type.as_str(), "open" | "open_sound")
                && protocol != serde_json::Number::from(PROTOCOL) =>
        {
            mismatch(&protocol)
        }
        _ => {
            let said = shortened(&error.to_string());
            let message = format!("no request could be read: {said}; see docs/protocol.md");
            (RefusalCode::BadRequest, message)
        }
    }
}

/// That a client speaks another protocol, whose version is `theirs`.
pub(super) fn mismatch(theirs: &dyn std::fmt::Display) -> (RefusalCode, String) {
    let theirs = shortened(&theirs.to_string());
    let message = format!(
        "this daemon speaks protocol {PROTOCOL}, the producer {theirs}: update the older of the two"
    );
    (RefusalCode::ProtocolMismatch, message)
}

/// `said` on one line, without the middle of what a client may have made as long as it likes.
fn shortened(said: &str) -> String {
    /// So many characters are left of either end.
    const END: usize = 100;
    let clean = |said: &mut dyn Iterator<Item = char>| -> Vec<char> {
        said.map(|char| if char.is_control() { ' ' } else { char })
            .collect()
    };
    let count = said.chars().count();
    if count <= 2 * END {
        return clean(&mut said.chars()).into_iter().collect();
    }
    let mut ends = clean(&mut said.chars().take(END));
    ends.push('…');
    ends.extend(clean(&mut said.chars().skip(count - END)));
    ends.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use ringgear_producer::messages::Request;

    use super::*;

    fn refused(line: &str) -> (RefusalCode, String) {
        let error = serde_json::from_slice::<Request>(line.as_bytes()).unwrap_err();
        refusal(line.as_bytes(), &error)
    }

    #[test]
    fn another_protocol_is_named_whatever_else_it_says() {
        for line in [
            r#"{"type":"open","protocol":2,"stream":"cam","format":"gray","width":2,"height":2,"newfield":1}"#,
            r#"{"protocol":2,"type":"open"}"#,
            r#"{"protocol":2,"type":"open_sound","volume":11}"#,
            r#"{"type":"open","protocol":99999999999999,"stream":[]}"#,
            r#"{"type":"open","protocol":1.5}"#,
        ] {
            let (code, message) = refused(line);
            assert_eq!(code, RefusalCode::ProtocolMismatch, "{line}: {message}");
        }
        for line in [
            r#"{"type":"open","protocol":1,"newfield":1}"#,
            r#"{"type":"status","protocol":2}"#,
            r#"{"type":"open","protocol":"2"}"#,
            "open",
        ] {
            let (code, message) = refused(line);
            assert_eq!(code, RefusalCode::BadRequest, "{line}: {message}");
        }
    }

    #[test]
    fn what_is_echoed_is_one_short_line() {
        let long = "é\\n".repeat(10_000);
        for line in [
            format!(r#"{{"type":"{long}"}}"#),
            format!(r#"{{"type":"open","protocol":1,"{long}":1}}"#),
            long,
        ] {
            let (code, message) = refused(&line);
            assert_eq!(code, RefusalCode::BadRequest);
            assert!(message.chars().count() < 300, "{message}");
            assert!(!message.contains('\n'), "{message}");
            assert!(message.ends_with("see docs/protocol.md"), "{message}");
        }
    }
}
