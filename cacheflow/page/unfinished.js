// Forms of keys that the reader has left before they were written: none is forgotten before it is closed.

import { element } from "./dom.js";
import { linkTo } from "./key_form.js";

/** The forms, by key; the one of a new key by null. */
export class Unfinished {
  constructor() {
    this.forms = new Map();
  }

  /** Keeps the form of `key` if there is something in it that the reader would miss. */
  keep(key, form) {
    if (form.isChanged()) this.forms.set(key, form);
    else this.forms.delete(key);
  }

  /** Returns the form of `key`; undefined if none is kept. */
  of(key) {
    return this.forms.get(key);
  }

  /** Forgets `form`, and no other of its key. */
  drop(form) {
    const key = form.value?.key ?? null;
    if (this.forms.get(key) === form) this.forms.delete(key);
  }

  /** Forgets all. */
  clear() {
    this.forms.clear();
  }

  /** Returns a line that leads to each of them; null if there are none. */
  line() {
    if (this.forms.size === 0) return null;
    const links = [...this.forms.keys()].map((key) =>
      key === null ? element("a", { href: "#keys?new" }, "a new key") : linkTo(key),
    );
    return element("p", { class: "line notice" }, "Begun and not written: ", ...links);
  }
}
