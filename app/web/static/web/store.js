// What this tab remembers. Where the browser forbids storage, it remembers until the next reload.

const memory = new Map();

/** The value under `name`, or `fallback` where there is none or it can't be read. */
export function recall(name, fallback) {
  if (memory.has(name)) return memory.get(name) ?? fallback;
  try {
    return JSON.parse(sessionStorage.getItem(name)) ?? fallback;
  } catch {
    return fallback;
  }
}

/** Keep `value` under `name`; null forgets it. */
export function remember(name, value) {
  memory.set(name, value);
  try {
    if (value === null) sessionStorage.removeItem(name);
    else sessionStorage.setItem(name, JSON.stringify(value));
  } catch {
    // Storage is full or forbidden: the copy in memory does.
  }
}
