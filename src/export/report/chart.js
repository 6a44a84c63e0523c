"use strict";

// Line and scatter charts: drawn for the width they have, and again when it
// changes. Pointer and arrow keys go from stop to stop.

const plots = [];

/// A box that `draw(width)` fills with a node.
function plot(draw) {
  const box = el("div", { class: "plot" });
  plots.push({ box, draw, width: 0 });
  return box;
}

function redraw(one) {
  const width = Math.floor(one.box.clientWidth);
  if (width === 0 || width === one.width) return;
  one.width = width;
  one.box.replaceChildren(one.draw(width));
}

function start_plots() {
  plots.forEach(redraw);
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) redraw(plots.find((p) => p.box === target));
  });
  plots.forEach((p) => observer.observe(p.box));
}

function linear_ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((s) => s * power >= rough * 0.9) * power;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9); ++i) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

function log_ticks(low, high, most) {
  const of = (parts) => {
    const ticks = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); ++p) {
      for (const part of parts) {
        const tick = Number(`${part}e${p}`);
        if (tick >= low && tick <= high) ticks.push(tick);
      }
    }
    return ticks;
  };
  const tries = [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]];
  const fits = tries.map(of).find((ticks) => ticks.length <= most + 1) ?? of([1]);
  return fits.length > 1 ? fits : linear_ticks(low, high, most).filter((t) => t > 0);
}

/// The range of values with some air about it; never empty.
function range(values, log, air = 0.05) {
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (log) {
    const more = Math.max((high / low) ** air, 1.03);
    return [low / more, high * more];
  }
  const more = (high - low) * air || Math.abs(high) * 0.1 || 1;
  return [low < 0 ? low - more : Math.max(0, low - more), high + more];
}

/// Axes, grid and labels. x() and y() turn values into places.
function frame({ width, height, xs, ys, log, x_label, y_label, whole_x, title }) {
  const left = 54, right = 14, top = 24, bottom = 40;
  const [x0, x1] = whole_x && xs.length
    ? [Math.min(...xs) - 0.4, Math.max(...xs) + 0.4] : range(xs, false);
  const [y0, y1] = range(ys, log);
  const along = log ? Math.log : (v) => v;
  const x = (v) => left + ((v - x0) / (x1 - x0)) * (width - left - right);
  const y = (v) => height - bottom -
    ((along(v) - along(y0)) / (along(y1) - along(y0))) * (height - top - bottom);
  const root = svg("svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, class: "chart", role: "group",
    "aria-label": title,
  });
  const y_ticks = (log ? log_ticks : linear_ticks)(y0, y1, 6);
  // As many places for all, but for decades.
  const places = Math.max(...y_ticks.map((t) => (plain(t).split(".")[1] ?? "").length));
  const text = (at, anchor, words, kind) =>
    svg("text", { x: at[0], y: at[1], "text-anchor": anchor, class: kind }, words);
  for (const tick of y_ticks) {
    root.append(
      svg("line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick), class: "grid" }),
      text([left - 8, y(tick) + 4], "end", log ? plain(tick) : tick.toFixed(places), "tick"));
  }
  for (const tick of linear_ticks(x0, x1, Math.max(2, Math.floor(width / 90)))) {
    if (whole_x && !Number.isInteger(tick)) continue;
    root.append(text([x(tick), height - bottom + 18], "middle", plain(tick), "tick"));
  }
  root.append(
    svg("line", { x1: left, x2: width - right, y1: height - bottom, y2: height - bottom, class: "axis" }),
    text([left - 46, 12], "start", y_label, "label"),
    text([width - right, height - 5], "end", x_label, "label"));
  return { root, x, y, left, right: width - right, top, bottom: height - bottom };
}

