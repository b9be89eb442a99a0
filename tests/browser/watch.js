// Notes what a <video> does: where it is, where it stops, and which frames it shows.

window.watchVideo = function watchVideo(video) {
  const notes = { errors: [], stalls: [], started: null, opened: performance.now(), frames: [] };
  let stalledAt = null;
  let readAt = -Infinity;
  const resumed = () => {
    if (stalledAt === null) return;
    const seconds = (performance.now() - stalledAt) / 1000;
    stalledAt = null;
    if (seconds > 0.05) notes.stalls.push({ at: video.currentTime, seconds, ended: Date.now() });
  };
  const stalled = () => {
    // Until the first picture a player may wait as it likes.
    if (notes.started !== null && stalledAt === null) stalledAt = performance.now();
  };
  video.addEventListener('waiting', stalled);
  video.addEventListener('playing', resumed);
  video.addEventListener('timeupdate', resumed);
  video.addEventListener('error', () => notes.errors.push(`video: ${video.error?.code} ${video.error?.message}`));
  const onFrame = (now, metadata) => {
    if (notes.started === null) notes.started = now;
    const due = !window.withoutBars && now - readAt >= (window.barsEvery ?? 0);
    if (due) readAt = now;
    const shown = Date.now();
    const bars = due ? window.readBars(video) : null;
    notes.frames.push({
      at: now,
      shown,
      media: metadata.mediaTime,
      frame: bars?.frame ?? null,
      captured: bars?.time ?? null,
    });
    if (notes.frames.length > 40000) notes.frames.shift();
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
  notes.look = () => {
    if (stalledAt !== null && performance.now() - stalledAt > 500) {
      notes.stalls.push({ at: video.currentTime, seconds: (performance.now() - stalledAt) / 1000, ended: Date.now() });
      stalledAt = performance.now();
    }
    return { currentTime: video.currentTime, rate: video.playbackRate, paused: video.paused, at: performance.now() };
  };
  window.videoNotes = notes;
  return notes;
};
