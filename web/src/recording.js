// A recording's page: plays it, while it grows too, and names the stream's other recordings.
"use strict";

const [stream, recording] = location.pathname.split("/").filter(Boolean).slice(-2);
const video = $("video");

let problem = "";    // why nothing plays

const recorded = makeRecorded(video, (text) => { problem = text; });

document.title = `${stream} ${startOf(recording)} · Ringgear`;
setText($("name"), `${stream}, ${startOf(recording)}`);

/** When a recording began, for people: its name says so in UTC. */
function startOf(name) {
  const found = /^(\d{4})(\d\d)(\d\d)t(\d\d)(\d\d)(\d\d)z(?:-(\d+))?$/.exec(name);
  if (!found) return name;
  const [year, month, day, hour, minute, second] = found.slice(1, 7).map(Number);
  const began = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
  return began.toLocaleString() + (found[7] ? ` (${found[7]})` : "");
}

function listRecordings(names) {
  const list = $("recordings");
  const shown = [...list.children].map((item) => item.dataset.name);
  if (shown.join() === names.join()) return;
  list.replaceChildren(...names.map((name) => {
    const link = element("a", { href: `../${name}/` }, startOf(name));
    if (name === recording) link.setAttribute("aria-current", "page");
    return element("li", { "data-name": name }, link);
  }));
}

async function refresh() {
  let status;
  try {
    status = await getJson("../status.json");
  } catch (error) {
    showState($("state"), "reconnecting");
    if (error.status === 404) setText($("veil-text"), "This stream is no longer in the config.");
    return;
  }
  listRecordings(status.recordings ?? []);
  const growing = status.recording === recording;
  showState($("state"), growing ? status.state : "ended");
  setText($("state"), growing ? "recording" : "recorded");
  setText($("length"), growing ? `${Math.floor(status.window.seconds)} s so far` : "");
  // What is published once it is whole has nothing before.
  const there = !growing || (status.mode === "event" && status.window.segments > 0);
  if (there) recorded.play("index.m3u8");
  const veil = video.readyState >= 2 ? "" : !there ? "It can be watched once it is whole." : problem || "Loading";
  $("veil").hidden = !veil;
  setText($("veil-text"), veil);
  const detail = growing ? status.detail ?? "" : "";
  $("detail").hidden = !detail;
  setText($("detail"), detail);
}

video.addEventListener("loadeddata", () => { $("veil").hidden = true; });
repeat(refresh, 1000);
