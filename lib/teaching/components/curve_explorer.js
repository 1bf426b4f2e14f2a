// CurveExplorer: curves under a parameter, read at a cursor.
//
// An ES module with anywidget's render({ model, el }), behind common.js. The model holds
//   data  {label, parameter, names: [x, y], x: [number], values: [number],
//         shown: [[text of x], [text of value]], digits, limits: [low, high],
//         ticks: [[[place, text]], [[place, text]]], readouts: {title: [text]},
//         lines: [{name, color, dash, y: [[integer]]}]}
//         a line has one row for each value, or one for all; its integers are what is shown,
//         times 10^digits, rounded by Python
//   value, at  what is shown, members of values and of x: both sides may change them.

const STYLE = `
.ce { --focus: #0072b2; color: inherit; line-height: 1.4; overflow-wrap: break-word; }
.ce[data-mode=dark] { --focus: #56b4e9; }
.ce * { box-sizing: border-box; }
.ce p { margin: 0 0 .7rem; }
.ce .ce-label { font-weight: 600; }
.ce form { display: flex; flex-wrap: wrap; align-items: center; gap: .3rem 1.25rem;
  margin: 0 0 .6rem; }
.ce label { display: flex; flex: 1 1 14rem; align-items: center; gap: .5rem; min-width: 0;
  margin: 0; font-size: .9rem; }
.ce input { flex: 1 1 auto; min-width: 4rem; height: 2.5rem; margin: 0;
  accent-color: var(--focus); cursor: pointer; }
.ce output { min-width: 3.6em; font-variant-numeric: tabular-nums; font-weight: 600; }
.ce button { min-height: 2.5rem; padding: 0 .7rem; color: inherit; font: inherit;
  font-size: .9rem; background: transparent; border: 1px solid rgb(127 127 127 / .75);
  border-radius: .4rem; cursor: pointer; }
.ce button:hover { background: rgb(127 127 127 / .16); }
.ce :is(button, input):focus-visible { outline: 3px solid var(--focus); outline-offset: 2px;
  border-radius: .4rem; }
.ce .ce-body { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: center; }
.ce .ce-chart { flex: 2 1 19rem; min-width: 0; font-size: .8rem;
  font-variant-numeric: tabular-nums; }
.ce .ce-area { position: relative; height: 17rem; margin: .3rem .9rem 1.6rem 2.8rem;
  cursor: crosshair; touch-action: pan-y; border: solid rgb(127 127 127 / .75);
  border-width: 0 0 1px 1px; }
.ce .ce-area > svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: hidden; }
.ce svg * { fill: none; vector-effect: non-scaling-stroke; }
.ce .ce-curve { stroke: var(--ink); stroke-width: 2; }
.ce .ce-grid { stroke: rgb(127 127 127 / .3); stroke-width: 1; }
.ce .ce-zero { stroke: rgb(127 127 127 / .9); }
.ce .ce-tick { position: absolute; line-height: 1; white-space: nowrap; }
.ce .ce-across { top: calc(100% + .35rem); transform: translateX(-50%); }
.ce .ce-up { right: calc(100% + .35rem); transform: translateY(-50%); }
.ce .ce-at { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px;
  background: var(--focus); pointer-events: none; }
.ce .ce-dot { position: absolute; width: 11px; height: 11px; margin: -5.5px 0 0 -5.5px;
  border-radius: 50%; background: var(--ink); pointer-events: none; }
.ce .ce-x { text-align: right; margin: 0 .9rem 0 0; }
.ce table { flex: 1 1 14rem; min-width: 0; width: auto; border-collapse: collapse;
  font-size: .85rem; font-variant-numeric: tabular-nums; margin: 0 0 .7rem; }
.ce :is(th, td) { padding: .15rem .3rem; border: 0; text-align: left; font-weight: 400; }
.ce td:last-child { text-align: right; white-space: nowrap; }
.ce .ce-line svg { display: inline-block; width: 2.4rem; height: 10px; margin-right: .6rem; }
.ce tbody + tbody { border-top: 1px solid rgb(127 127 127 / .75); }
@media (forced-colors: active) {
  .ce .ce-at, .ce .ce-dot { forced-color-adjust: none; }
}
`;

// The name space of SVG, asked of the parser.
const SVG = new DOMParser().parseFromString("<svg>", "text/html").querySelector("svg").namespaceURI;

