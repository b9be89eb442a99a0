// Holds players at the live edge of a stream that `ringgear pattern` feeds, in headless Chromium, and says how old the pictures are
// that they show: by the capture time in the bars of each picture, at the moment in which it is shown.
//
//   node latency.mjs PLAN.json
//
// The plan: {"seconds": 60, "settle": 15, "segment": seconds, "status": URL of the stream in the API, "runs": [{"name", "player": "hls.js" |
// "dash.js" | "shaka", "url", "live": seconds of a part} | {"name", "page": URL}]}. They are opened once four segments are listed. All play
// side by side; they have `settle` seconds to find their place before they are measured. The last line is JSON, for each run {"name", "p50", "p95", "max": seconds of latency, "read": bars read, "pictures": shown,
// "longest_gap": seconds without a new picture, in the gap that was longest without "held_up": seconds of it for which the machine let a
// timer of this program wait, "speed": media seconds per second, "parts": requests of parts, "segments": of whole segments,
// "open_segments": of those before their end, "errors": [..]}.

import { readFile } from 'node:fs/promises';
import { openChromium, openRun, watchMachine } from './chromium.mjs';

const plan = JSON.parse(await readFile(process.argv[2], 'utf8'));
const { browser, origin, close } = await openChromium();
const heldUp = watchMachine();

/** Counts what is asked for: parts, segments, and segments that are still being written. */
function countRequests(page) {
  const asked = { parts: 0, segments: 0, open_segments: 0 };
  page.on('request', (request) => {
    const { pathname } = new URL(request.url());
    if (/\/\d+\.\d+\.m4s$/.test(pathname)) asked.parts++;
    const whole = /\/(\d+)\.m4s$/.exec(pathname);
    if (!whole) return;
    asked.segments++;
    if (Date.now() / 1000 < (Number(whole[1]) + 1) * plan.segment) asked.open_segments++;
  });
  return asked;
}

/** Of the times without a new picture, from `begin` to `end`, the one that was longest without the machine's own hold-ups; in seconds. */
function worstGap(begin, pictures, end) {
  const gaps = [...pictures, end].map((to, index) => {
    const from = index === 0 ? begin : pictures[index - 1];
    return { longest_gap: Math.max(0, to - from) / 1000, held_up: heldUp(from, to) / 1000 };
  });
  return gaps.reduce((worst, gap) => (gap.longest_gap - gap.held_up > worst.longest_gap - worst.held_up ? gap : worst));
}

/** Before, players would begin where there is nothing. */
async function fourSegments() {
  const listed = async () => {
    const answer = await fetch(plan.status);
    return answer.ok ? (await answer.json()).window.segments : 0;
  };
  const deadline = performance.now() + 30000;
  while ((await listed()) < 4) {
    if (performance.now() > deadline) throw new Error(`four segments are not listed within 30 s: ${plan.status}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function open(run) {
  const { page, go } = await openRun(browser, origin, run, { width: 660, height: 380 });
  const errors = [];
  page.on('pageerror', (error) => errors.push(`page: ${error.message}`));
  const asked = countRequests(page);
  // Reading bars costs more than playing: a few a second are enough.
  await page.addInitScript(() => { window.barsEvery = 200; });
  await go();
  await page
    .waitForFunction(() => window.videoNotes?.frames.length > 30, null, { timeout: 30000, polling: 100 })
    .catch(() => errors.push('shows no pictures'));
  return { page, asked, errors };
}

function quantiles(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null;
  return { p50: at(0.5), p95: at(0.95), max: at(1) };
}

async function measure({ page, asked, errors }, run) {
  const before = await page.evaluate(() => {
    window.videoNotes.frames.length = 0;
    return window.videoNotes.look();
  });
  const countedBefore = { ...asked };
  await new Promise((resolve) => setTimeout(resolve, plan.seconds * 1000));
  const counted = Object.fromEntries(Object.entries(asked).map(([what, count]) => [what, count - countedBefore[what]]));
  const after = await page.evaluate(() => {
    const after = window.videoNotes.look();
    const { frames, errors } = window.videoNotes;
    return { ...after, frames, errors, wall: Date.now() - performance.now() };
  });
  const read = after.frames.filter(({ captured }) => captured !== null);
  const wall = (at) => at + after.wall;
  return {
    name: run.name,
    ...quantiles(read.map(({ shown, captured }) => (shown - captured) / 1000)),
    read: read.length,
    pictures: after.frames.length,
    ...worstGap(wall(before.at), after.frames.map(({ at }) => wall(at)), wall(after.at)),
    speed: (after.currentTime - before.currentTime) / ((after.at - before.at) / 1000),
    ...counted,
    errors: [...errors, ...after.errors],
  };
}

try {
  await fourSegments();
  // One after the other: what takes all of the processor while another finds its place teaches that one to stay far from the edge.
  const pages = [];
  for (const run of plan.runs) pages.push(await open(run));
  await new Promise((resolve) => setTimeout(resolve, plan.settle * 1000));
  const results = await Promise.all(pages.map((page, index) => measure(page, plan.runs[index])));
  console.log(JSON.stringify(results));
} finally {
  await close();
}
