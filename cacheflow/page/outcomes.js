// How a change came out, said where the reader is: at the place where it was asked for, or else above all views.

import { button, element } from "./dom.js";

// Of more than these nobody reads the first: the latest ones are told.
const TOLD_MAX = 5;

/**
 * Says in `notice` how a change came out; above all views, too, if the reader does not see that place any more. `said`: texts
 * and elements; `told`: the same for who is elsewhere, with the name of what was changed.
 */
export function outcome(notice, said, told = said) {
  notice.replaceChildren(...said);
  if (!notice.checkVisibility()) tell(told);
}

/** Says `parts`, texts and elements, above all views until the reader closes them. */
export function tell(parts) {
  const copies = parts.map((part) => (typeof part === "string" ? part : part.cloneNode(true)));
  const close = () => {
    line.remove();
    document.getElementById("main").focus();
  };
  const line = element("p", { class: "line" }, element("span", {}, ...copies), button("Close", close));
  const place = document.getElementById("outcomes");
  place.append(line);
  while (place.children.length > TOLD_MAX) place.firstChild.remove();
  place.scrollTop = place.scrollHeight;
}
