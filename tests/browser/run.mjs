// Plays live streams in headless Chromium and says how that went.
//
//   node run.mjs PLAN.json
//
// The plan: {"seconds": 20, "together": 2, "runs": [{"name", "player": "hls.js" | "dash.js" | "shaka", "url", "framerate", "delay"?, "sound"?} |
// {"name", "page": URL, "framerate", "startWithin": 3}]}. Each run passes when currentTime advances, no error comes, nothing stalls
// for more than half a second in which the machine did not stand still, and the frame numbers in the picture grow by elapsed time times
// framerate; on a page, which holds the live edge, also by what it catches up meanwhile.
// The last line is `N passed, N failed`; the exit status is 0 only when none failed.

import { readFile } from 'node:fs/promises';
import { openChromium, openRun, watchMachine } from './chromium.mjs';

const MAX_STALL = 0.5;
/** MAX_RATE of the page's player.js, less the clock's own. */
const MAX_CATCH_UP = 0.1;

function sleep(seconds) {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

/** Plays one run in a page of its own and returns what is wrong with it. */
async function play(browser, origin, run, seconds) {
  const { context, page, go } = await openRun(browser, origin, run, { width: 1000, height: 700 });
  const problems = [];
  page.on('pageerror', (error) => problems.push(`page: ${error.message}`));
  try {
    if (run.page) {
      const elsewhere = [];
      page.on('request', (request) => {
        const url = new URL(request.url());
        if (url.protocol.startsWith('http') && url.origin !== new URL(run.page).origin) elsewhere.push(request.url());
      });
      run.requestsElsewhere = elsewhere;
    }
    await go();
    const startWithin = run.startWithin ?? 15;
    await page
      .waitForFunction(() => window.videoNotes?.started != null, null, { timeout: startWithin * 1000, polling: 50 })
      .catch(() => problems.push(`no picture within ${startWithin} s`));
    if (problems.length === 0) problems.push(...(await measure(page, run, seconds)));
    const errors = await page.evaluate(() => window.videoNotes?.errors ?? []);
    problems.push(...errors);
    if (run.requestsElsewhere?.length) problems.push(`asked other hosts: ${run.requestsElsewhere.slice(0, 3)}`);
  } catch (error) {
    problems.push(String(error));
  } finally {
    await context.close();
  }
  return problems;
}

function middle(numbers) {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
}

/** Watches for `seconds` and compares pictures with the clock. */
async function measure(page, run, seconds) {
  const problems = [];
  // What happens while a player finds its place at the live edge is not yet playback.
  await page.waitForFunction((isOurs) => {
    // A page of ours that is late jumps to the edge, and says how late it is.
    const latency = [...document.querySelectorAll('#playback dt')].find((label) => label.textContent === 'Latency');
    const atTheEdge = !isOurs || parseFloat(latency?.nextSibling.textContent) < 2.5;
    return window.videoNotes.frames.length > 30 && atTheEdge;
  }, Boolean(run.page), { timeout: 10000 }).catch(() => {});
  const before = await page.evaluate((sound) => {
    window.videoNotes.stalls.length = 0;
    window.videoNotes.frames.length = 0;
    if (sound) window.silence = new AudioContext();
    return window.videoNotes.look();
  }, Boolean(run.sound));
  await sleep(seconds);
  const { after, frames, stalls, startup, heard } = await page.evaluate(() => {
    const after = window.videoNotes.look();
    const { frames, stalls, started, opened } = window.videoNotes;
    return { after, frames, stalls, startup: (started - opened) / 1000, heard: window.silence?.currentTime };
  });
  const elapsed = (after.at - before.at) / 1000;
  const advanced = after.currentTime - before.currentTime;
  // What has sound plays by the clock of the sound's output, which loses what a busy machine keeps it waiting for.
  const lost = heard === undefined ? 0 : Math.max(0, elapsed - heard);
  const tolerated = MAX_CATCH_UP * elapsed + 0.1;
  if (advanced > elapsed + tolerated || advanced < elapsed - lost - tolerated) {
    const output = lost > 0 ? `, of which the sound's output lost ${lost.toFixed(2)} s` : '';
    problems.push(`currentTime advanced ${advanced.toFixed(2)} s in ${elapsed.toFixed(2)} s${output}`);
  }
  const byPlayer = ({ seconds, ended }) => seconds - heldUp(ended - seconds * 1000, ended) / 1000;
  const long = stalls.filter((stall) => byPlayer(stall) > MAX_STALL);
  if (long.length > 0) problems.push(`stalled: ${JSON.stringify(long)}`);

  const read = frames.filter((shown) => shown.frame !== null);
  if (read.length < 0.5 * frames.length || read.length < 2) {
    problems.push(`bars were read in ${read.length} of ${frames.length} pictures`);
    return problems;
  }
  const first = read[0];
  const last = read[read.length - 1];
  const grew = last.frame - first.frame;
  const byMedia = (last.media - first.media) * run.framerate;
  const byClock = ((last.at - first.at) / 1000) * run.framerate;
  // On a busy machine the canvas may get a picture that is newer than the one announced: the middle one of many tells.
  const offset = (some) => middle(some.map((shown) => shown.frame - shown.media * run.framerate));
  const drift = offset(read.slice(-25)) - offset(read.slice(0, 25));
  if (Math.abs(drift) > 1.5) problems.push(`frames drifted from media time by ${drift.toFixed(1)}: ${grew} and ${byMedia.toFixed(1)}`);
  // A page that is behind plays as fast as it may all the time; the first and the last picture are a frame or two off.
  const most = run.page ? MAX_CATCH_UP * byClock + 3 : Math.max(3, 0.05 * byClock);
  if (grew < byClock - lost * run.framerate - Math.max(3, 0.05 * byClock) || grew > byClock + most) {
    problems.push(`frames grew by ${grew}, the clock by ${byClock.toFixed(1)} frames`);
  }
  for (let index = 1; index < read.length; index++) {
    if (read[index].frame < read[index - 1].frame) {
      problems.push(`frame ${read[index].frame} after ${read[index - 1].frame}`);
      break;
    }
  }
  if (run.sound) {
    const decoded = await page.evaluate(() => document.querySelector('video').webkitAudioDecodedByteCount);
    if (!(decoded > 0)) problems.push(`no sound was decoded: ${decoded} bytes`);
  }
  const latency = (Date.now() - last.captured) / 1000;
  run.summary =
    `first picture after ${startup.toFixed(2)} s, ${frames.length} pictures shown of ${Math.round(byClock)}, ` +
    `frames grew by ${grew}, latency ${latency.toFixed(2)} s` +
    (heard === undefined ? '' : `, the sound's output lost ${lost.toFixed(2)} s`);
  return problems;
}

const plan = JSON.parse(await readFile(process.argv[2], 'utf8'));
const { browser, origin, close } = await openChromium();
const heldUp = watchMachine();
let passed = 0;
let failed = 0;
const waiting = [...plan.runs];

async function worker() {
  for (let run = waiting.shift(); run; run = waiting.shift()) {
    const problems = await play(browser, origin, run, plan.seconds ?? 20);
    if (problems.length === 0) passed++;
    else failed++;
    console.log(`${problems.length === 0 ? 'ok  ' : 'FAIL'} ${run.name}: ${run.summary ?? ''}`);
    for (const problem of problems) console.log(`       ${problem}`);
  }
}

try {
  await Promise.all(Array.from({ length: plan.together ?? 2 }, worker));
} finally {
  await close();
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
