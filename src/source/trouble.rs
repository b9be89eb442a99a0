//! Why a source gives no pictures, for people: FFmpeg's own words, what they mean, and how to mend it. Pure.

use crate::config::SourceInput;

/// What FFmpeg says, what it means, and the mend. The first that fits counts; `{}` in a mend stands for the stream's table.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "Protocol not found",
        "this FFmpeg does not know its protocol",
        "write another URL in source of {} (ffmpeg -protocols lists what it knows)",
    ),
    (
        "Unknown input format",
        "this FFmpeg does not know the format of -f",
        "write another in input_args of {} (ffmpeg -devices and -demuxers list what it knows)",
    ),
    (
        "Unrecognized option",
        "FFmpeg does not know an option",
        "mend input_args of {}",
    ),
    (
        "Option ",
        "FFmpeg refuses an option",
        "mend input_args of {}",
    ),
    (
        "Error splitting the argument list",
        "FFmpeg refuses an option",
        "mend input_args of {}",
    ),
    (
        "401 Unauthorized",
        "the camera wants a user and a password",
        "write them into source of {}: rtsp://USER:PASSWORD@...",
    ),
    (
        "403 Forbidden",
        "its server does not let us in",
        "look at the user and the password in source of {}",
    ),
    (
        "404 Not Found",
        "its server does not have it",
        "look at the path in source of {}",
    ),
    (
        "Connection refused",
        "nobody listens there",
        "switch it on, or mend host and port in source of {}",
    ),
    (
        "No route to host",
        "there is no way to its host",
        "switch it on, look at the network, or mend the host in source of {}",
    ),
    (
        "Network is unreachable",
        "there is no way to its host",
        "look at the network, or mend the host in source of {}",
    ),
    (
        "timed out",
        "it does not answer",
        "switch it on, look at the network, or mend source of {}",
    ),
    (
        "Failed to resolve hostname",
        "nobody knows its host",
        "mend the host in source of {}, or this machine's name service",
    ),
    (
        "Name or service not known",
        "nobody knows its host",
        "mend the host in source of {}, or this machine's name service",
    ),
    (
        "Malformed AAC bitstream",
        "each frame of its AAC has a header (ADTS), which FFmpeg can't take off in a loop",
        "write it into MP4 or Matroska first (ffmpeg -i ... -c copy), or name another codec in audio of {}",
    ),
    (
        "codec not currently supported in container",
        "its pictures are neither H.264 nor HEVC, and can't be copied",
        "write an encoder instead of codec = \"copy\" in {}",
    ),
    (
        "Permission denied",
        "the daemon's user may not open it",
        "let it (devices mostly belong to the group video), or write another source in {}",
    ),
    (
        "Device or resource busy",
        "another program has it",
        "end that program, or write another source in {}",
    ),
    (
        "Is a directory",
        "it is a folder",
        "name a file in source of {}",
    ),
    (
        "matches no streams",
        "it has no pictures",
        "write another source in {}",
    ),
    (
        "Invalid data found when processing input",
        "it is no video that FFmpeg can read",
        "write another source in {}, or its format in input_args: [\"-f\", \"...\"]",
    ),
];

/// One line: what is wrong with the source of stream `stream`, FFmpeg having said `words` last.
pub(super) fn explain(input: &SourceInput, stream: &str, words: &str) -> String {
    let table = format!("[streams.{stream}]");
    let shown = input.shown();
    if words.starts_with("setpriv: ") {
        return format!("FFmpeg can't be started: {words}: look at [ffmpeg] path");
    }
    if words.contains("No such file or directory") {
        let (what, mend) = match input {
            SourceInput::File(_) => ("file", "put it there, or name another"),
            SourceInput::Device { .. } => ("device", "plug it in, or name another"),
            SourceInput::Url { .. } => ("thing", "name another"),
        };
        return format!("there is no such {what} as {shown}: {mend} in source of {table}");
    }
    let known = KNOWN.iter().find(|(said, _, _)| words.contains(said));
    match known {
        Some((_, what, mend)) => {
            let mend = mend.replace("{}", &table);
            format!("{shown}: {what} (FFmpeg says: {words}): {mend}")
        }
        None => format!("{shown}: FFmpeg says: {words}: look at source and input_args of {table}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_names_the_source_the_key_and_the_mend() {
        let file = SourceInput::File("/x/a.mp4".into());
        assert_eq!(
            explain(&file, "door", "file:/x/a.mp4: No such file or directory"),
            "there is no such file as /x/a.mp4: put it there, or name another in source of [streams.door]"
        );
        let words = "Could not find tag for codec vp8 in stream #0, codec not currently supported in container";
        let told = explain(&file, "door", words);
        assert!(
            told.ends_with("write an encoder instead of codec = \"copy\" in [streams.door]"),
            "{told}"
        );
        let camera = SourceInput::Url {
            scheme: "rtsp".into(),
            url: "rtsp://me:secret@cam/1".into(),
        };
        let words = "Connection to tcp://cam:554?timeout=1 failed: Connection refused";
        assert_eq!(
            explain(&camera, "door", words),
            format!(
                "rtsp://***@cam/1: nobody listens there (FFmpeg says: {words}): switch it on, or mend host and port in source of [streams.door]"
            )
        );
        let away = explain(
            &file,
            "door",
            "setpriv: failed to execute ffmpeg: No such file or directory",
        );
        assert!(away.ends_with("look at [ffmpeg] path"), "{away}");
        let strange = explain(&file, "door", "it says nothing");
        assert!(
            strange.ends_with("look at source and input_args of [streams.door]"),
            "{strange}"
        );
    }
}
