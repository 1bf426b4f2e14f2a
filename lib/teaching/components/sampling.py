"""Sampling: what temperature, top-k and top-p leave of a next-token distribution, and draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import traitlets

from lib.generation import keep_top_k, keep_top_p
from lib.teaching.components.attention_rows import VISIBLE
from lib.teaching.components.base import Component, escape, fixed, one_of

TEMPERATURES = tuple(k / 10 for k in range(1, 31))
TOP_PS = tuple(k / 20 for k in range(1, 21))
MOST_TOKENS = 24
STATE_NAMES = ("temperature", "top_k", "top_p", "draws")

STATIC_STYLE = """<style>
.component .sm-static{border-collapse:collapse;font-size:.85rem;margin:0 0 .75rem;
overflow-wrap:anywhere}
.component .sm-static caption{caption-side:top;text-align:left;color:inherit;padding:0 0 .4rem}
.component .sm-static :is(th,td){padding:.1rem min(.5rem,1.4vw);text-align:right;font-weight:400}
.component .sm-static thead th{border-bottom:1px solid;vertical-align:bottom}
.component .sm-static tbody th{min-width:3rem}
</style>"""


class Sampling(Component):
    """Show a next-token distribution under a temperature, top-k and top-p, and draw from it.

    The logits are divided by T, then all but the k largest go, then all but the nucleus of what is
    left, as `lib.generation.sample` does it; what is kept is made to sum to one again. A draw takes
    the next number u of a fixed stream of uniform ones, and goes down the tokens until they hold
    more than u. The numbers stay the same when a setting moves, so that two settings can be
    compared on the same chances.

    Args:
        tokens: n texts, 2 to 24, each once.
        logits: n finite numbers; tokens are shown from the most probable down.
        stream: how many draws there are.
        seed: of the stream.
        temperature, top_k, top_p, draws: where to begin: one of 0.1, 0.2 … 3, of 1 … n (by default
            n, all), of 0.05, 0.1 … 1, and how many were drawn.
        label: what the reader sees as the title.
        name: the id in the page; by default made from the content.

    Attributes:
        temperature, top_k, top_p, draws: what is shown. Set them, observe them.
        tokens, logits: in the order in which they are shown.

    Raises:
        ValueError: one line, with expected and got, if an argument is out of its range.
    """

    MODULE = "sampling.js"
    STATE = STATE_NAMES

    temperature = traitlets.Any()
    top_k = traitlets.Any()
    top_p = traitlets.Any()
    draws = traitlets.Any()

    def __init__(
        self,
        tokens: Sequence[str],
        logits: Any,
        *,
        stream: int = 100,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        draws: int = 0,
        label: str = "The next token: sharpened, cut, drawn",
        name: str | None = None,
    ) -> None:
        super().__init__()
        tokens = list(tokens)
        for token in tokens:
            if not isinstance(token, str) or not token:
                raise ValueError(f"tokens: expected texts that are not empty, got {token!r}")
        if not 2 <= len(tokens) <= MOST_TOKENS or len(set(tokens)) != len(tokens):
            raise ValueError(
                f"tokens: expected 2 to {MOST_TOKENS} different ones, got {len(tokens)} of which "
                f"{len(set(tokens))} differ"
            )
        logits = torch.as_tensor(logits).detach().to("cpu", torch.float64)
        if tuple(logits.shape) != (len(tokens),) or not bool(logits.isfinite().all()):
            raise ValueError(
                f"logits: expected {len(tokens)} finite numbers, got shape {tuple(logits.shape)}"
            )
        if type(stream) is not int or not 1 <= stream <= 1000:
            raise ValueError(f"stream: expected an integer in 1 to 1000, got {stream!r}")
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"label: expected a text, got {label!r}")
        order = logits.argsort(descending=True, stable=True).tolist()
        self.label = label
        self.tokens = [tokens[i] for i in order]
        # Ten decimals: more than is shown, fewer than differ from one processor to another.
        self.logits = [round(logits[i].item(), 10) for i in order]
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(stream, generator=generator, dtype=torch.float64)
        self.stream = [round(u, 10) for u in uniform.tolist()]

        self.temperature = temperature
        self.top_k = len(tokens) if top_k is None else top_k
        self.top_p = top_p
        self.draws = draws
        self._ready(self._page_data(), name)

    @traitlets.validate("temperature")
    def _valid_temperature(self, proposal: Any) -> float:
        return one_of("temperature", proposal["value"], TEMPERATURES)

    @traitlets.validate("top_k")
    def _valid_top_k(self, proposal: Any) -> int:
        return one_of("top_k", proposal["value"], range(1, len(self.tokens) + 1))

    @traitlets.validate("top_p")
    def _valid_top_p(self, proposal: Any) -> float:
        return one_of("top_p", proposal["value"], TOP_PS)

    @traitlets.validate("draws")
    def _valid_draws(self, proposal: Any) -> int:
        return one_of("draws", proposal["value"], range(len(self.stream) + 1))

    def readout(self, temperature: float, top_k: int, top_p: float, draws: int) -> dict[str, Any]:
        """Return what the component shows, for tokens in the order shown.

        ``probabilities`` at the temperature, ``renormalised`` after both cuts (0 where a token was
        cut), ``kept`` how many are left, ``mass`` what these had before, ``entropy`` of what is
        drawn from in nats, ``drawn`` the places of the tokens drawn, ``counts`` of each token.
        """
        scaled = torch.tensor(self.logits, dtype=torch.float64) / temperature
        left = keep_top_p(keep_top_k(scaled, top_k), top_p)
        p, q = scaled.softmax(0), left.softmax(0)
        reached = q.cumsum(0)
        last = int((q > 0).nonzero().max())  # where rounding leaves the sum below u
        drawn = [min(int((reached <= u).sum()), last) for u in self.stream[:draws]]
        kept = left.isfinite()
        return {
            "probabilities": p.tolist(),
            "renormalised": q.tolist(),
            "kept": int(kept.sum()),
            "mass": p[kept].sum().item(),
            "entropy": -torch.xlogy(q, q).sum().item() + 0.0,
            "drawn": drawn,
            "counts": [drawn.count(j) for j in range(len(self.tokens))],
        }

    def summary(self) -> str:
        return f"{self.label}: {self._sentence()}"

    def _sentence(self) -> str:
        read = self.readout(*(getattr(self, name) for name in STATE_NAMES))
        n, drawn = len(self.tokens), read["drawn"]
        said = (
            f"T = {self.temperature:g}, top-k = {self.top_k}, top-p = {self.top_p:g}: "
            f"{read['kept']} of {n} tokens kept, which had {fixed(read['mass'], 3)} of the "
            f"probability; entropy {fixed(read['entropy'], 3)} nats. "
        )
        if not drawn:
            return f"{said}None drawn yet."
        return f"{said}{len(drawn)} drawn, the last is “{self._glyph(drawn[-1])}”."

    def _glyph(self, j: int) -> str:
        return self.tokens[j].translate(VISIBLE)

    def _page_data(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "tokens": [self._glyph(j) for j in range(len(self.tokens))],
            "logits": self.logits,
            "stream": self.stream,
            "temperatures": list(TEMPERATURES),
            "top_ps": list(TOP_PS),
        }

    def _fallback(self) -> str:
        read = self.readout(*(getattr(self, name) for name in STATE_NAMES))
        rows = []
        for j, (p, q) in enumerate(zip(read["probabilities"], read["renormalised"], strict=True)):
            rows.append(
                f'<tr><th scope="row">{escape(self._glyph(j))}</th><td>{fixed(p, 3)}</td>'
                f"<td>{fixed(q, 3) if q else 'cut'}</td></tr>"
            )
        titles = ("token", "p at T", "drawn with")
        head = "".join(f'<th scope="col">{title}</th>' for title in titles)
        return (
            f'{STATIC_STYLE}<table class="sm-static"><caption><strong>{escape(self.label)}'
            f"</strong>. {escape(self._sentence())}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
            "<noscript><p>With JavaScript temperature, top-k and top-p can be moved, and tokens "
            "drawn.</p></noscript>"
        )
