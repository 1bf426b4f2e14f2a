"""NumberForm: whole numbers to set, presets, and the texts that follow from the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import traitlets

from lib.teaching.components.base import Component, escape, fixed

STATIC_STYLE = """<style>
.component .nf-static{border-collapse:collapse;font-size:.9rem;margin:0 0 .75rem}
.component .nf-static caption{caption-side:top;text-align:left;color:inherit;padding:0 0 .4rem;
overflow-wrap:anywhere}
.component .nf-static :is(th,td){padding:.15rem min(.6rem,1.4vw);text-align:right;font-weight:400;
overflow-wrap:anywhere}
.component .nf-static :is(th,td):first-child{text-align:left}
.component .nf-static tr{border-bottom:1px solid rgb(127 127 127 / .4)}
</style>"""


class Number(NamedTuple):
    """A field for any integer from ``least`` to ``most``."""

    title: str
    least: int
    most: int

    def takes(self, number: int) -> bool:
        return self.least <= number <= self.most

    def expected(self) -> str:
        return f"{self.title} from {self.least} to {self.most}"


class Choice(NamedTuple):
    """A field for one of a few integers: pairs of each and the text that the reader sees for it."""

    title: str
    options: tuple[tuple[int, str], ...]

    def takes(self, number: int) -> bool:
        return number in dict(self.options)

    def expected(self) -> str:
        return f"{self.title} {' or '.join(str(number) for number in sorted(dict(self.options)))}"


class NumberForm(Component):
    """Base of the components that are a form of integers and a table of what follows from them.

    A subclass gives ``GROUPS``, ``PRESETS`` and ``LABEL``, writes ``shown`` and ``_sentence``, and
    adds to ``_page_data`` what its module needs. The module is one call of ``numberForm``
    (number_form.js) and a function that computes the same texts.

    Args:
        presets: for each name one integer a field, in the order of ``fields()``, as buttons.
        sizes: where to begin; by default the second preset, or the only one.
        label: what the reader sees as the title; by default ``LABEL``.
        name: the id in the page; by default made from the content.

    Attributes:
        sizes: what is shown, a list with one integer a field. Set it, observe it.

    Raises:
        ValueError: one line, with expected and got, if a field does not take its number.
    """

    SHARED = (*Component.SHARED, "number_form.js")
    STATE = ("sizes",)
    GROUPS: ClassVar[Mapping[str, Sequence[Number | Choice]]]  # "" is a group without a legend
    PRESETS: ClassVar[Mapping[str, Sequence[int]]]
    LABEL: ClassVar[str]

    sizes = traitlets.Any()

    def __init__(
        self,
        presets: Mapping[str, Sequence[int]] | None = None,
        *,
        sizes: Sequence[int] | None = None,
        label: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.label = self.LABEL if label is None else label
        if not isinstance(self.label, str) or not self.label.strip():
            raise ValueError(f"label: expected a text, got {label!r}")
        given = self.PRESETS if presets is None else presets
        if not given:
            raise ValueError("presets: expected one or more, got none")
        self.presets = {what: self._taken(f"presets[{what!r}]", of) for what, of in given.items()}
        self.sizes = list(self.presets.values())[:2][-1] if sizes is None else sizes
        self._ready(self._page_data(), name)

    @classmethod
    def fields(cls) -> tuple[Number | Choice, ...]:
        """Return the fields of all groups, in the order of ``sizes``."""
        return tuple(field for group in cls.GROUPS.values() for field in group)

    @classmethod
    def _taken(cls, what: str, given: Any) -> list[int]:
        fields = cls.fields()
        fits = isinstance(given, Sequence) and len(given) == len(fields)
        if not fits or any(type(x) is not int for x in given):  # no bool, and no text
            raise ValueError(f"{what}: expected {len(fields)} integers, got {given!r}")
        for field, number in zip(fields, given, strict=True):
            if not field.takes(number):
                raise ValueError(f"{what}: expected {field.expected()}, got {number}")
        return list(given)

    @traitlets.validate("sizes")
    def _valid_sizes(self, proposal: Any) -> list[int]:
        return self._taken("sizes", proposal["value"])

    def _now(self, sizes: Sequence[int] | None) -> list[int]:
        return self.sizes if sizes is None else self._taken("sizes", sizes)

    def shown(self, sizes: Sequence[int] | None = None) -> dict[str, str]:
        """Return the texts that the component shows, by title, for other sizes than its own too."""
        raise NotImplementedError(f"{type(self).__name__} shows nothing")

    def _sentence(self) -> str:
        raise NotImplementedError(f"{type(self).__name__} writes no sentence")

    def summary(self) -> str:
        return f"{self.label}: {self._sentence()}"

    def _page_data(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "groups": [[title, [list(f) for f in group]] for title, group in self.GROUPS.items()],
            "presets": [[what, of] for what, of in self.presets.items()],
            "titles": list(self.shown()),
        }

    def _fallback(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{title}</th><td>{text}</td></tr>'
            for title, text in self.shown().items()
        )
        given = ", ".join(
            f"{field.title} {number:,}"
            for field, number in zip(self.fields(), self.sizes, strict=True)
        )
        return (
            f'{STATIC_STYLE}<table class="nf-static"><caption>'
            f"<strong>{escape(self.label)}</strong>: {given}.</caption>"
            f"<tbody>{rows}</tbody></table>"
            f"<p>{escape(self._sentence())}</p>"
            "<noscript><p>With JavaScript every number can be changed.</p></noscript>"
        )


def scaled(number: float, step: int, unit: str) -> str:
    """Format a count with two decimals and the prefix that leaves it below 1,000 or 1,024.

    >>> scaled(123_456, 1000, "FLOP"), scaled(2**31, 1024, "B")
    ('123.46 kFLOP', '2.00 GiB')
    """
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z")
    power = 0
    value = float(number)
    while value >= step and power < len(prefixes) - 1:
        value, power = value / step, power + 1
    prefix = prefixes[power]
    if step == 1024 and prefix:
        prefix = f"{prefix.upper()}i"
    return f"{fixed(value, 2)} {prefix}{unit}"
