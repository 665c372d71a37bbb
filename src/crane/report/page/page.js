"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const unique = (values) => [...new Set(values)];
const dark = matchMedia("(prefers-color-scheme: dark)");
const PALETTE = ["#d9532c", "#2a7fbf", "#3d9a57", "#b07cc6", "#d4a017", "#26a6a4", "#c2577f", "#7d8b33", "#8c6d4f", "#6b7fd7"];
const GREY = "#9a948a";
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
const colour = (setting) => published.has(setting) ? GREY : PALETTE[ours.indexOf(setting) % PALETTE.length];

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
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // what is not defined comes last
    return sign * (x - y);
  };
  body.append(...[...rows].sort(order));
}
for (const [column, heading] of [...$("table").tHead.rows[0].cells].entries()) {
  heading.querySelector("button").addEventListener("click", () => sortRows(column, heading));
}
for (const id of ["search", "dataset-filter", "with-classes"]) $(id).addEventListener("input", filterRows);
filterRows();

/* Charts: each is drawn anew when what is chosen above it changes. */
function fill(id, pairs) {
  const before = $(id).value;
  $(id).replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
  if (pairs.some(([value]) => value === before)) $(id).value = before;
}
function draw(id, traces, layout) {
  const css = getComputedStyle(document.documentElement);
  const [ink, line] = ["--ink", "--line"].map((name) => css.getPropertyValue(name).trim());
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  Plotly.react(id, traces, {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: { color: ink, family: "system-ui, sans-serif", size: 12 },
    margin: { l: 48, r: 8, t: 8, b: 36 }, bargap: 0.25, bargroupgap: 0.08,
    legend: { orientation: "h", y: -0.22, yanchor: "top" },
    hoverlabel: { namelength: -1 },
    ...layout,
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  }, { responsive: true, displaylogo: false, displayModeBar: false });
}
function bars(id, own, place, values, title) {
  const traces = [];
  for (const setting of settings) {
    const mine = own.filter((row) => row.setting === setting && values(row).length);
    if (!mine.length) continue;
    traces.push({
      type: "bar", name: setting, x: mine.map(place), y: mine.map((row) => mean(values(row))),
      marker: { color: colour(setting), opacity: 0.82 }, offsetgroup: setting, legendgroup: setting,
      error_y: { type: "data", array: mine.map((row) => deviation(values(row))), thickness: 1.4, width: 4,
        visible: mine.some((row) => values(row).length > 1) },
      hovertemplate: "%{x}: %{y:.1f}",
    });
    const dots = mine.filter((row) => values(row).length > 1);
    if (dots.length) traces.push({
      type: "box", name: setting, legendgroup: setting, offsetgroup: setting, showlegend: false,
      x: dots.flatMap((row) => values(row).map(() => place(row))), y: dots.flatMap(values),
      boxpoints: "all", jitter: 0.5, pointpos: 0, fillcolor: "transparent", line: { width: 0, color: "transparent" },
      marker: { size: 5, color: colour(setting), line: { width: 1, color: "#fff" } }, hoveron: "points",
    });
  }
  draw(id, traces, { barmode: "group", boxmode: "group", yaxis: { title: { text: title }, rangemode: "tozero" },
    xaxis: { type: "category" }, showlegend: true });
}
const chosenName = (id) => $(id).selectedOptions[0]?.text ?? "";

