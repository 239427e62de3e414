// A backup to the reader's disk, and one from there in the place of all contents.

import { call, notDone, read } from "./calls.js";
import { confirmed } from "./confirming.js";
import { button, element, say } from "./dom.js";
import { askAgain } from "./node.js";
import { outcome } from "./outcomes.js";
import { save } from "./saving.js";
import { bytes, counted } from "./words.js";

const REPLACED = "replace everything";

/** Returns the panel of backups. */
export function backupPanel() {
  // One for each: a backup may be under way while another is restored.
  const [taking, restoring] = [1, 2].map(() => element("p", { class: "notice", role: "status" }));
  const file = element("input", {
    type: "file",
    id: "backup-file",
    onchange: () => (send.disabled = file.files.length === 0),
  });
  const send = button("Restore …", () => restore(), { class: "danger", disabled: true });

  async function take() {
    say(taking, "Taking a backup …");
    try {
      const answer = await call("GET", "/backup", { patience_ms: 0 });
      const index = answer.headers.get("X-Backup-Index") ?? "";
      const blob = await answer.blob();
      save(blob, `cacheflow-${index}.backup`);
      outcome(taking, [`A backup of ${bytes(blob.size)}, of the log's place ${index}.`]);
    } catch (error) {
      outcome(taking, [`No backup: ${error.message}.`]);
    }
  }

  async function restore() {
    const [chosen] = file.files;
    const question = [`Put this backup of ${bytes(chosen.size)} in the place of everything that the cluster holds?`];
    if (!(await confirmed(question, "Restore it", REPLACED))) return;
    say(restoring, "Restoring: until it is done the cluster serves no clients …");
    try {
      const answer = await call("POST", "/restore", { body: chosen, patience_ms: 0 });
      const { items } = await read(answer.json());
      outcome(restoring, [`Restored: ${counted(items, "item")}.`]);
    } catch (error) {
      outcome(restoring, [notDone("restored", error)], ["The backup: ", notDone("restored", error)]);
    }
    askAgain();
  }

  return element(
    "div",
    { class: "panel fields" },
    element("h3", {}, "Backups"),
    element("p", { class: "hint" }, "A backup has all keys and values as they are at one place of the log."),
    element("div", { class: "buttons" }, button("Take a backup", take)),
    taking,
    element("label", { for: "backup-file" }, "A backup to restore"),
    file,
    element("div", { class: "buttons" }, send),
    restoring,
  );
}
