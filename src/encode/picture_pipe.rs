//! An encoder's input: pictures are put into its pipe without a copy where the system can do that, and kept until they have been read.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};

use crate::picture::Picture;

/// How long a full pipe is waited for until it is asked again whether the picture is still wanted.
const WRITE_PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Pictures whose memory is in the pipe, each with how many bytes that had been given with its last one. What reads the pipe may still read them
/// for as long as it lives.
#[derive(Default)]
pub(super) struct Lent(VecDeque<(Picture, u64)>);

/// A pipe that pictures are written to. It does not block.
pub(super) struct PicturePipe {
    pipe: OwnedFd,
    /// Whether pictures are put into it without a copy, where their memory is made for that: it has to tell how much of them is unread.
    splices: bool,
    /// How many bytes it was given.
    given: u64,
    lent: Lent,
}

impl PicturePipe {
    /// Writes to `pipe`, which has to be set not to block.
    pub(super) fn new(pipe: impl Into<OwnedFd>) -> Self {
        let pipe = pipe.into();
        Self {
            splices: ioctl_fionread(&pipe).is_ok(),
            pipe,
            given: 0,
            lent: Lent::default(),
        }
    }

    /// Writes all of `picture`. `go_on` is told how many further bytes the pipe has taken, 0 when it was full for a while, and says whether they are
    /// still wanted.
    ///
    /// # Errors
    /// When nobody reads the pipe, or `go_on` says no.
    pub(super) fn write(
        &mut self,
        picture: &Picture,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> io::Result<()> {
        let bytes = picture.pixels().len();
        let (mut done, mut lent, mut splices) = (0, false, self.splices);
        while done < bytes {
            let taken = match splices {
                true => picture.splice_into(done, &self.pipe),
                false => rustix::io::write(&self.pipe, &picture.pixels()[done..]),
            };
            let count = match taken {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.wait_for_room()?;
                    0
                }
                Err(Errno::PIPE) => return Err(Errno::PIPE.into()),
                // This picture's memory is of another kind, or the system can't do it.
                Err(_) if splices => {
                    splices = false;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            lent |= splices && count > 0;
            done += count;
            self.given += count as u64;
            if !go_on(count as u64) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        if lent {
            self.lent.0.push_back((picture.clone(), self.given));
        }
        self.take_back();
        Ok(())
    }

    /// No more comes. What is returned is to be kept until the reader has ended.
    pub(super) fn close(self) -> Lent {
        self.lent
    }

    fn wait_for_room(&mut self) -> io::Result<()> {
        let mut pipe = [PollFd::from_borrowed_fd(self.pipe.as_fd(), PollFlags::OUT)];
        match poll(&mut pipe, Some(&WRITE_PATIENCE)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.take_back();
        Ok(())
    }

    /// Lets go of pictures that have been read.
    fn take_back(&mut self) {
        if self.lent.0.is_empty() {
            return;
        }
        let Ok(unread) = ioctl_fionread(&self.pipe) else {
            // Those that are lent are kept until the reader has ended, and no more follow.
            self.splices = false;
            return;
        };
        let read = self.given.saturating_sub(unread);
        while self.lent.0.front().is_some_and(|(_, end)| *end <= read) {
            self.lent.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    use super::*;
    use crate::clock::MonotonicTime;
    use crate::picture::{PictureFormat, PicturePool, Size};

    const SIZE: Size = Size::new(640, 360);
    const PICTURES: u8 = 60;

    fn picture(pool: &PicturePool, mark: u8) -> Picture {
        let mut buffer = pool.take().unwrap();
        buffer.bytes_mut().fill(mark);
        Picture::new(PictureFormat::I420, SIZE, MonotonicTime(0), buffer)
    }

    /// Pictures that are dropped as soon as they are written, whose memory is then used for the next ones.
    fn written(pool: &PicturePool) -> (Vec<u8>, usize) {
        let (mut reader, writer) = io::pipe().unwrap();
        let flags = fcntl_getfl(&writer).unwrap();
        fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
        let reading = std::thread::spawn(move || {
            let (mut all, mut some) = (Vec::new(), [0; 30_000]);
            loop {
                match reader.read(&mut some).unwrap() {
                    0 => return all,
                    count => all.extend_from_slice(&some[..count]),
                }
                // Slower than the writer, so that the pipe is full most of the time.
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        let mut pipe = PicturePipe::new(writer);
        let mut most = 0;
        for mark in 0..PICTURES {
            pipe.write(&picture(pool, mark), |_| true).unwrap();
            most = most.max(pipe.lent.0.len());
        }
        let lent = pipe.close();
        let all = reading.join().unwrap();
        drop(lent);
        (all, most)
    }

    #[test]
    fn every_picture_arrives_as_it_was_though_its_memory_is_used_again() {
        let bytes = PictureFormat::I420.bytes(SIZE);
        for pool in [PicturePool::for_pipes(bytes), PicturePool::new(bytes)] {
            let (all, most) = written(&pool);
            assert_eq!(all.len(), bytes * usize::from(PICTURES));
            for (picture, mark) in all.chunks(bytes).zip(0..) {
                assert!(picture.iter().all(|byte| *byte == mark), "picture {mark}");
            }
            // A pipe of 64 KiB has the end of one picture in it.
            assert!(most <= 1, "{most} pictures were kept");
        }
    }

    #[test]
    fn who_reads_no_more_or_wants_no_more_ends_it() {
        let pool = PicturePool::for_pipes(PictureFormat::I420.bytes(SIZE));
        let (reader, writer) = io::pipe().unwrap();
        let flags = fcntl_getfl(&writer).unwrap();
        fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
        let mut pipe = PicturePipe::new(writer);
        assert!(pipe.write(&picture(&pool, 1), |bytes| bytes > 0).is_err());
        drop(reader);
        assert!(pipe.write(&picture(&pool, 1), |_| true).is_err());
    }
}
