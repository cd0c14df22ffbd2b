// A ring chart of one share.

const SVG = "http://www.w3.org/2000/svg";
const RADIUS = 26;
const LENGTH = 2 * Math.PI * RADIUS;

/** Draw `part` of `whole` into the SVG element `chart`, which is 64 units wide and high. */
export function drawShare(chart, part, whole) {
  const share = whole ? part / whole : 0;
  const text = whole ? `${Math.floor(share * 100)}%` : "–";
  const label = whole ? `${text} of the images served came from the cache` : "No images served yet";
  chart.setAttribute("aria-label", label);
  chart.replaceChildren(
    ring("track", LENGTH),
    ...(part ? [ring("share", share * LENGTH)] : []),
    shape("text", { x: 32, y: 37, "text-anchor": "middle", "font-size": text.length > 3 ? 12 : 15 }, text),
  );
}

function ring(name, length) {
  const dashes = `${length.toFixed(2)} ${LENGTH.toFixed(2)}`;
  const transform = "rotate(-90 32 32)";
  return shape("circle", { class: name, cx: 32, cy: 32, r: RADIUS, "stroke-dasharray": dashes, transform });
}

function shape(tag, attributes, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}
