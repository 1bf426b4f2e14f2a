"""lib.checkpoints: all of a checkpoint or nothing, and one line that says what is wrong."""

import dataclasses
import gc
import json
import os
import pickle
import re
import sys
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from lib import checkpoints
from lib.checkpoints import CheckpointError, find_file, read_config
from lib.models.bert import BERT, BERTConfig
from lib.models.distilbert import DistilBERT, DistilBERTConfig
from lib.models.electra import Discriminator, Generator
from lib.models.gpt2 import GPT2, GPT2Config
from tests.memory_of_loading import memory_of_loading
from tests.models.parity import randomise

SIZES = {"d_model": 9, "num_layers": 2, "num_heads": 3, "d_ff": 11, "max_length": 13}
IDS = torch.tensor([[1, 2, 3, 4]])
MODELS = [
    BERT(BERTConfig(17, **SIZES)),
    Discriminator(BERTConfig(17, **SIZES, d_embedding=5)),
    Generator(BERTConfig(17, **SIZES, d_embedding=5)),
    DistilBERT(DistilBERTConfig(17, **SIZES)),
    GPT2(GPT2Config(17, **SIZES)),
]
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)


@pytest.fixture
def model():
    return randomise(BERT(BERTConfig(17, **SIZES)))


@pytest.fixture
def folder(tmp_path, model):
    model.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def change_config(folder, **values):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def refusal(cls, folder, **options):
    """The one line with which a checkpoint is refused."""
    with pytest.raises(CheckpointError) as caught:
        cls.from_pretrained(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# There and back


@each_model
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_what_is_saved_is_loaded(tmp_path, model, dtype):
    model = randomise(model).to(dtype).eval()
    model.save_pretrained(tmp_path / "new" / "folder")
    loaded = type(model).from_pretrained(tmp_path / "new" / "folder")
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == dtype and torch.equal(tensor, model.state_dict()[name]), name
    got, want = loaded(IDS), model(IDS)
    assert all(map(torch.equal, got, want))


@each_model
def test_the_table_names_every_tensor_once(model):
    places = [model.layout.place(name) for name in model.state_dict()]
    assert len(set(places)) == len(places)
    names = [model.layout.their_name(name) for name in model.state_dict()]
    for name, _, count in places:  # whole tensors stand there once, and of others every part
        assert names.count(name) == count
    assert not any("*" in name for name in names)
    assert set(model.layout.copies.values()) <= set(names)
    assert not set(model.layout.copies) & set(names)


def test_numbers_stand_in_their_places():
    assert (
        BERT.layout.their_name("encoder.layers.11.attention.query_projection.bias")
        == "bert.encoder.layer.11.attention.self.query.bias"
    )
    assert BERT.layout.their_name("head.bias") == "cls.predictions.bias"


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "swish"])
def test_activations_there_and_back(tmp_path, activation):
    model = BERT(BERTConfig(17, **SIZES, activation=activation))
    model.save_pretrained(tmp_path / "bert")
    assert BERT.from_pretrained(tmp_path / "bert").config.activation == activation


def test_a_loaded_model_can_be_trained(folder):
    model = BERT.from_pretrained(folder)
    assert not any(module.training for module in model.modules())
    model(IDS)[0].sum().backward()
    model(IDS)[1].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad and parameter.grad is not None, name
    torch.optim.SGD(model.parameters(), lr=0.1).step()


@pytest.mark.parametrize("model", [MODELS[0], MODELS[4]], ids=["bert", "gpt2"])
@pytest.mark.parametrize("pickled", [False, True])
def test_each_tensor_of_the_file_is_read_once_and_is_a_copy(tmp_path, monkeypatch, model, pickled):
    """GPT-2's queries, keys and values stand in one tensor, and turned, as are other maps."""
    randomise(model).save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    if pickled:
        torch.save(load_file(path), tmp_path / "model" / "pytorch_model.bin")
        path.unlink()
    opener = "_open_pickle" if pickled else "_open_safetensors"
    opened, times = getattr(checkpoints, opener), {}

    def counting(path):
        def count(name, tensor):
            def read(*scratch):
                times[name] = times.get(name, 0) + 1
                return tensor.read(*scratch)

            return dataclasses.replace(tensor, read=read)

        return {name: count(name, tensor) for name, tensor in opened(path).items()}

    monkeypatch.setattr(checkpoints, opener, counting)
    for dtype in (torch.float32, torch.float64):
        times.clear()
        loaded = type(model).from_pretrained(tmp_path / "model", dtype=dtype)
        assert set(times.values()) == {1} and len(times) > 20
        for name, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, model.state_dict()[name].to(dtype)), name
            assert tensor.dtype == dtype and tensor.is_contiguous()
            assert tensor.untyped_storage().nbytes() == tensor.nbytes
        places = {tensor.data_ptr() for tensor in loaded.state_dict().values()}
        assert len(places) == len(loaded.state_dict())


