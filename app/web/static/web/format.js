// Figures and names as people read them.

const UNITS = ["bytes", "KB", "MB", "GB", "TB"];

export const number = new Intl.NumberFormat("en");

/** `bytes` in the unit that leaves one to three digits before the point, up to `digits` after it; 1 KB is 1024 bytes. */
export function size(bytes, digits = 0) {
  let value = bytes;
  let unit = 0;
  for (; value >= 1000 && unit < UNITS.length - 1; unit += 1) value /= 1024;
  const most = { maximumFractionDigits: Math.max(digits, value < 10) };
  return `${value.toLocaleString("en", most)} ${UNITS[unit]}`;
}

/** Cents, and below them the first two digits that are not 0. */
export function money(usd) {
  const digits = usd && usd < 0.01 ? { maximumSignificantDigits: 2 } : {};
  return usd.toLocaleString("en", { style: "currency", currency: "USD", ...digits });
}

/** "image/png" as "PNG". */
export function typeName(contentType) {
  return String(contentType ?? "").replace("image/", "").toUpperCase();
}

/** What to call an image: its prompt or file where this tab knows it, else the last part of its key. */
export function nameOf({ title, asked, key }) {
  return title || asked?.prompt || key.slice(key.lastIndexOf("/") + 1);
}

/** The folder of a key, without what the server adds itself: part of a hash, or year and month. */
export function folderOf(key) {
  return key.replace(/[^/]*$/, "").replace(/(^|\/)(\d{4}\/\d{2}|[0-9a-f]{2})\/$/, "$1");
}
