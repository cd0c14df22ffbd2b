// Requests to the server: an answer, or a Failure that carries a sentence for people.

import { askForKey, forgetKey, knownKey } from "./key.js";

const DEADLINE_MS = 180_000;
const KEY_CODES = new Set(["key_required", "key_refused", "scope_missing"]);

export class Failure extends Error {
  constructor(message, code = "") {
    super(message);
    this.code = code;
  }
}

/** Generate an image; resolves to the server's answer. */
export function generate(prompt, size, options) {
  return withKey("api/generate-image", JSON.stringify({ prompt, size }), options);
}

/** Upload one file; `options.onSent` is told the part sent, 0 to 1. */
export function upload(file, options) {
  const form = new FormData();
  form.append("image", file);
  return withKey("api/images", form, options);
}

/** Post; where the server wants a key, or another one, ask for it and try once more. */
async function withKey(path, body, options) {
  const used = knownKey();
  try {
    return await post(path, body, used, options);
  } catch (failure) {
    if (!KEY_CODES.has(failure.code)) throw failure;
    const key = await anotherKey(used, failure.message, options);
    if (!key) throw failure;
    return await lastTry(path, body, key, options);
  }
}

/** A key other than `used`: one entered for another request meanwhile, or what the user types now. */
async function anotherKey(used, reason, { signal, since }) {
  forgetKey(used);
  const key = knownKey() || (await askForKey(reason, since));
  if (signal.aborted) throw cancelled();
  return key;
}

async function lastTry(path, body, key, options) {
  try {
    return await post(path, body, key, options);
  } catch (failure) {
    if (KEY_CODES.has(failure.code)) forgetKey(key);
    throw failure;
  }
}

/** One POST. XMLHttpRequest and not fetch(), which says nothing about upload progress. */
function post(path, body, key, { onSent, signal }) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) throw cancelled();
    const request = new XMLHttpRequest();
    const fail = (message, code) => () => reject(new Failure(message, code));
    request.open("POST", new URL(path, document.baseURI));
    request.timeout = DEADLINE_MS;
    request.setRequestHeader("Accept", "application/json");
    if (typeof body === "string") request.setRequestHeader("Content-Type", "application/json");
    if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
    if (onSent) request.upload.onprogress = (event) => onSent(event.loaded / event.total);
    request.onload = () => {
      try {
        resolve(read(request.status, request.responseText));
      } catch (failure) {
        reject(failure);
      }
    };
    request.onerror = fail(lostConnection(), "unreachable");
    request.ontimeout = fail("No answer after 3 minutes, so this was given up. Please try again.", "timeout");
    request.onabort = fail("Cancelled.", "cancelled");
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(body);
  });
}

/** The answer in `text`; throws a Failure for everything that is not a stored image. */
function read(status, text) {
  let answer = null;
  try {
    answer = JSON.parse(text);
  } catch {
    // A proxy's own page: the status says the most about it.
  }
  const url = answer?.success === true ? absolute(answer.image_url) : null;
  if (isWebAddress(url)) return { ...answer, image_url: url };
  if (answer?.success === true) throw new Failure("The server's answer holds no image address.");
  throw new Failure(answer?.message || withoutReason(status), answer?.code);
}

/** `url` as seen from this page: a server that does not know its own name answers with a path. */
function absolute(url) {
  return typeof url === "string" && URL.canParse(url, document.baseURI) ? new URL(url, document.baseURI).href : null;
}

/** Whether `url` may go into a link: nothing but http and https ever does. */
export function isWebAddress(url) {
  return typeof url === "string" && /^https?:\/\//i.test(url);
}

function withoutReason(status) {
  if (status === 413) return "The server refused this because it is too large.";
  if (status === 429) return "Too many requests. Please wait a moment and try again.";
  return `The server answered with status ${status} and gave no reason. Please try again.`;
}

function lostConnection() {
  return navigator.onLine
    ? "The connection to the server failed before it answered. Please try again."
    : "You are offline. Please try again when the network is back.";
}

function cancelled() {
  return new Failure("Cancelled.", "cancelled");
}
