"""The producer of sound against a real daemon."""

import time

import numpy as np
import pytest
from conftest import wait_until

import ringgear


def producer(daemon, **options):
    return ringgear.AudioProducer("cam", socket=daemon.socket, **options)


def test_samples_go_as_arrays_and_bytes_and_are_accounted_for(sounding):
    with producer(sounding, rate=44100, channels=2, client="mymic/1") as feeder:
        assert (feeder.rate, feeder.channels, feeder.format) == (44100, 2, "s16le")
        assert feeder.dtype == np.int16 and feeder.connected
        block = np.zeros((441, 2), np.int16)
        assert feeder.write(block, captured=time.monotonic_ns() - 10_000_000)
        assert feeder.write(block.reshape(-1)) and feeder.write(block.tobytes())
        assert feeder.write(np.asfortranarray(block)[::-1])
        # More than a slot holds goes as several blocks.
        assert feeder.write(np.zeros((11025, 2), np.int16))
        assert (feeder.samples, feeder.committed, feeder.dropped) == (4 * 441 + 11025, 6, 0)
        told = wait_until("all blocks are taken", lambda: (s := sounding.sound()) and s["committed"] == 6 and s)
        assert (told["format"], told["rate"], told["channels"], told["client"]) == ("s16le", 44100, 2, "mymic/1")
        assert told["disbelieved"] == 0
        assert feeder.close() == ringgear.Closed(used=6, superseded=0, late=0)
        assert feeder.close() is None and not feeder.connected
    with pytest.raises(ringgear.ProducerClosed):
        feeder.write(block)
    wait_until("the seat is free", lambda: sounding.sound() is None)


@pytest.mark.parametrize(
    "samples, mend",
    [
        (np.zeros((10, 2)), "float32"),
        (np.zeros((10, 2), np.int16), "s16le"),
        (np.zeros((2, 10), np.float32), "transpose"),
        (np.zeros(9, np.float32), "whole samples"),
        (b"1234567", "no whole number of samples"),
        (None, "astype"),
    ],
)
def test_samples_that_do_not_fit_are_refused_with_the_mend(sounding, samples, mend):
    with producer(sounding, format="f32le") as feeder:
        with pytest.raises(ringgear.FrameError, match=mend):
            feeder.write(samples)
        assert feeder.samples == 0
        assert feeder.write(np.zeros((10, 2), np.float32))


def test_a_stream_without_sound_takes_none(daemon):
    with pytest.raises(ringgear.NotPermitted, match='source = "producer"'):
        producer(daemon)


def test_each_refusal_says_what_to_do(sounding):
    for wrong in ({"rate": 7999}, {"channels": 9}, {"format": "s24le"}, {"slots": 33}, {"rate": 44100.0}):
        with pytest.raises(ringgear.FrameError):
            producer(sounding, **wrong)
    with producer(sounding) as first:
        with pytest.raises(ringgear.StreamBusy, match="the sound of stream 'cam'"):
            producer(sounding)
        with producer(sounding, take_over=True) as second:
            block = np.zeros((480, 2), np.int16)
            with pytest.raises(ringgear.TakenOver):
                wait_until("it is told", lambda: first.write(block) and False)
            assert second.write(block)


def test_a_killed_daemon_is_found_again(sounding):
    with producer(sounding, channels=1) as feeder:
        block = np.zeros(480, np.int16)
        assert feeder.write(block)
        sounding.kill()
        wait_until("it is missed", lambda: not feeder.write(block))
        assert feeder.dropped > 0
        sounding.start()
        wait_until("it is found again", lambda: feeder.write(block))
        assert feeder.sessions == 2
