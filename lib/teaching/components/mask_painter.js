// MaskPainter: the pairs of tokens that meet under a window, painted and counted.
//
// An ES module with anywidget's render({ model, el }), behind common.js. The model holds
//   data  {label, n, widest, dilations, layers}: tokens, and the most that each slider goes to
//   window, dilation, causal, global_tokens, layers  what is shown: both sides may change them;
//         global_tokens is an ascending list

const STYLE = `
.mp { --near: #9459e8; --far: #d55e00; --focus: #0072b2; color: inherit; line-height: 1.4;
  overflow-wrap: break-word; }
.mp[data-mode=dark] { --focus: #56b4e9; }
.mp * { box-sizing: border-box; }
.mp p { margin: 0 0 .7rem; }
.mp .mp-label { font-weight: 600; }
.mp form { display: flex; flex-wrap: wrap; align-items: center; gap: .3rem 1.25rem;
  margin: 0 0 .6rem; }
.mp label { display: flex; flex: 1 1 14rem; align-items: center; gap: .5rem; min-width: 0;
  min-height: 2.5rem; margin: 0; font-size: .9rem; cursor: pointer; }
.mp input { margin: 0; accent-color: var(--focus); cursor: pointer; }
.mp [type=range] { flex: 1 1 auto; min-width: 4rem; height: 2.5rem; }
.mp [type=checkbox] { width: 1.6rem; height: 1.6rem; flex: none; }
.mp output { min-width: 2em; font-variant-numeric: tabular-nums; font-weight: 600; }
.mp button { min-width: 2.5rem; min-height: 2.5rem; padding: 0 .4rem; color: inherit;
  font: inherit; font-size: .9rem; font-variant-numeric: tabular-nums; background: transparent;
  border: 1px solid rgb(127 127 127 / .75); border-radius: .4rem; cursor: pointer; }
.mp button:hover { background: rgb(127 127 127 / .16); }
.mp button[aria-pressed=true] { border: 3px solid var(--far); font-weight: 700; }
.mp :is(button, input):focus-visible { outline: 3px solid var(--focus); outline-offset: 2px;
  border-radius: .4rem; }
.mp .mp-tokens { display: flex; flex-wrap: wrap; gap: .3rem; margin: 0 0 .8rem; }
.mp .mp-body { display: flex; flex-wrap: wrap; gap: .7rem 1.5rem; align-items: center; }
.mp .mp-grid { flex: 1 1 16rem; max-width: 24rem; min-width: 0; font-size: .8rem; }
.mp .mp-grid svg { display: block; width: 100%; height: auto;
  border: 1px solid rgb(127 127 127 / .75); margin: .2rem 0; }
.mp .mp-lines { fill: none; stroke: rgb(127 127 127 / .3); stroke-width: .05; }
.mp .mp-near { fill: var(--near); }
.mp .mp-far { fill: var(--far); }
.mp .mp-joined { fill: rgb(127 127 127 / .85); }
.mp table { flex: 1 1 14rem; max-width: 24rem; min-width: 0; width: auto; border-collapse: collapse;
  font-size: .85rem; font-variant-numeric: tabular-nums; margin: 0 0 .7rem; }
.mp :is(th, td) { padding: .15rem .3rem; border: 0; text-align: left; font-weight: 400; }
.mp td { text-align: right; white-space: nowrap; }
.mp .mp-sample { display: inline-block; width: .9rem; height: .9rem; margin-right: .5rem;
  vertical-align: -.1rem; }
@media (forced-colors: active) { .mp svg * { forced-color-adjust: none; } }
`;

// The name space of SVG, asked of the parser.
const SVG = new DOMParser().parseFromString("<svg>", "text/html").querySelector("svg").namespaceURI;

function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// One cell each; colour never tells two of them apart alone.
const SHAPES = {
  near: (i, j) => `M${j + 0.06} ${i + 0.06}h.88v.88h-.88z`,
  far: (i, j) => `M${j + 0.5} ${i + 0.1}l.4 .4l-.4 .4l-.4-.4z`,
  joined: (i, j) => `M${j + 0.38} ${i + 0.38}h.24v.24h-.24z`,
};

// How many pairs the formula has: one sequence for each phase of the dilation.
function formula(n, window, dilation, causal) {
  let total = 0;
  for (let phase = 0; phase < Math.min(dilation, n); phase++) {
    const length = Math.floor((n - phase - 1) / dilation) + 1;
    const half = Math.min(window / 2, length - 1);
    total += length * (2 * half + 1) - half * (half + 1);
  }
  return causal ? (total + n) / 2 : total;
}

