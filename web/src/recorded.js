// Plays recordings: what the pages of a live stream's past and of a single recording have in common.
"use strict";

const RETRY_AFTER = 2000; // ms from what stopped a recording to the next try

/**
 * Plays in `video` the recording that it is told, from the beginning. What stops it is tried again, from where it stopped and running if it
 * was; `onProblem` gets what is wrong, for people, and "" when that is over.
 */
function makeRecorded(video, onProblem) {
  let url = "";    // of the playlist
  let hls = null;  // hls.js, if that plays it
  let retry = 0;   // the timer of the next try

  function begin(place, running) {
    const failed = (message) => {
      const again = [video.currentTime || place, !video.paused];
      stop();
      retry = setTimeout(begin, RETRY_AFTER, ...again);
      onProblem(message);
    };
    if (window.Hls?.isSupported?.()) {
      // From there, though it may still grow.
      hls = new Hls({ startPosition: place, lowLatencyMode: false });
      hls.on(Hls.Events.ERROR, (_, error) => {
        if (error.fatal) failed(error.response?.code === 404 ? "This recording is gone." : (error.error?.message ?? error.details));
      });
      hls.loadSource(url);
      hls.attachMedia(video);
    } else if (video.canPlayType("application/vnd.apple.mpegurl")) {
      video.onerror = () => failed("The browser's own player stopped.");
      video.src = url;
      video.currentTime = place;
    } else {
      onProblem("This browser can't play the recording. Use a link on this page in another player.");
      return;
    }
    if (running) video.play().catch(() => {});
  }

  function stop() {
    clearTimeout(retry);
    video.onerror = null;
    hls?.destroy();
    hls = null;
  }

  video.addEventListener("loadeddata", () => onProblem(""));
  return {
    /** Plays that of this playlist; what plays already goes on. */
    play(playlist) {
      const { href } = new URL(playlist, location.href);
      if (href === url) return;
      stop();
      url = href;
      onProblem("");
      begin(0, false);
    },
    /** When what is shown was live, by the playlist's own times. */
    date: () => hls?.playingDate,
  };
}
