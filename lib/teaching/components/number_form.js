// What the modules of the forms share. number_form.py puts it between common.js and their own text.
//
// The model of a form holds
//   data    {label, groups: [[title, [field]]], presets: [[name, sizes]], titles: [title]}, and what
//           its own module needs. A field is [title, least, most] or [title, [[number, text]]].
//   sizes   one integer a field, in the order of the groups: both sides may change them.

const STYLE = `
.nf { --bar: #0072b2; --focus: #0072b2; color: inherit; line-height: 1.4;
  overflow-wrap: break-word; }
.nf[data-mode=dark] { --bar: #56b4e9; --focus: #56b4e9; }
.nf * { box-sizing: border-box; }
.nf p { margin: 0 0 .7rem; }
.nf .nf-label { font-weight: 600; }
.nf :is(fieldset, .nf-fields) { display: grid; gap: .4rem 1rem; min-width: 0; max-width: 46rem;
  grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); margin: 0 0 .5rem;
  padding: 0; border: 0; }
.nf legend { float: none; width: auto; margin: 0 0 .2rem; padding: 0; font-size: .9rem;
  font-weight: 600; }
.nf label { display: flex; flex-direction: column; justify-content: end; min-width: 0; margin: 0;
  font-size: .9rem; }
.nf :is(input, select) { height: 2.5rem; margin: 0; padding: 0 .5rem; color: inherit;
  font: inherit; font-variant-numeric: tabular-nums; background: transparent;
  border: 1px solid rgb(127 127 127 / .9); border-radius: .4rem; }
.nf select option { color: #000; background: #fff; }
.nf[data-mode=dark] select option { color: #fff; background: #222; }
.nf .nf-buttons { display: flex; flex-wrap: wrap; gap: .4rem; margin: 0 0 .7rem; }
.nf button { min-height: 2.5rem; padding: 0 .7rem; color: inherit; font: inherit;
  font-size: .9rem; background: transparent; border: 1px solid rgb(127 127 127 / .9);
  border-radius: .4rem; cursor: pointer; }
.nf button:hover { background: rgb(127 127 127 / .16); }
.nf :is(button, input, select):focus-visible { outline: 3px solid var(--focus);
  outline-offset: 2px; }
.nf table { width: 100%; max-width: 46rem; border-collapse: collapse; font-size: .9rem;
  font-variant-numeric: tabular-nums; margin: 0 0 .7rem; }
.nf :is(th, td) { padding: .15rem .3rem; border: 0; text-align: right; font-weight: 400;
  vertical-align: baseline; }
.nf :is(th, td):first-child { width: 48%; padding-left: 0; text-align: left; }
.nf tbody tr { border-bottom: 1px solid rgb(127 127 127 / .4); }
.nf .nf-bar { display: block; height: .4rem; margin: .1rem 0 0; background: var(--bar);
  border-radius: 2px; min-width: 1px; }
.nf .nf-bar[hidden] { display: none; }
@media (forced-colors: active) {
  .nf .nf-bar { forced-color-adjust: none; background: CanvasText; }
}
`;

// As lib/teaching/components/number_form.py's `scaled` writes a count.
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

// Renders the form. answer(sizes, data) gives what follows from the numbers: {texts: {title: text},
// shares: {title: part of the whole, for a bar}, sentence}. A title without a text gets a dash.
function numberForm({ model, el }, answer) {
  const data = model.get("data");
  const start = model.get("sizes");

  const put = (sizes) => {
    model.set("sizes", sizes);
    model.save_changes();
  };

  const inputs = [];
  const field = ([title, least, most]) => {
    const k = inputs.length;
    const options = most === undefined ? least : null;
    const input = options
      ? make("select", {}, ...options.map(([value, text]) => make("option", { value }, text)))
      : make("input", { type: "number", min: least, max: most, inputmode: "numeric" });
    input.addEventListener("change", () => {
      const old = model.get("sizes");
      const asked = input.value === "" ? old[k] : Math.round(Number(input.value));
      const value = options ? asked : Math.min(most, Math.max(least, asked));
      input.value = value; // a model that finds nothing changed does not draw
      put(old.map((size, j) => (j === k ? value : size)));
    });
    inputs.push(input);
    return make("label", {}, make("span", {}, title), input);
  };
  const groups = data.groups.map(([title, fields]) =>
    title
      ? make("fieldset", {}, make("legend", {}, title), ...fields.map(field))
      : make("div", { class: "nf-fields" }, ...fields.map(field)),
  );
  const buttons = [...data.presets, ["reset", start]].map(([title, sizes]) => {
    const node = make("button", { type: "button" }, title);
    node.addEventListener("click", () => put(sizes));
    return node;
  });
  const rows = data.titles.map((title) => {
    const text = make("span");
    const bar = make("span", { class: "nf-bar" });
    const cell = make("td", { "data-row": title }, text, bar);
    return { title, text, bar, line: make("tr", {}, make("th", { scope: "row" }, title), cell) };
  });
  const say = make("p", { class: "nf-say", "aria-live": "polite", "aria-atomic": "true" });
  const root = make("div", { class: "nf", role: "group", "aria-label": data.label });
  root.append(
    make("style", {}, STYLE),
    make("p", { class: "nf-label" }, data.label),
    ...groups,
    make("div", { class: "nf-buttons" }, ...buttons),
    say,
    make("table", {}, make("tbody", {}, ...rows.map(({ line }) => line))),
  );
  el.append(root);

  function draw() {
    const sizes = model.get("sizes");
    inputs.forEach((input, k) => (input.value = sizes[k]));
    const { texts, shares, sentence } = answer(sizes, data);
    for (const { title, text, bar } of rows) {
      text.textContent = texts[title] ?? "–";
      bar.hidden = !(title in shares);
      if (!bar.hidden) bar.style.width = `${100 * shares[title]}%`;
    }
    say.textContent = sentence;
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
