// Work under way: a card with preview and progress, which becomes the image's or says what went wrong.

import { Failure, seenFromHere } from "./api.js";
import { addFirst, settle } from "./library.js";
import { announce } from "./status.js";

const template = document.getElementById("job");
let running = 0;

/**
 * Run `work({ signal, show, since })`, which resolves to the server's answer, in a new card.
 *
 * `show(text, part)` tells how far it is; without `part` the bar is indeterminate; `since` is when this try
 * began. `failed(failure)`, where given, says what went wrong instead of the card, which goes. `home` gets the
 * focus when a focused card goes.
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
    const answer = await job.work({ signal: abort.signal, show: card.show, since: performance.now() });
    const image = seenFromHere(answer);
    if (!image) throw new Failure("The server's answer holds no image address.");
    settle(card.element, { ...image, title: job.label });
    announce(`${job.label}: ${answer.message}`);
    dispatchEvent(new Event("imagestored"));
  } catch (failure) {
    if (abort.signal.aborted || job.failed) card.leave();
    else card.fail(failure);
    if (!abort.signal.aborted) job.failed?.(failure);
  } finally {
    running -= 1;
  }
}

function makeCard({ label, file, home }) {
  const element = template.content.firstElementChild.cloneNode(true);
  const find = (selector) => element.querySelector(selector);
  const button = (name) => find(`[data-do=${name}]`);
  const bar = find("progress");
  let stop = null;
  find(".name").textContent = label;
  bar.setAttribute("aria-label", label);
  if (file) preview(find("img"), file);

  function setFailed(failed, message, mayPass) {
    if (failed && document.activeElement === button("stop")) element.focus();
    element.classList.toggle("failed", failed);
    bar.hidden = failed;
    find(".state").textContent = "";
    find(".error").textContent = message;
    button("retry").hidden = !mayPass;
    button("stop").textContent = failed ? "Dismiss" : "Cancel";
  }
  function leave() {
    if (element.contains(document.activeElement)) home.focus();
    element.remove();
    dispatchEvent(new Event("imagegone"));
  }
  button("stop").addEventListener("click", () => (stop ? stop() : leave()));
  return {
    element,
    button,
    leave,
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
    fail({ message, mayPass }) {
      stop = null;
      setFailed(true, message, mayPass);
    },
  };
}

/** A small picture of the chosen file; a file that is no picture just has none. */
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
