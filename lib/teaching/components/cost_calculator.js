// CostCalculator: what a GPT of given sizes costs, by the closed forms of lib/cost.py.
//
// An ES module with anywidget's render({ model, el }), behind common.js. The model holds
//   data    {label, fields: [[title, least, most]], places, parts: [title], presets: [[name, sizes]]}
//   sizes   layers, heads, features of a head, tokens, batch, vocabulary, bytes of a number: both
//           sides may change them.

const STYLE = `
.cc { --bar: #0072b2; --focus: #0072b2; color: inherit; line-height: 1.4;
  overflow-wrap: break-word; }
.cc[data-mode=dark] { --bar: #56b4e9; --focus: #56b4e9; }
.cc * { box-sizing: border-box; }
.cc p { margin: 0 0 .7rem; }
.cc .cc-label { font-weight: 600; }
.cc form { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 11rem), 1fr));
  gap: .4rem 1rem; margin: 0 0 .7rem; max-width: 40rem; }
.cc label { display: flex; flex-direction: column; min-width: 0; margin: 0; font-size: .9rem; }
.cc :is(input, select) { width: 100%; min-width: 0; height: 2.5rem; margin: 0; padding: 0 .5rem;
  color: inherit; font: inherit; background: transparent; border-radius: .4rem;
  border: 1px solid rgb(127 127 127 / .9); font-variant-numeric: tabular-nums; }
.cc select option { color: #000; background: #fff; }
.cc[data-mode=dark] select option { color: #fff; background: #222; }
.cc .cc-buttons { grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: .4rem; }
.cc button { min-height: 2.5rem; padding: 0 .7rem; color: inherit; font: inherit;
  font-size: .9rem; background: transparent; border: 1px solid rgb(127 127 127 / .9);
  border-radius: .4rem; cursor: pointer; }
.cc button:hover { background: rgb(127 127 127 / .16); }
.cc :is(button, input, select):focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.cc table { width: 100%; max-width: 40rem; border-collapse: collapse; font-size: .9rem;
  font-variant-numeric: tabular-nums; margin: 0 0 .7rem; table-layout: fixed; }
.cc :is(th, td) { padding: .2rem .3rem; border: 0; text-align: right; font-weight: 400;
  overflow-wrap: anywhere; }
.cc :is(th, td):first-child { padding-left: 0; text-align: left; }
.cc tbody tr { border-bottom: 1px solid rgb(127 127 127 / .4); }
.cc .cc-bar { display: block; height: .5rem; margin: .1rem 0 0; background: var(--bar);
  border-radius: 2px; min-width: 1px; }
@media (forced-colors: active) {
  .cc .cc-bar { forced-color-adjust: none; background: CanvasText; }
}
`;

// What lib.cost counts, for a GPT-2 without dropout whose attention is fused.
function count([layers, heads, width, n, batch, vocab, size], places) {
  const d = heads * width;
  const tokens = batch * n;
  const rows = Math.max(places, n);
  const wide = Math.max(4, size); // norms are computed in single precision
  const parameters = (vocab + rows) * d + layers * (12 * d * d + 13 * d) + 2 * d;
  const maps = 2 * tokens * (12 * layers * d * d + vocab * d);
  const product = 2 * tokens * n * d * layers; // logits, or weighted sums
  const forward = maps + 2 * product;
  const step = 3 * maps + 7 * product; // five products backward: logits are computed again
  const attention = size * 5 * tokens * d + 4 * tokens * heads;
  const feedForward = size * tokens * 9 * d;
  const norm = wide * tokens * (2 * d + 2);
  const table = 8 * tokens; // ids
  const activations =
    layers * (attention + feedForward) + (2 * layers + 1) * norm + size * tokens * d + table;
  const shifted = batch * (n - 1) * vocab; // without the last position
  const copies = size < 4 || batch > 1 ? 2 : 1;
  const logits = size * tokens * vocab + copies * wide * shifted + 9 * batch * (n - 1);
  const memory = {
    weights: size * parameters,
    gradients: size * parameters,
    moments: 2 * size * parameters,
    activations,
    logits,
  };
  const peak = Object.values(memory).reduce((sum, bytes) => sum + bytes, 0);
  return { parameters, forward, step, cache: 2 * layers * tokens * d * size, ...memory, peak };
}

