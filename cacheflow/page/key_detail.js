// One key: its value, how long it lives, and what can be done with it.

import { NoAnswer, call, notDone, pathOf } from "./calls.js";
import { confirmed } from "./confirming.js";
import { button, element, renew, say } from "./dom.js";
import { KeyForm } from "./key_form.js";
import { save } from "./saving.js";
import { ticking } from "./ticking.js";
import { readKey, shownValue } from "./value.js";
import { bytes, duration, foreign, number } from "./words.js";

// Milliseconds between two looks at a key that is written all the time.
const LOOK_MS = 500;
const AGAIN_MS = 2000;
// A write waits for a majority, and may have to wait for a new leader first.
const WRITE_PATIENCE_MS = 15000;

/** The panel of one key in `place`. `chosen`: is called with a key that was made; `left`: when none is to be shown any more. */
export class KeyDetail {
  constructor(place, { chosen, left }) {
    Object.assign(this, { place, chosen, left });
    this.key = null;
    this.value = null;
    this.form = null;
    this.timer = 0;
    this.round = null;
    // Of bytes: hex or base64.
    this.bytesAs = "hex";
    this.notice = element("p", { class: "notice", role: "status" });
    this.ttl = element("dd");
    ticking(1000, () => this.#tick());
    this.#nothing();
  }

  /** Shows `key`; null for none. */
  show(key) {
    if (key === this.key && this.form?.isNew !== true) {
      if (key !== null && this.round === null) this.lookAgain();
      return;
    }
    this.rest();
    [this.key, this.value, this.form] = [key, null, null];
    say(this.notice, "");
    if (key === null) return this.#nothing();
    this.#frame(element("p", { class: "hint" }, "Asking …"));
    this.#look();
  }

  /** Shows the form of a new key, that may begin with `prefix`. */
  create(prefix) {
    if (this.form?.isNew) return;
    this.rest();
    [this.key, this.value] = [null, null];
    say(this.notice, "");
    this.#openForm(null, prefix);
  }

  /** Takes in changes of keys: looks at this one again if it is among them. */
  take(changes) {
    if (this.key === null) return;
    const mine = changes.filter(({ key, prefix }) =>
      key === undefined ? this.key.startsWith(prefix) : key === this.key,
    );
    const last = mine.at(-1);
    if (last === undefined || last.version === this.value?.version) {
      // The version of a key that is only touched stays: its expiry is another.
      if (last?.what !== "touch") return;
    }
    this.lookAgain();
  }

  /** Looks at the key again soon. */
  lookAgain(after_ms = LOOK_MS) {
    if (this.key !== null) this.timer ||= setTimeout(() => this.#look(), after_ms);
  }

  /** Asks for nothing until the key is shown again. */
  rest() {
    clearTimeout(this.timer);
    this.round?.abort();
    [this.timer, this.round] = [0, null];
  }

  async #look() {
    this.rest();
    const round = (this.round = new AbortController());
    const { key } = this;
    try {
      const value = await readKey(key, round.signal);
      if (round.signal.aborted) return;
      this.read_ms = performance.now();
      this.#found(value);
    } catch (error) {
      if (round.signal.aborted) return;
      if (error.status === 404) return this.#gone();
      // The value was replaced between two questions about it.
      if (error.status === 412) return this.lookAgain();
      say(this.notice, `${error.message}.`);
      if (error instanceof NoAnswer || error.status >= 500) this.lookAgain(AGAIN_MS);
    }
  }

  #found(value) {
    const before = this.value;
    this.value = value;
    if (this.form !== null) {
      this.#tick();
      if (this.form.version !== value.version) this.form.warn(value);
      return;
    }
    say(
      this.notice,
      before !== null && before.version !== value.version ? `Changed: now version ${number(value.version)}.` : "",
    );
    this.#draw();
  }

