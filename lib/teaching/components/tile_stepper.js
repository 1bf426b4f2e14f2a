// TileStepper: attention in tiles, one tile at a time.
//
// An ES module with anywidget's render({ model, el }), behind common.js. The model holds
//   data  {label, n, sizes: [integer], table: integer, colors: {name: colour},
//         runs: {"block_q,block_k,causal": [{at: [from, to, from, to], masked, moved,
//         m: [text], l: [text]}]}}
//   block_q, block_k, causal, step  what is shown: both sides may change them.

const STYLE = `
.tl { --focus: #0072b2; color: inherit; line-height: 1.4; overflow-wrap: break-word; }
.tl[data-mode=dark] { --focus: #56b4e9; }
.tl * { box-sizing: border-box; }
.tl p { margin: 0 0 .7rem; }
.tl .tl-label { font-weight: 600; }
.tl form { display: flex; flex-wrap: wrap; align-items: center; gap: .4rem 1rem; margin: 0 0 .6rem; }
.tl label { display: flex; align-items: center; gap: .5rem; min-height: 2.5rem; margin: 0;
  font-size: .9rem; }
.tl select { min-height: 2.5rem; padding: 0 .5rem; color: inherit; font: inherit;
  background: transparent; border: 1px solid rgb(127 127 127 / .75); border-radius: .4rem; }
.tl option { color: CanvasText; background: Canvas; }
.tl input { width: 1.5rem; height: 1.5rem; margin: 0; accent-color: var(--focus); }
.tl button { min-height: 2.5rem; padding: 0 .7rem; color: inherit; font: inherit;
  font-size: .9rem; background: transparent; border: 1px solid rgb(127 127 127 / .75);
  border-radius: .4rem; cursor: pointer; }
.tl button:hover { background: rgb(127 127 127 / .16); }
.tl :is(button, input, select):focus-visible { outline: 3px solid var(--focus);
  outline-offset: 2px; border-radius: .4rem; }
.tl .tl-body { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: flex-start; }
.tl .tl-chart { flex: 1 1 15rem; max-width: 20rem; min-width: 0; font-size: .85rem; }
.tl svg { display: block; width: 100%; height: auto; }
.tl rect { stroke-width: .08; stroke: var(--line); fill: none; }
.tl .tl-done { fill: var(--weights); fill-opacity: .35; }
.tl .tl-now { fill: var(--weights); fill-opacity: .95; }
.tl .tl-never { stroke-dasharray: .2 .2; }
.tl .tl-hidden { stroke: none; fill: var(--line); fill-opacity: .35; }
.tl table { flex: 1 1 12rem; width: auto; border-collapse: collapse; font-size: .85rem;
  font-variant-numeric: tabular-nums; margin: 0 0 .7rem; }
.tl :is(th, td) { padding: .15rem .4rem; border: 0; text-align: right; font-weight: 400; }
.tl thead th { border-bottom: 1px solid rgb(127 127 127 / .75); }
`;

const SVG = new DOMParser().parseFromString("<svg>", "text/html").querySelector("svg").namespaceURI;

