// Uploads of files that are chosen, dropped or pasted.

import { Failure, call, cancellable } from "./api.js";
import { formatBytes } from "./format.js";
import { startJob } from "./job.js";
import { storeAlone } from "./remove.js";

const MAX_PARALLEL = 3;
const MAX_FILES = 24;
const TIMEOUT_SECONDS = 60;

const [input, drop, error] = ["files", "drop", "files-error"].map((id) => document.getElementById(id));
const maxBytes = Number(drop.dataset.maxBytes) || Infinity;

const waiting = [];
let active = 0;

function addFiles(files) {
  error.textContent = files.length > MAX_FILES ? `Only the first ${MAX_FILES} images were added.` : "";
  for (const file of [...files].slice(0, MAX_FILES).reverse()) {
    startJob({ label: file.name, file, focusTarget: input, run: (controls) => upload(file, controls) });
  }
}

async function upload(file, { show, ...options }) {
  show("Waiting", 0);
  await waitForSlot(options.signal);
  try {
    await check(file);
    const body = new FormData();
    body.append("image", file);
    const onProgress = (part) => show(...progress(part, file.size));
    const post = () => call("POST", "api/images", { ...options, body, onProgress, seconds: TIMEOUT_SECONDS });
    return await storeAlone(post, options.signal);
  } finally {
    active -= 1;
    waiting.shift()?.();
  }
}

/** Wait until fewer than MAX_PARALLEL uploads run. If `signal` cancels, leave the queue. */
async function waitForSlot(signal) {
  if (active >= MAX_PARALLEL) {
    let start;
    const slot = new Promise((resolve) => waiting.push((start = resolve)));
    await cancellable(slot, signal).catch((failure) => {
      waiting.splice(waiting.indexOf(start), 1);
      throw failure;
    });
  }
  active += 1;
}

/** Throw a Failure for problems that the browser can detect before anything is sent. */
async function check(file) {
  if (file.type && !file.type.startsWith("image/")) throw new Failure("This is not an image. Choose an image file.");
  if (file.size > maxBytes) {
    let digits = 0;
    const format = (bytes) => formatBytes(bytes, digits);
    while (format(file.size) === format(maxBytes)) digits += 1;
    throw new Failure(`This file is ${format(file.size)}. The limit is ${format(maxBytes)}.`);
  }
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Failure("This file can't be read. If it is a folder, choose the images in it.");
  }
}

function progress(part, bytes) {
  return part < 1 ? [`${Math.round(part * 100)} % of ${formatBytes(bytes)}`, part] : ["Storing…"];
}

function hasFiles(event) {
  return event.dataTransfer?.types.includes("Files");
}

input.addEventListener("change", () => {
  addFiles(input.files);
  input.value = "";
});
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  drop.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  drop.classList.remove("over");
  addFiles(event.dataTransfer.files);
});
addEventListener("paste", (event) => {
  const { files, types } = event.clipboardData;
  // Office programs copy text together with a picture of it. In a field, paste the text.
  const isText = event.target.matches("textarea, input") && types.includes("text/plain");
  if (files.length && !isText) addFiles(files);
});
