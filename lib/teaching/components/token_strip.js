// TokenStrip: what happens to the tokens of a sentence, one token and one step at a time.
//
// An ES module with anywidget's render({ model, el }), behind common.js. The model holds
//   data  {label, steps: {step: {tokens, states, says, sentences}}, n of each,
//         candidates: {position: [[token, probability, as shown]]}, replaced: [n] or []};
//         all texts and numbers are Python's, as they are shown
//   step, position  what is shown: a reader changes them here, Python from its side.

const STYLE = `
.tk { --focus: #0072b2; --gone: #d55e00; --same: #009e73; --bar: 148 89 232; color: inherit;
  line-height: 1.4; overflow-wrap: break-word; }
.tk[data-mode=dark] { --focus: #56b4e9; }
.tk * { box-sizing: border-box; }
.tk p { margin: 0 0 .6rem; }
.tk .tk-label { font-weight: 600; }
.tk form, .tk .tk-buttons { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem; }
.tk form { margin: 0 0 .9rem; }
.tk fieldset { border: 0; margin: 0; padding: 0; min-width: 0; }
.tk legend { float: left; padding: .55rem 0; margin: 0 .5rem 0 0; width: auto; font-size: .9rem; }
.tk .tk-choices { display: flex; flex-wrap: wrap; gap: .25rem; }
.tk .tk-choice { position: relative; margin: 0; }
.tk .tk-choice input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0;
  opacity: 0; cursor: pointer; }
.tk .tk-choice span, .tk button { display: inline-flex; align-items: center;
  justify-content: center; min-width: 2.5rem; min-height: 2.5rem; padding: 0 .7rem;
  border: 1px solid rgb(127 127 127 / .75); border-radius: .4rem; background: transparent;
  color: inherit; font: inherit; font-size: .9rem; }
.tk .tk-choice input:checked + span { background: rgb(127 127 127 / .22);
  border: 2px solid currentColor; font-weight: 700; }
.tk button { cursor: pointer; }
.tk button:hover, .tk .tk-choice:hover span { background: rgb(127 127 127 / .16); }
.tk button:focus-visible, .tk .tk-choice input:focus-visible + span,
.tk .tk-token:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.tk .tk-tokens { display: flex; flex-wrap: wrap; gap: .5rem .2rem; margin: 0 0 .9rem; }
.tk .tk-token { min-width: 2.2rem; min-height: 3.6rem; max-width: 100%; text-align: center;
  cursor: pointer; border-radius: .35rem; user-select: none; touch-action: manipulation; }
.tk .tk-glyph { display: block; padding: .1rem .3rem; border-radius: .3rem; min-height: 2rem;
  border: 2px solid transparent; overflow-wrap: anywhere;
  font-family: var(--pst-font-family-monospace, ui-monospace, monospace); font-size: 1.05rem; }
.tk .tk-says { display: block; font-size: .75rem; line-height: 1.15; min-height: 1.15em;
  font-variant-numeric: tabular-nums; }
.tk .tk-track { display: block; height: 5px; margin: 2px auto; border-radius: 1px;
  background: rgb(127 127 127 / .16); }
.tk .tk-tokens .tk-track { width: 2rem; }
.tk .tk-bar { display: block; height: 100%; width: calc(100% * var(--p, 0));
  background: rgb(var(--bar)); border-radius: 1px; }
.tk [data-state=masked] .tk-glyph { border: 2px dashed rgb(127 127 127 / .9);
  background: repeating-linear-gradient(135deg, rgb(127 127 127 / .22) 0 2px, transparent 2px 6px); }
.tk [data-state=kept] .tk-glyph, .tk [data-state=random] .tk-glyph {
  border: 2px dashed rgb(127 127 127 / .9); }
.tk [data-state=replaced] .tk-glyph { border: 2px dashed var(--gone); }
.tk [data-state=hit] .tk-glyph { border: 2px dotted var(--same); }
.tk .tk-token:hover .tk-glyph { background: rgb(127 127 127 / .16); }
.tk .tk-token[aria-selected=true] .tk-glyph { outline: 3px solid var(--focus);
  outline-offset: 1px; font-weight: 700; }
.tk .tk-say { min-height: 5.6em; }
.tk .tk-guesses { display: grid; grid-template-columns: minmax(4rem, max-content) 1fr max-content;
  gap: .15rem .6rem; align-items: center; max-width: 26rem; min-height: 7.2rem; margin: 0 0 .9rem;
  align-content: start; font-size: .9rem; font-variant-numeric: tabular-nums; }
.tk .tk-guesses .tk-track { width: 100%; height: 9px; }
@media (prefers-reduced-motion: no-preference) {
  .tk .tk-bar { transition: width .15s ease-out; }
}
@media (forced-colors: active) {
  .tk .tk-bar { forced-color-adjust: none; }
}
`;

