"""lib.generation: against the official one, against brute force, and with a cache as without."""

import doctest
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

from lib import generation
from lib.generation import beam_search, greedy, keep_top_k, keep_top_p, sample
from lib.models.gpt2 import GPT2, GPT2Config
from tests.models import parity

transformers = parity.transformers()

V, N, M = 23, 7, 11  # words, tokens of the prompt, new tokens
EOS, PAD = 19, 3
cached = pytest.mark.parametrize("use_cache", [True, False])


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Our GPT-2 and the official one, with the same weights, that end now and then."""
    folder = tmp_path_factory.mktemp("gpt2")
    config = transformers.GPT2Config(
        vocab_size=V, n_embd=21, n_layer=2, n_head=3, n_positions=31,
        bos_token_id=None, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip
    reference = parity.checkpoint(transformers.GPT2LMHeadModel(config), folder, torch.float64)
    with torch.no_grad():  # logits of size 1: beams and draws have a choice
        for parameter in reference.transformer.ln_f.parameters():
            parameter.mul_(6)
    reference.save_pretrained(folder)
    return GPT2.from_pretrained(folder), reference


def prompts(batch=9, *, padded=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(V, (batch, N), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        lengths = torch.randint(1, N + 1, (batch, 1), generator=generator)
        mask = (torch.arange(N) >= N - lengths).long()
        ids = ids.masked_fill(mask == 0, PAD)
    return {"input_ids": ids, "attention_mask": mask}


def theirs(reference, inputs, **options):
    with torch.no_grad():
        return reference.generate(**inputs, max_new_tokens=M, **options)


# Greedy


@cached
@pytest.mark.parametrize("padded", [False, True])
def test_greedy_equals_the_official_one(pair, padded, use_cache):
    ours, reference = pair
    inputs = prompts(padded=padded)
    got = greedy(ours, **inputs, max_new_tokens=M, use_cache=use_cache)
    want = theirs(reference, inputs, do_sample=False)
    assert torch.equal(got, want)
    new = got[:, N:]
    ended = (new == EOS).any(1)
    assert ended.any() and not ended.all() and len(new.unique()) > 4  # a batch that asks something


@cached
def test_greedy_by_definition(pair, use_cache):
    model, _ = pair
    ids = prompts()["input_ids"]
    got = greedy(model, ids, max_new_tokens=M, eos_token_id=(), use_cache=use_cache)
    assert got.shape == (len(ids), N + M) and got.dtype == ids.dtype
    assert torch.equal(got[:, :N], ids)
    with torch.no_grad():
        for t in range(N, N + M):
            assert torch.equal(got[:, t], model(got[:, :t])[:, -1].argmax(-1))


def test_rows_end_by_themselves(pair):
    """Several end tokens; behind the first of them, padding; and no step more than is needed."""
    model, _ = pair
    ids = prompts()["input_ids"]
    free = greedy(model, ids, max_new_tokens=M, eos_token_id=())
    got = greedy(model, ids, max_new_tokens=M, eos_token_id=[1, EOS], pad_token_id=4)
    longest = 0
    for row, all_of_it in zip(got.tolist(), free.tolist(), strict=True):
        end = next((t + 1 for t in range(N, N + M) if all_of_it[t] in (1, EOS)), N + M)
        longest = max(longest, end)
        assert row[:end] == all_of_it[:end]
        assert all(x == 4 for x in row[end:])
    assert got.shape[1] == longest
    first = free[:, N].unique().tolist()
    assert greedy(model, ids, max_new_tokens=M, eos_token_id=first).shape[1] == N + 1


def test_padding_behind_the_end_is_the_end_token_if_there_is_none(pair):
    model, _ = pair
    config = GPT2Config(V, d_model=21, num_layers=2, num_heads=3, max_length=31, eos_token_id=EOS)
    bare = GPT2(config)
    bare.load_state_dict(model.double().state_dict())
    ids = prompts()["input_ids"]
    got, want = (greedy(m, ids, max_new_tokens=M) for m in (bare.double(), model))
    assert (got != want).any()
    assert (got[got != want] == EOS).all() and (want[got != want] == PAD).all()


def test_text_from_a_tokenizer_made_here(pair, tmp_path):
    """Logits, then greedy tokens, then text: a byte-pair tokenizer, saved and read by both."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat and the dog ran"] * 5, trainer)
    size = tokenizer.get_vocab_size()
    config = transformers.GPT2Config(
        vocab_size=size, n_embd=21, n_layer=2, n_head=3, n_positions=31,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    reference = parity.checkpoint(transformers.GPT2LMHeadModel(config), tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    official = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="<|endoftext|>"
    )
    ours = GPT2.from_pretrained(tmp_path)
    ids = torch.tensor([tokenizer.encode("the cat").ids])
    inputs = official("the cat", return_tensors="pt")
    assert torch.equal(ids, inputs["input_ids"])
    want = theirs(reference, dict(inputs), do_sample=False, pad_token_id=0)
    got = tokenizer.decode(greedy(ours, ids, max_new_tokens=M)[0].tolist())
    assert got == official.decode(want[0], skip_special_tokens=True)
    assert got.startswith("the cat") and len(got) > len("the cat")


# Sampling


@pytest.mark.parametrize("k", [1, 2, V, V + 5])
def test_top_k_by_definition_and_as_official(k):
    logits = torch.randn(50, V, generator=torch.Generator().manual_seed(0)).double()
    got = keep_top_k(logits, k)
    for row, kept in zip(logits.tolist(), got.tolist(), strict=True):
        least = sorted(row, reverse=True)[min(k, V) - 1]
        assert kept == [x if x >= least else -math.inf for x in row]
    assert torch.equal(got, transformers.TopKLogitsWarper(k)(None, logits))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999, 1.0])
