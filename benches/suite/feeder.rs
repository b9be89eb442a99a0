//! A camera for the benches: feeds streams with the frames of a file, at a pace, at little cost of its own.
//!
//!     feeder --socket PATH --format bgr24 --size 1280x720 --rate 30 --frames FILE [--still] STREAM...
//!
//! All streams are fed by one thread, each at its own moment of the tick, as cameras that know nothing of each other. With `--still` pixels are
//! written until every slot of the rings has some, and from then on frames are committed as they are, as where a device writes them. Says on stdout when
//! each stream's first frame was committed, in seconds since the epoch. Ends when it is killed or its streams do.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use ringgear::picture::Size;
use ringgear_producer::{FrameFormat, PixelFormat, Producer, ProducerOptions};

/// More than a ring's slots.
const ALL_SLOTS: u64 = 16;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    socket: PathBuf,
    #[arg(long)]
    format: String,
    #[arg(long)]
    size: Size,
    #[arg(long)]
    rate: f64,
    #[arg(long)]
    frames: PathBuf,
    #[arg(long)]
    still: bool,
    #[arg(required = true)]
    streams: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let asked = Arguments::parse();
    let pixels = PixelFormat::from_name(&asked.format)
        .ok_or_else(|| format!("no pixel format is named '{}'", asked.format))?;
    let format = FrameFormat::packed(pixels, asked.size.width, asked.size.height)?;
    let frames = std::fs::read(&asked.frames)?;
    let pictures: Vec<&[u8]> = frames.chunks_exact(format.bytes()).collect();
    if pictures.is_empty() {
        return Err(format!("{} has no whole frame", asked.frames.display()).into());
    }
    let mut producers = VecDeque::new();
    for stream in &asked.streams {
        producers.push_back(Producer::open(&ProducerOptions {
            socket: asked.socket.clone(),
            ..ProducerOptions::new(stream, format.clone())
        })?);
    }
    let begin = Instant::now();
    let between = 1.0 / asked.rate / asked.streams.len() as f64;
    for turn in 0_u32.. {
        let deadline = begin + Duration::from_secs_f64(between * f64::from(turn));
        std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
        let Some(mut producer) = producers.pop_front() else {
            break;
        };
        let number = producer.next_frame_number();
        let mut frame = producer.begin()?;
        if !asked.still || number < ALL_SLOTS {
            let picture = usize::try_from(number)? % pictures.len();
            frame.fill(pictures[picture])?;
        }
        frame.commit(None);
        if number == 0 {
            println!(
                "{:.6}",
                SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64()
            );
        }
        producers.push_back(producer);
    }
    Ok(())
}
