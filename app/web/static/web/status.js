// What a screen reader is told, politely, about what has happened.

const region = document.getElementById("status");

export function announce(text) {
  // Emptied first: the same sentence twice is news the second time too.
  region.textContent = "";
  setTimeout(() => (region.textContent = text), 50);
}
