// The form that generates an image.

import { call } from "./api.js";
import { startJob } from "./job.js";
import { announce } from "./status.js";

const [form, prompt, size, button, error] =
  ["generate", "prompt", "size", "go", "prompt-error"].map((id) => document.getElementById(id));
let busy = false;
let pending = {}; // The body and idempotency key of the last request, until it gets a final response.

async function submit() {
  const text = prompt.value.trim();
  showError(text ? "" : "Describe the image in a few words.");
  if (!text) prompt.focus();
  // Only one at a time, so that pressing Enter twice does not pay for two images.
  if (!text || busy) return;
  setBusy(true);
  await startJob({
    label: text,
    focusTarget: prompt,
    run: (controls) => generate(text, controls),
    onFailure: (failure) => showError(failure.message),
  });
  setBusy(false);
}

async function generate(text, { show, ...options }) {
  announce("Drawing the image.");
  const started = Date.now();
  const tick = () => show(`Drawing… ${Math.floor((Date.now() - started) / 1000)} s`);
  tick();
  const timer = setInterval(tick, 1000);
  try {
    const body = JSON.stringify({ prompt: text, size: size.value });
    if (pending.body !== body) pending = { body, idempotencyKey: randomKey() };
    const seconds = Number(form.dataset.seconds);
    const result = await call("POST", "api/generate-image", { ...options, ...pending, seconds });
    pending = {};
    return result;
  } catch (failure) {
    // The server would repeat a refusal for the same key. 409 means that it is still generating.
    if (failure.status && !failure.canRetry && failure.status !== 409) pending = {};
    throw failure;
  } finally {
    clearInterval(timer);
  }
}

/** crypto.randomUUID() exists only over HTTPS and on localhost. */
function randomKey() {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}

/** Uses `aria-disabled`, since `disabled` would take the focus from the button. */
function setBusy(value) {
  busy = value;
  button.setAttribute("aria-disabled", String(value));
}

function showError(message) {
  error.textContent = message;
  prompt.setAttribute("aria-invalid", String(Boolean(message)));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});

prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!event.repeat) submit();
});

prompt.addEventListener("input", () => showError(""));

for (const idea of document.querySelectorAll("[data-idea]")) {
  idea.addEventListener("click", () => {
    prompt.value = idea.textContent;
    showError("");
    prompt.focus();
  });
}
