// One stream's player. It starts by itself when the stream comes, and mends itself: whatever breaks, it tries again
// until it plays, and a restart of the daemon costs a moment's pause.
"use strict";

const name = location.pathname.split("/").filter(Boolean).at(-1);
const $ = (id) => document.getElementById(id);
const video = $("video");
const playlist = new URL("index.m3u8", location.href).href;
const native = !window.Hls?.isSupported?.() && video.canPlayType("application/vnd.apple.mpegurl") !== "";

let hls = null;
let stream = null;      // what the API said last
let reachable = true;   // whether it said anything lately
let attempt = 0;        // failed starts since it last played
let retryAt = 0;        // when the next start is due
let lastTime = -1;      // the video's clock when it last moved
let movedAt = 0;        // when that was
let mediaErrors = [];   // when the decoder was last recovered
let clockOffset = 0;    // the daemon's clock minus ours
let problem = "";       // what went wrong last, for people

document.title = `${name} · Ringgear`;
setText($("name"), name);

/** hls.js never retries a refused connection by itself, and gives up soon; a restarting daemon needs patience. */
function patience(gone) {
  const shouldRetry = (config, tried, timedOut, answer) =>
    Boolean(config) && tried < config.maxNumRetry && !gone.includes(answer?.code);
  return {
    default: {
      maxTimeToFirstByteMs: 8000,
      maxLoadTimeMs: 20000,
      timeoutRetry: { maxNumRetry: 30, retryDelayMs: 0, maxRetryDelayMs: 2000, shouldRetry },
      errorRetry: { maxNumRetry: 60, retryDelayMs: 500, maxRetryDelayMs: 2000, shouldRetry },
    },
  };
}

function start() {
  stop();
  problem = "";
  movedAt = performance.now();
  lastTime = -1;
  if (native) {
    video.src = playlist;
    video.play().catch(() => {});
    return;
  }
  hls = new Hls({
    backBufferLength: 30,
    maxLiveSyncPlaybackRate: 1.02,
    manifestLoadPolicy: patience([]),
    playlistLoadPolicy: patience([]),
    fragLoadPolicy: patience([404, 410]),
  });
  hls.on(Hls.Events.MANIFEST_PARSED, () => {
    fillQualities();
    video.play().catch(() => {});
  });
  hls.on(Hls.Events.LEVEL_SWITCHED, fillQualities);
  hls.on(Hls.Events.ERROR, (_, error) => { if (error.fatal) mend(error); });
  hls.loadSource(playlist);
  hls.attachMedia(video);
}

function stop() {
  hls?.destroy();
  hls = null;
  if (native) video.removeAttribute("src");
}

/** The mildest cure first: load again, recover the decoder, and at last start anew. */
function mend(error) {
  problem = error.error?.message ?? error.details;
  const now = performance.now();
  if (error.type === Hls.ErrorTypes.MEDIA_ERROR) {
    mediaErrors = mediaErrors.filter((at) => now - at < 10000);
    if (mediaErrors.length < 2) {
      mediaErrors.push(now);
      hls.recoverMediaError();
      return;
    }
  }
  startLater();
}

function startLater() {
  stop();
  const delay = Math.min(8000, 500 * 2 ** attempt) * (0.75 + Math.random() / 2);
  attempt = Math.min(attempt + 1, 6);
  retryAt = performance.now() + delay;
}

video.addEventListener("error", () => { if (native) startLater(); });

/** Called a few times a second: starts when there is something to play, and notices when nothing moves. */
function tend() {
  const now = performance.now();
  const running = Boolean(hls) || (native && video.hasAttribute("src"));
  const playable = Boolean(window.Hls?.isSupported?.()) || native;
  const published = (stream?.window.segments ?? 0) > 0;
  if (video.currentTime !== lastTime) {
    if (lastTime >= 0 && !video.seeking) attempt = 0;
    lastTime = video.currentTime;
    movedAt = now;
  }
  if (!running && playable && published && now >= retryAt) start();
  // Paused by the viewer, or out of sight: nothing has to move. Else hls.js had its time to mend it.
  if (video.paused && video.readyState >= 2) movedAt = now;
  const ended = stream?.state === "ended";
  if (running && reachable && published && !ended && now - movedAt > 12000) startLater();
  show(playable, published, now);
}

function show(playable, published, now) {
  const still = video.readyState < 3 || now - movedAt > 1500;
  const playing = !still && !video.paused;
  let state = stream?.state ?? "loading";
  if (!reachable || (published && state === "live" && still && !video.paused && attempt > 0)) state = "reconnecting";
  showState($("state"), state);

  let veil = "";
  let busy = true;
  if (!playable && published) {
    [veil, busy] = [window.MediaSource || window.ManagedMediaSource
      ? "This build has no player for this browser. Run make web, build Ringgear again, or use a link on this page."
      : "This browser can't play live video. Use a link on this page in another player.", false];
  } else if (!reachable) {
    veil = playing ? "" : "Reconnecting to Ringgear";
  } else if (!stream) {
    veil = "Loading";
  } else if (!published) {
    veil = { waiting: `Waiting for a producer. Feed this stream: ringgear pattern ${name}`, failed: "The encoder does not run. Ringgear keeps trying." }[stream.state] ?? "Starting";
    busy = stream.state !== "waiting" && stream.state !== "failed";
  } else if (still && !video.paused && video.readyState < 3) {
    veil = attempt > 0 ? "Reconnecting" : "Loading";
  }
  video.controls = video.readyState >= 1;
  $("veil").hidden = !veil;
  $("veil").classList.toggle("still", !busy);
  setText($("veil-text"), veil);

  const detail = stream?.detail ?? (attempt > 1 ? problem : "");
  $("detail").hidden = !detail;
  setText($("detail"), detail);
  showLatency(playing);
}

