"""AttentionRows: the attention of a trained model, one query at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import traitlets

from lib.teaching.components.base import Component, escape, fixed, one_of

# Whitespace is a token too, and a reader has to see it.
VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "\u00a0": "⍽"})

STATIC_STYLE = """<style>
.component .ar-static{display:flex;flex-wrap:wrap;gap:.3rem .2rem;margin:0 0 .75rem;padding:0}
.component .ar-static li{list-style:none;min-width:2.2rem;max-width:100%;text-align:center;
margin:0;line-height:1.4;overflow-wrap:anywhere}
.component .ar-static b,.component .ar-static small{display:block;font-size:.75rem}
.component .ar-static b{font:1.05rem monospace;min-height:1.6rem;border-radius:.3rem;
border:2px solid transparent;padding:.1rem .3rem}
.component .ar-static b.query{border-color:currentColor}
</style>"""


class AttentionRows(Component):
    """Show one row of attention weights over the text that it attends to.

    The reader points at a token, taps it or moves to it with the arrow keys: every token then
    shows the weight that the chosen one, the query, gives it, as a tint, as a bar and in digits.
    Head and mask are chosen beside it.

    Args:
        tokens: n non-empty strings, characters or words.
        weights: for each mask's name the weights under it, a tensor (h, n, n): head, query, key.
            Every row sums to one, or is all zeros where a query may attend to nothing.
        masks: for some or all of these names a boolean (n, n), True = may attend, as in lib.
            Without it a key that a query gives exactly zero in all heads counts as masked.
        choice: what the names of ``weights`` are, as the reader sees it.
        label: what the reader sees as the title.
        row, head, mask_name: where to begin; by default the last token, head 0, the first mask.
        name: the id in the page; by default made from the content.

    Attributes:
        row, head, mask_name: what is shown, counted from 0. Set them, observe them.
        entropy: of the row, in nats. Read only, as are the next two.
        strongest: the key with the largest weight shown, or -1 if there is none.
        max_weight: that weight.

    Raises:
        ValueError: one line, with expected and got, if an argument does not fit the others.
    """

    MODULE = "attention_rows.js"
    STATE = ("row", "head", "mask_name")

    row = traitlets.Any()
    head = traitlets.Any()
    mask_name = traitlets.Any()
    entropy = traitlets.Float(read_only=True)
    strongest = traitlets.Int(read_only=True)
    max_weight = traitlets.Float(read_only=True)

    def __init__(
        self,
        tokens: Sequence[str],
        weights: Mapping[str, Any],
        *,
        masks: Mapping[str, Any] | None = None,
        choice: str = "Mask",
        label: str = "Attention, one query at a time",
        row: int | None = None,
        head: int = 0,
        mask_name: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.tokens = _checked_tokens(tokens)
        self.weights = _checked_weights(weights, len(self.tokens))
        self.allowed = _checked_masks(masks or {}, self.weights, len(self.tokens))
        for what, text in {"label": label, "choice": choice}.items():
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{what}: expected a text, got {text!r}")
        self.label, self.choice = label, choice

        names = list(self.weights)
        self.row = len(self.tokens) - 1 if row is None else row
        self.head = head
        self.mask_name = names[0] if mask_name is None else mask_name
        self._measure()
        self.observe(lambda change: self._measure(), names=list(self.STATE))
        self._ready(self._page_data(), name)

    @traitlets.validate("row")
    def _valid_row(self, proposal: Any) -> int:
        return one_of("row", proposal["value"], range(len(self.tokens)))

    @traitlets.validate("head")
    def _valid_head(self, proposal: Any) -> int:
        heads = next(iter(self.weights.values())).shape[0]
        return one_of("head", proposal["value"], range(heads))

    @traitlets.validate("mask_name")
    def _valid_mask_name(self, proposal: Any) -> str:
        return one_of("mask_name", proposal["value"], list(self.weights))

    def readout(self, row: int, head: int, mask_name: str) -> dict[str, Any]:
        """Return what the component shows of one row.

        ``shown`` holds every key's weight in thousandths as displayed, -1 where it is masked;
        ``top`` the three largest as (key, weight); ``entropy`` in nats; ``sentence`` all in words.
        Ranks go by the weights as displayed, equal ones in the order of the text.
        """
        row = one_of("row", row, range(len(self.tokens)))
        mask_name = one_of("mask_name", mask_name, list(self.weights))
        weights = self.weights[mask_name]
        head = one_of("head", head, range(weights.shape[0]))
        shown = _thousandths(weights[head, row], self.allowed[mask_name][row])
        entropy = _entropy(weights[head, row])
        ranked = sorted((-w, j) for j, w in enumerate(shown) if w > 0)[:3]
        return {
            "shown": shown,
            "top": [(j, weights[head, row, j].item()) for _, j in ranked],
            "entropy": entropy,
            "sentence": self._sentence(row, shown, [j for _, j in ranked], entropy),
        }

    def summary(self) -> str:
        heads = next(iter(self.weights.values())).shape[0]
        said = self.readout(self.row, self.head, self.mask_name)["sentence"]
        where = f"head {self.head} of {heads}, {self.choice.lower()} {self.mask_name}"
        return f"{self.label} ({len(self.tokens)} tokens, {where}): {said}"

    def _sentence(self, row: int, shown: list[int], top: list[int], entropy: float) -> str:
        def at(j: int) -> str:
            return f"“{self.tokens[j].translate(VISIBLE)}” at {j}"

        if not top:
            return f"{at(row)} may attend to nothing: its output is zero."
        *first, last = [f"{at(j)} ({fixed(shown[j] / 1000, 3)})" for j in top]
        listed = f"{', '.join(first)} and {last}" if first else last
        keys = sum(w >= 0 for w in shown)
        nats = fixed(_rounded(entropy) / 1000, 3)
        return (
            f"{at(row)} attends most to {listed}; entropy {nats} nats, "
            f"at most ln {keys} = {fixed(math.log(keys), 3)}."
        )

    def _measure(self) -> None:
        read = self.readout(self.row, self.head, self.mask_name)
        key, weight = read["top"][0] if read["top"] else (-1, 0.0)
        self.set_trait("entropy", read["entropy"])
        self.set_trait("strongest", key)
        self.set_trait("max_weight", weight)

    def _page_data(self) -> dict[str, Any]:
        """Return integers, already rounded to what is shown; masked ends of rows left out."""
        shown: dict[str, Any] = {}
        entropies: dict[str, Any] = {}
        for mask, weights in self.weights.items():
            shown[mask] = [
                [
                    _without_masked_end(_thousandths(row, allowed))
                    for row, allowed in zip(head, self.allowed[mask], strict=True)
                ]
                for head in weights
            ]
            entropies[mask] = [[_rounded(_entropy(row)) for row in head] for head in weights]
        return {
            "label": self.label,
            "choice": self.choice,
            "tokens": [token.translate(VISIBLE) for token in self.tokens],
            "weights": shown,
            "entropy": entropies,
        }

    def _fallback(self) -> str:
        read = self.readout(self.row, self.head, self.mask_name)
        choice = escape(self.choice.lower())
        cells = []
        for j, (token, weight) in enumerate(zip(self.tokens, read["shown"], strict=True)):
            number = "–" if weight < 0 else fixed(weight / 1000, 3).removeprefix("0")
            query = ' class="query"' if j == self.row else ""
            tint = round(0.65 * math.sqrt(max(weight, 0) / 1000), 2)
            style = f' style="background:rgb(148 89 232 / {tint})"' if tint else ""
            glyph = escape(token.translate(VISIBLE))
            cells.append(f"<li><b{query}{style}>{glyph}</b><small>{number}</small></li>")
        return (
            f"{STATIC_STYLE}<p><strong>{escape(self.label)}</strong> "
            f"(head {self.head}, {choice} {escape(self.mask_name)})</p>"
            f'<ul class="ar-static">{"".join(cells)}</ul>'
            f"<p>{escape(read['sentence'])}</p>"
            f"<noscript><p>With JavaScript every token, head and {choice} can be chosen.</p>"
            "</noscript>"
        )


def _checked_tokens(tokens: Sequence[str]) -> list[str]:
    if isinstance(tokens, str):
        tokens = list(tokens)
    if not isinstance(tokens, Sequence) or not tokens:
        raise ValueError(f"tokens: expected a non-empty list of strings, got {tokens!r}")
    for j, token in enumerate(tokens):
        if not isinstance(token, str) or not token:
            raise ValueError(f"tokens[{j}]: expected a non-empty string, got {token!r}")
    return list(tokens)


def _checked_weights(weights: Mapping[str, Any], n: int) -> dict[str, torch.Tensor]:
    if not isinstance(weights, Mapping) or not weights:
        got = type(weights).__name__ if not isinstance(weights, Mapping) else "an empty one"
        raise ValueError(f"weights: expected a dict {{mask name: tensor (h, n, n)}}, got {got}")
    checked: dict[str, torch.Tensor] = {}
    heads = None
    for mask, given in weights.items():
        if not isinstance(mask, str) or not mask:
            raise ValueError(f"weights: expected a mask's name as key, got {mask!r}")
        where = f"weights[{mask!r}]"
        given = torch.as_tensor(given).detach()
        shape = tuple(given.shape)
        if len(shape) != 3 or shape[0] < 1 or shape[1:] != (n, n):
            raise ValueError(f"{where}: expected shape (h, {n}, {n}) for {n} tokens, got {shape}")
        if heads not in (None, shape[0]):
            raise ValueError(f"{where}: expected {heads} heads as under the first, got {shape[0]}")
        if not given.is_floating_point():
            raise ValueError(f"{where}: expected floating point numbers, got {given.dtype}")
        heads = shape[0]
        # Half precision cannot sum to one any better than this.
        allowed = 1e-5 if torch.finfo(given.dtype).eps < 1e-6 else 1e-2
        values = given.to("cpu", torch.float64)
        if not bool(((values >= 0) & (values <= 1 + allowed)).all()):
            low, high = values.min().item(), values.max().item()
            raise ValueError(f"{where}: expected weights in [0, 1], got {low:.4g} to {high:.4g}")
        sums = values.sum(-1)
        wrong = ((sums - 1).abs() > allowed) & (values != 0).any(-1)
        if bool(wrong.any()):
            head, row = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"{where}[{head}, {row}]: expected a row that sums to 1 or is all zeros, "
                f"got a sum of {sums[head, row].item():.6g}"
            )
        checked[mask] = values
    return checked


def _checked_masks(
    masks: Mapping[str, Any], weights: dict[str, torch.Tensor], n: int
) -> dict[str, torch.Tensor]:
    """Return for every mask's name a boolean (n, n): may this query attend to this key?"""
    if not isinstance(masks, Mapping):
        raise ValueError(f"masks: expected a dict {{mask name: (n, n)}}, got {masks!r}")
    for mask in masks:
        if mask not in weights:
            raise ValueError(f"masks: expected names from {list(weights)}, got {mask!r}")
    allowed = {}
    for mask, values in weights.items():
        if mask not in masks:
            allowed[mask] = (values > 0).any(0)
            continue
        given = torch.as_tensor(masks[mask]).cpu()
        if given.dtype != torch.bool or tuple(given.shape) != (n, n):
            got = f"{given.dtype} {tuple(given.shape)}"
            raise ValueError(f"masks[{mask!r}]: expected torch.bool ({n}, {n}), got {got}")
        leak = (values.amax(0) > 0) & ~given
        if bool(leak.any()):
            i, j = leak.nonzero()[0].tolist()
            raise ValueError(
                f"masks[{mask!r}]: expected weight 0 where it forbids, "
                f"got {values[:, i, j].max().item():.4g} from query {i} to key {j}"
            )
        allowed[mask] = given
    return allowed


def _rounded(number: float) -> int:
    return math.floor(1000 * number + 0.5)


def _thousandths(row: torch.Tensor, allowed: torch.Tensor) -> list[int]:
    pairs = zip(row.tolist(), allowed.tolist(), strict=True)
    return [_rounded(weight) if may else -1 for weight, may in pairs]


def _without_masked_end(row: list[int]) -> list[int]:
    end = len(row)
    while end and row[end - 1] == -1:
        end -= 1
    return row[:end]


def _entropy(row: torch.Tensor) -> float:
    # xlogy is 0 where the weight is 0; + 0.0 turns the -0.0 of a one-hot row into 0.0.
    return -torch.xlogy(row, row).sum().item() + 0.0
