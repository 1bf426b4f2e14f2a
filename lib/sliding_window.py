"""Sliding-window attention: every token looks w/2 tokens to each side, and a few look everywhere.

Derived in chapter 09_sliding_window.

Shapes are written with n tokens, w the window, g global tokens, d_k features of a query or key, d_v
of a value, and "..." for leading dimensions such as batch and head.

* `window_mask`: which pairs meet, as a dense n × n mask: the definition that all else is held to;
* `count_pairs`: how many there are;
* `gathered_window_attention`: one small attention for each query, readable;
* `sliding_window_attention`: blocks of queries through torch's fused kernels, the one to use;
* `SlidingWindowAttention`: the module with heads, and projections of their own for global tokens.

The two functions share one contract:

* Value. That of `lib.attention.scaled_dot_product_attention` with the mask

      allowed(i, j) = (|i − j| ≤ δ · w/2 and δ divides i − j, or i or j is global) and j is real

  for a window w and a dilation δ, a token being real where it is no padding. Neither
  function makes an n × n tensor, forward or backward.
* Inputs. `query`, `key` (..., n, d_k), `value` (..., n, d_v): one length, since the window is about
  places in one sequence. Dtypes, precision, leading dimensions, NaN, and zeros for a query that may
  attend to nothing are as in `lib.attention`.
* Window. w is even and at least 2: w/2 tokens on each side and the token itself, w + 1 in all. An
  odd w is refused, as it has no half, and codes disagree on the side that gets more. Near an end of
  the sequence there are fewer keys, and w may be larger than n.
* Masks of tokens, `global_mask` and `key_mask`: boolean or integer, 0 = False. Shape (n,), or with
  query's leading dimensions **from the left**, each in full or 1: for queries (B, h, n, d_k) a mask
  (B, n) is one for each sample, and (B, h, n) one for each head. Each row of a mask is a pass of
  its own, and where there are global tokens, their number is read from the device in each; rows
  that are all alike, as where every sample has its first token global, are one pass then.
* Global tokens with projections of their own. A token that is global attends with `global_query` to
  `global_key` and `global_value`, which are query, key and value if left out; all other tokens see
  it as they see each other, by `key` and `value`.
* Dropout in [0, 1), on the weights after the softmax; applied whenever it is positive.
* Errors. ValueError, in one line with what was expected and what came, for a wrong shape, dtype,
  device or option; TypeError for something that is no tensor.

Source: Beltagy, Peters & Cohan 2020, "Longformer: The Long-Document Transformer", arXiv:2004.05150,
sections 3.1 (the pattern) and 3.2 (its implementations). Deviations: the dilation δ = 1 means no
gap; padding; a mask of tokens in place of a list of global ones.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lib.attention import (
    MultiHeadAttention,
    _dtype_here,
    _under_a_transform,
    _validate,
    fast_attention,
    merge_heads,
    scaled_dot_product_attention,
    split_heads,
)

__all__ = [
    "SlidingWindowAttention",
    "count_pairs",
    "gathered_window_attention",
    "sliding_window_attention",
    "window_mask",
]


def window_mask(
    n: int,
    window: int,
    *,
    dilation: int = 1,
    global_mask: Tensor | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Boolean mask (n, n) of the pairs that meet: True where query i may attend to key j.

        mask[i, j] = |i − j| ≤ δ · w/2 and δ divides i − j,   or i or j is global

    global_mask : (..., n), optional; then the mask is (..., n, n), on its device.

    The definition, for small n: it is the n × n table that the functions here never make.

    Raises ValueError for a wrong size or mask, TypeError for a mask that is no tensor.
    Source: Beltagy et al. 2020, arXiv:2004.05150, section 3.1.
    Derived in chapter 09_sliding_window.

    >>> window_mask(5, 2).int()
    tensor([[1, 1, 0, 0, 0],
            [1, 1, 1, 0, 0],
            [0, 1, 1, 1, 0],
            [0, 0, 1, 1, 1],
            [0, 0, 0, 1, 1]], dtype=torch.int32)
    >>> window_mask(5, 2, global_mask=torch.tensor([1, 0, 0, 0, 0])).int()
    tensor([[1, 1, 1, 1, 1],
            [1, 1, 1, 0, 0],
            [1, 1, 1, 1, 0],
            [1, 0, 1, 1, 1],
            [1, 0, 0, 1, 1]], dtype=torch.int32)
    """
    _validate_window(n, window, dilation)
    if global_mask is not None:
        _validate_mask("global_mask", global_mask, n)
        device = global_mask.device
    position = torch.arange(n, device=device)
    offset = position - position[:, None]  # (n, n): j − i
    mask = (offset.abs() <= dilation * (window // 2)) & (offset % dilation == 0)
    if global_mask is not None:
        is_global = global_mask != 0
        mask = mask | is_global[..., :, None] | is_global[..., None, :]
    return mask


def count_pairs(n: int, window: int, *, dilation: int = 1) -> int:
    """How many pairs of a query and a key meet in a window, without global tokens.

        n (w + 1) − (w/2) (w/2 + 1)        for n > w/2, without dilation

    Every query meets w + 1 keys but for those near the ends: the first lacks w/2 of them, the next
    w/2 − 1, and so on, and so do the last. With n ≤ w/2 all n² pairs meet. A dilation δ cuts the
    sequence into δ sequences of every δ-th token, each with a window of its own.

    Raises ValueError for a wrong size.
    Derived in chapter 09_sliding_window.

    >>> count_pairs(5, 2), count_pairs(5, 100), count_pairs(4096, 512)
    (13, 25, 2035456)
    """
    _validate_window(n, window, dilation)
    total = 0
    for phase in range(min(dilation, n)):
        length = (n - phase - 1) // dilation + 1
        half = min(window // 2, length - 1)
        total += length * (2 * half + 1) - half * (half + 1)
    return total


def gathered_window_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int,
    *,
    dilation: int = 1,
    global_mask: Tensor | None = None,
    key_mask: Tensor | None = None,
    global_query: Tensor | None = None,
    global_key: Tensor | None = None,
    global_value: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Compute `sliding_window_attention` as it is written: each query gathers its w + 1 keys.

    Arguments, result and errors are those of `sliding_window_attention`. A key is copied once for
    each query that meets it: time and memory O(n · (w + g) · d), by the formula of
    `lib.attention.scaled_dot_product_attention`, without a fused kernel.

    Source: Beltagy et al. 2020, arXiv:2004.05150, section 3.1.
    Derived in chapter 09_sliding_window.

    >>> x = torch.randn(2, 3, 11, 4)
    >>> want = scaled_dot_product_attention(x, x, x, window_mask(11, 4))
    >>> torch.allclose(gathered_window_attention(x, x, x, 4), want, atol=1e-6)
    True
    """
    masks = {"key_mask": key_mask, "global_mask": global_mask}
    own = {"global_query": global_query, "global_key": global_key, "global_value": global_value}
    return _attend(_gathered, query, key, value, window, dilation, masks, own, dropout)


def sliding_window_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int,
    *,
    dilation: int = 1,
    global_mask: Tensor | None = None,
    key_mask: Tensor | None = None,
    global_query: Tensor | None = None,
    global_key: Tensor | None = None,
    global_value: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attend to the tokens within a window, in time and memory O(n · (w + g)).

    The sequence is cut into blocks of w/2 queries. What a block may meet lies in three blocks of
    keys: its own and its neighbours, cut out as views that overlap. Each block of queries and its
    keys go through `lib.attention.fast_attention` as a sample of a batch, with the band as mask: of
    3 w/2 keys a query uses w + 1. A dilated window is the same for every δ-th token.

    Parameters
    ----------
    query, key : (..., n, d_k)
    value : (..., n, d_v)
    window : even int ≥ 2
        w: half of it on each side.
    dilation : int ≥ 1
        δ: of the tokens on each side every δ-th, w/2 of them, so the window spans δ · w + 1.
    global_mask : (n,) or query's leading dimensions from the left, then n; optional
        Tokens that attend to all, and to which all attend.
    key_mask : likewise, optional
        True = a token to attend to, False = padding. A query that is padding still attends.
    global_query, global_key : (..., n, d_k), global_value : (..., n, d_v); all or none
        What global tokens attend with. Rows of `global_query` that are not global are not used.
    dropout : float in [0, 1)

    Returns
    -------
    output : (..., n, d_v), in the inputs' dtype (autocast's under autocast)

    Like `fast_attention`, it has a first derivative only, but in float64, and rounds as that does.
    `torch.compile(fullgraph=True)` works without a global mask.

    Raises
    ------
    ValueError
        A shape, dtype, device or option is wrong; the message names expected and got.
    TypeError
        An input is not a tensor.

    Source
    ------
    Beltagy et al. 2020, arXiv:2004.05150, section 3.1: window, dilation, global tokens, and their
    projections. Deviations: blocks of w/2 against 3 w/2 keys, where the authors' "chunks"
    (section 3.2) cut queries and keys alike into overlapping blocks of w and keep all logits.

    Derived in chapter 09_sliding_window.

    Examples
    --------
    With equal keys the output is the mean of the values in the window.

    >>> x, value = torch.zeros(5, 4), torch.tensor([[0.0], [1.0], [2.0], [3.0], [40.0]])
    >>> sliding_window_attention(x, x, value, window=2).T
    tensor([[ 0.5000,  1.0000,  2.0000, 15.0000, 21.5000]])
    """
    masks = {"key_mask": key_mask, "global_mask": global_mask}
    own = {"global_query": global_query, "global_key": global_key, "global_value": global_value}
    return _attend(_in_blocks, query, key, value, window, dilation, masks, own, dropout)


class SlidingWindowAttention(MultiHeadAttention):
    """Multi-head self-attention within a window, with projections of their own for global tokens.

    Parameters
    ----------
    d_model, num_heads, dropout, bias : as in `lib.attention.MultiHeadAttention`
    window, dilation : as in `sliding_window_attention`

    Attributes: those of `MultiHeadAttention`, and `global_query_projection`,
    `global_key_projection`, `global_value_projection`, which begin as copies of the others, so that
    at first a global token attends as any other would, only to all.

    Source: Beltagy et al. 2020, arXiv:2004.05150, section 3.1. Deviations: as in the official
    code, a padding query gets the bias of the output, whatever is near it.
    Derived in chapter 09_sliding_window.

    >>> attend = SlidingWindowAttention(d_model=12, num_heads=3, window=4)
    >>> attend(torch.randn(2, 50, 12)).shape
    torch.Size([2, 50, 12])
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        window: int,
        *,
        dilation: int = 1,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__(d_model, num_heads, dropout=dropout, bias=bias)
        _validate_window(1, window, dilation)
        self.window, self.dilation = window, dilation
        self.global_query_projection = nn.Linear(d_model, d_model, bias=bias)
        self.global_key_projection = nn.Linear(d_model, d_model, bias=bias)
        self.global_value_projection = nn.Linear(d_model, d_model, bias=bias)
        self.copy_to_global()

    def copy_to_global(self) -> None:
        """Give global tokens the projections of the others, from which training may lead them."""
        for name in ("query", "key", "value"):
            theirs = getattr(self, f"{name}_projection").state_dict()
            getattr(self, f"global_{name}_projection").load_state_dict(theirs)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, causal: bool = False, cache: None = None
    ) -> Tensor:
        """Attend from (B, n, d_model) to itself; the same shape out.

        mask : (B, n), optional
            Boolean, True = a real token, False = padding; or integer, 0 = padding, 1 = a token with
            a window, 2 = a global token, as in the authors' code.
        causal, cache : refused; they are there because `lib.layers.EncoderLayer` passes them.
        """
        if cache is not None:
            raise ValueError("cache: expected None, as later tokens change what earlier ones see")
        if causal:
            raise ValueError("causal: expected False, as the window looks to both sides")
        self._validate(x, x, x)
        if mask is not None:
            _validate_mask("mask", mask, x.shape[1])
            if mask.shape != x.shape[:2]:
                raise ValueError(
                    f"mask: expected shape {tuple(x.shape[:2])}, got {tuple(mask.shape)}"
                )

        options = {"dilation": self.dilation, "dropout": self.dropout if self.training else 0.0}
        if mask is not None:
            options["key_mask"] = mask != 0
        if mask is not None and mask.dtype != torch.bool:
            options["global_mask"] = mask == 2
            options["global_query"] = self._heads(self.global_query_projection, x)
            options["global_key"] = self._heads(self.global_key_projection, x)
            options["global_value"] = self._heads(self.global_value_projection, x)
        q = self._heads(self.query_projection, x)  # (B, h, n, d_head)
        k = self._heads(self.key_projection, x)
        v = self._heads(self.value_projection, x)
        heads = merge_heads(sliding_window_attention(q, k, v, self.window, **options))
        if mask is not None:
            heads = heads.masked_fill((mask == 0).unsqueeze(-1), 0.0)
        return self.output_projection(heads)

    def _heads(self, projection: nn.Linear, x: Tensor) -> Tensor:
        return split_heads(projection(x), self.num_heads)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, window={self.window}, dilation={self.dilation}"


# The windows of one sequence: query, key (L, n, d_k), value (L, n, d_v), L for all leading
# dimensions. `near` (n,) says which keys a window may meet, None = all; `far` (g,) are the places
# of those that every query meets beside its window. Queries that are global come out wrong, and are
# mended later.


def _gathered(query, key, value, half, dilation, near, far, dropout) -> Tensor:
    n = query.shape[1]
    offsets = dilation * torch.arange(-half, half + 1, device=query.device)
    places = torch.arange(n, device=query.device)[:, None] + offsets  # (n, w + 1)
    meet = (places >= 0) & (places < n)
    places = places.clamp(0, n - 1)
    meet = meet if near is None else meet & near[places]

    if far is not None:
        places = torch.cat([far.expand(n, -1), places], dim=1)  # (n, g + w + 1)
        meet = F.pad(meet, (len(far), 0), value=True)
    output = scaled_dot_product_attention(
        query.unsqueeze(2),  # (L, n, 1, d_k): each query is an attention of its own
        key[:, places],  # (L, n, g + w + 1, d_k)
        value[:, places],
        meet.unsqueeze(1),
        dropout=dropout,
    )
    return output.squeeze(2)


def _in_blocks(query, key, value, half, dilation, near, far, dropout) -> Tensor:
    far_key, far_value = (None, None) if far is None else (key[:, far], value[:, far])
    phases = [slice(phase, None, dilation) for phase in range(min(dilation, query.shape[1]))]
    outputs = [
        _undilated(
            query[:, phase],
            key[:, phase],
            value[:, phase],
            half,
            None if near is None else near[phase],
            far_key,
            far_value,
            dropout,
        )
        for phase in phases
    ]
    if len(outputs) == 1:
        return outputs[0]
    position = torch.arange(query.shape[1], device=query.device)
    order = torch.cat([position[phase] for phase in phases])
    return torch.cat(outputs, dim=1)[:, order.argsort()]


def _undilated(query, key, value, half, near, far_key, far_value, dropout) -> Tensor:
    n = query.shape[1]
    block = min(max(half, _LEAST_BLOCK), n)
    size = half + block + half  # what a block of queries may meet
    if near is None and far_key is None and half > 0 and n >= 2 * half + block:
        return _undilated_and_unmasked(query, key, value, half, block, dropout)
    near = query.new_ones(n, dtype=torch.bool) if near is None else near
    count = -(-n // block)
    rest = count * block - n

    def blocks(x: Tensor) -> Tensor:  # (L, n, d) to (count, L, size, d), a view that overlaps
        x = F.pad(x, (0, 0, half, rest + half))
        return x.unfold(1, size, block).permute(1, 0, 3, 2)

    queries = F.pad(query, (0, 0, 0, rest)) if rest else query  # which saves a copy
    queries = queries.unflatten(1, (count, block)).transpose(0, 1)  # (count, L, block, d_k)
    keys, values = blocks(key), blocks(value)
    meet = F.pad(near, (half, rest + half)).unfold(0, size, block)  # (count, size)
    place = torch.arange(size, device=query.device)
    offset = place - half - place[:block, None]  # (block, size): the key's place less the query's
    meet = meet[:, None] & (offset.abs() <= half)  # (count, block, size)

    if far_key is not None and far_key.shape[1]:
        keys = torch.cat([far_key.expand(count, -1, -1, -1), keys], dim=2)
        values = torch.cat([far_value.expand(count, -1, -1, -1), values], dim=2)
        meet = F.pad(meet, (far_key.shape[1], 0), value=True)
    output = fast_attention(queries, keys, values, meet[:, None], dropout=dropout)
    # (count, L, block, d_v) to (n, L, d_v), a view of what the kernel wrote, to (L, n, d_v)
    return output.transpose(1, 2).flatten(0, 1)[:n].transpose(0, 1)


def _undilated_and_unmasked(query, key, value, half, block, dropout) -> Tensor:
    """`_undilated` where every key is real: one small mask for all blocks of queries.

    But for the first w/2 queries and the last, for which there are fewer keys: each of these is an
    attention by itself. So nothing has to be padded, and no mask has n rows.
    """
    inputs = (query, key, value)
    if not torch.compiler.is_compiling() and not _under_a_transform():
        if not (torch.is_grad_enabled() and any(x.requires_grad for x in inputs)):
            return _in_turn(*inputs, half, block, dropout)
        if query.dtype != torch.float64 and not dropout:  # else a second derivative, and chance
            dtype = _dtype_here(query)  # autocast's, of which the backward pass will not know
            return _InTurn.apply(*(x.to(dtype) for x in inputs), half, block)
    pieces = _pieces(*inputs, half, block, most=query.shape[1])
    outputs = [_piece(*cut, half, dropout).transpose(0, 1) for _, cut in pieces]
    return torch.cat(outputs).transpose(0, 1)


def _pieces(query, key, value, half, block, most):
    """Cut in pieces: yield the places of each, and what `_piece` is given of it.

    The first w/2 queries are one, the last w/2 or more another, and between them stand whole
    blocks, at least one and at most `most` queries to a piece.
    """
    n = query.shape[1]
    last = n - half - (n - 2 * half) % block
    starts = range(half, last, max(most // block, 1) * block)
    for start, stop in zip((0, *starts, last), (*starts, last, n), strict=True):
        size = block if half <= start < last else stop - start
        queries, keys = slice(start, stop), slice(max(start - half, 0), stop + half)
        cut = query[:, queries], key[:, keys], value[:, keys], start - keys.start, size
        yield (queries, keys), cut


def _piece(query, key, value, before: int, block: int, half: int, dropout: float) -> Tensor:
    """Some queries (L, ·, d_k), by blocks that share one mask; `before` keys stand before them."""
    size = key.shape[1] - query.shape[1] + block  # what a block may meet
    place = torch.arange(size, device=query.device)
    offset = place - before - place[:block, None]  # (block, size): the key's place less its own

    def blocks(x: Tensor) -> Tensor:  # (L, ·, d) to (count, L, size, d), a view that overlaps
        return x.unfold(1, size, block).permute(1, 0, 3, 2)

    output = fast_attention(
        query.unflatten(1, (-1, block)).transpose(0, 1),  # (count, L, block, d_k)
        blocks(key),
        blocks(value),
        offset.abs() <= half,
        dropout=dropout,
    )
    return output.transpose(1, 2).flatten(0, 1).transpose(0, 1)  # as the kernel wrote it


def _in_turn(query, key, value, half, block, dropout) -> Tensor:
    """The pieces one after the other, each in the memory that the one before has left."""
    # A smaller block meets fewer keys in vain; backward, each block costs gradients of its own.
    block = max(block // 4, min(block, _LEAST_BLOCK))
    output = None
    for (queries, *_), cut in _pieces(query, key, value, half, block, _PIECE):
        piece = _piece(*cut, half, dropout)
        if output is None:  # now the dtype is known; in memory (n, L, d_v), as the kernel writes
            output = piece.new_empty(query.shape[1], *piece.shape[::2]).transpose(0, 1)
        output[:, queries] = piece
    return output


class _InTurn(torch.autograd.Function):
    """`_in_turn` with a backward pass that goes piece by piece as well.

    Each piece is computed again and its gradients are added to those of its queries and keys. So
    none of what autograd and the kernel need between, about three gradients for every key, is
    there for more than one piece. It has a first derivative only.
    """

    @staticmethod
    def forward(ctx, query, key, value, half, block):
        ctx.save_for_backward(query, key, value)
        ctx.sizes = half, block
        return _in_turn(query, key, value, half, block, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        inputs, (half, block) = ctx.saved_tensors, ctx.sizes
        # a query is in one piece, a key may be in several
        totals = [torch.empty_like(inputs[0]), *map(torch.zeros_like, inputs[1:])]
        for places, (query, key, value, *sizes) in _pieces(*inputs, half, block, _PIECE):
            piece = [x.detach().requires_grad_() for x in (query, key, value)]
            with torch.enable_grad():
                output = _piece(*piece, *sizes, half, 0.0)
            found = torch.autograd.grad(output, piece, gradient[:, places[0]])
            totals[0][:, places[0]] = found[0]
            for total, part in zip(totals[1:], found[1:], strict=True):
                total[:, places[1]] += part
        return *totals, None, None


# How many queries are a piece: enough for the kernel to have work, few enough for caches.
_PIECE = 1536
# Smaller blocks cost more calls inside the kernel than they save.
_LEAST_BLOCK = 16


def _attend(windows, query, key, value, window, dilation, masks, own, dropout) -> Tensor:
    """Validate; then, for each row of the masks, all windows and the rows of global tokens."""
    dtype = _validate(query, key, value, None, dropout)
    *leading, n, _ = query.shape
    if key.shape[-2] != n:
        raise ValueError(f"key: expected query's n = {n}, got {key.shape[-2]}")
    _validate_window(n, window, dilation)
    for name, mask in masks.items():
        if mask is not None:
            _validate_mask(name, mask, n, query)
    own = _validate_own(query, key, value, own)
    if 0 in leading:
        return torch.zeros_like(value, dtype=dtype)

    # A row of the masks belongs to `depth` of the leading dimensions; the others share it.
    key_mask, global_mask = (_squeeze(mask) for mask in masks.values())
    if global_mask is not None:  # else nothing is read from the device, for torch.compile
        key_mask, global_mask = _shared(key_mask), _shared(global_mask)
    depth = max([0, *(mask.ndim - 1 for mask in (key_mask, global_mask) if mask is not None)])
    count, each = math.prod(leading[:depth]), math.prod(leading[depth:])
    inputs = [x.reshape(count, each, *x.shape[-2:]) for x in (query, key, value, *own)]
    key_rows, global_rows = (
        [None] * count if mask is None else _expand(mask, leading[:depth]).reshape(count, n)
        for mask in (key_mask, global_mask)
    )
    half = min(window // 2, (n - 1) // dilation)  # no key lies further away
    # one row is a view whose gradient is one too; the gradients of several are copied together
    rows = [x.unbind() if count > 1 else [x.squeeze(0)] for x in inputs]
    outputs = [
        _attend_row(windows, *row, half, dilation, dropout)
        for row in zip(*rows, key_rows, global_rows, strict=True)
    ]
    whole = torch.stack(outputs) if count > 1 else outputs[0]  # which saves a copy
    return whole.reshape(value.shape)


def _attend_row(
    windows, query, key, value, g_query, g_key, g_value, real, is_global, half, dilation, dropout
) -> Tensor:
    """One row of the masks: query (L, n, d_k), and the others likewise; masks (n,) or None."""
    if is_global is None:
        return windows(query, key, value, half, dilation, real, None, dropout)
    near = query.new_ones(query.shape[1], dtype=torch.bool) if real is None else real
    # A global key stands beside the window, so it must not stand in it as well.
    far = (near & is_global).nonzero().squeeze(1)
    output = windows(query, key, value, half, dilation, near & ~is_global, far, dropout)
    rows = is_global.nonzero().squeeze(1)  # (g,)
    if not len(rows):
        return output
    attend = scaled_dot_product_attention if windows is _gathered else fast_attention
    mask = None if real is None else real[None]
    return output.index_copy(
        1, rows, attend(g_query[:, rows], g_key, g_value, mask, dropout=dropout)
    )


def _squeeze(mask: Tensor | None) -> Tensor | None:
    """As boolean, and without the last leading dimensions where they are 1: fewer rows, that is."""
    while mask is not None and mask.ndim > 1 and mask.shape[-2] == 1:
        mask = mask.squeeze(-2)
    return None if mask is None else mask != 0


def _shared(mask: Tensor | None) -> Tensor | None:
    """One row for all, where all rows are alike."""
    if mask is None:
        return None
    rows = mask.reshape(-1, mask.shape[-1])
    return rows[0] if bool((rows == rows[0]).all()) else mask


def _expand(mask: Tensor, leading: list[int]) -> Tensor:
    """Give each of these leading dimensions its rows of a mask that has the first of them."""
    ones = (1,) * (len(leading) - mask.ndim + 1)
    return mask.reshape(*mask.shape[:-1], *ones, mask.shape[-1]).expand(*leading, -1)


# Validation

_MASKS = (torch.bool, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _validate_window(n: int, window: int, dilation: int) -> None:
    for name, size in {"n": n, "dilation": dilation}.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name}: expected an integer of at least 1, got {size!r}")
    if not isinstance(window, int) or isinstance(window, bool) or window < 2 or window % 2:
        raise ValueError(f"window: expected an even integer of at least 2, got {window!r}")


def _validate_mask(name: str, mask: Tensor, n: int, query: Tensor | None = None) -> None:
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(mask).__name__}")
    if mask.dtype not in _MASKS:
        raise ValueError(f"{name}: expected a boolean or integer dtype, got {mask.dtype}")
    if query is not None and mask.device != query.device:
        raise ValueError(f"{name}: expected query's device {query.device}, got {mask.device}")
    leading = mask.shape[:-1] if query is None else query.shape[:-2]
    if (
        not 1 <= mask.ndim <= len(leading) + 1
        or mask.shape[-1] != n
        or any(a not in (1, b) for a, b in zip(mask.shape[:-1], leading, strict=False))
    ):
        first = "..." if query is None else f"the first of {tuple(leading)}, each in full or 1"
        raise ValueError(f"{name}: expected shape ({first}, n = {n}), got {tuple(mask.shape)}")


def _validate_own(query, key, value, own: dict[str, Tensor | None]) -> tuple[Tensor, ...]:
    """What global tokens attend with: these three, or those of all tokens."""
    given = [name for name, x in own.items() if x is not None]
    if not given:
        return query, key, value
    if len(given) < 3:
        raise ValueError(f"{', '.join(own)}: expected all three or none, got {', '.join(given)}")
    for (name, x), like in zip(own.items(), (query, key, value), strict=True):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
        for what in ("shape", "dtype", "device"):
            wanted, got = getattr(like, what), getattr(x, what)
            if wanted != got:
                raise ValueError(f"{name}: expected the {what} {_plain(wanted)}, got {_plain(got)}")
    return tuple(own.values())


def _plain(x):
    return tuple(x) if isinstance(x, torch.Size) else x
