// The card of a running upload or generation. The image or an error replaces the preview and the progress.

import { Failure, withAbsoluteUrls } from "./api.js";
import { addFirst, replace } from "./library.js";
import { announce } from "./status.js";

const template = document.getElementById("job");
let running = 0;

/**
 * Call `run({ signal, show, since })`, which resolves to the server's JSON, and show it as a new card.
 *
 * `show(text, part)` reports progress; without `part` the bar is indeterminate. `since` is when this attempt
 * started. If `onFailure(failure)` is given, it reports an error, and the card is removed.
 * `focusTarget` gets the focus when a focused card is removed.
 */
export function startJob(job) {
  const card = makeCard(job);
  addFirst(card.element);
  card.button("retry").addEventListener("click", () => attempt(card, job));
  return attempt(card, job);
}

async function attempt(card, job) {
  const abort = new AbortController();
  card.begin(() => abort.abort());
  running += 1;
  try {
    const result = await job.run({ signal: abort.signal, show: card.show, since: performance.now() });
    const image = withAbsoluteUrls(result);
    if (!image) throw new Failure("The server's response has no image URL.");
    replace(card.element, { ...image, title: job.label });
    announce(`${job.label}: ${result.message}`);
    dispatchEvent(new Event("imagestored"));
  } catch (failure) {
    if (abort.signal.aborted || job.onFailure) card.remove();
    else card.fail(failure);
    if (!abort.signal.aborted) job.onFailure?.(failure);
  } finally {
    running -= 1;
  }
}

function makeCard({ label, file, focusTarget }) {
  const element = template.content.firstElementChild.cloneNode(true);
  const find = (selector) => element.querySelector(selector);
  const button = (name) => find(`[data-do=${name}]`);
  const bar = find("progress");
  let stop = null;
  find(".name").textContent = label;
  bar.setAttribute("aria-label", label);
  if (file) preview(find("img"), file);

  function setFailed(failed, message, canRetry) {
    if (failed && document.activeElement === button("stop")) element.focus();
    element.classList.toggle("failed", failed);
    bar.hidden = failed;
    find(".state").textContent = "";
    find(".error").textContent = message;
    button("retry").hidden = !canRetry;
    button("stop").textContent = failed ? "Dismiss" : "Cancel";
  }
  function remove() {
    if (element.contains(document.activeElement)) focusTarget.focus();
    element.remove();
    dispatchEvent(new Event("gridchange"));
  }
  button("stop").addEventListener("click", () => (stop ? stop() : remove()));
  return {
    element,
    button,
    remove,
    show(text, part) {
      find(".state").textContent = text;
      if (part === undefined) bar.removeAttribute("value");
      else bar.value = part;
    },
    begin(cancel) {
      if (document.activeElement === button("retry")) button("stop").focus();
      stop = cancel;
      setFailed(false, "", false);
    },
    fail({ message, canRetry }) {
      stop = null;
      setFailed(true, message, canRetry);
    },
  };
}

function preview(image, file) {
  const url = URL.createObjectURL(file);
  const release = () => URL.revokeObjectURL(url);
  image.onload = () => {
    image.hidden = false;
    release();
  };
  image.onerror = release;
  image.src = url;
}

addEventListener("beforeunload", (event) => {
  if (running) event.preventDefault();
});
