// Sampling: what temperature, top-k and top-p leave of a next-token distribution, and draws from it.
//
// An ES module with anywidget's render({ model, el }), behind common.js. The model holds
//   data  {label, tokens: [text], logits: [number] descending, stream: [u], temperatures: [T],
//         top_ps: [p]}
//   temperature, top_k, top_p, draws  what is shown: both sides may change them.

const STYLE = `
.sm { --bar: #9459e8; --focus: #0072b2; color: inherit; line-height: 1.4;
  overflow-wrap: break-word; }
.sm[data-mode=dark] { --focus: #56b4e9; }
.sm * { box-sizing: border-box; }
.sm p { margin: 0 0 .7rem; }
.sm .sm-label { font-weight: 600; }
.sm form { display: flex; flex-wrap: wrap; align-items: center; gap: .3rem 1.25rem;
  margin: 0 0 .6rem; }
.sm label { display: flex; flex: 1 1 14rem; align-items: center; gap: .5rem; min-width: 0;
  margin: 0; font-size: .9rem; }
.sm input { flex: 1 1 auto; min-width: 4rem; height: 2.5rem; margin: 0;
  accent-color: var(--focus); cursor: pointer; }
.sm output { min-width: 2.6em; font-variant-numeric: tabular-nums; font-weight: 600; }
.sm .sm-buttons { display: flex; flex: 1 1 100%; flex-wrap: wrap; gap: .4rem; }
.sm button { min-height: 2.5rem; padding: 0 .7rem; color: inherit; font: inherit;
  font-size: .9rem; background: transparent; border: 1px solid rgb(127 127 127 / .75);
  border-radius: .4rem; cursor: pointer; }
.sm button:hover { background: rgb(127 127 127 / .16); }
.sm :is(button, input):focus-visible { outline: 3px solid var(--focus); outline-offset: 2px;
  border-radius: .4rem; }
.sm table { width: 100%; max-width: 44rem; border-collapse: collapse; font-size: .85rem;
  font-variant-numeric: tabular-nums; margin: 0 0 .7rem; table-layout: fixed; }
.sm :is(th, td) { padding: .1rem .3rem; border: 0; text-align: right; font-weight: 400;
  width: 3.6rem; }
.sm :is(th, td):first-child { padding-left: 0; overflow-wrap: anywhere; }
.sm .sm-wide { width: auto; text-align: left; }
.sm thead :is(th, td) { border-bottom: 1px solid rgb(127 127 127 / .75); font-size: .8rem;
  vertical-align: bottom; }
.sm .sm-track { display: block; position: relative; height: 1rem;
  border-left: 1px solid rgb(127 127 127 / .75); }
.sm .sm-track span { position: absolute; left: 0; border-radius: 0 2px 2px 0; }
.sm .sm-before { top: 0; height: 100%; border: 1px solid currentColor; border-left: 0; }
.sm .sm-after { top: 25%; height: 50%; background: var(--bar); }
.sm tr[data-cut] .sm-before { border-style: dashed; }
.sm tr[data-now] th { font-weight: 700; }
.sm tr[data-now] { outline: 2px solid var(--focus); outline-offset: -1px; }
.sm .sm-text { min-height: 1.4em; overflow-wrap: anywhere; }
@media (prefers-reduced-motion: no-preference) {
  .sm .sm-track span { transition: width .15s ease-out; }
}
@media (forced-colors: active) {
  .sm .sm-after { forced-color-adjust: none; background: CanvasText; }
}
`;

