// The card of a stored image in the grid. A click opens the image.

import { loadError } from "./api.js";
import { displayName, formatBytes, typeName } from "./format.js";
import { drawPlaceholder } from "./thumbhash.js";
import { openView } from "./view.js";

const template = document.getElementById("card");

export function makeCard(image) {
  const card = template.content.firstElementChild.cloneNode(true);
  const picture = card.querySelector("img");
  card.dataset.key = image.key;
  card.querySelector(".name").textContent = displayName(image);
  card.querySelector(".meta").textContent = `${typeName(image.content_type)} · ${formatBytes(image.bytes)}`;
  const placeholder = image.thumbhash && drawPlaceholder(image.thumbhash);
  if (placeholder) picture.before(placeholder);
  picture.onload = () => placeholder?.remove(); // It would be visible behind a transparent image.
  picture.onerror = async () => {
    if (picture.src !== image.image_url) {
      picture.src = image.image_url;
      return;
    }
    picture.hidden = true;
    const error = card.querySelector(".error");
    error.textContent = `Stored, but it does not load from its URL. ${await loadError(picture.src)}`;
    error.hidden = false;
  };
  picture.src = image.variants?.thumb ?? image.image_url;
  card.firstElementChild.addEventListener("click", () => openView(image, card));
  return card;
}
