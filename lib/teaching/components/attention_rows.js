// AttentionRows: the attention of a trained model, one query at a time.
//
// An ES module with anywidget's render({ model, el }), behind common.js. The model holds
//   data  {label, choice, tokens: [text], weights: {mask: [head][row][key]}, entropy: {mask: [head][row]}},
//         weights and entropies in thousandths, rounded by Python as they are shown;
//         a weight of -1, or one past a row's end, is masked
//   row, head, mask_name  what is shown: a reader changes them here, Python from its side.

const STYLE = `
.ar { --query: #0072b2; --weights: 148 89 232; color: inherit; line-height: 1.4;
  overflow-wrap: break-word; }
.ar[data-mode=dark] { --query: #56b4e9; }
.ar * { box-sizing: border-box; }
.ar p { margin: 0 0 .6rem; }
.ar .ar-label { font-weight: 600; }
.ar form, .ar .ar-steps { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem 1.25rem; }
.ar form { margin: 0 0 .9rem; }
.ar .ar-steps { gap: .5rem; }
.ar fieldset { display: flex; align-items: center; border: 0; margin: 0; padding: 0; min-width: 0; }
.ar legend { float: left; padding: 0; margin: 0 .5rem 0 0; width: auto; font-size: .9rem; }
.ar .ar-choices { display: flex; flex-wrap: wrap; gap: .25rem; }
.ar .ar-choice { position: relative; margin: 0; }
.ar .ar-choice input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0;
  opacity: 0; cursor: pointer; }
.ar .ar-choice span, .ar button { display: inline-flex; align-items: center;
  justify-content: center; min-width: 2.5rem; min-height: 2.5rem; padding: 0 .7rem;
  border: 1px solid rgb(127 127 127 / .75); border-radius: .4rem; background: transparent;
  color: inherit; font: inherit; font-size: .9rem; }
.ar .ar-choice input:checked + span { background: rgb(127 127 127 / .22);
  border: 2px solid currentColor; font-weight: 700; }
.ar button { cursor: pointer; }
.ar button:hover, .ar .ar-choice:hover span { background: rgb(127 127 127 / .16); }
.ar button:focus-visible, .ar .ar-choice input:focus-visible + span, .ar .ar-token:focus-visible {
  outline: 3px solid var(--query); outline-offset: 2px; }
.ar .ar-body { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; align-items: flex-start; }
.ar .ar-main { flex: 1 1 20rem; min-width: 0; }
.ar .ar-tokens { display: flex; flex-wrap: wrap; gap: .5rem .2rem; margin: 0 0 .9rem; }
.ar .ar-break { flex-basis: 100%; height: 0; }
.ar .ar-token { position: relative; min-width: 2.2rem; max-width: 100%; text-align: center;
  cursor: pointer; border-radius: .35rem; user-select: none; touch-action: manipulation; }
.ar .ar-glyph { display: block; padding: .1rem .3rem; border-radius: .3rem;
  border: 2px solid transparent; overflow-wrap: anywhere; min-height: 2rem;
  font-family: var(--pst-font-family-monospace, ui-monospace, monospace); font-size: 1.05rem;
  background: rgb(var(--weights) / calc(.65 * var(--tint, 0))) padding-box; }
.ar .ar-track { display: block; width: 2rem; height: 5px; margin: 2px auto; border-radius: 1px;
  background: rgb(127 127 127 / .16); }
.ar .ar-bar { display: block; height: 100%; width: calc(100% * var(--weight, 0));
  background: rgb(var(--weights)); border-radius: 1px; }
.ar .ar-number { display: block; font-size: .75rem; line-height: 1.15;
  font-variant-numeric: tabular-nums; }
.ar .ar-none .ar-number { opacity: .75; }
.ar .ar-masked .ar-glyph { background: repeating-linear-gradient(135deg,
  rgb(127 127 127 / .22) 0 2px, transparent 2px 6px) padding-box; }
.ar .ar-token:hover .ar-glyph { border-color: rgb(127 127 127 / .75); }
.ar .ar-token[aria-selected=true] .ar-glyph { border: 2px dashed var(--query); }
.ar .ar-token.ar-query .ar-glyph { border: 2px solid var(--query); font-weight: 700; }
.ar .ar-say { min-height: 4.2em; }
.ar .ar-map { flex: 0 0 auto; width: 11rem; margin: 0; font-size: .8rem; }
.ar .ar-grid { position: relative; border: 1px solid rgb(127 127 127 / .75); margin-bottom: .3rem; }
.ar canvas { display: block; width: 100%; aspect-ratio: 1; image-rendering: pixelated;
  cursor: pointer; }
.ar .ar-here { position: absolute; left: 0; right: 0; outline: 2px solid var(--query);
  pointer-events: none; }
.ar .ar-key { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 0 0 .75rem;
  font-size: .8rem; }
.ar .ar-key > span { display: inline-flex; align-items: center; gap: .35rem; }
.ar .ar-key .ar-token { min-width: 0; }
.ar .ar-key .ar-glyph { display: inline-block; min-height: 0; width: 1.3rem; height: 1.3rem; }
@media (prefers-reduced-motion: no-preference) {
  .ar .ar-bar { transition: width .15s ease-out; }
}
@media (forced-colors: active) {
  .ar .ar-bar, .ar .ar-glyph { forced-color-adjust: none; }
  .ar .ar-token.ar-query .ar-glyph { border-color: Highlight; }
}
`;

