//! The C functions called with a C caller's pointers, against a daemon's end made of a real socket and a real ring: what sanitizers look at
//! (`make sanitize`), for which the tests in C are too far away.

// The whole crate is a test.
#![allow(clippy::unwrap_used)]

use std::ffi::{CStr, CString};
use std::io::{BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::ptr::{null, null_mut};
use std::thread::JoinHandle;

use ringgear_c::*;
use ringgear_ring::format::{FrameFormat, PixelFormat};
use ringgear_ring::sound::{SampleFormat, SoundFormat};
use ringgear_ring::{Reader, RingMemory};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

const WIDTH: u32 = 6;
const HEIGHT: u32 = 4;

/// Answers one `open`, then `close` with an account of zeros; returns what was committed, each frame's planes without padding.
fn daemon(listener: UnixListener, slots: u32) -> JoinHandle<Vec<Vec<u8>>> {
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().contains("\"nv12\""));
        let format =
            FrameFormat::with_strides(PixelFormat::Nv12, WIDTH, HEIGHT, &[16, 16]).unwrap();
        let memory = RingMemory::create(&format, slots).unwrap();
        send_opened(&stream, &memory);
        let mut reader = Reader::new(memory);
        assert_eq!(lines.next().unwrap().unwrap(), "{\"type\":\"close\"}");
        let mut frames = Vec::new();
        while let Some(taken) = reader.take_oldest().unwrap() {
            let mut frame = vec![0; 6 * 4 + 6 * 2];
            let (luma, chroma) = frame.split_at_mut(6 * 4);
            taken.copy_rows(0, 0, 4, luma).unwrap();
            taken.copy_rows(1, 0, 2, chroma).unwrap();
            frames.push(frame);
        }
        let account = format!(
            "{{\"type\":\"closed\",\"used\":{},\"superseded\":0,\"late\":0}}\n",
            frames.len()
        );
        (&stream).write_all(account.as_bytes()).unwrap();
        frames
    })
}

