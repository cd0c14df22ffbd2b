// The dialog of an image, with its facts, snippets to copy, and a delete button.

import { loadError } from "./api.js";
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
  for (const name of ["src", "srcset"]) picture.removeAttribute(name);
  snippet.textContent = image.image_url;
  showFacts();
  dialog.showModal();
  dialog.scrollTop = 0;
  const { width, height, srcset, image_url: url } = image;
  // An image on another server is loaded from its own URL, to show whether that works.
  if (srcset && new URL(url).origin === location.origin) {
    const { clientWidth, clientHeight } = picture;
    picture.sizes = `${Math.min(width, clientWidth, (clientHeight * width) / height)}px`;
    picture.srcset = srcset;
  } else picture.src = url;
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

picture.addEventListener("load", () => {
  if (picture.srcset) return; // Its natural size depends on `sizes`.
  [image.width, image.height] = [picture.naturalWidth, picture.naturalHeight];
  showFacts();
});
picture.addEventListener("error", async () => {
  const shown = image;
  if (picture.srcset) {
    picture.removeAttribute("srcset");
    picture.src = image.image_url;
    return;
  }
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
