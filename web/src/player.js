// One stream's player. It starts by itself when the stream comes, holds the live edge by its speed, and mends itself: whatever breaks,
// it tries again until it plays, and a restart of the daemon costs a moment's pause. What the viewer chose stands in the address.
"use strict";

const name = location.pathname.split("/").filter(Boolean).at(-1);

const STILL = 1500;        // ms without a new picture: it no longer plays
const NUDGE_AFTER = 4000;  // then the place is changed, for players that wait for what never comes
const RENEW_AFTER = 9000;  // then all is begun anew
const MAX_RATE = 1.1;      // speeds that nobody notices
const MIN_RATE = 0.95;
const REPLAY_EVERY = 10000; // ms between jumps back, each of which shows something again

const rates = makeRates();

let choice = readChoice();
let engine = null;
let beginning = null;      // the start under way
let stream = null;         // what the API said last
let reachable = true;      // whether it said anything lately
let played = "";           // the format that was begun last
let attempt = 0;           // failed starts since it last played
let retryAt = 0;           // when the next start is due
let lastTime = -1;         // the video's clock when it last moved
let movedAt = 0;           // when that was
let nudged = false;        // since it last moved
let clockOffset = NaN;     // the daemon's clock minus performance.now(); not known at first
let wallThen = NaN;        // the viewer's clock minus performance.now(), when it was read
let lastSegment;           // of the window
let windowMovedAt = 0;     // when that was first seen
let windowRests = false;   // whether it should have been followed by another since
let problem = "";          // what went wrong last, for people
let hopeless = "";         // why no player can work here
let wanted = true;         // whether the viewer wants it to play
let following = true;      // whether it is to hold the live edge; not while rewound
let extra = 0;             // seconds more from the edge than asked for, since it stalled there
let learntAt = 0;          // when extra last changed
let waitingSince = 0;      // when the present stall began, if there is one
let steadyFrom = Infinity; // from when on stalls tell something of the edge
let replayedAt = -Infinity; // when it last jumped back from the edge
let stalls = 0;
let renewals = 0;
const unpublished = new Set(); // formats that this stream doesn't have

document.title = `${name} · Ringgear`;
setText($("name"), name);

const serverNow = () => performance.now() + clockOffset;
const wallAhead = () => Date.now() - performance.now();

// What the viewer chose.

function readChoice() {
  const query = new URLSearchParams(location.search);
  return {
    format: query.get("format") === "dash" ? "dash" : "hls",
    latency: query.get("latency") === "safe" ? "safe" : "low",
    quality: query.get("quality") ?? "",
  };
}

/** Only what differs from the default stands in the address. */
function writeChoice() {
  const query = new URLSearchParams(location.search);
  for (const [key, usual] of [["format", "hls"], ["latency", "low"], ["quality", ""]]) {
    if (choice[key] === usual) query.delete(key);
    else query.set(key, choice[key]);
  }
  const text = query.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}

function showChoice() {
  const form = $("choices");
  form.elements.format.value = engine ? played : format();
  form.elements.latency.value = choice.latency;
  for (const radio of form.elements.format) radio.disabled = unpublished.has(radio.value);
}

/** The format to begin with: the other one, if the chosen one is not published. */
function format() {
  const other = { hls: "dash", dash: "hls" }[choice.format];
  return unpublished.has(choice.format) && !unpublished.has(other) ? other : choice.format;
}

$("choices").addEventListener("submit", (event) => event.preventDefault());
$("choices").addEventListener("change", ({ target }) => {
  choice[target.name] = target.value;
  writeChoice();
  if (target.name === "quality") {
    engine?.choose(choice.quality);
    return;
  }
  [following, extra, attempt] = [true, 0, 0];
  renew();
});

// Starting, and starting anew.

function renew() {
  stop();
  [retryAt, hopeless] = [0, ""];
  tend();
}

async function begin() {
  const mine = {};
  beginning = mine;
  [problem, movedAt, lastTime, nudged] = ["", performance.now(), -1, false];
  [waitingSince, steadyFrom] = [0, Infinity];
  played = format();
  const current = () => beginning === mine;
  try {
    const make = played === "dash" ? dashEngine : hlsEngine;
    const made = await make(video, {
      scripts: document.body.dataset,
      low: choice.latency === "low",
      rendition: choice.quality,
      clock: serverNow,
      onLevels: () => { if (current()) fillQualities(); },
      onFatal: (message, status) => { if (current()) fail(message, status); },
    });
    if (!current()) {
      made.destroy();
      return;
    }
    engine = made;
    showChoice();
    if (wanted) play();
  } catch (error) {
    if (!current()) return;
    if (error instanceof Unsupported) hopeless = error.message;
    fail(error.message);
  }
}

function stop() {
  keepPicture();
  beginning = null;
  engine?.destroy();
  engine = null;
  video.playbackRate = 1;
}

