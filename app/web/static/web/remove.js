// Deleting: the card goes at once, the image some seconds later, unless the user takes it back.

import { call, deleteOnTheWayOut, imagePath } from "./api.js";
import { nameOf } from "./format.js";
import { announce } from "./status.js";

const GRACE_MS = 6000;

const toasts = document.getElementById("toasts");
const template = document.getElementById("toast");
const waiting = new Map();
const going = new Set();

/** Whether the image under `key` is being deleted. */
export function isGoing(key) {
  return going.has(key);
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
    clearTimeout(waiting.get(key));
    waiting.delete(key);
    toast.remove();
    show(card, key);
    card.firstElementChild.focus();
    announce("Not deleted.");
  });
  waiting.set(key, setTimeout(() => finish(image, card, toast), GRACE_MS));
  announce(`Deleted “${nameOf(image)}”. Undo is possible for ${GRACE_MS / 1000} seconds.`);
}

async function finish(image, card, toast) {
  const { key } = image;
  waiting.delete(key);
  if (toast.contains(document.activeElement)) document.getElementById("library-title").focus();
  toast.remove();
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
  for (const [key, timer] of waiting) {
    clearTimeout(timer);
    deleteOnTheWayOut(imagePath(key));
  }
  waiting.clear();
});
