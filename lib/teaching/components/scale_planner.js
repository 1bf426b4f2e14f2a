// ScalePlanner: a training step on many GPUs, by the closed forms of lib/scaling.py.
//
// An ES module with anywidget's render({ model, el }), behind common.js. The model holds
//   data    {label, groups: [[title, [[title, least, most]]]], titles, said: {limit: sentence},
//           presets: [[name, sizes]]}
//   sizes   one integer a field, in the order of the groups: both sides may change them.

const STYLE = `
.sp { --bar: #0072b2; --focus: #0072b2; color: inherit; line-height: 1.4;
  overflow-wrap: break-word; }
.sp[data-mode=dark] { --bar: #56b4e9; --focus: #56b4e9; }
.sp * { box-sizing: border-box; }
.sp p { margin: 0 0 .7rem; }
.sp .sp-label { font-weight: 600; }
.sp form { margin: 0 0 .7rem; max-width: 46rem; }
.sp fieldset { display: grid; gap: .4rem 1rem; min-width: 0; margin: 0 0 .5rem; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 8rem), 1fr)); border: 0; }
.sp legend { float: none; width: auto; margin: 0 0 .2rem; padding: 0; font-size: .9rem;
  font-weight: 600; }
.sp label { display: flex; flex-direction: column; justify-content: end; min-width: 0; margin: 0;
  font-size: .9rem; }
.sp input { width: 100%; min-width: 0; height: 2.5rem; margin: 0; padding: 0 .5rem;
  color: inherit; font: inherit; background: transparent; border-radius: .4rem;
  border: 1px solid rgb(127 127 127 / .9); font-variant-numeric: tabular-nums; }
.sp .sp-buttons { display: flex; flex-wrap: wrap; gap: .4rem; }
.sp button { min-height: 2.5rem; padding: 0 .7rem; color: inherit; font: inherit;
  font-size: .9rem; background: transparent; border: 1px solid rgb(127 127 127 / .9);
  border-radius: .4rem; cursor: pointer; }
.sp button:hover { background: rgb(127 127 127 / .16); }
.sp :is(button, input):focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.sp table { width: 100%; max-width: 46rem; border-collapse: collapse; font-size: .9rem;
  font-variant-numeric: tabular-nums; margin: 0 0 .7rem; table-layout: fixed; }
.sp :is(th, td) { padding: .15rem .3rem; border: 0; text-align: right; font-weight: 400;
  overflow-wrap: anywhere; }
.sp :is(th, td):first-child { width: 48%; padding-left: 0; text-align: left; }
.sp tbody tr { border-bottom: 1px solid rgb(127 127 127 / .4); }
.sp .sp-bar { display: block; height: .4rem; margin: .1rem 0 0; background: var(--bar);
  border-radius: 2px; min-width: 1px; }
@media (forced-colors: active) {
  .sp .sp-bar { forced-color-adjust: none; background: CanvasText; }
}
`;

// What does not divide, in the words of lib.scaling, or null.
function problem([L, h, , , , B, gpus, t, p, m, , , node]) {
  if (gpus % (t * p)) return `gpus: expected a multiple of tensor · pipeline = ${t * p}, got ${gpus}`;
  if (h % t) return `tensor: expected a divisor of ${h} heads, got ${t}`;
  if (L % p) return `pipeline: expected a divisor of ${L} layers, got ${p}`;
  const copies = gpus / (t * p);
  if (B % (copies * m)) {
    return `sequences: expected a multiple of data · parts = ${copies * m}, got ${B}`;
  }
  if (gpus > node) {
    for (const [name, size] of [["tensor", t], ["tensor · data", t * copies]]) {
      if (size % node && node % size) {
        return `${name}: expected a divisor or a multiple of ${node} GPUs a node, got ${size}`;
      }
    }
  }
  return null;
}

