// The picture of a cluster: members on a circle, in the order of their ids, and who reaches whom.

import { drawn } from "./dom.js";
import { changeOf, roleOf } from "./troubles.js";
import { plain, counted } from "./words.js";

// A picture is as large as its boxes need around the circle.
const LEAST = { width: 460, height: 290 };
const A_MEMBER = { width: 100, height: 62 };
const BOX = { width: 168, height: 66 };
const ID_CHARACTERS = 17;

/** Returns the picture as an SVG element, with a sentence that says what is seen. */
export function pictureOf(status, leader) {
  const members = [...status.members].sort((one, other) => (one.id < other.id ? -1 : 1));
  const places = new Map(members.map((member, number) => [member.id, placeOf(number, members.length)]));
  const width = widthOf(members.length);
  const here = places.get(status.node_id);
  const [top, bottom] = [Math.min, Math.max].map((most) => most(...[...places.values()].map(({ y }) => y)));
  const edge = BOX.height / 2 + 4;
  const picture = drawn("svg", {
    viewBox: `0 ${top - edge} ${width} ${bottom - top + 2 * edge}`,
    role: "img",
    "aria-label": sentence(members, leader),
  });
  for (const member of members) {
    if (here && member.id !== status.node_id) picture.append(link(here, places.get(member.id), member));
  }
  for (const member of members) picture.append(box(member, places.get(member.id), status, leader));
  return picture;
}

function widthOf(count) {
  return Math.max(LEAST.width, count * A_MEMBER.width);
}

function placeOf(number, count) {
  const [width, height] = [widthOf(count), Math.max(LEAST.height, count * A_MEMBER.height)];
  if (count === 1) return { x: width / 2, y: height / 2 };
  const angle = (2 * Math.PI * number) / count - Math.PI / 2;
  return {
    x: width / 2 + (width / 2 - BOX.width / 2 - 6) * Math.cos(angle),
    y: height / 2 + (height / 2 - BOX.height / 2 - 6) * Math.sin(angle),
  };
}

function link(from, to, member) {
  const kind = member.connected ? "up" : "down";
  const line = drawn("line", { x1: from.x, y1: from.y, x2: to.x, y2: to.y, class: `link ${kind}` });
  if (kind === "up") return line;
  const middle = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
  const cross = drawn("path", { d: `M${middle.x - 8} ${middle.y - 8}l16 16m0 -16l-16 16`, class: "cut" });
  return drawn("g", {}, line, cross);
}

function box(member, place, status, leader) {
  const role = roleOf(member, leader);
  const kind = member.status === "down" ? "down" : role === "leader" ? "leader" : "up";
  const here = member.id === status.node_id;
  const at = (y, name, text) => drawn("text", { x: place.x, y: place.y + y, class: name }, text);
  const said = member.status === "down" ? `${role}, down` : role;
  return drawn(
    "g",
    { class: `member ${kind} ${here ? "here" : ""}` },
    drawn("rect", { x: place.x - BOX.width / 2, y: place.y - BOX.height / 2, ...BOX, rx: 10 }),
    at(-12, "id", plain(member.id, ID_CHARACTERS)),
    at(7, "", here ? `${said} · this node` : said),
    at(24, "", changeOf(member) || lagOf(member)),
  );
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