  #gone() {
    this.value = null;
    if (this.form !== null) return this.form.warn(null);
    say(this.notice, "");
    const text = "This key is not there: it was deleted, has expired or was evicted.";
    this.#frame(element("p", {}, text), element("div", { class: "buttons" }, button("Close", this.left)));
  }

  #nothing() {
    this.place.replaceChildren(element("p", { class: "hint" }, "Choose a key to see its value."));
  }

  #frame(...parts) {
    // What stays as it is keeps its focus, and how far it is scrolled.
    const head = element("h3", { class: "key-name" }, foreign(this.key));
    renew(this.place, [head, this.notice, ...parts.filter((part) => part !== null)]);
  }

  #draw() {
    const { value } = this;
    const { shown, cut } = shownValue(value, this.bytesAs);
    const facts = element("dl", { class: "facts" });
    const fact = (name, text) => facts.append(element("dt", {}, name), element("dd", {}, text));
    fact("Kind", value.kind === "bytes" && value.type ? foreign(`bytes, ${value.type}`) : value.kind);
    fact("Size", value.kind === "large" ? `${bytes(value.size)}, as JSON` : bytes(value.size));
    fact("Version", number(value.version));
    facts.append(element("dt", {}, "Lives"), this.ttl);
    this.#tick();
    const actions = element("div", { class: "buttons" });
    if (value.kind === "bytes") {
      const other = this.bytesAs === "hex" ? "base64" : "hex";
      actions.append(button(`As ${other}`, () => ((this.bytesAs = other), this.#draw())));
    }
    actions.append(button("Download", () => this.#download()));
    if (value.kind === "hash" || value.kind === "set") {
      fact("Changed by", `Redis' commands of ${value.kind === "hash" ? "hashes" : "sets"} alone`);
    } else if (value.whole) {
      actions.append(button("Change …", () => this.#openForm(this.value, ""), { class: "first" }));
    }
    actions.append(button("Delete …", () => this.#delete(), { class: "danger" }));
    this.#frame(facts, shown, cut ? element("p", { class: "hint" }, `${cut} Download has all.`) : null, actions);
  }

  #tick() {
    const { value } = this;
    if (value === null) return;
    if (value.ttl === undefined) return say(this.ttl, "not read");
    if (value.ttl === null) return say(this.ttl, "until it is deleted or evicted");
    const left = value.ttl - (performance.now() - this.read_ms) / 1000;
    say(this.ttl, left > 0 ? `${duration(left)} more` : "expired");
    if (left <= 0 && this.form === null && !document.hidden) this.lookAgain(AGAIN_MS);
  }

  #openForm(value, prefix) {
    this.form = new KeyForm(value, prefix, {
      saved: (key) => {
        this.form = null;
        this.chosen(key);
        if (this.key === key) this.#look();
      },
      cancelled: () => {
        this.form = null;
        if (value === null) return this.left();
        if (this.value === null) this.#gone();
        else this.#draw();
      },
      present: () => {
        this.form = null;
        this.#look();
      },
    });
    if (value === null) this.place.replaceChildren(element("h3", {}, "New key"), this.form.element);
    else {
      say(this.notice, "");
      this.#frame(this.form.element);
    }
    this.form.focus();
  }

  async #delete() {
    const { key, value } = this;
    if (!(await confirmed(["Delete ", foreign(key), "?"], "Delete"))) return;
    try {
      const headers = { "If-Match": `"${value.version}"` };
      await call("DELETE", pathOf(key), { headers, patience_ms: WRITE_PATIENCE_MS });
      this.left();
    } catch (error) {
      const changed = "Not deleted: somebody has changed this key since it was shown to you.";
      say(this.notice, error.status === 412 ? changed : notDone("deleted", error));
      if (error.status === 412) this.lookAgain();
    }
  }

  async #download() {
    try {
      const answer = await call("GET", pathOf(this.key), { query: { raw: "", peek: "" } });
      save(await answer.blob(), this.key);
    } catch (error) {
      say(this.notice, `No download: ${error.message}.`);
    }
  }
}