function draw(tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function render({ model, el }) {
  const { label, n, sizes, table, colors, runs } = model.get("data");
  const STATE = ["block_q", "block_k", "causal", "step"];
  const start = Object.fromEntries(STATE.map((name) => [name, model.get(name)]));
  const runOf = (q, k, causal) => runs[`${q},${k},${causal ? 1 : 0}`];
  const run = () => runOf(...STATE.slice(0, 3).map((name) => model.get(name)));

  // The step goes first where it has to shrink: no state between may lie outside.
  const put = (changes) => {
    const next = Object.fromEntries(STATE.map((name) => [name, model.get(name)]));
    Object.assign(next, changes);
    next.step = Math.min(next.step, runOf(next.block_q, next.block_k, next.causal).length - 1);
    if (next.step < model.get("step")) model.set("step", next.step);
    STATE.forEach((name) => model.set(name, next[name]));
    model.save_changes();
  };

  function chooser(name, title) {
    const select = make("select");
    sizes.forEach((size) => select.append(make("option", { value: size }, size)));
    select.addEventListener("change", () => put({ [name]: Number(select.value) }));
    return { node: make("label", {}, title, select), show: (size) => (select.value = size) };
  }

  const ofQ = chooser("block_q", "queries in a tile");
  const ofK = chooser("block_k", "keys in a tile");
  const box = make("input", { type: "checkbox" });
  box.addEventListener("change", () => put({ causal: box.checked }));
  const button = (text, act) => {
    const node = make("button", { type: "button" }, text);
    node.addEventListener("click", act);
    return node;
  };
  const turn = (by) => () => put({ step: (model.get("step") + by + run().length) % run().length });
  const form = make(
    "form",
    {},
    ofQ.node,
    ofK.node,
    make("label", {}, box, "hide the future"),
    button("← previous", turn(-1)),
    button("next →", turn(1)),
    button("reset", () => put(start)),
  );
  form.addEventListener("submit", (event) => event.preventDefault());

  const plot = draw("svg", { viewBox: `-0.2 -0.2 ${n + 0.4} ${n + 0.4}`, role: "img" });
  const chart = make("div", { class: "tl-chart" }, "keys →, queries ↓", plot);
  const body = make("tbody");
  const head = make(
    "tr",
    {},
    ...["query", "m", "ℓ"].map((text) => make("th", { scope: "col" }, text)),
  );
  const say = make("p", { class: "tl-say", "aria-live": "polite", "aria-atomic": "true" });
  const root = make("div", { class: "tl", role: "group", "aria-label": label });
  root.style.setProperty("--weights", colors.weights);
  root.style.setProperty("--line", colors.reference);
  root.append(
    make("style", {}, STYLE),
    make("p", { class: "tl-label" }, label),
    form,
    make("div", { class: "tl-body" }, chart, make("table", {}, make("thead", {}, head), body)),
    say,
  );
  el.append(root);

  function show() {
    const [q, k, causal] = STATE.slice(0, 3).map((name) => model.get(name));
    const steps = run();
    const index = Math.min(model.get("step"), steps.length - 1);
    const { at, masked, moved, m, l } = steps[index];
    ofQ.show(q);
    ofK.show(k);
    box.checked = causal;

    plot.replaceChildren();
    for (let i = 0; i < n; i += q) {
      for (let j = 0; j < n; j += k) {
        const place = steps.findIndex((step) => step.at[0] === i && step.at[2] === j);
        const kind =
          place < 0 ? "never" : place < index ? "done" : place === index ? "now" : "later";
        const size = { width: Math.min(k, n - j), height: Math.min(q, n - i) };
        plot.append(draw("rect", { class: `tl-${kind}`, x: j, y: i, ...size }));
      }
    }
    if (causal) {
      for (let i = 0; i < n - 1; i++) {
        plot.append(
          draw("rect", { class: "tl-hidden", x: i + 1, y: i, width: n - 1 - i, height: 1 }),
        );
      }
    }
    body.replaceChildren(
      ...m.map((text, row) =>
        make(
          "tr",
          {},
          make("th", { scope: "row" }, at[0] + row),
          make("td", { "data-m": row }, text),
          make("td", { "data-l": row }, l[row]),
        ),
      ),
    );
    const where = `queries ${at[0]} to ${at[1] - 1} meet keys ${at[2]} to ${at[3] - 1}`;
    const kind = masked ? "with the mask" : "no mask needed";
    plot.setAttribute("aria-label", `${label}: ${where}`);
    say.textContent =
      `Tile ${index + 1} of ${steps.length}: ${where}, ${kind}; ` +
      `${moved} elements moved so far, ${table} with the table.`;
  }

  STATE.forEach((name) => model.on(`change:${name}`, show));
  show();
  const unfollow = followTheme(root);

  return () => {
    unfollow();
    STATE.forEach((name) => model.off(`change:${name}`, show));
    root.remove();
  };
}

export default { render };
