// The snippets of an image that can be copied, and the clipboard.

import { displayName } from "./format.js";
import { announce } from "./status.js";

const RESET_MS = 2000;

const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

export const snippets = {
  URL: ({ image_url: url }) => url,
  Markdown: (image) => `![${escapeMarkdown(displayName(image))}](${image.image_url})`,
  HTML: (image) => {
    const { image_url: src, width, height, srcset } = image;
    const responsive = srcset && { srcset, sizes: "auto, 100vw", loading: "lazy" };
    const attributes = Object.entries({ src, ...responsive, alt: displayName(image), width, height });
    return `<img${attributes.filter(([, value]) => value).map(attribute).join("")}>`;
  },
  curl: ({ image_url: url }) => `curl -fO '${url.replaceAll("'", "%27")}'`,
};

/** Copy `text`, which `element` shows. The label of `button` reports the result. */
export async function copy(text, element, button) {
  const name = button.dataset.copy;
  const copied = (await writeClipboard(text)) || copySelection(element);
  announce(copied ? `Copied: ${name}.` : "The text is selected. Press Ctrl+C to copy it.");
  button.textContent = copied ? "Copied" : "Ctrl+C";
  button.classList.toggle("did", copied);
  clearTimeout(button.timer);
  button.timer = setTimeout(() => {
    button.textContent = name;
    button.classList.remove("did");
  }, RESET_MS);
}

/** Return false if the page is not on HTTPS or localhost, or if access is denied. */
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

/** Make it one line, since an empty line would end the description. `<` could start HTML. */
function escapeMarkdown(text) {
  return text.replace(/\s+/g, " ").replace(/[[\]\\<]/g, "\\$&");
}

function attribute([name, value]) {
  return ` ${name}="${String(value).replace(/[&<>"]/g, (sign) => escapes[sign])}"`;
}
