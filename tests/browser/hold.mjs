// Holds players open in headless Chromium while something happens to what they play, and says on request how they fare.
//
//   node hold.mjs PLAN.json
//
// The plan: {"runs": [{"player": "hls.js" | "dash.js" | "shaka", "url"}]}. It prints `ready` once every player shows pictures.
// Each line `look SECONDS` on stdin is answered, after so many seconds, by one line of JSON: for each player what it did in that time,
// [{"player", "advanced": seconds of media, "pictures": shown, "stalled": the longest stall since the last look in seconds,
// "at": currentTime, "buffered": [[from, to], ..], "errors": [..]}]. It ends with stdin. No page is ever reloaded.

import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { openChromium, playerPage } from './chromium.mjs';

const plan = JSON.parse(await readFile(process.argv[2], 'utf8'));
const { browser, origin, close } = await openChromium();

async function open(run) {
  const context = await browser.newContext({ viewport: { width: 660, height: 380 } });
  const page = await context.newPage();
  // Reading them from every picture takes more time than playing does.
  await page.addInitScript(() => { window.withoutBars = true; });
  page.on('pageerror', (error) => page.evaluate((message) => window.videoNotes?.errors.push(message), error.message));
  await page.goto(playerPage(origin, run));
  await page.waitForFunction(() => window.videoNotes?.frames.length > 30, null, { timeout: 30000, polling: 100 }).catch(async () => {
    const state = await page.evaluate(() => {
      const { currentTime, readyState, networkState, paused, seeking, buffered } = document.querySelector('video');
      const ranges = Array.from({ length: buffered.length }, (_, index) => [buffered.start(index), buffered.end(index)]);
      const { frames, errors } = window.videoNotes ?? {};
      return { currentTime, readyState, networkState, paused, seeking, ranges, pictures: frames?.length, errors };
    });
    throw new Error(`${run.player} shows no pictures of ${run.url}: ${JSON.stringify(state)}`);
  });
  return page;
}

async function look(page, player, seconds) {
  return page.evaluate(
    async ([player, seconds]) => {
      const { videoNotes: notes } = window;
      const video = document.querySelector('video');
      const before = { at: video.currentTime, frames: notes.frames.length };
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      notes.look();
      const stalled = Math.max(0, ...notes.stalls.map((stall) => stall.seconds));
      notes.stalls.length = 0;
      const { buffered } = video;
      return {
        player,
        advanced: video.currentTime - before.at,
        pictures: notes.frames.length - before.frames,
        stalled,
        at: video.currentTime,
        buffered: Array.from({ length: buffered.length }, (_, index) => [buffered.start(index), buffered.end(index)]),
        errors: notes.errors,
      };
    },
    [player, seconds],
  );
}

try {
  const pages = await Promise.all(plan.runs.map(open));
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    const seconds = Number(line.split(' ')[1]);
    const seen = await Promise.all(pages.map((page, index) => look(page, plan.runs[index].player, seconds)));
    console.log(JSON.stringify(seen));
  }
} catch (error) {
  console.log(`failed: ${error.message}`);
  process.exitCode = 1;
} finally {
  await close();
}
