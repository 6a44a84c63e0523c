"use strict";

// One function a section: from its part of the data to nodes, or null where
// that part is absent.

const section = (id, title, lede, ...children) =>
  el("section", { id, "aria-labelledby": `${id}-title` },
    el("h2", { id: `${id}-title` }, title), lede && el("p", { class: "lede" }, lede), ...children);

/// Two squares whose areas are the sizes before and after.
function squares(before, after) {
  const side = 128, inner = side * Math.sqrt(Math.min(1, after / before));
  return svg("svg", { class: "squares", viewBox: `0 0 ${side + 2} ${side + 2}`, width: side + 2, height: side + 2,
    role: "img", "aria-label": `${percent(after / before, 0)} of the size` },
    svg("rect", { x: 1, y: 1, width: side, height: side, rx: 6, class: "before" }),
    svg("rect", { x: 1, y: 1 + side - inner, width: inner, height: inner, rx: 5, class: "after" }),
    inner > 44 && svg("text", { x: 10, y: side - 8, class: "after-text" }, percent(after / before, 0)));
}

function draw_head(d) {
  const model = string(d.model) || string(d.output) || "A model";
  const slash = model.lastIndexOf("/") + 1;
  const said = [
    num(d.parameters) !== null && `${count(d.parameters)} parameters`,
    string(d.effort) && `effort ${string(d.effort)}`,
    num(d.seconds) !== null && `took ${time(d.seconds)}`,
    num(d.peak_rss) !== null && `${bytes(d.peak_rss)} of memory at most`,
    string(d.machine),
  ].filter(Boolean);
  const shrunk = num(d.bytes_in) > 0 && num(d.bytes_out) > 0;
  document.title = `${model} · pennyweight report`;
  return el("div", { class: "hero" },
    el("div", {},
      el("p", { class: "org" }, model.slice(0, slash)),
      el("h1", {}, model.slice(slash)),
      string(d.output) && el("p", { class: "output" }, "→ ", el("code", {}, string(d.output))),
      said.length > 0 && el("p", { class: "muted" }, said.join(" · "))),
    shrunk && squares(d.bytes_in, d.bytes_out));
}

function figure(name, value, ...below) {
  return el("div", { class: "figure" }, el("dt", {}, name),
    el("dd", {}, el("span", { class: "value" }, value),
      ...below.filter(Boolean).map((line) => el("span", { class: "below" }, line))));
}

function draw_figures(d) {
  const f = object(d.fidelity);
  const target = object(d.target);
  const asked = (x) => x && `asked for ${x}`;
  const shrunk = num(d.bytes_in) > 0 && num(d.bytes_out) > 0;
  const figures = [
    num(d.bytes_out) !== null && figure("Size", bytes(d.bytes_out),
      shrunk && `from ${bytes(d.bytes_in)}, ${sig(d.bytes_in / d.bytes_out, 2)} times smaller`,
      num(target.bytes) !== null && asked(bytes(target.bytes))),
    num(d.bits_per_weight) !== null && figure("Bits a weight", d.bits_per_weight.toFixed(2),
      num(target.bits_per_weight) !== null && asked(plain(target.bits_per_weight))),
    num(f.kl_mean) !== null && figure("KL to the full model", sig(f.kl_mean),
      num(f.kl_stderr) !== null && `± ${sig(f.kl_stderr, 2)} nats`,
      num(f.kl_median) !== null && `median ${sig(f.kl_median)}`,
      num(f.kl_p99) !== null && `99th percentile ${sig(f.kl_p99)}`),
    num(f.perplexity) !== null && figure("Perplexity", sig(f.perplexity, 4),
      num(f.perplexity_reference) !== null &&
        `${sig(f.perplexity_reference, 4)} in full, ${change(f.perplexity_reference, f.perplexity)}`),
    num(f.top1) !== null && figure("Same first choice", percent(f.top1), "of next words"),
  ].filter(Boolean);
  if (!figures.length) return null;
  return el("section", { id: "figures", "aria-label": "The figures" },
    el("dl", { class: "figures" }, ...figures),
    num(f.tokens) !== null && el("p", { class: "lede" },
      `Measured on ${whole(f.tokens)} tokens that no stage saw. KL says how far the probabilities ` +
      "of the next word are from the full model's: 0 is the same model."));
}