/// Lets pointer and arrow keys visit stops, {x, y, tip}, the nearest first;
/// `across`: nearest by x alone, with a line through it.
function walk(area, stops, across) {
  if (!stops.length) return;
  const order = [...stops].sort((a, b) => a.x - b.x);
  const line = svg("line", { y1: area.top, y2: area.bottom, class: "cross", visibility: "hidden" });
  const ring = svg("circle", { r: 7, class: "ring", visibility: "hidden" });
  const cover = svg("rect", {
    x: area.left, y: area.top - 8, width: area.right - area.left,
    height: area.bottom - area.top + 8, class: "cover", tabindex: 0, role: "img",
    "aria-label": `${plural(stops.length, "point")}; arrow keys go through them`,
  });
  let at = -1;
  const go = (next) => {
    at = Math.max(0, Math.min(order.length - 1, next));
    const stop = order[at];
    const mark = across ? line : ring;
    for (const key of across ? ["x1", "x2"] : ["cx"]) mark.setAttribute(key, stop.x);
    if (!across) mark.setAttribute("cy", stop.y);
    mark.setAttribute("visibility", "visible");
    const box = area.root.getBoundingClientRect();
    const left = box.left + stop.x;
    const top = box.top + stop.y;
    cover.setAttribute("aria-label", spoken(stop.tip));
    tip.show(stop.tip, { left, top: top - 6, width: 0, bottom: top + 6 });
  };
  const leave = () => {
    tip.hide();
    line.setAttribute("visibility", "hidden");
    ring.setAttribute("visibility", "hidden");
  };
  const nearest = (event) => {
    const box = area.root.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    const far = (s) => Math.hypot(s.x - px, across ? 0 : s.y - py);
    go(order.reduce((best, s, i) => (far(s) < far(order[best]) ? i : best), 0));
  };
  cover.addEventListener("pointermove", nearest);
  cover.addEventListener("pointerdown", nearest);
  cover.addEventListener("pointerleave", leave);
  cover.addEventListener("blur", leave);
  cover.addEventListener("focus", () => cover.matches(":focus-visible") && go(Math.max(0, at)));
  cover.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1,
      Home: -order.length, End: order.length }[event.key];
    if (!step) return;
    event.preventDefault();
    go(at + step);
  });
  area.root.append(line, ring, cover);
}

/// The mean of each point and its neighbours, for what is too noisy to read.
function running_mean(points, reach) {
  return points.map(([x], i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1);
    return [x, near.reduce((total, p) => total + p[1], 0) / near.length];
  });
}

const path = (points) =>
  points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

// Told apart by colour, by dash and by the shape of their points.
const SHAPES = [
  (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  (x, y, r) => `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (x, y, r) => `M${x} ${y - r * 1.3}l${r * 1.2} ${r * 2.2}h${-r * 2.4}z`,
  (x, y, r) => `M${x} ${y - r * 1.4}l${r * 1.4} ${r * 1.4}l${-r * 1.4} ${r * 1.4}l${-r * 1.4} ${-r * 1.4}z`,
];
const shape = (i, x, y, r, kind) =>
  svg("path", { d: SHAPES[i % SHAPES.length](x, y, r), class: `${kind} s${i % SHAPES.length}` });

/// Names of series beside a sample: of their line, of their points, or ours.
function legend(names) {
  return el("div", { class: "legend" }, ...names.map(([name, i, kind]) =>
    el("span", {},
      svg("svg", { width: kind ? 14 : 28, height: 14, "aria-hidden": true },
        !kind && svg("path", { d: "M1 7H27", class: `line s${i}` }),
        shape(i, kind ? 7 : 14, 7, kind ? 4.4 : 3.4, kind ?? "dot")),
      name)));
}

/// Lines over a whole-numbered x. series: {name, style, points: [[x, y]]}.
function line_chart({ series, height = 260, x_label, y_label, x_name, title, mark }) {
  const all = series.flatMap((s) => s.points);
  const ys = all.map((p) => p[1]);
  const log = Math.min(...ys) > 0 && Math.max(...ys) / Math.min(...ys) > 12;
  return plot((width) => {
    const area = frame({
      width, height, xs: all.map((p) => p[0]), ys, log, x_label, whole_x: true, title,
      y_label: y_label + (log ? ", log scale" : ""),
    });
    const stops = new Map();
    for (const { name, style, points, faint } of series) {
      const places = points.map(([x, y]) => [area.x(x), area.y(y)]);
      area.root.append(svg("path", { d: path(places), class: `line s${style}${faint ? " faint" : ""}` }));
      const room = faint ? 0 : width / Math.max(1, points.length);
      if (room > 7) {
        area.root.append(...places.map(([x, y]) => shape(style, x, y, room > 14 ? 3.4 : 2.2, "dot")));
      }
      points.forEach(([x, y], i) => {
        const stop = stops.get(x) ??
          { x: places[i][0], y: places[i][1], tip: [`${x_name} ${plain(x)}`] };
        stop.y = Math.min(stop.y, places[i][1]);
        stop.tip.push([name, sig(y)]);
        stops.set(x, stop);
      });
    }
    if (mark) area.root.append(...mark(area));
    walk(area, [...stops.values()], true);
    return area.root;
  });
}
