// The cache statistics, refreshed while the page is visible.

import { call } from "./api.js";
import { drawShare } from "./chart.js";
import { formatBytes, formatUsd, number } from "./format.js";

const REFRESH_MS = 10_000;

const panel = document.getElementById("cache");
const note = document.getElementById("cache-note");
const find = (name) => panel.querySelector(`[data-cache=${name}]`);
let busy = false;

async function refresh() {
  if (busy || document.hidden) return;
  busy = true;
  try {
    show(await call("GET", "api/cache", { quiet: true }));
  } catch (failure) {
    showNote(failure.needsKey ? "Enter an API key to see these figures." : failure.message, !failure.needsKey);
  } finally {
    busy = false;
  }
}

function show(figures) {
  const { hits, stale, misses, collapsed, revalidated, bypass } = figures;
  const fromCache = hits + stale;
  const others = misses + collapsed + revalidated + bypass;
  drawShare(find("chart"), fromCache, fromCache + others);
  find("hits").textContent = number.format(fromCache);
  find("misses").textContent = number.format(others);
  find("used").textContent = formatBytes(figures.bytes);
  find("bound").textContent = ` of ${formatBytes(figures.max_bytes)}`;
  find("meter").max = figures.max_bytes;
  find("meter").value = figures.bytes;
  find("requests").textContent = number.format(figures.requests_saved);
  const saved = find("money");
  if (saved) saved.textContent = formatUsd(figures.saved_usd);
  const price = formatUsd(figures.get_usd_per_million);
  showNote(saved ? `At ${price} per million GET requests, S3’s price in us-east-1.` : "");
}

function showNote(text, isError = false) {
  note.textContent = text;
  note.classList.toggle("error", isError);
}

setInterval(refresh, REFRESH_MS);
for (const name of ["newkey", "imagestored", "visibilitychange"]) addEventListener(name, refresh);
refresh();
