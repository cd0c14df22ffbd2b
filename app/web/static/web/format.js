// Formats numbers and names for people.

const UNITS = ["bytes", "KB", "MB", "GB", "TB"];

export const number = new Intl.NumberFormat("en");

/** Use up to three digits before the decimal point and `digits` after it. 1 KB is 1024 bytes. */
export function formatBytes(bytes, digits = 0) {
  let value = bytes;
  let unit = 0;
  for (; value >= 1000 && unit < UNITS.length - 1; unit += 1) value /= 1024;
  const options = { maximumFractionDigits: Math.max(digits, value < 10) };
  return `${value.toLocaleString("en", options)} ${UNITS[unit]}`;
}

/** Round to cents. Below one cent, show two significant digits. */
export function formatUsd(usd) {
  const digits = usd && usd < 0.01 ? { maximumSignificantDigits: 2 } : {};
  return usd.toLocaleString("en", { style: "currency", currency: "USD", ...digits });
}

export function typeName(contentType) {
  return String(contentType ?? "").replace("image/", "").toUpperCase();
}

/** Return the prompt or the file name if this tab knows it, else the last part of the key. */
export function displayName({ title, asked, key }) {
  return title || asked?.prompt || key.slice(key.lastIndexOf("/") + 1);
}

/** Return the folder of a key, without the hash part or the year and month that the server adds. */
export function folderOf(key) {
  return key.replace(/[^/]*$/, "").replace(/(^|\/)(\d{4}\/\d{2}|[0-9a-f]{2})\/$/, "$1");
}
