// Reads the test pattern's bars from a <video>, as docs/test-pattern.md says: 36 columns and 20 rows of cells, the first three
// rows are bars. Returns the frame's number and capture time, or null when there are none or their CRC is wrong.

const COLUMNS = 36, ROWS = 20, BAR_ROWS = 3, CELL = 8;
const canvas = document.createElement('canvas');
canvas.width = COLUMNS * CELL;
canvas.height = BAR_ROWS * CELL;
const context = canvas.getContext('2d', { willReadFrequently: true });

window.readBars = function readBars(video) {
  if (!video.videoWidth) return null;
  const height = video.videoHeight * BAR_ROWS / ROWS;
  context.drawImage(video, 0, 0, video.videoWidth, height, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  // The mean over the middle of a cell, where its neighbours' blur does not reach.
  const brightness = (row, column) => {
    let sum = 0;
    for (let y = 2; y < 6; y++) {
      for (let x = 2; x < 6; x++) sum += data[4 * ((row * CELL + y) * canvas.width + column * CELL + x) + 1];
    }
    return sum / 16;
  };
  const rows = [];
  for (let row = 0; row < BAR_ROWS; row++) {
    const white = Math.min(brightness(row, 0), brightness(row, 34));
    const black = Math.max(brightness(row, 1), brightness(row, 35));
    if (white < black + 48) return null;
    let bits = 0;
    for (let column = 2; column < 34; column++) {
      bits = bits * 2 + (brightness(row, column) > (white + black) / 2 ? 1 : 0);
    }
    rows.push(bits);
  }
  const [frame, timeHigh, rest] = rows;
  const time = timeHigh * 65536 + Math.floor(rest / 65536);
  const bytes = [24, 16, 8, 0].map((shift) => (frame >>> shift) & 255);
  bytes.push(...[24, 16, 8, 0].map((shift) => (timeHigh >>> shift) & 255), (rest >>> 24) & 255, (rest >>> 16) & 255);
  let crc = 0xffff;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff;
  }
  return crc === (rest & 0xffff) ? { frame, time } : null;
};
