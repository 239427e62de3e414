// The list of keys: links that choose one.

import { addressOf } from "./address.js";
import { element } from "./dom.js";
import { foreign } from "./words.js";

/** Shows `keys` in `list`; rows that stay are left alone, with the focus that one may have. */
export function drawList(list, keys, { key: chosen }) {
  const known = new Map([...list.children].map((row) => [row.dataset.key, row]));
  let place = list.firstChild;
  for (const key of keys) {
    let row = known.get(key);
    if (row === undefined) {
      row = element("li", { "data-key": key }, element("a", {}, foreign(key)));
      list.insertBefore(row, place);
    } else {
      known.delete(key);
      if (row === place) place = place.nextSibling;
      else list.insertBefore(row, place);
    }
    const link = row.firstChild;
    link.href = addressOf({ key });
    if (key === chosen) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  for (const row of known.values()) row.remove();
}
