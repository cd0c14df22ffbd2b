// A loader for next/image. In next.config.js: images: { loader: 'custom', loaderFile: './image-loader.js' }

// The server's VARIANT_WIDTHS. The default contains all widths that Next.js requests by default.
const WIDTHS = [
  16, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 480, 640, 750, 828, 960, 1080, 1200, 1440, 1600, 1920, 2048,
  2560, 3840,
];

/** `src` is a URL of the image server. `quality` is not used, since the server permits it only in signed URLs. */
export default function imageLoader({ src, width }) {
  const permitted = WIDTHS.find((listed) => listed >= width) ?? WIDTHS.at(-1);
  return `${src}/w${permitted}`;
}
