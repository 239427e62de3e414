// The view for operators: members and their votes, the cluster's settings, backups. Each change needs the role admin.

import { call, notDone, onToken } from "./calls.js";
import { backupPanel } from "./backups.js";
import { confirmed } from "./confirming.js";
import { button, element, renew, row, table } from "./dom.js";
import { Freshness } from "./freshness.js";
import { NODE_EVERY_MS, askAgain, leaderId, node, onNode } from "./node.js";
import { outcome } from "./outcomes.js";
import { SettingsForm } from "./settings.js";
import { changeOf, roleOf } from "./troubles.js";
import { foreign } from "./words.js";

const COLUMNS = ["Member", "Role", "State", "Under way", "Change"];
// Milliseconds: a member that catches up before it votes takes as long as the node's --request-timeout.
const PATIENCE_MS = 30000;

/** Fills `section` with the view and returns {show, hide}. */
export function membersView(section) {
  const age = element("p", { class: "age", hidden: true });
  const notices = element("div", { class: "notices", role: "status" });
  // A line for each change that was asked for: some are under way at once.
  const underWay = new Set();
  const body = element("tbody");
  const freshness = new Freshness(age, NODE_EVERY_MS);
  const settings = new SettingsForm();
  let isSeen = false;
  section.append(
    element("h2", { id: "members-title", tabindex: "-1" }, "Members and settings"),
    age,
    element(
      "p",
      { class: "hint" },
      "Where tokens are asked for, what is done here needs one of an admin: the button “Token …” above takes it.",
    ),
    element(
      "div",
      { class: "panel wide", tabindex: "0", role: "region", "aria-label": "Members, and what can be done with them" },
      notices,
      table("Members", COLUMNS, body),
    ),
    element("div", { class: "beside" }, settings.element, backupPanel()),
  );

  /** Does one change of `member` and says how it came out: that it is what `done` says, or why not. */
  async function change(member, done, method, path, json) {
    const line = element("p", { class: "notice" }, foreign(member.id), ": asking …");
    for (const old of [...notices.children]) if (!underWay.has(old)) old.remove();
    notices.append(line);
    underWay.add(line);
    try {
      await call(method, path, { json, patience_ms: PATIENCE_MS });
      outcome(line, [foreign(member.id), ` ${done}.`]);
    } catch (error) {
      outcome(line, [foreign(member.id), `: ${notDone("done", error)}`]);
    }
    underWay.delete(line);
    askAgain();
  }

  const pathOf = (member, what = "") => `/nodes/${encodeURIComponent(member.id)}${what}`;

  async function remove(member) {
    const question = ["Take ", foreign(member.id), " out of the cluster for good?"];
    if (!(await confirmed(question, "Remove it", member.id))) return;
    await change(member, "is removed", "DELETE", pathOf(member));
  }

  async function demote(member) {
    const question = ["Take its vote from ", foreign(member.id), "?"];
    if (!(await confirmed(question, "Demote it", member.id))) return;
    await change(member, "is an observer now", "POST", pathOf(member, "/demote"), {});
  }

  function memberRow(member, leader) {
    const acts = element("div", { class: "buttons" });
    const lead = () => change(member, "leads now", "POST", "/cluster/leader", { id: member.id });
    const promote = () => change(member, "votes now", "POST", pathOf(member, "/promote"), {});
    // Read aloud, a button says whom it is about.
    const act = (text, press, properties) =>
      acts.append(button(text, press, { ...properties, "aria-label": `${text.replace(" …", "")}: ${member.id}` }));
    // A node that takes no part changes nothing.
    if (node.status.failure) return row(COLUMNS, foreign(member.id), roleOf(member, leader), member.status, "–", "–");
    if (member.voter && member.id !== leader) act("Make leader", lead);
    if (member.voter) act("Demote …", () => demote(member));
    else act("Promote", promote);
    act("Remove …", () => remove(member), { class: "danger" });
    return row(COLUMNS, foreign(member.id), roleOf(member, leader), member.status, changeOf(member) || "–", acts);
  }

  function draw() {
    freshness.note(node);
    if (node.status === null) return;
    const leader = leaderId();
    const { members } = node.status;
    renew(
      body,
      members.map((member) => memberRow(member, leader)),
    );
    if (isSeen) settings.follow(node.status.configuration.version);
  }

  onNode(draw);
  onToken(() => isSeen && settings.load());
  return {
    show() {
      isSeen = true;
      draw();
    },
    hide() {
      isSeen = false;
    },
  };
}