/** An error that the player itself gave up on; with a status if the manifest was refused. */
function fail(message, status) {
  problem = message;
  stop();
  if (status === 404 && (stream?.window.segments ?? 0) > 0) {
    unpublished.add(played);
    // Neither is there: it may come back.
    if (unpublished.size > 1) unpublished.clear();
    showChoice();
  }
  const delay = Math.min(8000, 500 * 2 ** attempt) * (0.75 + Math.random() / 2);
  attempt = Math.min(attempt + 1, 6);
  renewals++;
  retryAt = performance.now() + delay;
}

function play() {
  video.play().catch(() => {});
}

/** The last picture stays on screen while all is begun anew. */
function keepPicture() {
  if (!video.videoWidth || video.readyState < 2) return;
  const still = $("still");
  [still.width, still.height] = [video.videoWidth, video.videoHeight];
  still.getContext("2d").drawImage(video, 0, 0);
  still.hidden = false;
}

// The live edge.

function bufferedAhead() {
  const { buffered, currentTime } = video;
  for (let index = 0; index < buffered.length; index++) {
    if (buffered.start(index) <= currentTime + 0.1 && currentTime < buffered.end(index)) return buffered.end(index) - currentTime;
  }
  return 0;
}

/** How far behind the place that live playback should have, after what stalls have taught. */
function behind() {
  const seconds = engine?.behind() ?? NaN;
  return Number.isFinite(seconds) ? seconds - extra : NaN;
}

function setRate(rate) {
  // Each change costs the browser a little.
  if (Math.abs(video.playbackRate - rate) >= 0.01) video.playbackRate = rate;
}

/** Holds the place by playing a little faster or slower, and jumps where that would take too long. */
function steer(now) {
  const late = behind();
  if (!following || video.paused || video.seeking || Number.isNaN(late)) {
    setRate(1);
    return;
  }
  const low = choice.latency === "low";
  if (late > (low ? 2 : 4)) {
    goLive();
    return;
  }
  // A player that jumps over what it failed to load ends up at the very edge, where safe playback is not; drifting back takes a minute.
  const there = video.currentTime + late >= (engine.range()?.[0] ?? Infinity);
  if (!low && late < -1.5 && there && now - replayedAt > REPLAY_EVERY) {
    replayedAt = now;
    goLive();
    return;
  }
  const [tolerance, least] = low ? [0.05, 0.25] : [0.5, 2];
  // Once at another speed it goes on to the middle.
  const enough = video.playbackRate === 1 ? tolerance : tolerance / 2;
  const ahead = bufferedAhead();
  if (late > enough && ahead > least) setRate(Math.min(MAX_RATE, 1 + Math.max(0.02, late / 5)));
  else if (late < -2 * enough) setRate(Math.max(MIN_RATE, 1 + Math.min(-0.02, late / 5)));
  else setRate(1);
  // What a stall has cost is tried again after a while.
  if (extra > 0 && now - learntAt > 30000) [extra, learntAt] = [Math.max(0, extra - 0.1), now - 20000];
}

function goLive() {
  following = true;
  const late = engine?.toLive?.() ?? behind();
  if (Number.isFinite(late) && Math.abs(late) > 0.5) video.currentTime += late;
  setRate(1);
}

video.addEventListener("waiting", () => {
  if (waitingSince === 0 && !video.seeking && lastTime >= 0) waitingSince = performance.now();
});

/** A short stall means that it stood too near the edge; a long one that something was broken, after which the edge is far. */
video.addEventListener("playing", () => {
  $("still").hidden = true;
  const now = performance.now();
  if (steadyFrom === Infinity) steadyFrom = now + 3000;
  const [began, lasted] = [waitingSince, now - waitingSince];
  waitingSince = 0;
  if (began === 0 || began < steadyFrom) return;
  stalls++;
  if (!following) return;
  if (lasted > STILL) goLive();
  else [extra, learntAt] = [Math.min(2, extra + 0.2), now];
});

// Tending: called a few times a second.

function tend() {
  const now = performance.now();
  const published = (stream?.window.segments ?? 0) > 0;
  if (video.currentTime !== lastTime) {
    if (lastTime >= 0 && !video.seeking) [attempt, nudged] = [0, false];
    lastTime = video.currentTime;
    movedAt = now;
  }
  if (!beginning && !hopeless && published && now >= retryAt) begin();
  if (engine) {
    // A browser may pause what is out of sight; only the viewer's own pause stays.
    // Where the stream has ended, its last picture stays.
    if (wanted && video.paused && !video.ended && !document.hidden && video.readyState >= 2) play();
    // Paused by the viewer or out of sight: nothing has to move. A window that rests or has ended has nothing to move to.
    const mayRest = !wanted || document.hidden || !reachable || !published || windowRests || stream.state === "ended";
    if (mayRest) movedAt = Math.max(movedAt, now - STILL - 1);
    else if (now - movedAt > RENEW_AFTER) fail("It stood still.");
    else if (now - movedAt > NUDGE_AFTER && !nudged) nudge();
    stayInside();
    steer(now);
  }
  show(published, now);
}

