// A stored image in the grid; a click opens it.

import { whyNotLoaded } from "./api.js";
import { nameOf, size, typeName } from "./format.js";
import { view } from "./view.js";

const template = document.getElementById("card");

export function makeCard(image) {
  const card = template.content.firstElementChild.cloneNode(true);
  const picture = card.querySelector("img");
  card.dataset.key = image.key;
  card.querySelector(".name").textContent = nameOf(image);
  card.querySelector(".meta").textContent = `${typeName(image.content_type)} · ${size(image.bytes)}`;
  picture.onerror = async () => {
    picture.hidden = true;
    const error = card.querySelector(".error");
    error.textContent = `Stored, but it does not load from its address. ${await whyNotLoaded(picture.src)}`;
    error.hidden = false;
  };
  picture.src = image.image_url;
  card.firstElementChild.addEventListener("click", () => view(image, card));
  return card;
}
