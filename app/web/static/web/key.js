// The API key: asked for once, kept in this tab alone.

import { recall, remember } from "./store.js";

const dialog = document.getElementById("key-dialog");
const input = document.getElementById("key");
let asked = null;
let declinedAt = 0;

export function knownKey() {
  return recall("key", null);
}

/** Forget `key`, unless another one has taken its place. */
export function forgetKey(key) {
  if (knownKey() === key) remember("key", null);
}

/**
 * What the user enters, or null if they would rather not; all who wait share one dialog, and a "no"
 * holds for everything begun before it: 24 files must not ask 24 times.
 */
export async function askForKey(reason, since) {
  if (since < declinedAt) return null;
  asked ??= ask(reason).finally(() => (asked = null));
  return asked;
}

function ask(reason) {
  document.getElementById("key-reason").textContent = reason;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(take()), { once: true });
  });
}

function take() {
  const key = dialog.returnValue === "use" ? input.value : null;
  input.value = "";
  if (key) remember("key", key);
  else declinedAt = performance.now();
  return key;
}

document.getElementById("key-cancel").addEventListener("click", () => dialog.close());
