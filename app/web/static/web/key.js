// The API key: asked for once, kept in this tab's session alone.

const NAME = "s3-image-server-key";

const [dialog, input] = ["key-dialog", "key"].map((id) => document.getElementById(id));
let kept = null; // Where the browser forbids storage, until the next reload.
let asked = null;
let declinedAt = 0;

export function knownKey() {
  try {
    return sessionStorage.getItem(NAME) ?? kept;
  } catch {
    return kept;
  }
}

/** Forget `key`, unless another one has taken its place. */
export function forgetKey(key) {
  if (knownKey() === key) keep(null);
}

/**
 * What the user enters, or null if they would rather not; all who wait share one dialog, and a "no"
 * holds for everything begun before it: 24 files must not ask 24 times.
 */
export async function askForKey(reason, since = performance.now()) {
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
  if (!key) declinedAt = performance.now();
  else keep(key);
  return key;
}

function keep(key) {
  kept = key;
  try {
    if (key === null) sessionStorage.removeItem(NAME);
    else sessionStorage.setItem(NAME, key);
  } catch {
    // `kept` does.
  }
  if (key) dispatchEvent(new Event("newkey"));
}

document.getElementById("key-cancel").addEventListener("click", () => dialog.close());
