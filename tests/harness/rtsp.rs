//! A camera on loopback: FFmpeg draws and encodes, and a small RTSP server (RFC 2326) hands its packets to one client at a time, over the
//! connection itself, as cameras do.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

const LOOK_UP: Duration = Duration::from_millis(20);

/// Dropping it is its end: its connections break, and its port is free.
pub(crate) struct RtspCamera {
    pub(crate) port: u16,
    mute: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
    encoder: Child,
}

impl RtspCamera {
    /// A camera of 25 pictures a second; port 0 is any that is free.
    pub(crate) fn start(port: u16, size: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (packets, reports) = two_sockets();
        packets.set_read_timeout(Some(LOOK_UP)).unwrap();
        let to = format!("rtp://{}?pkt_size=1200", packets.local_addr().unwrap());
        let encoder = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-re", "-f", "lavfi", "-i"])
            .arg(format!("testsrc2=s={size}:r=25"))
            .args(["-c:v", "libx264", "-preset", "ultrafast", "-g", "25"])
            .args(["-tune", "zerolatency", "-pix_fmt", "yuv420p", "-f", "rtp"])
            .arg(to)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (mute, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (muted, stopped) = (Arc::clone(&mute), Arc::clone(&stop));
        let server = std::thread::spawn(move || {
            let _reports = reports;
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => serve(client, &packets, &muted, &stopped),
                    Err(_) => std::thread::sleep(LOOK_UP),
                }
            }
        });
        Self {
            port,
            mute,
            stop,
            server: Some(server),
            encoder,
        }
    }

    /// Whether it says nothing any more, though its connection stays.
    pub(crate) fn mute(&self, mute: bool) {
        self.mute.store(mute, Ordering::Relaxed);
    }
}

impl Drop for RtspCamera {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.encoder.kill();
        let _ = self.encoder.wait();
        let _ = self.server.take().map(JoinHandle::join);
    }
}

/// For packets and for reports, which FFmpeg sends to the next port.
fn two_sockets() -> (UdpSocket, UdpSocket) {
    loop {
        let packets = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = packets.local_addr().unwrap().port();
        let reports = UdpSocket::bind(("127.0.0.1", port.saturating_add(1)));
        if let Ok(reports) = reports {
            return (packets, reports);
        }
    }
}

/// Until the client leaves, or the camera ends.
fn serve(mut client: TcpStream, packets: &UdpSocket, mute: &AtomicBool, stop: &AtomicBool) {
    client.set_nonblocking(false).unwrap();
    let (mut asked, mut playing) = (Vec::new(), false);
    let mut packet = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let mut buffer = [0; 4096];
        // Packets must not wait for requests: a wait for each of them, however short, is longer than packets are apart.
        match recv(&client, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return,
            Ok((_, count)) => asked.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN) => {}
            Err(_) => return,
        }
        while let Some(request) = next_request(&mut asked) {
            if mute.load(Ordering::Relaxed) {
                continue;
            }
            if client.write_all(answer(&request).as_bytes()).is_err() {
                return;
            }
            playing |= request.starts_with("PLAY ");
        }
        let Ok(count) = packets.recv(&mut packet) else {
            continue;
        };
        if playing && !mute.load(Ordering::Relaxed) {
            let [high, low] = u16::try_from(count).unwrap().to_be_bytes();
            let framed = [&[b'$', 0, high, low], &packet[..count]].concat();
            if client.write_all(&framed).is_err() {
                return;
            }
        }
    }
}

/// The next request that is whole; the client's own packets between are passed over.
fn next_request(asked: &mut Vec<u8>) -> Option<String> {
    while let [b'$', _, high, low, ..] = asked[..] {
        let length = 4 + usize::from(u16::from_be_bytes([high, low]));
        if asked.len() < length {
            return None;
        }
        asked.drain(..length);
    }
    let end = asked.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    Some(String::from_utf8_lossy(&asked.drain(..end).collect::<Vec<u8>>()).into_owned())
}

fn answer(request: &str) -> String {
    const DESCRIPTION: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n\
                               a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n";
    let number = request.lines().find(|line| line.starts_with("CSeq:"));
    let number = number.unwrap_or("CSeq: 0");
    let (more, body) = match request.split(' ').next() {
        Some("OPTIONS") => (
            "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n".to_owned(),
            "",
        ),
        Some("DESCRIBE") => {
            let length = DESCRIPTION.len();
            let more = format!("Content-Type: application/sdp\r\nContent-Length: {length}\r\n");
            (more, DESCRIPTION)
        }
        Some("SETUP") => {
            let more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n";
            (more.to_owned(), "")
        }
        _ => ("Session: 1\r\n".to_owned(), ""),
    };
    format!("RTSP/1.0 200 OK\r\n{number}\r\n{more}\r\n{body}")
}
