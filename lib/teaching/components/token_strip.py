"""TokenStrip: what happens to the tokens of a sentence, one token and one step at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import traitlets

from lib.teaching.components.attention_rows import VISIBLE
from lib.teaching.components.base import Component, escape, fixed, one_of

STEPS = ("original", "masked", "sampled", "judged")
# What has become of a token, as it is written below it; a plain token has nothing written there.
SAYS = {
    "plain": "",
    "masked": "hidden",
    "random": "random",
    "kept": "kept",
    "replaced": "replaced",
    "hit": "same again",
}
STATIC_STYLE = """<style>
.component .tk-static{display:flex;flex-wrap:wrap;gap:.3rem .2rem;margin:0 0 .75rem;padding:0}
.component .tk-static li{list-style:none;min-width:2.2rem;max-width:100%;text-align:center;
margin:0;line-height:1.4;overflow-wrap:anywhere}
.component .tk-static b,.component .tk-static small{display:block;font-size:.75rem}
.component .tk-static b{font:1.05rem monospace;min-height:1.6rem;border-radius:.3rem;
border:2px solid transparent;padding:.1rem .3rem}
.component .tk-static b.changed{border:2px dashed currentColor}
</style>"""


class TokenStrip(Component):
    """Show a sentence as it is hidden, guessed and judged, with the numbers of a real model.

    The steps are *original*; *masked*, what a masked language model reads; *sampled*, what stands
    there once its guesses are put in; *judged*, the same with a discriminator's verdict. A strip
    has the steps that it is given numbers for, so BERT's masking needs the first two alone. The
    reader chooses a step and points at a token, taps it or moves to it with the arrow keys: below
    stand, in words and as bars, what has become of it, what the generator thought of, and what the
    discriminator thinks.

    Args:
        tokens: n non-empty strings, the original.
        masked: n strings, the generator's input: a mask, a random token, or the same again.
        selected: n booleans, the tokens that were chosen to be guessed; by default those that
            differ from the original.
        sampled: n strings, the discriminator's input. Only selected tokens may differ.
        candidates: for some or all selected tokens, counted from 0, the generator's best guesses
            as (token, probability), the likeliest first.
        replaced: n numbers from 0 to 1, the probability that a discriminator gives to "replaced".
        mask_token: which string in ``masked`` hides a token; another that differs is a random one.
        label: what the reader sees as the title.
        step, position: where to begin; by default the last step, and the first selected token.
        name: the id in the page; by default made from the content.

    Attributes:
        step, position: what is shown. Set them, observe them.
        state: of the token shown, one of "plain", "masked", "random", "kept", "replaced" and "hit",
            a guess that is the original. Read only.

    Raises:
        ValueError: one line, with expected and got, if an argument does not fit the others.
    """

    MODULE = "token_strip.js"
    STATE = ("step", "position")

    step = traitlets.Any()
    position = traitlets.Any()
    state = traitlets.Unicode(read_only=True)

    def __init__(
        self,
        tokens: Sequence[str],
        *,
        masked: Sequence[str] | None = None,
        selected: Sequence[bool] | None = None,
        sampled: Sequence[str] | None = None,
        candidates: Mapping[int, Sequence[tuple[str, float]]] | None = None,
        replaced: Sequence[float] | None = None,
        mask_token: str = "[MASK]",
        label: str = "A sentence, token by token",
        step: str | None = None,
        position: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.tokens = _strings("tokens", tokens)
        n = len(self.tokens)
        if sampled is not None and masked is None:
            raise ValueError("sampled: expected `masked` beside it, got none")
        if replaced is not None and sampled is None:
            raise ValueError("replaced: expected `sampled` beside it, got none")
        self.masked = self.tokens if masked is None else _strings("masked", masked, n)
        self.selected = _selected(selected, self.tokens, self.masked)
        self.sampled = self.tokens if sampled is None else _strings("sampled", sampled, n)
        _unselected_stay("masked", self.tokens, self.masked, self.selected)
        _unselected_stay("sampled", self.tokens, self.sampled, self.selected)
        self.candidates = _candidates(candidates or {}, self.selected)
        self.replaced = None if replaced is None else _probabilities(replaced, n)
        if not isinstance(mask_token, str) or not mask_token:
            raise ValueError(f"mask_token: expected a non-empty string, got {mask_token!r}")
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"label: expected a text, got {label!r}")
        self.mask_token, self.label = mask_token, label

        given = (True, masked is not None, sampled is not None, replaced is not None)
        self.steps = tuple(s for s, there in zip(STEPS, given, strict=True) if there)
        self.step = self.steps[-1] if step is None else step
        first = self.selected.index(True) if any(self.selected) else 0
        self.position = first if position is None else position
        self._follow()
        self.observe(lambda change: self._follow(), names=list(self.STATE))
        self._ready(self._page_data(), name)

    @traitlets.validate("step")
    def _valid_step(self, proposal: Any) -> str:
        return one_of("step", proposal["value"], self.steps)

    @traitlets.validate("position")
    def _valid_position(self, proposal: Any) -> int:
        return one_of("position", proposal["value"], range(len(self.tokens)))

    def readout(self, step: str, position: int) -> dict[str, Any]:
        """Return what the component shows of one token in one step.

        ``token`` as it stands there, ``state``, ``says`` what is written below it, ``sentence``
        all in words; ``candidates`` as (token, probability), empty before the masked step; and
        ``replaced`` the discriminator's probability, None before the judged step.
        """
        step = one_of("step", step, self.steps)
        j = one_of("position", position, range(len(self.tokens)))
        state = self._state(step, j)
        token = {"original": self.tokens, "masked": self.masked}.get(step, self.sampled)[j]
        replaced = self.replaced[j] if step == "judged" else None
        return {
            "token": token,
            "state": state,
            "says": SAYS[state] if replaced is None else fixed(replaced, 2),
            "candidates": [] if step == "original" else self.candidates.get(j, []),
            "replaced": replaced,
            "sentence": self._sentence(step, j, state, token),
        }

    def summary(self) -> str:
        said = self.readout(self.step, self.position)["sentence"]
        return f"{self.label} ({len(self.tokens)} tokens, step {self.step}): {said}"

    def _state(self, step: str, j: int) -> str:
        if step == "original" or not self.selected[j]:
            return "plain"
        if step == "masked":
            if self.masked[j] == self.mask_token:
                return "masked"
            return "kept" if self.masked[j] == self.tokens[j] else "random"
        return "hit" if self.sampled[j] == self.tokens[j] else "replaced"

    def _sentence(self, step: str, j: int, state: str, token: str) -> str:
        here = f"“{_visible(self.tokens[j])}” at {j}"
        now = f"“{_visible(token)}”"
        said = {
            "plain": f"{here} stands as it was written.",
            "masked": f"{here} is hidden, and has to be guessed.",
            "random": f"{here} has to be guessed; a random {now} stands in its place.",
            "kept": f"{here} has to be guessed, though it stands there itself.",
            "replaced": f"{here} was hidden; the generator drew {now}: replaced.",
            "hit": f"{here} was hidden; the generator drew the same again, so the label is "
            "“original”.",
        }[state]
        if step != "original" and self.candidates.get(j):
            best = [f"“{_visible(t)}” ({fixed(p, 3)})" for t, p in self.candidates[j][:3]]
            *first, last = best
            listed = f"{', '.join(first)} and {last}" if first else last
            guesser = "generator" if "sampled" in self.steps else "model"  # of BERT there is one
            said += f" The {guesser} thinks of {listed}."
        if step == "judged":
            p = self.replaced[j]
            right = (p > 0.5) == (state == "replaced")
            said += (
                f" The discriminator gives “replaced” a probability of {fixed(p, 3)}: "
                f"{'right' if right else 'wrong'} at the threshold one half."
            )
        return said

    def _follow(self) -> None:
        self.set_trait("state", self.readout(self.step, self.position)["state"])

    def _page_data(self) -> dict[str, Any]:
        steps = {}
        for step in self.steps:
            read = [self.readout(step, j) for j in range(len(self.tokens))]
            steps[step] = {
                "tokens": [_visible(one["token"]) for one in read],
                "states": [one["state"] for one in read],
                "says": [one["says"] for one in read],
                "sentences": [one["sentence"] for one in read],
            }
        guesses = {
            str(j): [[_visible(t), round(p, 3), fixed(p, 3)] for t, p in listed]
            for j, listed in self.candidates.items()
        }
        judged = [] if self.replaced is None else [round(p, 3) for p in self.replaced]
        return {"label": self.label, "steps": steps, "candidates": guesses, "replaced": judged}

    def _fallback(self) -> str:
        rows = []
        for step in self.steps:
            cells = []
            for j in range(len(self.tokens)):
                read = self.readout(step, j)
                changed = ' class="changed"' if read["state"] != "plain" else ""
                glyph = escape(_visible(read["token"]))
                says = escape(read["says"]) or "&nbsp;"
                cells.append(f"<li><b{changed}>{glyph}</b><small>{says}</small></li>")
            rows.append(f'<p>{step}</p><ul class="tk-static">{"".join(cells)}</ul>')
        said = self.readout(self.step, self.position)["sentence"]
        return (
            f"{STATIC_STYLE}<p><strong>{escape(self.label)}</strong></p>{''.join(rows)}"
            f"<p>{escape(said)}</p>"
            "<noscript><p>With JavaScript every step and token can be chosen.</p></noscript>"
        )


def _visible(token: str) -> str:
    return token.translate(VISIBLE)


def _strings(what: str, given: Sequence[str], n: int | None = None) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise ValueError(f"{what}: expected a non-empty list of strings, got {given!r}")
    for j, token in enumerate(given):
        if not isinstance(token, str) or not token:
            raise ValueError(f"{what}[{j}]: expected a non-empty string, got {token!r}")
    if n is not None and len(given) != n:
        raise ValueError(f"{what}: expected {n} strings as in tokens, got {len(given)}")
    return list(given)


def _numbers(given: Any) -> list[Any]:
    return given.tolist() if isinstance(given, torch.Tensor) else list(given)


def _selected(given: Any, tokens: list[str], masked: list[str]) -> list[bool]:
    if given is None:
        return [a != b for a, b in zip(tokens, masked, strict=True)]
    values = _numbers(given)
    if len(values) != len(tokens) or not all(isinstance(value, bool) for value in values):
        raise ValueError(f"selected: expected {len(tokens)} booleans, got {values!r}")
    return values


def _unselected_stay(what: str, tokens: list[str], given: list[str], selected: list[bool]) -> None:
    for j, (old, new) in enumerate(zip(tokens, given, strict=True)):
        if old != new and not selected[j]:
            raise ValueError(f"{what}[{j}]: expected {old!r}, as it is not selected, got {new!r}")


def _candidates(given: Any, selected: list[bool]) -> dict[int, list[tuple[str, float]]]:
    if not isinstance(given, Mapping):
        raise ValueError(f"candidates: expected a dict {{position: guesses}}, got {given!r}")
    checked = {}
    for j, guesses in given.items():
        where = f"candidates[{j!r}]"
        if type(j) is not int or not 0 <= j < len(selected) or not selected[j]:
            raise ValueError(f"{where}: expected the position of a selected token")
        pairs = [(token, float(p)) for token, p in guesses]
        if not all(isinstance(token, str) and token for token, _ in pairs):
            raise ValueError(f"{where}: expected non-empty strings, got {guesses!r}")
        chances = [p for _, p in pairs]
        if not pairs or not all(0 <= p <= 1 for p in chances) or sum(chances) > 1 + 1e-5:
            raise ValueError(
                f"{where}: expected probabilities that sum to 1 at most, got {chances}"
            )
        if chances != sorted(chances, reverse=True):
            raise ValueError(f"{where}: expected the likeliest first, got {chances}")
        checked[j] = pairs
    return checked


def _probabilities(given: Any, n: int) -> list[float]:
    values = [float(value) for value in _numbers(given)]
    if len(values) != n:
        raise ValueError(f"replaced: expected {n} probabilities, got {len(values)}")
    for j, value in enumerate(values):
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise ValueError(f"replaced[{j}]: expected a number from 0 to 1, got {value}")
    return values
