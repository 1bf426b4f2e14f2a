// PositionRotation: a sinusoidal encoding as clocks, one a pair, and what a shift does to them.
//
// An ES module with anywidget's render({ model, el }), behind common.js. The model holds
//   data  {label, reach, encoding: [position][feature], turn: [degrees a step], wavelength: [text]},
//         computed by Python in float64; positions and offsets for which both hands lie in the table
//   position, offset  what is shown: both sides may change them.

const STYLE = `
.pr { --here: #0072b2; --there: #d55e00; --sum: #826834; --focus: #0072b2; color: inherit;
  line-height: 1.4; overflow-wrap: break-word; }
.pr[data-mode=dark] { --here: #56b4e9; --focus: #56b4e9; }
.pr * { box-sizing: border-box; }
.pr p { margin: 0 0 .7rem; }
.pr .pr-label { font-weight: 600; }
.pr form { display: flex; flex-wrap: wrap; align-items: center; gap: .3rem 1.25rem;
  margin: 0 0 .6rem; }
.pr label { display: flex; flex: 1 1 18rem; align-items: center; gap: .5rem; min-width: 0;
  min-height: 2.5rem; margin: 0; font-size: .9rem; cursor: pointer; }
.pr input { flex: 1 1 auto; min-width: 4rem; height: 2.5rem; margin: 0;
  accent-color: var(--focus); cursor: pointer; }
.pr output { min-width: 2.4em; font-variant-numeric: tabular-nums; font-weight: 600; }
.pr button { min-height: 2.5rem; padding: 0 .7rem; color: inherit; font: inherit;
  font-size: .9rem; background: transparent; border: 1px solid rgb(127 127 127 / .75);
  border-radius: .4rem; cursor: pointer; }
.pr button:hover { background: rgb(127 127 127 / .16); }
.pr :is(button, input):focus-visible { outline: 3px solid var(--focus); outline-offset: 2px;
  border-radius: .4rem; }
.pr svg { display: block; overflow: visible; }
.pr .pr-key { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .85rem; }
.pr .pr-key span { display: inline-flex; align-items: center; gap: .4rem; }
.pr .pr-key svg { width: 1.8rem; height: .8rem; }
.pr .pr-clocks { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.4rem, 1fr));
  gap: .8rem .6rem; list-style: none; margin: 0 0 1rem; padding: 0; }
.pr .pr-clocks li { margin: 0; font-size: .78rem; line-height: 1.35; text-align: center;
  font-variant-numeric: tabular-nums; }
.pr .pr-clocks svg { width: 6rem; height: 6rem; margin: 0 auto .2rem; }
.pr .pr-clocks span { display: block; }
.pr .pr-rim { fill: none; stroke: rgb(127 127 127 / .75); stroke-width: .03; }
.pr .pr-arc { fill: none; stroke: rgb(127 127 127 / .75); stroke-width: .09; }
.pr .pr-here { stroke: var(--here); stroke-width: .07; }
.pr .pr-there { stroke: var(--there); stroke-width: .07; stroke-dasharray: .16 .08; }
.pr circle.pr-there { fill: var(--there); stroke: none; }
.pr .pr-chart { max-width: 34rem; margin: 0 0 .7rem; font-size: .8rem; }
.pr .pr-chart svg { width: 100%; height: auto; margin: .3rem 0; }
.pr .pr-zero { stroke: rgb(127 127 127 / .75); }
.pr .pr-curve { fill: none; stroke: var(--sum); stroke-width: 2; }
.pr .pr-now { fill: var(--there); }
.pr .pr-ends { display: flex; justify-content: space-between; }
@media (prefers-reduced-motion: no-preference) {
  .pr .pr-now { transition: cy .12s ease-out; }
}
@media (forced-colors: active) {
  .pr :is(line, circle, path, polyline) { forced-color-adjust: none; }
}
`;

// The name of a vocabulary, put together so that it does not look like an address to ask.
const SVG = ["http", "//www.w3.org/2000/svg"].join(":");

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const signed = (number) => String(number).replace("-", "−");

