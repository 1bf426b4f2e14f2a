// ShapleyGame: what three players are worth together, who adds what in which order, and the mean.
//
// An ES module with anywidget's render({ model, el }), behind common.js. The model holds
//   data    {label, players: [name], most, coalitions: [[player]], orders: [[player]],
//           examples: [[name, worths]]}
//   worths  of the seven coalitions: both sides may change them.

const STYLE = `
.sg { --bar: #9459e8; --focus: #0072b2; color: inherit; line-height: 1.4;
  overflow-wrap: break-word; }
.sg[data-mode=dark] { --focus: #56b4e9; }
.sg * { box-sizing: border-box; }
.sg p { margin: 0 0 .7rem; }
.sg .sg-label { font-weight: 600; }
.sg form { display: flex; flex-wrap: wrap; gap: 0 1.25rem; margin: 0 0 .6rem; }
.sg label { display: flex; flex: 1 1 13rem; align-items: center; gap: .5rem; min-width: 0;
  max-width: 20rem; margin: 0; font-size: .9rem; }
.sg label > span { flex: 0 1 6.5rem; min-width: 0; overflow-wrap: anywhere; }
.sg input { flex: 1 1 auto; min-width: 4rem; height: 2.5rem; margin: 0;
  accent-color: var(--focus); cursor: pointer; }
.sg output { min-width: 1.6em; text-align: right; font-variant-numeric: tabular-nums;
  font-weight: 600; }
.sg .sg-buttons { display: flex; flex: 1 1 100%; flex-wrap: wrap; gap: .4rem;
  margin: .3rem 0 0; }
.sg button { min-height: 2.5rem; padding: 0 .7rem; color: inherit; font: inherit;
  font-size: .9rem; background: transparent; border: 1px solid rgb(127 127 127 / .75);
  border-radius: .4rem; cursor: pointer; }
.sg button:hover { background: rgb(127 127 127 / .16); }
.sg :is(button, input):focus-visible { outline: 3px solid var(--focus); outline-offset: 2px;
  border-radius: .4rem; }
.sg table { width: 100%; max-width: 30rem; border-collapse: collapse; font-size: .9rem;
  font-variant-numeric: tabular-nums; margin: 0 0 .7rem; }
.sg :is(th, td) { padding: .15rem .3rem; border: 0; text-align: right; font-weight: 400;
  overflow-wrap: anywhere; }
.sg :is(th, td):first-child { padding-left: 0; text-align: left; }
.sg thead th { border-bottom: 1px solid rgb(127 127 127 / .75); }
.sg tfoot :is(th, td) { border-top: 1px solid rgb(127 127 127 / .75); font-weight: 600; }
.sg .sg-bar { display: block; height: .4rem; margin: .1rem 0 0 auto; background: var(--bar);
  border-radius: 2px; min-width: 1px; }
.sg .sg-bar[data-below] { background: none; border: 1px solid currentColor; }
@media (prefers-reduced-motion: no-preference) {
  .sg .sg-bar { transition: width .15s ease-out; }
}
@media (forced-colors: active) {
  .sg .sg-bar { forced-color-adjust: none; background: CanvasText; }
}
`;

function render({ model, el }) {
  const { label, players, most, coalitions, orders, examples } = model.get("data");
  const start = model.get("worths");

  const put = (worths) => {
    model.set("worths", worths);
    model.save_changes();
  };

  const sliders = coalitions.map((members, k) => {
    const title = members.map((i) => players[i]).join(" and ");
    const input = make("input", { type: "range", min: 0, max: most, step: 1 });
    const output = make("output");
    input.addEventListener("input", () => {
      put(model.get("worths").map((worth, j) => (j === k ? Number(input.value) : worth)));
    });
    const show = (worth) => {
      input.value = worth;
      input.setAttribute("aria-valuetext", `${title}: worth ${worth}`);
      output.textContent = String(worth);
    };
    return { show, node: make("label", {}, make("span", {}, title), input, output) };
  });
  const button = (title, worths) => {
    const node = make("button", { type: "button" }, title);
    node.addEventListener("click", () => put([...worths]));
    return node;
  };
  const buttons = make(
    "div",
    { class: "sg-buttons" },
    ...examples.map(([title, worths]) => button(title, worths)),
    button("reset", start),
  );
  const form = make("form", {}, ...sliders.map(({ node }) => node), buttons);
  form.addEventListener("submit", (event) => event.preventDefault());

  const head = make(
    "thead",
    {},
    make("tr", {}, ...["order of arrival", ...players].map((t) => make("th", { scope: "col" }, t))),
  );
  const rows = orders.map((order) => {
    const cells = players.map(() => make("td"));
    const title = order.map((i) => players[i]).join(", ");
    return { cells, line: make("tr", {}, make("th", { scope: "row" }, title), ...cells) };
  });
  const means = players.map(() => {
    const text = make("span");
    const bar = make("span", { class: "sg-bar" });
    return { text, bar, node: make("td", {}, text, bar) };
  });
  const foot = make(
    "tfoot",
    {},
    make("tr", {}, make("th", { scope: "row" }, "mean"), ...means.map(({ node }) => node)),
  );
  const table = make("table", {}, head, make("tbody", {}, ...rows.map(({ line }) => line)), foot);

  const say = make("p", { class: "sg-say", "aria-live": "polite", "aria-atomic": "true" });
  const root = make("div", { class: "sg", role: "group", "aria-label": label });
  root.append(
    make("style", {}, STYLE),
    make("p", { class: "sg-label" }, label),
    form,
    table,
    say,
  );
  el.append(root);

  function draw() {
    const worths = model.get("worths");
    const worth = [0, ...worths];
    sliders.forEach(({ show }, k) => show(worths[k]));
    const sums = players.map(() => 0);
    orders.forEach((order, row) => {
      let present = 0;
      for (const i of order) {
        const gain = worth[present | (1 << i)] - worth[present];
        present |= 1 << i;
        sums[i] += gain;
        rows[row].cells[i].textContent = fixed(gain, 0);
      }
    });
    const values = sums.map((sum) => sum / orders.length);
    means.forEach(({ text, bar }, i) => {
      text.textContent = fixed(values[i], 2);
      bar.style.width = `${Math.min(100, (100 * Math.abs(values[i])) / most)}%`;
      bar.toggleAttribute("data-below", values[i] < 0);
    });
    const listed = players.map((player, i) => `${player} ${fixed(values[i], 2)}`).join(", ");
    say.textContent =
      `Shapley values: ${listed}. They sum to ${worths.at(-1)}, the worth of all three.`;
  }

  model.on("change:worths", draw);
  draw();
  const unfollow = followTheme(root);

  return () => {
    unfollow();
    model.off("change:worths", draw);
    root.remove();
  };
}

export default { render };
