// The frame: which view is seen, what stands above all views, and where they begin.
//
// calls.js asks the node; node.js, history.js and watching.js keep what it has said; each view shows that and nothing else.

import { askedIn } from "./address.js";
import { clusterView } from "./cluster.js";
import { say } from "./dom.js";
import { eventsView } from "./events.js";
import { keysView } from "./keys.js";
import { membersView } from "./members.js";
import { follow, leaderId, node, onNode } from "./node.js";
import { plotsView } from "./plots.js";
import { enterToken, needToken } from "./token.js";
import { whyNoWrites } from "./troubles.js";
import { plain } from "./words.js";

const MAKERS = { cluster: clusterView, plots: plotsView, events: eventsView, keys: keysView, members: membersView };

const views = {};
let seen = "";

/** Shows the view that the address names, "#keys?prefix=user:" for example; the first one where it names none. */
function route() {
  const [asked, query] = askedIn(location.hash);
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
  }
  views[name] ??= MAKERS[name](section);
  views[name].show(query);
  // A reader who has chosen a view goes on there; at the first one the page itself is read.
  if (seen && name !== seen) section.querySelector("h2").focus();
  seen = name;
  showTitle();
}

/** Has the window's title name the view, and the node once it has said who it is. */
function showTitle() {
  const view = document.querySelector("header nav a[aria-current]").textContent;
  const whose = node.status === null ? "" : ` · ${plain(node.status.node_id, 40)}`;
  document.title = `${view}${whose} · CacheFlow`;
}

/** Shows above all views whose page this is and how the node is. */
function showState() {
  const { status, error } = node;
  const [chip, banner] = ["state", "banner"].map((id) => document.getElementById(id));
  if (status !== null) say(document.getElementById("this-node"), plain(status.node_id, 40));
  showTitle();
  let [tone, text] = ["good", ""];
  if (error !== null) [tone, text] = error.status === 401 ? ["warn", "asks for a token"] : ["bad", "no answer"];
  else if (status.failure) [tone, text] = ["bad", "takes no part"];
  else if (leaderId() === null) [tone, text] = ["bad", "no leader"];
  else if (status.checks.some(({ passed }) => !passed)) [tone, text] = ["bad", "not ready"];
  else text = `ready · ${status.role}`;
  const lacking = status === null || error !== null ? "" : whyNoWrites(status, leaderId());
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
