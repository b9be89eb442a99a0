// What the viewer of a stream's page has in hand and before their eyes: the buttons and the slider under the picture, the keys, the figures
// and the links. What they do to playback stands in player.js, which comes after this.
"use strict";

const video = $("video");

// The controls.

const ICONS = {
  play: "M8 5v14l11-7z",
  pause: "M7 5h4v14H7zM13 5h4v14h-4z",
  full: "M5 5h6v2H7v4H5zM13 5h6v6h-2V7h-4zM5 13h2v4h4v2H5zM17 13h2v6h-6v-2h4z",
  muted: "M4 9v6h4l5 4V5L8 9zM16 9.4 17.4 8 19 9.6 20.6 8 22 9.4 20.4 11 22 12.6 20.6 14 19 12.4 17.4 14 16 12.6 17.6 11z",
  sound: "M4 9v6h4l5 4V5L8 9zM15 8.5a4 4 0 0 1 0 7zM15 5.3a7 7 0 0 1 0 13.4v-2a5 5 0 0 0 0-9.4z",
};

function setIcon(button, icon, label) {
  if (button.dataset.icon === icon) return;
  button.dataset.icon = icon;
  button.setAttribute("aria-label", label);
  button.title = label;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[icon]);
  svg.append(path);
  button.replaceChildren(svg);
}

let dragging = false;

function showDeck() {
  setIcon($("play"), wanted ? "pause" : "play", wanted ? "Pause" : "Play");
  setIcon($("mute"), video.muted ? "muted" : "sound", video.muted ? "Sound on" : "Sound off");
  $("mute").hidden = !engine?.sound();
  const slider = $("seek");
  const late = behind();
  const range = engine?.range();
  const loaded = Boolean(range) && video.readyState >= 1;
  const usable = loaded && Number.isFinite(late);
  slider.disabled = !usable;
  const live = following && wanted;
  $("live").disabled = !loaded;
  $("live").setAttribute("aria-pressed", String(live && loaded));
  setText($("live"), live ? "Live" : "Go to live");
  if (!usable) {
    setText($("place"), "");
    return;
  }
  // Counted from the live place, so that the knob rests while the window moves.
  const oldest = Math.min(-1, range[0] - (video.currentTime + late));
  const place = following ? 0 : Math.min(0, -late);
  slider.min = oldest.toFixed(1);
  slider.max = 0;
  if (!dragging) slider.value = place.toFixed(1);
  const far = Number(slider.value);
  const text = far > -1 ? "" : `−${Math.round(-far)} s`;
  setText($("place"), text);
  slider.setAttribute("aria-valuetext", text ? `${Math.round(-far)} seconds before live` : "live");
  slider.style.setProperty("--filled", `${(100 * (far - oldest)) / -oldest}%`);
}

/** To so many seconds from where live playback is; not above 0. */
function rewindTo(place) {
  const late = behind();
  const range = engine?.range();
  if (!Number.isFinite(late) || !range) return;
  if (place > -1) {
    resume();
    goLive();
    return;
  }
  following = false;
  setRate(1);
  // The oldest segment leaves the window at any moment.
  video.currentTime = Math.max(range[0] + 1, video.currentTime + late + place);
}

function resume() {
  wanted = true;
  // A place that has left the window while it was paused is no place.
  const range = engine?.range();
  if (range && video.currentTime < range[0] + 0.5) following = true;
  if (following) goLive();
  play();
}

function pause() {
  wanted = false;
  // What is paused falls behind; it goes on where it was.
  following = false;
  video.pause();
}

// A browser's own controls: the keys of a keyboard or a headset, picture in picture.
video.addEventListener("pause", () => {
  if (engine && !document.hidden && video.readyState >= 2 && !video.ended && wanted) pause();
});
video.addEventListener("play", () => { if (!wanted) resume(); });

const toggle = () => (wanted ? pause() : resume());
const back = (by) => rewindTo((following ? 0 : -behind()) + by);
const mute = () => { video.muted = !video.muted; };
function full() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if ($("frame").requestFullscreen) $("frame").requestFullscreen().catch(() => {});
  else video.webkitEnterFullscreen?.();
}
const live = () => { resume(); goLive(); };

for (const [id, action] of Object.entries({ play: toggle, mute, full, live })) {
  $(id).addEventListener("click", () => { action(); tend(); });
}
setIcon($("full"), "full", "Full screen");
video.addEventListener("click", () => { toggle(); tend(); });
$("seek").addEventListener("input", () => { dragging = true; showDeck(); });
$("seek").addEventListener("change", ({ target }) => {
  dragging = false;
  rewindTo(Number(target.value));
  tend();
});
// A drag that ends where it began changes nothing. Where it does, `change` comes first.
for (const end of ["pointerup", "pointercancel", "blur"]) {
  window.addEventListener(end, () => setTimeout(() => { dragging = false; }), true);
}

// The keys, while the focus is in the frame: elsewhere they scroll the page, and letters belong to who speaks or types.
$("frame").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
  // A button has a use of its own for it.
  if (event.key === " " && event.target !== event.currentTarget) return;
  const action = {
    " ": toggle, k: toggle, m: mute, f: full, l: live, ArrowLeft: () => back(-5), ArrowRight: () => back(5), Home: () => rewindTo(-1e9), End: live,
  }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
  tend();
});