function scaled(number, step, unit) {
  const prefixes = ["", "k", "M", "G", "T", "P", "E", "Z"];
  let power = 0;
  let value = number;
  while (value >= step && power < prefixes.length - 1) {
    value /= step;
    power += 1;
  }
  let prefix = prefixes[power];
  if (step === 1024 && prefix) prefix = `${prefix.toUpperCase()}i`;
  return `${fixed(value, 2)} ${prefix}${unit}`;
}

function render({ model, el }) {
  const { label, fields, places, parts, presets } = model.get("data");
  const start = model.get("sizes");

  const put = (sizes) => {
    model.set("sizes", sizes);
    model.save_changes();
  };

  const inputs = fields.map(([title, least, most], k) => {
    const last = k === fields.length - 1;
    const input = last
      ? make(
          "select",
          {},
          make("option", { value: 4 }, "4: single precision"),
          make("option", { value: 2 }, "2: bfloat16"),
        )
      : make("input", { type: "number", min: least, max: most, step: 1, inputmode: "numeric" });
    input.addEventListener("change", () => {
      const old = model.get("sizes");
      const asked = Math.round(Number(input.value));
      const wanted = Number.isFinite(asked) && input.value !== "" ? asked : old[k];
      const value = Math.min(most, Math.max(least, wanted));
      input.value = value;
      put(old.map((size, j) => (j === k ? value : size)));
    });
    return { input, node: make("label", {}, make("span", {}, title), input) };
  });
  const button = (title, sizes) => {
    const node = make("button", { type: "button" }, title);
    node.addEventListener("click", () => put([...sizes]));
    return node;
  };
  const buttons = make(
    "div",
    { class: "cc-buttons" },
    ...presets.map(([title, sizes]) => button(title, sizes)),
    button("reset", start),
  );
  const form = make("form", {}, ...inputs.map(({ node }) => node), buttons);
  form.addEventListener("submit", (event) => event.preventDefault());

  const titles = [
    "parameters",
    "operations, forward",
    "operations, training step",
    "cache of keys and values",
    ...parts,
    "peak of a training step",
  ];
  const rows = titles.map((title) => {
    const text = make("span");
    const bar = parts.includes(title) ? make("span", { class: "cc-bar" }) : null;
    const cell = make("td", { "data-row": title }, text);
    if (bar) cell.append(bar);
    return { title, text, bar, line: make("tr", {}, make("th", { scope: "row" }, title), cell) };
  });
  const table = make("table", {}, make("tbody", {}, ...rows.map(({ line }) => line)));
  const say = make("p", { class: "cc-say", "aria-live": "polite", "aria-atomic": "true" });
  const root = make("div", { class: "cc", role: "group", "aria-label": label });
  root.append(
    make("style", {}, STYLE),
    make("p", { class: "cc-label" }, label),
    form,
    table,
    say,
  );
  el.append(root);

  function draw() {
    const sizes = model.get("sizes");
    inputs.forEach(({ input }, k) => (input.value = sizes[k]));
    const counts = count(sizes, places);
    const bytes = (name) => scaled(counts[name], 1024, "B");
    const texts = {
      parameters: counts.parameters.toLocaleString("en-GB"),
      "operations, forward": scaled(counts.forward, 1000, "FLOP"),
      "operations, training step": scaled(counts.step, 1000, "FLOP"),
      "cache of keys and values": bytes("cache"),
      "peak of a training step": bytes("peak"),
    };
    for (const { title, text, bar } of rows) {
      text.textContent = bar ? bytes(title) : texts[title];
      if (bar) bar.style.width = `${(100 * counts[title]) / counts.peak}%`;
    }
    say.textContent =
      `${texts.parameters} parameters; a training step takes ` +
      `${texts["operations, training step"]} and ${texts["peak of a training step"]} of memory.`;
  }

  model.on("change:sizes", draw);
  draw();
  const unfollow = followTheme(root);

  return () => {
    unfollow();
    model.off("change:sizes", draw);
    root.remove();
  };
}

export default { render };
