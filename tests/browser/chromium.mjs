// A headless Chromium with an empty profile, and a server on loopback for the pages and the players beside this file.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

export const here = fileURLToPath(new URL('.', import.meta.url));
const types = { '.html': 'text/html', '.js': 'text/javascript' };

/** Serves the pages and the players beside this file, on loopback. */
function serveFiles() {
  const server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, 'http://localhost').pathname);
    try {
      const body = await readFile(join(here, path));
      response.writeHead(200, { 'content-type': types[extname(path)] ?? 'application/octet-stream' }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve(server));
  });
}

/** Opens `run` in a page of its own: `run.player` on `run.url`, or the page `run.page` itself, watched from the moment its video is there. */
export async function openRun(browser, origin, run, viewport) {
  const context = await browser.newContext({ viewport });
  const page = await context.newPage();
  if (run.page) {
    for (const script of ['bars.js', 'watch.js', 'find.js']) await page.addInitScript({ path: join(here, script) });
  }
  const go = () => page.goto(run.page ?? playerPage(origin, run), { waitUntil: 'domcontentloaded' });
  return { context, page, go };
}

/** The URL of a page on which `run.player` plays `run.url`: `run.delay` seconds behind the live edge, or as the manifest suggests; or at the live
 * edge of a stream with parts of `run.live` seconds. */
export function playerPage(origin, run) {
  const query = new URLSearchParams({ player: run.player, url: run.url });
  if (run.delay) query.set('delay', run.delay);
  if (run.live) query.set('live', run.live);
  return `${origin}/page.html?${query}`;
}

/** Starts it: `browser` to open pages with, `origin` of the pages, and `close` to end and remove everything. */
export async function openChromium() {
  const profile = await mkdtemp(join(tmpdir(), 'ringgear-browser-'));
  const server = await serveFiles();
  const browser = await chromium.launch({
    executablePath: process.env.RINGGEAR_CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    env: { ...process.env, HOME: profile, XDG_CONFIG_HOME: profile, XDG_CACHE_HOME: profile },
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required',
      '--disable-background-timer-throttling', '--disable-backgrounding-occluded-windows', '--disable-renderer-backgrounding',
    ],
  });
  const close = async () => {
    await browser.close();
    server.close();
    await rm(profile, { recursive: true, force: true });
  };
  return { browser, origin: `http://127.0.0.1:${server.address().port}`, close };
}

/** Watches the machine by a timer of this program, which has the browser's priority. Returns how long, in ms, it stood still between two moments of
 * the wall clock: then the players did, too. */
export function watchMachine() {
  const standstills = [];
  let last = performance.now();
  setInterval(() => {
    const now = performance.now();
    const late = now - last - 20;
    last = now;
    const to = Date.now();
    if (late > 10) standstills.push({ from: to - late, to });
  }, 20).unref();
  return (from, to) => standstills.reduce((sum, one) => sum + Math.max(0, Math.min(to, one.to) - Math.max(from, one.from)), 0);
}
