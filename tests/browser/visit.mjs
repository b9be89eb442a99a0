// One tab of headless Chromium on the daemon's pages: node visit.mjs. It prints `ready`, and answers each line on stdin by a line of JSON:
//
//   open URL [phone]  goes there, in a desktop's or a phone's window
//   press KEY         on the page
//   play              starts the page's video
//   look              on the page
//
// with what the page shows: {"path", "text", "overflow": pixels that it is wider than its window, "focus": where the focused link leads,
// "cards": [{"name", "state", "viewers", "bitrate", "latency", "points": of its line, "picture": whether its thumbnail is drawn, "note"}],
// "at": the video's time, "recordings": the links of its list, "troubles": what its console complained of, and whom else it asked}.

import { createInterface } from 'node:readline';
import { openChromium } from './chromium.mjs';

const WINDOWS = {
  desktop: { viewport: { width: 1280, height: 860 } },
  phone: { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true },
};

const { browser, close } = await openChromium();
const troubles = [];
let page = null;

async function open(url, window = 'desktop') {
  await page?.context().close();
  page = await (await browser.newContext(WINDOWS[window])).newPage();
  page.on('console', (message) => { if (message.type() === 'error') troubles.push(message.text()); });
  page.on('pageerror', (error) => troubles.push(String(error)));
  page.on('request', (request) => {
    const asked = new URL(request.url());
    if (!['blob:', 'data:'].includes(asked.protocol) && asked.origin !== new URL(url).origin) troubles.push(`it asks ${asked}`);
  });
  await page.goto(url);
}

function seen() {
  const shown = (node, what) => node.querySelector(what)?.textContent ?? '';
  const figures = (card) => Object.fromEntries([...card.querySelectorAll('.stats > div')].map((one) => [shown(one, 'dt'), shown(one, 'dd')]));
  const { scrollWidth, clientWidth } = document.documentElement;
  return {
    path: location.pathname + location.hash,
    text: document.querySelector('main').innerText,
    overflow: scrollWidth - clientWidth,
    focus: document.activeElement?.getAttribute('href') ?? '',
    cards: [...document.querySelectorAll('#cards > li')].map((card) => ({
      name: shown(card, 'h2'),
      state: shown(card, '.state'),
      viewers: figures(card).Viewers,
      bitrate: figures(card).Bitrate,
      latency: figures(card).Latency,
      points: (card.querySelector('.stats path')?.getAttribute('d') ?? '').split(/[ML]/).length - 1,
      picture: (card.querySelector('.thumb img')?.naturalWidth ?? 0) > 0,
      note: shown(card, '.note'),
    })),
    at: document.querySelector('video')?.currentTime ?? null,
    recordings: [...document.querySelectorAll('#recordings a')].map((link) => link.getAttribute('href')),
  };
}

/** What the page shows; the next one, if this one is being left. */
async function look() {
  for (let tries = 0; ; tries += 1) {
    try {
      await page.waitForLoadState();
      return await page.evaluate(seen);
    } catch (error) {
      if (tries === 3) throw error;
    }
  }
}

const actions = {
  open,
  press: (key) => page.keyboard.press(key),
  play: () => page.evaluate(() => document.querySelector('video').play()),
  look: () => {},
};
try {
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    const [action, ...words] = line.split(' ');
    await actions[action](...words);
    console.log(JSON.stringify({ ...(await look()), troubles }));
  }
} catch (error) {
  console.log(`failed: ${error.message}`);
  process.exitCode = 1;
} finally {
  await close();
}
