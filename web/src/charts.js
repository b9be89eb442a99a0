// Charts of the last two minutes, from what the API counts: the difference of two answers is what happened between them.
"use strict";

const LENGTH = 120; // points of a chart
const SPARK = 60;   // of a small one

function drawing(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** What a stream did a second; NaN where nothing tells. Over two rounds, for one has a frame more or less. */
function makeRates() {
  const answers = [];
  return (stream) => {
    const now = { stream, at: performance.now() };
    const before = answers.at(-2) ?? answers.at(-1) ?? now;
    answers.push(now);
    if (answers.length > 2) answers.shift();
    const seconds = (now.at - before.at) / 1000;
    const more = (of) => {
      const difference = of(now.stream) - of(before.stream);
      // A daemon that was started again counts from 0.
      return seconds > 0 && difference >= 0 ? difference / seconds : NaN;
    };
    const mean = (name) => {
      const [from, to] = [before.stream.latency[name], now.stream.latency[name]];
      return to.count > from.count ? (to.sum_seconds - from.sum_seconds) / (to.count - from.count) : NaN;
    };
    const [num, den = 1] = stream.framerate.split("/").map(Number);
    return {
      received: more(({ frames }) => frames.received),
      ticks: ["fresh", "repeated", "slate"].map((kind) => more(({ ticks }) => ticks[kind])),
      speed: more(({ latency }) => latency.encoder_delay.count) / (num / den),
      latency: mean("commit_to_part"),
      framerate: num / den,
    };
  };
}

/** The path of `values`, of at most `length`, under `top`, the newest at the right; an area if it is `filled`. */
function pathOf(values, length, top, filled) {
  let path = "";
  let last = NaN;
  values.forEach((value, index) => {
    const x = length - values.length + index;
    if (Number.isFinite(value)) {
      const y = (100 - (100 * value) / top).toFixed(1);
      path += Number.isFinite(last) ? `L${x} ${y}` : filled ? `M${x} 100L${x} ${y}` : `M${x} ${y}`;
    } else if (filled && Number.isFinite(last)) {
      path += `L${x - 1} 100Z`;
    }
    last = value;
  });
  return filled && Number.isFinite(last) ? `${path}L${length - 1} 100Z` : path;
}

/** A line of one value, as small as a word. */
function makeSpark() {
  const line = drawing("path", { "vector-effect": "non-scaling-stroke" });
  const svg = drawing("svg", { class: "spark", viewBox: `0 -4 ${SPARK - 1} 108`, preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(line);
  const points = [];
  return {
    node: svg,
    push(value) {
      points.push(value);
      if (points.length > SPARK) points.shift();
      const top = Math.max(0.1, ...points.filter(Number.isFinite));
      line.setAttribute("d", pathOf(points, SPARK, 1.1 * top, false));
    },
  };
}

/**
 * A chart with its title and the present values as text. `series` are names, and classes; `stacked` ones lie on one another. What is pushed
 * sets the scale, which goes at least to `least`; `show` writes a value.
 */
function makeChart(title, series, { stacked = false, show }) {
  const paths = series.map((name) => drawing("path", { class: name, "vector-effect": "non-scaling-stroke" }));
  const svg = drawing("svg", { viewBox: `0 0 ${LENGTH - 1} 100`, preserveAspectRatio: "none", role: "img" });
  // The lowest of a stack is the smallest, and is painted last.
  svg.append(...[...paths].reverse());
  const keys = series.map((name) => element("span", { class: `key ${name}` }));
  const scale = element("span", { class: "scale", "aria-hidden": "true" });
  const node = element("figure", { class: stacked ? "chart stacked" : "chart" },
    element("figcaption", {}, element("span", {}, title), element("span", { class: "now" }, ...keys)),
    element("div", { class: "plot" }, svg, scale));
  const points = [];
  return {
    node,
    push(values, least) {
      points.push(values);
      if (points.length > LENGTH) points.shift();
      const heights = points.map((point) => (stacked ? point.map((_, index) => point.slice(0, index + 1).reduce((a, b) => a + b)) : point));
      const top = 1.1 * Math.max(least, ...heights.flat().filter(Number.isFinite));
      paths.forEach((path, index) => path.setAttribute("d", pathOf(heights.map((point) => point[index]), LENGTH, top, stacked)));
      const texts = values.map((value, index) => `${Number.isFinite(value) ? show(value) : "–"}${series.length > 1 ? ` ${series[index]}` : ""}`);
      texts.forEach((text, index) => setText(keys[index], text));
      setText(scale, show(top));
      svg.setAttribute("aria-label", `${title}, the last two minutes; now ${texts.join(", ")}`);
    },
  };
}
