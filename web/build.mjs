// Puts what the binary embeds into dist/: the players as their authors minified them, and their licences.
import { mkdir, readFile, writeFile } from "node:fs/promises";

const PLAYERS = [
  { package: "hls.js", file: "hls.min.js", to: "hls", licence: "Apache-2.0" },
  // DASH alone: two thirds of the whole.
  { package: "shaka-player", file: "shaka-player.dash-es2021.js", to: "shaka", licence: "Apache-2.0" },
];

const to = new URL("dist/", import.meta.url);
await mkdir(to, { recursive: true });

/// Leaves a file alone that is so already: the program would be built anew after any other.
async function put(name, text) {
  const file = new URL(name, to);
  const there = await readFile(file, "utf8").catch(() => null);
  if (there !== text) await writeFile(file, text);
}

for (const player of PLAYERS) {
  const from = new URL(`node_modules/${player.package}/`, import.meta.url);
  const script = await readFile(new URL(`dist/${player.file}`, from), "utf8");
  const { version } = JSON.parse(await readFile(new URL("package.json", from), "utf8"));
  await put(
    `${player.to}.min.js`,
    `/*! ${player.package} ${version}, ${player.licence}: see the licence beside it */\n` +
      // The map is not shipped, so the line that points at it would only make developer tools ask for it.
      script.replace(/\n\/\/# sourceMappingURL=.*\s*$/, "\n"),
  );
  await put(`${player.to}.LICENSE.txt`, await readFile(new URL("LICENSE", from), "utf8"));
  console.log(`web/dist: ${player.package} ${version}, ${script.length} bytes`);
}