function render({ model, el }) {
  const { label, steps, candidates, replaced } = model.get("data");
  const names = Object.keys(steps);
  const n = steps.original.tokens.length;
  const start = { step: model.get("step"), position: model.get("position") };
  let preview = null; // the token under the mouse, until the mouse leaves

  const put = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const track = (p) => {
    const bar = make("span", { class: "tk-bar" });
    bar.style.setProperty("--p", p);
    return make("span", { class: "tk-track", "aria-hidden": true }, bar);
  };

  const boxes = names.map((value) => {
    const input = make("input", { type: "radio", name: "step", value });
    input.addEventListener("change", () => put("step", value));
    return input;
  });
  const choices = make("span", { class: "tk-choices" });
  boxes.forEach((box, i) =>
    choices.append(make("label", { class: "tk-choice" }, box, make("span", {}, names[i]))),
  );
  const form = make("form", {}, make("fieldset", {}, make("legend", {}, "Step"), choices));
  form.addEventListener("submit", (event) => event.preventDefault());

  const cells = steps.original.tokens.map((_, j) => {
    const glyph = make("span", { class: "tk-glyph" });
    const says = make("span", { class: "tk-says" });
    const judge = replaced.length ? track(replaced[j]) : make("span");
    // The space keeps token and number apart where they are read as one text, as in the label.
    const cell = make("div", { class: "tk-token", role: "option" }, glyph, judge, " ", says);
    cell.dataset.index = j;
    return { cell, glyph, says, judge };
  });
  const list = make("div", {
    class: "tk-tokens",
    role: "listbox",
    "aria-orientation": "horizontal",
    "aria-label": "Tokens. Choose one to read what becomes of it",
  });
  list.append(...cells.map(({ cell }) => cell));

  const say = make("p", { class: "tk-say", "aria-live": "polite", "aria-atomic": "true" });
  const guesses = make("div", { class: "tk-guesses", "aria-hidden": true }); // the sentence has them
  const buttons = make("div", { class: "tk-buttons" });
  const button = (text, action) => {
    const node = make("button", { type: "button" }, text);
    node.addEventListener("click", action);
    buttons.append(node);
  };
  button("← previous", () => put("position", (model.get("position") + n - 1) % n));
  button("next →", () => put("position", (model.get("position") + 1) % n));
  button("reset", () => {
    Object.entries(start).forEach(([name, value]) => model.set(name, value));
    model.save_changes();
  });

  const root = make("div", { class: "tk", role: "group", "aria-label": label });
  root.append(make("style", {}, STYLE), make("p", { class: "tk-label" }, label), form, list, say);
  if (Object.keys(candidates).length) root.append(guesses);
  root.append(buttons);
  el.append(root);

  function draw() {
    const step = model.get("step");
    const { tokens, states, says, sentences } = steps[step];
    const index = preview ?? model.get("position");
    boxes.forEach((box, i) => (box.checked = names[i] === step));
    cells.forEach((part, j) => {
      const chosen = j === model.get("position");
      part.glyph.textContent = tokens[j];
      part.says.textContent = says[j];
      part.judge.style.visibility = step === "judged" ? "visible" : "hidden";
      part.cell.dataset.state = states[j];
      part.cell.setAttribute("aria-selected", chosen);
      // The name begins with what is seen: speech control goes by it.
      const state = says[j] && step !== "judged" ? "" : `, ${states[j]}`;
      part.cell.setAttribute("aria-label", `${tokens[j]} ${says[j]}${state}, position ${j}`);
      part.cell.tabIndex = chosen ? 0 : -1;
    });
    say.textContent = sentences[index];
    guesses.replaceChildren();
    for (const [token, p, shown] of step === "original" ? [] : (candidates[index] ?? [])) {
      guesses.append(make("span", {}, token), track(p), make("span", {}, shown));
    }
  }

  // The token under, over or beside another one, as the lines happen to be broken.
  function across(index, direction) {
    const places = cells.map(({ cell }) => cell.getBoundingClientRect());
    const from = places[index];
    let best = index;
    let least = Infinity;
    places.forEach((box, j) => {
      const down = (box.top - from.top) * direction;
      const cost = 1000 * down + Math.abs(box.left + box.right - from.left - from.right);
      if (down > 4 && cost < least) [best, least] = [j, cost];
    });
    return best;
  }

  function pin(index) {
    preview = null;
    put("position", index);
    draw();
  }
  const indexOf = (event) => {
    const cell = event.target.closest(".tk-token");
    return cell && list.contains(cell) ? Number(cell.dataset.index) : null;
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
    const at = model.get("position");
    const moves = {
      ArrowLeft: () => Math.max(at - 1, 0),
      ArrowRight: () => Math.min(at + 1, n - 1),
      ArrowUp: () => across(at, -1),
      ArrowDown: () => across(at, 1),
      Home: () => 0,
      End: () => n - 1,
    };
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    pin(moves[event.key]());
    cells[model.get("position")].cell.focus();
  });
  list.addEventListener("pointerover", (event) => {
    const index = indexOf(event);
    if (event.pointerType === "mouse" && index !== null) hover(index);
  });
  list.addEventListener("pointerleave", () => hover(null));

  model.on("change:step", draw);
  model.on("change:position", draw);
  draw();
  const unfollow = followTheme(root);

  return () => {
    unfollow();
    model.off("change:step", draw);
    model.off("change:position", draw);
    root.remove();
  };
}

export default { render };
