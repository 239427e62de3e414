// The form that writes a key: a new one, or another value in the place of the one that was shown, and of no other.

import { call, notDone, pathOf } from "./calls.js";
import { confirmed } from "./confirming.js";
import { button, element, hold, say } from "./dom.js";
import { outcome } from "./outcomes.js";
import { indented } from "./value.js";
import { foreign, number, plain } from "./words.js";

/** How many characters of a key a sentence has room for. */
export const NAME_CHARACTERS = 60;

/** The form. `value`: what was read of the key; null for a new key. `saved`, `cancelled`, `present`: what happens next. */
export class KeyForm {
  constructor(value, prefix, { saved, cancelled, present }) {
    Object.assign(this, { value, prefix, saved, present });
    this.isNew = value === null;
    // True once it was to be saved: then it is not forgotten before the reader closes it, or it is written.
    this.isAsked = false;
    // True while the key is not there any more: then what is written is a new one.
    this.isGone = false;
    // How the latest attempt came out, and who has changed the key meanwhile: neither takes the place of the other.
    [this.said, this.warning] = ["", ""];
    this.version = value?.version ?? null;
    this.key = element("input", { id: "key", autocomplete: "off", spellcheck: "false", required: true, value: prefix });
    this.kind = element(
      "select",
      { id: "value-kind" },
      element("option", { value: "text" }, "text"),
      element("option", { value: "json", selected: value?.kind === "json" }, "JSON"),
    );
    this.text = element("textarea", { id: "value-text", rows: 8, spellcheck: "false" });
    this.text.value =
      value === null || value.kind === "bytes" ? "" : value.kind === "json" ? indented(value.text) : value.text;
    // The field has LF for every line end: what was read, and how the field shows it.
    this.shown = this.text.value;
    this.original = value?.kind === "text" ? value.text : this.shown;
    this.lineEnd = lineEndOf(this.original);
    this.expiry = element(
      "select",
      { id: "expiry", onchange: () => this.#look() },
      this.isNew ? null : element("option", { value: "keep" }, "as it is now"),
      element("option", { value: "none" }, "none"),
      element("option", { value: "seconds" }, "in seconds"),
    );
    this.seconds = element("input", {
      id: "seconds",
      type: "number",
      min: "0.001",
      step: "any",
      value: "60",
      "aria-label": "Seconds",
    });
    this.notice = element("p", { class: "notice", role: "alert" });
    this.show = button("Show the present value", present, { hidden: true });
    const label = (text, field) => element("label", { for: field.id }, text);
    this.element = element(
      "form",
      { class: "fields", onsubmit: (event) => (event.preventDefault(), this.#save()) },
      this.isNew ? label("Key", this.key) : null,
      this.isNew ? this.key : null,
      value?.kind === "bytes"
        ? element("p", { class: "hint" }, "What is written here takes the place of the bytes.")
        : null,
      this.lineEnd === null
        ? element("p", { class: "hint" }, "Its lines do not all end alike. If you change the text, all will end with LF.")
        : null,
      label("Value", this.text),
      this.text,
      element(
        "div",
        { class: "line" },
        label("Kind", this.kind),
        this.kind,
        label("Expiry", this.expiry),
        this.expiry,
        this.seconds,
      ),
      this.notice,
      element("div", { class: "buttons" }, this.show, button("Cancel", cancelled), this.#button("Save")),
    );
    this.#look();
  }

  /** Returns whether there is something in it that the reader would miss: typed, chosen, or of an attempt to save it. */
  isChanged() {
    const kind = this.value?.kind === "json" ? "json" : "text";
    const isOther = this.kind.value !== kind || this.expiry.value !== (this.isNew ? "none" : "keep");
    return this.isAsked || isOther || this.text.value !== this.shown || this.key.value !== this.prefix;
  }

  /** Puts the focus where the reader begins. */
  focus() {
    (this.isNew ? this.key : this.text).focus();
  }

  /** Says that the key is another meanwhile: `value` is what it has now, null if it is gone. */
  warn(value) {
    if (this.isNew) return;
    this.isGone = value === null;
    this.show.hidden = this.isGone;
    say(this.submit, this.isGone ? "Save as a new key" : "Save");
    if (this.isGone) this.warning = "This key is gone meanwhile: it was deleted, has expired or was evicted.";
    else {
      const [now, shown] = [value.version, this.version].map(number);
      const versions = `it is at version ${now}, and you were shown version ${shown}`;
      this.warning = `Somebody has changed this key: ${versions}. Saving will be refused.`;
    }
    // While it is being saved, the change may be the reader's own.
    if (!this.submit.disabled) say(this.notice, this.#told());
  }

  #told() {
    return [this.said, this.warning].filter((text) => text !== "").join(" ");
  }

  #button(text) {
    this.submit = element("button", { type: "submit", class: "first" }, text);
    return this.submit;
  }

  #look() {
    const isWanted = this.expiry.value === "seconds";
    this.seconds.hidden = !isWanted;
    // A field that is not seen is not looked at either: the browser could not say what is wrong with it.
    this.seconds.disabled = !isWanted;
  }

  async #save() {
    const key = this.isNew ? this.key.value : this.value.key;
    let said = this.text.value;
    if (this.kind.value === "json") {
      try {
        JSON.parse(said);
      } catch (error) {
        this.said = `Nothing was written: this is no JSON: ${error.message}.`;
        return say(this.notice, this.#told());
      }
    } else {
      said = JSON.stringify(this.#written());
    }
    const isEmpty = this.value?.kind === "bytes" && this.text.value === "";
    if (isEmpty && !(await confirmed("Put an empty text in the place of the bytes?", "Save it"))) return;
    // The JSON goes as it was typed: a number of more than 53 bits would not come through this page's own numbers.
    const ttl = this.expiry.value === "seconds" ? `,"ttl":${Number(this.seconds.value)}` : "";
    const query = this.expiry.value === "keep" ? { keep_ttl: "" } : {};
    const headers = this.isNew || this.isGone ? { "If-None-Match": "*" } : { "If-Match": `"${this.version}"` };
    this.isAsked = true;
    this.#hold(true);
    try {
      await call("PUT", pathOf(key), { json: `{"value":${said}${ttl}}`, query, headers, patience_ms: 15000 });
    } catch (error) {
      this.#hold(false);
      if (error.status === 412 && error.problem.version === 0) this.warn(null);
      this.said = this.#inWords(error);
      const link = linkTo(key, this.isNew ? { new: "" } : { key });
      outcome(this.notice, [this.#told()], [link, ": ", this.said]);
      if (error.status === 412 && !this.isNew) this.show.hidden = this.isGone;
      return;
    }
    this.#hold(false);
    this.saved(key);
  }

  /** Lets the reader type, or not while it is saved. */
  #hold(isHeld) {
    for (const field of [this.key, this.kind, this.text, this.expiry, this.seconds]) hold(field, isHeld);
    this.submit.disabled = isHeld;
    // The browser takes the focus from a button that is disabled.
    if (!isHeld && document.activeElement === document.body) this.submit.focus();
  }

  /** Returns the text to write: with the line ends of the one that was read. */
  #written() {
    const text = this.text.value;
    if (text === this.shown) return this.original;
    return this.lineEnd === "\r\n" ? text.replaceAll("\n", "\r\n") : text;
  }

  #inWords(error) {
    if (error.status === 412) {
      if (error.problem.version === 0) return "Nothing was written.";
      if (this.isNew || this.isGone) return "Nothing was written: there is such a key already.";
      const now = error.problem.version === undefined ? "" : ` It is at version ${number(error.problem.version)} now.`;
      return `Nothing was written: somebody has changed this key since it was shown to you.${now}`;
    }
    return notDone("written", error);
  }
}

/** Returns a link with the name of `key` to the view of keys; it shows the key there, or what else is `asked`. */
export function linkTo(key, asked = { key }) {
  return element("a", { href: `#keys?${new URLSearchParams(asked)}` }, foreign(plain(key, NAME_CHARACTERS)));
}

/** Returns the line end that `text` has everywhere, LF if it has none; null if it has several kinds, or CR without LF. */
export function lineEndOf(text) {
  const [end = "\n", ...others] = new Set(text.match(/\r\n|\r|\n/g));
  return others.length > 0 || end === "\r" ? null : end;
}
