// The API key. The user enters it once, and it is stored only in the session of this tab.

const NAME = "s3-image-server-key";

const [dialog, input] = ["key-dialog", "key"].map((id) => document.getElementById(id));
let fallback = null; // Used until the next reload if the browser forbids storage.
let pending = null;
let declinedAt = 0;

export function storedKey() {
  try {
    return sessionStorage.getItem(NAME) ?? fallback;
  } catch {
    return fallback;
  }
}

/** Forget `key`, unless another one has replaced it. */
export function forgetKey(key) {
  if (storedKey() === key) store(null);
}

/**
 * Return the key that the user enters, or null if they cancel. Concurrent requests share one dialog.
 * Cancelling applies to everything that was started earlier, so that 24 files do not ask 24 times.
 */
export async function promptForKey(reason, since = performance.now()) {
  if (since < declinedAt) return null;
  pending ??= openDialog(reason).finally(() => (pending = null));
  return pending;
}

function openDialog(reason) {
  document.getElementById("key-reason").textContent = reason;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(enteredKey()), { once: true });
  });
}

function enteredKey() {
  const key = dialog.returnValue === "use" ? input.value : null;
  input.value = "";
  if (!key) declinedAt = performance.now();
  else store(key);
  return key;
}

function store(key) {
  fallback = key;
  try {
    if (key === null) sessionStorage.removeItem(NAME);
    else sessionStorage.setItem(NAME, key);
  } catch {
    // Use `fallback`.
  }
  if (key) dispatchEvent(new Event("newkey"));
}

document.getElementById("key-cancel").addEventListener("click", () => dialog.close());
