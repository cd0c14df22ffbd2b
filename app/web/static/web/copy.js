// What can be copied for an image, and copying it with or without the browser's leave.

import { nameOf } from "./format.js";
import { announce } from "./status.js";

const BACK_AFTER_MS = 2000;

const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

export const snippets = {
  URL: ({ image_url: url }) => url,
  Markdown: (image) => `![${markdown(nameOf(image))}](${image.image_url})`,
  HTML: (image) => `<img src="${html(image.image_url)}" alt="${html(nameOf(image))}"${sides(image)}>`,
  curl: ({ image_url: url }) => `curl -fO '${url.replaceAll("'", "%27")}'`,
};

/** Copy `text`, which `element` shows, and say so on `button`. */
export async function copy(text, element, button) {
  const name = button.dataset.copy;
  const copied = (await writeClipboard(text)) || copySelection(element);
  announce(copied ? `Copied: ${name}.` : "The text is selected. Press Ctrl+C to copy it.");
  button.textContent = copied ? "Copied" : "Ctrl+C";
  button.classList.toggle("did", copied);
  clearTimeout(button.back);
  button.back = setTimeout(() => {
    button.textContent = name;
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

function copySelection(element) {
  getSelection().selectAllChildren(element);
  return document.execCommand("copy");
}

/** On one line: an empty one would end the image's description, and `<` may begin HTML in it. */
function markdown(text) {
  return text.replace(/\s+/g, " ").replace(/[[\]\\<]/g, "\\$&");
}

function html(text) {
  return text.replace(/[&<>"]/g, (sign) => escapes[sign]);
}

function sides({ width, height }) {
  return width && height ? ` width="${width}" height="${height}"` : "";
}