function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function render({ model, el }) {
  const { label, parameter, names, x, values, shown, digits, limits, ticks, lines, readouts } =
    model.get("data");
  const start = Object.fromEntries(["value", "at"].map((name) => [name, model.get(name)]));

  const put = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };

  // Places in the picture in per cent, from the left and from the top.
  const across = (place) => (100 * (place - x[0])) / (x[x.length - 1] - x[0]);
  const down = (y) => (100 * (limits[1] - y)) / (limits[1] - limits[0]);
  const height = (whole) => down(whole / 10 ** digits);
  const rowOf = (line, i) => line.y[line.y.length > 1 ? i : 0];

  function slider(name, title, numbers, texts) {
    const input = make("input", { type: "range", min: 0, max: numbers.length - 1, step: 1 });
    const output = make("output");
    input.addEventListener("input", () => put(name, numbers[input.value]));
    const show = (index) => {
      input.value = index;
      input.setAttribute("aria-valuetext", `${title} ${texts[index]}`);
      output.textContent = texts[index];
    };
    return { node: make("label", {}, title, input, output), show };
  }

  const ofValue = slider("value", parameter, values, shown[1]);
  const ofX = slider("at", names[0], x, shown[0]);
  const reset = make("button", { type: "button" }, "reset");
  reset.addEventListener("click", () => {
    Object.entries(start).forEach(([name, value]) => model.set(name, value));
    model.save_changes();
  });
  const form = make("form", {}, ofValue.node, ofX.node, reset);
  form.addEventListener("submit", (event) => event.preventDefault());

  const box = { viewBox: "0 0 100 100", preserveAspectRatio: "none" };
  const plot = draw("svg", { ...box, role: "img" });
  const area = make("div", { class: "ce-area" }, plot);
  const grid = ([place, text], up) => {
    const at = up ? down(place) : across(place);
    const path = up ? `M0 ${at}H100` : `M${at} 0V100`;
    plot.append(draw("path", { class: place ? "ce-grid" : "ce-grid ce-zero", d: path }));
    const tick = make("span", { class: `ce-tick ${up ? "ce-up" : "ce-across"}` }, text);
    tick.style[up ? "top" : "left"] = `${at}%`;
    area.append(tick);
  };
  ticks[0].forEach((tick) => grid(tick, false));
  ticks[1].forEach((tick) => grid(tick, true));

  const cursor = make("span", { class: "ce-at" });
  area.append(cursor);
  const parts = lines.map((line) => {
    const look = { class: "ce-curve", "stroke-dasharray": line.dash };
    const curve = draw("polyline", look);
    const dot = make("span", { class: "ce-dot" });
    const sample = draw("svg", { "aria-hidden": true }, draw("path", { ...look, d: "M0 5H40" }));
    const title = make("th", { scope: "row", class: "ce-line" }, sample, line.name);
    for (const node of [curve, dot, title]) node.style.setProperty("--ink", line.color);
    plot.append(curve);
    area.append(dot);
    const number = make("td", { "data-line": line.name });
    const row = make("tr", {}, title, number);
    return { line, curve, dot, number, row };
  });
  const said = Object.entries(readouts).map(([title, texts]) => {
    const text = make("td", { "data-readout": title });
    const row = make("tr", {}, make("th", { scope: "row" }, title), text);
    return { title, texts, text, row };
  });
  const table = make("table", {}, make("tbody", {}, ...parts.map(({ row }) => row)));
  if (said.length) table.append(make("tbody", {}, ...said.map(({ row }) => row)));

  const chart = make("div", { class: "ce-chart" }, make("div", {}, names[1]), area);
  chart.append(make("div", { class: "ce-x" }, names[0]));
  const say = make("p", { class: "ce-say", "aria-live": "polite", "aria-atomic": "true" });
  const root = make("div", { class: "ce", role: "group", "aria-label": label });
  root.append(
    make("style", {}, STYLE),
    make("p", { class: "ce-label" }, label),
    form,
    make("div", { class: "ce-body" }, chart, table),
    say,
  );
  el.append(root);

  function tell() {
    const i = values.indexOf(model.get("value"));
    const j = x.indexOf(model.get("at"));
    ofX.show(j);
    cursor.style.left = `${across(x[j])}%`;
    const told = parts.map(({ line, dot, number }) => {
      const whole = rowOf(line, i)[j];
      dot.style.left = `${across(x[j])}%`;
      dot.style.top = `${height(whole)}%`;
      dot.hidden = height(whole) < 0 || height(whole) > 100;
      number.textContent = fixed(whole / 10 ** digits, digits);
      return `${line.name} ${number.textContent}`;
    });
    const read = said.map(({ title, texts }) => `${title} ${texts[i]}`);
    say.textContent =
      `${parameter} = ${shown[1][i]}, ${names[0]} = ${shown[0][j]}: ` +
      `${[...told, ...read].join("; ")}.`;
  }

  function drawAll() {
    const i = values.indexOf(model.get("value"));
    ofValue.show(i);
    plot.setAttribute("aria-label", `${label}: ${lines.map(({ name }) => name).join(", ")}`);
    parts.forEach(({ line, curve }) => {
      const points = rowOf(line, i).map((whole, j) => `${across(x[j])},${height(whole)}`);
      curve.setAttribute("points", points.join(" "));
    });
    said.forEach(({ texts, text }) => (text.textContent = texts[i]));
    tell();
  }

  // The x of the curves that is nearest to the pointer.
  function point(event) {
    const frame = area.getBoundingClientRect();
    const place = (100 * (event.clientX - frame.left)) / frame.width;
    const far = x.map((one) => Math.abs(across(one) - place));
    put("at", x[far.indexOf(Math.min(...far))]);
  }
  area.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse") area.setPointerCapture(event.pointerId);
  });
  area.addEventListener("pointermove", (event) => {
    if (event.buttons) point(event);
  });
  area.addEventListener("click", point); // not at pointerdown: a finger may be about to scroll

  model.on("change:value", drawAll);
  model.on("change:at", tell);
  drawAll();
  const unfollow = followTheme(root);

  return () => {
    unfollow();
    model.off("change:value", drawAll);
    model.off("change:at", tell);
    root.remove();
  };
}

export default { render };
