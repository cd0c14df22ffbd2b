// Work under way: a row with progress, Cancel and, where it failed, the reason and Try again.

const template = document.getElementById("job");
let running = 0;

/**
 * Run `work({ signal, show, since })` in a new row of `list` until it succeeds or the user dismisses
 * it. `show(text, part)` tells how far it is; without `part` the bar is indeterminate; `since` is when
 * this try began. `done(result)` takes the result, `settled()` is called after each try, `home` gets
 * the focus when a focused row goes.
 */
export function startJob(list, job) {
  const row = makeRow(job);
  list.append(row.element);
  row.button("retry").addEventListener("click", () => attempt(row, job));
  attempt(row, job);
}

async function attempt(row, job) {
  const abort = new AbortController();
  row.stop = () => abort.abort();
  row.begin();
  running += 1;
  try {
    job.done(await job.work({ signal: abort.signal, show: row.show, since: performance.now() }));
    row.leave(job.home);
  } catch (failure) {
    if (abort.signal.aborted) row.leave(job.home);
    else row.fail(failure.message);
  } finally {
    running -= 1;
    job.settled?.();
  }
}

function makeRow({ label, file, home }) {
  const element = template.content.firstElementChild.cloneNode(true);
  const find = (selector) => element.querySelector(selector);
  const button = (name) => find(`[data-do=${name}]`);
  const bar = find("progress");
  const row = { element, button, stop: null };
  find(".label").textContent = label;
  bar.setAttribute("aria-label", label);
  if (file) preview(find("img"), file);

  row.show = (text, part) => {
    find(".state").textContent = text;
    if (part === undefined) bar.removeAttribute("value");
    else bar.value = part;
  };
  row.begin = () => {
    if (document.activeElement === button("retry")) button("stop").focus();
    setFailed(false, "");
  };
  row.fail = (message) => {
    row.stop = null;
    setFailed(true, message);
  };
  row.leave = (next) => {
    if (element.contains(document.activeElement)) next.focus();
    element.remove();
  };
  button("stop").addEventListener("click", () => (row.stop ? row.stop() : row.leave(home)));

  function setFailed(failed, message) {
    element.classList.toggle("failed", failed);
    bar.hidden = failed;
    find(".state").textContent = "";
    find(".error").textContent = message;
    button("retry").hidden = !failed;
    button("stop").textContent = failed ? "Dismiss" : "Cancel";
  }
  return row;
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
