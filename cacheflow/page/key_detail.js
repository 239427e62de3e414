// One key: its value, how long it lives, and what can be done with it.

import { NoAnswer, call, notDone, pathOf } from "./calls.js";
import { confirmed } from "./confirming.js";
import { button, element, renew, say } from "./dom.js";
import { KeyForm, NAME_CHARACTERS, linkTo } from "./key_form.js";
import { tell } from "./outcomes.js";
import { save } from "./saving.js";
import { ticking } from "./ticking.js";
import { Unfinished } from "./unfinished.js";
import { factsOf, leftOf, readKey, shownValue } from "./value.js";
import { duration, foreign, number, plain } from "./words.js";

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
    this.unfinished = new Unfinished();
    // How the latest change of this key came out: what is said after it does not take its place.
    this.said = "";
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
    this.#leave();
    this.key = key;
    if (key === null) return this.#nothing();
    const left = this.unfinished.of(key);
    if (left === undefined) this.#frame(foreign(key), element("p", { class: "hint" }, "Asking …"));
    else {
      this.value = left.value;
      this.#showForm(left);
    }
    this.#look();
  }

  /** Shows the form of a new key, that may begin with `prefix`. */
  create(prefix) {
    if (this.form?.isNew) return;
    this.#leave();
    const left = this.unfinished.of(null);
    if (left === undefined) this.#openForm(null, prefix);
    else this.#showForm(left);
  }

  /** Puts the focus on the name of what is shown. */
  focus() {
    this.place.querySelector("h3").focus();
  }

  /** Forgets what was read and typed: its reader is somebody else now. */
  forget() {
    this.unfinished.clear();
    [this.value, this.form] = [null, null];
    this.#say("", "");
    if (this.key === null) this.#nothing();
    else this.#frame(foreign(this.key));
  }

  /** Shows no key any more. */
  #leave() {
    this.rest();
    if (this.form !== null) this.unfinished.keep(this.key, this.form);
    [this.key, this.value, this.form] = [null, null, null];
    this.#say("", "");
  }

  /** Returns whether the reader sees the panel of `key`, and no form in it. */
  #isAt(key) {
    return this.key === key && this.form === null && this.place.checkVisibility();
  }

  /** Says how this key is, behind how its latest change came out. */
  #say(text, said = this.said) {
    this.said = said;
    say(this.notice, [said, text].filter((each) => each !== "").join(" "));
  }

  /** Says how a change of `key` came out where the reader is. */
  #outcome(key, said) {
    if (this.key === key && this.place.checkVisibility()) this.#say("", said);
    else tell([linkTo(key), ": ", said]);
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
      this.#found({ ...value, read_ms: performance.now() });
    } catch (error) {
      if (round.signal.aborted) return;
      if (error.status === 404) return this.#gone();
      // The value was replaced between two questions about it.
      if (error.status === 412) return this.lookAgain();
      this.#say(`${error.message}.`);
      if (error instanceof NoAnswer || error.status >= 500) this.lookAgain(AGAIN_MS);
      else if (this.value === null && this.form === null) this.#frame(foreign(key));
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
    const isOther = before !== null && before.version !== value.version;
    this.#say(isOther ? `Changed: now version ${number(value.version)}.` : "");
    this.#draw();
  }

  #gone() {
    this.value = null;
    if (this.form !== null) return this.form.warn(null);
    this.#say("");
    const text = "This node knows no such key: it was deleted, has expired or was evicted, if it was ever written.";
    this.#frame(foreign(this.key), element("p", {}, text), element("div", { class: "buttons" }, button("Close", this.left)));
  }

  #nothing() {
    const hint = element("p", { class: "hint" }, "Choose a key to see its value.");
    this.#frame("No key is chosen", hint, this.unfinished.line());
  }

  #frame(name, ...parts) {
    // What stays as it is keeps its focus, and how far it is scrolled.
    const head = element("h3", { class: this.key === null ? null : "key-name", tabindex: "-1" }, name);
    renew(this.place, [head, this.notice, ...parts.filter((part) => part !== null)]);
  }

  #draw() {
    const { value } = this;
    const { shown, cut } = shownValue(value, this.bytesAs);
    const facts = factsOf(value, this.ttl);
    this.#tick();
    const actions = element("div", { class: "buttons" });
    if (value.kind === "bytes") {
      const other = this.bytesAs === "hex" ? "base64" : "hex";
      actions.append(button(`As ${other}`, () => ((this.bytesAs = other), this.#draw()), { id: "bytes-as" }));
    }
    actions.append(button("Download", () => this.#download()));
    if (value.isPlain) {
      actions.append(button("Change …", () => this.#openForm(this.value, ""), { class: "first" }));
    }
    actions.append(button("Delete …", () => this.#delete(), { class: "danger" }));
    const more = cut ? element("p", { class: "hint" }, `${cut} Download has all.`) : null;
    this.#frame(foreign(this.key), facts, shown, more, actions);
  }

  #tick() {
    const { value } = this;
    if (value === null) return;
    const left = leftOf(value);
    say(this.ttl, typeof left === "string" ? left : left > 0 ? `${duration(left)} more` : "expired");
    if (left <= 0 && this.form === null && !document.hidden && this.place.checkVisibility()) this.lookAgain(AGAIN_MS);
  }

  #openForm(value, prefix) {
    const form = new KeyForm(value, prefix, {
      saved: (key) => this.#saved(form, key),
      cancelled: () => {
        this.#close(form);
        if (value === null) {
          this.#nothing();
          return this.left();
        }
        if (this.value === null) this.#gone();
        else this.#draw();
      },
      present: async () => {
        const question = "Show the present value, and give up what you have typed?";
        if (form.isChanged() && !(await confirmed(question, "Give it up"))) return;
        if (this.form !== form) return;
        this.#close(form);
        this.#look();
      },
    });
    this.#say("", "");
    this.#showForm(form);
    form.focus();
  }

  #showForm(form) {
    this.form = form;
    // Two forms may look alike, with different texts in them: none stays for another.
    this.place.querySelector("form")?.remove();
    this.#frame(form.isNew ? "New key" : foreign(this.key), form.element);
  }

  /** Forgets `form`; another one that the reader has opened stays. */
  #close(form) {
    this.unfinished.drop(form);
    if (this.form === form) this.form = null;
  }

  #saved(form, key) {
    const isSeen = this.form === form && this.place.checkVisibility();
    const isLeft = this.form === form && !isSeen;
    this.#close(form);
    if (!isSeen) tell([linkTo(key), ": written."]);
    if (isLeft) {
      // In another view: who comes back finds no form of what is written.
      this.#leave();
      this.#nothing();
    }
    if (!isSeen) return;
    // Not only once the address is another: what is said now is said of this key.
    if (form.isNew) this.show(key);
    this.#say("", "Written.");
    if (this.place.contains(document.activeElement)) this.focus();
    this.value = null;
    this.#look();
    this.chosen(key);
  }

  async #delete() {
    const { key, value } = this;
    if (!(await confirmed(["Delete ", foreign(key), "?"], "Delete"))) return;
    if (this.#isAt(key)) this.#say("", "");
    try {
      const headers = { "If-Match": `"${value.version}"` };
      await call("DELETE", pathOf(key), { headers, patience_ms: WRITE_PATIENCE_MS });
    } catch (error) {
      const changed = "Not deleted: somebody has changed this key since it was shown to you.";
      this.#outcome(key, error.status === 412 ? changed : notDone("deleted", error));
      if (error.status === 412 && this.#isAt(key)) this.lookAgain();
      return;
    }
    if (!this.#isAt(key)) return tell([linkTo(key), ": deleted."]);
    this.show(null);
    this.#say("", `${plain(key, NAME_CHARACTERS)}: deleted.`);
    this.left();
  }

  async #download() {
    const { key } = this;
    this.#say("", "");
    try {
      const answer = await call("GET", pathOf(key), { query: { raw: "", peek: "" } });
      save(await answer.blob(), key);
    } catch (error) {
      this.#outcome(key, `No download: ${error.message}.`);
    }
  }
}
