// What all pages use: elements, the API, and how figures are written.
"use strict";

const STATES = {
  waiting: "waiting", starting: "starting", live: "live", no_signal: "no signal",
  failed: "failed", ended: "ended", reconnecting: "reconnecting",
};

/** The element of this id. */
const $ = (id) => document.getElementById(id);

/** An element with attributes and children; text is never read as HTML. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Changes what is said, a text or pieces of text and elements, only where it differs, so that screen readers and selections are left alone. */
function setText(node, said) {
  const pieces = [said].flat();
  const text = pieces.map((piece) => piece.textContent ?? piece).join("");
  if (node.textContent !== text) node.replaceChildren(...pieces);
}

function showState(node, state) {
  node.dataset.state = state;
  setText(node, STATES[state] ?? state);
}

async function getJson(url) {
  const answer = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(5000) });
  const value = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(value?.error?.message ?? `HTTP ${answer.status}`), { status: answer.status });
  return value;
}

function bits(rate) {
  if (!rate) return "";
  return rate >= 1e6 ? `${(rate / 1e6).toFixed(1)} Mbit/s` : `${Math.round(rate / 1e3)} kbit/s`;
}

function count(number) {
  return number.toLocaleString("en");
}

function framerate(text) {
  const [num, den = 1] = text.split("/").map(Number);
  return `${+(num / den).toFixed(2)} fps`;
}

/** Who or what feeds a stream; nothing if nobody does, or viewers are not told. */
function feeder({ session, source }) {
  if (session) return `${session.client ?? "unnamed producer"}, pid ${session.pid}`;
  return source?.source ?? "";
}

/** Why a stream that waits shows nothing yet, and by what it is fed if it has no source of its own: pieces for setText. */
function waiting({ name, detail, source, restricted }) {
  if (restricted) return "Waiting for the first picture";
  if (source) return detail ?? `${source.source} is being opened`;
  return [detail ? `${detail}. ` : "Feed it: ", element("code", {}, `ringgear pattern ${name}`)];
}

/** Runs `work` now and again `every` ms after it ended, at once when the page comes back into view or the answer is called. */
function repeat(work, every) {
  let timer = 0;
  let running = false;
  const run = async () => {
    if (running) return;
    running = true;
    clearTimeout(timer);
    try { await work(); } finally {
      running = false;
      timer = setTimeout(run, document.hidden ? 10 * every : every);
    }
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) run(); });
  run();
  return run;
}
