"""Where a token stands: the fixed sinusoidal encoding, a learned one, and distances alone.

Derived in chapters 04_sinusoidal_encoding and 08_relative_positions.

Shapes are written with n positions and d_model features of a token; "..." are leading dimensions
such as the batch.

* `sinusoidal_encoding`: the paper's table of sines and cosines, a tensor (n, d_model);
* `SinusoidalEncoding`: a module that adds it to tokens; nothing is trained, any length works;
* `LearnedEncoding`: a trained table, as in BERT and GPT; it ends where the table ends;
* `relative_position_bucket`, `RelativePositionBias`: T5's trained number for each distance, added
  to the logits of attention and not to tokens; it never ends.

The two encodings share one contract:

* Input. Tokens (..., n, d_model) in float64, float32, bfloat16 or float16, n at least 1. `start` is
  the position of the first of them: 0, or with a cache of t earlier tokens, t. The learned table
  can also be asked for `positions`, where those of two sequences differ.
* Output. A new tensor, tokens plus positions, in the tokens' dtype; the input is not changed. The
  sum is formed in the wider of the two dtypes and rounded once.
* Only the sum: the paper multiplies embeddings by √d_model before it (section 3.4) and applies
  dropout after it (section 5.4), and both are left to the caller.
* NaN and infinity propagate as in any addition.
* Errors. ValueError, in one line with what was expected and what came. Only metadata is looked at,
  never values: no device synchronisation, and `torch.compile(fullgraph=True)` works.
"""

import math

import torch
from torch import Tensor, nn

__all__ = [
    "LearnedEncoding",
    "RelativePositionBias",
    "SinusoidalEncoding",
    "relative_position_bucket",
    "sinusoidal_encoding",
]