function drawAblation() {
  const metric = $("ablation-metric").value;
  const own = data.rows.filter((row) => row.class === "mean");
  bars("ablation", own, (row) => row.dataset, (row) => row.values[metric] ?? [], chosenName("ablation-metric"));
}
function drawClasses() {
  const metric = $("classes-metric").value;
  const own = data.rows.filter((row) => row.class !== "mean" && row.dataset === $("classes-dataset").value);
  bars("classes", own, (row) => row.class, (row) => row.values[metric] ?? [], chosenName("classes-metric"));
}
function drawSizes() {
  const own = data.rows
    .filter((row) => row.class === "mean" && row.dataset === $("sizes-dataset").value && !row.published)
    .flatMap((row) => data.sizes.map(([size, name]) => ({ setting: row.setting, name, values: row.values[size] ?? [] })));
  bars("sizes", own, (row) => row.name, (row) => row.values, "AUPRO");
}
function drawCurves() {
  const [kind, dataset] = [$("curves-kind").value, $("curves-dataset").value];
  const of = (setting) => data.curves[setting]?.[dataset]?.[kind] ?? {};
  fill("curves-class", unique(ours.flatMap((setting) => Object.keys(of(setting)))).map((name) => [name, name]));
  const name = $("curves-class").value;
  const found = ours.filter((setting) => of(setting)[name]).map((setting) => [setting, of(setting)[name]]);
  const words = (text) => (text ?? "").replaceAll("_", " ");
  draw("curves", found.map(([setting, curve]) => ({
    type: "scatter", mode: "lines", name: setting, x: curve.x, y: curve.y,
    line: { color: colour(setting), width: 2 }, hovertemplate: "(%{x:.3f}, %{y:.3f})",
  })), {
    xaxis: { range: [-0.01, 1.01], title: { text: words(found[0]?.[1].x_name) } },
    yaxis: { range: [-0.01, 1.02], title: { text: words(found[0]?.[1].y_name) } }, showlegend: true,
    legend: { orientation: "h", y: -0.28, yanchor: "top" },
  });
}
const pairs = (names) => names.map((name) => [name, name]);
const KINDS = { pro: "PRO", image_roc: "image ROC", image_pr: "image precision-recall", pixel_roc: "pixel ROC", pixel_pr: "pixel precision-recall" };
const own_datasets = datasets.filter((dataset) => data.rows.some((row) => row.dataset === dataset && !row.published));
fill("ablation-metric", data.metrics);
fill("classes-metric", data.metrics);
fill("classes-dataset", pairs(own_datasets));
fill("sizes-dataset", pairs(own_datasets));
fill("curves-dataset", pairs(own_datasets));
fill("curves-kind", Object.entries(KINDS));
const charts = { ablation: drawAblation, classes: drawClasses, sizes: drawSizes, curves: drawCurves };
for (const [name, redraw] of Object.entries(charts)) {
  for (const select of document.querySelectorAll(`select[id^="${name}-"]`)) select.addEventListener("change", redraw);
  redraw();
}
dark.addEventListener("change", () => Object.values(charts).forEach((redraw) => redraw()));

/* Gallery. */
const figures = [...document.querySelectorAll("figure")];
const FILTERS = ["choice", "label", "setting", "dataset"];
function filterPictures() {
  let count = 0;
  for (const figure of figures) {
    const shown = FILTERS.every((name) => {
      const wanted = $(`gallery-${name}`).value;
      const is = figure.dataset[name];
      return !wanted || (name === "choice" ? is.split(" ").includes(wanted) : is === wanted);
    });
    figure.hidden = !shown;
    count += shown;
  }
  $("num-pictures").textContent = `${count} picture${count === 1 ? "" : "s"}`;
}
if (figures.length) {
  for (const name of FILTERS) $(`gallery-${name}`).addEventListener("change", filterPictures);
  filterPictures();
  const large = $("large");
  for (const figure of figures) {
    figure.querySelector("button").addEventListener("click", () => {
      large.querySelector("img").src = figure.querySelector("img").src;
      large.querySelector("img").alt = figure.querySelector("img").alt;
      large.querySelector("p").textContent = [...figure.querySelectorAll("figcaption > span")]
        .slice(0, 3).map((part) => part.textContent.trim()).join(" · ");
      large.showModal();
    });
  }
  large.addEventListener("click", (event) => {
    if (event.target === large || event.target.closest(".close")) large.close();
  });
}
