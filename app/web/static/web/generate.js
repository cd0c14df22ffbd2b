// The prompt form.

import { call } from "./api.js";
import { startJob } from "./job.js";
import { announce } from "./status.js";

const [form, prompt, size, button, error] =
  ["generate", "prompt", "size", "go", "prompt-error"].map((id) => document.getElementById(id));
let busy = false;
let order = {}; // What was asked for last, and the key under which it is drawn once.

async function submit() {
  const text = prompt.value.trim();
  complain(text ? "" : "Say in a few words what the image should show.");
  if (!text) prompt.focus();
  // One at a time: a second press of Enter must not pay for a second image.
  if (!text || busy) return;
  setBusy(true);
  await startJob({
    label: text,
    home: prompt,
    work: (controls) => draw(text, controls),
    failed: (failure) => complain(failure.message),
  });
  setBusy(false);
}

async function draw(text, { show, ...options }) {
  announce("Drawing the image.");
  const started = Date.now();
  const tick = () => show(`Drawing… ${Math.floor((Date.now() - started) / 1000)} s`);
  tick();
  const timer = setInterval(tick, 1000);
  try {
    const body = JSON.stringify({ prompt: text, size: size.value });
    if (order.body !== body) order = { body, once: randomKey() };
    const seconds = Number(form.dataset.seconds);
    const answer = await call("POST", "api/generate-image", { ...options, ...order, seconds });
    order = {};
    return answer;
  } catch (failure) {
    // The server would repeat a refusal under the same key; 409 says that it is still drawing.
    if (failure.status && !failure.mayPass && failure.status !== 409) order = {};
    throw failure;
  } finally {
    clearInterval(timer);
  }
}

/** Not crypto.randomUUID(), which pages have over HTTPS and on localhost alone. */
function randomKey() {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}

/** `aria-disabled` and not `disabled`, which would take the focus away from the button. */
function setBusy(value) {
  busy = value;
  button.setAttribute("aria-disabled", String(value));
}

function complain(message) {
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

prompt.addEventListener("input", () => complain(""));

for (const idea of document.querySelectorAll("[data-idea]")) {
  idea.addEventListener("click", () => {
    prompt.value = idea.textContent;
    complain("");
    prompt.focus();
  });
}