def test_top_p_by_definition_and_as_official(p):
    logits = 2 * torch.randn(50, V, generator=torch.Generator().manual_seed(0)).double()
    got = keep_top_p(logits, p)
    for row, kept in zip(logits.tolist(), got.tolist(), strict=True):
        weights, total, want = [math.exp(x) for x in row], 0.0, set()
        for i in sorted(range(V), key=lambda i: -row[i]):
            if total < p * math.fsum(weights) or p == 1:
                want.add(i)
            total += weights[i]
        assert kept == [x if i in want else -math.inf for i, x in enumerate(row)]
    assert torch.equal(got, transformers.TopPLogitsWarper(p)(None, logits))
    float32 = (30 * logits).float()
    assert torch.equal(keep_top_p(float32, 1.0), float32)  # where sums round to more than 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0, "top_k": 4},
        {"top_p": 0.6},
        {"temperature": 1.5, "top_k": 9, "top_p": 0.8},
    ],
    ids=str,
)
def test_draws_have_their_distribution(pair, options):
    """Of 20,000 first tokens, each within 5 standard errors of its probability."""
    model, _ = pair
    prompt, draws = prompts(1)["input_ids"][:, :2], 20_000
    generator = torch.Generator().manual_seed(0)
    got = sample(model, prompt.expand(draws, -1), max_new_tokens=1, generator=generator, **options)
    with torch.no_grad():
        logits = model(prompt)[0, -1] / options.get("temperature", 1.0)
    if "top_k" in options:
        logits = logits.masked_fill(logits < logits.sort().values[-options["top_k"]], -math.inf)
    if "top_p" in options:
        logits = keep_top_p(logits, options["top_p"])
    p = logits.softmax(-1)
    share = torch.bincount(got[:, -1], minlength=V) / draws
    assert ((share - p).abs() <= 5 * (p * (1 - p) / draws).sqrt()).all()
    assert (p > 0.05).sum() > 1  # there is something to draw


def test_draws_follow_the_generator_with_and_without_a_cache(pair):
    model, _ = pair
    inputs = prompts(padded=True)

    def run(seed, **options):
        return sample(
            model,
            **inputs,
            max_new_tokens=M,
            generator=torch.Generator().manual_seed(seed),
            **options,
        )

    assert torch.equal(run(0), run(0))
    assert torch.equal(run(0), run(0, use_cache=False))
    assert not torch.equal(run(0, eos_token_id=()), run(1, eos_token_id=()))
    cold = {"temperature": 1e-4, "eos_token_id": ()}
    assert torch.equal(run(0, **cold), greedy(model, **inputs, max_new_tokens=M, eos_token_id=()))
    torch.manual_seed(3)
    one = sample(model, **inputs, max_new_tokens=M)
    torch.manual_seed(3)
    assert torch.equal(sample(model, **inputs, max_new_tokens=M), one)


# Beams


