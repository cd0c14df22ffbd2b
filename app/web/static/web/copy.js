// Copying a field's text, with or without the browser's leave.

import { announce } from "./status.js";

const BACK_AFTER_MS = 2000;

/** Copy what is in `field` and say so on `button`, whose first child is its text. */
export async function copyField(field, button) {
  field.select();
  const copied = (await writeClipboard(field.value)) || document.execCommand("copy");
  announce(copied ? "Copied the URL." : "The URL is selected. Press Ctrl+C to copy it.");
  const text = button.firstElementChild;
  text.textContent = copied ? "Copied" : "Ctrl+C";
  button.classList.toggle("did", copied);
  clearTimeout(button.back);
  button.back = setTimeout(() => {
    text.textContent = "Copy";
    button.classList.remove("did");
  }, BACK_AFTER_MS);
}

/** False where the page is not on HTTPS or localhost, or the browser refuses. */
async function writeClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
