// TemperatureSoftmax: what the factor 1/√d and the temperature do to one row of attention.
//
// An ES module with anywidget's render({ model, el }), behind common.js. The model holds
//   data  {label, dimensions: [d], temperatures: [T], logits: {d: [sample][key]}},
//         q·k computed by Python in float64
//   dimension, scaled, temperature, sample  what is shown: both sides may change them.

const STYLE = `
.ts { --bar: #9459e8; --focus: #0072b2; color: inherit; line-height: 1.4;
  overflow-wrap: break-word; }
.ts[data-mode=dark] { --focus: #56b4e9; }
.ts * { box-sizing: border-box; }
.ts p { margin: 0 0 .7rem; }
.ts .ts-label { font-weight: 600; }
.ts form { display: flex; flex-wrap: wrap; align-items: center; gap: .6rem 1.25rem;
  margin: 0 0 .9rem; }
.ts label { display: inline-flex; align-items: center; gap: .5rem; min-height: 2.5rem;
  margin: 0; font-size: .9rem; cursor: pointer; }
.ts input[type=checkbox] { width: 1.5rem; height: 1.5rem; margin: 0; accent-color: var(--focus); }
.ts select, .ts button { min-height: 2.5rem; padding: 0 .7rem; color: inherit; font: inherit;
  font-size: .9rem; background: transparent; border: 1px solid rgb(127 127 127 / .75);
  border-radius: .4rem; cursor: pointer; }
.ts option { background: Canvas; color: CanvasText; }
.ts button:hover, .ts select:hover { background: rgb(127 127 127 / .16); }
.ts .ts-steps { display: inline-flex; align-items: center; gap: .5rem; font-size: .9rem; }
.ts .ts-slider { flex: 1 1 16rem; min-width: 0; }
.ts input[type=range] { flex: 1 1 auto; min-width: 4rem; height: 2.5rem; margin: 0;
  accent-color: var(--focus); cursor: pointer; }
.ts output { min-width: 3.2em; font-variant-numeric: tabular-nums; font-weight: 600; }
.ts :is(button, select, input):focus-visible { outline: 3px solid var(--focus);
  outline-offset: 2px; border-radius: .4rem; }
.ts .ts-body { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
.ts .ts-body > * { flex: 1 1 17rem; min-width: 0; margin: 0; }
.ts table { width: 100%; border-collapse: collapse; font-size: .85rem;
  font-variant-numeric: tabular-nums; }
.ts caption { caption-side: top; text-align: left; color: inherit; padding: 0 0 .3rem;
  font-size: .85rem; }
.ts :is(th, td) { padding: .1rem .3rem; border: 0; text-align: right; font-weight: 400;
  white-space: nowrap; }
.ts thead th { border-bottom: 1px solid rgb(127 127 127 / .75); font-size: .8rem;
  white-space: normal; vertical-align: bottom; }
.ts :is(th, td):first-child { padding-left: 0; }
.ts .ts-wide { width: 60%; text-align: left; }
.ts thead td { border-bottom: 1px solid rgb(127 127 127 / .75); }
.ts .ts-track { display: block; height: .85rem;
  border-left: 1px solid rgb(127 127 127 / .75); }
.ts .ts-bar { display: block; height: 100%; min-width: 1px; background: var(--bar);
  border-radius: 0 2px 2px 0; }
.ts .ts-measures th:first-child { text-align: left; white-space: normal; }
.ts .ts-strip { display: block; position: relative; height: 1.1rem; margin: .1rem 0 .5rem;
  border-bottom: 1px solid rgb(127 127 127 / .75); }
.ts .ts-strip span { position: absolute; bottom: 0; width: 2px; height: .5rem; margin-left: -1px;
  background: currentColor; opacity: .75; }
.ts .ts-strip span.ts-now { width: 6px; height: 1rem; margin-left: -3px; opacity: 1;
  background: var(--bar); border-radius: 2px 2px 0 0; }
.ts .ts-ends { display: flex; justify-content: space-between; font-size: .75rem;
  margin-top: -.4rem; }
.ts .ts-say { margin-top: .8rem; }
@media (prefers-reduced-motion: no-preference) {
  .ts .ts-bar { transition: width .15s ease-out; }
}
@media (forced-colors: active) {
  .ts .ts-bar, .ts .ts-strip span { forced-color-adjust: none; background: CanvasText; }
}
`;

