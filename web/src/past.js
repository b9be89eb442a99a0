// What is kept of a live stream: lists its recordings and plays the one that the page's fragment names, the newest without.
"use strict";

const [stream] = location.pathname.split("/").filter(Boolean).slice(-2);
const video = $("video");

let playing = "";    // the recording's name
let unlisted = "";   // why the list is not read
let problem = "";    // why nothing plays

const recorded = makeRecorded(video, (text) => {
  problem = text;
  showTrouble();
});

setText($("name"), stream);
document.title = `${stream}, recordings · Ringgear`;

function showTrouble() {
  const text = unlisted || problem;
  setText($("detail"), text);
  $("detail").hidden = !text;
}

function play(name) {
  playing = name;
  $("hls").href = `${name}/index.m3u8`;
  $("dash").href = `${name}/manifest.mpd`;
  recorded.play(`${name}/index.m3u8`);
}

function list(recordings) {
  const items = $("recordings");
  const state = JSON.stringify([recordings.map(({ name }) => name), playing]);
  if (items.dataset.state === state) return;
  items.dataset.state = state;
  items.replaceChildren(...recordings.map(({ name, from }) => {
    const link = element("a", { href: `#${name}` }, new Date(from).toLocaleString());
    if (name === playing) link.setAttribute("aria-current", "page");
    return element("li", {}, link);
  }));
}

async function refresh() {
  let recordings;
  try {
    ({ recordings } = await getJson("index.json"));
    unlisted = "";
  } catch (error) {
    unlisted = error.message;
    return;
  } finally {
    showTrouble();
  }
  const of = (wanted) => recordings.find(({ name }) => name === wanted);
  // What plays is not taken away when a newer one begins.
  const chosen = of(location.hash.slice(1)) ?? of(playing) ?? recordings[0];
  if (chosen) play(chosen.name);
  list(recordings);
  $("veil").hidden = Boolean(chosen);
  if (!chosen) setText($("veil-text"), "Nothing is recorded yet.");
}

/** When what is shown was live. */
function tell() {
  setText($("moment"), recorded.date()?.toLocaleString() ?? "");
}

const again = repeat(refresh, 5000);
addEventListener("hashchange", again);
video.addEventListener("timeupdate", tell);