const decimals = (thousandths) => (thousandths / 1000).toFixed(3);
const tint = (thousandths) => Math.sqrt(Math.max(thousandths, 0) / 1000);

// Where a row attends, in words; lib/teaching/components/attention_rows.py says the same.
function sentence(tokens, row, index, entropy) {
  const keys = row.filter((weight) => weight >= 0).length;
  const name = (j) => `“${tokens[j]}” at ${j}`;
  const top = row
    .map((weight, j) => [weight, j])
    .filter(([weight]) => weight > 0)
    .sort((a, b) => b[0] - a[0] || a[1] - b[1])
    .slice(0, 3)
    .map(([weight, j]) => `${name(j)} (${decimals(weight)})`);
  if (!top.length) return `${name(index)} may attend to nothing: its output is zero.`;
  const last = top.pop();
  const list = top.length ? `${top.join(", ")} and ${last}` : last;
  return (
    `${name(index)} attends most to ${list}; entropy ${decimals(entropy)} nats, ` +
    `at most ln ${keys} = ${Math.log(keys).toFixed(3)}.`
  );
}

function render({ model, el }) {
  const { label, choice, tokens, weights, entropy } = model.get("data");
  const n = tokens.length;
  const heads = Object.values(weights)[0].length;
  const start = Object.fromEntries(["row", "head", "mask_name"].map((k) => [k, model.get(k)]));
  let preview = null; // the row under the mouse, until the mouse leaves

  const put = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };

  function choices(legend, name, values) {
    const boxes = values.map((value) => {
      const input = make("input", { type: "radio", name, value });
      input.addEventListener("change", () => put(name, value));
      return input;
    });
    const labels = boxes.map((box, i) =>
      make("label", { class: "ar-choice" }, box, make("span", {}, String(values[i]))),
    );
    const set = make("fieldset", {}, make("legend", {}, legend));
    set.append(make("span", { class: "ar-choices" }, ...labels));
    return { set, show: (now) => boxes.forEach((box, i) => (box.checked = values[i] === now)) };
  }

  const headChoice = choices("Head", "head", [...Array(heads).keys()]);
  const maskChoice = choices(choice, "mask_name", Object.keys(weights));
  const form = make("form", {}, headChoice.set, maskChoice.set);
  form.addEventListener("submit", (event) => event.preventDefault());

  const cells = tokens.map((text, j) => {
    const bar = make("span", { class: "ar-bar" });
    const number = make("span", { class: "ar-number" });
    const glyph = make("span", { class: "ar-glyph" }, text);
    const track = make("span", { class: "ar-track" }, bar);
    // The space keeps glyph and number apart where they are read as one text, as in the label.
    const cell = make("div", { class: "ar-token", role: "option" }, glyph, track, " ", number);
    cell.dataset.index = j;
    return { cell, number };
  });
  const list = make("div", {
    class: "ar-tokens",
    role: "listbox",
    "aria-orientation": "horizontal",
    "aria-label": "Query token. Each token shows the weight that the chosen one gives it",
  });
  cells.forEach(({ cell }, j) => {
    list.append(cell);
    // A line of the text ends where the text's own line ends.
    if (tokens[j].endsWith("↵")) list.append(make("span", { class: "ar-break", "aria-hidden": true }));
  });

  const say = make("p", { class: "ar-say", "aria-live": "polite", "aria-atomic": "true" });
  const steps = make("div", { class: "ar-steps" });
  const button = (text, action) => {
    const node = make("button", { type: "button" }, text);
    node.addEventListener("click", action);
    steps.append(node);
  };
  button("← previous", () => put("row", (model.get("row") + n - 1) % n));
  button("next →", () => put("row", (model.get("row") + 1) % n));
  button("reset", () => {
    Object.entries(start).forEach(([name, value]) => model.set(name, value));
    model.save_changes();
  });

  const swatch = (className, alpha) => {
    const node = make("span", { class: "ar-glyph" });
    node.style.setProperty("--tint", alpha);
    return make("span", { class: className, "aria-hidden": true }, node);
  };
  const scale = [0.01, 0.1, 0.5, 1].map((weight) =>
    make("span", {}, swatch("", Math.sqrt(weight)), String(weight)),
  );
  const legend = make("p", { class: "ar-key" });
  legend.append(
    make("span", {}, swatch("ar-token ar-query", 0), "the query"),
    ...scale,
    make("span", {}, swatch("ar-token ar-masked", 0), "masked"),
  );

  const canvas = make("canvas", { width: n, height: n, role: "img" });
  const here = make("div", { class: "ar-here" });
  here.style.height = `${100 / n}%`;
  const map = make("div", { class: "ar-map" }, make("div", { class: "ar-grid" }, canvas, here));
  map.append("All rows of this head: queries down, keys across.");

  const main = make("div", { class: "ar-main" }, list, legend, say, steps);
  const root = make("div", { class: "ar", role: "group", "aria-label": label });
  root.append(
    make("style", {}, STYLE),
    make("p", { class: "ar-label" }, label),
    form,
    make("div", { class: "ar-body" }, main, map),
  );
  el.append(root);

  const table = () => weights[model.get("mask_name")][model.get("head")];

  function draw() {
    const index = preview ?? model.get("row");
    const row = tokens.map((_, j) => table()[index][j] ?? -1);
    cells.forEach(({ cell, number }, j) => {
      const masked = row[j] < 0;
      const shown = masked ? "–" : decimals(row[j]).replace(/^0/, "");
      cell.style.setProperty("--weight", Math.max(row[j], 0) / 1000);
      cell.style.setProperty("--tint", tint(row[j]));
      cell.classList.toggle("ar-masked", masked);
      cell.classList.toggle("ar-none", row[j] < 1);
      cell.classList.toggle("ar-query", j === index);
      cell.setAttribute("aria-selected", j === model.get("row"));
      // The name begins with what is seen: speech control goes by it.
      const said = masked ? ", masked" : "";
      cell.setAttribute("aria-label", `${tokens[j]} ${shown}, position ${j}${said}`);
      cell.tabIndex = j === model.get("row") ? 0 : -1;
      number.textContent = shown;
    });
    say.textContent = sentence(
      tokens, row, index, entropy[model.get("mask_name")][model.get("head")][index],
    );
    here.style.top = `${(100 * index) / n}%`;
  }

  function drawAll() {
    headChoice.show(model.get("head"));
    maskChoice.show(model.get("mask_name"));
    const pixels = new ImageData(n, n);
    table().forEach((row, i) =>
      tokens.forEach((_, j) => {
        const weight = row[j] ?? -1;
        const colour = weight < 0 ? [127, 127, 127, 56] : [148, 89, 232, 255 * tint(weight)];
        pixels.data.set(colour, 4 * (i * n + j));
      }),
    );
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    canvas.setAttribute(
      "aria-label",
      `All weights of head ${model.get("head")} under ${choice.toLowerCase()} ${model.get("mask_name")} as a map, ` +
        "one row for each query; the chosen row is framed.",
    );
    draw();
  }

  // The token under, over or beside another one, as the lines happen to be broken.
  function across(index, direction) {
    const boxes = cells.map(({ cell }) => cell.getBoundingClientRect());
    let best = index;
    let least = Infinity;
    boxes.forEach((box, j) => {
      const down = (box.top - boxes[index].top) * direction;
      const cost = 1000 * down + Math.abs(box.left + box.right - boxes[index].left - boxes[index].right);
      if (down > 4 && cost < least) [best, least] = [j, cost];
    });
    return best;
  }

  function pin(index) {
    preview = null;
    put("row", index);
    draw();
  }

  const indexOf = (event) => {
    const cell = event.target.closest(".ar-token");
    return cell && list.contains(cell) ? Number(cell.dataset.index) : null;
  };
  const rowOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return Math.min(n - 1, Math.max(0, Math.floor((n * (event.clientY - box.top)) / box.height)));
  };
  function hover(index) {
    if (index === preview) return;
    preview = index;
    draw();
  }

  list.addEventListener("click", (event) => {
    const index = indexOf(event);
    if (index === null) return;
    pin(index);
    cells[index].cell.focus({ preventScroll: true });
  });
  list.addEventListener("keydown", (event) => {
    const row = model.get("row");
    const moves = {
      ArrowLeft: () => Math.max(row - 1, 0),
      ArrowRight: () => Math.min(row + 1, n - 1),
      ArrowUp: () => across(row, -1),
      ArrowDown: () => across(row, 1),
      Home: () => 0,
      End: () => n - 1,
    };
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    pin(moves[event.key]());
    cells[model.get("row")].cell.focus();
  });
  list.addEventListener("pointerover", (event) => {
    const index = indexOf(event);
    if (event.pointerType === "mouse" && index !== null) hover(index);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse") hover(rowOf(event));
  });
  canvas.addEventListener("click", (event) => pin(rowOf(event)));
  for (const node of [list, canvas]) node.addEventListener("pointerleave", () => hover(null));

  model.on("change:row", draw);
  model.on("change:head", drawAll);
  model.on("change:mask_name", drawAll);
  drawAll();
  const unfollow = followTheme(root);

  return () => {
    unfollow();
    model.off("change:row", draw);
    model.off("change:head", drawAll);
    model.off("change:mask_name", drawAll);
    root.remove();
  };
}

export default { render };