function count(sizes) {
  const [L, h, width, V, n, B, gpus, t, p, m, stage, again, node, tera, percent] = sizes;
  const [memory, inside, between] = sizes.slice(15, 18).map((giga) => giga * 1e9);
  const latency = sizes[18] / 1e6;
  const used = percent / 100;
  const d = h * width;
  const copies = gpus / (t * p);
  const layers = L / p;
  const tokens = (B / (copies * m)) * n; // of a micro-batch
  const flops = B * n * (6 * (12 * L * d * d + V * d) + 12 * L * n * d);
  const psi = Math.ceil(V / t) * d + n * d + (p === 1 ? 2 * d : 0) +
    layers * ((12 * d * d) / t + (7 * d) / t + 6 * d);

  const full = 20 * d + 16 + (24 * d + 4 * h) / t;
  const alive = Math.min(m, p) * layers;
  const kept = {
    weights: (2 * psi) / (stage >= 3 ? copies : 1),
    gradients: (2 * psi) / (stage >= 2 ? copies : 1),
    optimizer: (12 * psi) / (stage >= 1 ? copies : 1),
    activations: (again ? 2 * d * alive + full : full * alive) * tokens,
  };

  const message = 2 * d * tokens;
  const reductions = (again ? 6 : 4) * layers * m;
  const besideBackward = [2, 1, m, 2 * m][stage];
  const besideForward = [0, 1, 1, m][stage];
  const sent = {
    tensor: reductions * message * ((2 * (t - 1)) / t),
    pipeline: Math.min(p - 1, 2) * m * message,
    data: (besideBackward + besideForward) * 2 * psi * ((copies - 1) / copies),
  };

  const pass = (size, q, k) =>
    (q - 1) * (latency + size / q / inside) + (k - 1) * (latency + size / (q * k) / between);
  const needed = flops / gpus / (tera * 1e12 * used);
  const compute = (needed * (3 + again)) / 3;
  let near = Math.min(t, node);
  const tensor = reductions * 2 * pass(message, near, t / near);
  const wire = gpus <= node ? inside : between;
  const pipeline = Math.min(p - 1, 2) * m * (latency + message / wire);
  const bubble = (compute + tensor + pipeline) * ((p - 1) / m);
  near = gpus <= node ? copies : Math.min(copies, Math.max(1, Math.floor(node / t)));
  const one = layers * pass((2 * psi) / layers, near, copies / near);
  const shows = (window, traffic, buckets) =>
    traffic / buckets + (buckets - 1) * Math.max(0, traffic / buckets - window / buckets);
  const backward = stage >= 2 ? m : 1;
  const forward = stage === 3 ? m : 1;
  const exposed =
    shows(backward * ((needed * (2 + again)) / 3 / m), besideBackward * one, backward * layers) +
    shows(forward * (needed / 3 / m), besideForward * one, forward * layers);
  const waited = compute + tensor + pipeline + bubble;
  const seconds = { compute, tensor, pipeline, bubble, exposed };
  const bytes = Object.values(kept).reduce((sum, one) => sum + one, 0);
  let limit = "memory";
  if (bytes <= memory) {
    limit = Object.keys(seconds).reduce((a, b) => (seconds[b] > seconds[a] ? b : a));
  }
  return {
    copies, psi, kept, bytes, sent, seconds, limit,
    overlapped: waited + exposed,
    step: waited + (besideBackward + besideForward) * one,
    efficiency: needed / (waited + exposed),
    mfu: (needed / (waited + exposed)) * used,
  };
}

function scaled(number) {
  const prefixes = ["", "k", "M", "G", "T", "P", "E", "Z"];
  let power = 0;
  let value = number;
  while (value >= 1000 && power < prefixes.length - 1) {
    value /= 1000;
    power += 1;
  }
  return `${fixed(value, 2)} ${prefixes[power]}B`;
}

const timed = (s) => (s >= 1 ? `${fixed(s, 3)} s` : `${fixed(1000 * s, 3)} ms`);