def sinusoidal_encoding(
    n: int,
    d_model: int,
    *,
    base: float = 10000.0,
    layout: str = "interleaved",
    start: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Encode n positions by sines and cosines of geometrically falling frequency.

        PE(p, 2i)     = sin(p · ω_i)
        PE(p, 2i + 1) = cos(p · ω_i)        ω_i = base^(−2i / d_model),  i = 0 … d_model/2 − 1

    Parameters
    ----------
    n : int ≥ 1
        How many positions.
    d_model : even int ≥ 2
        Features of a position: d_model/2 pairs of sine and cosine. An odd number is refused: the
        last sine would lack the cosine that turns with it, and with it every property of a pair.
    base : float > 1
        The wavelengths 2π/ω_i grow from 2π to almost base · 2π.
    layout : "interleaved" or "concatenated"
        As in the formula, sin cos sin cos …; or all sines, then all cosines, as in Marian. The same
        columns in another order: a model that learns what stands on top of them does not care, a
        checkpoint does.
    start : int ≥ 0
        The first position.
    dtype, device : optional
        Of the result; torch's defaults if left out.

    Returns
    -------
    encoding : (n, d_model), row r for position start + r; no gradient

    Precision: angles and their sines are computed on the CPU in float64 and rounded once, at the
    end, so every device gets the same table, also one without float64. An angle of p radians is off
    by about p · 2e-16: at position 10^5 a float32 entry is the nearest float32 (an angle formed in
    float32 would be off by .004), and a float64 entry is good to about 2e-11.

    Raises
    ------
    ValueError
        A size, `base`, `layout`, `start` or `dtype` is wrong; the message names expected and got.

    Source
    ------
    Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762, section 3.5.

    Deviations from the source: none in "interleaved". The paper leaves odd d_model open. Its
    authors' code (tensor2tensor) concatenates, spaces the frequencies by 1/(d_model/2 − 1) in place
    of 2/d_model, so that the last wavelength is 10000 · 2π itself, and pads an odd d_model with a
    zero: neither layout here is that table.

    Derived in chapter 04_sinusoidal_encoding.

    Examples
    --------
    >>> sinusoidal_encoding(3, 4)
    tensor([[ 0.0000,  1.0000,  0.0000,  1.0000],
            [ 0.8415,  0.5403,  0.0100,  0.9999],
            [ 0.9093, -0.4161,  0.0200,  0.9998]])
    >>> sinusoidal_encoding(1, 4, layout="concatenated")
    tensor([[0., 0., 1., 1.]])
    """
    _validate_size("n", n, 1)
    _validate_table(d_model, base, layout)
    _validate_size("start", start, 0)
    like = torch.empty(0, dtype=dtype, device=device)  # where these are None: torch's defaults
    if like.dtype not in _FLOATS:
        raise ValueError(f"dtype: expected float64, float32, bfloat16 or float16, got {dtype}")

    exact = {"dtype": torch.float64, "device": "cpu"}
    position = torch.arange(start, start + n, **exact)[:, None]  # (n, 1)
    wavelength = base ** (torch.arange(0, d_model, 2, **exact) / d_model)  # over 2π: (d_model/2,)
    angle = position / wavelength  # (n, d_model/2)
    pair = torch.stack([angle.sin(), angle.cos()], dim=-1)  # (n, d_model/2, 2)
    if layout == "concatenated":
        pair = pair.mT  # (n, 2, d_model/2)
    return pair.reshape(n, d_model).to(like)


class SinusoidalEncoding(nn.Module):
    """Add `sinusoidal_encoding` to tokens.

        forward(x, start=0) = x + PE[start : start + n]

    Parameters
    ----------
    d_model, base, layout :
        As for `sinusoidal_encoding`.
    max_length : int ≥ 1
        How many positions are kept in a table. It bounds nothing: positions past it are computed
        when they come, which is slower. Unlike a learned table, the formula has no end.

    No parameters, and nothing in the state dict. The table is a buffer; moving the module to
    another dtype or device computes it again, so that it is as exact there as if made there.

    Raises ValueError for what `sinusoidal_encoding` refuses, for `max_length` below 1, and in
    `forward` for a wrong shape, dtype or device of x, or a negative `start`.

    Source: Vaswani et al. 2017, arXiv:1706.03762, sections 3.4 and 3.5: added once, at the bottom
    of a stack. Derived in chapter 04_sinusoidal_encoding.

    >>> encode = SinusoidalEncoding(4)
    >>> x = torch.zeros(2, 3, 4)
    >>> torch.equal(encode(x)[1], sinusoidal_encoding(3, 4))
    True
    >>> torch.equal(encode(x[:, :1], start=2), encode(x)[:, 2:])
    True
    """

    def __init__(
        self,
        d_model: int,
        max_length: int = 1024,
        *,
        base: float = 10000.0,
        layout: str = "interleaved",
    ) -> None:
        super().__init__()
        _validate_size("max_length", max_length, 1)
        self.d_model, self.max_length, self.base, self.layout = d_model, max_length, base, layout
        self.register_buffer("table", self._encode(0, max_length), persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Tokens x (..., n, d_model) at positions start … start + n − 1; the same shape out."""
        _validate_tokens(x, self.d_model, start, self.table)
        end = start + x.shape[-2]
        if end <= self.max_length:
            encoding = self.table[start:end]  # (n, d_model)
        else:
            encoding = self._encode(start, end, dtype=self.table.dtype, device=x.device)
        return (x + encoding).to(x.dtype)

    def _encode(self, start: int, end: int, **options) -> Tensor:
        return sinusoidal_encoding(
            end - start, self.d_model, base=self.base, layout=self.layout, start=start, **options
        )

    def _apply(self, fn, recurse: bool = True):
        """What every move to a dtype or device goes through: compute again, where torch casts."""
        super()._apply(fn, recurse)
        self.table = self._encode(
            0, self.max_length, dtype=self.table.dtype, device=self.table.device
        )
        return self

    def extra_repr(self) -> str:
        return f"{self.d_model}, max_length={self.max_length}, base={self.base}, {self.layout}"


class LearnedEncoding(nn.Module):
    """Add a trained vector for each position to tokens.

        forward(x, start=0) = x + W[start : start + n],        W: (max_length, d_model), trained

    Parameters
    ----------
    max_length : int ≥ 1
        Rows of the table. A position past the last one has no vector, and asking for it is a
        ValueError: nothing that was trained says what it should be.
    d_model : int ≥ 1
        Features of a token; odd numbers are as good as even ones here.
    std : float ≥ 0
        The table begins normal with mean 0 and this standard deviation (.02, as in BERT's code).

    The only parameter is `weight`, named and shaped as in `nn.Embedding`, so that a checkpoint's
    table of positions loads by its name.

    Raises ValueError for a wrong size or `std`, and in `forward` for a wrong shape, dtype or device
    of x, a negative `start`, or a position past the table.

    Source: Gehring et al. 2017, "Convolutional Sequence to Sequence Learning", arXiv:1705.03122,
    section 3.1, to which Vaswani et al. 2017, section 3.5, compare the sinusoids (their Table 3,
    row E); Devlin et al. 2019, arXiv:1810.04805, use it.
    Derived in chapter 04_sinusoidal_encoding.

    >>> encode = LearnedEncoding(5, 3)
    >>> x = torch.zeros(2, 4, 3)
    >>> torch.equal(encode(x)[0], encode.weight[:4])
    True
    >>> encode(x, start=2)
    Traceback (most recent call last):
        ...
    ValueError: x: expected positions below max_length = 5, got 2 to 5
    """

    def __init__(self, max_length: int, d_model: int, *, std: float = 0.02) -> None:
        super().__init__()
        _validate_size("max_length", max_length, 1)
        _validate_size("d_model", d_model, 1)
        if not isinstance(std, int | float) or not 0.0 <= std < math.inf:
            raise ValueError(f"std: expected a finite number of at least 0, got {std!r}")
        self.max_length, self.d_model, self.std = max_length, d_model, std
        self.weight = nn.Parameter(torch.empty(max_length, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, x: Tensor, start: int = 0, *, positions: Tensor | None = None) -> Tensor:
        """Tokens x (..., n, d_model) at positions start … start + n − 1; the same shape out.

        positions : (..., n), integers, optional
            Where each token stands, in place of that; as in a batch padded on the left. What is not
            in the table is torch's IndexError.
        """
        _validate_tokens(x, self.d_model, start, self.weight)
        if positions is not None:
            if positions.shape != x.shape[:-1] or positions.dtype not in (torch.int64, torch.int32):
                raise ValueError(
                    f"positions: expected integers (..., n) = {tuple(x.shape[:-1])}, "
                    f"got {positions.dtype} {tuple(positions.shape)}"
                )
            return (x + self.weight[positions]).to(x.dtype)
        end = start + x.shape[-2]
        if end > self.max_length:
            raise ValueError(
                f"x: expected positions below max_length = {self.max_length}, "
                f"got {start} to {end - 1}"
            )
        return (x + self.weight[start:end]).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.max_length}, {self.d_model}"


def relative_position_bucket(
    relative_position: Tensor,
    bidirectional: bool = True,
    num_buckets: int = 32,
    max_distance: int = 128,
) -> Tensor:
    """Sort distances into buckets: near ones each by itself, far ones in ever wider company.

    With r = key position − query position, m buckets a direction and e = ⌊m/2⌋ exact ones:

        bucket(d) = d                                            for d < e
        bucket(d) = min(e + ⌊(m − e) · ln(d/e) / ln(D/e)⌋, m − 1)        else,    D = max_distance

    * bidirectional: m = num_buckets / 2, d = |r|, and m is added where r > 0, for a key behind the
      query. Bucket m itself, which would be r = +0, stays empty: of 32 buckets 31 are used.
    * otherwise m = num_buckets, d = max(−r, 0): keys behind the query, which a causal mask hides,
      are all in bucket 0.

    Parameters
    ----------
    relative_position : any shape, integers: position of the key less that of the query
    bidirectional : bool
        True in an encoder, False in a decoder.
    num_buckets : int, even and at least 4 if bidirectional, else at least 2
    max_distance : int > e
        Where the logarithm would leave the last bucket. That bucket begins earlier, at
        e · (D/e)^((m−1−e)/(m−e)): with the defaults at 91.

    Returns int64 of the same shape, in 0 … num_buckets − 1.

    Precision: none is needed. ⌊…⌋ ≥ k means d^(m−e) ≥ D^k · e^(m−e−k), which is asked of integers;
    a logarithm in floating point may fall below the whole number that it should be. The official
    function takes one in float32: equal to this for every offset up to ±2000 at T5's sizes, and one
    bucket less at the edges of a few others, such as 38 buckets to 196.

    Raises ValueError for a dtype that is no integer, or a wrong size; TypeError for no tensor.

    Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified
    Text-to-Text Transformer", arXiv:1910.10683, section 2.1, which gives the numbers 32 and 128 and
    no formula: that is its code's (mesh_tensorflow, transformer_layers.py).
    Derived in chapter 08_relative_positions.

    >>> relative_position_bucket(torch.tensor([-1, 0, 1, 8, 16, 90, 91, 5000]))
    tensor([ 1,  0, 17, 24, 26, 30, 31, 31])
    >>> relative_position_bucket(torch.tensor([-1, 0, 1, -16, -112, -113]), bidirectional=False)
    tensor([ 1,  0,  0, 16, 30, 31])
    """
    if not isinstance(relative_position, Tensor):
        raise TypeError(
            f"relative_position: expected a torch.Tensor, got {type(relative_position).__name__}"
        )
    if relative_position.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8):
        raise ValueError(
            f"relative_position: expected a signed integer dtype, got {relative_position.dtype}"
        )
    edges = _bucket_edges(bidirectional, num_buckets, max_distance)
    r = relative_position.long()
    distance = r.abs() if bidirectional else (-r).clamp(min=0)
    # Bucket b holds what is at least edges[b − 1] and less than edges[b].
    bucket = torch.bucketize(distance, torch.tensor(edges, device=r.device), right=True)
    return bucket + (r > 0) * (num_buckets // 2) if bidirectional else bucket


def _bucket_edges(bidirectional: bool, num_buckets: int, max_distance: int) -> list[int]:
    """The least distances in buckets 1, 2, … of one direction."""
    least = 4 if bidirectional else 2
    _validate_size("num_buckets", num_buckets, least)
    if bidirectional and num_buckets % 2:
        raise ValueError(f"num_buckets: expected an even number, got {num_buckets}")
    in_one = num_buckets // 2 if bidirectional else num_buckets  # m
    exact = in_one // 2  # e
    _validate_size("max_distance", max_distance, exact + 1)
    wide = in_one - exact
    edges = list(range(1, exact + 1))  # up to the first of the wide ones, which begins at e
    for k in range(1, wide):
        target, d = max_distance**k * exact ** (wide - k), edges[-1]
        d = max(d, int(target ** (1 / wide)) - 2) if target < 1e300 else d
        while d**wide < target:
            d += 1
        edges.append(d)
    return edges


class RelativePositionBias(nn.Module):
    """A trained number for each head and each bucket of distance, to be added to the logits.

        bias[h, i, j] = W[bucket(j − i), h],        W: (num_buckets, h)

    Tokens know nothing of their places; attention knows how far apart two of them are. Far more
    distances than buckets, so what is seen at one length is used at any.

    Parameters
    ----------
    num_heads : int ≥ 1
    bidirectional, num_buckets, max_distance : as in `relative_position_bucket`
    std : float ≥ 0
        The table begins normal with mean 0 and this standard deviation.

    The only parameter is `weight` (num_buckets, h), named and shaped as in `nn.Embedding`. T5 has
    one table for all layers of a stack, and none in cross-attention, where j − i means nothing.

    Source: Raffel et al. 2020, arXiv:1910.10683, section 2.1; a simpler form of Shaw et al. 2018,
    "Self-Attention with Relative Position Representations", arXiv:1803.02155.
    Derived in chapter 08_relative_positions.

    >>> bias = RelativePositionBias(3)
    >>> bias(5).shape, bias(1, 5).shape
    (torch.Size([1, 3, 5, 5]), torch.Size([1, 3, 1, 5]))
    >>> torch.equal(bias(1, 5), bias(5)[:, :, -1:])
    True
    """

    def __init__(
        self,
        num_heads: int,
        *,
        bidirectional: bool = True,
        num_buckets: int = 32,
        max_distance: int = 128,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        _validate_size("num_heads", num_heads, 1)
        _bucket_edges(bidirectional, num_buckets, max_distance)
        if not isinstance(std, int | float) or not 0.0 <= std < math.inf:
            raise ValueError(f"std: expected a finite number of at least 0, got {std!r}")
        self.bidirectional, self.max_distance, self.std = bidirectional, max_distance, std
        self.weight = nn.Parameter(torch.empty(num_buckets, num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, mean=0.0, std=self.std)

    def forward(self, n_q: int, n_k: int | None = None) -> Tensor:
        """(1, h, n_q, n_k): a bias for each head. The last query stands where the last key does.

        As in `causal_mask`: with n_q < n_k the queries are the last n_q positions of the sequence.
        """
        n_k = n_q if n_k is None else n_k
        _validate_size("n_q", n_q, 1)
        _validate_size("n_k", n_k, 1)
        key = torch.arange(n_k, device=self.weight.device)
        query = torch.arange(n_k - n_q, n_k, device=self.weight.device)[:, None]  # (n_q, 1)
        bucket = relative_position_bucket(
            key - query, self.bidirectional, len(self.weight), self.max_distance
        )
        return self.weight[bucket].movedim(-1, 0).unsqueeze(0)

    def extra_repr(self) -> str:
        buckets, heads = self.weight.shape
        return f"{heads}, {buckets} buckets to {self.max_distance}, {self.bidirectional=}"


# Validation

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _validate_size(name: str, size: int, least: int) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {size!r}")


def _validate_table(d_model: int, base: float, layout: str) -> None:
    if not isinstance(d_model, int) or d_model < 2 or d_model % 2:
        raise ValueError(f"d_model: expected an even integer of at least 2, got {d_model!r}")
    if not isinstance(base, int | float) or not 1.0 < base < math.inf:
        raise ValueError(f"base: expected a finite number above 1, got {base!r}")
    if layout not in ("interleaved", "concatenated"):
        raise ValueError(f"layout: expected 'interleaved' or 'concatenated', got {layout!r}")


def _validate_tokens(x: Tensor, d_model: int, start: int, table: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in _FLOATS:
        raise ValueError(f"x: expected float64, float32, bfloat16 or float16, got {x.dtype}")
    if x.device != table.device:
        raise ValueError(f"x: expected the module's device {table.device}, got {x.device}")
    if x.ndim < 2 or x.shape[-2] < 1 or x.shape[-1] != d_model:
        raise ValueError(f"x: expected shape (..., n ≥ 1, {d_model}), got {tuple(x.shape)}")
    _validate_size("start", start, 0)