function render({ model, el }) {
  const { label, reach, encoding, turn, wavelength } = model.get("data");
  const names = ["position", "offset"];
  const start = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const pairs = turn.map((_, i) => i);

  // Row against row, pair by pair: sin·sin + cos·cos, which is the cosine of the turn.
  const products = (p, q) =>
    pairs.map((i) =>
      encoding[p][2 * i] * encoding[q][2 * i] + encoding[p][2 * i + 1] * encoding[q][2 * i + 1]);
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

  const form = make("form");
  form.addEventListener("submit", (event) => event.preventDefault());
  const slider = (name, text, min, max) => {
    const input = make("input", { type: "range", name, min, max, step: 1 });
    const shown = make("output");
    input.addEventListener("input", () => {
      model.set(name, Number(input.value));
      model.save_changes();
    });
    form.append(make("label", {}, text, input, shown));
    return () => {
      input.value = model.get(name);
      input.setAttribute("aria-valuetext", signed(model.get(name)));
      shown.textContent = signed(model.get(name));
    };
  };
  const showOffset = slider("offset", "offset k", -reach, reach);
  const showPosition = slider("position", "position p", reach, encoding.length - 1 - reach);
  const reset = make("button", { type: "button" }, "reset");
  reset.addEventListener("click", () => {
    names.forEach((name) => model.set(name, start[name]));
    model.save_changes();
  });
  form.append(reset);

  const sample = (className) =>
    svg("svg", { viewBox: "0 0 .9 .4", "aria-hidden": true },
      svg("line", { class: className, x1: 0, y1: 0.2, x2: 0.9, y2: 0.2 }));
  const key = make("p", { class: "pr-key" });
  key.append(
    make("span", {}, sample("pr-here"), "hand at p"),
    make("span", {}, sample("pr-there"), "hand at p + k"),
    make("span", {}, sample("pr-arc"), "the turn between them"),
    make("span", {}, "λ: the wavelength, in positions"),
  );

  const clocks = pairs.map((i) => {
    const arc = svg("path", { class: "pr-arc" });
    const here = svg("line", { class: "pr-here", x1: 0, y1: 0 });
    const there = svg("line", { class: "pr-there", x1: 0, y1: 0 });
    const tip = svg("circle", { class: "pr-there", r: 0.09 });
    const face = svg("svg", { viewBox: "-1.1 -1.1 2.2 2.2", "aria-hidden": true });
    face.append(svg("circle", { class: "pr-rim", r: 1 }), arc, here, there, tip);
    const angle = make("span", { class: "pr-turn" });
    const cosine = make("span", { class: "pr-cosine" });
    const item = make("li", {}, face, make("strong", {}, `pair ${i}`));
    item.append(make("span", {}, `λ ${wavelength[i]}`), angle, cosine);
    return { item, arc, here, there, tip, angle, cosine };
  });
  const list = make("ol", { class: "pr-clocks" }, ...clocks.map(({ item }) => item));

  const offsets = [...Array(2 * reach + 1).keys()].map((j) => j - reach);
  const top = pairs.length;
  const x = (k) => (320 * (k + reach)) / (2 * reach) + 5;
  const y = (value) => 55 - (50 * value) / top;
  const curve = svg("polyline", { class: "pr-curve" });
  const now = svg("circle", { class: "pr-now", r: 5 });
  const chart = svg("svg", { viewBox: "0 0 330 110", role: "img" });
  chart.append(svg("line", { class: "pr-zero", x1: 5, x2: 325, y1: 55, y2: 55 }));
  chart.append(svg("line", { class: "pr-zero", x1: 165, x2: 165, y1: 5, y2: 105 }), curve, now);
  const ends = make("div", { class: "pr-ends" });
  ends.append(...[-reach, "offset k", reach].map((end) => make("span", {}, signed(end))));
  const plot = make("div", { class: "pr-chart" });
  plot.append(`PE(p) · PE(p + k), from −${top} to ${top}, over all offsets:`, chart, ends);

  const say = make("p", { class: "pr-say", "aria-live": "polite", "aria-atomic": "true" });
  const root = make("div", { class: "pr", role: "group", "aria-label": label });
  root.append(make("style", {}, STYLE), make("p", { class: "pr-label" }, label));
  root.append(form, key, list, plot, say);
  el.append(root);

  function draw() {
    const [p, k] = names.map((name) => model.get(name));
    const cosines = products(p, p + k);
    showOffset();
    showPosition();
    clocks.forEach(({ arc, here, there, tip, angle, cosine }, i) => {
      // Sine to the right and cosine upwards: position 0 is twelve o'clock, later is clockwise.
      const end = (q) => [encoding[q][2 * i], -encoding[q][2 * i + 1]];
      const [[x1, y1], [x2, y2]] = [end(p), end(p + k)];
      for (const [name, value] of [["x2", x1], ["y2", y1]]) here.setAttribute(name, value);
      for (const [name, value] of [["x2", x2], ["y2", y2]]) there.setAttribute(name, value);
      for (const [name, value] of [["cx", x2], ["cy", y2]]) tip.setAttribute(name, value);
      const degrees = k * turn[i];
      const large = Math.abs(degrees) % 360 > 180 ? 1 : 0;
      const points = [x1, y1, x2, y2].map((value) => value / 2);
      arc.setAttribute("d",
        `M${points[0]} ${points[1]}A.5 .5 0 ${large} ${k < 0 ? 0 : 1} ${points[2]} ${points[3]}`);
      angle.textContent = `turn ${fixed(degrees, 2)}°`;
      cosine.textContent = `cosine ${fixed(cosines[i], 3)}`;
    });
    const values = offsets.map((j) => sum(products(p, p + j)));
    curve.setAttribute("points", values.map((value, j) => `${x(offsets[j])},${y(value)}`).join(" "));
    now.setAttribute("cx", x(k));
    now.setAttribute("cy", y(sum(cosines)));
    const product = fixed(sum(cosines), 3);
    chart.setAttribute("aria-label", `A curve over the offset; at ${signed(k)} it is ${product}.`);
    say.textContent =
      `k = ${signed(k)}: PE(${p}) · PE(${p + k}) = ${product}, the sum of the ${top} cosines. ` +
      "It is the same at every position p, and the same for −k.";
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
