//! The decoders printed in `docs/test-pattern.md`, run as they stand. Needs `python3` and `node`.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use ringgear_producer::pattern::{Bars, PatternPainter};
use ringgear_producer::{FrameFormat, PixelFormat};

const BARS: Bars = Bars {
    frame_number: 4_000_000_123,
    captured_ms: 1_790_123_456_789,
};

/// The first code block of `language` in the page.
fn snippet(language: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/test-pattern.md");
    let page = std::fs::read_to_string(page).unwrap();
    let after = page.split(&format!("```{language}\n")).nth(1).unwrap();
    after.split("```").next().unwrap().to_owned()
}

fn painted(pixels: PixelFormat, width: u32, height: u32) -> Vec<u8> {
    let format = FrameFormat::packed(pixels, width, height).unwrap();
    let mut frame = vec![0; format.bytes()];
    PatternPainter::new(format).paint(BARS, &mut frame);
    frame
}

fn run(program: &[&str], input: &[u8]) -> String {
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} has to be installed: {error}", program[0]));
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_python_decoder_reads_any_size() {
    for (width, height) in [(320, 180), (72, 40), (641, 363)] {
        let script = format!(
            "{}\nimport sys\nprint(read_bars(sys.stdin.buffer.read(), {width}, {height}))",
            snippet("python")
        );
        let luma = painted(PixelFormat::Gray, width, height);
        let expected = format!("({}, {})", BARS.frame_number, BARS.captured_ms);
        assert_eq!(run(&["python3", "-c", &script], &luma), expected);
        assert_eq!(
            run(&["python3", "-c", &script], &vec![90; luma.len()]),
            "None"
        );
    }
}

#[test]
fn the_javascript_decoder_reads_a_canvas() {
    // A canvas of the decoder's size, filled with what came in.
    let script = format!(
        "const rgba = require('fs').readFileSync(0);
         globalThis.OffscreenCanvas = class {{ getContext() {{ return {{
             drawImage() {{}}, getImageData: (x, y, w, h) => ({{ data: rgba.subarray(0, w * h * 4) }}) }} }} }};
         {}
         console.log(JSON.stringify(readBars(null)));",
        snippet("js")
    );
    let frame = painted(PixelFormat::Rgba, 360, 200);
    let expected = format!(
        r#"{{"frameNumber":{},"capturedMs":{}}}"#,
        BARS.frame_number, BARS.captured_ms
    );
    assert_eq!(run(&["node", "-e", &script], &frame), expected);
    assert_eq!(
        run(&["node", "-e", &script], &vec![90; frame.len()]),
        "null"
    );
}
