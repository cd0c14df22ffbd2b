// A ring whose coloured part is a share of the whole.

const SVG = "http://www.w3.org/2000/svg";
const RADIUS = 26;
const ROUND = 2 * Math.PI * RADIUS;

/** Draw `part` of `whole` into the SVG element `chart`, which is 64 units wide and high. */
export function drawShare(chart, part, whole) {
  const share = whole ? part / whole : 0;
  const text = whole ? `${Math.floor(share * 100)}%` : "–";
  const spoken = whole ? `${text} of the images served came from the cache` : "No image was served yet";
  chart.setAttribute("aria-label", spoken);
  chart.replaceChildren(
    ring("track", ROUND),
    ...(part ? [ring("share", share * ROUND)] : []),
    shape("text", { x: 32, y: 37, "text-anchor": "middle", "font-size": text.length > 3 ? 12 : 15 }, text),
  );
}

function ring(name, length) {
  const dashes = `${length.toFixed(2)} ${ROUND.toFixed(2)}`;
  const turn = "rotate(-90 32 32)";
  return shape("circle", { class: name, cx: 32, cy: 32, r: RADIUS, "stroke-dasharray": dashes, transform: turn });
}

function shape(tag, attributes, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}
