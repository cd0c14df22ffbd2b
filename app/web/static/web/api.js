// Requests to the server. They resolve to the JSON response, or reject with a Failure that people can read.

import { forgetKey, promptForKey, storedKey } from "./key.js";

const STALLED_SECONDS = 60;
const NO_KEY = "This needs an API key. Ask the operator of this server for one.";
const KEY_CODES = new Set(["key_required", "key_refused", "scope_missing"]);

export class Failure extends Error {
  constructor(message, code = "", status = 0) {
    super(message);
    this.code = code;
    this.status = status;
  }

  get needsKey() {
    return KEY_CODES.has(this.code);
  }

  get canRetry() {
    return this.needsKey || this.code === "unreachable" || this.status === 429 || this.status >= 500;
  }
}

/**
 * Send a request. If the server needs an API key or a different one, ask the user for it and try again.
 *
 * `options`: `body`; `idempotencyKey`; `onProgress`, called with the sent share, 0 to 1; `signal`, to cancel;
 * `seconds`, the response timeout; `quiet`, to never ask for a key; `since`, when the user started the action.
 */
export async function call(method, path, options = {}) {
  for (let key = storedKey(); ; ) {
    try {
      return await send(method, path, options, key);
    } catch (failure) {
      const required = failure.code === "key_required";
      // The server's message addresses programs.
      if (required && !key) failure.message = NO_KEY;
      // The server ignored the key that was sent, so it would ignore any key.
      if (!failure.needsKey || options.quiet || (required && key)) throw failure;
      key = await anotherKey(key, failure, options);
      if (!key) throw failure;
    }
  }
}

/** Return why an image does not load. If it is on another server, this is a guess. */
export async function loadError(url) {
  if (new URL(url).origin !== location.origin) return "The bucket may not allow public reads.";
  const { status, message } = await call("GET", url, { quiet: true }).catch((failure) => failure);
  return status === 200 ? "Please reload the page." : message;
}

/** Send a DELETE that outlives this page. */
export function deleteOnUnload(path) {
  const key = storedKey();
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  fetch(resolve(path), { method: "DELETE", headers, keepalive: true }).catch(() => {});
}

/** Resolve like `promise`, or reject as soon as `signal` cancels. */
export function cancellable(promise, signal) {
  return new Promise((done, reject) => {
    if (signal.aborted) throw cancelled();
    signal.addEventListener("abort", () => reject(cancelled()), { once: true });
    promise.then(done, reject);
  });
}

export function imagePath(key) {
  return `api/images/${key.split("/").map(encodeURIComponent).join("/")}`;
}

/**
 * Return the image with absolute URLs, and with a `srcset` if its width is known. A server that does not know
 * its name sends paths. Return null if the URL is invalid or not http(s), so that no other scheme gets into a
 * link.
 */
export function withAbsoluteUrls(image) {
  const { image_url: url, variants, width } = image;
  const href = typeof url === "string" && URL.canParse(url, document.baseURI) ? resolve(url).href : "";
  if (!/^https?:/.test(href)) return null;
  const smaller = width && variants?.srcset?.replace(/\S+(?= \d+w)/g, (path) => resolve(path).href);
  return { ...image, image_url: href, srcset: smaller && `${smaller}, ${href} ${width}w` };
}

/**
 * Return a different key than `used`, which the user enters now or entered meanwhile for another request.
 * A key that lacks the scope is kept until then, since it works for other calls.
 */
async function anotherKey(used, { code, message }, { signal, since }) {
  if (code === "key_refused") forgetKey(used);
  const stored = storedKey();
  const key = stored && stored !== used ? stored : await promptForKey(message, since);
  if (signal?.aborted) throw cancelled();
  return key;
}

/** Send one request. fetch() could not report upload progress. */
function send(method, path, { body, idempotencyKey, onProgress, signal, seconds = 30 }, key) {
  return new Promise((done, reject) => {
    if (signal?.aborted) throw cancelled();
    const request = new XMLHttpRequest();
    let timer = 0;
    const fail = (failure) => {
      clearTimeout(timer);
      reject(failure);
    };
    const setTimer = (limit) => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        fail(new Failure(`No response for ${limit} seconds. Please try again.`, "unreachable"));
        request.abort();
      }, limit * 1000);
    };
    request.open(method, resolve(path));
    request.setRequestHeader("Accept", "application/json");
    if (typeof body === "string") request.setRequestHeader("Content-Type", "application/json");
    if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
    if (idempotencyKey) request.setRequestHeader("Idempotency-Key", `"${idempotencyKey}"`);
    if (onProgress) {
      request.upload.onprogress = ({ loaded, total }) => {
        setTimer(STALLED_SECONDS);
        onProgress(loaded / total);
      };
      request.upload.onload = () => setTimer(seconds);
    }
    request.onload = () => {
      clearTimeout(timer);
      try {
        done(parse(request.status, request.responseText));
      } catch (failure) {
        reject(failure);
      }
    };
    request.onerror = () => fail(new Failure(connectionError(), "unreachable"));
    request.onabort = () => fail(cancelled());
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    setTimer(onProgress ? STALLED_SECONDS : seconds);
    request.send(body);
  });
}

function resolve(path) {
  return new URL(path, document.baseURI);
}

/** Return the JSON in `text`. Throws unless it reports success. */
function parse(status, text) {
  let result = null;
  try {
    result = JSON.parse(text);
  } catch {
    // This is the error page of a proxy. Only its status is useful.
  }
  if (result?.success === true) return result;
  throw new Failure(result?.message || statusMessage(status), result?.code, status);
}

function statusMessage(status) {
  if (status === 413) return "The server refused this because it is too large.";
  if (status === 429) return "Too many requests. Please wait a moment and try again.";
  return `The server answered with status ${status} and no explanation. Please try again.`;
}

function connectionError() {
  return navigator.onLine
    ? "The connection to the server failed before it answered. Please try again."
    : "You are offline. Please try again when the network is back.";
}

function cancelled() {
  return new Failure("Cancelled.", "cancelled");
}
