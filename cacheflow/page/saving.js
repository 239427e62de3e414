// Downloads: an answer that was asked for with a token, as a file of the reader's.

import { element } from "./dom.js";

/** Has the browser save a Blob as a file whose name is made of `name`. */
export function save(blob, name) {
  // As bytes, whatever their type says: nothing that somebody has stored is ever opened as a page of this origin.
  const url = URL.createObjectURL(new Blob([blob], { type: "application/octet-stream" }));
  const file = name.replace(/[^A-Za-z0-9._-]+/g, "_").slice(0, 100) || "value";
  element("a", { href: url, download: file }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}