def test_maps_wider_than_a_stripe_are_turned(tmp_path):
    model = randomise(GPT2(GPT2Config(17, **SIZES | {"d_model": 39, "d_ff": 50})))
    model.save_pretrained(tmp_path / "gpt2")
    assert checkpoints._STRIPE < 39 and 39 % checkpoints._STRIPE and 50 % checkpoints._STRIPE
    for name, tensor in GPT2.from_pretrained(tmp_path / "gpt2").state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_dtype_can_be_chosen(folder, model):
    loaded = BERT.from_pretrained(folder, dtype=torch.float64)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].double())
    with pytest.raises(ValueError, match=r"^dtype: expected a floating dtype, got torch.int64"):
        BERT.from_pretrained(folder, dtype=torch.int64)


def test_folders_may_be_strings_or_paths(folder):
    for path in (folder, str(folder), f"{folder}/"):
        assert BERT.from_pretrained(path).config.vocab_size == 17


def test_the_file_may_change_later(folder, model):
    """A tensor of the library is a window into the file; ours is not."""
    loaded = BERT.from_pretrained(folder)
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    os.truncate(path, 0)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


# Old files


def test_tensorflows_names_of_a_norm(folder, model):
    """The official BERT files call its scale gamma and its shift beta."""

    def rename(tensors):
        for name in [name for name in tensors if "LayerNorm" in name]:
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            tensors[old.replace("LayerNorm.bias", "LayerNorm.beta")] = tensors.pop(name)

    change_tensors(folder, rename)
    assert any(name.endswith("gamma") for name in load_file(folder / "model.safetensors"))
    assert torch.equal(BERT.from_pretrained(folder)(IDS)[0], model.eval()(IDS)[0])


def test_numbers_of_positions_are_passed_over(folder, model):
    change_tensors(
        folder, lambda t: t.update({"bert.embeddings.position_ids": torch.arange(13)[None]})
    )
    assert torch.equal(BERT.from_pretrained(folder)(IDS)[0], model.eval()(IDS)[0])


def test_a_tied_tensor_may_stand_there_twice(folder):
    words, decoder = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    change_tensors(folder, lambda t: t.update({decoder: t[words].clone()}))
    BERT.from_pretrained(folder)
    change_tensors(folder, lambda t: t[decoder][3, 4].add_(1e-3))
    assert refusal(BERT, folder) == (
        f"model.safetensors: expected {decoder} equal to {words}, to which it is tied, got others"
    )


