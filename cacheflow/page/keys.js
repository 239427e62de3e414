// The view of keys: those of a prefix in pages of a hundred, live, and beside them the one that is chosen.
//
// The address says what is seen: "#keys?prefix=user:&after=user:99&key=user:100".

import { addressOf } from "./address.js";
import { call, hasToken, onToken, read } from "./calls.js";
import { button, element, say } from "./dom.js";
import { Freshness } from "./freshness.js";
import { KeyDetail } from "./key_detail.js";
import { drawList } from "./key_list.js";
import { KeyPage } from "./key_page.js";
import { NODE_EVERY_MS, node, onNode } from "./node.js";
import { Watching } from "./watching.js";
import { foreign, counted } from "./words.js";

const PAGE_KEYS = 100;
// Milliseconds: a list of a large cache takes the node longer than other answers.
const PATIENCE_MS = 20000;
const AGAIN_MS = 2000;
const DRAW_MS = 200;
const TYPING_MS = 300;

/** Fills `section` with the view and returns {show, hide}. */
export function keysView(section) {
  const parts = frame(section, typed);
  const freshness = new Freshness(parts.age, NODE_EVERY_MS);
  const detail = new KeyDetail(parts.detail, {
    chosen: (key) => go({ key }),
    left: () => go({ key: null, new: null }),
  });
  let [isSeen, wanted, page, round] = [false, null, null, null];
  // The watch of the keys that are listed, and the one of the chosen key where that is none of theirs; why either has ended.
  let [watching, watchingKey, failure, keyFailure] = [null, null, null, null];
  let [againTimer, drawTimer, typingTimer] = [0, 0, 0];
  // Which key the page that begins behind a key comes after: the way back.
  const before = new Map();

  function typed() {
    clearTimeout(typingTimer);
    typingTimer = setTimeout(() => {
      typingTimer = 0;
      go({ prefix: parts.prefix.value, after: null }, true);
    }, TYPING_MS);
  }

  /** Goes to another address of this view; a reader who has left the view stays where they are. */
  function go(changes, replaces = false) {
    if (!isSeen) return;
    const address = addressOf(changes);
    if (replaces) location.replace(address);
    else location.hash = address;
  }

  /** Lists the keys that are wanted, and watches them from there on. */
  async function list() {
    stop();
    if (!isSeen || document.hidden) return;
    const { signal } = (round = new AbortController());
    const { prefix, after } = wanted;
    draw();
    try {
      const query = { prefix: prefix || null, limit: PAGE_KEYS, cursor: after || null };
      const answer = await call("GET", "/cache", { query, signal, patience_ms: PATIENCE_MS });
      const { keys, cursor } = await read(answer.json(), signal);
      if (signal.aborted) return;
      if (isOld()) parts.list.scrollTop = 0;
      page = new KeyPage(prefix, after, keys, cursor);
      failure = null;
      watching = new Watching(prefix, answer.headers.get("X-Watch-Position"), { told, anew: list, state });
      watchKey();
      // What has become of the chosen key before the watches began, none of them tells.
      detail.lookAgain(0);
      draw();
    } catch (error) {
      if (signal.aborted) return;
      failure = error;
      const isFinal = error.status >= 400 && error.status < 500;
      if (!isFinal) againTimer = setTimeout(list, AGAIN_MS);
      else if (isOld()) {
        page = null;
        freshness.note({ answered_ms: null, error });
      }
      if (page === null || isOld()) draw();
    }
    look();
  }

  /** Watches the chosen key by itself where it is none of those that are listed. */
  function watchKey() {
    const { prefix, key } = wanted;
    const asked = watching === null || key === null || key.startsWith(prefix) ? null : key;
    if (asked === (watchingKey?.prefix ?? null)) return;
    watchingKey?.close();
    [watchingKey, keyFailure] = [null, null];
    if (asked === null) return;
    watchingKey = new Watching(asked, watching.position, {
      told: (changes) => detail.take(changes),
      anew: list,
      state: (error) => ((keyFailure = error || null), look()),
    });
  }

  function stop() {
    round?.abort();
    watching?.close();
    clearTimeout(againTimer);
    clearTimeout(drawTimer);
    [round, watching, drawTimer] = [null, null, 0];
    watchKey();
  }

  function told(changes) {
    let isOther = false;
    for (const change of changes) isOther = page.take(change) || isOther;
    detail.take(changes);
    if (isOther) drawTimer ||= setTimeout(draw, DRAW_MS);
  }

  function state(error) {
    failure = error || null;
    look();
  }

  /** Says how old the list is: a watch that lives is as good as the node's last sign of life. */
  function look() {
    const error = failure ?? keyFailure ?? node.error;
    if (error) freshness.bad(error);
    else if (watching !== null) freshness.note({ answered_ms: performance.now(), error: null });
  }

  /** Returns whether the page that is held is not the one that is wanted, which has not come yet. */
  function isOld() {
    return page !== null && (page.prefix !== wanted.prefix || page.after !== wanted.after);
  }

  function draw() {
    drawTimer = 0;
    parts.list.setAttribute("aria-busy", isOld());
    if (page === null || isOld()) return drawAwaited();
    if (page.keys.length === 0 && page.next !== null) return go({ after: page.next }, true);
    drawList(parts.list, page.keys, wanted);
    const more = page.next !== null;
    say(parts.count, page.keys.length ? `${counted(page.keys.length, "key")} here${more ? ", more follow" : ""}` : "");
    const isFirst = page.after === "";
    parts.none.hidden = page.keys.length > 0;
    say(parts.none, page.prefix || !isFirst ? "No key begins so, from here on." : "There are no keys.");
    if (more) before.set(page.next, page.after);
    parts.first.hidden = isFirst;
    parts.previous.hidden = isFirst || !before.has(page.after);
    parts.next.hidden = !more;
    parts.first.href = addressOf({ after: null });
    if (before.has(page.after)) parts.previous.href = addressOf({ after: before.get(page.after) });
    if (more) parts.next.href = addressOf({ after: page.next });
  }

  /** Shows that the keys that are wanted have not come, and of which other ones those are that are seen until then. */
  function drawAwaited() {
    const keys = page?.keys ?? [];
    drawList(parts.list, keys, wanted);
    parts.count.replaceChildren(failure === null ? "Asking …" : "Not read.");
    if (keys.length && page.prefix === wanted.prefix) parts.count.append(" Here is still another page.");
    else if (keys.length && page.prefix === "") parts.count.append(" Here are still keys of all prefixes.");
    else if (keys.length) parts.count.append(" Here are still keys that begin with ", foreign(page.prefix), ".");
    for (const part of [parts.none, parts.first, parts.previous, parts.next]) part.hidden = true;
  }

  parts.fresh.addEventListener("click", () => go({ key: null, new: "" }));
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : isSeen && list()));
  let hadToken = hasToken();
  onToken(() => {
    if (hadToken && !hasToken()) {
      // Who forgets the token leaves nothing of what it has shown.
      page = null;
      detail.forget();
    }
    hadToken = hasToken();
    if (isSeen) {
      list();
      detail.lookAgain(0);
    }
  });
  onNode(() => isSeen && look());
  return {
    show(asked) {
      const next = { prefix: asked.get("prefix") ?? "", after: asked.get("after") ?? "" };
      const isOther = wanted === null || next.prefix !== wanted.prefix || next.after !== wanted.after || !isSeen;
      isSeen = true;
      if (wanted?.prefix !== next.prefix) before.clear();
      wanted = { ...next, key: asked.get("key") };
      // What is being typed is asked for soon.
      if (document.activeElement !== parts.prefix && !typingTimer) parts.prefix.value = next.prefix;
      if (isOther) {
        // What was said of other keys is not said of these.
        failure = null;
        freshness.note({ answered_ms: freshness.answered_ms, error: null });
        list();
      } else {
        watchKey();
        draw();
      }
      const isChosen = document.activeElement?.closest("[data-key]")?.dataset.key === wanted.key;
      if (asked.has("new")) detail.create(next.prefix);
      else detail.show(wanted.key);
      // The reader goes on there: between it and the list may lie a hundred links, and in a narrow window a scroll.
      if (isChosen) detail.focus();
    },
    hide() {
      isSeen = false;
      clearTimeout(typingTimer);
      typingTimer = 0;
      detail.rest();
      stop();
    },
  };
}

