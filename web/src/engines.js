// The players behind one face, so that the page does not care which of them plays: HLS by hls.js, DASH by Shaka, and HLS by the browser
// itself where there is nothing else. Each is loaded when it is first chosen.
//
// An engine has: `date()` of the picture on screen in ms, `behind()` seconds from where live playback should be, NaN while that is not to
// be steered, `target()` seconds from the live edge, `range()` of what may be played, `levels()`, `playing()` and `choose(name)` of
// renditions, `sound()`, `destroy()`; and `toLive()`, how far a jump to live goes, where `behind()` never tells.
// `onFatal` gets a message, and the status if it was the manifest that was refused.
"use strict";

const scripts = new Map();

function loadScript(src) {
  if (!scripts.has(src)) {
    scripts.set(src, new Promise((resolve, reject) => {
      const script = element("script", { src });
      const failed = () => {
        // A restarting daemon may just not have answered.
        script.onload = script.onerror = null;
        clearTimeout(timer);
        scripts.delete(src);
        script.remove();
        reject(new Error("The player's script does not load."));
        reloadIfGone(src);
      };
      const timer = setTimeout(failed, 20000);
      script.onload = () => {
        clearTimeout(timer);
        resolve();
      };
      script.onerror = failed;
      document.head.append(script);
    }));
  }
  return scripts.get(src);
}

/** Another version of the daemon has other scripts, and a page of its own that names them. */
async function reloadIfGone(src) {
  try {
    const { status } = await fetch(src, { method: "HEAD", cache: "no-store" });
    if (status !== 404 || sessionStorage.getItem("gone") === src) return;
    sessionStorage.setItem("gone", src);
    location.reload();
  } catch {
    // No daemon, or no memory of a reload before this one: it is tried again, as it is.
  }
}

/** That no engine can play here, whatever is tried. */
class Unsupported extends Error {}

function unsupported() {
  return new Unsupported(window.MediaSource || window.ManagedMediaSource
    ? "This build has no player for this browser. Run make web, build Ringgear again, or use a link on this page."
    : "This browser can't play live video. Use a link on this page in another player.");
}

/** The rendition's name from the address of its playlist: .../NAME/media.m3u8 */
function renditionOf(url) {
  return decodeURIComponent(new URL(url, location.href).pathname.split("/").at(-2));
}

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

async function hlsEngine(video, { scripts: { hls: script }, low, rendition, onLevels, onFatal }) {
  await loadScript(script);
  if (!window.Hls?.isSupported?.()) {
    if (video.canPlayType("application/vnd.apple.mpegurl")) return nativeEngine(video, { onFatal });
    throw unsupported();
  }
  const hls = new Hls({
    lowLatencyMode: low,
    backBufferLength: 60,
    // The page holds the edge itself: hls.js does so only with more than a second of buffer, which low latency never has.
    maxLiveSyncPlaybackRate: 1,
    liveSyncOnStallIncrease: 0,
    manifestLoadPolicy: patience([404]),
    playlistLoadPolicy: patience([]),
    fragLoadPolicy: patience([404, 410]),
  });
  let recoveries = [];
  const index = (name) => hls.levels.findIndex((level) => renditionOf(level.uri) === name);
  const choose = (name) => {
    const wanted = name ? index(name) : -1;
    if (low) hls.loadLevel = wanted;
    else hls.nextLevel = wanted;
  };
  hls.on(Hls.Events.MANIFEST_PARSED, () => {
    if (rendition && index(rendition) >= 0) hls.loadLevel = index(rendition);
    onLevels();
  });
  hls.on(Hls.Events.LEVEL_SWITCHED, onLevels);
  hls.on(Hls.Events.ERROR, (_, error) => {
    if (!error.fatal) return;
    const now = performance.now();
    recoveries = recoveries.filter((at) => now - at < 10000);
    // The mildest cure first: the decoder alone, and at last everything anew.
    if (error.type === Hls.ErrorTypes.MEDIA_ERROR && recoveries.length < 2) {
      recoveries.push(now);
      hls.recoverMediaError();
      return;
    }
    const refused = error.details === Hls.ErrorDetails.MANIFEST_LOAD_ERROR;
    onFatal(error.error?.message ?? error.details, refused ? error.response?.code : undefined);
  });
  hls.loadSource(new URL("index.m3u8", location.href).href);
  hls.attachMedia(video);
  const details = () => hls.latestLevelDetails ?? hls.levels?.[hls.currentLevel]?.details;
  return {
    name: `hls.js ${Hls.version}`,
    date: () => hls.playingDate?.getTime(),
    target: () => hls.targetLatency ?? NaN,
    behind: () => (hls.latency ? hls.latency - hls.targetLatency : NaN),
    range: () => (details() ? [details().fragmentStart, details().edge] : null),
    levels: () => hls.levels.map((level) => ({
      name: renditionOf(level.uri), height: level.height, rate: level.averageBitrate || level.bitrate,
    })),
    playing: () => {
      const level = hls.levels[hls.currentLevel];
      return level ? renditionOf(level.uri) : null;
    },
    choose,
    sound: () => hls.levels.some((level) => level.audioCodec) || hls.audioTracks.length > 0,
    destroy: () => hls.destroy(),
  };
}

