"""What pre-training minimises: the next token, masked tokens, replaced tokens, and a teacher.

Derived in chapters 07_encoder_decoder, 10_gpt, 13_replaced_token_detection and 14_distillation.

Shapes are written with V words in the vocabulary, d features of a hidden vector, and "..." for the
dimensions of tokens, such as (batch, length); there may be any number of them.

* `causal_lm_loss`: guess the next token (GPT);
* `label_smoothing_loss`: the same for translations, against being too sure;
* `masked_lm_loss`: guess the hidden tokens (BERT, and ELECTRA's generator);
* `replaced_token_loss`: tell replaced tokens from original ones (ELECTRA's discriminator), with the
  labels of `replaced_tokens`;
* `next_sentence_loss`: tell whether B follows A (BERT);
* `distillation_loss`: match a teacher's distribution; `cosine_loss`: match the direction of its
  hidden vectors; `distilbert_loss`: both, and the masked tokens.

They share one contract:

* A loss is a mean over *tokens*: those selected, or those that are real. A mask of tokens is
  boolean, or integer with 0 = padding and anything else = real, as tokenizers return it. A floating
  mask is refused, since in a bias 0 means the opposite.
* Mean over nothing. With no token selected the mean is 0, with gradient 0, so that a microbatch
  without any is harmless. A loss that is exactly 0 step after step is a loss that selects nothing.
* Reduction. "mean"; "sum" over the same tokens; or "none", a tensor (...) with 0 for tokens that do
  not count. The mean of means of unequal microbatches is *not* the mean over the large batch: for
  gradient accumulation add up "sum" and divide by the large batch's `count_tokens`.
* Precision. float16 and bfloat16 are computed in float32, and the result is float32, as a loss in
  float16 would overflow or lose its digits; float64 stays float64. Also under autocast.
* Logits are finite. NaN and infinity in a token that counts propagate; in a token that does not,
  they leave the value alone, but 0 · NaN spoils its own gradient.
* Errors. ValueError, in one line with what was expected and what came, for a wrong shape, dtype,
  device or option; TypeError for something that is no tensor. Only metadata is looked at: no device
  synchronisation, and `torch.compile(fullgraph=True)` works. A label outside the vocabulary is
  torch's own error at the gather.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "causal_lm_loss",
    "cosine_loss",
    "count_tokens",
    "distilbert_loss",
    "distillation_loss",
    "label_smoothing_loss",
    "masked_lm_loss",
    "next_sentence_loss",
    "replaced_token_loss",
    "replaced_tokens",
]


def causal_lm_loss(
    logits: Tensor, labels: Tensor, ignore_index: int = -100, *, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of every token, given those before it.

        L = −(1/|S|) Σ_{t ∈ S} log softmax(logits_{t−1})[labels_t],
        S = {t ≥ 1 : labels_t ≠ ignore_index}

    Parameters
    ----------
    logits : (..., n, V)
        Those at t − 1 are for the token at t; those at the last position are for a token that is
        not there, and no loss reaches them.
    labels : (..., n), integers
        **The input itself**, `labels = input_ids`: the shift by one position is inside. Labels that
        were shifted before are shifted twice and teach the token after the next. Without any shift
        (`masked_lm_loss` of the same two tensors) each label stands in the input of its own
        position, and a model that copies has loss 0: mistake D39. `ignore_index` where a token is
        not to be guessed, as in padding: `input_ids.masked_fill(attention_mask == 0, -100)`.
    ignore_index : int
    reduction : "mean", "sum" or "none"
        "mean" divides by |S|, at most n − 1 a sequence; for `count_tokens` that is
        `labels[..., 1:] != ignore_index`. "none" gives (..., n − 1), one number for each guess.

    Returns a scalar, or (..., n − 1) for "none". With n = 1 there is nothing to guess, and the mean
    is 0. The "sum" over one sequence is −log p(x_1, …, x_{n−1} | x_0), by the chain rule exactly.

    Raises ValueError for a wrong shape, dtype, device or option, TypeError for no tensor; a label
    outside 0 … V − 1 is torch's error.

    Source: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training",
    section 3.1, equation 1. Deviations: there a sum to be maximised, over windows of k tokens.
    Derived in chapter 10_gpt.

    >>> ids = torch.tensor([[5, 3, 8]])
    >>> knows = 50.0 * torch.nn.functional.one_hot(ids.roll(-1, dims=1), 11)  # what comes next
    >>> copies = 50.0 * torch.nn.functional.one_hot(ids, 11)
    >>> causal_lm_loss(knows, ids), causal_lm_loss(copies, ids)
    (tensor(0.), tensor(50.))
    """
    _validate("logits", logits, _FLOATS, rows=True)
    if logits.ndim < 2 or logits.shape[-2] < 1:
        raise ValueError(f"logits: expected shape (..., n ≥ 1, V), got {tuple(logits.shape)}")
    _validate("labels", labels, _INTEGERS, logits, logits.shape[:-1])
    return masked_lm_loss(logits[..., :-1, :], labels[..., 1:], ignore_index, reduction=reduction)


