"use strict";

// Elements, numbers for people, the tip. What the data says reaches the page as
// text nodes and as attributes that hold no code; never as markup.

const SVG = document.querySelector("svg").namespaceURI;

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child || child === 0));
  return node;
}

const el = (name, attributes = {}, ...children) =>
  fill(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

// Any part of the data may be absent, null or of another kind than it should.
const num = (x) => (typeof x === "number" && Number.isFinite(x) ? x : null);
const object = (x) =>
  x !== null && typeof x === "object" && !Array.isArray(x) ? x : {};
const list = (x) =>
  Array.isArray(x) ? x.filter((y) => y !== null && typeof y === "object") : [];
const string = (x) =>
  typeof x === "string" ? x : typeof x === "number" ? String(x) : "";

const NONE = "–";
const SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/// Three digits that count, whatever the size: 0.0213, 12.4, 3.2×10⁻⁵.
function sig(x, digits = 3) {
  if (num(x) === null) return NONE;
  if (x < 0) return "−" + sig(-x, digits);
  if (x !== 0 && (x < 1e-4 || x >= 1e6)) {
    const [front, power] = x.toExponential(digits - 1).split("e");
    const raised = String(Math.abs(power)).replace(/\d/g, (d) => SUPERSCRIPT[d]);
    return `${front}×10${power < 0 ? "⁻" : ""}${raised}`;
  }
  return x.toLocaleString("en-US", {
    maximumSignificantDigits: x >= 1000 ? 4 : digits,
    minimumSignificantDigits: x === 0 || x >= 1000 ? 1 : digits,
  });
}

/// For axes: no more digits than needed.
const plain = (x) =>
  x !== 0 && Math.abs(x) < 1e-4
    ? sig(x, 1)
    : Number(x.toPrecision(6)).toLocaleString("en-US", { maximumFractionDigits: 6 });
const whole = (x) =>
  num(x) === null ? NONE : Math.round(x).toLocaleString("en-US");

function scaled(x, base, units) {
  if (num(x) === null) return NONE;
  let power = 0;
  while (x >= 999.5 && power + 1 < units.length) {
    x /= base;
    ++power;
  }
  return (power ? sig(x) : whole(x)) + units[power];
}
const bytes = (x) => scaled(x, 1000, [" B", " kB", " MB", " GB", " TB"]);
const count = (x) => scaled(x, 1000, ["", " k", " M", " B", " T"]);
const percent = (x, digits = 1) =>
  num(x) === null ? NONE : `${(100 * x).toFixed(digits)} %`;

/// A change from a to b: +1.8 %, −38 %.
function change(a, b) {
  if (num(a) === null || num(b) === null || a <= 0) return "";
  const part = 100 * (b / a - 1);
  const text = Math.abs(part).toFixed(Math.abs(part) < 10 ? 1 : 0);
  return `${part < 0 ? "−" : "+"}${text} %`;
}

function time(s) {
  if (num(s) === null) return NONE;
  if (s < 10) return `${s.toFixed(1)} s`;
  const seconds = Math.round(s);
  const minutes = Math.round(s / 60);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (minutes < 60) return `${minutes} min`;
  return `${whole(Math.floor(minutes / 60))} h ${minutes % 60} min`;
}

const plural = (n, one, many = one + "s") => `${whole(n)} ${n === 1 ? one : many}`;

/// What is under the pointer or has the focus: a title, then [name, value].
const tip = {
  node: document.getElementById("tip"),
  show(lines, box) {
    const [title, ...rest] = lines;
    this.node.replaceChildren(
      el("b", {}, title),
      ...rest.map(([name, value]) =>
        el("div", {}, el("span", {}, name), el("span", {}, value))),
    );
    this.node.hidden = false;
    const { width, height } = this.node.getBoundingClientRect();
    const room = document.documentElement.clientWidth - width - 8;
    const left = Math.min(Math.max(8, box.left + box.width / 2 - width / 2), room);
    const above = box.top - height - 8;
    this.node.style.left = `${Math.max(8, left)}px`;
    this.node.style.top = `${above > 8 ? above : box.bottom + 8}px`;
  },
  hide() {
    this.node.hidden = true;
  },
};
addEventListener("scroll", () => tip.hide(), { passive: true, capture: true });
addEventListener("keydown", (event) => event.key === "Escape" && tip.hide());

const spoken = ([title, ...rest]) =>
  [title, ...rest.map(([name, value]) => `${name} ${value}`)].join(", ");

/// A table that is made when it is opened: rows of cells, numbers to the right.
function table(summary, head, rows) {
  const details = el("details", { class: "table" }, el("summary", {}, summary));
  details.addEventListener("toggle", () => {
    if (details.children.length > 1) return;
    const cell = (kind) => (text, i) =>
      el(kind, head[i][1] ? { class: "number" } : {}, text);
    details.append(
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": summary },
        el("table", {},
          el("thead", {}, el("tr", {}, ...head.map(([text], i) => cell("th")(text, i)))),
          el("tbody", {}, ...rows().map((row) => el("tr", {}, ...row.map(cell("td"))))))),
    );
  });
  return details;
}
