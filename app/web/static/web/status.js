// Announcements for screen readers.

const region = document.getElementById("status");

export function announce(text) {
  // Cleared first, so that a repeated text is announced again.
  region.textContent = "";
  setTimeout(() => (region.textContent = text), 50);
}
