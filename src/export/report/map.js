"use strict";

// The map of modules: a row a name, a column a block, coloured by bits or by
// loss. Modules outside of the blocks are tiles beside it.

const RAMP = [[2, 74, 58, 156], [3, 60, 92, 178], [4, 33, 122, 156],
  [5, 47, 165, 141], [6, 134, 199, 102], [8, 245, 211, 61]];

/// Colours from 2 (indigo) to 8 (gold): lightness grows with the value, so that
/// they are told apart without hue, too.
function colour(value) {
  const v = Math.min(8, Math.max(2, value));
  const i = Math.max(1, RAMP.findIndex(([at]) => at >= v));
  const [low, high] = [RAMP[i - 1], RAMP[i]];
  const t = (v - low[0]) / (high[0] - low[0]);
  return `rgb(${[1, 2, 3].map((c) => Math.round(low[c] + t * (high[c] - low[c]))).join(",")})`;
}

const sum = (values) => values.reduce((a, b) => a + b, 0);
const weight = (m) => num(m.parameters) ?? 1;

/// Bits a weight of modules, those kept in floats left out; null for none.
function mean_bits(modules) {
  const packed = modules.filter((m) => num(m.bits) !== null);
  const all = sum(packed.map(weight));
  return all > 0 ? sum(packed.map((m) => m.bits * weight(m))) / all : null;
}

/// [name, block -> modules]. The numbers of experts and the like count as one
/// name. Names with a common front stand together, in the order that fronts have
/// within a block: any kind of attention before the MLP.
function map_rows(modules) {
  const rows = new Map();
  const seen = new Map();
  const places = new Map();
  for (const m of modules) {
    const name = (string(m.name) || string(m.path)).replace(/(^|\.)\d+(?=\.|$)/g, "$1*");
    if (!rows.has(name)) rows.set(name, new Map());
    const cells = rows.get(name);
    if (!cells.has(m.block)) cells.set(m.block, []);
    cells.get(m.block).push(m);
    const front = name.split(".")[0];
    const before = seen.get(m.block) ?? new Set();
    seen.set(m.block, before.add(front));
    places.set(front, Math.max(places.get(front) ?? 0, [...before].indexOf(front)));
  }
  const fronts = [...places.keys()].sort((a, b) => places.get(a) - places.get(b));
  return fronts.flatMap((front) =>
    [...rows].filter(([name]) => name.split(".")[0] === front));
}

const bits_text = (bits) => (bits === null ? "floats" : `${plain(Number(bits.toFixed(2)))} bits`);

function cell_tip(name, block, modules) {
  const [m] = modules;
  const lines = [modules.length === 1 ? string(m.path) || name : `${name}, block ${block}`];
  if (modules.length > 1) lines.push(["modules", whole(modules.length)]);
  lines.push(["kept in", bits_text(mean_bits(modules)) + (modules.length > 1 ? " on average" : "")]);
  if (num(m.group_size) !== null) lines.push(["group size", whole(m.group_size)]);
  lines.push(["weights", count(sum(modules.map((x) => num(x.parameters) ?? 0)))]);
  const losses = modules.map((x) => num(x.loss)).filter((x) => x !== null);
  if (losses.length) lines.push(["loss", sig(sum(losses))]);
  if (string(m.pinned)) lines.push(["asked for", string(m.pinned)]);
  if (string(m.reason)) lines.push(["because", string(m.reason)]);
  return lines;
}

/// How a cell looks by bits: the key it has in the legend, colour, text.
function by_bits(modules) {
  const bits = mean_bits(modules);
  return {
    key: bits === null ? "floats" : String(Math.round(bits)),
    fill: bits === null ? "url(#hatch)" : colour(bits),
    text: bits === null ? "" : plain(Number(bits.toFixed(1))),
    dark: bits !== null && bits >= 4.2,
  };
}

function by_loss(modules, [low, high]) {
  const losses = modules.map((m) => num(m.loss)).filter((x) => x !== null && x > 0);
  if (!losses.length) return { key: "", fill: "var(--hollow)", text: "" };
  const t = high > low ? Math.log(sum(losses) / low) / Math.log(high / low) : 0.5;
  return { key: "", fill: colour(2 + 6 * t), text: "" };
}

const CELL_HEIGHT = 22;

function map_cells(rows, blocks, width, look, title) {
  const size = Math.min(38, Math.max(8, Math.floor((width - 46) / blocks.length)));
  const right = size * blocks.length;
  const height = 20 + rows.length * CELL_HEIGHT;
  const root = svg("svg", {
    width: right + 46, height, viewBox: `0 0 ${right + 46} ${height}`, class: "cells",
    role: "group", "aria-label": title,
  });
  const each = Math.max(1, Math.ceil(26 / size));
  blocks.forEach((block, i) => {
    if (i % each === 0) {
      root.append(svg("text", { x: i * size + size / 2, y: 12, class: "tick", "text-anchor": "middle" }, String(block)));
    }
  });
  root.append(svg("text", { x: right + 8, y: 12, class: "tick" }, "mean"));
  const cells = [];
  rows.forEach(([name, row], r) => {
    const y = 20 + r * CELL_HEIGHT;
    blocks.forEach((block, c) => {
      const modules = row.get(block);
      if (!modules) return;
      const { fill, text, dark, key } = look(modules);
      const box = svg("rect", { x: c * size + 0.5, y: y + 0.5, width: size - 1, height: CELL_HEIGHT - 1, rx: 2, fill });
      const node = svg("g", { class: "cell", role: "img", tabindex: cells.length ? -1 : 0,
        "aria-label": spoken(cell_tip(name, block, modules)) }, box);
      if (size >= (text.length > 1 ? 24 : 15) && text) {
        node.append(svg("text", { x: c * size + size / 2, y: y + 15, "text-anchor": "middle",
          class: dark ? "in-light" : "in-dark" }, text));
      }
      cells.push({ node, r, c, key, tip: cell_tip(name, block, modules) });
      root.append(node);
    });
    const mean = mean_bits([...row.values()].flat());
    root.append(svg("text", { x: right + 8, y: y + 15, class: "tick" }, mean === null ? NONE : mean.toFixed(1)));
  });
  listen(root, cells);
  return { root, cells };
}