function draw_frontier(d) {
  const usable = (p) => num(p.bits_per_weight) !== null && num(p.kl) > 0;
  const points = list(d.frontier).filter(usable);
  if (!points.length) return null;
  const ours = { bits_per_weight: d.bits_per_weight, kl: object(d.fidelity).kl_mean };
  const plan = points.filter((p) => p.measured !== true)
    .sort((a, b) => a.bits_per_weight - b.bits_per_weight);
  const measured = points.filter((p) => p.measured === true);
  const all = usable(ours) ? [...points, ours] : points;
  const words = (p, title) => [title, ["bits a weight", p.bits_per_weight.toFixed(2)], ["KL", sig(p.kl)]];
  const box = plot((width) => {
    const area = frame({ width, height: 320, xs: all.map((p) => p.bits_per_weight), ys: all.map((p) => p.kl),
      log: true, x_label: "bits a weight", y_label: "KL, log scale", title: "Size against KL" });
    const place = (p) => [area.x(p.bits_per_weight), area.y(p.kl)];
    const stop = (p, title) => ({ x: place(p)[0], y: place(p)[1], tip: words(p, title) });
    const line = plan.map(place);
    area.root.append(svg("path", { d: path(line), class: "line s0 thin" }),
      ...line.map(([x, y]) => svg("circle", { cx: x, cy: y, r: 2.4, class: "dot s0" })));
    const taken = [];
    for (const p of measured) {
      const [x, y] = place(p);
      area.root.append(shape(1, x, y, 4.5, "dot"));
      const label = string(p.label).slice(0, 28);
      const end = x + 9 + 7 * label.length > area.right;
      const left = end ? x - 7 * label.length : x + 9;
      const line = y - (end ? 12 : 5);
      // A name that has no room is left to the tip and the table.
      if (left < area.left || taken.some((t) => Math.abs(t.line - line) < 14
          && left < t.right && t.left < left + 7 * label.length)) continue;
      taken.push({ left, right: left + 7 * label.length, line });
      area.root.append(
        svg("text", { x: end ? x : left, y: line, "text-anchor": end ? "end" : "start", class: "tick halo" }, label));
    }
    if (usable(ours)) {
      const [x, y] = place(ours);
      const right = x < area.left + 90;
      area.root.append(shape(3, x, y, 7, "ours"),
        svg("text", { x: x - (right ? -13 : 9), y: y + 20, "text-anchor": right ? "start" : "end", class: "strong halo" }, "this model"));
    }
    walk(area, [...plan.map((p) => stop(p, string(p.label) || "estimate")),
      ...measured.map((p) => stop(p, string(p.label) || "measured")),
      ...(usable(ours) ? [stop(ours, "this model")] : [])], false);
    return area.root;
  });
  const names = [plan.length && ["estimated for the best plan of a size", 0],
    measured.length && ["measured", 1, "dot"], usable(ours) && ["this model, measured", 3, "ours"]].filter(Boolean);
  return section("frontier", "Size against loss",
    "What a size costs: the closer to the lower left, the better.", legend(names), box,
    table("As a table", [["Point"], ["Bits a weight", 1], ["KL", 1]], () =>
      all.map((p) => [p === ours ? "this model" : string(p.label) || (p.measured ? "measured" : "estimate"),
        p.bits_per_weight.toFixed(3), sig(p.kl)])));
}

