"""What attention weights can say of an answer: rollout, norms, and what happens without them.

Derived in chapter 19_attention_is_not_explanation.

Reading the weights of a model:

* `attention_rollout`: the weights of all layers multiplied up, the residual stream counted in;
* `attention_norms`: how long each summand α_ij v_j W^O is, and not only how large α_ij is;
* `kendall_tau`: how far two lists of scores agree on an order.

Changing what a `lib.attention.MultiHeadAttention` does, for as long as a `with` block lasts:

* `ablate_heads`: remove heads from the sum;
* `replace_weights`: other weights in place of its own, such as those of `uniform_weights` or
  `permuted_weights`, or of `equal_output_weights`, which no output can tell from the old ones.

Shapes: B samples, h heads, n_q queries, n_k keys, n where both are the same tokens. Errors are
ValueError in one line with expected and got, TypeError for what is no tensor and no module; only
metadata is looked at but where a docstring says so. The context managers undo what they did
however the block ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lib.attention import MultiHeadAttention, merge_heads, split_heads

__all__ = [
    "ablate_heads",
    "attention_norms",
    "attention_rollout",
    "equal_output_weights",
    "kendall_tau",
    "permuted_weights",
    "replace_weights",
    "uniform_weights",
]


def attention_rollout(weights: Tensor, *, residual: float = 0.5) -> Tensor:
    """Multiply the layers' weights up, as if a layer did nothing but mix tokens.

        Ã_l = r I + (1 − r) mean_h A_lh          R = Ã_L ⋯ Ã_2 Ã_1

    Parameters
    ----------
    weights : (layers, B, h, n, n), row i of a matrix for query i; the first layer first
    residual : number in [0, 1]
        r, the share of a token that goes past attention. 0 leaves the residual stream out, and is
        a mistake wherever there is one (D58).

    Returns (B, n, n): entry (i, j) is the share that rollout gives input token j in output i. Rows
    of sums 1 give rows of sums 1. What a layer does to the *vectors* (values, W^O, feed-forward,
    norms) is not in it.

    Raises ValueError for a wrong shape, dtype or `residual`, TypeError for no tensor.

    Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", arXiv:2005.00928,
    section 3, where r = 0.5 and heads are averaged. Derived in chapter
    19_attention_is_not_explanation.

    >>> first = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # both tokens look at token 0
    >>> attention_rollout(first.view(1, 1, 1, 2, 2))
    tensor([[[1.0000, 0.0000],
             [0.5000, 0.5000]]])
    """
    _require_weights(weights, 5, "(layers, B, h, n, n)")
    if weights.shape[-1] != weights.shape[-2]:
        raise ValueError(f"weights: expected (layers, B, h, n, n), got {tuple(weights.shape)}")
    if not isinstance(residual, int | float) or not 0 <= residual <= 1:
        raise ValueError(f"residual: expected a number in [0, 1], got {residual!r}")
    mixed = (1 - residual) * weights.mean(2)  # (layers, B, n, n)
    mixed = mixed + residual * torch.eye(weights.shape[-1], dtype=mixed.dtype, device=mixed.device)
    rolled = mixed[0]
    for layer in mixed[1:]:
        rolled = layer @ rolled
    return rolled


def attention_norms(
    attention: MultiHeadAttention,
    query: Tensor,
    key: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    per_head: bool = False,
) -> Tensor:
    """How long the vectors are that each key adds to each query's output.

        output_i = Σ_j Σ_h α_hij v_hj W_h^O + b^O          norm_ij = ‖Σ_h α_hij v_hj W_h^O‖

    Parameters
    ----------
    attention : MultiHeadAttention
    query : (B, n_q, d_model); key : (B, n_k, d_model), also the values', the query if left out
    mask : as in `MultiHeadAttention.forward`
    per_head : bool
        ‖α_hij v_hj W_h^O‖ of every head by itself, (B, h, n_q, n_k).

    Returns (B, n_q, n_k). The values include their bias; the bias of the output is no key's. A
    sum over j of the *vectors* is the output; one of the norms is not.

    Raises as the module does for its inputs; TypeError if it is no MultiHeadAttention.

    Source: Kobayashi et al. 2020, "Attention is Not Only a Weight: Analyzing Transformers with
    Vector Norms", arXiv:2004.10102. Derived in chapter 19_attention_is_not_explanation.

    >>> attend = MultiHeadAttention(12, 3)
    >>> attention_norms(attend, torch.randn(2, 5, 12)).shape
    torch.Size([2, 5, 5])
    """
    _require_module(attention)
    _, weights = attention(query, key, mask=mask, return_weights=True)  # (B, h, n_q, n_k)
    memory = query if key is None else key
    value = split_heads(attention.value_projection(memory), attention.num_heads)
    columns = attention.output_projection.weight.unflatten(1, (attention.num_heads, -1))
    moved = torch.einsum("bhjc,dhc->bhjd", value, columns)  # v_hj W_h^O: (B, h, n_k, d_model)
    if per_head:
        return weights * moved.norm(dim=-1).unsqueeze(2)  # ‖α v‖ = α ‖v‖, as α ≥ 0
    return torch.einsum("bhij,bhjd->bijd", weights, moved).norm(dim=-1)


@contextmanager
def ablate_heads(attention: MultiHeadAttention, heads: Iterable[int]) -> Iterator[None]:
    """Remove heads from the sum Σ_h head_h W_h^O inside a `with` block, and put them back.

    The columns of `output_projection.weight` that belong to these heads are zero in the block, and
    what they were before, to the last bit, when it ends, by an error too. The bias stays: it is no
    head's. Blocks may be nested; of one module they end in the reverse of the order in which they
    began. Training in the block trains what is then thrown away.

    heads : numbers from 0 to h − 1; none of them ablates nothing

    ValueError for another number, TypeError if `attention` is no MultiHeadAttention.
    Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?", arXiv:1905.10650,
    section 2.3, who multiply heads by a mask ξ. Derived in chapter
    19_attention_is_not_explanation.

    >>> attend, x = MultiHeadAttention(12, 3), torch.randn(1, 5, 12)
    >>> with ablate_heads(attend, [0, 1, 2]):
    ...     attend(x).abs().max().item()
    0.0
    """
    _require_module(attention)
    chosen = list(heads)
    for head in chosen:
        if not isinstance(head, int) or isinstance(head, bool):
            raise ValueError(f"heads: expected integers, got {head!r}")
        if not 0 <= head < attention.num_heads:
            raise ValueError(f"heads: expected 0 to {attention.num_heads - 1}, got {head}")
    weight = attention.output_projection.weight
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            for head in chosen:
                weight[:, head * attention.d_head : (head + 1) * attention.d_head] = 0.0
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)


@contextmanager
def replace_weights(
    attention: MultiHeadAttention, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Let a module mix its values by other weights inside a `with` block.

    change : takes the module's own weights (B, h, n_q, n_k) and returns those to use instead
        For instance `uniform_weights`. Whatever it returns is used as it is: rows need not sum to
        one. Gradients go through it. Called once for every call of the module.

    With `return_weights` the module returns the new weights. Blocks may be nested: the inner one
    changes what the outer one returns. ValueError, at the call, for another
    shape and for a cache, whose keys are not here; TypeError if `attention` is no
    MultiHeadAttention. Source: Jain & Wallace 2019, "Attention is not Explanation",
    arXiv:1902.10186, section 4.2. Derived in chapter 19_attention_is_not_explanation.

    >>> attend, x = MultiHeadAttention(12, 3), torch.randn(1, 5, 12)
    >>> with replace_weights(attend, uniform_weights):
    ...     _, weights = attend(x, return_weights=True)
    >>> weights[0, 0, 0]
    tensor([0.2000, 0.2000, 0.2000, 0.2000, 0.2000])
    """
    _require_module(attention)

    original, outer = attention.forward, "forward" in vars(attention)

    def instead(
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        return_weights: bool = False,
        **options: object,
    ) -> Tensor | tuple[Tensor, Tensor]:
        if options.get("cache") is not None:
            raise ValueError("cache: expected None while weights are replaced, got a cache")
        _, weights = original(query, key, value, mask, return_weights=True, **options)
        new = change(weights)
        if new.shape != weights.shape:
            raise ValueError(
                f"change: expected weights of shape {tuple(weights.shape)}, got {tuple(new.shape)}"
            )
        key = query if key is None else key
        value = key if value is None else value
        mixed = new @ split_heads(attention.value_projection(value), attention.num_heads)
        output = attention.output_projection(merge_heads(mixed))
        return (output, new) if return_weights else output

    attention.forward = instead
    try:
        yield
    finally:
        del attention.forward  # the class has its own, which a copy of the module then has too
        if outer:
            attention.forward = original


