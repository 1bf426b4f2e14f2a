// Whatever scrolls sideways can be reached by the keyboard, and nothing else is a stop of the tab key.

const BOXES = [
  "div.math > mjx-container[display='true']",
  ".pst-scrollable-table-container",
  "div.highlight pre",
].join(",");

function name(box) {
  if (box.matches("mjx-container")) return "Formula, scrolls sideways";
  if (box.matches("pre")) return "Code, scrolls sideways";
  return "Table, scrolls sideways";
}

// On a phone a formula that is a little too wide is set smaller; below this it scrolls instead.
const SMALLEST = 0.85;

function fit() {
  for (const formula of document.querySelectorAll("div.math > mjx-container[display='true']")) {
    formula.style.removeProperty("--fit");
    if (!matchMedia("(max-width: 600px)").matches) continue;
    const share = formula.clientWidth / formula.scrollWidth;
    if (share < 1) formula.style.setProperty("--fit", Math.max(SMALLEST, Math.floor(1000 * share) / 1000));
  }
}

function markScrollable() {
  fit();
  for (const formula of document.querySelectorAll("p mjx-container, li mjx-container, td mjx-container, dd mjx-container")) {
    if (formula.getAttribute("display") === "true" || formula.closest("table")) continue;
    const room = formula.closest("p, li, dd")?.clientWidth ?? 0;
    formula.classList.remove("scrolls-inline");
    if (room && formula.getBoundingClientRect().width > room) formula.classList.add("scrolls-inline");
  }
  for (const box of document.querySelectorAll(`${BOXES}, mjx-container.scrolls-inline`)) {
    // A pixel is rounding, nothing to scroll to: neither a stop of the tab key nor a region that needs one.
    const over = box.scrollWidth - box.clientWidth;
    box.classList.toggle("a-pixel-over", over === 1);
    if (over > 1) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", name(box));
    } else if (box.tabIndex === 0) {
      box.removeAttribute("tabindex");
      box.removeAttribute("role");
      box.removeAttribute("aria-label");
    }
  }
}

let waiting;
function soon() {
  clearTimeout(waiting);
  waiting = setTimeout(markScrollable, 80);
}

addEventListener("resize", soon);
document.addEventListener("toggle", soon, true);
document.addEventListener("click", soon);
addEventListener("load", () => {
  markScrollable();
  window.MathJax?.startup?.promise?.then(markScrollable);
});
