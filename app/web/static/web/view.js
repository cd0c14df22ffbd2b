// One image in a dialog: what is known of it, what to copy, and how to delete it.

import { call, whyNotLoaded } from "./api.js";
import { copy, snippets } from "./copy.js";
import { nameOf, number, size, typeName } from "./format.js";
import { removeSoon } from "./remove.js";

const dialog = document.getElementById("view");
const find = (name) => dialog.querySelector(`[data-view=${name}]`);
const [facts, snippet, picture] = ["facts", "snippet", "picture"].map(find);

let image = null;
let card = null;

/** Open `wanted`, whose card in the grid is `its`. */
export function view(wanted, its) {
  [image, card] = [{ ...wanted }, its];
  find("link").href = image.image_url;
  find("broken").hidden = true;
  picture.hidden = false;
  picture.alt = nameOf(image);
  picture.removeAttribute("src");
  picture.src = image.image_url;
  snippet.textContent = image.image_url;
  fill();
  dialog.showModal();
  dialog.scrollTop = 0;
  lookUp(image.key);
}

function fill() {
  const { key, width, height, content_type: type, bytes, last_modified: stored, asked, title, model } = image;
  const seed = asked?.seed ?? image.seed;
  const pixels = width && `${number.format(width)} × ${number.format(height)} pixels`;
  const drawn = asked?.model ?? model;
  find("title").textContent = nameOf(image);
  const rows = {
    Prompt: asked?.prompt ?? (drawn && title),
    Model: drawn && (seed == null ? drawn : `${drawn}, seed ${seed}`),
    Size: [pixels, size(bytes)].filter(Boolean).join(", "),
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

/** What the server knows besides, such as the prompt of a generated image; without it the rest does. */
async function lookUp(key) {
  const query = new URLSearchParams({ prefix: key, limit: 1, details: true });
  try {
    const { images } = await call("GET", `api/images?${query}`, { quiet: true });
    const found = images.find((line) => line.key === key);
    if (!found || image.key !== key) return;
    image = { ...image, asked: found.asked, last_modified: found.last_modified };
    fill();
  } catch {
    // The dialog says what the listing said.
  }
}

picture.addEventListener("load", () => {
  [image.width, image.height] = [picture.naturalWidth, picture.naturalHeight];
  fill();
});
picture.addEventListener("error", async () => {
  const shown = image;
  picture.hidden = true;
  const why = await whyNotLoaded(shown.image_url);
  if (shown.key !== image.key) return;
  find("broken").textContent = `The image does not load from its address. ${why}`;
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
  removeSoon(image, card);
});
find("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // The backdrop is the dialog's own.
});
