"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const unique = (values) => [...new Set(values)];
const dark = matchMedia("(prefers-color-scheme: dark)");
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const deviation = (values) => {
  const middle = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - middle) ** 2, 0);
  return values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0;
};

const settings = unique(data.rows.map((row) => row.setting));
const datasets = unique(data.rows.map((row) => row.dataset));
const published = new Set(data.rows.filter((row) => row.published).map((row) => row.setting));
const ours = settings.filter((setting) => !published.has(setting));
const colour = (setting) => data.colours[setting];
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;"); // for Plotly, which reads tags

/* Results: sorting and filtering. */
const body = $("table").tBodies[0];
const rows = [...body.rows];
function filterRows() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const text = [...row.cells].slice(0, 3).map((cell) => cell.textContent).join(" ").toLowerCase();
    const shown = words.every((word) => text.includes(word))
      && (!$("dataset-filter").value || row.dataset.dataset === $("dataset-filter").value)
      && ($("with-classes").checked || !("class" in row.dataset));
    row.hidden = !shown;
    count += shown;
  }
  $("table").classList.toggle("means", !$("with-classes").checked);
  $("num-rows").textContent = `${count} row${count === 1 ? "" : "s"}`;
}
function sortRows(column, heading) {
  const falling = heading.getAttribute("aria-sort") === "none"
    ? heading.classList.contains("number") : heading.getAttribute("aria-sort") === "ascending";
  for (const other of $("table").tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const sign = falling ? -1 : 1;
  const isNumber = heading.classList.contains("number");
  const key = (row) => isNumber ? parseFloat(row.cells[column].dataset.value) : row.cells[column].textContent;
  const order = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (!isNumber) return sign * x.localeCompare(y, undefined, { numeric: true });
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // undefined values come last
    return sign * (x - y);
  };
  body.append(...[...rows].sort(order));
}
for (const [column, heading] of [...$("table").tHead.rows[0].cells].entries()) {
  heading.querySelector("button").addEventListener("click", () => sortRows(column, heading));
}
for (const id of ["search", "dataset-filter", "with-classes"]) $(id).addEventListener("input", filterRows);
filterRows();

/* Charts: each is redrawn when a choice above it or the settings shown change. */
const off = new Set(); // settings hidden in the charts
const visible = () => settings.filter((setting) => !off.has(setting));
const isNarrow = () => innerWidth < 700;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const chosenName = (id) => $(id).selectedOptions[0]?.text ?? "";
function fill(id, pairs) {
  const before = $(id).value;
  $(id).replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
  if (pairs.some(([value]) => value === before)) $(id).value = before;
}
function draw(id, traces, { width = 0, height = 340, ...layout }) {
  const [ink, line] = [css("--ink"), css("--line")];
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  const axes = Object.entries(layout).filter(([name]) => /^[xy]axis/.test(name))
    .map(([name, own]) => [name, { ...axis, ...own }]);
  Plotly.react(id, traces, {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", showlegend: false, autosize: false,
    font: { color: ink, family: "system-ui, sans-serif", size: 12 },
    margin: { l: 44, r: 12, t: 12, b: 40 }, hoverlabel: { namelength: -1 },
    ...layout, ...Object.fromEntries(axes), height, width: Math.max($(id).clientWidth, width),
  }, { displaylogo: false, displayModeBar: false, scrollZoom: false });
}
/* A name on lines of limited length: broken at its commas, then cut. */
const lines = (text, length) => text.split(", ")
  .map((part) => plain(part.length > length ? `${part.slice(0, length - 1)}…` : part)).join("<br>");
const dots = (setting) => ({ color: colour(setting), size: 5, opacity: 0.6 });

