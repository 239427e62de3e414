// The cluster's settings: shown, and changed only if nobody else has changed them meanwhile.

import { ask, call, notDone, read } from "./calls.js";
import { confirmed } from "./confirming.js";
import { button, element, hold, say } from "./dom.js";
import { askAgain } from "./node.js";
import { outcome } from "./outcomes.js";
import { bytes, counted, foreign, moment, number } from "./words.js";

// Each setting: its name, what it is, and the least number; null for eviction, which is a word.
const FIELDS = [
  ["max_items", "Keys at most (empty: no limit)", 1],
  ["max_bytes", "Bytes at most (empty: no limit)", 1024],
  ["eviction", "Who goes when there is no room", null],
  ["replicas", "Copies beside the leader's", 0],
  ["max_value_bytes", "Bytes of one value at most", 1],
];
const MAY_BE_NONE = ["max_items", "max_bytes"];

/** The form of the settings. */
export class SettingsForm {
  constructor() {
    this.found = null;
    // How many times the settings were asked for, and which of these questions is the latest that was answered.
    [this.asked, this.answered] = [0, 0];
    this.fields = Object.fromEntries(
      FIELDS.map(([name, , least]) => {
        const changed = { id: `setting-${name}`, oninput: () => this.#look() };
        if (least === null) {
          return [name, element("select", changed, ...["lru", "lfu"].map((word) => element("option", {}, word)))];
        }
        return [
          name,
          element("input", { ...changed, type: "number", min: least, step: 1, required: !MAY_BE_NONE.includes(name) }),
        ];
      }),
    );
    // How the latest change came out: what is said after it does not take its place.
    this.said = "";
    this.about = element("p", { class: "hint" }, "Asking …");
    this.notice = element("p", { class: "notice", role: "status" });
    this.submit = element("button", { type: "submit", class: "first", disabled: true }, "Change settings");
    this.anew = button("Show the present settings", () => this.load(true), { hidden: true });
    this.element = element(
      "form",
      { class: "panel fields", onsubmit: (event) => (event.preventDefault(), this.#save()) },
      element("h3", {}, "Settings of the cluster"),
      this.about,
      ...FIELDS.flatMap(([name, text]) => [element("label", { for: `setting-${name}` }, text), this.fields[name]]),
      this.notice,
      element("div", { class: "buttons" }, this.anew, this.submit),
    );
    this.#hold(true);
  }

  /** Takes in which version the settings have: shows them anew, or says so if the reader has begun to change them. */
  follow(version) {
    if (this.found === null) this.load();
    else if (this.found.version !== version && !this.isHeld) {
      if (!this.#isChanged()) return this.load();
      this.#warn(version);
    }
  }

  /** Asks for the settings and shows them: what the reader has begun to change stays, unless `replaces` is true. */
  async load(replaces = false) {
    const asked = ++this.asked;
    try {
      const answer = await call("GET", "/cluster/settings");
      const found = await read(answer.json());
      if (asked < this.answered) return;
      this.answered = asked;
      if (replaces || !this.#isChanged()) this.#show(found);
      else if (found.version !== this.found.version) this.#warn(found.version);
    } catch (error) {
      if (asked > this.answered) this.#say(`Not read: ${error.message}.`);
      if (this.found === null) say(this.about, "");
    }
  }

  #warn(version) {
    this.#say(`Somebody has changed the settings: they are at version ${number(version)} now.`);
    this.anew.hidden = false;
  }

  #say(text) {
    say(this.notice, [this.said, text].filter((each) => each !== "").join(" "));
  }

  #show(found) {
    if (found.version !== this.found?.version) this.said = "";
    this.found = found;
    for (const [name] of FIELDS) this.fields[name].value = found[name] ?? "";
    this.#hold(false);
    const who = found.changed_by ? [", changed by ", foreign(found.changed_by)] : [];
    const when = found.changed_at ? ` at ${moment(found.changed_at)}` : "";
    this.about.replaceChildren(`Version ${number(found.version)}`, ...who, `${when}.`);
    this.anew.hidden = true;
    this.#say("");
  }

  /** Lets the reader type, or not: there is nothing to change yet, or it is being changed. */
  #hold(isHeld) {
    this.isHeld = isHeld;
    for (const field of Object.values(this.fields)) hold(field, isHeld);
    this.#look();
  }

  #look() {
    this.submit.disabled = this.isHeld || !this.#isChanged();
  }

  #isChanged() {
    return Object.keys(this.#changes()).length > 0;
  }

  #changes() {
    const changes = {};
    if (this.found === null) return changes;
    for (const [name, , least] of FIELDS) {
      const text = this.fields[name].value;
      const value = least === null ? text : text === "" ? null : Number(text);
      if (value !== (this.found[name] ?? null)) changes[name] = value;
    }
    return changes;
  }

  async #save() {
    const { version } = this.found;
    const said = (text) => {
      this.said = text;
      outcome(this.notice, [text], ["Settings of the cluster: ", text]);
    };
    const json = this.#changes();
    this.#hold(true);
    try {
      const losses = await lossesOf(json, this.found);
      if (losses.length && !(await confirmed(losses.join(" "), "Change settings"))) return this.#hold(false);
      const headers = { "If-Match": `"${version}"` };
      const answer = await call("PATCH", "/cluster/settings", { json, headers, patience_ms: 15000 });
      const found = await read(answer.json());
      this.answered = ++this.asked;
      this.#show(found);
      said("Changed.");
      askAgain();
    } catch (error) {
      this.#hold(false);
      const changed = `Nothing was changed: somebody has changed the settings since version ${number(version)}.`;
      said(error.status === 412 ? changed : notDone("changed", error));
      this.anew.hidden = error.status !== 412;
    }
  }
}

/** Returns what `changes` of the settings `found` take away, a sentence each; nothing if they do not. */
async function lossesOf(changes, found) {
  const told = [];
  if (changes.max_items || changes.max_bytes) {
    const held = await ask("/metrics", { query: { format: "json" } });
    const gone = (limit, now) => (limit ? Math.max(0, now - limit) : 0);
    const [keys, size] = [gone(changes.max_items, held.items), gone(changes.max_bytes, held.bytes)];
    if (keys) told.push(`Of ${counted(held.items, "key")} that the cluster holds, ${number(keys)} will go for good.`);
    if (size) told.push(`Of ${bytes(held.bytes)} that the cluster holds, ${bytes(size)} will go for good.`);
  }
  if (changes.replicas < found.replicas) {
    told.push(`With ${counted(changes.replicas, "copy", "copies")} beside the leader's, members lose their votes.`);
  }
  return told;
}
