// Questions before something is done that cannot be undone.

import { button, element } from "./dom.js";
import { foreign } from "./words.js";

/**
 * Asks whether to go on; returns whether the reader wants to. `question`: texts and elements; `act`: the text of the button;
 * `typed`: what the reader has to type first; "" for nothing.
 */
export function confirmed(question, act, typed = "") {
  return new Promise((settle) => {
    let answer = false;
    const go = element("button", { type: "submit", class: "danger", disabled: typed !== "" }, act);
    const field = element("input", {
      id: "typed",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => (go.disabled = field.value !== typed),
    });
    const leave = () => dialog.close();
    const closed = () => {
      removeEventListener("hashchange", leave);
      dialog.remove();
      settle(answer);
    };
    const dialog = element(
      "dialog",
      { "aria-labelledby": "question", onclose: closed },
      element(
        "form",
        {
          onsubmit: (event) => {
            event.preventDefault();
            answer = true;
            dialog.close();
          },
        },
        element("h2", { id: "question" }, ...[question].flat()),
        typed === ""
          ? null
          : element("label", { for: "typed" }, "Type ", element("b", {}, foreign(typed)), " to confirm"),
        typed === "" ? null : field,
        element(
          "div",
          { class: "buttons" },
          button("Cancel", leave),
          go,
        ),
      ),
    );
    document.body.append(dialog);
    // Who goes elsewhere by the browser's buttons is asked no more.
    addEventListener("hashchange", leave);
    dialog.showModal();
  });
}
