// Pictures of the pages at a desktop's and a phone's width: node screenshots.mjs URL FOLDER. Each waits until its page plays and has
// some charts to show; a page that asks another host for anything, or whose console has an error, fails it.

import { join } from 'node:path';
import { openChromium } from './chromium.mjs';

const [url, folder] = process.argv.slice(2);
const WATCHED = 45000; // of the charts' two minutes
const DESKTOP = { width: 1280, height: 860 };
const PHONE = { width: 390, height: 844 };

const { browser, close } = await openChromium();
const troubles = [];

async function open(path, viewport, colorScheme) {
  const context = await browser.newContext({ viewport, colorScheme, deviceScaleFactor: 1, isMobile: viewport === PHONE, hasTouch: viewport === PHONE });
  const page = await context.newPage();
  page.on('console', (message) => { if (message.type() === 'error') troubles.push(`${path}: ${message.text()}`); });
  page.on('pageerror', (error) => troubles.push(`${path}: ${error}`));
  page.on('request', (request) => {
    const asked = new URL(request.url());
    if (!['blob:', 'data:'].includes(asked.protocol) && asked.origin !== new URL(url).origin) troubles.push(`${path} asks ${asked}`);
  });
  await page.goto(new URL(path, url).href);
  return page;
}

try {
  const { streams } = await (await fetch(new URL('api/v1/streams', url))).json();
  const stream = `${streams[0].name}/`;
  const wanted = [
    ['streams', '', DESKTOP, 'dark'], ['streams-phone', '', PHONE, 'light'],
    ['stream', stream, DESKTOP, 'dark'], ['stream-phone', stream, PHONE, 'light'],
  ];
  const pages = [];
  for (const [name, path, viewport, scheme] of wanted) pages.push([name, await open(path, viewport, scheme)]);
  for (const [name, page] of pages) {
    if (name.startsWith('stream-') || name === 'stream') {
      await page.waitForFunction(() => document.querySelector('video').currentTime > 0, null, { timeout: 60000 });
    } else {
      await page.waitForSelector('.thumb img', { timeout: 60000 });
    }
  }
  await new Promise((resolve) => setTimeout(resolve, Number(process.env.RINGGEAR_SCREENSHOT_MS ?? WATCHED)));
  for (const [name, page] of pages) {
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (wide > 0) troubles.push(`${name} is ${wide} pixels wider than its window`);
    await page.screenshot({ path: join(folder, `${name}.jpg`), type: 'jpeg', quality: 72, fullPage: true });
  }
} finally {
  await close();
}
if (troubles.length) {
  console.error(troubles.join('\n'));
  process.exitCode = 1;
}