function drawAblation() {
  const metric = $("ablation-metric").value;
  const chosen = $("ablation-dataset").value ? [$("ablation-dataset").value] : datasets;
  const columns = isNarrow() ? 1 : Math.min(chosen.length, 3);
  const rows = Math.ceil(chosen.length / columns);
  const shown = visible();
  const numLines = Math.max(1, ...shown.map((setting) => setting.split(", ").length));
  const step = Math.max(26, 15 * numLines + 6);
  const panel = step * shown.length + 10;
  const gap = 62; // pixels between panels: the ticks of one and the title of the next
  const height = rows * panel + rows * gap;
  const layout = { height, margin: { l: 10, r: 12, t: 26, b: 36 }, annotations: [] };
  const inner = height - 62;
  const traces = [];
  for (const [place, dataset] of chosen.entries()) {
    const [row, column] = [Math.floor(place / columns), place % columns];
    const [x, y] = [`x${place + 1}`, `y${place + 1}`];
    const top = 1 - row * (panel + gap) / inner;
    const left = column / columns;
    layout[`xaxis${place + 1}`] = { domain: [left + (column ? 0.02 : 0), left + 1 / columns - 0.01], anchor: y, nticks: 6 };
    layout[`yaxis${place + 1}`] = {
      domain: [Math.max(0, top - panel / inner), top], anchor: x, range: [shown.length - 0.5, -0.5],
      tickvals: shown.map((_, number) => number), showticklabels: column === 0, zeroline: false, ticklabelstandoff: 4,
      ticktext: shown.map((setting) => lines(setting, isNarrow() ? 18 : 34)),
    };
    layout.annotations.push({ text: `<b>${plain(dataset)}</b>`, xref: `${x} domain`, yref: `${y} domain`, x: 0, y: 1, xanchor: "left", yanchor: "bottom", showarrow: false });
    for (const one of data.rows.filter((each) => each.mean && each.dataset === dataset)) {
      const [values, number] = [one.values[metric] ?? [], shown.indexOf(one.setting)];
      if (!values.length || number < 0) continue;
      const common = { type: "scatter", mode: "markers", xaxis: x, yaxis: y, name: plain(one.setting) };
      if (values.length > 1) traces.push({ ...common, x: values, y: values.map(() => number + 0.24), marker: dots(one.setting), hoverinfo: "skip" });
      traces.push({ ...common, x: [mean(values)], y: [number], marker: { color: colour(one.setting), size: 10, symbol: one.published ? "diamond" : "circle" },
        error_x: { type: "data", array: [deviation(values)], visible: values.length > 1, thickness: 1.6, width: 4, color: colour(one.setting) },
        hovertemplate: `%{x:.1f}${values.length > 1 ? " ± %{error_x.array:.1f}" : ""}` });
    }
  }
  draw("ablation", traces, layout);
}
/* Bars of all settings side by side in every group; positions are numbers, so that the dots of single
   seeds are on their bars. */
function bars(id, groups, valuesOf, title) {
  const shown = visible().filter((setting) => groups.some((group) => valuesOf(setting, group).length));
  const width = 0.8 / Math.max(1, shown.length);
  const traces = [];
  for (const [place, setting] of shown.entries()) {
    const mine = groups.map((group, number) => [number - 0.4 + width * (place + 0.5), valuesOf(setting, group), group])
      .filter(([, values]) => values.length);
    traces.push({
      type: "bar", name: plain(setting), width: width * 0.92, x: mine.map(([x]) => x), y: mine.map(([, values]) => mean(values)),
      marker: { color: colour(setting), opacity: 0.85 }, customdata: mine.map(([, , group]) => plain(group)),
      error_y: { type: "data", array: mine.map(([, values]) => deviation(values)), thickness: 1.4, width: 3, color: css("--quiet"),
        visible: mine.some(([, values]) => values.length > 1) },
      hovertemplate: "%{customdata}: %{y:.1f}",
    });
    const seeds = mine.filter(([, values]) => values.length > 1).flatMap(([x, values]) => values.map((value) => [x, value]));
    traces.push({ type: "scatter", mode: "markers", name: plain(setting), x: seeds.map(([x]) => x), y: seeds.map(([, y]) => y),
      marker: { color: css("--card"), size: 6, line: { width: 1.5, color: colour(setting) } }, hoverinfo: "skip" });
  }
  draw(id, traces, {
    width: groups.length * (shown.length * 9 + 14) + 80, barmode: "overlay",
    yaxis: { title: { text: title }, rangemode: "tozero" },
    xaxis: { range: [-0.5, groups.length - 0.5], tickvals: groups.map((_, number) => number), ticktext: groups.map(plain), showgrid: false, zeroline: false },
  });
}
function drawClasses() {
  const [metric, dataset] = [$("classes-metric").value, $("classes-dataset").value];
  const own = data.rows.filter((row) => !row.mean && row.dataset === dataset);
  const find = (setting, group) => own.find((row) => row.setting === setting && row.class === group)?.values[metric] ?? [];
  bars("classes", unique(own.map((row) => row.class)), find, chosenName("classes-metric"));
}
function drawSizes() {
  const own = data.rows.filter((row) => row.mean && row.dataset === $("sizes-dataset").value);
  const keys = Object.fromEntries(data.sizes.map(([size, name]) => [name, size]));
  const find = (setting, group) => own.find((row) => row.setting === setting)?.values[keys[group]] ?? [];
  bars("sizes", Object.keys(keys), find, "AUPRO");
}
function drawCurves() {
  const [kind, dataset] = [$("curves-kind").value, $("curves-dataset").value];
  const of = (setting) => data.curves[setting]?.[dataset]?.[kind] ?? {};
  fill("curves-class", unique(ours.flatMap((setting) => Object.keys(of(setting)))).map((name) => [name, name]));
  const name = $("curves-class").value;
  const found = visible().filter((setting) => of(setting)[name]).map((setting) => [setting, of(setting)[name]]);
  const words = (text) => plain(text ?? "").replaceAll("_", " ");
  const chance = { type: "line", x0: 0, y0: 0, x1: 1, y1: 1, layer: "below", line: { color: css("--quiet"), width: 1, dash: "dot" } };
  draw("curves", found.map(([setting, curve]) => ({
    type: "scatter", mode: "lines", name: plain(setting), x: curve.x, y: curve.y,
    line: { color: colour(setting), width: 2 }, hovertemplate: "(%{x:.3f}, %{y:.3f})",
  })), {
    shapes: kind.endsWith("pr") ? [] : [chance],
    xaxis: { range: [-0.01, 1.01], title: { text: words(found[0]?.[1].x_name) } },
    yaxis: { range: [-0.01, 1.02], title: { text: words(found[0]?.[1].y_name) } },
  });
}
const pairs = (names) => names.map((name) => [name, name]);
const ownDatasets = datasets.filter((dataset) => data.rows.some((row) => row.dataset === dataset && !row.published));
for (const id of ["ablation-metric", "classes-metric"]) fill(id, data.metrics);
for (const id of ["classes-dataset", "sizes-dataset", "curves-dataset"]) fill(id, pairs(ownDatasets));
fill("ablation-dataset", datasets.length > 1 ? [["", "all"], ...pairs(datasets)] : pairs(datasets));
fill("curves-kind", Object.entries(data.kinds));
const charts = { ablation: drawAblation, classes: drawClasses, sizes: drawSizes, curves: drawCurves };
const drawAll = () => Object.values(charts).forEach((redraw) => redraw());
for (const [name, redraw] of Object.entries(charts)) {
  for (const select of document.querySelectorAll(`select[id^="${name}-"]`)) select.addEventListener("change", redraw);
}
function press() {
  for (const chip of document.querySelectorAll(".chips [aria-pressed]")) chip.setAttribute("aria-pressed", !off.has(chip.value));
  $("chips-all").textContent = off.size ? "all" : "none";
  drawAll();
}
$("chips-all").before(...settings.map((setting) => {
  const chip = document.createElement("button");
  Object.assign(chip, { type: "button", value: setting });
  const dot = document.createElement("i");
  dot.className = "dot";
  dot.style.setProperty("--colour", colour(setting));
  chip.append(dot, setting);
  chip.setAttribute("aria-pressed", true);
  chip.addEventListener("click", () => { off.delete(setting) || off.add(setting); press(); });
  return chip;
}));
$("chips-all").addEventListener("click", () => {
  const hide = off.size === 0;
  for (const setting of settings) hide ? off.add(setting) : off.delete(setting);
  press();
});
press();
dark.addEventListener("change", drawAll);
let width = innerWidth;
addEventListener("resize", () => { // phones resize whenever their address bar slides away
  if (innerWidth === width) return;
  width = innerWidth;
  requestAnimationFrame(drawAll);
});