function draw_stages(d) {
  const stages = list(d.stages);
  if (!stages.length) return null;
  const most = Math.max(...stages.map((s) => num(s.kl) ?? 0)) || 1;
  let before = null;
  const rows = stages.map((s) => {
    const kl = num(s.kl);
    const kept = s.kept !== false;
    const by = before === null || kl === null ? "" : change(before, kl);
    const bar = kl !== null && svg("svg", { viewBox: "0 0 1000 12", preserveAspectRatio: "none", class: "stage-bar", "aria-hidden": true },
      svg("rect", { width: 1000, height: 12, class: "ground" }),
      svg("rect", { width: Math.max(3, (1000 * kl) / most), height: 12, class: kept ? "kept" : "left" }));
    if (kept && kl !== null) before = kl;
    return el("li", { class: kept ? "" : "dropped" },
      el("div", { class: "stage-head" },
        el("b", {}, string(s.title) || string(s.name)),
        !kept && el("span", { class: "badge" }, "not kept"),
        el("span", { class: "number" }, sig(kl), by && el("span", { class: "by" }, by))),
      bar,
      el("div", { class: "muted" }, [string(s.note), num(s.seconds) !== null && time(s.seconds)].filter(Boolean).join(" · ")));
  });
  return section("stages", "What each stage bought",
    "KL on the validation text after each stage. A stage that did not lower it was undone.",
    el("ol", { class: "stages" }, ...rows));
}

function draw_map(d) {
  const modules = list(d.modules);
  const inside = modules.filter((m) => num(m.block) !== null && m.block >= 0);
  const outside = modules.filter((m) => !inside.includes(m));
  if (!modules.length) return null;
  const rows = map_rows(inside);
  const blocks = [...new Set(inside.map((m) => m.block))].sort((a, b) => a - b);
  const losses = rows.flatMap(([, row]) => [...row.values()].map((ms) => sum(ms.map((m) => num(m.loss) ?? 0))))
    .filter((x) => x > 0);
  const ends = [Math.min(...losses), Math.max(...losses)];
  let cells = [];
  const dim = (key) => cells.forEach((c) => c.node.classList.toggle("dim", key !== null && c.key !== key));
  const key_box = el("div");
  const state = { look: by_bits };
  const box = plot((width) => {
    const made = map_cells(rows, blocks, width, state.look, "Bits of each module, by block");
    cells = made.cells;
    return made.root;
  });
  const show = (loss) => {
    state.look = loss ? (m) => by_loss(m, ends) : by_bits;
    key_box.replaceChildren(loss ? loss_legend(ends) : bits_legend(modules, dim));
    const one = plots.find((p) => p.box === box);
    one.width = 0;
    redraw(one);
  };
  show(false);
  const names = el("div", { class: "names", "aria-hidden": true }, ...rows.map(([name]) =>
    el("div", { title: name }, el("span", {}, name))));
  return section("map", "Where the bits went",
    "A row for each kind of module, a column for each block. Point at one, or walk with the arrow keys.",
    losses.length > 1 && choice(["Bits", "Loss"], (i) => show(i === 1)), key_box,
    rows.length > 0 && el("div", { class: "map" }, names, box),
    outside.length > 0 && outside_tiles(outside),
    table("All modules as a table",
      [["Module"], ["Bits", 1], ["Group", 1], ["Weights", 1], ["Loss", 1], ["Why"]], () =>
        modules.map((m) => [string(m.path) || string(m.name), num(m.bits) === null ? "floats" : whole(m.bits), whole(m.group_size),
          whole(m.parameters), sig(m.loss), string(m.reason)])));
}

/// Buttons of which one is on.
function choice(names, chosen) {
  const buttons = names.map((name, i) => {
    const button = el("button", { type: "button", "aria-pressed": i === 0 }, name);
    button.addEventListener("click", () => {
      buttons.forEach((b) => b.setAttribute("aria-pressed", b === button));
      chosen(i);
    });
    return button;
  });
  return el("div", { class: "choice", role: "group", "aria-label": "Coloured by" }, ...buttons);
}
