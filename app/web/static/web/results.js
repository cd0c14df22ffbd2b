// The images of this tab: newest first, kept over a reload.

import { isWebAddress } from "./api.js";
import { copyField } from "./copy.js";
import { kilobytes, typeName } from "./format.js";
import { announce } from "./status.js";
import { recall, remember } from "./store.js";

const KEPT = 24;
const FIELDS = ["image_url", "content_type", "width", "height", "bytes", "model", "seed"];

const template = document.getElementById("card");
const cards = document.getElementById("cards");
const empty = document.getElementById("empty");
const clear = document.getElementById("clear");

let results = recall("results", []).filter((result) => isWebAddress(result?.image_url));

/** Put the server's `answer` on top; an image that is in the list already moves there. */
export function addResult(answer, title) {
  const result = { title, ...Object.fromEntries(FIELDS.map((name) => [name, answer[name]])) };
  results = [result, ...results.filter((known) => known.image_url !== result.image_url)].slice(0, KEPT);
  remember("results", results);
  announce(`${title}: ${answer.message ?? "done"}`);
  render(result);
}

/** Bring the cards in line with `results`, leaving those alone that stay; `fresh` is drawn anew. */
function render(fresh) {
  const shown = new Map([...cards.children].map((card) => [card.dataset.url, card]));
  if (fresh) shown.delete(fresh.image_url);
  const wanted = results.map((result) => shown.get(result.image_url) ?? makeCard(result));
  for (const card of [...cards.children]) if (!wanted.includes(card)) card.remove();
  cards.prepend(...wanted.filter((card) => !card.isConnected));
  empty.hidden = results.length > 0;
  clear.hidden = results.length === 0;
}

function makeCard(result) {
  const card = template.content.firstElementChild.cloneNode(true);
  const find = (selector) => card.querySelector(selector);
  card.dataset.url = result.image_url;
  find("h3").textContent = result.title;
  find("h3").title = result.title;
  fillFacts(find(".facts"), result);
  fillPicture(find(".picture"), find(".error"), result);
  fillAddress(find(".address"), result);
  return card;
}

function fillPicture(link, error, { image_url: url, title, width, height }) {
  const image = link.firstElementChild;
  link.href = url;
  Object.assign(image, { alt: title, width, height });
  image.onerror = () => {
    link.classList.add("broken");
    error.hidden = false;
  };
  image.src = url;
}

function fillFacts(line, result) {
  const [text, open] = line.children;
  text.textContent = facts(result);
  open.href = result.image_url;
  open.append(unseen(` ${result.title} in a new tab`));
}

function fillAddress(address, { image_url: url, title }) {
  const [field, button] = address.children;
  field.value = url;
  field.setAttribute("aria-label", `URL of ${title}`);
  field.addEventListener("focus", () => field.select());
  button.append(unseen(` the URL of ${title}`));
  button.addEventListener("click", () => copyField(field, button));
}

/** Words for screen readers, which meet every card's buttons in one list. */
function unseen(text) {
  const span = document.createElement("span");
  span.className = "away";
  span.textContent = text;
  return span;
}

function facts({ width, height, bytes, content_type: type, model, seed }) {
  const drawn = model && (seed == null ? model : `${model}, seed ${seed}`);
  return [`${width} × ${height}`, kilobytes(bytes), typeName(type), drawn].filter(Boolean).join(" · ");
}

clear.addEventListener("click", () => {
  results = [];
  remember("results", null);
  render();
  announce("The list is empty. The images stay stored.");
  document.getElementById("results-title").focus();
});

render();