def label_smoothing_loss(
    logits: Tensor,
    labels: Tensor,
    smoothing: float = 0.1,
    ignore_index: int = -100,
    *,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy with a target that leaves a share of the probability to every word alike.

        L = −(1/|S|) Σ_{t ∈ S} Σ_v q_v log p_v,      q = (1 − ε) onehot(labels_t) + ε/V

    Its least value is not 0 but the entropy of q, at p = q: a model that is surer than 1 − ε is
    pulled back. It is (1 − ε) of the cross-entropy, and ε of the mean of −log p_v.

    Parameters
    ----------
    logits : (..., V)
    labels : (...), integers
        The token that these logits are for. **No shift is inside**: a decoder reads the text
        behind a start token, so that its outputs stand at their labels already.
    smoothing : ε in [0, 1)
    ignore_index : int, where nothing is to be guessed
    reduction : "mean" over |S|, "sum" or "none"
        With "sum", and division by the count of the large batch, microbatches add up as elsewhere.

    Returns a scalar, or (...) for "none". At ε = 0 it is `masked_lm_loss`.

    Raises ValueError for a wrong shape, dtype, device or option, TypeError for no tensor; a label
    outside 0 … V − 1 is torch's error. Logits of −inf, a word ruled out, make it infinite.

    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision",
    arXiv:1512.00567, section 7; Vaswani et al. 2017, arXiv:1706.03762, section 5.4, ε = .1.
    Derived in chapter 07_encoder_decoder.

    >>> sure = torch.tensor([[30.0, 0.0, 0.0]])
    >>> label_smoothing_loss(sure, torch.tensor([0]))  # 2/3 of ε = .1, at 30 nats each
    tensor(2.)
    """
    if not isinstance(smoothing, int | float) or not 0.0 <= smoothing < 1.0:
        raise ValueError(f"smoothing: expected a number in [0, 1), got {smoothing!r}")
    right = masked_lm_loss(logits, labels, ignore_index, reduction=reduction)
    if smoothing == 0.0:
        return right
    z = _upcast(logits)
    alike = z.logsumexp(dim=-1) - z.mean(dim=-1)  # (...): the mean over v of −log p_v
    alike = _reduce(alike, labels != ignore_index, reduction)
    return (1 - smoothing) * right + smoothing * alike


def masked_lm_loss(
    logits: Tensor, labels: Tensor, ignore_index: int = -100, *, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of the tokens that were hidden, given what was left of the sentence.

        L = −(1/|S|) Σ_{t ∈ S} log softmax(logits_t)[labels_t],    S = {t : labels_t ≠ ignore_index}

    Parameters
    ----------
    logits : (..., V)
    labels : (...), integers
        The original token where it is to be guessed, `ignore_index` everywhere else. Guessing *all*
        tokens is another loss: most of them stand in the input, and copying them pays.
    ignore_index : int
    reduction : "mean", "sum" or "none"
        "mean" divides by |S|, not by the number of tokens.

    Returns a scalar, or (...) for "none". A model that knows nothing starts near ln V.

    Raises ValueError for a wrong shape, dtype, device or option, TypeError for no tensor; a label
    outside 0 … V − 1 is torch's error.

    Source: Devlin et al. 2019, "BERT", arXiv:1810.04805, section 3.1, task 1; the equation is
    L_MLM in Clark et al. 2020, arXiv:2003.10555, section 2.
    Deviations: Clark et al. write the sum over S; the mean is what the code of both divides by.
    Derived in chapter 13_replaced_token_detection.

    >>> labels = torch.tensor([[-100, 2, -100]])
    >>> round(masked_lm_loss(torch.zeros(1, 3, 30522), labels).item(), 3)  # ln 30522
    10.326
    """
    _validate("logits", logits, _FLOATS, rows=True)
    _validate("labels", labels, _INTEGERS, logits, logits.shape[:-1])
    _validate_reduction(reduction)

    selected = labels != ignore_index  # (...)
    target = labels.masked_fill(~selected, 0).long()  # any valid index: masked out below
    log_p = F.log_softmax(_upcast(logits), dim=-1)  # (..., V)
    loss = -log_p.gather(-1, target.unsqueeze(-1)).squeeze(-1)  # (...)
    return _reduce(loss, selected, reduction)


def next_sentence_loss(logits: Tensor, labels: Tensor, *, reduction: str = "mean") -> Tensor:
    """Cross-entropy of one question for each pair of texts: does B follow A, or was it drawn?

        L = −(1/B) Σ_b log softmax(logits_b)[labels_b]

    Parameters
    ----------
    logits : (..., 2)
        Column 0 = B follows A, column 1 = B was drawn at random, as in official checkpoints.
    labels : (...), integers
        **0 = B follows A, 1 = drawn at random**, or -100 for a pair that does not count. Booleans
        are refused, as True reads like "follows".
    reduction : "mean", "sum" or "none"

    Returns a scalar, or (...) for "none". A model that knows nothing starts near ln 2.

    BERT's objective is the sum of this mean over pairs and `masked_lm_loss`, a mean over tokens.

    Raises ValueError for a wrong shape, dtype, device or option, TypeError for no tensor; a label
    outside 0, 1 is torch's error.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 3.1, task 2, and A.2 (the sum).
    Derived in chapter 11_bert.

    >>> logits = torch.tensor([[3.0, -3.0], [0.0, 0.0]])  # sure that B follows; at a loss
    >>> next_sentence_loss(logits, torch.tensor([0, 1]), reduction="none")
    tensor([0.0025, 0.6931])
    """
    _validate("logits", logits, _FLOATS, rows=True)
    if logits.shape[-1] != 2:
        raise ValueError(f"logits: expected shape (..., 2), got {tuple(logits.shape)}")
    return masked_lm_loss(logits, labels, reduction=reduction)


def replaced_token_loss(
    logits: Tensor,
    is_replaced: Tensor,
    attention_mask: Tensor | None = None,
    *,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross-entropy of "this token was replaced", over every real token.

        L = −(1/n) Σ_t [ y_t log σ(z_t) + (1 − y_t) log(1 − σ(z_t)) ],      y_t = 1: replaced

    Parameters
    ----------
    logits : (...)
        z, one number a token: positive = replaced.
    is_replaced : (...)
        y, boolean or 0/1, of any dtype: see `replaced_tokens`. A token is labelled, not a sentence:
        in a corrupted sentence most tokens are original.
    attention_mask : (...), boolean or integer, optional
        Which tokens are real. All of them, if left out.
    reduction : "mean", "sum" or "none"

    Returns a scalar, or (...) for "none".

    Raises ValueError for a wrong shape, dtype, device or option, TypeError for no tensor.

    Source: Clark et al. 2020, "ELECTRA", arXiv:2003.10555, section 2, L_Disc.
    Deviations: the paper's D = σ(−z) is the probability that a token is *original*, which gives the
    same loss; positive = replaced is the sign of the released checkpoints. The paper writes a sum
    over tokens; its code divides by the number of real ones, and so do we.
    Derived in chapter 13_replaced_token_detection.

    >>> logits = torch.tensor([[-9.0, 9.0, 0.0]])
    >>> real = torch.tensor([[1, 1, 0]])
    >>> replaced_token_loss(logits, torch.tensor([[False, True, True]]), real) < 1e-3
    tensor(True)
    """
    _validate("logits", logits, _FLOATS)
    _validate("is_replaced", is_replaced, _REALS, logits, logits.shape)
    if attention_mask is not None:
        _validate("attention_mask", attention_mask, _MASKS, logits, logits.shape)
    _validate_reduction(reduction)

    z = _upcast(logits)
    y = is_replaced.to(z.dtype)
    # log(1 − σ(z)) = log σ(−z). F.logsigmoid keeps its digits where σ rounds to 0 or 1.
    loss = -(y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z))  # (...)
    return _reduce(loss, attention_mask, reduction)


def replaced_tokens(input_ids: Tensor, corrupted_ids: Tensor) -> Tensor:
    """Label the tokens that differ from the original: boolean, True = replaced.

    A position where the generator happened to draw the original token is *not* replaced, though it
    was masked: the label asks about the token that stands there, not about what was done.

    input_ids, corrupted_ids : (...), integers, of one shape; the result has that shape.

    Raises ValueError for a wrong shape, dtype or device, TypeError for no tensor.

    Source: Clark et al. 2020, arXiv:2003.10555, section 2.
    Derived in chapter 13_replaced_token_detection.

    >>> replaced_tokens(torch.tensor([7, 8, 9]), torch.tensor([7, 5, 9]))
    tensor([False,  True, False])
    """
    _validate("input_ids", input_ids, _INTEGERS)
    _validate("corrupted_ids", corrupted_ids, _INTEGERS, input_ids, input_ids.shape)
    return input_ids != corrupted_ids


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    *,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """How far the student's softened distribution is from the teacher's.

        L = T² · (1/n) Σ_t KL(p_t ‖ q_t),     p = softmax(teacher/T),   q = softmax(student/T)

    Parameters
    ----------
    student_logits : (..., V)
    teacher_logits : (..., V)
        Taken as given: no gradient reaches the teacher.
    temperature : float > 0
        T. The gradient of KL in a student's logit is (q − p)/T, and for large T, with logits of
        mean zero, close to (z − v)/(V T²); the factor T² keeps it at one size whatever T is, and
        L tends to ‖z − v‖²/2V.
    mask : (...), boolean or integer, optional
        Which rows count. All of them, if left out.
    reduction : "mean", "sum" or "none"
        n is the number of *rows*: all leading dimensions flattened, whatever their number. torch's
        "batchmean" divides by the first dimension alone, so the two agree for (n, V) only, and its
        "mean" divides by V as well.

    Returns a scalar, or (...) for "none".

    Precision: in float32 the value carries an absolute error of about T² · 1e-6, since KL itself is
    of order 1/T²; the gradient does not. For the value at T = 1000 use float64.

    Raises ValueError for a wrong shape, dtype, device or option, or a temperature that is not a
    finite number above 0; TypeError for no tensor.

    Source: Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network",
    arXiv:1503.02531, sections 2 and 2.1, equations 1 to 4.
    Deviations: the paper has the cross-entropy Σ −p log q; KL is that less the teacher's entropy,
    which no student can change, so the gradient is the same and the least value is 0.
    Derived in chapter 14_distillation.

    >>> teacher = torch.tensor([[4.0, 1.0, -2.0], [0.0, 3.0, 1.0]])
    >>> distillation_loss(teacher + 5.0, teacher, temperature=2.0).abs() < 1e-6
    tensor(True)
    """
    _validate("student_logits", student_logits, _FLOATS, rows=True)
    _validate("teacher_logits", teacher_logits, _FLOATS, student_logits, student_logits.shape)
    if mask is not None:
        _validate("mask", mask, _MASKS, student_logits, student_logits.shape[:-1])
    _validate_reduction(reduction)
    if not isinstance(temperature, int | float) or not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature: expected a finite number above 0, got {temperature!r}")

    log_p = F.log_softmax(_upcast(teacher_logits.detach()) / temperature, dim=-1)  # (..., V)
    log_q = F.log_softmax(_upcast(student_logits) / temperature, dim=-1)  # (..., V)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)  # (...)
    return _reduce(temperature**2 * kl, mask, reduction)


def cosine_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    *,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """How far the student's hidden vectors point from the teacher's.

        L = (1/n) Σ_t (1 − cos(s_t, τ_t)),        cos(s, τ) = s · τ / (‖s‖ ‖τ‖)

    student_hidden, teacher_hidden : (..., d). Only directions count, so the gradient is orthogonal
    to s_t. No gradient reaches the teacher. A vector shorter than 1e-8 has no direction: its cosine
    goes to 0 and its gradient is large.
    mask : (...), boolean or integer, optional. Which tokens count; all, if left out.
    reduction : "mean", "sum" or "none".

    Raises ValueError for a wrong shape, dtype, device or option, TypeError for no tensor.

    Source: Sanh et al. 2019, "DistilBERT", arXiv:1910.01108, section 2, L_cos.
    Derived in chapter 14_distillation.

    >>> x = torch.tensor([[3.0, 4.0]])
    >>> cosine_loss(x, 7 * x) < 1e-6, cosine_loss(x, -x)
    (tensor(True), tensor(2.))
    """
    _validate("student_hidden", student_hidden, _FLOATS, rows=True)
    _validate("teacher_hidden", teacher_hidden, _FLOATS, student_hidden, student_hidden.shape)
    if mask is not None:
        _validate("mask", mask, _MASKS, student_hidden, student_hidden.shape[:-1])
    _validate_reduction(reduction)

    student, teacher = _upcast(student_hidden), _upcast(teacher_hidden.detach())
    loss = 1 - F.cosine_similarity(student, teacher, dim=-1)  # (...)
    return _reduce(loss, mask, reduction)


def distilbert_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    labels: Tensor,
    attention_mask: Tensor | None = None,
    *,
    temperature: float = 2.0,
    weights: tuple[float, float, float] = (5.0, 2.0, 1.0),
    ignore_index: int = -100,
    return_parts: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    """Train a student on the teacher's words, on the true words, and on the teacher's directions.

        L = α_ce · L_ce + α_mlm · L_mlm + α_cos · L_cos

    Parameters
    ----------
    student_logits, teacher_logits : (..., V)
        L_ce = `distillation_loss` over all real tokens, the hidden ones and the others.
    student_hidden, teacher_hidden : (..., d)
        L_cos = `cosine_loss` of the last hidden vectors, over all real tokens.
    labels : (...), integers
        L_mlm = `masked_lm_loss` over the tokens whose label is not `ignore_index`.
    attention_mask : (...), boolean or integer, optional
        Which tokens are real. All of them, if left out.
    temperature : float > 0
        T of L_ce.
    weights : three finite numbers of at least 0
        α_ce, α_mlm, α_cos. A part of weight 0 is computed all the same, for `return_parts`.
    return_parts : bool
        Return (loss, parts) with parts = {"ce", "mlm", "cos"}: unweighted and without gradient, to
        be written down during training.

    Raises ValueError for what its parts refuse, and for wrong weights; TypeError for no tensor.

    Source: Sanh et al. 2019, "DistilBERT, a distilled version of BERT", arXiv:1910.01108,
    section 2. The paper speaks of a linear combination and gives neither its coefficients nor T.
    The defaults are those of the command that its authors' repository documents for training
    (`--alpha_ce 5.0 --alpha_mlm 2.0 --alpha_cos 1.0`, temperature 2 by default), and so are the
    tokens of each part. That code, like ours, has T² · KL(p ‖ q) where the paper has the
    cross-entropy Σ p log q (printed without its minus sign) and no T².
    Derived in chapter 14_distillation.
    """
    if len(weights) != 3 or any(
        not isinstance(w, int | float) or not 0.0 <= w < math.inf for w in weights
    ):
        raise ValueError(f"weights: expected three finite numbers of at least 0, got {weights!r}")
    ce = distillation_loss(student_logits, teacher_logits, temperature, mask=attention_mask)
    mlm = masked_lm_loss(student_logits, labels, ignore_index)
    cos = cosine_loss(student_hidden, teacher_hidden, mask=attention_mask)
    loss = weights[0] * ce + weights[1] * mlm + weights[2] * cos
    if return_parts:
        return loss, {"ce": ce.detach(), "mlm": mlm.detach(), "cos": cos.detach()}
    return loss


def count_tokens(mask: Tensor) -> Tensor:
    """How many tokens a mean divides by: scalar int64, on the mask's device.

    mask : (...), boolean or integer: an attention mask, or `labels != -100` for `masked_lm_loss`.

    Gradients of k microbatches add up to those of one batch if each loss is a sum over the *whole*
    batch's count:

    >>> logits, labels = torch.randn(8, 5, 11), torch.randint(11, (8, 5))
    >>> labels[:6, 1:] = -100
    >>> whole = count_tokens(labels != -100)
    >>> parts = [masked_lm_loss(a, b, reduction="sum") / whole
    ...          for a, b in zip(logits.split(2), labels.split(2))]
    >>> torch.allclose(sum(parts), masked_lm_loss(logits, labels))
    True

    Raises ValueError for a floating mask, TypeError for no tensor.
    """
    _validate("mask", mask, _MASKS)
    return (mask != 0).sum()


# Arithmetic


def _upcast(x: Tensor) -> Tensor:
    """float16 and bfloat16 to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _reduce(loss: Tensor, counts: Tensor | None, reduction: str) -> Tensor:
    """Loss of each token (...) to a scalar, over the tokens that count."""
    counts = torch.ones_like(loss, dtype=torch.bool) if counts is None else counts != 0
    loss = loss.masked_fill(~counts, 0.0)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.sum() / counts.sum().clamp(min=1)


# Validation

_Kind = tuple[str, tuple[torch.dtype, ...]]
_FLOATS: _Kind = (
    "float64, float32, bfloat16 or float16",
    (torch.float64, torch.float32, torch.bfloat16, torch.float16),
)
_INTEGERS: _Kind = (
    "an integer dtype",
    (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
)
_MASKS: _Kind = ("a boolean or integer dtype", (torch.bool, *_INTEGERS[1]))
_REALS: _Kind = ("a boolean, integer or floating dtype", (*_MASKS[1], *_FLOATS[1]))


def _validate(
    name: str,
    x: Tensor,
    kind: _Kind,
    like: Tensor | None = None,
    shape: torch.Size | None = None,
    *,
    rows: bool = False,
) -> None:
    """x is a tensor of this kind, on `like`'s device, of this shape, or else with rows (..., k)."""
    expected, dtypes = kind
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in dtypes:
        raise ValueError(f"{name}: expected {expected}, got {x.dtype}")
    if like is not None and x.device != like.device:
        raise ValueError(f"{name}: expected device {like.device}, got {x.device}")
    if shape is not None and x.shape != shape:
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(x.shape)}")
    if rows and (x.ndim < 1 or x.shape[-1] < 1):
        raise ValueError(f"{name}: expected shape (..., k) with k ≥ 1, got {tuple(x.shape)}")


def _validate_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
