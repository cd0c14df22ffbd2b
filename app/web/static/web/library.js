// The grid of running jobs and stored images, which are loaded page by page.

import { call, withAbsoluteUrls } from "./api.js";
import { makeCard } from "./card.js";
import { folderOf } from "./format.js";
import { isDeleting, keep } from "./remove.js";

const PAGE_SIZE = 24;
const TYPING_PAUSE_MS = 250;
const MAX_EMPTY_PAGES = 5;

const find = (id) => document.getElementById(id);
const [grid, empty, none, note, more, again, unlock] =
  ["grid", "empty", "none", "library-note", "more", "again", "unlock"].map(find);
const folder = find("folder");
const folders = new Set();
const ownImages = new Map(); // What this tab knows about images that it stored, by key.

let cursor = null;
let unsafe = 0;
let latest = 0; // The number of the newest request; responses to earlier ones are ignored.
let locked = false;
let repeat = load; // Repeats the last request.

export function addFirst(element) {
  grid.prepend(element);
  update();
  element.scrollIntoView({ block: "nearest" });
}

/** Replace `element`, and an earlier card of the same key, with the card of a stored image. */
export function replace(element, image) {
  ownImages.set(image.key, image);
  keep(image.key);
  findCard(image.key)?.remove();
  const card = makeCard(image);
  const focused = element.contains(document.activeElement);
  element.replaceWith(card);
  if (focused) card.firstElementChild.focus();
  addFolders([image]);
  update();
}

async function load({ quiet = true } = {}) {
  const before = [...grid.children]; // Keep images that are stored meanwhile.
  cursor = null;
  unsafe = 0;
  repeat = load;
  await loadPage({ quiet }, (images) => {
    for (const card of before) if (card.dataset.key && !isDeleting(card.dataset.key)) card.remove();
    append(images);
  });
}

async function loadMore() {
  const last = grid.lastElementChild;
  repeat = loadMore;
  await loadPage({}, append);
  (last ? last.nextElementSibling : grid.firstElementChild)?.firstElementChild.focus();
}

async function loadPage(options, show) {
  const request = (latest += 1);
  showNote("Loading…");
  grid.setAttribute("aria-busy", "true");
  try {
    let images = [];
    // A page may be empty, since the server omits objects that are not images.
    for (let left = MAX_EMPTY_PAGES; left && !images.length; left = cursor ? left - 1 : 0) {
      const result = await call("GET", `api/images?${query({ limit: PAGE_SIZE, details: true })}`, options);
      if (request !== latest) return;
      images = result.images.map(withAbsoluteUrls).filter(Boolean);
      cursor = result.next_cursor;
      unsafe += result.unsafe_keys;
    }
    locked = false;
    show(images);
    showNote(unsafe ? `${unsafe} not shown: their keys can't be used in a URL.` : "");
  } catch (failure) {
    if (request !== latest) return;
    locked = failure.needsKey;
    showNote(locked ? `The stored images can't be listed. ${failure.message}` : failure.message, true);
  } finally {
    if (request === latest) grid.removeAttribute("aria-busy");
  }
}

function query(options) {
  return new URLSearchParams({ ...options, prefix: prefix(), ...(cursor && { cursor }) });
}

/** Return the filter as a key prefix: "users/7/" for "/users/7", so it does not match "users/77/". */
function prefix() {
  const name = folder.value.trim().replace(/^\/+|\/+$/g, "");
  return name && `${name}/`;
}

function append(images) {
  addFolders(images);
  const fresh = images.filter(({ key }) => !findCard(key) && !isDeleting(key));
  grid.append(...fresh.map((image) => makeCard({ ...ownImages.get(image.key), ...image })));
}

function findCard(key) {
  return [...grid.children].find((card) => card.dataset.key === key);
}

function addFolders(images) {
  for (const { key } of images) {
    const name = folderOf(key);
    if (!name || folders.has(name)) continue;
    folders.add(name);
    find("folders").append(new Option(name));
  }
}

function showNote(text, isError = false) {
  note.textContent = text;
  note.classList.toggle("error", isError);
  update();
}

function update() {
  const filter = prefix();
  // Running and failed jobs are in no folder.
  const bare = !grid.querySelector(`li${filter && "[data-key]"}:not([hidden])`) && !note.textContent && !cursor;
  empty.hidden = !bare || Boolean(filter);
  none.hidden = !bare || !filter;
  const failed = note.classList.contains("error");
  showButton(failed ? (locked ? unlock : again) : cursor && more);
}

/** Show only `wanted` below the grid. If a focused button is hidden, focus `wanted` or the heading. */
function showButton(wanted) {
  if (wanted) wanted.hidden = false;
  for (const button of [again, unlock, more]) {
    if (button === wanted) continue;
    if (button === document.activeElement) (wanted || find("library-title")).focus({ preventScroll: true });
    button.hidden = true;
  }
}

let timer = 0;
folder.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(load, TYPING_PAUSE_MS);
});
find("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(timer);
  load();
});
find("all").addEventListener("click", () => {
  folder.value = "";
  folder.focus();
  load();
});
more.addEventListener("click", loadMore);
again.addEventListener("click", () => repeat());
unlock.addEventListener("click", () => repeat({ quiet: false }));
addEventListener("newkey", () => locked && repeat());
addEventListener("gridchange", update);
load();