function showLatency(playing) {
  const shown = hls?.playingDate?.getTime() ?? startDate();
  const behind = playing && shown ? (Date.now() + clockOffset - shown) / 1000 : NaN;
  setText($("behind"), behind > 0 && behind < 86400 ? `${behind.toFixed(1)} s behind live` : "");
  const edge = hls?.liveSyncPosition ?? null;
  $("live").hidden = !(edge !== null && video.readyState >= 2 && edge - video.currentTime > 4);
}

/** Safari knows the date of time zero. */
function startDate() {
  const date = video.getStartDate?.();
  return date && !Number.isNaN(date.getTime()) ? date.getTime() + 1000 * video.currentTime : undefined;
}

$("live").addEventListener("click", () => {
  const edge = hls?.liveSyncPosition;
  if (edge !== null && edge !== undefined) video.currentTime = edge;
  video.play().catch(() => {});
});

function fillQualities() {
  const levels = hls?.levels ?? [];
  $("pick").hidden = levels.length < 2;
  const current = levels[hls?.currentLevel];
  const auto = hls.autoLevelEnabled && current ? `Auto (${current.height}p)` : "Auto";
  const options = [element("option", { value: "-1" }, auto)];
  levels.forEach((level, index) => {
    options.push(element("option", { value: index }, `${level.height}p, ${bits(level.averageBitrate || level.bitrate)}`));
  });
  $("quality").replaceChildren(...options.reverse());
  $("quality").value = hls.autoLevelEnabled ? "-1" : String(hls.currentLevel);
}

$("quality").addEventListener("change", (event) => { if (hls) hls.nextLevel = Number(event.target.value); });

function fillFigures() {
  const { ticks, frames, encoder, session, renditions, window: shown } = stream;
  const share = (part) => (ticks.total ? ` (${((100 * part) / ticks.total).toFixed(1)} %)` : "");
  const rows = [
    ["Producer", session ? `${session.client ?? "unnamed"}, pid ${session.pid}` : "none"],
    ["Frames in", session ? `${session.width}×${session.height} ${session.format}` : "none"],
    ["Rate", `${frames.per_second.toFixed(1)} of ${framerate(stream.framerate)}`],
    ["Fresh ticks", count(ticks.fresh)],
    ["Repeated", count(ticks.repeated) + share(ticks.repeated)],
    ["Slate", count(ticks.slate) + share(ticks.slate)],
    ["Frames used", count(frames.used)],
    ["Superseded", count(frames.superseded)],
    ["Encoder", encoder.pid ? `pid ${encoder.pid}` : "not running"],
    ["Encoder delay", encoder.delay_seconds ? `${Math.round(1000 * encoder.delay_seconds)} ms` : "–"],
    ["Restarts", count(encoder.restarts)],
    ...renditions.map((r) => [r.name, [r.width ? `${r.width}×${r.height}` : r.codec, bits(r.average_bits_per_second)].filter(Boolean).join(", ")]),
    ["Window", `${shown.seconds.toFixed(0)} s, ${(shown.bytes / 1e6).toFixed(1)} MB`],
    ["Viewers", count(shown.viewers)],
  ];
  const list = $("figures");
  while (list.children.length > 2 * rows.length) list.lastChild.remove();
  rows.forEach(([label, value], index) => {
    if (!list.children[2 * index]) list.append(element("dt"), element("dd"));
    setText(list.children[2 * index], label);
    setText(list.children[2 * index + 1], value);
  });
}

function fillLinks() {
  for (const [file, label] of [["index.m3u8", "HLS: index.m3u8"], ["manifest.mpd", "DASH: manifest.mpd"]]) {
    const url = new URL(file, location.href).href;
    const copy = element("button", { type: "button", "aria-label": `Copy the address of ${file}` }, "Copy");
    copy.addEventListener("click", async () => {
      setText(copy, (await copied(url)) ? "Copied" : "Press Ctrl+C");
      setTimeout(() => setText(copy, "Copy"), 2000);
    });
    $("links").append(element("li", {}, element("a", { href: file }, label), copy));
  }
}

/** The clipboard is there on secure origins alone; elsewhere a selected field is the way. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = element("textarea", { readonly: "", class: "hidden" });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

async function readClock() {
  const asked = Date.now();
  const answer = await fetch("../time", { cache: "no-store", signal: AbortSignal.timeout(5000) });
  const time = Date.parse(await answer.text());
  const back = Date.now();
  if (answer.ok && !Number.isNaN(time)) clockOffset = time - (asked + back) / 2;
}

async function refresh() {
  try {
    stream = await getJson(`../api/v1/streams/${name}`);
    // Back again: what failed while the daemon was away says nothing about now.
    if (!reachable) [retryAt, movedAt] = [0, performance.now()];
    reachable = true;
    fillFigures();
  } catch (error) {
    reachable = error.status === 404 ? reachable : false;
    if (error.status === 404) [stream, problem] = [null, "This stream is no longer in the config."];
  }
  tend();
}

fillLinks();
repeat(() => readClock().catch(() => {}), 60000);
repeat(refresh, 1000);
setInterval(tend, 250);
