"""How a model that gives the next token's logits is made to write: greedily, by chance, by beams.

Derived in chapters 07_encoder_decoder (beams) and 10_gpt (sampling).

* `greedy`: the most probable token, every time;
* `sample`: a token drawn from the distribution, sharpened or cut;
* `beam_search`: the most probable of several continuations that are kept side by side.

They share one contract:

* Models. A decoder: called with ids (B, n) it returns logits (B, n, V), those at t for t + 1. Or an
  encoder–decoder, which is told by its methods: `encode(input_ids, attention_mask=)` to a memory,
  `decode(ids, memory, attention_mask=, cache=)` to logits. `model.config`, where there is one, says
  what `eos_token_id`, `pad_token_id` and `start_token_id` are if the caller doesn't, which
  `banned_token_ids` are never written (Marian's padding), and what `max_length` is.
* Input. `input_ids` (B, n). `attention_mask` (B, n), 0 = padding: on either side for an
  encoder–decoder, on the left for a decoder, where new tokens stand right behind the prompt.
* Output. Prompt and continuation, (B, n + m), m ≤ `max_new_tokens`; of an encoder–decoder the
  prompt is its start token, and (B, 1 + m) comes back. A row that has written an end token is
  finished, and filled with `pad_token_id` (the end token, where there is none); when all are, it
  ends. The model runs in evaluation mode, and goes back to the mode it was in.
* With a cache, a model that offers a `stepper` is read through that, see `lib.stepper`: the same
  but for rounding, and faster.
* `use_cache=False` reads everything anew for every token: slower, the same but for rounding, and
  possible with a model that knows no cache.
* Errors. ValueError, in one line, for a wrong option, and for padding on the right of a decoder's
  prompt, a value that is looked at; for the rest as the model has it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.cache import KVCache

__all__ = ["beam_search", "greedy", "keep_top_k", "keep_top_p", "sample"]

_EndTokens = int | Sequence[int] | None


@torch.no_grad()
def greedy(
    model: nn.Module,
    input_ids: Tensor,
    *,
    max_new_tokens: int,
    attention_mask: Tensor | None = None,
    eos_token_id: _EndTokens = None,
    pad_token_id: int | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Continue with the most probable token, again and again.

    eos_token_id : an id, or several; () never ends. Left out, what the model's config says.
    pad_token_id : what is written behind the end; the config's, if left out

    Of equal logits the first wins. The result need not be the most probable sequence: a good first
    step may lead nowhere (see `beam_search`).

    >>> from lib.models.gpt2 import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(50, d_model=12, num_layers=2, num_heads=3, max_length=16))
    >>> prompt = torch.randint(50, (2, 7))
    >>> text = greedy(model, prompt, max_new_tokens=5)
    >>> text.shape, torch.equal(text[:, :7], prompt)
    (torch.Size([2, 12]), True)
    """
    writer = _Writer(model, input_ids, attention_mask, max_new_tokens, use_cache)
    return _write(writer, eos_token_id, pad_token_id, lambda logits: logits.argmax(dim=-1))


