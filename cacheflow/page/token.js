// The field for a user's token.

import { hasToken, setToken } from "./calls.js";
import { button, element, say } from "./dom.js";

let dialog = null;
let asked = false;

/** Opens the field for a token. */
export function enterToken() {
  open("");
}

/** Opens the field for a token because the node has refused a call, once: a reader may close it. */
export function needToken(error) {
  if (asked && !hasToken()) return;
  if (dialog?.open) return;
  asked = true;
  open(error.message);
}

function open(text) {
  dialog ??= made();
  why(text);
  if (!dialog.open) dialog.showModal();
}

/** Says in the dialog why a token is asked for. */
function why(text) {
  say(dialog.querySelector(".why"), text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "");
}

function made() {
  const field = element("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false" });
  const use = (event) => {
    event.preventDefault();
    try {
      setToken(field.value);
    } catch (error) {
      return why(error.message);
    }
    field.value = "";
    dialog.close();
  };
  const made = element(
    "dialog",
    { "aria-labelledby": "token-title" },
    element(
      "form",
      { onsubmit: use },
      element("h2", { id: "token-title" }, "Token"),
      element("p", { class: "why bad", role: "alert" }),
      element("label", { for: "token" }, "A user's token"),
      field,
      element(
        "p",
        { class: "hint" },
        "It stays in this page's memory until that is closed or loaded again, and is kept nowhere. An empty field forgets it.",
      ),
      element(
        "div",
        { class: "buttons" },
        button("Cancel", () => dialog.close()),
        element("button", { type: "submit", class: "first" }, "Use it"),
      ),
    ),
  );
  document.body.append(made);
  return made;
}