function render({ model, el }) {
  const { label, n, widest, dilations, layers } = model.get("data");
  const names = ["window", "dilation", "causal", "global_tokens", "layers"];
  const now = () => Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const start = now();
  const all = Array.from({ length: n }, (_, i) => i);

  const put = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };

  const form = make("form");
  form.addEventListener("submit", (event) => event.preventDefault());
  function slider(name, title, min, max, step) {
    const input = make("input", { type: "range", min, max, step });
    const output = make("output");
    input.addEventListener("input", () => put(name, Number(input.value)));
    form.append(make("label", {}, title, input, output));
    return () => {
      input.value = model.get(name);
      input.setAttribute("aria-valuetext", `${title} ${model.get(name)}`);
      output.textContent = model.get(name);
    };
  }
  const shows = [
    slider("window", "window w", 2, widest, 2),
    slider("dilation", "dilation", 1, dilations, 1),
    slider("layers", "layers", 1, layers, 1),
  ];
  const causal = make("input", { type: "checkbox" });
  causal.addEventListener("change", () => put("causal", causal.checked));
  const reset = make("button", { type: "button" }, "reset");
  reset.addEventListener("click", () => {
    names.forEach((name) => model.set(name, start[name]));
    model.save_changes();
  });
  form.append(make("label", {}, causal, "causal: no later key"), reset);

  // One stop for the tab key, arrows between the tokens.
  let focused = 0;
  const tokens = all.map((i) => {
    const button = make("button", { type: "button", "aria-label": `token ${i} is global` }, `${i}`);
    button.addEventListener("click", () => {
      const chosen = new Set(model.get("global_tokens"));
      if (!chosen.delete(i)) chosen.add(i);
      put("global_tokens", all.filter((one) => chosen.has(one)));
    });
    button.addEventListener("focus", () => {
      focused = i;
      tokens.forEach((node, j) => (node.tabIndex = j === i ? 0 : -1));
    });
    button.tabIndex = i ? -1 : 0;
    return button;
  });
  const strip = make("div", { class: "mp-tokens", role: "toolbar", "aria-label": "Global tokens" });
  strip.append(...tokens);
  strip.addEventListener("keydown", (event) => {
    const last = n - 1;
    const to = { ArrowRight: Math.min(focused + 1, last), ArrowLeft: Math.max(focused - 1, 0),
      Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tokens[to].focus();
  });

  const plot = draw("svg", { viewBox: `0 0 ${n} ${n}`, role: "img" });
  const fours = all.filter((i) => i % 4 === 0 && i);
  const lines = fours.map((i) => `M0 ${i}H${n}M${i} 0V${n}`).join("");
  plot.append(draw("path", { class: "mp-lines", d: lines }));
  const painted = Object.keys(SHAPES).map((kind) => {
    const path = draw("path", { class: `mp-${kind}` });
    plot.append(path);
    return [kind, path];
  });
  const grid = make("div", { class: "mp-grid" }, "keys →", plot, "↓ queries; a line every 4 tokens");

  const cells = {};
  const row = (name, title, kind) => {
    const head = make("th", { scope: "row" });
    if (kind) {
      const sample = draw("svg", { viewBox: "0 0 1 1", "aria-hidden": true, class: "mp-sample" });
      sample.append(draw("path", { class: `mp-${kind}`, d: SHAPES[kind](0, 0) }));
      head.append(sample);
    }
    head.append(title);
    cells[name] = make("td", { "data-read": name });
    return make("tr", {}, head, cells[name]);
  };
  const table = make("table", {}, make("tbody", {},
    row("window", "pairs in the window", "near"),
    row("formula", "the same by formula"),
    row("added", "more by global tokens", "far"),
    row("pairs", "pairs that meet"),
    row("share", `of all ${n * n}`),
    row("joined", "joined after these layers", "joined"),
  ));

  const say = make("p", { class: "mp-say", "aria-live": "polite", "aria-atomic": "true" });
  const root = make("div", { class: "mp", role: "group", "aria-label": label });
  root.append(
    make("style", {}, STYLE),
    make("p", { class: "mp-label" }, label),
    form,
    make("p", {}, "A global token meets all, and all meet it. Global are:"),
    strip,
    make("div", { class: "mp-body" }, grid, table),
    say,
  );
  el.append(root);

  function paint() {
    const state = now();
    shows.forEach((show) => show());
    causal.checked = state.causal;
    const chosen = new Set(state.global_tokens);
    tokens.forEach((node, i) => node.setAttribute("aria-pressed", chosen.has(i)));

    const reach = (state.dilation * state.window) / 2;
    const kinds = all.map((i) => all.map((j) => {
      if (state.causal && j > i) return null;
      if (Math.abs(i - j) <= reach && (i - j) % state.dilation === 0) return "near";
      return chosen.has(i) || chosen.has(j) ? "far" : null;
    }));
    let joined = kinds.map((ofRow) => ofRow.map(Boolean));
    for (let layer = 1; layer < state.layers; layer++) {
      joined = joined.map((ofRow) =>
        all.map((j) => all.some((k) => ofRow[k] && kinds[k][j])));
    }
    const count = (test) => all.reduce((sum, i) => sum + all.filter((j) => test(i, j)).length, 0);
    for (const [kind, path] of painted) {
      const drawn = [];
      for (const i of all) {
        for (const j of all) {
          if (kinds[i][j] === kind || (kind === "joined" && joined[i][j] && !kinds[i][j])) {
            drawn.push(SHAPES[kind](i, j));
          }
        }
      }
      path.setAttribute("d", drawn.join(""));
    }

    const near = count((i, j) => kinds[i][j] === "near");
    const pairs = count((i, j) => kinds[i][j]);
    const read = {
      window: near,
      formula: formula(n, state.window, state.dilation, state.causal),
      added: pairs - near,
      pairs,
      share: `${fixed((100 * pairs) / n ** 2, 1)} %`,
      joined: count((i, j) => joined[i][j]),
    };
    Object.entries(read).forEach(([name, value]) => (cells[name].textContent = value));
    plot.setAttribute("aria-label", `${label}: the mask of ${n} by ${n} pairs`);
    const side = state.causal ? "causal" : "both sides";
    const listed = chosen.size ? `global ${state.global_tokens.join(", ")}` : "no global token";
    say.textContent =
      `${n} tokens, w = ${state.window}, dilation ${state.dilation}, ${side}, ${listed}: ` +
      `${pairs} of ${n * n} pairs meet (${read.share}), ` +
      `${near} in the window and ${read.added} more by global tokens; ` +
      `after ${state.layers} layer${state.layers === 1 ? "" : "s"} ${read.joined} are joined.`;
  }

  names.forEach((name) => model.on(`change:${name}`, paint));
  paint();
  const unfollow = followTheme(root);

  return () => {
    unfollow();
    names.forEach((name) => model.off(`change:${name}`, paint));
    root.remove();
  };
}

export default { render };