@cached
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("num_beams", [1, 2, 5])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -0.7, 2.0])
def test_beams_equal_the_official_ones(pair, padded, num_beams, length_penalty, use_cache):
    ours, reference = pair
    inputs = prompts(padded=padded, seed=1)
    options = {"num_beams": num_beams, "length_penalty": length_penalty}
    got = beam_search(ours, **inputs, max_new_tokens=M, **options, use_cache=use_cache)
    want = theirs(reference, inputs, do_sample=False, early_stopping=False, **options)
    if num_beams == 1:  # which theirs takes for greedy search, and that ends at the first end
        want = one_beam(ours, inputs, length_penalty)
    assert torch.equal(got, want)
    plain = greedy(ours, **inputs, max_new_tokens=M)
    assert num_beams == 1 or got.shape != plain.shape or not torch.equal(got, plain)


def one_beam(model, inputs, alpha):
    """The one beginning goes on with the best token that is no end; each end is held against it."""
    rows = []
    for i in range(len(inputs["input_ids"])):
        mask = inputs["attention_mask"][i : i + 1]
        ids, log_p, best, text = inputs["input_ids"][i : i + 1], 0.0, -math.inf, None
        for length in range(1, M + 1):
            with torch.no_grad():
                step = model(ids, attention_mask=mask)[0, -1].log_softmax(-1)
            first, second = step.topk(2).indices.tolist()
            done = first == EOS or length == M
            score = (log_p + step[first].item()) / length**alpha
            if done and score > best:
                best, text = score, [*ids[0].tolist(), first]
            if length == M:
                break
            go = second if first == EOS else first
            log_p += step[go].item()
            if log_p / length**alpha <= best:
                break
            ids = torch.cat([ids, torch.tensor([[go]])], dim=1)
            mask = torch.cat([mask, mask[:, -1:]], dim=1)
        rows.append(text)
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


class Table(nn.Module):
    """A model whose next word depends on the last two, by a table of probabilities."""

    def __init__(self, vocab=4, seed=0, scale=1.5):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        logits = scale * torch.randn(vocab, vocab, vocab, generator=generator).double()
        self.table = nn.Parameter(logits.log_softmax(-1))

    def forward(self, input_ids):
        before = input_ids.roll(1, dims=1)
        before[:, 0] = 0
        return self.table[before, input_ids]


def enumerate_texts(model, prompt, steps, eos):
    """Every continuation that ends, or fills the room, with its log-probability."""
    with torch.no_grad():
        for new in itertools.product(range(4), repeat=steps):
            if eos in new[:-1] and (cut := new.index(eos)) < steps - 1:
                if any(new[cut + 1 :]):  # one of each that are alike
                    continue
                new = new[: cut + 1]
            ids = torch.tensor([[*prompt, *new]])
            log_p = model(ids)[0].log_softmax(-1)
            ways = range(len(prompt), ids.shape[1])
            yield new, sum(log_p[t - 1, ids[0, t]].item() for t in ways)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("penalty", ["power", "wu"])
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_wide_beams_find_the_best_of_all(seed, penalty, alpha):
    """With as many beams as there are beginnings nothing is lost: the argmax over everything."""
    model, prompt, steps, eos = Table(seed=seed), [1, 2], 4, 3

    def score(item):
        new, log_p = item
        n = len(new)
        return log_p / (n**alpha if penalty == "power" else ((5 + n) / 6) ** alpha)

    best, _ = max(enumerate_texts(model, prompt, steps, eos), key=score)
    got = beam_search(
        model, torch.tensor([prompt]), max_new_tokens=steps, num_beams=256, eos_token_id=eos,
        length_penalty=alpha, penalty=penalty, use_cache=False,
    )  # fmt: skip
    assert tuple(got[0, 2:].tolist()) == best


@pytest.mark.parametrize("seed, alpha", [(0, 4.0), (15, 4.0), (16, 4.0), (33, 1.5)])
def test_wus_five(seed, alpha):
    """Where the best text by ((5 + |y|) / 6)^α is not the best by another number than 5."""
    model, prompt = Table(seed=seed), [1, 2]
    texts = list(enumerate_texts(model, prompt, 3, 3))
    best = [
        max(texts, key=lambda text, c=c: text[1] / ((c + len(text[0])) / (c + 1)) ** alpha)[0]
        for c in (5, 6)
    ]
    got = beam_search(
        model, torch.tensor([prompt]), max_new_tokens=3, num_beams=64, eos_token_id=3,
        length_penalty=alpha, penalty="wu", use_cache=False,
    )  # fmt: skip
    assert tuple(got[0, 2:].tolist()) == best[0] != best[1]


