"""What a pre-training task draws at random: which tokens to hide, and what to write there.

Used from chapter 11_bert on. Draws come from `rng`, a torch.Generator, or from
torch's own, and are made on its device: one on the CPU draws the same wherever the model lies.
"""

import torch
from torch import Tensor

from lib.validation import require_tokens

__all__ = ["draw_positions", "draw_words", "mask_tokens"]


def draw_positions(
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    share: float = 0.15,
    special_token_ids: tuple[int, ...] = (),
    rng: torch.Generator | None = None,
    *,
    rounding: str = "up",
) -> Tensor:
    """Choose ⌈share · n⌉ of each sequence's n real tokens: (B, n) boolean.

    input_ids : (B, n)
    attention_mask : (B, n), boolean or integer, 0 = padding; all tokens are real, if left out
    share : number from 0 to 1
    special_token_ids : ids that are never chosen; they count among the n
    rounding : "up" or "unbiased"
        "unbiased" draws ⌊share · n⌋ or ⌈share · n⌉, so that share · n is the mean: of short
        sequences a fixed rounding up chooses more than their share.

    Every set of that size among the tokens that are not special is equally likely, and none is
    drawn twice. Where there are fewer such tokens, all of them are chosen.

    Raises ValueError for a share outside [0, 1] or another `rounding`.

    Source: Clark et al. 2020, arXiv:2003.10555, section 2, k = ⌈.15 n⌉.

    >>> ids = torch.tensor([[1, 7, 8, 9, 7, 8, 9, 2], [1, 7, 8, 2, 0, 0, 0, 0]])
    >>> draw_positions(ids, ids != 0, 0.3, special_token_ids=(1, 2)).sum(-1)
    tensor([3, 2])
    """
    if not isinstance(share, int | float) or not 0.0 <= share <= 1.0:
        raise ValueError(f"share: expected a number from 0 to 1, got {share!r}")
    if rounding not in ("up", "unbiased"):
        raise ValueError(f"rounding: expected 'up' or 'unbiased', got {rounding!r}")
    real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    real = real != 0  # (B, n)
    special = torch.tensor(special_token_ids, dtype=input_ids.dtype, device=input_ids.device)
    free = real & ~torch.isin(input_ids, special)
    # Rounding may put share · n a little above a whole number, which is meant to stay.
    wanted = share * real.sum(-1, keepdim=True).double() - 1e-9  # (B, 1)

    device = input_ids.device if rng is None else rng.device
    if rounding == "up":
        wanted = wanted.ceil()
    else:  # ⌈x − u⌉ with u uniform is ⌈x⌉ with the probability by which x exceeds ⌊x⌋
        wanted = (wanted - torch.rand(wanted.shape, generator=rng, device=device).to(wanted)).ceil()
    keys = torch.rand(input_ids.shape, generator=rng, device=device).to(input_ids.device)
    keys = keys.masked_fill(~free, -1.0)
    rank = keys.argsort(dim=-1, descending=True).argsort(dim=-1)  # 0 for the largest key
    return free & (rank < wanted)


def draw_words(
    logits: Tensor, sampling: str = "gumbel", rng: torch.Generator | None = None
) -> Tensor:
    """Draw a word from softmax(logits) in each row: (M, V) to ids (M,), without gradient.

    sampling : "gumbel" or "multinomial"
        argmax_v (logits_v + g_v) with g_v = −log(−log u_v), u_v uniform, is v with probability
        softmax(logits)_v: adding noise and taking the largest is drawing, without ever forming the
        probabilities. Both ways have the same distribution, and draw differently from one `rng`.

    float16 and bfloat16 are computed in float32.

    Raises ValueError for logits that are not (M, V ≥ 1) or another `sampling`.

    Source: Clark et al. 2020, arXiv:2003.10555, section 2; their code draws by Gumbel noise
    (Gumbel 1954; Maddison et al. 2014, arXiv:1411.0030).

    >>> draw_words(torch.tensor([[0.0, 99.0, 0.0], [99.0, 0.0, 0.0]]))
    tensor([1, 0])
    """
    if logits.ndim != 2 or logits.shape[-1] < 1:
        raise ValueError(f"logits: expected shape (M, V ≥ 1), got {tuple(logits.shape)}")
    if sampling not in ("gumbel", "multinomial"):
        raise ValueError(f"sampling: expected 'gumbel' or 'multinomial', got {sampling!r}")
    device = logits.device if rng is None else rng.device
    logits = logits.detach().to(device, torch.promote_types(logits.dtype, torch.float32))
    if sampling == "multinomial":
        drawn = torch.multinomial(logits.softmax(dim=-1), 1, generator=rng).squeeze(-1)
    else:
        noise = -torch.empty_like(logits).exponential_(generator=rng).log()
        drawn = (logits + noise).argmax(dim=-1)
    return drawn


