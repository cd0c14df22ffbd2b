// The cache's figures, looked at again every few seconds while somebody looks at them.

import { call } from "./api.js";
import { drawShare } from "./chart.js";
import { money, number, size } from "./format.js";

const EVERY_MS = 10_000;

const panel = document.getElementById("cache");
const note = document.getElementById("cache-note");
const find = (name) => panel.querySelector(`[data-cache=${name}]`);
let busy = false;

async function refresh() {
  if (busy || document.hidden) return;
  busy = true;
  try {
    fill(await call("GET", "api/cache", { quiet: true }));
  } catch (failure) {
    say(failure.wantsKey ? "Shown once an API key is entered." : failure.message, !failure.wantsKey);
  } finally {
    busy = false;
  }
}

function fill(figures) {
  const { hits, stale, misses, collapsed, revalidated, bypass } = figures;
  const fromCache = hits + stale;
  const others = misses + collapsed + revalidated + bypass;
  drawShare(find("chart"), fromCache, fromCache + others);
  find("hits").textContent = number.format(fromCache);
  find("misses").textContent = number.format(others);
  find("used").textContent = size(figures.bytes);
  find("bound").textContent = ` of ${size(figures.max_bytes)}`;
  find("meter").max = figures.max_bytes;
  find("meter").value = figures.bytes;
  find("requests").textContent = number.format(figures.requests_saved);
  const saved = find("money");
  if (saved) saved.textContent = money(figures.saved_usd);
  const price = money(figures.get_usd_per_million);
  say(saved ? `Saved at ${price} a million GET requests, S3’s price in us-east-1.` : "");
}

function say(text, isError = false) {
  note.textContent = text;
  note.classList.toggle("error", isError);
}

setInterval(refresh, EVERY_MS);
for (const name of ["newkey", "imagestored", "visibilitychange"]) addEventListener(name, refresh);
refresh();
