// The prompt form.

import { generate } from "./api.js";
import { startJob } from "./jobs.js";
import { addResult } from "./results.js";
import { announce } from "./status.js";

const form = document.getElementById("generate");
const prompt = document.getElementById("prompt");
const size = document.getElementById("size");
const button = document.getElementById("go");
const error = document.getElementById("prompt-error");
const list = document.getElementById("generations");
let busy = false;

function submit() {
  const text = prompt.value.trim();
  complain(text ? "" : "Say in a few words what the image should show.");
  // One at a time: a second press of Enter must not pay for a second image.
  if (!text || busy) return;
  list.replaceChildren();
  startJob(list, {
    label: text,
    home: prompt,
    work: (controls) => draw(text, size.value, controls),
    done: (answer) => addResult(answer, text),
    settled: () => setBusy(false),
  });
}

async function draw(text, dimensions, { show, ...options }) {
  setBusy(true);
  announce("Generating the image.");
  const started = Date.now();
  const tick = () => show(`Generating… ${Math.floor((Date.now() - started) / 1000)} s`);
  tick();
  const timer = setInterval(tick, 1000);
  try {
    return await generate(text, dimensions, options);
  } finally {
    clearInterval(timer);
  }
}

/** `aria-disabled` and not `disabled`, which would take the focus away from the button. */
function setBusy(value) {
  busy = value;
  button.setAttribute("aria-disabled", String(value));
}

function complain(message) {
  error.textContent = message;
  prompt.setAttribute("aria-invalid", String(Boolean(message)));
  if (message) prompt.focus();
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