// Softmax of the row and what it says of itself; every number is one that Python can repeat.
function measure(logits, divisor) {
  const scores = logits.map((logit) => logit / divisor);
  const largest = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - largest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  const p = powers.map((power) => power / total);
  const jacobian = p.flatMap((a, i) => p.map((b, j) => (i === j ? a : 0) - a * b));
  const entropy = p.reduce((sum, x) => (x > 0 ? sum - x * Math.log(x) : sum), 0);
  return {
    scores,
    p,
    entropy,
    entropy_fraction: entropy / Math.log(p.length),
    max_weight: Math.max(...p),
    jacobian_norm: Math.sqrt(jacobian.reduce((sum, x) => sum + x * x, 0)),
  };
}

// Small norms keep a digit or two: "0.000" would hide whether a gradient is small or gone.
function small(x) {
  if (x < 1e-9) return "<1e-9";
  return x < 0.0005 ? x.toExponential(1) : x.toFixed(3);
}

const MEASURES = [
  ["entropy", "entropy in nats", (x) => fixed(x, 3), null],
  ["entropy_fraction", "entropy ÷ ln n", (x) => fixed(x, 3), 1],
  ["max_weight", "largest weight", (x) => fixed(x, 3), 1],
  ["jacobian_norm", "Jacobian ‖diag(p)\u00a0−\u00a0ppᵀ‖", small, 0.5],
];

