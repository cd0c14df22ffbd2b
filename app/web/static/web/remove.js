// Deleting: the card goes at once, the image some seconds later, unless the user takes it back.

import { call, deleteOnTheWayOut, imagePath, orCancelled } from "./api.js";
import { nameOf } from "./format.js";
import { announce } from "./status.js";

const GRACE_MS = 20_000;
const LOOK_MS = 500;

const toasts = document.getElementById("toasts");
const template = document.getElementById("toast");
const waiting = new Map(); // The clock and the toast of what can still be undone, by key.
const going = new Set();
const underWay = new Set();
let storing = 0;

/** Whether the image under `key` is being deleted. */
export function isGoing(key) {
  return going.has(key);
}

/** Don't delete the image under `key`: it was stored again. */
export function keep(key) {
  if (waiting.has(key)) stopWaiting(key);
  going.delete(key);
}

/**
 * Run `work`, which stores an image, once no DELETE is under way, and let none begin until it is done: which
 * key it stores is known from its answer alone.
 */
export async function storeApart(work, signal) {
  storing += 1;
  try {
    await orCancelled(Promise.all(underWay), signal);
    return await work();
  } finally {
    storing -= 1;
  }
}

/** Hide `card` and delete its image when the time to undo has passed. */
export function removeSoon(image, card) {
  const toast = template.content.firstElementChild.cloneNode(true);
  const undo = toast.querySelector("button");
  const { key } = image;
  toast.querySelector("span").textContent = `Deleted “${nameOf(image)}”.`;
  toasts.append(toast);
  hide(card, key);
  undo.focus();
  undo.addEventListener("click", () => {
    stopWaiting(key);
    show(card, key);
    card.firstElementChild.focus();
    announce("Not deleted.");
  });
  let until = Date.now() + GRACE_MS;
  const look = () => {
    // Who points at the toast, or is on it by keyboard, has all the time there is, and as much again (WCAG 2.2.1).
    if (toast.matches(":hover, :has(:focus-visible)")) until = Date.now() + GRACE_MS;
    else if (Date.now() >= until && !storing) finish(image, card);
  };
  waiting.set(key, { toast, clock: setInterval(look, LOOK_MS) });
  announce(`Deleted “${nameOf(image)}”. Undo is possible for ${GRACE_MS / 1000} seconds.`);
}

function stopWaiting(key) {
  const { clock, toast } = waiting.get(key);
  clearInterval(clock);
  waiting.delete(key);
  if (toast.contains(document.activeElement)) document.getElementById("library-title").focus();
  toast.remove();
}

function finish(image, card) {
  stopWaiting(image.key);
  const done = erase(image, card).finally(() => underWay.delete(done));
  underWay.add(done);
}

async function erase({ key }, card) {
  try {
    await call("DELETE", imagePath(key));
    card.remove();
  } catch (failure) {
    if (failure.code === "not_found") card.remove();
    else complain(card, key, failure.message);
  }
  going.delete(key);
  dispatchEvent(new Event("imagegone"));
}

function complain(card, key, message) {
  show(card, key);
  const error = card.querySelector(".error");
  error.textContent = `Not deleted: ${message}`;
  error.hidden = false;
}

function hide(card, key) {
  going.add(key);
  card.hidden = true;
  card.querySelector(".error").hidden = true;
  dispatchEvent(new Event("imagegone"));
}

function show(card, key) {
  going.delete(key);
  card.hidden = false;
  dispatchEvent(new Event("imagegone"));
}

addEventListener("pagehide", () => {
  for (const key of [...waiting.keys()]) {
    stopWaiting(key);
    deleteOnTheWayOut(imagePath(key));
  }
});
