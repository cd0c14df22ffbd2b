// Files that are chosen, dropped or pasted.

import { Failure, call, orCancelled } from "./api.js";
import { size } from "./format.js";
import { startJob } from "./job.js";
import { storeApart } from "./remove.js";

const AT_ONCE = 3;
const AT_MOST = 24;
const ANSWER_SECONDS = 60;

const [input, drop, error] = ["files", "drop", "files-error"].map((id) => document.getElementById(id));
const maxBytes = Number(drop.dataset.maxBytes) || Infinity;

const waiting = [];
let active = 0;

/** Upload `files`, a few at a time, each in its own card, the first one first. */
function take(files) {
  error.textContent = files.length > AT_MOST ? `Only the first ${AT_MOST} images were taken.` : "";
  for (const file of [...files].slice(0, AT_MOST).reverse()) {
    startJob({ label: file.name, file, home: input, work: (controls) => send(file, controls) });
  }
}

async function send(file, { show, ...options }) {
  show("Waiting", 0);
  await turn(options.signal);
  try {
    await check(file);
    const body = new FormData();
    body.append("image", file);
    const onSent = (part) => show(...sent(part, file.size));
    const post = () => call("POST", "api/images", { ...options, body, onSent, seconds: ANSWER_SECONDS });
    return await storeApart(post, options.signal);
  } finally {
    active -= 1;
    waiting.shift()?.();
  }
}

/** Resolves when fewer than AT_ONCE uploads are under way; whom `signal` cancels leaves the queue. */
async function turn(signal) {
  if (active >= AT_ONCE) {
    let go;
    const called = new Promise((resolve) => waiting.push((go = resolve)));
    await orCancelled(called, signal).catch((failure) => {
      waiting.splice(waiting.indexOf(go), 1);
      throw failure;
    });
  }
  active += 1;
}

/** What can be known without the server, said before anything is sent. */
async function check(file) {
  if (file.type && !file.type.startsWith("image/")) throw new Failure("This is not an image. Choose a picture file.");
  if (file.size > maxBytes) {
    let digits = 0;
    const told = (bytes) => size(bytes, digits);
    while (told(file.size) === told(maxBytes)) digits += 1;
    throw new Failure(`This file has ${told(file.size)}; the server takes up to ${told(maxBytes)}.`);
  }
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Failure("This can't be read. If it is a folder, choose the images in it.");
  }
}

function sent(part, bytes) {
  return part < 1 ? [`${Math.round(part * 100)} % of ${size(bytes)}`, part] : ["Storing…"];
}

function hasFiles(event) {
  return event.dataTransfer?.types.includes("Files");
}

input.addEventListener("change", () => {
  take(input.files);
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
  take(event.dataTransfer.files);
});
addEventListener("paste", (event) => {
  const { files, types } = event.clipboardData;
  // Office programs put a picture of copied text next to the text: in a field the text is meant.
  const meansText = event.target.matches("textarea, input") && types.includes("text/plain");
  if (files.length && !meansText) take(files);
});
