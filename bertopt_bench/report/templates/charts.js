"use strict";
// Figures, drawn from the cells in view. Colours follow Okabe and Ito: told apart by colour-blind readers;
// marks differ in shape as well. More levels than colours are shown as panels or named on hover.
const Charts = (() => {
  const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#444a52"];
  const DARK = ["#56b4e9", "#f0883e", "#2fc495", "#e59ac4", "#e6b422", "#8fa8ff", "#c9ced4"];
  const SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down"];
  const MANY_CURVES = 10, MANY_ROWS = 32, MANY_PANELS = 16;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = () => (dark.matches ? DARK : LIGHT);
  const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
  const short = (text, n = 44) => escaped(text.length > n ? text.slice(0, n - 1) + "…" : text);

  function layout(extra) {
    const line = css("--line"), soft = css("--soft");
    const axis = { gridcolor: line, zeroline: false, linecolor: line, tickcolor: line, tickfont: { color: soft, size: 12 }, automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", dragmode: "zoom",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: css("--ink") },
      margin: { l: 56, r: 14, t: 34, b: 46 }, hoverlabel: { align: "left", bgcolor: css("--paper"), bordercolor: css("--strong"), font: { color: css("--ink"), size: 12 } },
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size: 12 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: css("--ink") }, // else half-transparent black, from the paper's
      axisLike: axis, ...extra,
    };
  }
  const plot = (id, traces, wanted) => {
    const { axisLike, ...rest } = wanted;
    const box = document.getElementById(id);
    box.replaceChildren(...[...box.children].filter((child) => !child.classList.contains("waiting")));
    return Plotly.react(box, traces, rest, {
      responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
    });
  };

  // How cells are told apart: by the levels of an axis, by cell where only one level is left, or not at all.
  function groups(data, cells, axis) {
    const levels = axis < 0 ? [] : [...new Set(cells.map((c) => c.levels[axis]))].sort((a, b) => a - b);
    const colours = palette();
    if (levels.length < 2 && cells.length <= colours.length && cells.length > 1) {
      return cells.map((c, i) => ({ name: c.label, cells: [c], colour: colours[i], shape: SHAPES[i] }));
    }
    if (levels.length < 2 || levels.length > colours.length) {
      return [{ name: levels.length > 1 ? "all cells" : "", cells, colour: colours[0], shape: SHAPES[0] }];
    }
    return levels.map((level) => {
      const place = data.slots(axis)[level] ?? 0;
      return { name: data.axes[axis].levels[level], cells: cells.filter((c) => c.levels[axis] === level), colour: colours[place % colours.length], shape: SHAPES[place % SHAPES.length] };
    });
  }

  const PER_LEVEL = 260;
  function panelsOf(data, cells, axis, width) {
    const levels = axis < 0 ? [] : [...new Set(cells.map((c) => c.levels[axis]))].sort((a, b) => a - b);
    const shown = levels.length > 1 ? levels.slice(0, MANY_PANELS) : [null];
    const across = Math.max(1, Math.min(shown.length, Math.floor(width / PER_LEVEL), 4));
    return { across, dropped: levels.length - shown.length, panels: shown.map((level) => ({
      title: level === null ? "" : `${data.axes[axis].name}: ${data.axes[axis].levels[level]}`,
      cells: level === null ? cells : cells.filter((c) => c.levels[axis] === level) })) };
  }

  function line(curves, x) {
    const out = { x: [], y: [], text: [], ids: [] };
    for (const { cell, points, note } of curves) {
      points.forEach((p) => {
        out.x.push(p[x]); out.y.push(p.loss); out.ids.push(cell.index);
        out.text.push(`<b>${short(cell.label, 70)}</b><br>step ${p.step} · ${p.seconds.toPrecision(3)} s · ${p.loss.toFixed(3)} nats<br>${p.n > 1 ? `median of ${p.n} seeds, ${p.low.toFixed(3)} to ${p.high.toFixed(3)}` : note}`);
      });
      out.x.push(null); out.y.push(null); out.text.push(""); out.ids.push(-1);
    }
    return out;
  }

  const middleOf = (values) => { const s = [...values].sort((a, b) => a - b), m = s.length >> 1; return s.length % 2 ? s[m] : (s[m - 1] + s[m]) / 2; };
  function medianOf(curves) {
    const steps = new Map();
    curves.forEach(({ points }) => points.forEach((p) => { if (!steps.has(p.step)) steps.set(p.step, []); steps.get(p.step).push(p); }));
    return [...steps].filter(([, all]) => all.length > 1).sort((a, b) => a[0] - b[0]).map(([step, all]) => {
      const losses = all.map((p) => p.loss);
      return { step, seconds: middleOf(all.map((p) => p.seconds)), loss: middleOf(losses), n: all.length, low: Math.min(...losses), high: Math.max(...losses) };
    });
  }

  function frameOf(curves) {
    const later = curves.flatMap((c) => c.points.filter((p) => p.step > 0).map((p) => p.loss)).sort((a, b) => a - b);
    const start = curves.flatMap((c) => c.points.filter((p) => p.step === 0).map((p) => p.loss));
    if (!later.length) return null;
    const ceiling = start.length ? Math.min(Math.max(...start), later[later.length - 1]) : later[later.length - 1];
    const pad = (ceiling - later[0]) * 0.06 || 0.1;
    return { range: [later[0] - pad, ceiling + pad], above: start.length && Math.max(...start) > ceiling + pad };
  }

  function curves(id, data, state, cells, x) {
    const withCurves = cells.filter((c) => c.curve.length);
    const box = document.getElementById(id), width = box.clientWidth || 800;
    const levelsInColour = state.colour < 0 ? 0 : new Set(withCurves.map((c) => c.levels[state.colour])).size;
    const axis = levelsInColour > palette().length ? state.colour : state.panels;
    const { across, panels, dropped } = panelsOf(data, withCurves, axis, width);
    const down = Math.ceil(panels.length / across);
    const every = withCurves.map((cell) => ({ cell, points: cell.curve, note: cell.runs === 1 ? "one run" : "one seed" }));
    const view = frameOf(every);
    const rowHeight = panels.length > 1 ? 230 : Math.min(420, Math.max(300, width * 0.42));
    const top = 58, bottom = 48, height = down * rowHeight + top + bottom;
    const wanted = layout({ height, showlegend: true, annotations: [], margin: { l: 52, r: 12, t: top, b: bottom } });
    wanted.legend.y = 1 + (panels.length > 1 ? 26 : 6) / (height - top - bottom);
    const traces = [], named = new Set(), gapX = Math.min(0.06, 44 / width), gapY = 62 / (height - top - bottom);
    panels.forEach((panel, i) => {
      const n = i ? i + 1 : "", column = i % across, row = Math.floor(i / across);
      const w = (1 - gapX * (across - 1)) / across, h = (1 - gapY * (down - 1)) / down;
      const left = column * (w + gapX), high = 1 - row * (h + gapY);
      wanted["xaxis" + n] = { ...wanted.axisLike, domain: [left, left + w], anchor: "y" + n, rangemode: "tozero", showgrid: false, nticks: 5, ...(i ? { matches: "x" } : {}),
        title: row === down - 1 || i + across >= panels.length ? { text: x === "step" ? "step" : "seconds of training", font: { size: 12, color: css("--soft") } } : {} };
      wanted["yaxis" + n] = { ...wanted.axisLike, domain: [high - h, high], anchor: "x" + n, range: view?.range, nticks: 7, ...(i ? { matches: "y" } : {}),
        title: column ? {} : { text: "nats", font: { size: 12, color: css("--soft") } }, showticklabels: !column };
      if (panel.title) wanted.annotations.push({ text: short(panel.title, 40), x: left, y: high, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 12.5, color: css("--ink") } });
      const at = { xaxis: "x" + n, yaxis: "y" + n };
      if (panels.length > 1) {
        const rest = line(every.filter((c) => !panel.cells.includes(c.cell)), x);
        traces.push({ ...at, x: rest.x, y: rest.y, mode: "lines", line: { color: css("--line"), width: 1 }, hoverinfo: "skip", showlegend: false });
      }
      for (const group of groups(data, panel.cells, state.colour)) {
        const members = every.filter((c) => group.cells.includes(c.cell));
        if (cells.length <= MANY_CURVES) {
          const seeds = line(members.flatMap(({ cell }) => cell.seeds.length > 1 ? cell.seeds.map((points) => ({ cell, points, note: "one seed" })) : []), x);
          traces.push({ ...at, x: seeds.x, y: seeds.y, mode: "lines", line: { color: group.colour, width: 0.8 }, opacity: 0.45, hoverinfo: "skip", showlegend: false });
        }
        const crowd = panel.cells.length > MANY_CURVES + 2 && members.length > 3;
        const drawn = line(members, x), look = { color: group.colour, width: 2 }, legend = { name: short(group.name), legendgroup: group.name };
        const first = Boolean(group.name) && !named.has(group.name);
        traces.push({ ...at, ...legend, x: drawn.x, y: drawn.y, text: drawn.text, customdata: drawn.ids, hovertemplate: "%{text}<extra></extra>", mode: crowd ? "lines" : "lines+markers",
          showlegend: first && !crowd, line: crowd ? { ...look, width: 0.8 } : look, marker: { symbol: group.shape, size: 6.5, color: group.colour }, opacity: crowd ? 0.3 : 1 });
        if (crowd) {
          const middle = medianOf(members);
          traces.push({ ...at, ...legend, x: middle.map((p) => p[x]), y: middle.map((p) => p.loss), customdata: middle.map(() => -1), mode: "lines+markers", showlegend: first, line: { ...look, width: 2.6 },
            marker: { symbol: group.shape, size: 6.5, color: group.colour }, hovertemplate: "%{text}<extra></extra>",
            text: middle.map((p) => `<b>${short(group.name || "all", 40)}</b>: median of ${p.n} of ${members.length} cells<br>step ${p.step} · ${p.loss.toFixed(3)} nats (${p.low.toFixed(3)} to ${p.high.toFixed(3)})`) });
        }
        named.add(group.name);
      }
    });
    for (let i = 0; i < panels.length; i += 1) traces.push({ x: [], y: [], xaxis: "x" + (i ? i + 1 : ""), yaxis: "y" + (i ? i + 1 : ""), mode: "lines", line: { color: css("--ink"), width: 3 }, hoverinfo: "skip", showlegend: false, meta: "highlight" });
    plot(id, traces, wanted);
    highlight(box, data, x, panels);
    return [view?.above ? "The evaluation before the first step lies above the frame." : "", dropped > 0 ? `${dropped} further levels have no panel: filter to see them.` : "",
      axis === state.colour && axis !== state.panels ? "More levels than colours: one panel a level, the other cells in grey." : "", panels.length > 1 ? "Grey: the cells of the other panels." : ""].filter(Boolean).join(" ");
  }

  function highlight(box, data, x, panels) {
    box.removeAllListeners?.("plotly_hover"); box.removeAllListeners?.("plotly_unhover");
    const overlay = (of) => {
      const index = box.data.flatMap((t, i) => (t.meta === "highlight" ? [i] : []));
      const lines = panels.map((panel) => (of && panel.cells.includes(of) ? of.curve : []));
      Plotly.restyle(box, { x: lines.map((l) => l.map((p) => p[x])), y: lines.map((l) => l.map((p) => p.loss)) }, index);
    };
    box.on("plotly_hover", (event) => { const id = event.points[0].customdata; if (id >= 0) overlay(data.cells[id]); });
    box.on("plotly_unhover", () => overlay(null));
  }

  const SCALES = { bytes: [[1 << 30, "GiB"], [1 << 20, "MiB"], [1 << 10, "KiB"]] };
  function unitOf(values, unit) {
    for (const [factor, name] of SCALES[unit] || []) if (Math.max(...values) >= factor) return [factor, name];
    return [1, unit];
  }
  const whisker = (members, key, factor, colour) => ({ type: "data", symmetric: false, thickness: 1.2, width: 3, color: colour,
    array: members.map((c) => (c.values[key][3] - c.values[key][2]) / factor), arrayminus: members.map((c) => (c.values[key][2] - c.values[key][1]) / factor) });
  // One run has no spread: such cells are hollow marks without bars, in a trace of their own.
  function marks(group, key, legend, place, bars) {
    const repeated = group.cells.filter((c) => c.values[key][0] > 1), single = group.cells.filter((c) => c.values[key][0] === 1);
    const look = (members, symbol) => ({ ...place(members), mode: "markers", name: short(group.name), legendgroup: group.name, hovertemplate: "%{text}<extra></extra>",
      marker: { color: group.colour, size: 9, opacity: members.length > 60 ? 0.6 : 0.88, symbol } });
    return [...(repeated.length ? [{ ...look(repeated, group.shape), ...bars(repeated), showlegend: legend }] : []),
      ...(single.length ? [{ ...look(single, `${group.shape}-open`), showlegend: legend && !repeated.length }] : [])];
  }
  const told = (c, key, factor, unit) => { const [n, low, median, high] = c.values[key], f = (v) => (v / factor).toLocaleString("en", { maximumSignificantDigits: 4 });
    return `${f(median)} ${unit} (${n === 1 ? "one run" : `${f(low)} to ${f(high)}, n = ${n}`})`; };

  function dots(id, data, state, cells, key, unitName) {
    const kept = cells.filter((c) => c.values[key]);
    const box = document.getElementById(id), width = box.clientWidth || 800;
    const [factor, unit] = unitOf(kept.map((c) => c.values[key][3]).concat(1), unitName);
    const byCell = kept.length <= MANY_ROWS && width > 620;
    const order = [...kept].sort((a, b) => a.values[key][2] - b.values[key][2]);
    const rows = state.colour < 0 ? [0] : [...new Set(kept.map((c) => c.levels[state.colour]))].sort((a, b) => b - a);
    const rowOf = new Map(order.map((c, i) => [c, byCell ? i : rows.indexOf(state.colour < 0 ? 0 : c.levels[state.colour]) + (((c.index * 0.618034) % 1) - 0.5) * 0.62]));
    const labels = byCell ? order.map((c) => short(c.label, 46)) : rows.map((l) => (state.colour < 0 ? "all cells" : short(data.axes[state.colour].levels[l], 24)));
    const all = groups(data, kept, state.colour);
    const traces = all.flatMap((group) => marks(group, key, byCell && all.length > 1,
      (members) => ({ x: members.map((c) => c.values[key][2] / factor), y: members.map((c) => rowOf.get(c)), text: members.map((c) => `<b>${short(c.label, 70)}</b><br>${told(c, key, factor, unit)}`) }),
      (members) => ({ error_x: whisker(members, key, factor, group.colour) })));
    const wanted = layout({ height: labels.length * (byCell ? 23 : 54) + 96 });
    wanted.xaxis = { ...wanted.axisLike, rangemode: "tozero", title: { text: unit, font: { size: 12, color: css("--soft") } } };
    wanted.yaxis = { ...wanted.axisLike, tickvals: labels.map((_, i) => i), ticktext: labels, range: [-0.7, labels.length - 0.3], gridcolor: css("--line"), tickfont: { size: 11.5, color: css("--ink") } };
    plot(id, traces, wanted);
  }

  function scatter(id, data, state, cells) {
    const kept = cells.filter((c) => c.values.final_loss && c.values.tokens_per_second);
    const traces = groups(data, kept, state.colour).flatMap((group, _, all) => marks(group, "final_loss", all.length > 1,
      (members) => ({ x: members.map((c) => c.values.tokens_per_second[2]), y: members.map((c) => c.values.final_loss[2]),
        text: members.map((c) => `<b>${short(c.label, 70)}</b><br>${told(c, "final_loss", 1, "nats")}<br>${told(c, "tokens_per_second", 1, "tokens/s")}`) }),
      (members) => ({ error_x: whisker(members, "tokens_per_second", 1, group.colour), error_y: whisker(members, "final_loss", 1, group.colour) })));
    const wanted = layout({ height: 440 });
    wanted.xaxis = { ...wanted.axisLike, title: { text: "throughput in tokens/s", font: { size: 12, color: css("--soft") } } };
    wanted.yaxis = { ...wanted.axisLike, title: { text: "held-out loss in nats", font: { size: 12, color: css("--soft") } } };
    plot(id, traces, wanted);
  }
  return { curves, dots, scatter, dark, colours: LIGHT.length, panels: MANY_PANELS };
})();
