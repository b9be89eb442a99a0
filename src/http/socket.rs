//! A viewer's socket. Media that the window holds in memory which a socket can be given is not copied into it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ringgear_ring::{LEAST_MEDIA, MediaPlace};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

pub(super) struct Socket(TcpStream);

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(stream)
    }
}

/// The beginning of what is to be written: media, and what comes before it.
struct Written<'a> {
    before: &'a [IoSlice<'a>],
    media: MediaPlace<'a>,
}

impl<'a> Written<'a> {
    /// None if there is no media in it.
    fn of(slices: &'a [IoSlice<'a>]) -> Option<Self> {
        let large = |slice: &IoSlice<'_>| slice.len() >= LEAST_MEDIA;
        let mut found = slices.iter().enumerate().filter(|(_, slice)| large(slice));
        let (first, mut media) =
            found.find_map(|(index, slice)| Some((index, MediaPlace::of(slice)?)))?;
        let behind = slices[first + 1..].iter();
        for _ in behind.take_while(|next| media.extend(next)) {}
        Some(Self {
            before: &slices[..first],
            media,
        })
    }

    /// Writes as much as `socket` has room for.
    fn write(&self, socket: &TcpStream) -> Result<usize, Errno> {
        if self.before.is_empty() {
            return self.media.send_into(socket);
        }
        let mut nothing = SendAncillaryBuffer::default();
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        let before = sendmsg(socket, self.before, &mut nothing, flags)?;
        let all = self.before.iter().map(|slice| slice.len()).sum();
        if before < all {
            return Ok(before);
        }
        // What goes wrong now goes wrong the next time, too.
        Ok(before + self.media.send_into(socket).unwrap_or(0))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(written) = Written::of(slices) {
            loop {
                ready!(self.0.poll_write_ready(context))?;
                let write = || written.write(&self.0).map_err(io::Error::from);
                match self.0.try_io(Interest::WRITABLE, write) {
                    Ok(written) => return Poll::Ready(Ok(written)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // A socket that can't be given media is written to, and says what is wrong with it.
                    Err(_) => break,
                }
            }
        }
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::task::Waker;

    use bytes::{Buf, Bytes};
    use ringgear_ring::MediaRun;

    use super::super::range::Slices;
    use super::*;

    /// `bytes` bytes of which no two stretches are alike.
    fn marked(mark: usize, bytes: usize) -> Vec<u8> {
        let words = (0..bytes.div_ceil(8)).map(|at| (at * 1_000_003) ^ (mark << 40));
        let mut all: Vec<u8> = words.flat_map(usize::to_le_bytes).collect();
        all.truncate(bytes);
        all
    }

    fn kept(run: &mut MediaRun, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(run.keep(&bytes).expect("this machine has memfds"))
    }

    #[test]
    fn a_slow_viewer_has_all_of_an_answer_though_its_media_went_meanwhile() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut viewer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let _entered = runtime.enter();
        let mut socket = Socket::new(TcpStream::from_std(stream).unwrap());
        let mut run = MediaRun::default();
        // A head, media of which some is adjoining and some cut, and what is too little for such memory.
        let mut parts = vec![Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\n")];
        for mark in 0..100 {
            let large = kept(&mut run, marked(mark, 300_000 + 17 * mark));
            parts.push(if mark % 5 == 0 {
                large.slice(5..290_000)
            } else {
                large
            });
            if mark % 7 == 0 {
                parts.push(marked(mark, 100 * mark).into());
            }
        }
        let all = parts.concat();
        let mut answer = Slices::new(parts);
        let mut context = Context::from_waker(Waker::noop());
        let mut write = |answer: &mut Slices| {
            let mut written = false;
            // What the kernel has told of the socket is seen.
            runtime.block_on(tokio::task::yield_now());
            while answer.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 64];
                let count = answer.chunks_vectored(&mut slices);
                let write =
                    Pin::new(&mut socket).poll_write_vectored(&mut context, &slices[..count]);
                match write {
                    // What is written is let go of.
                    Poll::Ready(bytes) => answer.advance(bytes.unwrap()),
                    Poll::Pending => break,
                }
                written = true;
            }
            written
        };
        assert!(write(&mut answer) && answer.has_remaining());
        // Others come for it.
        let others: Vec<_> = (0..50)
            .map(|mark| kept(&mut run, marked(1000 + mark, 300_000)))
            .collect();
        let mut read = vec![0; all.len()];
        let mut at = 0;
        while at < read.len() {
            let end = read.len().min(at + 200_000);
            at += viewer.read(&mut read[at..end]).unwrap();
            write(&mut answer);
        }
        assert!(read == all);
        assert!((0..50).all(|mark| others[mark] == marked(1000 + mark, 300_000)));
    }

    #[test]
    fn media_is_told_from_the_rest() {
        let mut run = MediaRun::default();
        let [one, two] = [1, 2].map(|mark| kept(&mut run, marked(mark, 50_000)));
        let (small, large) = (Bytes::from_static(b"head"), Bytes::from(vec![7; 50_000]));
        let before = |slices: &[&Bytes]| {
            let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            Written::of(&slices).map(|written| written.before.len())
        };
        assert_eq!(before(&[&small, &one, &two]), Some(1));
        assert_eq!(before(&[&two, &small, &one]), Some(0));
        assert_eq!(before(&[&small, &large, &one.slice(1..), &small]), Some(2));
        assert_eq!(before(&[&small, &large, &one.slice(..100)]), None);
        assert_eq!(before(&[]), None);
    }
}
