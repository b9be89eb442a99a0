// Holds players open in headless Chromium while something happens to what they play, and says on request how they fare.
//
//   node hold.mjs PLAN.json
//
// The plan: {"runs": [{"player": "hls.js" | "dash.js" | "shaka", "url"} | {"player": name, "page": URL}]}. It prints `ready` once every
// player shows pictures. Each line `look SECONDS` on stdin is answered, after so many seconds, by one line of JSON: for each player what it did in that time,
// [{"player", "advanced": seconds of media, "pictures": shown, "stalled": the longest stall since the last look in seconds,
// "at": currentTime, "buffered": [[from, to], ..], "errors": [..], "page": what a page of the daemon's says}]. Lines that do something to
// all pages are answered by `[]`: `press KEY` in the player's frame, `choose NAME VALUE` in the page's form, `offline`, `online`, `hide` and `show` as when the
// viewer goes to another tab. It ends with stdin. No page is ever reloaded.

import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { openChromium, openRun } from './chromium.mjs';

const plan = JSON.parse(await readFile(process.argv[2], 'utf8'));
const { browser, origin, close } = await openChromium();

async function open(run) {
  const { page, go } = await openRun(browser, origin, run, { width: 660, height: 380 });
  // Reading them from every picture takes more time than playing does.
  await page.addInitScript(() => { window.withoutBars = true; });
  page.on('pageerror', (error) => page.evaluate((message) => window.videoNotes?.errors.push(message), error.message));
  await go();
  await page.waitForFunction(() => window.videoNotes?.frames.length > 30, null, { timeout: 90000, polling: 100 }).catch(async () => {
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
        page: document.getElementById('playback') ? pageSays() : null,
      };
      function pageSays() {
        const says = {};
        const seconds = (text) => (text === '–' ? null : parseFloat(text));
        for (const label of document.querySelectorAll('#playback dt')) says[label.textContent] = label.nextSibling.textContent;
        const veil = document.getElementById('veil');
        return {
          query: location.search,
          veil: veil.hidden ? '' : veil.textContent.trim(),
          latency: seconds(says.Latency),
          buffer: seconds(says.Buffer),
          rendition: says.Rendition,
          dropped: says.Dropped,
          engine: says.Player,
          qualities: [...document.getElementById('quality').options].map((option) => option.value),
          charts: [...document.querySelectorAll('.chart svg')].map((chart) => chart.getAttribute('aria-label')),
        };
      }
    },
    [player, seconds],
  );
}

const actions = {
  // As the player hears them: with the focus in its frame.
  press: async (page, [key]) => {
    await page.focus('#frame');
    await page.keyboard.press(key);
  },
  choose: (page, [name, value]) => page.evaluate(
    ([name, value]) => {
      const field = document.getElementById('choices').elements[name];
      field.value = value;
      const target = field instanceof RadioNodeList ? document.querySelector(`[name=${name}]:checked`) : field;
      target.dispatchEvent(new Event('change', { bubbles: true }));
    },
    [name, value ?? ''],
  ),
  offline: (page) => page.context().setOffline(true),
  online: (page) => page.context().setOffline(false),
  // What Chromium does to a muted video whose tab is not in view.
  hide: (page) => page.evaluate(() => {
    Object.defineProperty(document, 'hidden', { value: true, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
    document.querySelector('video').pause();
  }),
  show: (page) => page.evaluate(() => {
    delete document.hidden;
    document.dispatchEvent(new Event('visibilitychange'));
  }),
};

try {
  const pages = await Promise.all(plan.runs.map(open));
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    const [action, ...words] = line.split(' ');
    if (action !== 'look') {
      await Promise.all(pages.map((page) => actions[action](page, words)));
      console.log('[]');
      continue;
    }
    const seconds = Number(words[0]);
    const seen = await Promise.all(pages.map((page, index) => look(page, plan.runs[index].player, seconds)));
    console.log(JSON.stringify(seen));
  }
} catch (error) {
  console.log(`failed: ${error.message}`);
  process.exitCode = 1;
} finally {
  await close();
}
