// What the modules of all components share. base.py puts it in front of a module's own text, so that
// what a page or a widget gets is one ES module without imports.

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Light text means a dark surface, whatever theme put it there: the book's, Jupyter's, Colab's.
function followTheme(root) {
  const prefers = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => {
    const rgb = getComputedStyle(root).color.match(/^rgba?\((\d+),? (\d+),? (\d+)/);
    const light = rgb && 0.2126 * rgb[1] + 0.7152 * rgb[2] + 0.0722 * rgb[3] > 127;
    root.dataset.mode = (rgb ? light : prefers.matches) ? "dark" : "light";
    root.style.colorScheme = root.dataset.mode;
  };
  const watch = new MutationObserver(paint);
  for (const node of [document.documentElement, document.body]) {
    watch.observe(node, { attributes: true });
  }
  prefers.addEventListener("change", paint);
  const frame = requestAnimationFrame(paint); // by then the caller has attached the root
  return () => {
    cancelAnimationFrame(frame);
    watch.disconnect();
    prefers.removeEventListener("change", paint);
  };
}

// As lib/teaching/components/base.py's `fixed` writes a number: with a true minus sign.
const fixed = (x, digits) => x.toFixed(digits).replace("-", "−");
