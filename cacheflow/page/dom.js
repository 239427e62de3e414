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

/**
 * Has `place` hold `children`. Those that are there already are left alone. Where what has the focus is replaced, the focus goes
 * to what has its name, and otherwise to the heading, or to the part of the page: never to another button.
 */
export function renew(place, children) {
  const focused = place.contains(document.activeElement) ? nameOf(document.activeElement) : null;
  children.forEach((child, number) => {
    const old = place.children[number];
    if (old === undefined) place.append(child);
    else if (!old.isEqualNode(child)) old.replaceWith(child);
  });
  while (place.children.length > children.length) place.lastChild.remove();
  if (focused === null || place.contains(document.activeElement)) return;
  const same = [...place.querySelectorAll("a, button, [tabindex]")].find((each) => nameOf(each) === focused);
  (same ?? place.querySelector("[tabindex]") ?? place.closest("[tabindex]"))?.focus();
}

function nameOf(focusable) {
  return focusable.id || focusable.getAttribute("aria-label") || focusable.getAttribute("href") || focusable.textContent;
}

/** Lets the reader change `field`, or not while it is held; the focus stays with it where it can. */
export function hold(field, isHeld) {
  if ("readOnly" in field) field.readOnly = isHeld;
  else field.disabled = isHeld;
}

/** Returns a button with the text `text` that calls `press`. */
export function button(text, press, properties = {}) {
  return element("button", { type: "button", onclick: press, ...properties }, text);
}

/** Returns a table with a caption, the columns `names` and the rows that `body` has or will have. */
export function table(caption, names, body) {
  const heads = names.map((name) => element("th", { scope: "col" }, name));
  return element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...heads)), body);
}

/** Returns a row of a table of the columns `names`; its first cell is its header. In narrow windows cells say their names. */
export function row(names, first, ...cells) {
  const shown = cells.map((cell, number) => element("td", { "data-name": names[number + 1] }, cell));
  return element("tr", {}, element("th", { scope: "row" }, first), ...shown);
}
