// The frame: which view is seen, what stands above all views, and where they begin.
//
// calls.js asks the node; node.js, history.js and watching.js keep what it has said; each view shows that and nothing else.

import { clusterView } from "./cluster.js";
import { say } from "./dom.js";
import { eventsView } from "./events.js";
import { keysView } from "./keys.js";
import { membersView } from "./members.js";
import { follow, leaderId, node, onNode } from "./node.js";
import { plotsView } from "./plots.js";
import { enterToken, needToken } from "./token.js";
import { noLeader } from "./troubles.js";
import { plain } from "./words.js";

const MAKERS = { cluster: clusterView, plots: plotsView, events: eventsView, keys: keysView, members: membersView };

const views = {};
let seen = "";

/** Shows the view that the address names, "#keys?prefix=user:" for example; the first one where it names none. */
function route() {
  const [asked, query = ""] = location.hash.slice(1).split("?", 2);
  const name = Object.hasOwn(MAKERS, asked) ? asked : "cluster";
  // Not the name itself: the browser would scroll to it, and the reader's next Tab would begin there.
  const section = document.getElementById(`view-${name}`);
  if (name !== seen) {
    if (seen) {
      document.getElementById(`view-${seen}`).hidden = true;
      views[seen].hide();
    }
    section.hidden = false;
    for (const link of document.querySelectorAll("header nav a")) {
      if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const title = document.querySelector(`header nav a[href="#${name}"]`).textContent;
    document.title = `${title} · CacheFlow`;
  }
  views[name] ??= MAKERS[name](section);
  views[name].show(new URLSearchParams(query));
  // A reader who has chosen a view goes on there; at the first one the page itself is read.
  if (seen && name !== seen) section.querySelector("h2").focus();
  seen = name;
}

/** Shows above all views whose page this is and how the node is. */
function showState() {
  const { status, error } = node;
  const [chip, banner] = ["state", "banner"].map((id) => document.getElementById(id));
  if (status !== null) say(document.getElementById("this-node"), plain(status.node_id, 40));
  let [tone, text] = ["good", ""];
  if (error !== null) [tone, text] = error.status === 401 ? ["warn", "asks for a token"] : ["bad", "no answer"];
  else if (leaderId() === null) [tone, text] = ["bad", "no leader"];
  else if (status.checks.some(({ passed }) => !passed)) [tone, text] = ["bad", "not ready"];
  else text = `ready · ${status.role}`;
  const lacking = status === null || error !== null ? "" : noLeader(status, leaderId());
  banner.hidden = lacking === "";
  say(banner, lacking);
  chip.dataset.tone = tone;
  say(chip, text);
  // Screen readers are told when this changes, and not every two seconds.
  say(document.getElementById("told"), error === null ? `This node: ${text}` : `This node: ${error.message}`);
  if (error?.status === 401) needToken(error);
}

document.querySelector(".skip").addEventListener("click", (event) => {
  // The address goes on saying which view is seen.
  event.preventDefault();
  document.getElementById("main").focus();
});
document.getElementById("token-button").addEventListener("click", enterToken);
window.addEventListener("hashchange", route);
onNode(showState);
follow();
route();