@torch.no_grad()
def sample(
    model: nn.Module,
    input_ids: Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    attention_mask: Tensor | None = None,
    eos_token_id: _EndTokens = None,
    pad_token_id: int | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Continue with a token drawn from softmax(logits / T), of those that are left.

    temperature : T > 0, first of all: below 1 sharper, above 1 flatter
    top_k : keep the k most probable tokens, see `keep_top_k`
    top_p : then keep the fewest of those whose probabilities reach p, see `keep_top_p`
    generator : torch.Generator on the model's device; torch's own, if left out

    The other arguments are those of `greedy`. The draws are the same with and without a cache,
    where rounding doesn't turn one.
    """
    if not isinstance(temperature, int | float) or not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature: expected a finite number above 0, got {temperature!r}")
    _validate_top(top_k, top_p)

    def draw(logits: Tensor) -> Tensor:
        logits = logits / temperature
        if top_k is not None:
            logits = keep_top_k(logits, top_k)
        if top_p is not None:
            logits = keep_top_p(logits, top_p)
        return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(-1)

    writer = _Writer(model, input_ids, attention_mask, max_new_tokens, use_cache)
    return _write(writer, eos_token_id, pad_token_id, draw)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (..., V) with −inf at all but the k largest, and those that equal the k-th.

    A k of V or more keeps all. Source: Fan et al. 2018, "Hierarchical Neural Story Generation",
    arXiv:1805.04833, section 5.4. Derived in chapter 10_gpt.
    """
    _validate_top(k, None)
    least = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Logits (..., V) with −inf at all but the nucleus: the fewest tokens with probability ≥ p.

    Going down from the most probable token, one is kept as long as those before it have less than
    p together; the first always is. Source: Holtzman et al. 2020, "The Curious Case of Neural Text
    Degeneration", arXiv:1904.09751, section 3.1. Derived in chapter 10_gpt.

    >>> keep_top_p(torch.tensor([0.5, 0.1, 0.3, 0.1]).log(), 0.7).exp()
    tensor([0.5000, 0.0000, 0.3000, 0.0000])
    """
    _validate_top(None, p)
    if p == 1:  # all of them, whatever the sum's rounding says of the last
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(dim=-1)
    before = probability.cumsum(dim=-1) - probability  # of those that are more probable
    drop = (before >= p).index_fill(-1, before.new_zeros(1, dtype=torch.long), False)
    return logits.masked_fill(torch.empty_like(drop).scatter_(-1, order, drop), -math.inf)


@torch.no_grad()
def beam_search(
    model: nn.Module,
    input_ids: Tensor,
    *,
    max_new_tokens: int,
    num_beams: int = 4,
    length_penalty: float = 1.0,
    penalty: str = "power",
    attention_mask: Tensor | None = None,
    eos_token_id: _EndTokens = None,
    pad_token_id: int | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Keep the best `num_beams` beginnings at every step, and return the best that came to an end.

        score(y) = log p(y | prompt) / penalty(|y|)

    Parameters
    ----------
    num_beams : int ≥ 1
        With one, and no end token, it is `greedy`.
    length_penalty : finite float
        α. Every token costs log-probability, so at α = 0 short texts win; a larger one lets longer
        ones win.
    penalty : "power" or "wu"
        "power": |y|^α, as in transformers. "wu": ((5 + |y|) / 6)^α, equation 14 of Wu et al.; with
        α = .6 what Vaswani et al. use (section 6.1). |y| counts the new tokens, the end token
        among them.

    A beginning that writes an end token among the best `num_beams` candidates is finished, and held
    against the best `num_beams` finished so far. A row is done when its best beginning, scored at
    its present length, is no better than the worst of these: a heuristic (transformers'
    `early_stopping=False`), as with α > 0 a longer text may still overtake. What is still running
    at the end competes too. The other arguments are those of `greedy`, the rest is transformers'.

    Raises ValueError as the module says.

    Source: Wu et al. 2016, "Google's Neural Machine Translation System", arXiv:1609.08144,
    section 7, equation 14. Deviations: no coverage penalty, and no pruning of candidates that are
    much worse than the best. Derived in chapter 07_encoder_decoder.
    """
    for name, size in {"num_beams": num_beams, "max_new_tokens": max_new_tokens}.items():
        _validate_size(name, size)
    if not isinstance(length_penalty, int | float) or not math.isfinite(length_penalty):
        raise ValueError(f"length_penalty: expected a finite number, got {length_penalty!r}")
    if penalty not in ("power", "wu"):
        raise ValueError(f"penalty: expected 'power' or 'wu', got {penalty!r}")

    def penalised(log_p: Tensor, length: int) -> Tensor:
        return log_p / (length if penalty == "power" else (5 + length) / 6) ** length_penalty

    writer = _Writer(model, input_ids, attention_mask, max_new_tokens, use_cache)
    batch, k = len(input_ids), num_beams
    eos, pad = _end_tokens(model, eos_token_id, pad_token_id, input_ids.device)
    rows = torch.arange(batch, device=input_ids.device)[:, None]  # (B, 1)
    first = rows.expand(-1, k).flatten()
    writer.select(first)  # (B·k, …): k copies of each prompt
    prompt = writer.ids.shape[1]

    running = torch.zeros(batch, k, device=input_ids.device)  # log-probabilities
    running[:, 1:] = -math.inf  # of k equal prompts one is enough
    best = torch.full_like(running, -math.inf)  # scores of the k best that are finished
    texts = writer.ids.new_full((batch, k, prompt + max_new_tokens), pad)
    lengths = torch.zeros_like(best, dtype=torch.long)  # of their new tokens
    improving = torch.ones_like(best[:, 0], dtype=torch.bool)

    with _evaluating(model):
        for length in range(1, max_new_tokens + 1):
            log_p = writer.logits().log_softmax(dim=-1)  # (B·k, V)
            vocab = log_p.shape[-1]
            candidates = (running[..., None] + log_p.unflatten(0, (batch, k))).flatten(1)
            spare = min((1 + max(1, len(eos))) * k, k * vocab)  # so that k go on if others end
            value, index = candidates.topk(spare, dim=1)  # (B, spare)
            beam, token = index // vocab, index % vocab
            before = writer.ids.unflatten(0, (batch, k))[rows, beam]  # (B, spare, n)
            text = torch.cat([before, token[..., None]], dim=-1)
            ends = torch.isin(token, eos) | (length == max_new_tokens)

            # Finished: those among the first k that end, if their row may still improve.
            counts = ends & improving[:, None]
            counts[:, k:] = False
            score = penalised(value, length).masked_fill(~counts, -math.inf)
            wide = F.pad(text, (0, max_new_tokens - length), value=pad)
            best, kept = torch.cat([best, score], dim=1).topk(k, dim=1)
            texts = torch.cat([texts, wide], dim=1)[rows, kept]
            lengths = torch.cat([lengths, torch.full_like(index, length)], dim=1)[rows, kept]

            # Running: the first k that do not.
            running, chosen = value.masked_fill(ends, -math.inf).topk(k, dim=1)
            improving &= penalised(running[:, 0], length) > best[:, -1]
            if not improving.any():  # nor can any where all have ended
                break
            writer.append(token.gather(1, chosen).flatten(), rows * k + beam.gather(1, chosen))
    return texts[:, 0, : prompt + int(lengths[:, 0].max())]


# One token after another


class _Writer:
    """What has been written, and the logits of what comes next."""

    def __init__(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        max_new_tokens: int,
        use_cache: bool,
    ) -> None:
        _validate_size("max_new_tokens", max_new_tokens)
        self.model, self.mask, self.memory = model, attention_mask, None
        self.max_new_tokens = max_new_tokens
        self.reads = hasattr(model, "decode")  # an encoder–decoder, with the mask of what it reads
        if self.reads:
            with _evaluating(model):
                self.memory = model.encode(input_ids, attention_mask=attention_mask)
            start = _of_config(model, "start_token_id")
            if start is None:
                raise ValueError("model: expected config.start_token_id, found none")
            self.ids = input_ids.new_full((len(input_ids), 1), start)
        else:
            self.ids = input_ids
            if attention_mask is not None and not bool((attention_mask[:, -1] != 0).all()):
                raise ValueError(
                    "attention_mask: expected padding on the left, got a last token that is padding"
                )
        most = self.ids.shape[1] + max_new_tokens - 1  # the last one is written, and not read
        longest = _of_config(model, "max_length")
        if longest is not None and most > longest:
            raise ValueError(
                f"max_new_tokens: expected at most {longest - self.ids.shape[1] + 1}, as the model "
                f"reads max_length = {longest} tokens, got {max_new_tokens}"
            )
        step = getattr(model, "stepper", None) if use_cache else None
        self.stepper = None if step is None else step(most, attention_mask)
        self.cache = KVCache(most) if use_cache and self.stepper is None else None
        self.banned = list(_of_config(model, "banned_token_ids") or ())

    def logits(self) -> Tensor:
        """(B, V), of the next token; in float32 at least."""
        if self.stepper is not None:
            last = self.stepper.read(self.ids[:, self.stepper.length :])
        else:
            last = self._readable()[:, -1]
        last = last.to(torch.promote_types(last.dtype, torch.float32))
        if self.banned:
            last = last.index_fill(1, torch.tensor(self.banned, device=last.device), -math.inf)
        return last

    def _readable(self) -> Tensor:
        """The logits (B, n, V) of the model itself."""
        options = {} if self.mask is None else {"attention_mask": self.mask}
        ids = self.ids
        if self.cache is not None:
            options["cache"] = self.cache
            ids = ids[:, self.cache.length :]  # what it has not read yet
        if self.reads:
            return self.model.decode(ids, self.memory, **options)
        return self.model(ids, **options)

    def append(self, token: Tensor, rows: Tensor | None = None) -> None:
        """Write one token (B,) behind each row, or behind the rows named."""
        if rows is not None:
            self.select(rows.flatten(), memory=False)
        self.ids = torch.cat([self.ids, token[:, None].to(self.ids.dtype)], dim=1)
        if self.mask is not None and not self.reads and self.stepper is None:
            self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)

    def select(self, rows: Tensor, *, memory: bool = True) -> None:
        """Row i becomes row `rows[i]`. Beams of one sequence share its memory and its mask."""
        self.ids = self.ids[rows]
        if memory and self.memory is not None:
            self.memory = self.memory[rows]
        if memory and self.mask is not None:
            self.mask = self.mask[rows]
        for kept in (self.cache, self.stepper):
            if kept is not None:
                kept.select(rows)