@pytest.mark.parametrize("archive", [True, False])
def test_a_pickle_of_tensors(folder, model, archive):
    """What several official repositories still have; before torch 1.6 it was no archive."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=archive)
    loaded = BERT.from_pretrained(folder)
    os.truncate(path, 0)
    assert torch.equal(loaded(IDS)[0], model.eval()(IDS)[0])


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


@pytest.mark.parametrize("make", ["plain", "torch", "truncated", "list", "numbers"])
def test_no_pickle_runs_code(folder, monkeypatch, make):
    monkeypatch.chdir(folder)
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    if make == "plain":
        path.write_bytes(pickle.dumps({"weight": Evil()}, protocol=2))
    elif make == "torch":
        torch.save({"weight": Evil()}, path)
    elif make == "truncated":
        torch.save({"weight": torch.ones(1000)}, path)
        os.truncate(path, 1000)
    elif make == "list":
        torch.save([torch.ones(3)], path)
    else:
        torch.save({"weight": 3}, path)
    assert refusal(BERT, folder).startswith("pytorch_model.bin: expected ")
    assert not Path("evil-was-here").exists()


# Mismatches


def test_missing_tensors(folder):
    def remove(tensors):
        del tensors["bert.pooler.dense.weight"]
        del tensors["bert.encoder.layer.1.output.dense.weight"]

    change_tensors(folder, remove)
    assert refusal(BERT, folder) == (  # the first in the order of the model
        "model.safetensors: missing tensor bert.encoder.layer.1.output.dense.weight, shape (9, 11)"
    )


def test_unexpected_tensors(folder):
    change_tensors(folder, lambda t: t.update({"bert.extra.weight": torch.zeros(2, 3)}))
    assert refusal(BERT, folder) == (
        "model.safetensors: unexpected tensor bert.extra.weight, shape (2, 3)"
    )


def test_more_layers_in_the_file_than_in_the_config(folder):
    change_config(folder, num_hidden_layers=1)
    assert refusal(BERT, folder).startswith(
        "model.safetensors: unexpected tensor bert.encoder.layer.1."
    )


@pytest.mark.parametrize("shape", [(9, 10), (11, 9), (99,), (9, 11, 1)])
def test_misshapen_tensors(folder, shape):
    name = "bert.encoder.layer.0.output.dense.weight"
    change_tensors(folder, lambda t: t.update({name: torch.zeros(shape)}))
    assert refusal(BERT, folder) == (
        f"model.safetensors: misshapen tensor {name}, expected shape (9, 11), got {shape}"
    )


def test_misshapen_copies(folder):
    name = "cls.predictions.decoder.weight"
    change_tensors(folder, lambda t: t.update({name: torch.zeros(9, 17)}))
    assert refusal(BERT, folder).startswith(f"model.safetensors: misshapen tensor {name}, expected")


def test_tensors_of_other_kinds(folder):
    name = "cls.predictions.bias"
    change_tensors(folder, lambda t: t.update({name: torch.zeros(17, dtype=torch.int32)}))
    assert f"got another kind in {name}" in refusal(BERT, folder)
    assert f"got another kind in {name}" in refusal(BERT, folder, dtype=torch.float32)


def test_several_dtypes_need_one_to_be_chosen(folder):
    change_tensors(folder, lambda t: t.update({n: x.half() for n, x in t.items() if x.ndim == 1}))
    assert "expected floating tensors of one dtype (or give dtype=)" in refusal(BERT, folder)
    loaded = BERT.from_pretrained(folder, dtype=torch.float32)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b'{"a": 1}', "cut"], ids=repr)
def test_files_that_are_no_safetensors(folder, content):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] if content == "cut" else content)
    assert refusal(BERT, folder).startswith("model.safetensors: expected a safetensors file, got: ")


def test_a_checkpoint_of_another_family(folder, tmp_path):
    assert refusal(DistilBERT, folder) == (
        "config.json: expected model_type 'distilbert', got 'bert'"
    )
    randomise(MODELS[1]).save_pretrained(tmp_path / "discriminator")
    assert refusal(Generator, tmp_path / "discriminator").startswith(
        "model.safetensors: missing tensor generator_lm_head.bias"
    )


# Options


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type = 'relative_key' is not supported, only 'absolute'",
        ),
        ({"is_decoder": True}, "is_decoder = True is not supported, only False"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings = False is not supported, only True"),
        ({"hidden_act": "mish"}, "hidden_act = 'mish' is not supported, only gelu, "),
        ({"hidden_size": "9"}, "hidden_size, here d_model: expected an integer of at least 1, got"),
        ({"num_attention_heads": 2}, "num_attention_heads, here num_heads: expected a divisor of"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob, here dropout: expected a number in"),
    ],
)
def test_unsupported_options(folder, values, message):
    change_config(folder, **values)
    assert refusal(BERT, folder).startswith(f"config.json: {message}")


def test_sinusoidal_distilbert(tmp_path):
    randomise(MODELS[3]).save_pretrained(tmp_path / "student")
    change_config(tmp_path / "student", sinusoidal_pos_embds=True)
    assert refusal(DistilBERT, tmp_path / "student") == (
        "config.json: sinusoidal_pos_embds = True is not supported, only False"
    )


def test_a_size_that_is_not_there(folder):
    """The number of heads shows in no shape, so a default would load and be wrong."""
    change_config(folder, num_attention_heads=None)
    assert refusal(BERT, folder) == (
        "config.json: expected a value for num_attention_heads, found none"
    )


def test_options_that_are_not_there_have_the_official_default(folder):
    absent = ("type_vocab_size", "hidden_act", "layer_norm_eps", "hidden_dropout_prob")
    change_config(folder, **dict.fromkeys(absent), model_type=None)
    assert BERT.from_pretrained(folder).config == BERTConfig(17, **SIZES)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00"])
def test_configs_that_are_none(folder, content):
    (folder / "config.json").write_text(content)
    assert refusal(BERT, folder).startswith("config.json: expected ")


def test_nothing_is_read_before_all_is_checked(folder, monkeypatch):
    change_tensors(folder, lambda t: t.pop("cls.seq_relationship.weight"))

    opened = checkpoints._open_safetensors

    def read(scratch=None):
        raise AssertionError("a tensor was read")

    def unreadable(path):
        return {name: dataclasses.replace(t, read=read) for name, t in opened(path).items()}

    monkeypatch.setattr(checkpoints, "_open_safetensors", unreadable)
    assert "missing tensor cls.seq_relationship.weight" in refusal(BERT, folder)


# Saving


def test_a_failure_leaves_the_old_checkpoint(folder, model, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before.keys() == {"config.json", "model.safetensors"}

    def fail(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    for target in (folder, folder.parent / "new"):
        with pytest.raises(OSError, match="disk full"):
            randomise(model, seed=1).save_pretrained(target)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(folder.parent.iterdir()) == [folder]


def test_saving_over_the_file_that_was_loaded(folder):
    model = BERT.from_pretrained(folder)
    with torch.no_grad():
        model.head.bias += 1
    want = model(IDS)[0]
    (folder / "notes.txt").write_text("kept")
    model.save_pretrained(folder)
    assert torch.equal(model(IDS)[0], want)
    assert torch.equal(BERT.from_pretrained(folder)(IDS)[0], want)
    assert (folder / "notes.txt").read_text() == "kept"
    assert list(folder.parent.iterdir()) == [folder]


def test_the_same_model_gives_the_same_bytes(tmp_path, model):
    for name in ("a", "b"):
        model.save_pretrained(tmp_path / name)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


# Finding


def test_folders_and_files_that_are_not_there(folder, tmp_path):
    for path in (tmp_path / "nowhere", "./nowhere", "a/b/c", "no where"):
        with pytest.raises(FileNotFoundError, match="expected a folder or a Hub id owner/name"):
            BERT.from_pretrained(path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected a file model.safetensors, found none"):
        BERT.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected a file config.json, found none"):
        BERT.from_pretrained(folder)


def test_the_hub_is_asked_for_two_files(folder, monkeypatch, model):
    asked = []

    def download(repo_id, name, revision=None):
        asked.append((repo_id, name, revision))
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    loaded = BERT.from_pretrained("owner/some-model.v2", revision="main")
    assert torch.equal(loaded(IDS)[0], model.eval()(IDS)[0])
    names = ("config.json", "model.safetensors")
    assert asked == [("owner/some-model.v2", name, "main") for name in names]


@pytest.mark.parametrize("cls", [errors.RemoteEntryNotFoundError, errors.OfflineModeIsEnabled])
def test_the_hub_or_its_cache_may_have_a_pickle_only(folder, monkeypatch, model, cls):
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")

    def download(repo_id, name, revision=None):
        if name == "model.safetensors":
            raise hub_error(cls)
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert torch.equal(BERT.from_pretrained("model")(IDS)[0], model.eval()(IDS)[0])


def hub_error(cls):
    """An error as the library raises it, without the request that it usually carries."""
    error = cls.__new__(cls)
    Exception.__init__(error, "many\nlines\nof advice")
    return error


@pytest.mark.parametrize(
    "cls, kind, message",
    [
        (errors.OfflineModeIsEnabled, ConnectionError, "the Hub cannot be reached"),
        (errors.LocalEntryNotFoundError, ConnectionError, "the Hub cannot be reached"),
        (errors.HfHubHTTPError, ConnectionError, "the Hub cannot be reached"),
        (errors.RepositoryNotFoundError, FileNotFoundError, "or a public repository on the Hub"),
        (errors.GatedRepoError, FileNotFoundError, "or a public repository on the Hub"),
        (errors.HFValidationError, FileNotFoundError, "or a public repository on the Hub"),
        (errors.RevisionNotFoundError, FileNotFoundError, "owner/name at v1: expected"),
        (errors.RemoteEntryNotFoundError, FileNotFoundError, "expected a file config.json on the"),
    ],
)
def test_what_the_hub_refuses_is_one_line(monkeypatch, cls, kind, message):
    def download(repo_id, name, revision=None):
        raise hub_error(cls)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(kind, match=message) as caught:
        BERT.from_pretrained("owner/name", revision="v1")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("owner/name")


def test_offline_for_real(tmp_path, monkeypatch):
    """The library itself, told to stay offline, with an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match=re.escape("owner/name: no such folder, config.json")):
        find_file("owner/name", "config.json")