/** Players now and then wait at a place that never gets any media: before the very first segment, or in a gap. */
function nudge() {
  nudged = true;
  if (following) goLive();
  else video.currentTime += 0.5;
}

/** What the viewer has rewound to leaves the window in time; then the oldest that is there goes on. */
function stayInside() {
  const range = engine?.range();
  if (!range || following || video.seeking || video.readyState < 1) return;
  if (video.currentTime < range[0]) video.currentTime = range[0] + 1;
}

function show(published, now) {
  const still = video.readyState < 3 || now - movedAt > STILL;
  const playing = !still && !video.paused;
  let state = stream?.state ?? "loading";
  if (!reachable || (published && state === "live" && still && wanted && attempt > 0)) state = "reconnecting";
  showState($("state"), state);

  let veil = "";
  let busy = true;
  if (hopeless && published) {
    [veil, busy] = [hopeless, false];
  } else if (!reachable) {
    veil = playing ? "" : navigator.onLine === false ? "This device is offline" : "Reconnecting to Ringgear";
  } else if (!stream) {
    [veil, busy] = problem ? [problem, false] : ["Loading", true];
  } else if (!published) {
    veil = { waiting: waiting(stream), failed: "The encoder does not run. Ringgear keeps trying.", ended: "The stream has ended." }[stream.state] ?? "Starting";
    busy = !["waiting", "failed", "ended"].includes(stream.state);
  } else if (still && wanted) {
    const stopped = now - movedAt > STILL;
    if (stream.state === "failed" && stopped) veil = "The encoder does not run. Ringgear keeps trying.";
    else if (stream.state === "ended" && stopped) [veil, busy] = ["The stream has ended.", false];
    else if (video.readyState < 3) veil = attempt > 0 ? "Reconnecting" : "Loading";
  }
  $("veil").hidden = !veil;
  $("veil").classList.toggle("still", !busy);
  setText($("veil-text"), veil);

  // Of a stream that waits, the veil tells it.
  const told = stream?.state === "waiting" && !published;
  const detail = (told ? "" : stream?.detail) ?? (attempt > 1 ? problem : "");
  $("detail").hidden = !detail;
  setText($("detail"), detail);
  const shown = engine?.date();
  const age = shown ? (serverNow() - shown) / 1000 : NaN;
  const latency = age > -1 && age < 86400 ? age : NaN;
  setText($("behind"), playing && !Number.isNaN(latency) ? `${seconds(latency)} behind the camera` : "");
  showDeck();
  fillPlayback(playing ? latency : NaN);
}

function seconds(value) {
  return Number.isFinite(value) ? `${value.toFixed(1)} s` : "–";
}

// The daemon's clock and what it says of the stream.

async function readClock() {
  const asked = performance.now();
  const answer = await fetch("../time", { cache: "no-store", signal: AbortSignal.timeout(5000) });
  const time = Date.parse(await answer.text());
  const back = performance.now();
  if (answer.ok && !Number.isNaN(time)) [clockOffset, wallThen] = [time - (asked + back) / 2, wallAhead()];
}

const askTime = repeat(() => readClock().catch(() => {}), 60000);

async function refresh() {
  const there = reachable && stream !== null;
  try {
    stream = await getJson("status.json");
    reachable = true;
    // A stream that records has a page for each recording.
    if (stream.recordings?.length) location.replace(`${stream.recordings[0]}/`);
    $("recordings").hidden = !stream.record;
    watchWindow();
  } catch (error) {
    // Whatever the status: somebody answered.
    reachable = Boolean(error.status);
    if (error.status === 404) [stream, problem] = [null, "This stream is no longer in the config."];
    if (error.status === 401) [stream, problem] = [null, "This link has expired: ask for a new one."];
  }
  if (reachable && stream && !there) comeBack();
  // Until it is known; and anew after a machine's sleep, which performance.now() may leave out.
  if (!(Math.abs(wallAhead() - wallThen) < 1000)) askTime();
  tend();
  fillCharts(reachable && stream ? rates(stream) : {});
  if (stream) fillFigures();
}

function watchWindow() {
  const now = performance.now();
  const { last_segment: last, seconds, segments } = stream.window;
  if (last !== lastSegment) [lastSegment, windowMovedAt] = [last, now];
  windowRests = now - windowMovedAt > 1500 * (1 + seconds / Math.max(1, segments));
}

/** What failed or was not published while the daemon or the stream was away says nothing about now. */
function comeBack() {
  [retryAt, hopeless] = [0, ""];
  unpublished.clear();
  // What plays is left alone.
  showChoice();
  askTime();
}

showChoice();
fillLinks();
const ask = repeat(refresh, 1000);
window.addEventListener("online", ask);
window.addEventListener("offline", ask);
document.addEventListener("visibilitychange", () => { if (!document.hidden) tend(); });
window.addEventListener("popstate", () => {
  choice = readChoice();
  renew();
  showChoice();
});
setInterval(tend, 250);