function fillQualities() {
  const levels = engine?.levels() ?? [];
  const unique = new Map(levels.map((level) => [level.name, level]));
  const sorted = [...unique.values()].sort((a, b) => (b.height ?? 0) - (a.height ?? 0) || b.rate - a.rate);
  const options = [element("option", { value: "" }, "Auto")];
  for (const { name: value, height, rate } of sorted) {
    options.push(element("option", { value }, [height ? `${height}p` : value, bits(rate)].filter(Boolean).join(", ")));
  }
  const select = $("quality");
  const text = (list) => [...list].map((option) => option.value + option.textContent).join();
  if (text(options) !== text(select.options)) select.replaceChildren(...options);
  select.value = unique.has(choice.quality) ? choice.quality : "";
  select.disabled = unique.size < 2;
}

// The figures.

function fillList(list, rows) {
  while (list.children.length > 2 * rows.length) list.lastChild.remove();
  rows.forEach(([label, value], index) => {
    if (!list.children[2 * index]) list.append(element("dt"), element("dd"));
    setText(list.children[2 * index], label);
    setText(list.children[2 * index + 1], value);
  });
}

function fillPlayback(latency) {
  const quality = video.getVideoPlaybackQuality?.();
  const share = quality?.totalVideoFrames ? ` of ${count(quality.totalVideoFrames)}` : "";
  const size = video.videoWidth ? `${video.videoWidth}×${video.videoHeight}` : "";
  fillList($("playback"), [
    ["Latency", seconds(latency)],
    ["Buffer", seconds(engine && video.readyState ? bufferedAhead() : NaN)],
    ["Rendition", [engine?.playing(), size].filter(Boolean).join(", ") || "–"],
    ["Speed", video.paused ? "paused" : `${video.playbackRate.toFixed(2)}×`],
    ["Dropped", quality ? `${count(quality.droppedVideoFrames)}${share}` : "–"],
    ["Stalls", count(stalls) + (extra > 0 ? `, held ${extra.toFixed(1)} s further back` : "")],
    ["Started anew", count(renewals)],
    ["Player", engine?.name ?? "–"],
  ]);
}

/** What the stream is fed by, and with. */
function feedRows({ session, source }) {
  const fed = session ?? source ?? {};
  const frames = fed.width ? `${fed.width}×${fed.height} ${fed.format ?? fed.pixel_format ?? ""}` : "none";
  return [[source ? "Source" : "Producer", feeder({ session, source }) || "none"], ["Frames in", frames]];
}

function fillFigures() {
  const { ticks, frames, encoder, restricted, renditions, window: shown } = stream;
  const share = (part) => (ticks.total ? ` (${((100 * part) / ticks.total).toFixed(1)} %)` : "");
  fillList($("figures"), [
    ...(restricted ? [] : feedRows(stream)),
    ["Rate", `${frames.per_second.toFixed(1)} of ${framerate(stream.framerate)}`],
    ["Fresh ticks", count(ticks.fresh)],
    ["Repeated", count(ticks.repeated) + share(ticks.repeated)],
    ["Slate", count(ticks.slate) + share(ticks.slate)],
    ["Frames used", count(frames.used)],
    ["Superseded", count(frames.superseded)],
    ...(restricted ? [] : [["Encoder", encoder.pid ? `pid ${encoder.pid}` : "not running"]]),
    ["Encoder delay", encoder.delay_seconds ? `${Math.round(1000 * encoder.delay_seconds)} ms` : "–"],
    ["Restarts", count(encoder.restarts)],
    ...renditions.map((r) => [r.name, [r.width ? `${r.width}×${r.height}` : r.codec, bits(r.average_bits_per_second)].filter(Boolean).join(", ")]),
    ["Window", `${shown.seconds.toFixed(0)} s, ${(shown.bytes / 1e6).toFixed(1)} MB`],
    ["Viewers", count(shown.viewers)],
  ]);
}

const charts = {
  received: makeChart("Frames in, a second", ["received"], { show: (value) => value.toFixed(1) }),
  ticks: makeChart("Ticks, a second", ["fresh", "repeated", "slate"], { stacked: true, show: (value) => value.toFixed(1) }),
  speed: makeChart("Encoder speed", ["speed"], { show: (value) => `${value.toFixed(2)}×` }),
  latency: makeChart("Part latency", ["latency"], { show: (value) => (value < 1 ? `${Math.round(1000 * value)} ms` : `${value.toFixed(2)} s`) }),
};
$("charts").append(...Object.values(charts).map(({ node }) => node));

/** A round of the charts; what is not known leaves a gap. */
function fillCharts({ received = NaN, ticks = [NaN, NaN, NaN], speed = NaN, latency = NaN, framerate: rate = 0 } = {}) {
  charts.received.push([received], rate || 1);
  charts.ticks.push(ticks, rate || 1);
  charts.speed.push([speed], 1);
  charts.latency.push([latency], 0.2);
}

function fillLinks() {
  for (const [file, label] of [["index.m3u8", "HLS: index.m3u8"], ["manifest.mpd", "DASH: manifest.mpd"], ["manifest-ll.mpd", "Low-latency DASH: manifest-ll.mpd"]]) {
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