/* Gallery. */
const PAGE = 24; // pictures shown at first, and added by each press
const figures = [...document.querySelectorAll("figure")];
const FILTERS = ["choice", "label", "setting", "dataset"];
let room = PAGE;
let chosen = figures;
function filterPictures() {
  chosen = figures.filter((figure) => FILTERS.every((name) => {
    const [wanted, is] = [$(`gallery-${name}`).value, figure.dataset[name]];
    return !wanted || (name === "choice" ? is.split(" ").includes(wanted) : is === wanted);
  }));
  const shown = new Set(chosen.slice(0, room));
  for (const figure of figures) figure.hidden = !shown.has(figure);
  $("num-pictures").textContent = `${chosen.length} picture${chosen.length === 1 ? "" : "s"}`;
  $("more").hidden = chosen.length <= room;
  $("more").textContent = `Show ${Math.min(PAGE, chosen.length - room)} more`;
}
function enlarge(number) {
  const [figure, large] = [chosen[number], $("large")];
  const [image, picture] = [figure.querySelector("img"), large.querySelector("img")];
  picture.src = image.src;
  picture.alt = image.alt;
  large.querySelector("p").textContent = [...figure.querySelectorAll("figcaption > span")]
    .slice(0, 3).map((part) => part.textContent.trim()).join(" · ");
  $("previous").disabled = number === 0;
  $("next").disabled = number === chosen.length - 1;
  large.dataset.number = number;
  if (!large.open) large.showModal();
}
function stepTo(number) {
  if (chosen[number]) enlarge(number);
}
if (figures.length) {
  for (const name of FILTERS) $(`gallery-${name}`).addEventListener("change", () => { room = PAGE; filterPictures(); });
  $("more").addEventListener("click", () => { room += PAGE; filterPictures(); });
  filterPictures();
  for (const figure of figures) {
    figure.querySelector(".dot").style.setProperty("--colour", colour(figure.dataset.setting));
    figure.querySelector("button").addEventListener("click", () => enlarge(chosen.indexOf(figure)));
  }
  const large = $("large");
  const by = (step) => stepTo(Number(large.dataset.number) + step);
  $("previous").addEventListener("click", () => by(-1));
  $("next").addEventListener("click", () => by(1));
  large.addEventListener("keydown", (event) => by({ ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0));
  large.addEventListener("click", (event) => {
    if (event.target === large || event.target.closest(".close")) large.close();
  });
}
