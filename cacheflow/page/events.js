// The view of events: what has happened at this node, the latest first.

import { element, say } from "./dom.js";
import { EVENTS_EVERY_MS, events, onEvents, wantEvents } from "./event_list.js";
import { Freshness } from "./freshness.js";
import { foreign, moment } from "./words.js";

/** Fills `section` with the view and returns {show, hide}. */
export function eventsView(section) {
  const age = element("p", { class: "age", hidden: true });
  const none = element("p", { class: "hint" }, "Asking …");
  const list = element("ol", { class: "events panel" });
  const kind = element("select", { id: "kind", onchange: () => draw() }, element("option", { value: "" }, "all"));
  const freshness = new Freshness(age, EVENTS_EVERY_MS);
  section.append(
    element("h2", { id: "events-title", tabindex: "-1" }, "Events"),
    age,
    element("p", { class: "line" }, element("label", { for: "kind" }, "Show "), kind),
    none,
    list,
  );
  let shown = "";

  function draw() {
    freshness.note(events);
    const kinds = [...new Set(events.list.map((event) => event.what))].sort();
    for (const what of kinds) {
      if (![...kind.options].some((option) => option.value === what))
        kind.append(element("option", { value: what }, what));
    }
    const wanted = events.list.filter((event) => !kind.value || event.what === kind.value);
    const state = `${kind.value} ${wanted.length} ${wanted[0]?.number} ${wanted.at(-1)?.number}`;
    if (state === shown) return;
    shown = state;
    none.hidden = wanted.length > 0;
    say(none, events.error === null ? "Nothing has happened since this node was started." : "");
    list.replaceChildren(...wanted.reverse().map(eventRow));
  }

  onEvents(draw);
  return { show: () => wantEvents("events", true), hide: () => wantEvents("events", false) };
}

/** Returns the row of a list that shows an event. */
export function eventRow(event) {
  const time = new Date(event.at * 1000);
  return element(
    "li",
    {},
    element("time", { datetime: time.toISOString(), title: time.toLocaleString() }, moment(event.at)),
    element("span", { class: "chip", "data-tone": event.what === "alarm" ? "warn" : "quiet" }, foreign(event.what)),
    element("span", {}, foreign(event.text)),
  );
}
