"""Scaled dot-product attention: the formula, its masks, a fused version and a tiled one.

Derived in chapter 02_attention.

Shapes are written with n_q queries, n_k keys (each with its value), d_k features of a query or key,
d_v features of a value, and "..." for leading dimensions such as batch and head.

Three functions compute the same thing:

* `scaled_dot_product_attention`: the formula as the paper has it; can return the weights;
* `fast_attention`: through torch's fused kernels, the one to use in a model;
* `online_softmax_attention`: one block of keys at a time, which is how those kernels save memory.

`MultiHeadAttention` is the module made of them (chapter 03_multi_head).

They share one contract:

* Inputs. `query` (..., n_q, d_k), `key` (..., n_k, d_k), `value` (..., n_k, d_v), with the same
  leading dimensions, one device, and one dtype: float64, float32, bfloat16 or float16. Lengths and
  features are at least 1; a leading dimension may be 0. Nothing broadcasts but the mask.
* Mask. Boolean, True = this query may attend to this key; or a bias of the inputs' dtype, added to
  the logits, where -inf forbids. Its shape broadcasts to (..., n_q, n_k), so **a mask with two
  dimensions is (n_q, n_k)**, never (batch, n_k): write `mask[:, None, :]` for that.
* A query that may attend to nothing gets zeros, in the output and in every gradient.
* Precision. float16 and bfloat16 are computed in float32 and rounded once, at the end; float64
  stays float64. Under autocast inputs may differ in dtype and the result has autocast's dtype,
  but the arithmetic is float32 all the same.
* NaN and infinity are not hidden: they propagate as IEEE arithmetic has it. A forbidden key has
  weight 0, and 0 x NaN is NaN, so padding must hold finite numbers.
* Errors. ValueError, in one line with what was expected and what came, for a wrong shape, dtype,
  device or option; TypeError for something that is no tensor. Only metadata is looked at, never
  values: no device synchronisation, and `torch.compile(fullgraph=True)` and `torch.vmap` work.
"""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lib.cache import KVCache