def uniform_weights(weights: Tensor) -> Tensor:
    """The same weight for every key that has one: 1/k where k of a row's weights are not zero.

    A forbidden key has weight exactly 0 and keeps it; a row of zeros stays one.
    weights : (..., n_k), n_k ≥ 1, floating. The values are looked at.

    Source: Wiegreffe & Pinter 2019, "Attention is not not Explanation", arXiv:1908.04626,
    section 3.2. Derived in chapter 19_attention_is_not_explanation.

    >>> uniform_weights(torch.tensor([0.7, 0.3, 0.0]))
    tensor([0.5000, 0.5000, 0.0000])
    """
    _require_weights(weights, 1, "(..., n_k)", more=True)
    allowed = (weights > 0).to(weights.dtype)
    return allowed / allowed.sum(-1, keepdim=True).clamp(min=1)


def permuted_weights(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Each row's weights in a random order, among the keys that have one.

    A forbidden key has weight exactly 0 and keeps it. Rows, heads and samples are permuted
    independently, each order being equally likely.
    weights : (..., n_k), n_k ≥ 1, floating. The values are looked at.
    generator : on the weights' device; torch's own if left out

    Source: Jain & Wallace 2019, arXiv:1902.10186, section 4.2. Derived in chapter
    19_attention_is_not_explanation.

    >>> permuted_weights(torch.tensor([0.0, 0.7, 0.0]))
    tensor([0.0000, 0.7000, 0.0000])
    """
    _require_weights(weights, 1, "(..., n_k)", more=True)
    noise = torch.rand(weights.shape, generator=generator, device=weights.device)
    forbidden = weights <= 0
    # allowed keys first: here in a random order, there in their own
    drawn = noise.masked_fill(forbidden, 2.0).argsort(dim=-1)
    places = forbidden.to(torch.uint8).argsort(dim=-1, stable=True)
    return torch.zeros_like(weights).scatter(-1, places, weights.gather(-1, drawn))


def equal_output_weights(weights: Tensor, values: Tensor, wish: Tensor) -> Tensor:
    """Other weights with the same sum of values, moved as far in the direction of a wish as walls
    allow.

        α′ ≥ 0,   Σ_j α′_j = Σ_j α_j,   Σ_j α′_j v_j = Σ_j α_j v_j,   wish · α′ ≥ wish · α

    The walk projects the wish on the directions that change neither sum, goes until a weight
    reaches zero, keeps that weight at zero and goes on, until no direction is left. What it
    reaches is a vertex of the set of all α′, not always the best one.

    Parameters
    ----------
    weights : (n,), not negative; values : (n, d_v); wish : (n,); all float64 on one device
        To hold the output of several heads at once, put their value vectors side by side.

    Returns (n,). With n ≤ d_v and values in general position it is `weights` itself: only from
    n ≥ d_v + 2 on is there always somewhere to go. The values are looked at.

    Raises ValueError for a wrong shape or dtype, TypeError for no tensor.

    Source: the null space of the values is that of Brunner et al. 2020, "On Identifiability in
    Transformers", arXiv:1908.04211; the walk is the gradient projection of linear programming.
    Derived in chapter 19_attention_is_not_explanation.

    >>> three = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)  # on a line
    >>> middle = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    >>> equal_output_weights(middle, three, wish=-middle)
    tensor([0.5000, 0.0000, 0.5000], dtype=torch.float64)
    """
    for name, x in {"weights": weights, "values": values, "wish": wish}.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
        if x.dtype != torch.float64:
            raise ValueError(f"{name}: expected torch.float64, got {x.dtype}")
    if weights.ndim != 1 or len(weights) < 1:
        raise ValueError(f"weights: expected shape (n,), got {tuple(weights.shape)}")
    n = len(weights)
    if values.ndim != 2 or len(values) != n:
        raise ValueError(f"values: expected shape ({n}, d_v), got {tuple(values.shape)}")
    if wish.shape != weights.shape:
        raise ValueError(f"wish: expected shape ({n},), got {tuple(wish.shape)}")

    kept = torch.cat(
        [values / values.norm().clamp(min=1e-300), torch.ones_like(weights)[:, None]], 1
    )
    identity = torch.eye(n, dtype=weights.dtype, device=weights.device)
    moved, fixed = weights.clone(), torch.zeros(n, dtype=torch.bool, device=weights.device)
    for _ in range(n):  # each round puts one more weight at zero, or is the last
        basis, sizes, _ = torch.linalg.svd(torch.cat([kept, identity[:, fixed]], 1))
        free = basis[:, int((sizes > 1e-10 * sizes[0]).sum()) :]  # orthonormal, changes no sum
        step = (free @ (free.T @ wish)).masked_fill(fixed, 0.0)  # not 1e-17
        falling = step < -1e-12 * wish.norm()
        if not bool(falling.any()):
            break
        reach = torch.where(falling, moved / -step, torch.inf)
        wall = int(reach.argmin())
        moved = (moved + reach[wall] * step).clamp(min=0)
        moved[wall], fixed[wall] = 0.0, True
    return moved


def kendall_tau(first: Tensor, second: Tensor) -> Tensor:
    """Kendall's rank correlation τ-b of two lists of scores: 1 same order, −1 reversed.

        τ_b = Σ_{i<j} s_ij t_ij / √(Σ s_ij² Σ t_ij²),    s_ij = sign(a_i − a_j), t_ij of b

    first, second : (..., n), n ≥ 2, of one shape; returns (...). Without ties it is the share of
    pairs on whose order both agree, minus that on which they do not. Where one of them holds
    nothing but ties there is no order, and τ is NaN.

    Raises ValueError for a wrong shape, TypeError for no tensor.
    Source: Kendall 1945, "The Treatment of Ties in Ranking Problems", Biometrika 33. Derived in
    chapter 19_attention_is_not_explanation.

    >>> kendall_tau(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 30.0, 20.0]))
    tensor(0.3333, dtype=torch.float64)
    """
    for name, x in {"first": first, "second": second}.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
        if x.ndim < 1 or x.shape[-1] < 2:
            raise ValueError(f"{name}: expected shape (..., n ≥ 2), got {tuple(x.shape)}")
    if first.shape != second.shape:
        raise ValueError(f"second: expected shape {tuple(first.shape)}, got {tuple(second.shape)}")
    s, t = ((x[..., :, None] - x[..., None, :]).sign().double() for x in (first, second))
    both, one, other = ((a * b).sum((-2, -1)) for a, b in ((s, t), (s, s), (t, t)))
    return both / (one * other).sqrt()


def _require_module(attention: object) -> None:
    if not isinstance(attention, MultiHeadAttention):
        raise TypeError(
            f"attention: expected a lib.attention.MultiHeadAttention, got "
            f"{type(attention).__name__}"
        )


def _require_weights(weights: object, ndim: int, shape: str, *, more: bool = False) -> None:
    if not isinstance(weights, Tensor):
        raise TypeError(f"weights: expected a torch.Tensor, got {type(weights).__name__}")
    if not weights.is_floating_point():
        raise ValueError(f"weights: expected a floating dtype, got {weights.dtype}")
    fits = weights.ndim >= ndim if more else weights.ndim == ndim
    if not fits or weights.shape[0] < 1 or weights.shape[-1] < 1:
        raise ValueError(f"weights: expected {shape}, got {tuple(weights.shape)}")
