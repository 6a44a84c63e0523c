"use strict";

const STAGE_NAMES = { nearest: "rounded to nearest", gptq: "GPTQ", learned: "learned rounding", dwq: "distilled" };

function draw_blocks(d) {
  const blocks = list(d.blocks).filter((b) => num(b.index) !== null);
  const names = [...new Set(blocks.flatMap((b) => Object.keys(object(b.errors))))];
  const titles = new Map(list(d.stages).map((s) => [string(s.name), string(s.title)]));
  const series = names.map((name, style) => ({
    name: titles.get(name) || STAGE_NAMES[name] || name,
    style: style % SHAPES.length,
    points: blocks.map((b) => [b.index, num(object(b.errors)[name])]).filter((p) => p[1] !== null),
  })).filter((s) => s.points.length);
  if (!series.length) return null;
  return section("blocks", "Error, block by block",
    "How far each block's output is from the full model's, as a part of it, on text held out from the fit.",
    legend(series.map((s) => [s.name, s.style])),
    line_chart({ series, x_label: "block", y_label: "relative error", x_name: "Block", title: "Error by block" }),
    table("As a table", [["Block", 1], ...series.map((s) => [s.name, 1])], () =>
      blocks.map((b) => [whole(b.index), ...series.map((s) => sig(new Map(s.points).get(b.index)))])));
}

function draw_dwq(d) {
  const dwq = object(d.dwq);
  const curve = list(dwq.curve).filter((c) => num(c.step) !== null);
  const points = (key) => curve.map((c) => [c.step, num(c[key])]).filter((p) => p[1] !== null);
  const [held, loss] = [points("held_out_kl"), points("loss")];
  if (!held.length && !loss.length) return null;
  const best = num(dwq.best_step) !== null && num(dwq.best) !== null;
  const mark = (area) => (best ? [shape(3, area.x(dwq.best_step), area.y(dwq.best), 6, "ours")] : []);
  const chart = (title, series, more) => series[0].points.length > 0 && el("div", {},
    el("h3", {}, title),
    line_chart({ series, height: 220, x_label: "step", y_label: "KL", x_name: "Step", title, ...more }));
  const raw = { name: "KL", style: 0, points: loss, faint: loss.length > 40 };
  const mean = { name: "running mean", style: 0, points: running_mean(loss, Math.floor(loss.length / 40)) };
  const gain = num(dwq.start) !== null && num(dwq.best) !== null &&
    `Held-out KL from ${sig(dwq.start)} to ${sig(dwq.best)} (${change(dwq.start, dwq.best)})` +
    (num(dwq.best_step) !== null ? `, best at step ${whole(dwq.best_step)}. ` : ". ");
  const inside = best && held.some((p) => p[0] === dwq.best_step);
  return section("dwq", "Distillation",
    `${gain || ""}Scales and biases were trained towards the full model's probabilities; the best step was kept.`,
    el("div", { class: "pair" },
      chart("On held-out text", [{ name: "KL", style: 0, points: held }], inside ? { mark } : {}),
      chart("On the text it trained on", raw.faint ? [raw, mean] : [raw], {})));
}

/// Where two texts part, put back to the start of a word.
function parting(a, b) {
  let at = 0;
  while (at < a.length && at < b.length && a[at] === b[at]) ++at;
  const ends = (c) => c === undefined || /\s/.test(c);
  if (ends(a[at]) && ends(b[at])) return at;
  for (let i = at; i > 0 && at - i < 24; --i) {
    if (/\s/.test(a[i - 1])) return i;
  }
  return at > 0 && /[\udc00-\udfff]/.test(a[at] ?? b[at]) ? at - 1 : at;
}

function draw_samples(d) {
  const samples = list(d.samples);
  if (!samples.length) return null;
  const text = (name, words, at, kind) => el("div", { class: "text" },
    el("h4", {}, name),
    el("p", { dir: "auto" }, words.slice(0, at),
      at < words.length && el("mark", { class: kind }, words.slice(at)), words === "" && el("i", {}, "nothing")));
  const cards = samples.map((s) => {
    const said_by = [string(s.reference), string(s.quantized)];
    const space = said_by[0].match(/^\s*/)[0];
    const [full, ours] = said_by[1].startsWith(space) ? said_by.map((x) => x.slice(space.length)) : said_by;
    const at = parting(full, ours);
    const said = full === ours ? "word for word the same"
      : at === 0 ? "different from the first word on" : `the same for ${plural(at, "character")}`;
    return el("article", { class: "sample" },
      el("p", { class: "prompt", dir: "auto" }, string(s.prompt).trimEnd()),
      el("div", { class: "pair" }, text("Full model", full, at, "full"), text("Quantized", ours, at, "ours")),
      el("p", { class: "muted" }, said));
  });
  return section("samples", "The two models, side by side",
    "Both continue the same text with their likeliest words; what follows the first difference is marked.",
    ...cards);
}