def mask_tokens(
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    vocab_size: int,
    mask_token_id: int = 103,
    special_token_ids: tuple[int, ...] = (0, 101, 102),
    share: float = 0.15,
    parts: tuple[float, float, float] = (0.8, 0.1, 0.1),
    rng: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Hide tokens as BERT does, and return (corrupted ids, labels), both (B, n).

    Parameters
    ----------
    input_ids : (B, n), int64 or int32
    attention_mask : (B, n), boolean or integer, 0 = padding; all tokens are real, if left out
    vocab_size : int
        V: a random word is any of 0 … V − 1 with equal probability, as in the authors' code. That
        may be a special token, and once in V times the word itself.
    mask_token_id, special_token_ids : an id, and ids that are never chosen; BERT's, if left out
    share : number from 0 to 1
        How many of each sequence's real tokens, special ones among them, are chosen.
    parts : three numbers that add up to 1
        Of the chosen tokens, how many become the mask token, a random word, or stay as they are.

    labels hold the original id where a token was chosen, also where it stays, and -100 elsewhere,
    as `lib.losses.masked_lm_loss` expects. `input_ids` is not changed.

    How exact. In expectation exactly: each token that may be chosen is chosen, masked, replaced and
    kept with the same probability as any other in its sequence, and of n real tokens .15 n are
    chosen on average, so .120 n masked, .015 n replaced, .015 n kept (unless special tokens leave
    fewer than .15 n). In each call as exactly as whole numbers allow: the number chosen in a
    sequence, and the three parts of all that are chosen in the batch, are off by less than 1.
    Drawing for each token by itself, as most codes do, has the same expectation and scatters by
    √(M · .8 · .2) around .8 M.

    Raises ValueError for a share or parts that are none, TypeError or ValueError for ids and masks
    as `lib.validation.require_tokens` does.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 3.1, task 1, and A.1. Deviations: the
    authors' code chooses max(1, round(.15 n)) tokens, and draws for each of them by itself; a
    sequence of fewer than 7 tokens may go without a chosen one here.
    Derived in chapter 11_bert.

    >>> ids = torch.tensor([[101] + 18 * [7] + [102]])
    >>> corrupted, labels = mask_tokens(ids, vocab_size=1000, parts=(1.0, 0.0, 0.0))
    >>> (labels != -100).sum(), (corrupted == 103).sum(), labels.unique()
    (tensor(3), tensor(3), tensor([-100,    7]))
    """
    require_tokens(input_ids, attention_mask=attention_mask)
    if (
        len(parts) != 3
        or any(not isinstance(p, int | float) or not 0.0 <= p <= 1.0 for p in parts)
        or abs(sum(parts) - 1.0) > 1e-9
    ):
        raise ValueError(f"parts: expected three shares that add up to 1, got {parts!r}")
    if not isinstance(vocab_size, int) or isinstance(vocab_size, bool) or vocab_size < 1:
        raise ValueError(f"vocab_size: expected an integer of at least 1, got {vocab_size!r}")
    chosen = draw_positions(
        input_ids, attention_mask, share, special_token_ids, rng, rounding="unbiased"
    )
    labels = input_ids.masked_fill(~chosen, -100)

    # Line the chosen up at random, at the places (rank + u) / M of the interval from 0 to 1: how
    # many of them lie below .8 is .8 M on average, and off by less than 1.
    device = input_ids.device if rng is None else rng.device
    keys = torch.rand(input_ids.shape, generator=rng, device=device).to(input_ids.device)
    keys = keys.masked_fill(~chosen, 2.0).flatten()
    rank = keys.argsort().argsort().reshape(input_ids.shape).double()
    start = torch.rand(1, generator=rng, device=device, dtype=torch.float64).to(input_ids.device)
    place = (rank + start) / chosen.sum()
    words = torch.randint(vocab_size, input_ids.shape, generator=rng, device=device)

    masked = chosen & (place < parts[0])
    replaced = chosen & ~masked & (place < parts[0] + parts[1])
    corrupted = input_ids.masked_fill(masked, mask_token_id)
    return torch.where(replaced, words.to(input_ids), corrupted), labels
