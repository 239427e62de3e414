// The picture of a cluster: members in the order of their ids, and which of them this node reaches.
//
// A few stand on a circle. Many, or those in a narrow window, stand in a column beside this node: on a circle their boxes would
// be too small to be read.

import { drawn } from "./dom.js";
import { changeOf, roleOf } from "./troubles.js";
import { plain, counted } from "./words.js";

const ROUND_MAX = 5;
const CIRCLE = { width: 500, height: 310, box: { width: 168, height: 66 } };
const COLUMN = { width: 340, distance: 76, box: { width: 140, height: 66 } };
// Pixels of a letter of an id.
const LETTER = 9.8;

/** Returns the picture as an SVG element, with a sentence that says what is seen. */
export function pictureOf(status, leader) {
  const members = [...status.members].sort((one, other) => (one.id < other.id ? -1 : 1));
  const isRound = members.length <= ROUND_MAX && !matchMedia("(max-width: 500px)").matches;
  const { width, box } = isRound ? CIRCLE : COLUMN;
  const ids = members.map((member) => member.id);
  const places = isRound ? onCircle(ids) : inColumn(ids, status.node_id);
  const here = places.get(status.node_id);
  const [top, bottom] = [Math.min, Math.max].map((most) => most(...[...places.values()].map(({ y }) => y)));
  const edge = box.height / 2 + 4;
  const picture = drawn("svg", {
    viewBox: `0 ${top - edge} ${width} ${bottom - top + 2 * edge}`,
    role: "img",
    "aria-label": sentence(members, leader),
  });
  // Lines to a column go from edge to edge, and behind no other box.
  const reach = isRound ? 0 : box.width / 2;
  for (const member of members) {
    const there = places.get(member.id);
    const [from, to] = [(here?.x ?? 0) + reach, there.x - reach];
    if (here && there !== here) picture.append(link({ x: from, y: here.y }, { x: to, y: there.y }, member));
  }
  for (const member of members) picture.append(boxOf(member, places.get(member.id), box, status, leader));
  return picture;
}

function onCircle(ids) {
  const { width, height, box } = CIRCLE;
  const [across, down] = ids.length === 1 ? [0, 0] : [(width - box.width) / 2 - 6, (height - box.height) / 2 - 6];
  const angle = (number) => (2 * Math.PI * number) / ids.length - Math.PI / 2;
  const placeOf = (turn) => ({ x: width / 2 + across * Math.cos(turn), y: height / 2 + down * Math.sin(turn) });
  return new Map(ids.map((id, number) => [id, placeOf(angle(number))]));
}

function inColumn(ids, here) {
  const { width, distance, box } = COLUMN;
  const others = ids.filter((id) => id !== here);
  const edge = box.width / 2 + 4;
  const places = new Map(others.map((id, number) => [id, { x: width - edge, y: number * distance }]));
  if (ids.includes(here)) places.set(here, { x: edge, y: ((others.length - 1) * distance) / 2 });
  return places;
}

function link(from, to, member) {
  const kind = member.connected ? "up" : "down";
  const line = drawn("line", { x1: from.x, y1: from.y, x2: to.x, y2: to.y, class: `link ${kind}` });
  if (kind === "up") return line;
  const middle = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
  const cross = drawn("path", { d: `M${middle.x - 8} ${middle.y - 8}l16 16m0 -16l-16 16`, class: "cut" });
  return drawn("g", {}, line, cross);
}

function boxOf(member, place, { width, height }, status, leader) {
  const role = roleOf(member, leader);
  const kind = member.status === "down" ? "down" : role === "leader" ? "leader" : "up";
  const here = member.id === status.node_id;
  const at = (y, name, text) => drawn("text", { x: place.x, y: place.y + y, class: name }, text);
  const said = member.status === "down" ? `${role}, down` : role;
  return drawn(
    "g",
    { class: `member ${kind} ${here ? "here" : ""}` },
    drawn("title", {}, plain(member.id)),
    drawn("rect", { x: place.x - width / 2, y: place.y - height / 2, width, height, rx: 10 }),
    at(-12, "id", short(plain(member.id), Math.floor(width / LETTER))),
    at(7, "", here ? `${said} · this node` : said),
    at(24, "", changeOf(member) || lagOf(member)),
  );
}

/** Returns `text` without its middle if it has more than `longest` characters: the ends of ids are what differs. */
export function short(text, longest) {
  const characters = [...text];
  if (characters.length <= longest) return text;
  const end = Math.floor((longest - 1) / 2);
  return `${characters.slice(0, longest - 1 - end).join("")}…${characters.slice(-end).join("")}`;
}

function lagOf(member) {
  if (member.status === "down" || member.lag === null) return "";
  return member.lag === 0 ? "up to date" : `lag ${counted(member.lag, "entry", "entries")}`;
}

function sentence(members, leader) {
  const down = members.filter((member) => member.status === "down").map((member) => plain(member.id, 40));
  const leads = leader === null ? "none leads" : `${plain(leader, 40)} leads`;
  return `${counted(members.length, "member")}, ${leads}, ${down.length ? `${down.join(", ")} down` : "all are up"}`;
}