function frame(section, typed) {
  const parts = {
    age: element("p", { class: "age", hidden: true }),
    prefix: element("input", {
      id: "prefix",
      type: "search",
      autocomplete: "off",
      spellcheck: "false",
      oninput: typed,
    }),
    fresh: button("New key …", () => {}),
    list: element("ul", { class: "keys", "aria-label": "Keys" }),
    none: element("p", { class: "hint", hidden: true }),
    count: element("p", { class: "hint" }),
    first: element("a", { hidden: true, href: "#keys" }, "First page"),
    previous: element("a", { hidden: true, href: "#keys" }, "Previous"),
    next: element("a", { hidden: true, href: "#keys" }, "Next page"),
    detail: element("div", { class: "panel detail" }),
  };
  section.append(
    element("h2", { id: "keys-title", tabindex: "-1" }, "Keys"),
    parts.age,
    element(
      "div",
      { class: "browse" },
      element(
        "div",
        { class: "panel" },
        element(
          "form",
          { class: "line", role: "search", onsubmit: (event) => event.preventDefault() },
          element("label", { for: "prefix" }, "Keys that begin with"),
          parts.prefix,
          parts.fresh,
        ),
        parts.count,
        parts.none,
        parts.list,
        element("nav", { class: "line pages", "aria-label": "Pages of keys" }, parts.first, parts.previous, parts.next),
      ),
      parts.detail,
    ),
  );
  return parts;
}