const PARTS = [["fit", "fit", 0], ["gate", "validation", 2], ["report", "report", 1]];

function draw_data(d) {
  const data = object(d.data);
  const domains = list(data.domains);
  const parts = PARTS.filter(([key]) => num(data[`${key}_tokens`]) !== null || domains.some((x) => num(x[key]) !== null));
  if (!parts.length) return null;
  const all = (x) => sum(parts.map(([key]) => num(x[key]) ?? 0));
  const most = Math.max(1, ...domains.map(all));
  const rows = domains.map((x) => {
    const bar = svg("svg", { viewBox: "0 0 1000 14", preserveAspectRatio: "none", class: "split", "aria-hidden": true });
    let left = 0;
    for (const [key, , style] of parts) {
      const width = (1000 * (num(x[key]) ?? 0)) / most;
      if (width > 0) bar.append(svg("rect", { x: left, width: Math.max(2, width - 3), height: 14, class: `fill s${style}` }));
      left += width;
    }
    return el("tr", {}, el("th", { scope: "row" }, string(x.name), num(x.weight) !== null &&
      el("span", { class: "muted" }, ` ${percent(x.weight, 0)}`)),
      el("td", { class: "wide" }, bar), ...parts.map(([key]) => el("td", { class: "number" }, whole(x[key]))));
  });
  const tokens = el("tr", { class: "total" }, el("th", { scope: "row" }, "tokens"), el("td", { class: "wide" }),
    ...parts.map(([key]) => el("td", { class: "number" }, count(data[`${key}_tokens`]))));
  const head = el("tr", {}, el("td"), el("td", { class: "wide" }), ...parts.map(([, name, style]) =>
    el("th", { scope: "col", class: "number" }, svg("svg", { width: 10, height: 10, "aria-hidden": true },
      svg("rect", { width: 10, height: 10, rx: 2, class: `fill s${style}` })), ` ${name}`)));
  const length = num(data.sequence_length) !== null ? `Sequences of ${whole(data.sequence_length)} tokens. ` : "";
  return section("data", "The text behind it",
    `${length}Stages are fitted on one part, another, the validation text, decides whether they are kept, and this report is measured on a third.`,
    el("table", { class: "splits" }, el("thead", {}, head), el("tbody", {}, ...rows, tokens)));
}

function draw_pins(d) {
  const pins = list(d.pins);
  if (!pins.length) return null;
  return section("pins", "Widths that were asked for",
    "The rest was chosen around them.", el("table", { class: "splits" },
      el("tbody", {}, ...pins.map((pin) => el("tr", {},
        el("th", { scope: "row" }, `--${string(pin.flag)} ${string(pin.pattern)}` + (string(pin.width) && `=${string(pin.width)}`)),
        el("td", { class: "number" }, `${whole(pin.modules)} modules`),
        el("td", { class: "number" }, `${count(num(pin.parameters))} weights`))))));
}

function draw_settings(d) {
  const show = (x) => (x === null ? NONE : typeof x === "string" ? x : JSON.stringify(x));
  const settings = Object.entries(object(d.settings));
  if (!settings.length) return null;
  return section("settings", "Settings", "", el("dl", { class: "settings" },
    ...settings.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, show(value))))));
}

function draw_notes(d) {
  const notes = (Array.isArray(d.notes) ? d.notes : []).map(string).filter(Boolean);
  return notes.length ? section("notes", "Notes", "", el("ul", { class: "notes" },
    ...notes.map((note) => el("li", {}, note)))) : null;
}

function theme() {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });
}

function draw() {
  const d = object(JSON.parse(document.getElementById("data").textContent));
  const main = document.getElementById("main");
  const made = (one) => {
    try {
      return one(d);
    } catch (error) {
      console.error(error);
      return el("p", { class: "lede" }, "A part of the report could not be drawn from its data.");
    }
  };
  main.replaceChildren();
  document.getElementById("top").append(draw_head(d));
  const pair = [draw_frontier, draw_stages].map(made).filter(Boolean);
  main.append(...[made(draw_figures), pair.length && el("div", { class: "columns" }, ...pair),
    ...[draw_map, draw_pins, draw_blocks, draw_dwq, draw_samples, draw_data, draw_settings, draw_notes].map(made),
  ].filter(Boolean));
  document.getElementById("foot").append(`Made by pennyweight${string(d.version) && " " + string(d.version)}. ` +
    "This page loads nothing and sends nothing.");
  theme();
  start_plots();
  document.documentElement.dataset.drawn = "yes";
}

draw();