/** Safari without Media Source Extensions. */
function nativeEngine(video, { onFatal }) {
  const failed = () => onFatal("The browser's own player stopped.");
  video.addEventListener("error", failed);
  video.src = "index.m3u8";
  const edge = () => (video.seekable.length ? video.seekable.end(video.seekable.length - 1) : NaN);
  return {
    name: "the browser's own player",
    date: () => {
      const start = video.getStartDate?.()?.getTime();
      return start ? start + 1000 * video.currentTime : undefined;
    },
    target: () => NaN,
    behind: () => NaN,
    // Never the very end, where there may be nothing yet.
    toLive: () => edge() - 3 - video.currentTime,
    range: () => (video.seekable.length ? [video.seekable.start(0), edge()] : null),
    levels: () => [],
    playing: () => null,
    choose: () => {},
    sound: () => Boolean(video.audioTracks?.length),
    destroy: () => {
      video.removeEventListener("error", failed);
      video.removeAttribute("src");
      video.load();
    },
  };
}

/** Seconds of an ISO 8601 duration without days. */
function isoSeconds(text) {
  const [, hours = 0, minutes = 0, seconds = 0] = /^PT(?:([\d.]+)H)?(?:([\d.]+)M)?(?:([\d.]+)S)?$/.exec(text ?? "") ?? [];
  return Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds);
}

async function dashEngine(video, { scripts: { dash: script }, low, rendition, clock, onLevels, onFatal }) {
  await loadScript(script);
  if (!window.shaka?.Player?.isBrowserSupported()) throw unsupported();
  const player = new shaka.Player();
  const retryParameters = { maxAttempts: 60, baseDelay: 300, backoffFactor: 1, fuzzFactor: 0.5, timeout: 10000 };
  let target = NaN;
  // Shaka measures from where a seek may end, which lies one part and the suggested delay before now: with a delay that is shorter by
  // a part, both ends meet at the latency that the MPD asks for. The page holds it, so Shaka is not to do so as well.
  const preprocess = (mpd) => {
    const delay = isoSeconds(mpd.attributes.suggestedPresentationDelay);
    const service = mpd.children?.find((child) => child.tagName === "ServiceDescription");
    const latency = service?.children?.find((child) => child.tagName === "Latency");
    mpd.children = mpd.children?.filter((child) => child !== service);
    target = latency ? Number(latency.attributes.target) / 1000 : delay;
    if (latency) mpd.attributes.suggestedPresentationDelay = `PT${Math.max(0.1, target - isoSeconds(mpd.attributes.minBufferTime)).toFixed(3)}S`;
  };
  // Frames dropped while it begins to play would take a rendition away for half a minute, from who chooses it too; hls.js takes none away either.
  player.configure({
    abr: { droppedFrames: false },
    manifest: { retryParameters, dash: { manifestPreprocessorTXml: preprocess } },
    streaming: { retryParameters, lowLatencyMode: low, bufferBehind: 60, liveSync: { enabled: false } },
  });
  // The status with which the manifest was refused, if that is what went wrong.
  const refused = ({ code, data }) => {
    const { util: { Error: { Code } }, net: { NetworkingEngine: { RequestType } } } = shaka;
    return code === Code.BAD_HTTP_STATUS && data[4] === RequestType.MANIFEST ? data[1] : undefined;
  };
  const failed = (error) => onFatal(error.code ? `Shaka: error ${error.code}` : error.message, refused(error));
  const tracks = () => player.getVariantTracks();
  const choose = (name) => {
    const track = name && tracks().find((one) => one.originalVideoId === name);
    player.configure({ abr: { enabled: !track } });
    if (track) player.selectVariantTrack(track, !low);
  };
  player.addEventListener("error", ({ detail }) => { if (detail.severity === shaka.util.Error.Severity.CRITICAL) failed(detail); });
  // What is not published is not asked for sixty times.
  player.getNetworkingEngine().addEventListener("retry", (event) => { if (refused(event.error) === 404) event.preventDefault(); });
  for (const event of ["trackschanged", "adaptation", "variantchanged"]) player.addEventListener(event, onLevels);
  let gone = false;
  const load = (file) => player.load(new URL(file, location.href).href);
  // What has segments of any length, as a copied stream, has the plain MPD alone.
  const loadPlain = (error) => {
    if (gone || refused(error) !== 404) throw error;
    return load("manifest.mpd");
  };
  player.attach(video)
    .then(() => (low ? load("manifest-ll.mpd").catch(loadPlain) : load("manifest.mpd")))
    .then(() => { if (rendition) choose(rendition); onLevels(); })
    // What was interrupted by destroy() is no error.
    .catch((error) => { if (!gone) failed(error); });
  const date = () => player.getPlayheadTimeAsDate()?.getTime();
  const loaded = () => player.isLive() && video.readyState > 0;
  return {
    name: `Shaka ${shaka.Player.version}`,
    date: () => (loaded() ? date() : undefined),
    target: () => target,
    behind: () => (loaded() ? (clock() - date()) / 1000 - target : NaN),
    range: () => {
      if (!loaded()) return null;
      const { start, end } = player.seekRange();
      return [start, end];
    },
    levels: () => tracks().map((track) => ({ name: track.originalVideoId, height: track.height, rate: track.bandwidth })),
    playing: () => tracks().find((track) => track.active)?.originalVideoId ?? null,
    choose,
    sound: () => tracks().some((track) => track.audioId !== null && track.audioCodec),
    destroy: () => {
      gone = true;
      player.destroy().catch(() => {});
    },
  };
}
