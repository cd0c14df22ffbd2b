// A stored image in the grid; a click opens it.

import { nameOf, size, typeName } from "./format.js";
import { view } from "./view.js";

const template = document.getElementById("card");

export function makeCard(image) {
  const card = template.content.firstElementChild.cloneNode(true);
  const picture = card.querySelector("img");
  card.dataset.key = image.key;
  card.querySelector(".name").textContent = nameOf(image);
  card.querySelector(".meta").textContent = `${typeName(image.content_type)} · ${size(image.bytes)}`;
  picture.onerror = () => {
    picture.hidden = true;
    card.querySelector(".error").hidden = false;
  };
  picture.src = image.image_url;
  card.firstElementChild.addEventListener("click", () => view(image, card));
  return card;
}
