// The list of streams: cards that follow the API, with a live thumbnail while they are in view.
"use strict";

const cards = new Map();
const list = document.getElementById("cards");
const summary = document.getElementById("summary");
const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) cards.get(target.dataset.name).visible = isIntersecting;
});

function makeCard(name) {
  const thumb = element("div", { class: "thumb" }, element("span", {}, "no picture yet"));
  const state = element("span", { class: "state" });
  const meta = element("p", { class: "meta" });
  const note = element("p", { class: "note", hidden: "" });
  const [viewers, bitrate, latency] = [element("dd"), element("dd"), element("span")];
  const spark = makeSpark();
  const stats = element("dl", { class: "stats" },
    element("div", {}, element("dt", {}, "Viewers"), viewers),
    element("div", {}, element("dt", {}, "Bitrate"), bitrate),
    element("div", {}, element("dt", {}, "Latency"), element("dd", {}, latency, spark.node)));
  const link = element("a", { class: "card", href: `${name}/` }, thumb,
    element("div", { class: "body" },
      element("div", { class: "line" }, element("h2", {}, name), state), meta, stats, note));
  const item = element("li", { "data-name": name }, link);
  const card = {
    name, item, link, thumb, state, meta, note, viewers, bitrate, latency, spark, rates: makeRates(), visible: true, picture: null, url: null,
  };
  cards.set(name, card);
  inView.observe(item);
  return card;
}

function fill(card, stream) {
  card.stream = stream;
  showState(card.state, stream.state);
  card.link.classList.toggle("stale", stream.state !== "live");
  const top = stream.renditions.reduce((best, r) => ((r.height ?? 0) > (best?.height ?? -1) ? r : best), null);
  const rate = stream.renditions.reduce((sum, r) => sum + r.average_bits_per_second, 0);
  setText(card.meta, [
    top?.width ? `${top.width}×${top.height}` : "",
    framerate(stream.framerate),
    feeder(stream) || (stream.restricted ? "" : "no producer"),
  ].filter(Boolean).join(" · "));
  const { latency } = card.rates(stream);
  setText(card.viewers, count(stream.window.viewers));
  setText(card.bitrate, bits(rate) || "–");
  setText(card.latency, Number.isFinite(latency) ? `${latency.toFixed(2)} s` : "–");
  card.spark.push(latency);
  const note = stream.state === "waiting" ? waiting(stream) : stream.detail ?? "";
  setText(card.note, note);
  card.note.hidden = !note;
}

async function refresh() {
  let answer;
  try {
    answer = await getJson("api/v1/streams");
  } catch {
    setText(summary, "Reconnecting");
    return;
  }
  const names = new Set(answer.streams.map((stream) => stream.name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    inView.unobserve(card.item);
    card.item.remove();
    if (card.url) URL.revokeObjectURL(card.url);
    cards.delete(name);
  }
  answer.streams.forEach((stream, place) => {
    const card = cards.get(stream.name) ?? makeCard(stream.name);
    if (list.children[place] !== card.item) list.insertBefore(card.item, list.children[place] ?? null);
    fill(card, stream);
  });
  const live = answer.streams.filter((stream) => stream.state === "live").length;
  const total = answer.streams.length;
  setText(summary, total ? `${live} of ${total} live` : "");
  // The first cards need not wait for the next round.
  if (answer.streams.some(({ name, state }) => state !== "waiting" && !cards.get(name).asked)) showThumbnails();
  setText(document.getElementById("version"), `Ringgear ${answer.version}`);
  document.getElementById("empty").hidden = total > 0;
}

/** One after another, so that a slow link carries one thumbnail at a time. */
async function refreshThumbnails() {
  if (document.hidden) return;
  for (const card of [...cards.values()]) {
    if (!card.visible || card.stream.state === "waiting") continue;
    card.asked = true;
    try {
      const answer = await fetch(`${card.name}/snapshot.jpg?width=640`, { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) continue;
      const url = URL.createObjectURL(await answer.blob());
      const picture = element("img", { alt: "" });
      picture.src = url;
      await picture.decode();
      card.picture?.remove();
      if (card.url) URL.revokeObjectURL(card.url);
      card.thumb.append(picture);
      Object.assign(card, { picture, url });
    } catch {
      // The next round tries again; the state word says what is wrong.
    }
  }
}

const showThumbnails = repeat(refreshThumbnails, 1000);
repeat(refresh, 1000);
