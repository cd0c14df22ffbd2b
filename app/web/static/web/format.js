// Figures as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** `bytes` in KB of 1024 bytes. */
export function kilobytes(bytes) {
  const value = bytes / 1024;
  return `${(value < 10 ? fine : whole).format(value)} KB`;
}

/** "image/png" as "PNG". */
export function typeName(contentType) {
  return String(contentType ?? "").replace("image/", "").toUpperCase();
}
