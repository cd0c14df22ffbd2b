// The dialog of an image, with its facts, snippets to copy, and a delete button.

import { call, loadError } from "./api.js";
import { copy, snippets } from "./copy.js";
import { displayName, formatBytes, number, typeName } from "./format.js";
import { deleteWithUndo } from "./remove.js";

const dialog = document.getElementById("view");
const find = (name) => dialog.querySelector(`[data-view=${name}]`);
const [facts, snippet, picture] = ["facts", "snippet", "picture"].map(find);

let image = null;
let card = null;

/** Show `shownImage`, whose card in the grid is `itsCard`. */
export function openView(shownImage, itsCard) {
  [image, card] = [{ ...shownImage }, itsCard];
  find("link").href = image.image_url;
  find("broken").hidden = true;
  picture.hidden = false;
  picture.alt = displayName(image);
  picture.removeAttribute("src");
  picture.src = image.image_url;
  snippet.textContent = image.image_url;
  showFacts();
  dialog.showModal();
  dialog.scrollTop = 0;
  loadDetails(image.key);
}

function showFacts() {
  const { key, width, height, content_type: type, bytes, last_modified: stored, asked, title, model } = image;
  const seed = asked?.seed ?? image.seed;
  const pixels = width && `${number.format(width)} × ${number.format(height)} pixels`;
  const drawn = asked?.model ?? model;
  find("title").textContent = displayName(image);
  const rows = {
    Prompt: asked?.prompt ?? (drawn && title),
    Model: drawn && (seed == null ? drawn : `${drawn}, seed ${seed}`),
    Size: [pixels, formatBytes(bytes)].filter(Boolean).join(", "),
    Type: `${typeName(type)} (${type})`,
    Key: key,
    Stored: stored && new Date(stored).toLocaleString(),
  };
  facts.replaceChildren(...Object.entries(rows).filter(([, value]) => value).flatMap(row));
}

function row([name, value]) {
  const [term, text] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  text.textContent = value;
  return [term, text];
}

/** Add facts that only the store knows, such as the prompt of a generated image. */
async function loadDetails(key) {
  const query = new URLSearchParams({ prefix: key, limit: 1, details: true });
  try {
    const { images } = await call("GET", `api/images?${query}`, { quiet: true });
    const found = images.find((listed) => listed.key === key);
    if (!found || image.key !== key) return;
    image = { ...image, asked: found.asked, last_modified: found.last_modified };
    showFacts();
  } catch {
    // Show only what the grid knew.
  }
}

picture.addEventListener("load", () => {
  [image.width, image.height] = [picture.naturalWidth, picture.naturalHeight];
  showFacts();
});
picture.addEventListener("error", async () => {
  const shown = image;
  picture.hidden = true;
  const why = await loadError(shown.image_url);
  if (shown.key !== image.key) return;
  find("broken").textContent = `The image does not load from its URL. ${why}`;
  find("broken").hidden = false;
});
for (const button of dialog.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => {
    snippet.textContent = snippets[button.dataset.copy](image);
    copy(snippet.textContent, snippet, button);
  });
}
find("delete").addEventListener("click", () => {
  dialog.close();
  deleteWithUndo(image, card);
});
find("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // A click on the backdrop.
});
