// Deletes images. The card is hidden at once, and the image is deleted later unless the user undoes it.

import { call, cancellable, deleteOnUnload, imagePath } from "./api.js";
import { displayName } from "./format.js";
import { announce } from "./status.js";

const UNDO_MS = 20_000;
const CHECK_MS = 500;

const toasts = document.getElementById("toasts");
const template = document.getElementById("toast");
const undoable = new Map(); // The timer and the toast of deletions that can be undone, by key.
const deleting = new Set();
const requests = new Set();
let storing = 0;

export function isDeleting(key) {
  return deleting.has(key);
}

/** Don't delete the image under `key`, because it was stored again. */
export function keep(key) {
  if (undoable.has(key)) closeToast(key);
  deleting.delete(key);
}

/** Store an image by calling `store` while no DELETE is running. It could be for the same key. */
export async function storeAlone(store, signal) {
  storing += 1;
  try {
    await cancellable(Promise.all(requests), signal);
    return await store();
  } finally {
    storing -= 1;
  }
}

/** Hide `card`, and delete its image when the time for undoing is over. */
export function deleteWithUndo(image, card) {
  const toast = template.content.firstElementChild.cloneNode(true);
  const undo = toast.querySelector("button");
  const { key } = image;
  toast.querySelector("span").textContent = `Deleted “${displayName(image)}”.`;
  toasts.append(toast);
  hide(card, key);
  undo.focus();
  undo.addEventListener("click", () => {
    closeToast(key);
    show(card, key);
    card.firstElementChild.focus();
    announce("Not deleted.");
  });
  let until = Date.now() + UNDO_MS;
  const check = () => {
    // The time starts again while the toast is hovered or focused (WCAG 2.2.1).
    if (toast.matches(":hover, :has(:focus-visible)")) until = Date.now() + UNDO_MS;
    else if (Date.now() >= until && !storing) finish(image, card);
  };
  undoable.set(key, { toast, timer: setInterval(check, CHECK_MS) });
  announce(`Deleted “${displayName(image)}”. You can undo this for ${UNDO_MS / 1000} seconds.`);
}

function closeToast(key) {
  const { timer, toast } = undoable.get(key);
  clearInterval(timer);
  undoable.delete(key);
  if (toast.contains(document.activeElement)) document.getElementById("library-title").focus();
  toast.remove();
}

function finish(image, card) {
  closeToast(image.key);
  const request = sendDelete(image, card).finally(() => requests.delete(request));
  requests.add(request);
}

async function sendDelete({ key }, card) {
  try {
    await call("DELETE", imagePath(key));
    card.remove();
  } catch (failure) {
    if (failure.code === "not_found") card.remove();
    else showError(card, key, failure.message);
  }
  deleting.delete(key);
  gridChanged();
}

function showError(card, key, message) {
  show(card, key);
  const error = card.querySelector(".error");
  error.textContent = `Not deleted: ${message}`;
  error.hidden = false;
}

function hide(card, key) {
  deleting.add(key);
  card.hidden = true;
  card.querySelector(".error").hidden = true;
  gridChanged();
}

function show(card, key) {
  deleting.delete(key);
  card.hidden = false;
  gridChanged();
}

function gridChanged() {
  dispatchEvent(new Event("gridchange"));
}

addEventListener("pagehide", () => {
  for (const key of [...undoable.keys()]) {
    closeToast(key);
    deleteOnUnload(imagePath(key));
  }
});