function render({ model, el }) {
  const { label, dimensions, temperatures, logits } = model.get("data");
  const names = ["dimension", "scaled", "temperature", "sample"];
  const start = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const samples = logits[dimensions[0]].length;
  const n = logits[dimensions[0]][0].length;

  const put = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };

  const scaled = make("input", { type: "checkbox" });
  scaled.addEventListener("change", () => put("scaled", scaled.checked));

  const dimension = make("select");
  dimension.append(...dimensions.map((d) => make("option", { value: d }, String(d))));
  dimension.addEventListener("change", () => put("dimension", Number(dimension.value)));

  const last = temperatures.length - 1;
  const slider = make("input", { type: "range", min: 0, max: last, step: 1 });
  const shown = make("output");
  slider.addEventListener("input", () => put("temperature", temperatures[slider.value]));

  const step = make("button", { type: "button" }, "new sample");
  step.addEventListener("click", () => put("sample", (model.get("sample") + 1) % samples));
  const which = make("span");
  const reset = make("button", { type: "button" }, "reset");
  reset.addEventListener("click", () => {
    names.forEach((name) => model.set(name, start[name]));
    model.save_changes();
  });

  const form = make("form");
  form.append(
    make("label", {}, scaled, "scale by 1/√d"),
    make("label", {}, "dimension d", dimension),
    make("label", { class: "ts-slider" }, "temperature T", slider, shown),
    make("span", { class: "ts-steps" }, step, which),
    reset,
  );
  form.addEventListener("submit", (event) => event.preventDefault());

  const head = (...titles) =>
    make("thead", {}, make("tr", {}, ...titles.map((t) => make("th", { scope: "col" }, t))));

  const rows = [...Array(n).keys()].map((j) => {
    const score = make("td");
    const bar = make("span", { class: "ts-bar" });
    const weight = make("td", { class: "ts-weight" });
    const track = make("td", { class: "ts-wide" }, make("span", { class: "ts-track" }, bar));
    const line = make("tr", {}, make("th", { scope: "row" }, String(j)), score, track, weight);
    return { line, score, bar, weight };
  });
  const bars = make("table", {});
  const formula = make("caption");
  const columns = head("key", "score", "", "p");
  columns.querySelectorAll("th")[2].replaceWith(make("td"));
  bars.append(formula, columns, make("tbody", {}, ...rows.map(({ line }) => line)));

  const measures = make("table", { class: "ts-measures" });
  const lines = MEASURES.map(([key, title, format, top]) => {
    const now = make("td", { "data-value": key });
    const mean = make("td", { "data-mean": key });
    const body = [make("tr", {}, make("th", { scope: "row" }, title), now, mean)];
    let ticks = [];
    if (top) {
      ticks = [...Array(samples)].map(() => make("span"));
      const strip = make("span", { class: "ts-strip" }, ...ticks);
      const ends = make("span", { class: "ts-ends" }, make("span", {}, "0"));
      ends.append(make("span", {}, String(top)));
      const cell = make("td", { colspan: 3, "aria-hidden": true }, strip, ends);
      body.push(make("tr", {}, cell));
    }
    return { key, format, top, now, mean, ticks, body };
  });
  measures.append(
    make("caption", {}, `All ${samples} samples as marks, this one as the thick mark.`),
    head("measure", "sample", "mean"),
    make("tbody", {}, ...lines.flatMap(({ body }) => body)),
  );

  const say = make("p", { class: "ts-say", "aria-live": "polite", "aria-atomic": "true" });
  const root = make("div", { class: "ts", role: "group", "aria-label": label });
  root.append(
    make("style", {}, STYLE),
    make("p", { class: "ts-label" }, label),
    form,
    make("div", { class: "ts-body" }, bars, measures),
    say,
  );
  el.append(root);

  function draw() {
    const [d, isScaled, T, sample] = names.map((name) => model.get(name));
    const divisor = (isScaled ? Math.sqrt(d) : 1) * T;
    const all = logits[d].map((row) => measure(row, divisor));
    const now = all[sample];

    scaled.checked = isScaled;
    dimension.value = d;
    const gaps = temperatures.map((t) => Math.abs(Math.log(t / T)));
    slider.value = gaps.indexOf(Math.min(...gaps));
    slider.setAttribute("aria-valuetext", `temperature ${T}`);
    shown.textContent = String(T);
    which.textContent = `${sample + 1} of ${samples}`;
    const by = Number(divisor.toPrecision(4));
    formula.textContent =
      `p = softmax(q·k ÷ ${by}), ` + (isScaled ? `for √d · T = √${d} · ${T}` : `for T = ${T}`);

    rows.forEach(({ score, bar, weight }, j) => {
      score.textContent = fixed(now.scores[j], 2);
      bar.style.width = `${100 * now.p[j]}%`;
      weight.textContent = fixed(now.p[j], 3);
    });
    lines.forEach(({ key, format, top, now: cell, mean, ticks }) => {
      cell.textContent = format(now[key]);
      mean.textContent = format(all.reduce((sum, one) => sum + one[key], 0) / samples);
      ticks.forEach((tick, i) => {
        tick.style.left = `${(100 * all[i][key]) / top}%`;
        tick.classList.toggle("ts-now", i === sample);
      });
    });
    say.textContent =
      `d = ${d}, ${isScaled ? "scaled by 1/√d" : "not scaled"}, T = ${T}: ` +
      `entropy ${fixed(now.entropy, 3)} nats (${fixed(now.entropy_fraction, 3)} of ln ${n}), ` +
      `largest weight ${fixed(now.max_weight, 3)}, ` +
      `Jacobian norm ${small(now.jacobian_norm)}.`;
  }

  names.forEach((name) => model.on(`change:${name}`, draw));
  draw();
  const unfollow = followTheme(root);

  return () => {
    unfollow();
    names.forEach((name) => model.off(`change:${name}`, draw));
    root.remove();
  };
}

export default { render };