// What is shown: the text of each title, and the share of the whole that its bar has.
function texts(sizes) {
  const c = count(sizes);
  const shown = {
    "copies of the model": [c.copies.toLocaleString("en-GB")],
    "parameters of a GPU": [c.psi.toLocaleString("en-GB")],
    "memory of a GPU": [scaled(c.bytes)],
    "step, traffic beside computation": [timed(c.overlapped)],
    "step, traffic after it": [timed(c.step)],
    efficiency: [`${fixed(100 * c.efficiency, 1)} %`],
    "share of the peak (MFU)": [`${fixed(100 * c.mfu, 1)} %`],
  };
  for (const [k, v] of Object.entries(c.kept)) shown[k] = [scaled(v), v / c.bytes];
  for (const [k, v] of Object.entries(c.sent)) shown[`sent: ${k}`] = [scaled(v)];
  for (const [k, v] of Object.entries(c.seconds)) {
    shown[`time: ${k}`] = [timed(v), v / c.overlapped];
  }
  return [shown, c.limit];
}

function render({ model, el }) {
  const { label, groups, titles, said, presets } = model.get("data");
  const start = model.get("sizes");

  const put = (sizes) => {
    model.set("sizes", sizes);
    model.save_changes();
  };

  const inputs = [];
  const field = ([title, least, most]) => {
    const k = inputs.length;
    const input = make("input", {
      type: "number", min: least, max: most, step: 1, inputmode: "numeric",
    });
    input.addEventListener("change", () => {
      const old = model.get("sizes");
      const asked = Math.round(Number(input.value));
      const wanted = Number.isFinite(asked) && input.value !== "" ? asked : old[k];
      const value = Math.min(most, Math.max(least, wanted));
      input.value = value;
      put(old.map((size, j) => (j === k ? value : size)));
    });
    inputs.push(input);
    return make("label", {}, make("span", {}, title), input);
  };
  const sets = groups.map(([title, fields]) =>
    make("fieldset", {}, make("legend", {}, title), ...fields.map(field)));
  const button = (title, sizes) => {
    const node = make("button", { type: "button" }, title);
    node.addEventListener("click", () => put([...sizes]));
    return node;
  };
  const buttons = make(
    "div",
    { class: "sp-buttons" },
    ...presets.map(([title, sizes]) => button(title, sizes)),
    button("reset", start),
  );
  const form = make("form", {}, ...sets, buttons);
  form.addEventListener("submit", (event) => event.preventDefault());

  const rows = titles.map((title) => {
    const text = make("span");
    const bar = make("span", { class: "sp-bar" });
    const cell = make("td", { "data-row": title }, text, bar);
    return { title, text, bar, line: make("tr", {}, make("th", { scope: "row" }, title), cell) };
  });
  const table = make("table", {}, make("tbody", {}, ...rows.map(({ line }) => line)));
  const say = make("p", { class: "sp-say", "aria-live": "polite", "aria-atomic": "true" });
  const root = make("div", { class: "sp", role: "group", "aria-label": label });
  root.append(
    make("style", {}, STYLE),
    make("p", { class: "sp-label" }, label),
    form,
    say,
    table,
  );
  el.append(root);

  function draw() {
    const sizes = model.get("sizes");
    inputs.forEach((input, k) => (input.value = sizes[k]));
    const trouble = problem(sizes);
    const [shown, limit] = trouble === null ? texts(sizes) : [{}, null];
    for (const { title, text, bar } of rows) {
      const [words, share] = shown[title] ?? ["–"];
      text.textContent = words;
      bar.hidden = share === undefined;
      bar.style.display = bar.hidden ? "none" : "";
      bar.style.width = `${100 * (share ?? 0)}%`;
    }
    say.textContent = trouble === null
      ? `A step takes ${shown["step, traffic beside computation"][0]}, at ` +
        `${shown.efficiency[0]} efficiency, with ${shown["memory of a GPU"][0]} in a GPU. ` +
        said[limit]
      : `It cannot be cut so. ${trouble}.`;
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
