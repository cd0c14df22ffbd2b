// Requests to the server: an answer, or a Failure that carries a sentence for people.

import { askForKey, forgetKey, knownKey } from "./key.js";

const STALLED = 60;
const NO_KEY = "This needs an API key. Ask whoever runs this server for one.";
const KEY_CODES = new Set(["key_required", "key_refused", "scope_missing"]);

export class Failure extends Error {
  constructor(message, code = "", status = 0) {
    super(message);
    this.code = code;
    this.status = status;
  }

  get wantsKey() {
    return KEY_CODES.has(this.code);
  }

  /** Whether the same again may succeed: what the server found wrong in it stays wrong. */
  get mayPass() {
    return this.wantsKey || this.code === "unreachable" || this.status === 429 || this.status >= 500;
  }
}

/**
 * Call the server; where it wants a key, or another one, ask for it and try again.
 *
 * `options`: `body`; `once`, the request's Idempotency-Key; `onSent`, which is told the part sent, 0 to 1; `signal`, which cancels; `seconds`, the
 * time that the answer may take; `quiet`, not to ask for a key; `since`, when what the user began was begun.
 */
export async function call(method, path, options = {}) {
  for (let key = knownKey(); ; ) {
    try {
      return await send(method, path, options, key);
    } catch (failure) {
      const required = failure.code === "key_required";
      // The server says it to programs.
      if (required && !key) failure.message = NO_KEY;
      // A key that is not even looked at will not be when it is another one.
      if (!failure.wantsKey || options.quiet || (required && key)) throw failure;
      key = await anotherKey(key, failure, options);
      if (!key) throw failure;
    }
  }
}

/** Why the image at `url` does not load: what this server says of it, or a guess about another one. */
export async function whyNotLoaded(url) {
  if (new URL(url).origin !== location.origin) return "The bucket may not allow public reads.";
  const { status, message } = await call("GET", url, { quiet: true }).catch((failure) => failure);
  return status === 200 ? "Please load the page again." : message;
}

/** Delete although the page is going away: nobody is left to read the answer. */
export function deleteOnTheWayOut(path) {
  const key = knownKey();
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  fetch(address(path), { method: "DELETE", headers, keepalive: true }).catch(() => {});
}

/** What `promise` resolves to, unless `signal` cancels before. */
export function orCancelled(promise, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) throw cancelled();
    signal.addEventListener("abort", () => reject(cancelled()), { once: true });
    promise.then(resolve, reject);
  });
}

/** The path of the call that concerns the image under `key`. */
export function imagePath(key) {
  return `api/images/${key.split("/").map(encodeURIComponent).join("/")}`;
}

/**
 * The image with its address as seen from this page: a server that does not know its own name answers with a
 * path. Null where it is no address: nothing but http and https ever goes into a link.
 */
export function seenFromHere(image) {
  const { image_url: url } = image;
  const href = typeof url === "string" && URL.canParse(url, document.baseURI) ? address(url).href : "";
  return /^https?:/.test(href) ? { ...image, image_url: href } : null;
}

/**
 * A key other than `used`: one entered for another request meanwhile, or what the user types now. Until then a
 * key that is good for other calls stays.
 */
async function anotherKey(used, { code, message }, { signal, since }) {
  if (code === "key_refused") forgetKey(used);
  const known = knownKey();
  const key = known && known !== used ? known : await askForKey(message, since);
  if (signal?.aborted) throw cancelled();
  return key;
}

/** One request. XMLHttpRequest and not fetch(), which says nothing about upload progress. */
function send(method, path, { body, once, onSent, signal, seconds = 30 }, key) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) throw cancelled();
    const request = new XMLHttpRequest();
    let timer = 0;
    const fail = (failure) => {
      clearTimeout(timer);
      reject(failure);
    };
    const within = (limit) => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        fail(new Failure(`No answer for ${limit} seconds, so this was given up. Please try again.`, "unreachable"));
        request.abort();
      }, limit * 1000);
    };
    request.open(method, address(path));
    request.setRequestHeader("Accept", "application/json");
    if (typeof body === "string") request.setRequestHeader("Content-Type", "application/json");
    if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
    if (once) request.setRequestHeader("Idempotency-Key", `"${once}"`);
    if (onSent) {
      request.upload.onprogress = ({ loaded, total }) => {
        within(STALLED);
        onSent(loaded / total);
      };
      request.upload.onload = () => within(seconds);
    }
    request.onload = () => {
      clearTimeout(timer);
      try {
        resolve(read(request.status, request.responseText));
      } catch (failure) {
        reject(failure);
      }
    };
    request.onerror = () => fail(new Failure(lostConnection(), "unreachable"));
    request.onabort = () => fail(cancelled());
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    within(onSent ? STALLED : seconds);
    request.send(body);
  });
}

function address(path) {
  return new URL(path, document.baseURI);
}

/** The answer in `text`; throws a Failure for everything that is no success. */
function read(status, text) {
  let answer = null;
  try {
    answer = JSON.parse(text);
  } catch {
    // A proxy's own page: the status says the most about it.
  }
  if (answer?.success === true) return answer;
  throw new Failure(answer?.message || withoutReason(status), answer?.code, status);
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
