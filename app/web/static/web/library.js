// The grid: what is under way in this tab, and what the server has stored, a page at a time.

import { call, seenFromHere } from "./api.js";
import { makeCard } from "./card.js";
import { folderOf } from "./format.js";
import { isGoing, keep } from "./remove.js";

const PAGE = 24;
const PAUSE_MS = 250;
const EMPTY_PAGES = 5;

const find = (id) => document.getElementById(id);
const [grid, empty, none, note, more, again, unlock] =
  ["grid", "empty", "none", "library-note", "more", "again", "unlock"].map(find);
const folder = find("folder");
const folders = new Set();
const made = new Map(); // What this tab knows of its own images, by key.

let cursor = null;
let unsafe = 0;
let latest = 0; // Only the newest request's answer counts.
let locked = false;
let repeat = load; // What was asked for last.

/** Put `element` at the front. */
export function addFirst(element) {
  grid.prepend(element);
  tidy();
  element.scrollIntoView({ block: "nearest" });
}

/** Show a stored image in the place of `element`, also if it is in the grid already. */
export function settle(element, image) {
  made.set(image.key, image);
  keep(image.key);
  shown(image.key)?.remove();
  const card = makeCard(image);
  const focused = element.contains(document.activeElement);
  element.replaceWith(card);
  if (focused) card.firstElementChild.focus();
  learn([image]);
  tidy();
}

async function load({ quiet = true } = {}) {
  const before = [...grid.children]; // What is stored meanwhile stays.
  cursor = null;
  unsafe = 0;
  repeat = load;
  await page({ quiet }, (images) => {
    for (const card of before) if (card.dataset.key && !isGoing(card.dataset.key)) card.remove();
    append(images);
  });
}

async function loadMore() {
  const last = grid.lastElementChild;
  repeat = loadMore;
  await page({}, append);
  (last ? last.nextElementSibling : grid.firstElementChild)?.firstElementChild.focus();
}

async function page(options, take) {
  const asked = (latest += 1);
  say("Loading…");
  grid.setAttribute("aria-busy", "true");
  try {
    let images = [];
    // A page may be empty: the server leaves out what is not an image.
    for (let left = EMPTY_PAGES; left && !images.length; left = cursor ? left - 1 : 0) {
      const answer = await call("GET", `api/images?${query({ limit: PAGE })}`, options);
      if (asked !== latest) return;
      images = answer.images.map(seenFromHere).filter(Boolean);
      cursor = answer.next_cursor;
      unsafe += answer.unsafe_keys;
    }
    locked = false;
    take(images);
    say(unsafe ? `${unsafe} not shown: no URL can name them safely.` : "");
  } catch (failure) {
    if (asked !== latest) return;
    locked = failure.wantsKey;
    say(locked ? `The stored images can't be listed. ${failure.message}` : failure.message, true);
  } finally {
    if (asked === latest) grid.removeAttribute("aria-busy");
  }
}

function query(options) {
  const wanted = { ...options, prefix: wantedFolder(), ...(cursor && { cursor }) };
  return new URLSearchParams(wanted);
}

/** The filter as keys begin: "/users/7" as "users/7/", which "users/77/" is not in. */
function wantedFolder() {
  const name = folder.value.trim().replace(/^\/+|\/+$/g, "");
  return name && `${name}/`;
}

function append(images) {
  learn(images);
  const fresh = images.filter(({ key }) => !shown(key) && !isGoing(key));
  grid.append(...fresh.map((image) => makeCard({ ...made.get(image.key), ...image })));
}

function shown(key) {
  return [...grid.children].find((card) => card.dataset.key === key);
}

/** Offer the folders seen so far in the filter. */
function learn(images) {
  for (const { key } of images) {
    const name = folderOf(key);
    if (!name || folders.has(name)) continue;
    folders.add(name);
    find("folders").append(new Option(name));
  }
}

function say(text, isError = false) {
  note.textContent = text;
  note.classList.toggle("error", isError);
  tidy();
}

/** Let empty states and buttons follow. */
function tidy() {
  const wanted = wantedFolder();
  // What is under way or has failed is in no folder.
  const bare = !grid.querySelector(`li${wanted && "[data-key]"}:not([hidden])`) && !note.textContent && !cursor;
  empty.hidden = !bare || Boolean(wanted);
  none.hidden = !bare || !wanted;
  const failed = note.classList.contains("error");
  offer(failed ? (locked ? unlock : again) : cursor && more);
}

/** Show `wanted` alone of the buttons below the grid; a lost focus goes there, or to the heading. */
function offer(wanted) {
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
  timer = setTimeout(load, PAUSE_MS);
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
addEventListener("imagegone", tidy);
load();
