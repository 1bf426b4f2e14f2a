"""What a pre-training task draws at random: which tokens to hide, and what to write there.

Used from chapter 13_replaced_token_detection on. Draws come from `rng`, a torch.Generator, or from
torch's own, and are made on its device: one on the CPU draws the same wherever the model lies.
"""

import torch
from torch import Tensor

__all__ = ["draw_positions", "draw_words"]


def draw_positions(
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    share: float = 0.15,
    special_token_ids: tuple[int, ...] = (),
    rng: torch.Generator | None = None,
) -> Tensor:
    """Choose ⌈share · n⌉ of each sequence's n real tokens: (B, n) boolean.

    input_ids : (B, n)
    attention_mask : (B, n), boolean or integer, 0 = padding; all tokens are real, if left out
    share : number from 0 to 1
    special_token_ids : ids that are never chosen; they count among the n

    Every set of that size among the tokens that are not special is equally likely, and none is
    drawn twice. Where there are fewer such tokens, all of them are chosen.

    Raises ValueError for a share outside [0, 1].

    Source: Clark et al. 2020, arXiv:2003.10555, section 2, k = ⌈.15 n⌉.

    >>> ids = torch.tensor([[1, 7, 8, 9, 7, 8, 9, 2], [1, 7, 8, 2, 0, 0, 0, 0]])
    >>> draw_positions(ids, ids != 0, 0.3, special_token_ids=(1, 2)).sum(-1)
    tensor([3, 2])
    """
    if not isinstance(share, int | float) or not 0.0 <= share <= 1.0:
        raise ValueError(f"share: expected a number from 0 to 1, got {share!r}")
    real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    real = real != 0  # (B, n)
    special = torch.tensor(special_token_ids, dtype=input_ids.dtype, device=input_ids.device)
    free = real & ~torch.isin(input_ids, special)
    # Rounding may put share · n a little above a whole number, which is meant to stay.
    wanted = torch.ceil(share * real.sum(-1, keepdim=True).double() - 1e-9)  # (B, 1)

    device = input_ids.device if rng is None else rng.device
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
    (Gumbel 1954; Maddison et al. 2014, arXiv:1411.0030, section 2).

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
