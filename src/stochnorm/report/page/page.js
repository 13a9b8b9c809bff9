"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const figures = read("figures");
  const thumbnails = read("thumbnails");
  const hiddenVariants = new Set();
  const fine = matchMedia("(pointer: fine)").matches;

  /* Charts: colors are the style sheet's, so that they follow light, dark and paper. */

  let colors = new Map();

  function color(text) {
    if (!colors.has(text)) {
      const style = getComputedStyle(document.documentElement);
      colors.set(text, style.getPropertyValue(text.slice(4, -1)).trim());
    }
    return colors.get(text);
  }

  function resolve(value) {
    if (typeof value === "string") return value.startsWith("var(--") ? color(value) : value;
    if (Array.isArray(value)) return value.every((inner) => typeof inner === "number") ? value : value.map(resolve);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, resolve(inner)]));
  }

  /* The confusion matrix as two maps, of correct and of confused images. */
  function spread({ classes, cells }) {
    const n = classes.length;
    const grid = (empty) => Array.from({ length: n }, () => Array(n).fill(empty));
    const total = Array(n).fill(0);
    for (const [row, , count] of cells) total[row] += count;
    const maps = [0, 1].map(() => [grid(null), grid(""), grid("")]);
    for (const [row, column, count] of cells) {
      const [z, text, hover] = maps[row === column ? 0 : 1];
      z[row][column] = (100 * count) / total[row];
      text[row][column] = count;
      const what = row === column ? `${classes[row]}: correct` : `${classes[row]}<br>predicted as ${classes[column]}`;
      hover[row][column] = `${what}<br>${count} of ${total[row]}`;
    }
    const gap = n <= 40 ? 1 : 0;
    return maps.map(([z, text, hovertext], i) => ({
      type: "heatmap", z, text, hovertext, hovertemplate: "%{hovertext}<extra></extra>", hoverongaps: false,
      zmin: 0, zmax: i ? 30 : 100, showscale: false, xgap: gap, ygap: gap,
      colorscale: [[0, `var(--tint${i + 1})`], [1, `var(--s${i + 1})`]],
      ...(n <= 12 ? { texttemplate: "%{text}" } : {}),
    }));
  }

  function layoutOf(layout, width) {
    const axis = {
      gridcolor: "var(--line)", zerolinecolor: "var(--line)", linecolor: "var(--line)", automargin: true,
      fixedrange: true, title: { standoff: 8 },
    };
    const full = {
      margin: { l: 10, r: 14, t: 8, b: 10 }, showlegend: false, autosize: true, dragmode: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: width < 420 ? 11 : 12, color: "var(--ink-2)" },
      hoverlabel: { bgcolor: "var(--card)", bordercolor: "var(--line)", font: { color: "var(--ink)" }, align: "left" },
      ...layout,
    };
    for (const name of Object.keys(full)) {
      if (!/^[xy]axis\d*$/.test(name)) continue;
      full[name] = { ...axis, ...full[name], title: { ...axis.title, ...(full[name].title || {}) } };
    }
    return { ...full, width, height: layout.height };
  }

  /* The confusion matrix is about square; as high as the list of pairs if that is beside it. */
  function squareHeight(chart, width, height) {
    const [card, other] = chart.closest(".pair").children;
    if (other.offsetTop !== card.offsetTop) return Math.min(height, width + 20);
    const list = [...other.children].reduce((sum, child) => sum + child.offsetHeight, 0);
    return Math.min(Math.max(0.75 * width, list - 16), 1.1 * width);
  }

  function draw(chart) {
    const figure = figures[chart.dataset.figure];
    const width = chart.clientWidth;
    if (!figure || !width) return;
    const traces = figure.confusion ? spread(figure.confusion) : figure.data;
    const data = traces.map((trace) => ({
      ...resolve(trace), visible: !(trace.meta && hiddenVariants.has(trace.meta.variant)),
    }));
    const layout = resolve(layoutOf(figure.layout, width));
    if (figure.confusion) {
      layout.height = squareHeight(chart, width, layout.height);
      layout.dragmode = fine ? "zoom" : false;
      layout.xaxis.fixedrange = layout.yaxis.fixedrange = !fine;
    }
    const paper = document.documentElement.classList.contains("paper");
    if (figure.squat && paper) layout.height = Math.min(layout.height, 290);
    chart.style.height = `${layout.height}px`;
    Plotly.react(chart, data, layout, { displayModeBar: false, displaylogo: false, doubleClick: "reset" });
    chart.dataset.width = width;
  }

  /* One chart at a time, the ones in sight first, so that the page answers while it draws. */
  const waiting = [];
  const later = window.requestIdleCallback ? (f) => requestIdleCallback(f, { timeout: 300 }) : (f) => setTimeout(f, 10);

  function drawNext() {
    const chart = waiting.shift();
    if (chart) draw(chart);
    document.documentElement.dataset.drawn = waiting.length ? "" : "all";
    if (waiting.length) later(drawNext);
  }

  function drawSoon(charts) {
    const idle = !waiting.length;
    for (const chart of charts) if (chart.clientWidth && !waiting.includes(chart)) waiting.push(chart);
    delete document.documentElement.dataset.drawn;
    if (idle) later(drawNext);
  }

  function redraw() {
    colors = new Map();
    drawSoon(all(".chart"));
  }

  function redrawNow() {
    colors = new Map();
    for (const chart of all(".chart")) draw(chart);
  }

  let resizing = 0;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => {
      drawSoon(all(".chart").filter((chart) => Number(chart.dataset.width) !== chart.clientWidth));
    }, 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  function setPaper(on) {
    document.documentElement.classList.toggle("paper", on);
    redrawNow();
  }
  addEventListener("beforeprint", () => setPaper(true));
  addEventListener("afterprint", () => setPaper(false));
  matchMedia("print").addEventListener("change", (event) => setPaper(event.matches));

  for (const button of all(".legend button")) {
    button.addEventListener("click", () => {
      const { variant } = button.dataset;
      if (!hiddenVariants.delete(variant)) hiddenVariants.add(variant);
      for (const other of all(".legend button")) {
        if (other.dataset.variant === variant) other.setAttribute("aria-pressed", String(!hiddenVariants.has(variant)));
      }
      const shows = (trace) => trace.meta && trace.meta.variant === variant;
      drawSoon(all(".chart").filter((chart) => figures[chart.dataset.figure]?.data.some(shows)));
    });
  }

  /* Sorting. */

  const keyOf = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.v ?? cell.textContent.trim();
    return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
  };

  function compare(a, b, sign) {
    if (a === "" || b === "") return (a === "") - (b === ""); // missing values come last either way
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
  }

  for (const button of all("table.sortable thead button")) {
    button.addEventListener("click", () => {
      const th = button.closest("th");
      const body = th.closest("table").tBodies[0];
      const first = th.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = th.getAttribute("aria-sort") === first ? other : first;
      for (const sibling of th.parentElement.cells) sibling.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].map((row) => [keyOf(row, th.cellIndex), row]);
      body.append(...rows.sort(([a], [b]) => compare(a, b, sign)).map(([, row]) => row));
    });
  }

  /* Filtering. */

  const table = document.getElementById("rows");
  if (table) {
    const tools = ["find", "by-data", "by-rate", "by-variant", "by-mark"].map((id) => document.getElementById(id));
    const rows = [...table.tBodies[0].rows];
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const filter = () => {
      const [words, data, rate, variant, mark] = tools.map((tool) => tool.value);
      const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const fits =
          (!data || row.dataset.data === data) && (!rate || row.dataset.rate === rate) &&
          (!variant || row.dataset.variant === variant) &&
          (!mark || mark.split(" ").includes(row.dataset.mark)) &&
          wanted.every((word) => texts.get(row).includes(word));
        row.hidden = !fits;
        shown += fits;
      }
      document.getElementById("shown").value = `${shown} of ${rows.length} rows`;
      document.getElementById("none").hidden = shown > 0;
    };
    for (const tool of tools) tool.addEventListener("input", filter);
    tools[0].form.addEventListener("reset", () => setTimeout(filter));
  }

  for (const form of all("form")) form.addEventListener("submit", (event) => event.preventDefault());

  /* Runs in detail. */

  function loadImages(root) {
    for (const image of all("img[data-thumbnail]:not([src])", root)) image.src = thumbnails[image.dataset.thumbnail];
  }

  const runs = all("article.run");
  const chooseCase = document.getElementById("case");
  const chooseVariant = document.getElementById("variant");

  function showRun() {
    const inCase = runs.filter((run) => run.dataset.case === chooseCase.value);
    const variants = inCase.map((run) => run.dataset.variant);
    for (const option of chooseVariant.options) option.hidden = option.disabled = !variants.includes(option.value);
    if (!variants.includes(chooseVariant.value)) chooseVariant.value = variants[0];
    const shown = inCase.find((run) => run.dataset.variant === chooseVariant.value);
    for (const run of runs) run.hidden = run !== shown;
    for (const figure of all("figure[data-case]")) figure.hidden = figure.dataset.case !== chooseCase.value;
    if (shown) loadImages(shown);
    drawSoon(all("#runs .chart"));
  }

  if (chooseCase) {
    for (const choice of [chooseCase, chooseVariant]) choice.addEventListener("change", showRun);
    showRun();
  } else {
    loadImages(document);
  }

  /* The section in sight, in the navigation. */

  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const places = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  function follow() {
    const passed = places.filter((place) => place.getBoundingClientRect().top < innerHeight * 0.35);
    const current = links.get((passed.at(-1) ?? places[0])?.id);
    for (const link of links.values()) link.toggleAttribute("aria-current", link === current);
  }
  addEventListener("scroll", follow, { passive: true });
  follow();
  redraw();
})();
