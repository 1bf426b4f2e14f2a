"""What all components share: state, the inline page, and the widget.

A component is a Python object with traits, and an ES module with anywidget's
``render({model, el})``. The traits are the same whether a page, a notebook or nobody shows them.

- In the published book (``EXECUTABLE_TRANSFORMER_STATIC=1``) and where anywidget is missing it is
  HTML: a fallback that can be read without JavaScript, the data as JSON, and the module with a
  small stand-in for the widget model. It asks no network and no kernel.
- In a live notebook with anywidget the same module runs as a widget, and its state and the
  traits here follow each other.
"""

from __future__ import annotations

import hashlib
import html
import importlib.util
import json
import math
import os
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, ClassVar

import traitlets

EXPORT = "export default { render };\n"
NAME = re.compile(r"[a-z][a-z0-9-]*")
WIDGET = "application/vnd.jupyter.widget-view+json"

# In dark mode pydata-sphinx-theme paints HTML outputs on a pale ground; a component follows the
# page instead. As specific as the theme's rule, and later in the page.
STYLE = (
    "<style>.component{overflow-wrap:break-word}"
    "html[data-theme=dark] .bd-content div.cell_output .text_html:has(div.component)"
    "{background:none;color:inherit;padding:0}</style>"
)

# Gives every fallback of this name, and only what is not alive yet, a model and a view. The view
# replaces the fallback once it is whole, so that a module that throws leaves something to read.
MOUNT = """
for (const host of document.querySelectorAll(SELECTOR + ":not([data-live])")) {
  host.dataset.live = "";
  const state = JSON.parse(host.querySelector('script[type="application/json"]').textContent);
  const heard = {};
  const model = {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      for (const listener of [...(heard[`change:${name}`] ?? [])]) listener();
    },
    save_changes() {},
    on: (event, listener) => (heard[event] ??= new Set()).add(listener),
    off: (event, listener) => heard[event]?.delete(listener),
  };
  const el = document.createElement("div");
  el.className = "component-view";
  host.model = model;
  host.dispose = render({ model, el });
  host.querySelector(".component-view").replaceWith(el);
}
"""


class Component(traitlets.HasTraits):
    """Base of the components: HTML for a page, a widget for a live notebook, traits for both.

    A subclass names its ES module (``MODULE``, a file beside this one) and the traits that the
    module may change (``STATE``), calls ``_ready`` at the end of its ``__init__``, and writes
    ``_fallback`` (HTML) and ``summary`` (one sentence). Its module must end with the line
    ``export default { render };`` and import nothing; what it shares with others, the files of
    ``SHARED``, stands before it.
    """

    SHARED: ClassVar[tuple[str, ...]] = ("common.js",)
    MODULE: ClassVar[str]
    STATE: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        super().__init__()
        self._widget: Any = None
        self._shown = 0

    def _ready(self, data: dict[str, Any], name: str | None) -> None:
        """Keep the data for the module; without a name, name the component by its content."""
        self._data = data
        if name is None:
            content = hashlib.sha256(to_json(self._page_state()).encode()).hexdigest()[:8]
            name = f"{Path(self.MODULE).stem.replace('_', '-')}-{content}"
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"component name: expected a lower-case letter, then letters, digits or '-', "
                f"got {name!r}"
            )
        self.name = name

    def _page_state(self) -> dict[str, Any]:
        return {"data": self._data, **{trait: getattr(self, trait) for trait in self.STATE}}

    def _fallback(self) -> str:
        raise NotImplementedError(f"{type(self).__name__} writes no fallback")

    def summary(self) -> str:
        """Return what is shown, in one sentence."""
        raise NotImplementedError(f"{type(self).__name__} writes no summary")

    def source(self) -> str:
        """Return the text of the ES module: what it shares with others, then its own."""
        return "\n".join(
            Path(__file__).with_name(name).read_text(encoding="utf-8")
            for name in (*self.SHARED, self.MODULE)
        )

    def html(self) -> str:
        """Return the component as HTML that needs nothing else; each call gives a new id."""
        self._shown += 1
        kind = type(self).__name__
        ident = self.name if self._shown == 1 else f"{self.name}-{self._shown}"
        module, export, rest = self.source().partition(EXPORT)
        if not export or rest:
            raise ValueError(f"{self.MODULE}: expected {EXPORT.strip()!r} as its last line")
        mount = MOUNT.replace("SELECTOR", json.dumps(f'[data-component="{kind}"][id="{ident}"]'))
        return (
            f'<div class="component" data-component="{kind}" id="{ident}">\n'
            f'{STYLE}<div class="component-view">{self._fallback()}</div>\n'
            f'<script type="application/json">{to_json(self._page_state())}</script>\n'
            f'<script type="module">\n{module}{mount}</script>\n'
            "</div>"
        )

    def widget(self) -> Any:
        """Return the anywidget view of this component, made at the first call.

        Its state and the traits here follow each other. Needs anywidget.
        """
        if self._widget is None:
            import anywidget

            synced = {
                trait: traitlets.Any(getattr(self, trait)).tag(sync=True) for trait in self.STATE
            }
            synced["data"] = traitlets.Dict(self._data).tag(sync=True)
            body = {"_esm": self.source(), "__module__": __name__, **synced}
            self._widget = type(type(self).__name__, (anywidget.AnyWidget,), body)()
            for trait in self.STATE:
                traitlets.link((self, trait), (self._widget, trait))
        return self._widget

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Return what a notebook shows: a widget in a live one with anywidget, and HTML always."""
        bundle = {"text/plain": self.summary(), "text/html": self.html()}
        if not is_static():
            view, _ = self.widget()._repr_mimebundle_()
            bundle[WIDGET] = view[WIDGET]
        return bundle

    def __repr__(self) -> str:
        return self.summary()


def is_static() -> bool:
    """Return whether components are HTML only: in the book's build, or without anywidget."""
    if os.environ.get("EXECUTABLE_TRANSFORMER_STATIC") == "1":
        return True
    return importlib.util.find_spec("anywidget") is None


def to_json(value: Any) -> str:
    """Return compact JSON that may stand inside a ``<script>``: no text in it can close one."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def fixed(number: float, digits: int) -> str:
    """Format like JavaScript's ``toFixed`` (halves away from zero), with a true minus sign."""
    if not math.isfinite(number):
        raise ValueError(f"a number to show: expected a finite one, got {number}")
    rounded = Decimal(number).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{rounded:f}".replace("-", "−")


def one_of(what: str, value: Any, allowed: Any) -> Any:
    """Return the member of ``allowed`` that equals ``value``, or raise ValueError."""
    for member in allowed:
        if type(value) is not bool and value == member:
            return member
    listed = (
        f"0 to {len(allowed) - 1}" if isinstance(allowed, range) else ", ".join(map(repr, allowed))
    )
    raise ValueError(f"{what}: expected one of {listed}, got {value!r}")


def escape(text: str) -> str:
    """Return text as HTML, in content or in a quoted attribute."""
    return html.escape(text, quote=True)
