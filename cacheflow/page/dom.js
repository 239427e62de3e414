// Elements made by script. Texts become text nodes and nothing is ever parsed as HTML: keys, values and ids are hostile.

const SVG = "http://www.w3.org/2000/svg";

/** Returns a new HTML element: `properties` are attributes, or listeners where the name begins with "on". */
export function element(name, properties = {}, ...children) {
  return filled(document.createElement(name), properties, children);
}

/** Returns a new SVG element, made as `element` makes one of HTML. */
export function drawn(name, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, name), properties, children);
}

function filled(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Shows `text` in `place`; a text that is there already is left alone, so that screen readers do not read it again. */
export function say(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/** Returns a button with the text `text` that calls `press`. */
export function button(text, press, properties = {}) {
  return element("button", { type: "button", onclick: press, ...properties }, text);
}

/** Returns the row of a table: cells from `cells`, the first one a header of the row. */
export function row(first, ...cells) {
  return element("tr", {}, element("th", { scope: "row" }, first), ...cells.map((cell) => element("td", {}, cell)));
}