__all__ = [
    "MultiHeadAttention",
    "causal_mask",
    "fast_attention",
    "merge_heads",
    "online_softmax_attention",
    "padding_mask",
    "scaled_dot_product_attention",
    "split_heads",
]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    dropout: float = 0.0,
    return_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Mix the values, each weighted by how well its key matches the query.

        Attention(Q, K, V) = softmax(Q Kᵀ / √d_k) V

    Parameters
    ----------
    query : (..., n_q, d_k)
    key : (..., n_k, d_k)
    value : (..., n_k, d_v)
    mask : broadcastable to (..., n_q, n_k), optional
        Boolean, True = may attend; or a float bias added to the logits before the softmax.
    dropout : float in [0, 1)
        Probability with which a weight is dropped, after the softmax; the others are divided by
        1 - dropout. Applied whenever it is positive: a module passes 0.0 in evaluation mode.
        Under `torch.vmap` it needs vmap's `randomness=`, as every random operation does.
    return_weights : bool
        Return (output, weights) with weights (..., n_q, n_k): the matrix that multiplied the
        values, so after dropout. Without dropout its rows sum to one, or to zero where a query
        may attend to nothing.

    Returns
    -------
    output : (..., n_q, d_v), in the inputs' dtype (autocast's under autocast)

    Raises
    ------
    ValueError
        A shape, dtype, device or `dropout` is wrong; the message names expected and got.
    TypeError
        An input is not a tensor.

    Source
    ------
    Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762, section 3.2.1, equation 1.

    Deviations from the source: the mask is an argument (the paper sets illegal logits to -inf in
    section 3.2.3); a query with nothing to attend to gets zeros, where the formula gives 0/0;
    the paper names no dropout on the weights (section 5.4), its authors' code has it.

    Derived in chapter 02_attention.

    Examples
    --------
    Two keys, equally far from the query: the output is the mean of their values.

    >>> query, key = torch.zeros(1, 4), torch.ones(2, 4)
    >>> value = torch.tensor([[1.0, 10.0, 100.0], [3.0, 30.0, 300.0]])
    >>> scaled_dot_product_attention(query, key, value)
    tensor([[  2.,  20., 200.]])

    With the second key forbidden, only the first value is left.

    >>> scaled_dot_product_attention(query, key, value, torch.tensor([[True, False]]))
    tensor([[  1.,  10., 100.]])
    """
    dtype = _validate(query, key, value, mask, dropout)
    with _full_precision(query):
        query, key, value = (_upcast(x) for x in (query, key, value))

        logits = query @ key.mT / math.sqrt(query.shape[-1])  # (..., n_q, n_k)
        if mask is None:
            weights = logits.softmax(dim=-1)
        else:
            empty = _empty_rows(mask)  # (..., n_q, 1), or broadcastable to it
            logits = _apply_mask(logits, mask).masked_fill(empty, 0.0)  # finite, so no 0/0
            weights = logits.softmax(dim=-1).masked_fill(empty, 0.0)
        if dropout > 0.0:
            weights = F.dropout(weights, dropout)
        output = weights @ value  # (..., n_q, d_v)

    output = output.to(dtype)
    return (output, weights.to(dtype)) if return_weights else output


def causal_mask(
    n_q: int, n_k: int | None = None, *, device: torch.device | str | None = None
) -> Tensor:
    """Boolean mask (n_q, n_k) that hides the future: True where key j is not later than query i.

        mask[i, j] = (j ≤ i + n_k − n_q)

    The last query is aligned with the last key (bottom right). With n_q = n_k, the default, this is
    the lower triangle. With n_q < n_k the queries are the last n_q positions of the sequence, as in
    decoding with a cache of earlier keys. With n_q > n_k the first n_q − n_k queries come before
    every key: their rows are all False, and attention gives them zeros.

    Raises ValueError for a length that is not an integer or is below 1.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3; the alignment is ours, and differs
    from `is_causal=True` of torch's function, which aligns the first query with the first key.
    Derived in chapter 02_attention.

    >>> causal_mask(3).int()
    tensor([[1, 0, 0],
            [1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)
    >>> causal_mask(2, 4).int()
    tensor([[1, 1, 1, 0],
            [1, 1, 1, 1]], dtype=torch.int32)
    """
    n_k = n_q if n_k is None else n_k
    _validate_size("n_q", n_q)
    _validate_size("n_k", n_k)
    return torch.ones(n_q, n_k, dtype=torch.bool, device=device).tril(diagonal=n_k - n_q)


def padding_mask(lengths: Tensor, n: int) -> Tensor:
    """Boolean mask (B, n) of the real tokens: True at position j of sequence b if j < lengths[b].

    Parameters
    ----------
    lengths : (B,) integer tensor, or a sequence of B integers
        How many tokens of each sequence are real; padding follows them. 0 gives a row of False, and
        a length of n or more a row of True: values are not checked, that would synchronise.
    n : int
        The padded length.

    The result has one row for each *sequence*, so it has to be told which dimension is the query:
    give it one of size 1. Left as it is, (B, n) would be read as (n_q, n_k), which raises a
    ValueError unless B = n_q, and then is silently wrong.

    Raises ValueError if `lengths` is not one-dimensional or not of integers, or if n is below 1.
    Derived in chapter 02_attention.

    >>> real = padding_mask(torch.tensor([2, 3]), 4)
    >>> real.int()
    tensor([[1, 1, 0, 0],
            [1, 1, 1, 0]], dtype=torch.int32)
    >>> x, heads = torch.randn(2, 4, 8), torch.randn(2, 5, 4, 8)
    >>> scaled_dot_product_attention(x, x, x, real[:, None, :]).shape
    torch.Size([2, 4, 8])
    >>> scaled_dot_product_attention(heads, heads, heads, real[:, None, None, :]).shape
    torch.Size([2, 5, 4, 8])

    Masks combine with &, here padding and the future:

    >>> (real[:, None, :] & causal_mask(4)).shape
    torch.Size([2, 4, 4])
    """
    lengths = torch.as_tensor(lengths)
    if lengths.ndim != 1:
        raise ValueError(f"lengths: expected shape (B,), got {tuple(lengths.shape)}")
    if lengths.dtype not in _INTEGERS:
        raise ValueError(f"lengths: expected an integer dtype, got {lengths.dtype}")
    _validate_size("n", n)
    return torch.arange(n, device=lengths.device) < lengths[:, None]  # (n,) < (B, 1) = (B, n)


def fast_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """Compute `scaled_dot_product_attention` with torch's fused kernels.

    Takes and returns the same shapes and dtypes, raises the same errors, and gives zeros for a
    query with nothing to attend to, with any kernel that torch chooses. What differs:

    * causal : bool
        The same as the mask `causal_mask(n_q, n_k)`, together with `mask` if one is given. Without
        a mask and with n_q = n_k, or with one query, no mask is made: that is the fastest case.
    * There is no `return_weights`: a fused kernel never holds the weights as a whole.
    * Fused kernels have a first derivative only, and on a CPU no rule for `torch.vmap`. Inputs in
      float64, and anything under a transform of `torch.func`, therefore go through torch's
      composed kernel, which has both and holds the (..., n_q, n_k) weights. So does what torch has
      no fused kernel for: on a CPU dropout, d_v ≠ d_k, and a bias that wants a gradient.
    * Fused kernels add up in float32, but may round the weights to the inputs' dtype before they
      meet the values; under autocast the inputs are rounded to autocast's dtype first.
    * Dropout draws other random numbers from the same seed.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1, equation 1; the algorithm is that
    of Dao et al. 2022, "FlashAttention", arXiv:2205.14135, through
    `torch.nn.functional.scaled_dot_product_attention`.
    Derived in chapter 02_attention.

    >>> x = torch.randn(2, 3, 5, 7)
    >>> want = scaled_dot_product_attention(x, x, x, causal_mask(5))
    >>> torch.allclose(fast_attention(x, x, x, causal=True), want, atol=1e-6)
    True
    """
    _validate(query, key, value, mask, dropout)
    n_q, n_k = query.shape[-2], key.shape[-2]

    if causal and mask is None and n_q > 1 and n_q != n_k:
        mask = causal_mask(n_q, n_k, device=query.device)
    elif causal and mask is not None:
        mask = _apply_causal(mask, n_q, n_k)
    is_causal = causal and mask is None and n_q > 1  # one query is the last: it sees every key
    if mask is None and query.ndim == 4:  # nothing to prepare, nothing to mend
        with _kernels_for(query):
            return F.scaled_dot_product_attention(
                query, key, value, dropout_p=dropout, is_causal=is_causal
            )

    empty = None
    if mask is not None:
        empty = _empty_rows(mask)  # (..., n_q, 1), or broadcastable to it
        # Kernels differ on rows without a key, so none gets to see one: open it, zero it below.
        mask = mask | empty if mask.dtype == torch.bool else mask.masked_fill(empty, 0.0)

    with _kernels_for(query):
        output = F.scaled_dot_product_attention(
            *_as_four_dimensional(query, key, value, mask), dropout_p=dropout, is_causal=is_causal
        )
    output = output.reshape(*query.shape[:-1], value.shape[-1])  # (..., n_q, d_v)
    return output if empty is None else output.masked_fill(empty, 0.0)


def online_softmax_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    block_size: int = 128,
) -> Tensor:
    """Compute `scaled_dot_product_attention` one block of keys at a time.

    Each query carries three running quantities over the blocks, and after every block they hold
    what they would hold had the sequence ended there (s_j is the logit of key j, masked):

        m = max_j s_j      ℓ = Σ_j exp(s_j − m)      a = Σ_j exp(s_j − m) v_j

    A block with a larger maximum m′ rescales what came before by exp(m − m′), and the output is
    a / ℓ. Every exponent is ≤ 0, so no logit is too large.

    Shapes, dtypes and errors are those of `scaled_dot_product_attention`, without dropout;
    `block_size`, an integer ≥ 1, is the number of keys in a block and does not change the result
    but for rounding. Beside copies of the inputs and the output, no tensor is larger than
    (..., n_q, block_size): the weights (..., n_q, n_k) are never made. That is the memory of a
    forward pass; where gradients are wanted, autograd keeps every block until the backward pass.
    Fused kernels compute the blocks again instead.

    Source: Milakov & Gimelshein 2018, "Online normalizer calculation for softmax",
    arXiv:1805.02867, algorithm 3 (m and ℓ); Rabe & Staats 2021, "Self-attention Does Not Need O(n²)
    Memory", arXiv:2112.05682 (a); Dao et al. 2022, arXiv:2205.14135, algorithm 1.
    Deviations: blocks of keys only, not of queries; masks; a query with nothing to attend to.
    Derived in chapter 02_attention.

    >>> query, key, value = torch.randn(3, 4), torch.randn(7, 4), torch.randn(7, 5)
    >>> got = online_softmax_attention(query, key, value, block_size=2)
    >>> torch.allclose(got, scaled_dot_product_attention(query, key, value), atol=1e-6)
    True
    """
    dtype = _validate(query, key, value, mask, 0.0)
    _validate_size("block_size", block_size)
    n_k = key.shape[-2]
    if mask is not None:
        mask = mask.expand(*mask.shape[:-1], n_k)  # a view, so that blocks of it can be cut

    with _full_precision(query):
        query, key, value = (_upcast(x) for x in (query, key, value))
        maximum = query.new_full((*query.shape[:-1], 1), -math.inf)  # m: (..., n_q, 1)
        normaliser = query.new_zeros((*query.shape[:-1], 1))  # ℓ: (..., n_q, 1)
        accumulator = query.new_zeros((*query.shape[:-1], value.shape[-1]))  # a: (..., n_q, d_v)

        for start in range(0, n_k, block_size):
            block = slice(start, start + block_size)
            logits = query @ key[..., block, :].mT / math.sqrt(query.shape[-1])  # (..., n_q, block)
            if mask is not None:
                logits = _apply_mask(logits, mask[..., block])

            # The result does not depend on m (shift invariance), so neither does its gradient.
            new_maximum = torch.maximum(maximum, logits.amax(dim=-1, keepdim=True)).detach()
            # Where no key was allowed yet, m is -inf: shift by 0, as -inf - (-inf) would be NaN.
            shift = new_maximum.masked_fill(new_maximum == -math.inf, 0.0)
            rescale = torch.exp(maximum - shift)  # (..., n_q, 1)
            terms = torch.exp(logits - shift)  # (..., n_q, block)

            normaliser = rescale * normaliser + terms.sum(dim=-1, keepdim=True)
            accumulator = rescale * accumulator + terms @ value[..., block, :]
            maximum = new_maximum

        if mask is not None:
            empty = _empty_rows(mask)  # there ℓ = 0 and a = 0
            normaliser = normaliser.masked_fill(empty, 1.0)
            accumulator = accumulator.masked_fill(empty, 0.0)
        return (accumulator / normaliser).to(dtype)  # (..., n_q, d_v)


class MultiHeadAttention(nn.Module):
    """Attend h times side by side, each head in a subspace of its own, and add up what they find.

        head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V)              d_head = d_model / h features
        MultiHead(Q, K, V) = Concat(head_1, …, head_h) W^O = Σ_i head_i W_i^O

    Parameters
    ----------
    d_model : int
        Features of a token, in and out.
    num_heads : int
        h, a divisor of d_model. It changes no parameter count: 4 d_model², and 4 d_model biases.
    dropout : float in [0, 1)
        On the weights after the softmax, in training mode only.
    bias : bool
        Whether the four projections add one; the paper writes none, most code has it.
    d_head : int, optional
        Features of a head, where they are not d_model / h: the projections then are
        d_model × h · d_head, and num_heads need not divide. T5 has it.
    scaled : bool
        Whether logits are divided by √d_head. T5 does not, and draws its queries smaller instead.

    Attributes: `query_projection`, `key_projection`, `value_projection`, `output_projection`, each
    an `nn.Linear`, d_model to h · d_head and back, which stores the transpose of the paper's
    matrix. Head i owns the rows i · d_head … (i + 1) · d_head − 1 of the first three weights
    (W_i^Q, W_i^K, W_i^V) and the same columns of the last (W_i^O): zero those columns, and the head
    is gone from the sum.
    They begin as Glorot's uniform matrices, so that tokens of unit variance make queries and keys
    of unit variance, and biases begin at 0.

    Shapes in `forward`: query (B, n_q, d_model), key and value (B, n_k, d_model), output
    (B, n_q, d_model); lengths at least 1, B may be 0. Precision, empty rows, NaN and autocast are
    as in `scaled_dot_product_attention`, which computes each head; without `return_weights` it is
    done by `fast_attention`. A query that may attend to nothing thus gets the bias of the output.

    Raises
    ------
    ValueError
        A size, `dropout`, or an input's shape, dtype or device is wrong; the message names expected
        and got.
    TypeError
        An input is not a tensor.

    Source
    ------
    Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762, section 3.2.2.

    Deviations from the source: d_k = d_v always, and = d_model / h unless told otherwise, as in all
    its models but those of Table 3(B); biases and dropout are options; the sum over heads is the
    same by block multiplication.

    Derived in chapter 03_multi_head.

    Examples
    --------
    >>> attend = MultiHeadAttention(d_model=12, num_heads=3)
    >>> x, memory = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    >>> attend(x).shape
    torch.Size([2, 5, 12])
    >>> output, weights = attend(x, memory, return_weights=True)
    >>> weights.shape
    torch.Size([2, 3, 5, 7])
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        d_head: int | None = None,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        _validate_size("d_model", d_model)
        _validate_size("num_heads", num_heads)
        if d_head is not None:
            _validate_size("d_head", d_head)
        elif d_model % num_heads:
            raise ValueError(
                f"num_heads: expected a divisor of d_model = {d_model}, got {num_heads}"
            )
        if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a number in [0, 1), got {dropout!r}")
        self.d_model, self.num_heads, self.dropout = d_model, num_heads, dropout
        self.d_head, self.scaled = d_head or d_model // num_heads, scaled
        width = num_heads * self.d_head  # d_model, unless d_head says otherwise
        self.query_projection = nn.Linear(d_model, width, bias=bias)
        self.key_projection = nn.Linear(d_model, width, bias=bias)
        self.value_projection = nn.Linear(d_model, width, bias=bias)
        self.output_projection = nn.Linear(width, d_model, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for projection in self.children():
            nn.init.xavier_uniform_(projection.weight)
            if projection.bias is not None:
                nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        return_weights: bool = False,
        cache: KVCache | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend from query to key and value.

        Parameters
        ----------
        query : (B, n_q, d_model)
        key : (B, n_k, d_model), optional
            Left out, it is the query: self-attention. Given, cross-attention.
        value : (B, n_k, d_model), optional
            Left out, it is the key.
        mask : optional
            Boolean, True = may attend, or a float bias. By its number of dimensions:

            * up to 2, (n_q, n_k): for all samples and heads;
            * 3, (B, n_q, n_k): **a mask for each sample**, for all its heads. Plain broadcasting
              would read the first dimension as heads, silently so where B = h;
            * 4, (B, h, n_q, n_k): as it is; (1, h, n_q, n_k) is a mask for each head.

            Any of these sizes may be 1, so `padding_mask(lengths, n)[:, None]`, (B, 1, n_k), hides
            padding.
        causal : bool
            Hide the future as well, as `causal_mask(n_q, n_k)` does; faster than passing that.
        return_weights : bool
            Return (output, weights) with weights (B, h, n_q, n_k), after dropout if there is any.
        cache : KVCache, optional
            In self-attention (no key given) the queries stand behind all that has been read, and
            attend to it too: n_k counts the tokens kept and the new ones, in `mask` and in
            `weights`. In cross-attention keys and values are those of the first call.
        """
        memory = None if cache is None or key is None else cache.memory(self)
        appends = cache is not None and key is None
        key = query if key is None else key
        value = key if value is None else value
        self._validate(query, key, value)
        mask = _mask_of_heads(mask, query.shape[0])
        dropout = self.dropout if self.training else 0.0

        q = split_heads(self.query_projection(query), self.num_heads)  # (B, h, n_q, d_head)
        if not self.scaled:
            q = q * math.sqrt(self.d_head)  # by which attention will divide
        if memory is None:
            k = split_heads(self.key_projection(key), self.num_heads)  # (B, h, n_k, d_head)
            v = split_heads(self.value_projection(value), self.num_heads)  # (B, h, n_k, d_head)
        else:
            k, v = memory
        if appends:
            k, v = cache.extend(self, k, v)
        elif cache is not None and memory is None:
            cache.remember(self, k, v)
        if not return_weights:
            heads = fast_attention(q, k, v, mask, causal=causal, dropout=dropout)
            return self.output_projection(merge_heads(heads))

        if causal:
            n_q, n_k = q.shape[-2], k.shape[-2]
            past = causal_mask(n_q, n_k, device=q.device)
            mask = past if mask is None else _apply_causal(mask, n_q, n_k)
        heads, weights = scaled_dot_product_attention(
            q, k, v, mask, dropout=dropout, return_weights=True
        )
        return self.output_projection(merge_heads(heads)), weights

    def _validate(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        weight = self.query_projection.weight
        inputs = {"query": query, "key": key, "value": value}
        if value is key is query:  # self-attention
            inputs = {"query": query}
        for name, x in inputs.items():
            if not isinstance(x, Tensor):
                raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
            if x.device != weight.device:
                raise ValueError(
                    f"{name}: expected the module's device {weight.device}, got {x.device}"
                )
            if _dtype_here(x) != _dtype_here(weight):
                raise ValueError(
                    f"{name}: expected the module's dtype {weight.dtype}, got {x.dtype}"
                )
            if x.ndim != 3 or x.shape[1] < 1 or x.shape[2] != self.d_model:
                raise ValueError(
                    f"{name}: expected shape (B, n ≥ 1, {self.d_model}), got {tuple(x.shape)}"
                )
            if x.shape[0] != query.shape[0]:
                raise ValueError(
                    f"{name}: expected query's batch size {query.shape[0]}, got {x.shape[0]}"
                )
        if value.shape[1] != key.shape[1]:
            raise ValueError(f"value: expected key's n_k = {key.shape[1]}, got {value.shape[1]}")

    def extra_repr(self) -> str:
        return f"{self.d_model}, num_heads={self.num_heads}, dropout={self.dropout}"


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Cut the features of (B, n, d_model) into heads: (B, h, n, d_head), a view.

    Feature c of a token becomes feature c mod d_head of head c // d_head. Cutting comes before the
    swap: `x.view(B, h, n, d_head)` has the same shape and mixes tokens with heads.

    Derived in chapter 03_multi_head.
    """
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Put heads (B, h, n, d_head) side by side again: (B, n, d_model). Undoes `split_heads`.

    Derived in chapter 03_multi_head.
    """
    return x.transpose(1, 2).flatten(-2)


# Masks


def _mask_of_heads(mask: Tensor | None, batch: int) -> Tensor | None:
    """Give a mask of samples (B, n_q, n_k) its dimension of heads; leave every other as it is."""
    if not isinstance(mask, Tensor) or mask.ndim != 3:
        return mask  # None, or for the function to judge
    if mask.shape[0] not in (1, batch):
        raise ValueError(
            f"mask: expected (B, n_q, n_k) with B = {batch}, or (1, h, n_q, n_k) for a mask of "
            f"each head, got {tuple(mask.shape)}"
        )
    return mask.unsqueeze(1)


def _apply_mask(logits: Tensor, mask: Tensor) -> Tensor:
    """Forbid with -inf, so that exp gives exactly 0, whatever the size of the other logits."""
    if mask.dtype == torch.bool:
        return logits.masked_fill(~mask, -math.inf)
    return logits + mask


def _empty_rows(mask: Tensor) -> Tensor:
    """Which queries may attend to nothing: boolean, as the mask but with last dimension 1."""
    if mask.dtype == torch.bool:
        return ~mask.any(dim=-1, keepdim=True)
    return mask.amax(dim=-1, keepdim=True) == -math.inf


def _apply_causal(mask: Tensor, n_q: int, n_k: int) -> Tensor:
    """Hide the future in a boolean mask or in a bias."""
    past = causal_mask(n_q, n_k, device=mask.device)
    return mask & past if mask.dtype == torch.bool else mask.masked_fill(~past, -math.inf)


# Precision and kernels

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _dtype_here(x: Tensor) -> torch.dtype:
    """The dtype that a matrix product of x has: its own, or autocast's. Autocast spares float64."""
    device = x.device.type
    if x.dtype == torch.float64 or device == "meta" or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)


def _full_precision(x: Tensor):
    """Context in which autocast does not round what `_upcast` has widened."""
    if x.device.type == "meta":  # has shapes but no arithmetic, and no autocast
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def _upcast(x: Tensor) -> Tensor:
    """float16 and bfloat16 to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _kernels_for(x: Tensor):
    """Context without torch's fused kernels, for what they cannot do: see fast_attention."""
    if _under_a_transform() or x.dtype == torch.float64:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def _under_a_transform() -> bool:
    """Whether vmap, grad or another transform of torch.func is at work. torch has no public way."""
    return torch._C._functorch.peek_interpreter_stack() is not None


# Under torch.compile the answer of the time of tracing is a constant of the graph. This is what
# torch.compiler.assume_constant_result does, without the second that importing the compiler takes.
_under_a_transform._dynamo_marked_constant = True


def _as_four_dimensional(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None):
    """Give everything two leading dimensions: torch has fused kernels for (B, h, n, d) only."""
    leading = query.shape[:-2]
    two = (math.prod(leading[:-1]), leading[-1]) if leading else (1, 1)
    query, key, value = (x.reshape(*two, *x.shape[-2:]) for x in (query, key, value))
    if mask is not None and mask.ndim < 4:
        mask = mask[(None,) * (4 - mask.ndim)]
    elif mask is not None and len(leading) > 2:
        mask = mask.expand(*leading, *mask.shape[-2:]).reshape(*two, *mask.shape[-2:])
    return query, key, value, mask


# Validation


def _validate(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float
) -> torch.dtype:
    """Hold the inputs to the module's contract and return the dtype of the result."""
    if mask is None and dropout == 0.0 and _are_alike(query, key, value):
        return _dtype_here(query)
    inputs = {"query": query, "key": key, "value": value}
    tensors = inputs if mask is None else inputs | {"mask": mask}
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
        if x.device != query.device:
            raise ValueError(f"{name}: expected query's device {query.device}, got {x.device}")

    for name, x in inputs.items():
        if x.dtype not in _FLOATS:
            raise ValueError(
                f"{name}: expected float64, float32, bfloat16 or float16, got {x.dtype}"
            )
        if _dtype_here(x) != _dtype_here(query):
            raise ValueError(f"{name}: expected query's dtype {query.dtype}, got {x.dtype}")
        if x.ndim < 2:
            raise ValueError(f"{name}: expected shape (..., n, d), got {tuple(x.shape)}")
        if x.shape[:-2] != query.shape[:-2]:
            raise ValueError(
                f"{name}: expected query's leading dimensions {tuple(query.shape[:-2])}, "
                f"got {tuple(x.shape[:-2])}"
            )
        if x.shape[-2] < 1 or x.shape[-1] < 1:
            raise ValueError(
                f"{name}: expected length and features of at least 1, got shape {tuple(x.shape)}"
            )
    if key.shape[-1] != query.shape[-1]:
        raise ValueError(f"key: expected query's d_k = {query.shape[-1]}, got {key.shape[-1]}")
    if value.shape[-2] != key.shape[-2]:
        raise ValueError(f"value: expected key's n_k = {key.shape[-2]}, got {value.shape[-2]}")

    if mask is not None:
        if mask.dtype != torch.bool and (
            mask.dtype not in _FLOATS or _dtype_here(mask) != _dtype_here(query)
        ):
            raise ValueError(f"mask: expected torch.bool or {query.dtype}, got {mask.dtype}")
        logits_shape = (*query.shape[:-1], key.shape[-2])
        trailing = logits_shape[len(logits_shape) - mask.ndim :]
        if mask.ndim > len(logits_shape) or any(
            size not in (1, full) for size, full in zip(mask.shape, trailing, strict=True)
        ):
            raise ValueError(
                f"mask: expected a shape that broadcasts to (..., n_q, n_k) = {logits_shape}, "
                f"got {tuple(mask.shape)}"
            )

    if not isinstance(dropout, int | float) or not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout: expected a number in [0, 1), got {dropout!r}")
    return _dtype_here(query)


def _are_alike(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether one look says that all is well, as it nearly always is; else `_validate` looks on.

    The checks one by one take longer than attention itself over a few dozen tokens.
    """
    return (
        type(query) is type(key) is type(value) is Tensor
        and query.dtype == key.dtype == value.dtype
        and query.dtype in _FLOATS
        and query.device == key.device == value.device
        and key.shape == value.shape
        and query.ndim == key.ndim > 1
        and query.shape[:-2] == key.shape[:-2]
        and query.shape[-1] == key.shape[-1] > 0
        and query.shape[-2] > 0
        and key.shape[-2] > 0
    )


def _validate_size(name: str, size: int) -> None:
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {size!r}")
