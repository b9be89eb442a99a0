// Starts one player on one URL: /page.html?player=hls.js&url=…  Settings are each player's own, but that manifests are
// retried while a daemon restarts, and that playback keeps its speed, so that frames can be counted against the clock.
// With &live=SECONDS of a part it holds the live edge instead, by the settings of docs/players.md.

const query = new URLSearchParams(location.search);
const live = Number(query.get('live'));
const video = document.getElementById('video');
const notes = window.watchVideo(video);

function load(path) {
  return new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = path;
    script.onload = resolve;
    script.onerror = () => reject(new Error(`${path} does not load`));
    document.head.append(script);
  });
}

const start = {
  async 'hls.js'(url) {
    await load('/node_modules/hls.js/dist/hls.min.js');
    const retry = { maxNumRetry: 30, retryDelayMs: 500, maxRetryDelayMs: 2000 };
    const policy = { default: { maxTimeToFirstByteMs: 10000, maxLoadTimeMs: 20000, timeoutRetry: retry, errorRetry: retry } };
    const hls = new window.Hls({
      manifestLoadPolicy: policy,
      playlistLoadPolicy: policy,
      fragLoadPolicy: policy,
      ...(live && { lowLatencyMode: true, maxLiveSyncPlaybackRate: 1, liveSyncOnStallIncrease: 0.2 }),
    });
    hls.on(window.Hls.Events.ERROR, (_, data) => {
      if (data.fatal) notes.errors.push(`hls.js: ${data.type} ${data.details}`);
    });
    if (live) {
      setInterval(() => {
        video.playbackRate = hls.latency > hls.targetLatency + 0.1 ? 1.1 : 1;
      }, 250);
    }
    hls.loadSource(url);
    hls.attachMedia(video);
  },

  async 'dash.js'(url) {
    await load('/node_modules/dashjs/dist/modern/umd/dash.all.min.js');
    const player = window.dashjs.MediaPlayer().create();
    player.updateSettings({
      streaming: {
        liveCatchup: { enabled: live > 0 },
        ...(query.has('delay') && { delay: { liveDelay: Number(query.get('delay')) } }),
        retryAttempts: { MPD: 30, MediaSegment: 30, InitializationSegment: 30 },
        retryIntervals: { MPD: 500, MediaSegment: 500, InitializationSegment: 500 },
      },
    });
    player.on('error', (event) => notes.errors.push(`dash.js: ${event.error?.code} ${event.error?.message}`));
    // It has to start playback itself: it begins to refresh its manifest at a `play` that it hears.
    player.initialize(video, url, true);
  },

  async shaka(url) {
    await load('/node_modules/shaka-player/dist/shaka-player.compiled.js');
    window.shaka.polyfill.installAll();
    const player = new window.shaka.Player();
    await player.attach(video);
    const retryParameters = { maxAttempts: 30, baseDelay: 500, backoffFactor: 1 };
    player.configure({ manifest: { retryParameters }, streaming: { retryParameters } });
    if (live) {
      player.configure({
        manifest: { defaultPresentationDelay: 2 * live, dash: { ignoreSuggestedPresentationDelay: true } },
        streaming: { lowLatencyMode: true, liveSync: { enabled: true, targetLatency: 0.1, targetLatencyTolerance: 0.1 } },
      });
    }
    player.addEventListener('error', (event) => notes.errors.push(`shaka: ${event.detail.code} ${event.detail.data}`));
    // Shaka steps over a gap where it begins only if it is to play already.
    video.autoplay = true;
    await player.load(url);
  },
};

if (query.get('player') !== 'dash.js') {
  video.addEventListener('canplay', () => video.play().catch((error) => notes.errors.push(String(error))));
}
start[query.get('player')](query.get('url')).catch((error) => notes.errors.push(String(error)));