def _write(
    writer: _Writer,
    eos_token_id: _EndTokens,
    pad_token_id: int | None,
    choose: Callable[[Tensor], Tensor],
) -> Tensor:
    """Append what `choose` makes of the logits, until every row has ended or the room is full."""
    eos, pad = _end_tokens(writer.model, eos_token_id, pad_token_id, writer.ids.device)
    done = torch.zeros(len(writer.ids), dtype=torch.bool, device=writer.ids.device)
    with _evaluating(writer.model):
        for _ in range(writer.max_new_tokens):
            token = choose(writer.logits())
            if len(eos):
                token = token.masked_fill(done, pad)
                done |= torch.isin(token, eos)
            writer.append(token)
            if len(eos) and bool(done.all()):
                break
    return writer.ids


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout; afterwards every module is in the mode in which it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _of_config(model: nn.Module, name: str) -> Any:
    return getattr(getattr(model, "config", None), name, None)


def _end_tokens(
    model: nn.Module, eos: _EndTokens, pad: int | None, device: torch.device
) -> tuple[Tensor, int]:
    """The end tokens (k,), and what is written behind them."""
    eos = _of_config(model, "eos_token_id") if eos is None else eos
    eos = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    pad = _of_config(model, "pad_token_id") if pad is None else pad
    pad = (eos[0] if eos else 0) if pad is None else pad
    return torch.tensor(eos, dtype=torch.long, device=device), pad


# Validation


def _validate_size(name: str, size: int) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {size!r}")


def _validate_top(k: int | None, p: float | None) -> None:
    if k is not None:
        _validate_size("top_k", k)
    if p is not None and (not isinstance(p, int | float) or not 0.0 < p <= 1.0):
        raise ValueError(f"top_p: expected a number in (0, 1], got {p!r}")
