// How many streams of changes this browser's pages hold open. A browser has six connections to a host, for all its pages
// together: were each one a stream, no page could ask anything any more.

// The other connections are for questions.
const SEATS = 3;
// Milliseconds within which a page that is seen says what it holds. One that is late is not counted: there is room for some more.
const ASK_MS = 50;

const channel = new BroadcastChannel("cacheflow-streams");
let held = 0;
let elsewhere = 0;

channel.addEventListener("message", ({ data }) => {
  if (data === "held?") {
    if (held > 0) channel.postMessage(held);
  } else elsewhere += data;
});

/** Returns a function that gives the place for a stream back; null if all places are taken. */
export async function takeSeat() {
  elsewhere = 0;
  channel.postMessage("held?");
  await new Promise((settle) => setTimeout(settle, ASK_MS));
  if (held + elsewhere >= SEATS) return null;
  held++;
  return () => held--;
}