/// One cell has the tab stop; arrows move it to the next cell in their way.
function listen(root, cells) {
  const of = new Map(cells.map((cell) => [cell.node, cell]));
  const found = (event) => of.get(event.target.closest(".cell"));
  const show = (cell) => tip.show(cell.tip, cell.node.getBoundingClientRect());
  root.addEventListener("pointerover", (event) => {
    const cell = found(event);
    cell ? show(cell) : tip.hide();
  });
  root.addEventListener("pointerleave", () => tip.hide());
  root.addEventListener("focusin", (event) => found(event) && show(found(event)));
  root.addEventListener("focusout", () => tip.hide());
  root.addEventListener("keydown", (event) => {
    const way = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    const from = found(event);
    if (!way || !from) return;
    event.preventDefault();
    const [dr, dc] = way;
    const ahead = cells.filter((x) => (dr ? x.c === from.c && (x.r - from.r) * dr > 0
      : x.r === from.r && (x.c - from.c) * dc > 0));
    const next = ahead.sort((a, b) =>
      Math.abs(a.r - from.r + a.c - from.c) - Math.abs(b.r - from.r + b.c - from.c))[0];
    if (!next) return;
    from.node.setAttribute("tabindex", -1);
    next.node.setAttribute("tabindex", 0);
    next.node.focus();
    next.node.scrollIntoView({ block: "nearest", inline: "nearest" });
    show(next);
  });
}

/// The share of the weights that each width has, as a bar and as names; to
/// point at one dims the others.
function bits_legend(modules, dim) {
  const shares = new Map();
  for (const m of modules) {
    const { key } = by_bits([m]);
    shares.set(key, (shares.get(key) ?? 0) + weight(m));
  }
  const all = sum([...shares.values()]) || 1;
  const keys = [...shares.keys()].sort((a, b) => (Number(a) || 99) - (Number(b) || 99));
  const paint = (key) => (key === "floats" ? "url(#hatch)" : colour(Number(key)));
  const swatch = (key, width, height) =>
    svg("svg", { width, height, "aria-hidden": true }, svg("rect", { width, height, rx: 2, fill: paint(key) }));
  let left = 0;
  const bar = svg("svg", { class: "share", viewBox: "0 0 1000 10", preserveAspectRatio: "none", "aria-hidden": true });
  for (const key of keys) {
    const width = (1000 * shares.get(key)) / all;
    bar.append(svg("rect", { x: left, width: Math.max(1, width - 2), height: 10, fill: paint(key) }));
    left += width;
  }
  const items = keys.map((key) => {
    const share = percent(shares.get(key) / all, 1);
    const item = el("button", { type: "button" }, swatch(key, 14, 14),
      key === "floats" ? "kept in floats" : `${key} bits`, el("span", { class: "muted" }, share));
    item.addEventListener("pointerenter", () => dim(key));
    item.addEventListener("pointerleave", () => dim(null));
    item.addEventListener("focus", () => dim(key));
    item.addEventListener("blur", () => dim(null));
    return item;
  });
  return el("div", { class: "bits" }, bar, el("div", { class: "keys" }, ...items));
}

function loss_legend([low, high]) {
  const steps = 24;
  const bar = svg("svg", { class: "share", viewBox: `0 0 ${steps} 1`, preserveAspectRatio: "none", "aria-hidden": true });
  for (let i = 0; i < steps; ++i) {
    bar.append(svg("rect", { x: i, width: 1.05, height: 1, fill: colour(2 + (6 * i) / (steps - 1)) }));
  }
  return el("div", { class: "bits" }, bar,
    el("div", { class: "ends" }, el("span", {}, `${sig(low)} least loss`), el("span", {}, `most ${sig(high)}`)));
}

/// What is outside of the blocks: embedding, head.
function outside_tiles(modules) {
  return el("ul", { class: "tiles" }, ...modules.map((m) => {
    const { fill } = by_bits([m]);
    const group = num(m.group_size) === null ? "" : `, groups of ${whole(m.group_size)}`;
    return el("li", {},
      svg("svg", { width: 30, height: 30, "aria-hidden": true }, svg("rect", { width: 30, height: 30, rx: 5, fill })),
      el("div", {}, el("b", {}, string(m.path) || string(m.name)),
        el("div", { class: "muted" },
          `${bits_text(num(m.bits))}${group} · ${count(m.parameters)} weights`),
        string(m.reason) && el("div", { class: "muted" }, string(m.reason))));
  }));
}