function softmax(scores) {
  const largest = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - largest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

// Python's lib.generation, for logits that descend: the k largest and their equals, then the fewest
// of those left whose predecessors hold less than the share.
function keep(scores, k, share) {
  let left = scores.map((score) => (score < scores[k - 1] ? -Infinity : score));
  if (share === 1) return left;
  let reached = 0;
  return softmax(left).map((p, j) => {
    reached += p;
    return j > 0 && reached - p >= share ? -Infinity : left[j];
  });
}

function render({ model, el }) {
  const { label, tokens, logits, stream, temperatures, top_ps } = model.get("data");
  const names = ["temperature", "top_k", "top_p", "draws"];
  const start = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const n = tokens.length;

  const put = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };

  function slider(name, title, values) {
    const input = make("input", { type: "range", min: 0, max: values.length - 1, step: 1 });
    const output = make("output");
    input.addEventListener("input", () => put(name, values[input.value]));
    const show = (value) => {
      input.value = values.indexOf(value);
      input.setAttribute("aria-valuetext", `${title} ${value}`);
      output.textContent = String(value);
    };
    return { name, show, node: make("label", {}, title, input, output) };
  }

  const sliders = [
    slider("temperature", "temperature", temperatures),
    slider("top_k", "top-k", [...Array(n).keys()].map((j) => j + 1)),
    slider("top_p", "top-p", top_ps),
  ];
  const button = (title, act) => {
    const node = make("button", { type: "button" }, title);
    node.addEventListener("click", act);
    return node;
  };
  const more = (count) => put("draws", Math.min(stream.length, model.get("draws") + count));
  const buttons = make(
    "div",
    { class: "sm-buttons" },
    button("draw", () => more(1)),
    button("draw 10", () => more(10)),
    button("reset", () => {
      names.forEach((name) => model.set(name, start[name]));
      model.save_changes();
    }),
  );
  const form = make("form", {}, ...sliders.map(({ node }) => node), buttons);
  form.addEventListener("submit", (event) => event.preventDefault());

  const cell = () => make("td");
  const rows = tokens.map((token) => {
    const before = make("span", { class: "sm-before" });
    const after = make("span", { class: "sm-after" });
    const track = make("td", { class: "sm-wide" });
    track.append(make("span", { class: "sm-track" }, before, after));
    const [p, q, count] = [cell(), cell(), cell()];
    p.className = "sm-p";
    q.className = "sm-q";
    count.className = "sm-count";
    const line = make("tr", {}, make("th", { scope: "row" }, token), track, p, q, count);
    return { line, before, after, p, q, count };
  });
  const head = ["token", "", "p at T", "drawn with", "times"].map((title) =>
    title ? make("th", { scope: "col" }, title) : make("td", { class: "sm-wide" }),
  );
  const table = make("table");
  table.append(
    make("thead", {}, make("tr", {}, ...head)),
    make("tbody", {}, ...rows.map(({ line }) => line)),
  );

  const text = make("p", { class: "sm-text" });
  const say = make("p", { class: "sm-say", "aria-live": "polite", "aria-atomic": "true" });
  const root = make("div", { class: "sm", role: "group", "aria-label": label });
  root.append(make("style", {}, STYLE), make("p", { class: "sm-label" }, label), form, table);
  root.append(text, say);
  el.append(root);

  function show() {
    const [T, k, share, draws] = names.map((name) => model.get(name));
    sliders.forEach((one) => one.show(model.get(one.name)));
    const scores = logits.map((logit) => logit / T);
    const left = keep(scores, k, share);
    const p = softmax(scores);
    const q = softmax(left);
    const kept = left.filter((score) => score > -Infinity).length;
    const last = q.findLastIndex((x) => x > 0);
    const drawn = stream.slice(0, draws).map((u) => {
      let reached = 0;
      const found = q.findIndex((x) => (reached += x) > u);
      return found < 0 ? last : found;
    });
    const top = Math.max(...p, ...q);
    rows.forEach((row, j) => {
      row.before.style.width = `${(100 * p[j]) / top}%`;
      row.after.style.width = `${(100 * q[j]) / top}%`;
      row.p.textContent = fixed(p[j], 3);
      row.q.textContent = left[j] > -Infinity ? fixed(q[j], 3) : "cut";
      row.count.textContent = String(drawn.filter((i) => i === j).length);
      row.line.toggleAttribute("data-cut", left[j] === -Infinity);
      row.line.toggleAttribute("data-now", j === drawn[drawn.length - 1]);
    });
    text.textContent = drawn.length ? `Drawn: ${drawn.map((j) => tokens[j]).join(" ")}` : "";
    const mass = p.reduce((sum, x, j) => (left[j] > -Infinity ? sum + x : sum), 0);
    const entropy = q.reduce((sum, x) => (x > 0 ? sum - x * Math.log(x) : sum), 0);
    say.textContent =
      `T = ${T}, top-k = ${k}, top-p = ${share}: ` +
      `${kept} of ${n} tokens kept, which had ${fixed(mass, 3)} of the probability; ` +
      `entropy ${fixed(entropy, 3)} nats. ` +
      (drawn.length
        ? `${drawn.length} drawn, the last is “${tokens[drawn[drawn.length - 1]]}”.`
        : "None drawn yet.");
  }

  names.forEach((name) => model.on(`change:${name}`, show));
  show();
  const unfollow = followTheme(root);

  return () => {
    unfollow();
    names.forEach((name) => model.off(`change:${name}`, show));
    root.remove();
  };
}

export default { render };
