// The cluster's settings: shown, and changed only if nobody else has changed them meanwhile.

import { call, notDone, read } from "./calls.js";
import { button, element, say } from "./dom.js";
import { askAgain } from "./node.js";
import { foreign, moment, number } from "./words.js";

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
    this.about = element("p", { class: "hint" }, "Asking …");
    this.notice = element("p", { class: "notice", role: "status" });
    this.submit = element("button", { type: "submit", class: "first", disabled: true }, "Change settings");
    this.anew = button("Show the present settings", () => this.load(), { hidden: true });
    this.element = element(
      "form",
      { class: "panel fields", onsubmit: (event) => (event.preventDefault(), this.#save()) },
      element("h3", {}, "Settings of the cluster"),
      this.about,
      ...FIELDS.flatMap(([name, text]) => [element("label", { for: `setting-${name}` }, text), this.fields[name]]),
      this.notice,
      element("div", { class: "buttons" }, this.anew, this.submit),
    );
  }

  /** Takes in which version the settings have: shows them anew, or says so if the reader has begun to change them. */
  follow(version) {
    if (this.found === null) this.load();
    else if (this.found.version !== version) {
      if (Object.keys(this.#changes()).length === 0) return this.load();
      say(this.notice, `Somebody has changed the settings: they are at version ${number(version)} now.`);
      this.anew.hidden = false;
    }
  }

  /** Asks for the settings and shows them. */
  async load() {
    try {
      const answer = await call("GET", "/cluster/settings");
      this.#show(await read(answer.json()));
    } catch (error) {
      say(this.notice, `Not read: ${error.message}.`);
    }
  }

  #show(found) {
    this.found = found;
    for (const [name] of FIELDS) this.fields[name].value = found[name] ?? "";
    const who = found.changed_by ? [", changed by ", foreign(found.changed_by)] : [];
    const when = found.changed_at ? ` at ${moment(found.changed_at)}` : "";
    this.about.replaceChildren(`Version ${number(found.version)}`, ...who, `${when}.`);
    this.anew.hidden = true;
    say(this.notice, "");
    this.#look();
  }

  #look() {
    this.submit.disabled = Object.keys(this.#changes()).length === 0;
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
    try {
      const headers = { "If-Match": `"${version}"` };
      const answer = await call("PATCH", "/cluster/settings", { json: this.#changes(), headers, patience_ms: 15000 });
      this.#show(await read(answer.json()));
      say(this.notice, "Changed.");
      askAgain();
    } catch (error) {
      const changed = `Nothing was changed: somebody has changed the settings since version ${number(version)}.`;
      say(this.notice, error.status === 412 ? changed : notDone("changed", error));
      this.anew.hidden = error.status !== 412;
    }
  }
}
