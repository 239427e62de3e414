// The view of the cluster: what is wrong, in words; a picture of the members; the same as a table; the latest figures.

import { element, renew, row, say, table } from "./dom.js";
import { EVENTS_EVERY_MS, events, onEvents, wantEvents } from "./event_list.js";
import { eventRow } from "./events.js";
import { Freshness } from "./freshness.js";
import { HISTORY_EVERY_MS, history, latest, onHistory, seriesOf, wantHistory } from "./history.js";
import { NODE_EVERY_MS, leaderId, node, onNode } from "./node.js";
import { pictureOf } from "./picture.js";
import { roleOf, troublesOf, changeOf } from "./troubles.js";
import { bytes, counted, duration, foreign, number, rough, time } from "./words.js";

const COLUMNS = ["Member", "State", "Role", "Connection", "Lag", "Heard", "Under way", "Build"];
const LATEST_EVENTS = 8;
const ADDRESS = /^(?:(https?):\/\/)?((?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5})$/;

/** Fills `section` with the view and returns {show, hide}. */
export function clusterView(section) {
  const age = element("p", { class: "age", hidden: true });
  const troubles = element("ul", { class: "troubles", "aria-label": "What is wrong", hidden: true });
  const picture = element("div", { class: "picture" });
  const body = element("tbody");
  const figures = element("dl", { class: "figures" });
  const place = element("dl", { class: "apart", "aria-label": "Place in the log" });
  const recent = element("ol", { class: "events" });
  const freshness = new Freshness(age, NODE_EVERY_MS);
  // Figures and events are asked for apart: one may stay away while the rest comes.
  const [figuresAge, recentAge] = [1, 2].map(() => element("p", { class: "age", hidden: true }));
  const figuresFreshness = new Freshness(figuresAge, HISTORY_EVERY_MS, "figures");
  const recentFreshness = new Freshness(recentAge, EVENTS_EVERY_MS, "events");
  section.append(
    element("h2", { id: "cluster-title", tabindex: "-1" }, "Cluster"),
    age,
    troubles,
    figuresAge,
    figures,
    element(
      "div",
      { class: "beside" },
      element("figure", { class: "panel" }, picture, legend()),
      element("div", { class: "panel" }, element("h3", {}, "Latest events"), recentAge, recent),
      element(
        "div",
        { class: "panel wide whole", tabindex: "0", role: "region", "aria-label": "Members, as a table" },
        table("Members, as this node and its leader see them", COLUMNS, body),
        place,
      ),
    ),
  );

  function draw() {
    freshness.note(node);
    const status = node.status;
    if (status === null) return;
    const leader = leaderId();
    showTroubles(troubles, troublesOf(status, leader), leader);
    renew(picture, [pictureOf(status, leader)]);
    renew(
      body,
      status.members.map((member) => memberRow(member, status, leader)),
    );
    renew(place, [
      fact("Term", number(status.term)),
      fact("Committed", number(status.commit_index)),
      fact("Applied here", number(status.applied_index)),
      fact("Revision", number(status.revision)),
      fact("Feature level", `${status.level} of ${status.build.level}`),
      fact("Contents at most", status.staleness === null ? "of unknown age" : `${duration(status.staleness)} old`),
    ]);
  }

  onNode(draw);
  onHistory(() => {
    figuresFreshness.note(history);
    showFigures(figures);
  });
  onEvents(() => {
    recentFreshness.note(events);
    renew(recent, events.list.slice(-LATEST_EVENTS).reverse().map(eventRow));
  });
  return {
    show() {
      wantHistory("cluster", true);
      wantEvents("cluster", true);
    },
    hide() {
      wantHistory("cluster", false);
      wantEvents("cluster", false);
    },
  };
}

function showTroubles(place, troubles, leader) {
  // A node that does not answer is not well, whatever it has said before.
  const isWell = troubles.length === 0 && leader !== null && !node.status.failure && node.error === null;
  const texts = isWell ? ["Nothing is wrong: this node is ready and all members are up."] : troubles;
  place.classList.toggle("well", isWell);
  place.hidden = texts.length === 0;
  renew(
    place,
    texts.map((text) => element("li", {}, text)),
  );
}

function memberRow(member, status, leader) {
  const name = element("span", {}, foreign(member.id));
  if (member.id === status.node_id) name.append(element("span", { class: "mark" }, "this node"));
  else {
    const page = pageOf(member.address);
    if (page !== null) name.append(" ", element("a", { href: page, rel: "noreferrer", class: "mark" }, "its page"));
  }
  const lag = member.lag === null ? "known to the leader" : counted(member.lag, "entry", "entries");
  const heard =
    member.last_seen === null ? "never" : member.last_seen < 2 ? "just now" : `${duration(member.last_seen)} ago`;
  return row(
    COLUMNS,
    name,
    element("span", { class: "chip", "data-tone": member.status === "up" ? "good" : "bad" }, member.status),
    roleOf(member, leader),
    member.connected === null ? "–" : member.connected ? "open" : "broken",
    lag,
    member.id === status.node_id ? "–" : heard,
    changeOf(member) || "–",
    member.build ?? "unknown",
  );
}

/** Returns the URL of the page at `address`, host:port with a scheme or with this page's; null if it is no such address. */
export function pageOf(address) {
  const [, scheme, place] = ADDRESS.exec(address) ?? [];
  return place ? `${scheme ? `${scheme}:` : location.protocol}//${place}/` : null;
}

function fact(name, text) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, text));
}

function legend() {
  const parts = [
    ["leader", "leads"],
    ["up", "up"],
    ["down", "down"],
  ];
  return element(
    "figcaption",
    {},
    ...parts.map(([kind, text]) => element("span", { class: `key ${kind}` }, text)),
    " Lines: the connections of this node.",
  );
}

function showFigures(place) {
  if (history.error !== null && !history.times.length) return;
  const [hits, misses] = [latest("hits"), latest("misses")];
  const looked = (hits ?? 0) + (misses ?? 0);
  const told = [
    ["Reads", rate(latest("reads")), ""],
    ["Writes", rate(latest("writes")), ""],
    ["Hit ratio", looked ? `${rough((100 * hits) / looked)} %` : "–", ""],
    ["Items", said(latest("items"), number), limit(latest("max_items"), number)],
    ["Bytes", said(latest("bytes"), bytes), limit(latest("max_bytes"), bytes)],
    ["99 of 100 faster than", slowest(), ""],
  ];
  if (place.children.length !== told.length) {
    place.replaceChildren(
      ...told.map(([name]) => element("div", {}, element("dt", {}, name), element("dd"), element("dd"))),
    );
  }
  told.forEach(([, text, more], at) => {
    const [, shown, below] = place.children[at].children;
    say(shown, text);
    say(below, more);
    below.hidden = more === "";
  });
}

function rate(value) {
  return value === null ? "–" : `${rough(value)}/s`;
}

function said(value, inWords) {
  return value === null ? "–" : inWords(value);
}

function limit(most, inWords) {
  return most ? `of ${inWords(most)} at most` : "no limit";
}

function slowest() {
  const values = seriesOf("p99_ms")
    .map(latest)
    .filter((value) => value !== null);
  return values.length ? `about ${time(Math.max(...values))}` : "–";
}
