// Decodes ThumbHash, a placeholder of about 25 bytes (https://evanw.github.io/thumbhash/).

const SIDE = 16; // Pixels of the longer side. The browser smooths the picture when it enlarges it.

/** Return a `<canvas>` with the placeholder, in the proportions of the image. `hash` is in Base64. */
export function drawPlaceholder(hash) {
  const canvas = document.createElement("canvas");
  const { ratio, colorAt } = decode(Uint8Array.from(atob(hash), (sign) => sign.charCodeAt(0)));
  canvas.width = Math.round(SIDE * Math.min(1, ratio));
  canvas.height = Math.round(SIDE / Math.max(1, ratio));
  const { width, height } = canvas;
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i += 1) {
    pixels.data.set(colorAt(((i % width) + 0.5) / width, (Math.floor(i / width) + 0.5) / height), i * 4);
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

/** Return the ratio of width to height, and a function that returns the RGBA color at a position, 0 to 1. */
function decode(bytes) {
  // Both numbers are read from their lowest bits.
  const means = bytes[0] | (bytes[1] << 8) | (bytes[2] << 16);
  const scales = bytes[3] | (bytes[4] << 8);
  const hasAlpha = means >> 23;
  const [long, short] = [hasAlpha ? 5 : 7, scales & 7];
  const [across, down] = scales >> 15 ? [long, short] : [short, long];

  // One coefficient for each 4 bits.
  let next = hasAlpha ? 12 : 10;
  const coefficient = () => ((bytes[next >> 1] >> ((next++ & 1) * 4)) & 15) / 7.5 - 1;

  /** Return a function that returns the value of a channel at a position. */
  function channel(mean, scale, columns, rows) {
    const waves = [];
    for (let y = 0; y < rows; y += 1) {
      for (let x = y ? 0 : 1; x * rows < columns * (rows - y); x += 1) {
        waves.push([x * Math.PI, y * Math.PI, 2 * scale * coefficient()]);
      }
    }
    return (x, y) => waves.reduce((sum, [u, v, size]) => sum + size * Math.cos(u * x) * Math.cos(v * y), mean);
  }

  const light = channel((means & 63) / 63, ((means >> 18) & 31) / 31, Math.max(3, across), Math.max(3, down));
  const yellow = channel(((means >> 6) & 63) / 31.5 - 1, (((scales >> 3) & 63) / 63) * 1.25, 3, 3);
  const red = channel(((means >> 12) & 63) / 31.5 - 1, (((scales >> 9) & 63) / 63) * 1.25, 3, 3);
  const alpha = hasAlpha ? channel((bytes[5] & 15) / 15, (bytes[5] >> 4) / 15, 5, 5) : () => 1;

  return {
    ratio: across / down,
    colorAt(x, y) {
      const [l, p, q] = [light(x, y), yellow(x, y), red(x, y)];
      const b = l - (2 / 3) * p;
      const r = (3 * l - b + q) / 2;
      return [r, r - q, b, alpha(x, y)].map((value) => value * 255); // The array clamps them.
    },
  };
}
