// What the answers of a node mean, in words for people.

import { counted, duration, plain } from "./words.js";

/** Returns the role of a member in one word or two. */
export function roleOf(member, leader) {
  if (member.id === leader) return "leader";
  if (member.voter) return "voter";
  return member.observer ? "observer" : "spare";
}

/** Returns which change of a member is under way; "" if none is, as far as this node knows. */
export function changeOf(member) {
  const change = member.change;
  if (change === null || change === undefined) return "";
  const since = change.since === null ? "" : ` for ${duration(change.since)}`;
  if (change.what === "replacement" && change.due === null) return `waits${since} for a spare to replace it`;
  const due = change.due === null ? "" : `, due in ${duration(change.due)}`;
  return `${change.what}${since}${due}`;
}

/** Returns why nothing can be written through this node, as a sentence or two: it has failed, or knows no leader; else "". */
export function whyNoWrites(status, leader) {
  if (leader !== null && !status.failure) return "";
  const old =
    status.staleness === null
      ? ""
      : ` What it shows of the cluster and of its keys may be ${duration(status.staleness)} old.`;
  if (status.failure) return `This node takes no part any more: ${plain(status.failure)}.${old}`;
  return `No leader is known to this node: nothing can be written through it until there is one.${old}`;
}

/** Returns what else is wrong, a sentence each, the worst first; nothing if all is well, or if the node has failed. */
export function troublesOf(status, leader) {
  const told = [];
  // What it knows of the others is of before.
  if (status.failure) return told;
  for (const { name, passed, detail } of status.checks) {
    if (!passed && name !== "leader") told.push(`This node is not ready: ${name} ${plain(detail)}.`);
  }
  const down = status.members.filter((member) => member.status === "down");
  if (down.length) {
    const ids = down.map((member) => plain(member.id, 40)).join(", ");
    told.push(
      `${counted(down.length, "member")} of ${status.members.length} ${down.length === 1 ? "is" : "are"} down: ${ids}.`,
    );
  }
  const voters = status.members.filter((member) => member.voter);
  const up = voters.filter((member) => member.status === "up").length;
  const majority = Math.floor(voters.length / 2) + 1;
  if (leader !== null && up === majority && down.length) {
    told.push("One voter more that goes down, and nothing can be written.");
  }
  const wanted = status.configuration.replicas + 1;
  const could = status.members.filter((member) => !member.observer).length;
  if (voters.length < Math.min(wanted, could))
    told.push(`Only ${voters.length} of ${counted(wanted, "member")} may vote.`);
  for (const member of status.members) {
    const change = changeOf(member);
    if (change) told.push(`${plain(member.id, 40)}: ${change}.`);
  }
  const restore = status.restore;
  if (restore && !restore.ended)
    told.push(`A restore is under way: ${restore.done} of ${counted(restore.items, "item")}.`);
  return told;
}