@pytest.mark.parametrize("package", ["huggingface_hub", "safetensors"])
def test_a_package_that_is_not_installed_is_named(folder, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    source = "owner/name" if package == "huggingface_hub" else folder
    with pytest.raises(ImportError, match=rf"`pip install {package}`"):
        BERT.from_pretrained(source)


def test_read_config(folder):
    assert read_config(folder)["architectures"] == ["BertForPreTraining"]


# Memory, in a process of its own, which also shows what is imported when


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("family", ["bert", "gpt2"])  # as they are, and fused and turned
def test_loading_takes_little_more_memory_than_the_weights(tmp_path, family):
    kind, config = {"bert": (BERT, BERTConfig), "gpt2": (GPT2, GPT2Config)}[family]
    with torch.device("meta"):
        model = kind(config(9000, d_model=512, num_layers=4, num_heads=8, d_ff=2048, max_length=64))
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(0.5)
    model.save_pretrained(tmp_path / "large")
    del model
    gc.collect()
    peak, weights = memory_of_loading(family, tmp_path / "large", tmp_path)
    assert weights > 60e6
    assert 0.9 < peak / weights <= 1.2


def test_docstring_names_what_is_public():
    assert set(checkpoints.__all__) == {
        "CheckpointError",
        "Layout",
        "Part",
        "Pretrained",
        "find_file",
        "load_parts",
        "read_config",
    }