def test_the_penalty_matters():
    """Both kinds, and α: over many tables they do not agree on one text each time."""
    found = {}
    for penalty, alpha in (("power", 0.0), ("power", 1.0), ("wu", 1.0), ("power", 3.0)):
        found[penalty, alpha] = [
            beam_search(
                Table(seed=seed), torch.tensor([[1, 2]]), max_new_tokens=6, num_beams=4,
                eos_token_id=3, length_penalty=alpha, penalty=penalty, use_cache=False,
            ).tolist()
            for seed in range(30)
        ]  # fmt: skip
    texts = list(found.values())
    assert all(a != b for a, b in itertools.combinations(texts, 2))
    lengths = [sum(len(text[0]) for text in texts) for texts in found.values()]
    assert lengths[0] < lengths[1] < lengths[3]


def test_beams_are_worth_more_than_greed():
    """Never less probable than greed's text in these 30 models, and often more."""
    better = 0
    for seed in range(30):
        model, prompt = Table(seed=seed), torch.tensor([[1, 2]])
        texts = [
            greedy(model, prompt, max_new_tokens=5, use_cache=False),
            beam_search(model, prompt, max_new_tokens=5, num_beams=16, use_cache=False),
        ]
        log_p = [
            model(ids)[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[1:].sum().item()
            for ids in texts
        ]
        assert log_p[1] >= log_p[0] - 1e-12
        better += log_p[1] > log_p[0] + 1e-12
    assert better > 5


def test_one_beam_without_an_end_is_greedy(pair):
    model, _ = pair
    inputs = prompts(padded=True)
    options = {"max_new_tokens": M, "eos_token_id": ()}
    got = beam_search(model, **inputs, num_beams=1, **options)
    assert torch.equal(got, greedy(model, **inputs, **options))


# What they share


@pytest.mark.parametrize("write", [greedy, sample, beam_search])
def test_the_mode_of_the_model_is_not_changed(pair, write):
    model = GPT2(pair[0].config)
    model.train()
    model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    ids = prompts()["input_ids"]
    options = {"generator": torch.Generator().manual_seed(0)} if write is sample else {}
    first = write(model, ids, max_new_tokens=M, **options)
    if options:
        options = {"generator": torch.Generator().manual_seed(0)}
    assert torch.equal(first, write(model, ids, max_new_tokens=M, **options))  # no dropout
    assert [module.training for module in model.modules()] == modes
    assert not first.requires_grad


@pytest.mark.parametrize("write", [greedy, sample, beam_search])
def test_the_room_of_the_model_is_known_before(pair, write):
    """31 positions are read: 7 of the prompt, 24 new ones, and the token that is only written."""
    model, ids = pair[0], prompts(2)["input_ids"]
    assert write(model, ids, max_new_tokens=25, eos_token_id=()).shape == (2, 32)
    message = r"^max_new_tokens: expected at most 25, as the model reads max_length = 31 tokens"
    with pytest.raises(ValueError, match=message):
        write(model, ids, max_new_tokens=26)


def test_any_function_of_ids_can_write():
    """Without a config, a cache or a mask."""
    got = greedy(Table(), torch.tensor([[0, 1]]), max_new_tokens=3, use_cache=False)
    assert got.shape == (1, 5)
    model = Table()
    model.config = SimpleNamespace(eos_token_id=int(got[0, 2]), pad_token_id=None)
    assert greedy(model, got[:, :2], max_new_tokens=3, use_cache=False).tolist() == [
        got[0, :3].tolist()
    ]


@pytest.mark.parametrize(
    "write, options, message",
    [
        (greedy, {"max_new_tokens": 0}, "max_new_tokens: expected an integer of at least 1, got 0"),
        (sample, {"temperature": 0}, "temperature: expected a finite number above 0, got 0"),
        (sample, {"temperature": math.inf}, "temperature: expected a finite number above 0"),
        (sample, {"top_k": 0}, "top_k: expected an integer of at least 1, got 0"),
        (sample, {"top_p": 0.0}, r"top_p: expected a number in \(0, 1\], got 0.0"),
        (sample, {"top_p": 1.1}, r"top_p: expected a number in \(0, 1\], got 1.1"),
        (beam_search, {"num_beams": 0}, "num_beams: expected an integer of at least 1, got 0"),
        (beam_search, {"length_penalty": math.nan}, "length_penalty: expected a finite number"),
        (beam_search, {"penalty": "none"}, "penalty: expected 'power' or 'wu', got 'none'"),
        (
            greedy,
            {"attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1, 0]])},
            "attention_mask: expected padding on the left, got a last token that is padding",
        ),
    ],
)
def test_refuses(pair, write, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        write(pair[0], prompts(1)["input_ids"], **{"max_new_tokens": 2} | options)


def test_docstrings():
    assert doctest.testmod(generation).failed == 0
