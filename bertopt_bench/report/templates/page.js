"use strict";
(async () => {
  if (!Shell.usable) return;
  const { $, element, unpack } = Shell;
  const data = JSON.parse(await unpack("data-packed"));
  document.documentElement.classList.add("live");

  // --- the data, as the figures read them ---
  data.cells.forEach((cell, index) => {
    cell.index = index;
    for (const key of Object.keys(cell.values)) if (cell.values[key].length === 1) cell.values[key] = [1, ...Array(3).fill(cell.values[key][0])];
  });
  const slots = data.axes.map((axis) => axis.levels.map((_, i) => i));
  data.slots = (axis) => slots[axis];
  const column = (table, name) => { const i = data.tables[table].columns.indexOf(name); return i < 0 ? [] : data.tables[table].data[i]; };
  const median = (values) => { const s = [...values].sort((a, b) => a - b), m = s.length >> 1; return s.length % 2 ? s[m] : (s[m - 1] + s[m]) / 2; };
  const finite = (value) => typeof value === "number";
  (() => {
    const trial = column("evaluations", "trial"), step = column("evaluations", "step"), loss = column("evaluations", "loss"), seconds = column("evaluations", "train_seconds");
    const byTrial = new Map();
    trial.forEach((code, i) => {
      if (!finite(loss[i])) return;
      if (!byTrial.has(code)) byTrial.set(code, []);
      byTrial.get(code).push({ step: step[i], loss: loss[i], seconds: finite(seconds[i]) ? seconds[i] : 0, n: 1 });
    });
    const codes = column("trials", "trial"), seedOf = new Map(column("trials", "seed").map((seed, i) => [codes[i], seed]));
    data.cells.forEach((cell) => {
      const seeds = new Map(); // replicates of a seed train alike: the longest one is its curve
      cell.trials.forEach((code) => {
        const points = byTrial.get(code) || [], known = seeds.get(seedOf.get(code)) || [];
        if (points.length > known.length) seeds.set(seedOf.get(code), points);
      });
      cell.seeds = [...seeds.values()];
      const steps = new Map();
      cell.seeds.flat().forEach((p) => { if (!steps.has(p.step)) steps.set(p.step, []); steps.get(p.step).push(p); });
      // A median over survivors would flatter: it ends where the first seed ends.
      cell.curve = [...steps].filter(([, all]) => all.length === cell.seeds.length || cell.seeds.length < 2).sort((a, b) => a[0] - b[0]).map(([s, all]) => {
        const losses = all.map((p) => p.loss);
        return { step: s, loss: median(losses), seconds: median(all.map((p) => p.seconds)), n: all.length, low: Math.min(...losses), high: Math.max(...losses) };
      });
    });
  })();

  // --- state, kept in the address so that a view can be linked ---
  const names = data.axes.map((axis) => axis.name);
  const levelsUsed = (axis) => new Set(data.cells.map((c) => c.levels[axis])).size;
  const spreadOfLoss = (axis) => { // how far apart the levels' median losses lie: the default colour
    const by = new Map();
    data.cells.forEach((c) => { if (c.values.final_loss) by.set(c.levels[axis], [...(by.get(c.levels[axis]) || []), c.values.final_loss[2]]); });
    const middles = [...by.values()].map(median);
    return middles.length ? Math.max(...middles) - Math.min(...middles) : 0;
  };
  const likely = names.map((_, i) => i).sort((a, b) => spreadOfLoss(b) - spreadOfLoss(a));
  const standard = { colour: likely.find((i) => levelsUsed(i) <= Charts.colours) ?? likely[0] ?? -1, panels: -1 };
  if (data.cells.length > 10) standard.panels = likely.find((i) => i !== standard.colour && levelsUsed(i) <= Charts.panels) ?? -1;
  const state = { ...standard, filter: names.map(() => new Set()), sort: null, descending: false };

  const readHash = () => {
    Object.assign(state, standard, { filter: names.map(() => new Set()), sort: null, descending: false });
    if (!location.hash.includes("=")) return;
    for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
      if (key === "colour" || key === "panels") state[key] = value === "none" ? -1 : names.indexOf(value);
      else if (key === "sort") { state.descending = value.startsWith("-"); state.sort = value.replace(/^-/, ""); }
      else if (names.includes(key)) value.split("|").forEach((level) => { const i = data.axes[names.indexOf(key)].levels.indexOf(level); if (i >= 0) state.filter[names.indexOf(key)].add(i); });
    }
  };
  const writeHash = () => {
    const out = new URLSearchParams();
    state.filter.forEach((set, axis) => { if (set.size) out.set(names[axis], [...set].map((i) => data.axes[axis].levels[i]).join("|")); });
    for (const key of ["colour", "panels"]) if (state[key] !== standard[key]) out.set(key, state[key] < 0 ? "none" : names[state[key]]);
    if (state.sort) out.set("sort", (state.descending ? "-" : "") + state.sort);
    history.replaceState(null, "", `#${out}`);
  };
  const visible = () => data.cells.filter((cell) => state.filter.every((set, axis) => !set.size || set.has(cell.levels[axis])));

  // --- controls ---
  const chips = [];
  data.axes.forEach((axis, a) => {
    const box = element("div", { className: "chips" });
    axis.levels.forEach((level, i) => {
      const chip = element("button", { type: "button", className: "chip", textContent: level });
      chip.addEventListener("click", () => { state.filter[a].has(i) ? state.filter[a].delete(i) : state.filter[a].add(i); changed(); });
      chips.push([chip, a, i]); box.append(chip);
    });
    $("filters").append(element("fieldset", {}, element("legend", { textContent: axis.name }), box));
  });
  for (const [id, none] of [["colour", "nothing"], ["panels", "one panel"]]) {
    $(id).append(element("option", { value: "-1", textContent: none }), ...names.map((name, i) => element("option", { value: String(i), textContent: name })));
    $(id).addEventListener("change", () => { state[id] = Number($(id).value); changed(); });
  }
  $("clear").addEventListener("click", () => { state.filter.forEach((set) => set.clear()); changed(); });
  $("controls").hidden = !names.length;

  // --- the table ---
  const rows = [...$("rows").children], standing = new Map(rows.map((row, i) => [row, i]));
  const headers = [...document.querySelectorAll(".results th[data-key]")];
  headers.forEach((th) => {
    const small = th.querySelector("small"), button = element("button", { type: "button" });
    button.append(...[...th.childNodes].filter((node) => node !== small));
    th.prepend(button);
    button.addEventListener("click", () => {
      if (state.sort !== th.dataset.key) Object.assign(state, { sort: th.dataset.key, descending: false });
      else if (!state.descending) state.descending = true;
      else Object.assign(state, { sort: null, descending: false });
      changed(false);
    });
  });
  const sortValue = (cell, key) => (key === "rank" ? cell.rank : key === "label" ? cell.label : key.startsWith("axis:") ? cell.levels[Number(key.slice(5))] : cell.values[key]?.[2]) ?? null;
  const arrange = () => {
    const shown = new Set(visible().map((c) => c.index)), sign = state.descending ? -1 : 1;
    const sorted = [...rows].sort((a, b) => {
      if (!state.sort) return standing.get(a) - standing.get(b);
      const [x, y] = [a, b].map((row) => sortValue(data.cells[row.dataset.i], state.sort));
      if (x === null || y === null) return (x === null) - (y === null) || standing.get(a) - standing.get(b);
      return sign * (x < y ? -1 : x > y ? 1 : 0) || standing.get(a) - standing.get(b);
    });
    sorted.forEach((row) => { row.hidden = !shown.has(Number(row.dataset.i)); });
    $("rows").append(...sorted);
    headers.forEach((th) => { th.dataset.key === state.sort ? th.setAttribute("aria-sort", state.descending ? "descending" : "ascending") : th.removeAttribute("aria-sort"); });
    $("shown").textContent = `${shown.size.toLocaleString("en")} of ${data.cells.length.toLocaleString("en")} cells shown${shown.size < data.cells.length ? "; ranks are those among all cells" : ""}.`;
    chips.forEach(([chip, a, i]) => chip.setAttribute("aria-pressed", String(state.filter[a].has(i))));
    $("colour").value = String(state.colour); $("panels").value = String(state.panels);
    $("clear").hidden = !state.filter.some((set) => set.size);
  };

  // --- figures, each drawn when it comes near the window ---
  const memory = data.cells.some((c) => c.values.peak_memory_bytes) ? "peak_memory_bytes" : "peak_resident_bytes";
  $("memory-text").textContent = memory === "peak_memory_bytes"
    ? "Peak bytes held by the tensor allocator, from a separate pass: median, and the lowest and highest trial. A hollow mark is one run."
    : "Peak resident memory of the process: median, and the lowest and highest trial. A hollow mark is one run.";
  const figures = {
    "by-step": (cells) => { $("curves-note").textContent = Charts.curves("by-step", data, state, cells, "step"); },
    "by-second": (cells) => Charts.curves("by-second", data, state, cells, "seconds"),
    speed: (cells) => Charts.dots("speed", data, state, cells, "tokens_per_second", "tokens/s"),
    bytes: (cells) => Charts.dots("bytes", data, state, cells, memory, "bytes"),
    scatter: (cells) => Charts.scatter("scatter", data, state, cells),
  };
  Object.keys(figures).filter((id) => !$(id)).forEach((id) => delete figures[id]);  // a page of inference has no losses
  const near = new Set(), stale = new Set(Object.keys(figures));
  const draw = () => { if (!window.Plotly) return; for (const id of near) if (stale.delete(id)) figures[id](visible()); };
  const redraw = () => { Object.keys(figures).forEach((id) => stale.add(id)); draw(); };
  const changed = (cells = true) => { writeHash(); arrange(); if (cells) redraw(); };
  Object.keys(figures).forEach((id) => $(id).append(element("p", { className: "waiting", textContent: "Drawing…" })));

  readHash(); arrange();
  addEventListener("hashchange", () => { if (location.hash.includes("=")) { readHash(); arrange(); redraw(); } });
  Charts.dark.addEventListener("change", redraw);
  let width = innerWidth;
  addEventListener("resize", () => { if (Math.abs(innerWidth - width) > 40) { width = innerWidth; redraw(); } });

  Shell.contents();
  Shell.downloads(data.tables);

  // --- the plotting library, unpacked last ---
  const script = document.createElement("script");
  script.textContent = await unpack("library-packed");
  document.head.append(script);
  const watcher = new IntersectionObserver((entries) => { entries.forEach((e) => { if (e.isIntersecting) near.add(e.target.id); }); draw(); }, { rootMargin: "600px" });
  Object.keys(figures).forEach((id) => watcher.observe($(id)));
  addEventListener("beforeprint", () => { Object.keys(figures).forEach((id) => near.add(id)); draw(); });
  document.documentElement.dataset.ready = "yes";
})();