fn send_opened<F>(stream: &UnixStream, memory: &RingMemory<F>) {
    let line = format!(
        "{{\"type\":\"opened\",\"protocol\":1,\"session\":1,\"memory_bytes\":{},\"slots\":{},\
         \"framerate_num\":30,\"framerate_den\":1}}\n",
        memory.bytes(),
        memory.slots()
    );
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [memory.fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let parts = [IoSlice::new(line.as_bytes())];
    let sent = sendmsg(stream, &parts, &mut control, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(sent, line.len());
}

fn said(producer: *mut Handle) -> String {
    // SAFETY: null or an open producer.
    let text = unsafe { ringgear_last_error(producer) };
    // SAFETY: a text that is valid until this thread asks again, and copied before.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().unwrap().to_owned()
}

fn options(socket: &CString) -> Options {
    let mut options = MaybeUninit::<Options>::uninit();
    // SAFETY: so many bytes there may be written.
    unsafe { ringgear_options_init(options.as_mut_ptr(), size_of::<Options>()) };
    // SAFETY: all zeros but for the size is a value of this struct of numbers and pointers.
    let mut options = unsafe { options.assume_init() };
    options.stream = c"door".as_ptr();
    options.format = c"nv12".as_ptr();
    (options.width, options.height) = (WIDTH, HEIGHT);
    (options.strides[0], options.strides[1]) = (16, 16);
    options.socket = socket.as_ptr();
    options
}

#[test]
fn frames_of_every_kind_arrive_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let socket = CString::new(path.to_str().unwrap()).unwrap();
    let options = options(&socket);
    let mut producer = null_mut();
    // SAFETY: set-up options whose texts live, and room for a pointer.
    let code = unsafe { ringgear_open(&raw const options, &raw mut producer) };
    assert!(code < 0 && producer.is_null());
    assert!(said(null_mut()).contains("control socket"));

    let daemon = daemon(UnixListener::bind(&path).unwrap(), 6);
    // SAFETY: as above.
    let code = unsafe { ringgear_open(&raw const options, &raw mut producer) };
    assert_eq!(code, 0, "{}", said(null_mut()));

    // Packed, in memory of just that length.
    let packed: Vec<u8> = (0..36).collect();
    let (pixels, size) = (packed.as_ptr().cast(), packed.len());
    // SAFETY: an open producer, and so many bytes that live.
    assert_eq!(unsafe { ringgear_write(producer, pixels, size, 1) }, 0);
    // SAFETY: as above; a byte less is refused and not read.
    assert!(unsafe { ringgear_write(producer, pixels, size - 1, 1) } < 0);
    assert!(!said(producer).is_empty());

    // Planes elsewhere, whose last rows end without padding.
    let luma: Vec<u8> = (100..100 + 3 * 9 + 6).collect();
    let chroma: Vec<u8> = (200..200 + 7 + 6).collect();
    let planes = [luma.as_ptr().cast(), chroma.as_ptr().cast()];
    let strides = [9, 7];
    let (planes, strides) = (planes.as_ptr(), strides.as_ptr());
    // SAFETY: an open producer, two pointers and two strides, and the rows that they name.
    let code = unsafe { ringgear_write_planes(producer, planes, strides, 2, 2) };
    assert_eq!(code, 0, "{}", said(producer));

    // Given up, then painted in place, from the first byte to the last.
    for commit in [false, true] {
        let mut view = MaybeUninit::<FrameView>::uninit();
        // SAFETY: an open producer, and room for a frame.
        assert_eq!(unsafe { ringgear_begin(producer, view.as_mut_ptr()) }, 0);
        // SAFETY: begin has filled it in.
        let view = unsafe { view.assume_init() };
        assert_eq!((view.plane_count, view.size), (2, 16 * 4 + 16 * 2));
        // SAFETY: the whole of the frame is this caller's until it is committed or given up.
        unsafe { view.data.write_bytes(7, view.size) };
        let code = if commit {
            // SAFETY: an open producer.
            unsafe { ringgear_commit(producer, 3) }
        } else {
            // SAFETY: as above.
            unsafe { ringgear_abandon(producer) }
        };
        assert_eq!(code, 0);
    }

    let mut counters = Counters::default();
    // SAFETY: an open producer, and room for counters.
    let code = unsafe { ringgear_get_counters(producer, &raw mut counters, size_of::<Counters>()) };
    assert_eq!((code, counters.committed, counters.sessions), (0, 3, 1));
    let mut account = Account::default();
    // SAFETY: an open producer, not used after this, and room for an account.
    let code = unsafe { ringgear_close(producer, &raw mut account) };
    assert_eq!((code, account.used), (0, 3));
    // SAFETY: nulls are allowed.
    assert_eq!(unsafe { ringgear_close(null_mut(), null_mut()) }, 0);
    // SAFETY: as above, and refused.
    assert!(unsafe { ringgear_write(null_mut(), null(), 0, 0) } < 0);

    let rows = |bytes: &[u8], stride: usize| -> Vec<u8> {
        bytes
            .chunks(stride)
            .flat_map(|row| &row[..6])
            .copied()
            .collect()
    };
    let elsewhere = [rows(&luma, 9), rows(&chroma, 7)].concat();
    assert_eq!(daemon.join().unwrap(), [packed, elsewhere, vec![7; 36]]);
}

/// Answers one `open_sound`, then `close`; returns each block's first sample, time and bytes.
fn sound_daemon(listener: UnixListener) -> JoinHandle<Vec<(u64, u64, Vec<u8>)>> {
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().contains("open_sound"));
        let format = SoundFormat::new(SampleFormat::F32le, 8000, 1).unwrap();
        let memory = RingMemory::create(&format, 4).unwrap();
        send_opened(&stream, &memory);
        let mut reader = Reader::new(memory);
        assert_eq!(lines.next().unwrap().unwrap(), "{\"type\":\"close\"}");
        let mut blocks = Vec::new();
        while let Some(taken) = reader.take_oldest().unwrap() {
            let mut bytes = Vec::new();
            taken.copy_block(&mut bytes).unwrap();
            let captured = taken.captured().map_or(0, |captured| captured.0);
            blocks.push((taken.frame_number(), captured, bytes));
        }
        let account = "{\"type\":\"closed\",\"used\":2,\"superseded\":0,\"late\":0}\n";
        (&stream).write_all(account.as_bytes()).unwrap();
        blocks
    })
}

