// Puts what the binary embeds into dist/: hls.js as its authors minified it, and its licence.
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";

const from = new URL("node_modules/hls.js/", import.meta.url);
const to = new URL("dist/", import.meta.url);

await mkdir(to, { recursive: true });
// The map is not shipped, so the line that points at it would only make developer tools ask for it.
const script = await readFile(new URL("dist/hls.min.js", from), "utf8");
const { version } = JSON.parse(await readFile(new URL("package.json", from), "utf8"));
await writeFile(
  new URL("hls.min.js", to),
  `/*! hls.js ${version}, Apache-2.0: see the licence beside it */\n` +
    script.replace(/\n\/\/# sourceMappingURL=.*\s*$/, "\n"),
);
await copyFile(new URL("LICENSE", from), new URL("hls.LICENSE.txt", to));
console.log(`web/dist: hls.js ${version}, ${script.length} bytes`);
