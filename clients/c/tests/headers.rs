//! The headers say what the code does: every struct's size and offsets, every code, and the ring's layout, asked of C and C++
//! compilers.

// The whole crate is a test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use ringgear_c::{Account, AudioOptions, CODES, Counters, FrameView, Options, Plane};
use ringgear_producer::{FrameFormat, PixelFormat, SampleFormat, SoundFormat};
use ringgear_ring::layout::{self, Layout};

const COMPILERS: [(&str, &[&str]); 4] = [
    ("gcc", &["-std=c99"]),
    ("gcc", &["-std=c17"]),
    ("g++", &["-x", "c++", "-std=c++11"]),
    ("g++", &["-x", "c++", "-std=c++20"]),
];

/// What each of `expressions` is, by every compiler.
fn ask(expressions: &[String]) -> Vec<BTreeMap<String, i128>> {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("ask.c");
    let mut text = "#include <ringgear.h>\n#include <ringgear_layout.h>\n#include <stdio.h>\nint main(void) {\n".to_owned();
    for expression in expressions {
        // Codes are negative, and the magic fills 64 bits: its top bit is not set.
        text += &format!("    printf(\"%lld\\n\", (long long)({expression}));\n");
    }
    text += "    return 0;\n}\n";
    std::fs::write(&source, text).unwrap();
    let answers = |(compiler, arguments): (&str, &[&str])| {
        let program = folder.path().join("ask");
        let output = Command::new(compiler)
            .args(arguments)
            .args([
                "-Wall",
                "-Wextra",
                "-Wpedantic",
                "-Werror",
                "-Wno-unused-local-typedefs",
            ])
            .arg("-I")
            .arg(env!("CARGO_MANIFEST_DIR"))
            .arg("-o")
            .args([&program, &source])
            .output()
            .unwrap_or_else(|error| panic!("{compiler}: {error}; scripts/setup test installs it"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{compiler} {arguments:?}: {said}");
        let said = Command::new(&program).output().unwrap().stdout;
        let numbers = String::from_utf8(said).unwrap();
        let numbers = numbers.lines().map(|line| line.parse().unwrap());
        expressions.iter().cloned().zip(numbers).collect()
    };
    COMPILERS.map(answers).into()
}

/// Holds `expected`, C expressions with their values, against every compiler.
fn hold(expected: &[(String, i128)]) {
    let expressions: Vec<_> = expected.iter().map(|(text, _)| text.clone()).collect();
    for (answers, compiler) in ask(&expressions).into_iter().zip(COMPILERS) {
        assert_eq!(answers.len(), expected.len());
        for (expression, value) in expected {
            assert_eq!(answers[expression], *value, "{expression} by {compiler:?}");
        }
    }
}

/// A struct of the header against Rust's, field by field.
macro_rules! fields {
    ($expected:ident, $rust:ty, $c:literal: $($field:ident),*) => {
        $expected.push((format!("sizeof({})", $c), size_of::<$rust>() as i128));
        $($expected.push((
            format!("offsetof({}, {})", $c, stringify!($field)),
            offset_of!($rust, $field) as i128,
        ));)*
    };
}

#[test]
fn the_structs_and_codes_of_the_header_are_the_librarys() {
    let mut expected = Vec::new();
    fields!(expected, Options, "ringgear_options": struct_size, stream, format, width, height, socket, client, strides, slots, take_over);
    fields!(expected, AudioOptions, "ringgear_audio_options": struct_size, stream, format, rate, channels, socket, client, slots, take_over);
    fields!(expected, Plane, "ringgear_plane": data, stride, row_bytes, rows);
    fields!(expected, FrameView, "ringgear_frame": data, size, number, plane_count, planes);
    fields!(expected, Counters, "ringgear_counters": committed, superseded, dropped, sessions, connected);
    fields!(expected, Account, "ringgear_account": used, superseded, late);
    for (name, code) in CODES {
        expected.push((format!("RINGGEAR_{name}"), i128::from(*code)));
    }
    expected.push(("RINGGEAR_ABI".to_owned(), ringgear_c::ringgear_abi().into()));
    hold(&expected);
}

#[test]
fn every_code_and_function_of_the_header_is_there() {
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("ringgear.h");
    let header = std::fs::read_to_string(header).unwrap();
    let code = ["src/abi.rs", "src/audio.rs"].map(|file| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        std::fs::read_to_string(file).unwrap()
    });
    let code = code.concat();
    let mut codes = 0;
    let mut functions = 0;
    for line in header.lines() {
        if let Some((name, _)) = line
            .strip_prefix("    RINGGEAR_")
            .and_then(|rest| rest.split_once(" = "))
        {
            assert!(CODES.iter().any(|(known, _)| *known == name), "{name}");
            codes += 1;
        }
        let declares = line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains('(');
        if let Some(name) = declares.then(|| line.split('(').next().unwrap()) {
            let name = name.rsplit([' ', '*']).next().unwrap();
            assert!(code.contains(&format!("extern \"C\" fn {name}(")), "{name}");
            functions += 1;
        }
    }
    assert_eq!(codes, CODES.len());
    assert_eq!(functions, code.matches("extern \"C\" fn ringgear_").count());
}

#[test]
fn the_layout_header_is_the_rings_layout() {
    let constants = [
        ("MAGIC", i128::from(layout::MAGIC)),
        ("VERSION", i128::from(layout::VERSION)),
        ("PAGE", layout::PAGE as i128),
        ("MIN_SLOTS", layout::MIN_SLOTS.into()),
        ("MAX_SLOTS", layout::MAX_SLOTS.into()),
        ("MAX_MEMORY_BYTES", layout::MAX_MEMORY_BYTES as i128),
        ("COMMITTED", layout::COMMITTED as i128),
        ("SUPERSEDED", layout::SUPERSEDED as i128),
        ("WRITER_WAITS", layout::WRITER_WAITS as i128),
        ("TAKEN", layout::TAKEN as i128),
        ("READER_WAITS", layout::READER_WAITS as i128),
        ("FREED", layout::FREED as i128),
        ("POLICY", layout::POLICY as i128),
        ("LATEST", layout::Policy::Latest.code().into()),
        ("LOSSLESS", layout::Policy::Lossless.code().into()),
        ("SLOT_HEADERS", layout::SLOT_HEADERS as i128),
        ("SLOT_HEADER_BYTES", layout::SLOT_HEADER_BYTES as i128),
    ];
    let mut expected: Vec<_> = constants
        .map(|(name, value)| (format!("RINGGEAR_LAYOUT_{name}"), value))
        .into();
    let format = FrameFormat::packed(PixelFormat::Yuv420p, 64, 48).unwrap();
    let sound = SoundFormat::new(SampleFormat::S16le, 8000, 1).unwrap();
    let of_sound = Layout::new(&sound, 4).unwrap().header_words();
    // Those that a ring of frames has, too, are asked for once.
    let of_sound = of_sound.filter(|word| ["rate", "channels"].contains(&word.name));
    let of_frames = Layout::new(&format, 4).unwrap().header_words();
    for word in of_frames.chain(of_sound) {
        // plane1_stride is plane[1].stride in C.
        let field = match word
            .name
            .strip_prefix("plane")
            .and_then(|rest| rest.split_once('_'))
        {
            Some((index, field)) => format!("plane[{index}].{field}"),
            None => word.name.to_owned(),
        };
        expected.push((
            format!("offsetof(ringgear_layout_header, {field})"),
            word.offset as i128,
        ));
    }
    for (field, offset) in [
        ("word", layout::SLOT_WORD),
        ("frame_number", layout::SLOT_FRAME_NUMBER),
        ("captured", layout::SLOT_CAPTURED),
        ("block_bytes", layout::SLOT_BLOCK_BYTES),
    ] {
        expected.push((
            format!("offsetof(ringgear_layout_slot, {field})"),
            offset as i128,
        ));
    }
    hold(&expected);
}