#[test]
fn sound_arrives_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let socket = CString::new(path.to_str().unwrap()).unwrap();
    let mut options = MaybeUninit::<AudioOptions>::uninit();
    // SAFETY: so many bytes there may be written.
    unsafe { ringgear_audio_options_init(options.as_mut_ptr(), size_of::<AudioOptions>()) };
    // SAFETY: all zeros but for the size is a value of this struct of numbers and pointers.
    let mut options = unsafe { options.assume_init() };
    options.stream = c"door".as_ptr();
    options.format = c"f32le".as_ptr();
    options.socket = socket.as_ptr();
    (options.rate, options.channels) = (8000, 9);
    let mut audio = null_mut();
    // SAFETY: set-up options whose texts live, and room for a pointer.
    let code = unsafe { ringgear_audio_open(&raw const options, &raw mut audio) };
    assert!(code == E_FORMAT && audio.is_null());
    assert!(said(null_mut()).contains("9 channels"));

    options.channels = 1;
    let daemon = sound_daemon(UnixListener::bind(&path).unwrap());
    // SAFETY: as above.
    let code = unsafe { ringgear_audio_open(&raw const options, &raw mut audio) };
    assert_eq!(code, OK, "{}", said(null_mut()));
    let samples: Vec<u8> = (0..40).collect();
    let data = samples.as_ptr().cast();
    // SAFETY: an open producer, and so many bytes that live, as in the two below.
    assert_eq!(unsafe { ringgear_audio_write(audio, data, 40, 77) }, OK);
    // SAFETY: as above; no whole samples are refused and not read.
    let code = unsafe { ringgear_audio_write(audio, data, 39, 0) };
    assert_eq!(code, E_ARGUMENT);
    // SAFETY: as above; the mistake before was not the producer's end.
    assert_eq!(unsafe { ringgear_audio_write(audio, data, 4, 0) }, OK);
    // SAFETY: an open producer.
    let text = unsafe { ringgear_audio_last_error(audio) };
    // SAFETY: a text that is valid until this thread asks again.
    let text = unsafe { CStr::from_ptr(text) };
    assert!(text.to_str().unwrap().contains("39 bytes"), "{text:?}");
    // SAFETY: an open producer.
    assert_eq!(unsafe { ringgear_audio_check(audio) }, OK);
    let mut counters = Counters::default();
    let size = size_of::<Counters>();
    // SAFETY: an open producer, and room for counters.
    let code = unsafe { ringgear_audio_get_counters(audio, &raw mut counters, size) };
    assert_eq!((code, counters.committed, counters.dropped), (OK, 2, 0));
    let mut account = Account::default();
    // SAFETY: an open producer, not used after this, and room for an account.
    let code = unsafe { ringgear_audio_close(audio, &raw mut account) };
    assert_eq!((code, account.used), (OK, 2));
    // SAFETY: nulls are allowed.
    assert_eq!(unsafe { ringgear_audio_close(null_mut(), null_mut()) }, OK);
    // SAFETY: as above, and refused.
    assert!(unsafe { ringgear_audio_write(null_mut(), null(), 0, 0) } < 0);
    let expected = [(0, 77, samples.clone()), (10, 0, samples[..4].to_vec())];
    assert_eq!(daemon.join().unwrap(), expected);
}
