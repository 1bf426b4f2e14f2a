"""Official checkpoints: read and written whole, or not at all.

Used from chapter 11_bert on; the file format is explained there.

A checkpoint is a folder, or a repository of the Hugging Face Hub, with

* `config.json`: sizes and options under the names that the family's authors gave them;
* `model.safetensors`: the tensors by name, 8 bytes of header length, a header in JSON, then raw
  numbers. Where there is none, `pytorch_model.bin`, a pickle: read by torch's restricted unpickler
  (`weights_only=True`), which builds tensors and runs no code.

A model class says in a `Layout` how its names and options are called there, and inherits from
`Pretrained` the two methods `from_pretrained` and `save_pretrained`. Nothing else is specific to a
family: the table of names is the whole difference between our module and the official one.

Errors. `CheckpointError` (a ValueError), in one line, for a checkpoint that is not exactly this
model: an unsupported option, the first tensor that is missing, unexpected or misshapen, or a second
copy of a tied tensor that differs. FileNotFoundError for a folder or file that is not there;
ConnectionError for a Hub that cannot be reached; ImportError, with the package to install, where
`safetensors` or `huggingface_hub` is missing.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

__all__ = [
    "CheckpointError",
    "Layout",
    "Part",
    "Pretrained",
    "find_file",
    "load_parts",
    "read_config",
]


class CheckpointError(ValueError):
    """A checkpoint is not what the model expects; the message says what came first."""


class Part(NamedTuple):
    """Our module is one of several that stand in one of theirs, one after the other.

    GPT-2 has queries, keys and values in one map, of which the keys are Part(name, 1, 3): the
    second third of its outputs.
    """

    name: str
    index: int
    count: int


@dataclass(frozen=True)
class Layout:
    """How a family's files name what our module holds.

    model_type, architecture : what `config.json` says of itself
    options : our config's field → their key
        A key without which no model is defined (`required`) must be there; another that is absent
        has our default, which is the official one.
    required : fields of `options` that have no default
    fixed : their key → the one value that we compute
        Any other value is refused; an absent key means this value.
    weights : our module or parameter → theirs, or a `Part` of theirs
        "*" stands for a layer's number. A module's entry covers its weight and its bias.
    transposed : regular expressions of matrices that are stored (in, out)
        As the map that GPT-2's authors call a convolution has them; `nn.Linear` has (out, in).
    prefix : what some files leave out
        Their names all begin with it here; in a file where none does, it is put in front.
    copies : their tensor → their tensor that it must equal, if the file holds both
        Tied tensors, which some files store twice.
    stand_ins : their tensor → their tensor whose values it gets, if the file does not hold it
        Tensors that are not tied, but were when this file was written.
    ignored : regular expressions of tensors that hold no weights
    """

    model_type: str
    architecture: str
    options: Mapping[str, str]
    required: tuple[str, ...]
    fixed: Mapping[str, Any]
    weights: Mapping[str, str | Part]
    copies: Mapping[str, str] = field(default_factory=dict)
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = (r"position_ids$",)
    transposed: tuple[str, ...] = ()
    prefix: str = ""

    def their_name(self, ours: str) -> str:
        """The official name of one of our parameters, or of the one that it is a part of.

        Raises KeyError for a parameter that the table does not cover.
        """
        return self.place(ours).name

    def place(self, ours: str) -> Part:
        """Where in their file one of our parameters stands: Part(name, 0, 1) if by itself."""
        numbers = re.findall(r"(?<=\.)\d+(?=\.)", ours)
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "*", ours)
        module, _, leaf = pattern.rpartition(".")
        entry, leaf = (pattern, "") if pattern in self.weights else (module, f".{leaf}")
        theirs = self.weights[entry]
        name, index, count = theirs if isinstance(theirs, Part) else (theirs, 0, 1)
        name += leaf
        for number in numbers:
            name = name.replace("*", number, 1)
        return Part(name, index, count)

    def as_stored(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a tensor in their file, where the shape of an `nn.Linear` is given."""
        return shape[::-1] if self.is_transposed(name) and len(shape) == 2 else shape

    def is_transposed(self, name: str) -> bool:
        return any(re.search(pattern, name) for pattern in self.transposed)


# Options whose values have other names in the files. Reading knows every name, writing the first.
_ACTIVATIONS = {
    "gelu": ("gelu",),
    "gelu_tanh": ("gelu_pytorch_tanh", "gelu_new"),
    "relu": ("relu",),
    "swish": ("silu", "swish"),
}
# A norm's scale and shift as TensorFlow calls them, in BERT's first and still official files.
_NEW_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_OLD_NAMES = re.compile(r"LayerNorm\.(gamma|beta)$")

_SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}


class Pretrained(nn.Module):
    """A model that reads and writes official checkpoints.

    A subclass sets `layout` and `config_class`, a dataclass that refuses wrong values, and has a
    constructor that takes such a config and nothing else that is not optional.
    """

    layout: ClassVar[Layout]
    config_class: ClassVar[type]

    @classmethod
    def from_pretrained(
        cls,
        folder_or_repo_id: str | os.PathLike,
        *,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
    ) -> Self:
        """Load a checkpoint, all of it or nothing, and return the model in evaluation mode.

        Parameters
        ----------
        folder_or_repo_id : a folder that exists, or else "name" or "owner/name" on the Hub
        dtype : floating dtype, optional
            What the weights become; as in the file, if left out.
        revision : branch, tag or commit on the Hub, optional

        The model is laid out without memory, every name and shape is checked, and only then is
        each tensor of the file read, once, and ours get memory of their own: the peak is the
        weights and little more, and a file that changes later does not change the model.

        Raises as the module says.
        """
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"dtype: expected a floating dtype, got {dtype}")
        config = cls._config_from(read_config(folder_or_repo_id, revision))
        path = _find_weights(folder_or_repo_id, revision)
        with torch.device("meta"):
            model = cls(config)
        tensors = _checked_tensors(model, cls.layout_of(config), path, dtype)
        model.load_state_dict(tensors, strict=True, assign=True)
        _lay_out_the_rest(model, next(iter(tensors.values())).dtype)
        return model.eval()

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write `config.json` and `model.safetensors` in the official layout.

        A folder that is not there appears with both files at once; in one that is, each file is
        replaced at once, the weights last. Whatever happens on the way, no file is ever half there.
        Tied tensors are written once, as in official files.

        Raises CheckpointError, before anything is written, for an option that the official layout
        has no place for.
        """
        save_file = _import_safetensors().torch.save_file
        folder, config = Path(folder), self._config_to(next(self.parameters()).dtype)
        tensors = _official_tensors(self, self.layout_of(self.config))
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside its destination, so that moving it there is a rename within one file system.
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
            (scratch / "config.json").write_text(text + "\n", encoding="utf-8")
            save_file(tensors, scratch / "model.safetensors", metadata={"format": "pt"})
            scratch.chmod(0o755)  # mkdtemp's folder is for its owner alone
            if not folder.exists():
                scratch.rename(folder)
            else:
                for name in ("config.json", "model.safetensors"):
                    (scratch / name).replace(folder / name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @classmethod
    def layout_of(cls, config: Any) -> Layout:
        """The layout of this config: `layout`, unless names of tensors depend on an option."""
        return cls.layout

    @classmethod
    def _config_from(cls, theirs: Mapping[str, Any]) -> Any:
        """Our config from the contents of `config.json`."""
        layout = cls.layout
        if theirs.get("model_type", layout.model_type) != layout.model_type:
            raise CheckpointError(
                f"config.json: expected model_type {layout.model_type!r}, "
                f"got {theirs['model_type']!r}"
            )
        for key, value in layout.fixed.items():
            if theirs.get(key, value) != value:
                raise CheckpointError(
                    f"config.json: {key} = {theirs[key]!r} is not supported, only {value!r}"
                )
        ours = {}
        for name, key in layout.options.items():
            if key in theirs:
                ours[name] = theirs[key]
            elif name in layout.required:
                raise CheckpointError(f"config.json: expected a value for {key}, found none")
        if "activation" in ours:
            known = {key: name for name, keys in _ACTIVATIONS.items() for key in keys}
            key, value = layout.options["activation"], ours["activation"]
            if value not in known:
                raise CheckpointError(
                    f"config.json: {key} = {value!r} is not supported, only {', '.join(known)}"
                )
            ours["activation"] = known[value]
        try:
            return cls.config_class(**ours)
        except ValueError as error:
            name = str(error).partition(":")[0]
            key = layout.options.get(name, name)
            raise CheckpointError(f"config.json: {key}, here {error}") from None

    def _config_to(self, dtype: torch.dtype) -> dict[str, Any]:
        """The contents of `config.json` from our config."""
        layout = self.layout
        for option in fields(self.config):
            value = getattr(self.config, option.name)
            if option.name not in layout.options and value != option.default:
                raise CheckpointError(
                    f"{option.name}: expected {option.default!r}, as a {layout.model_type} "
                    f"checkpoint has no place for another value, got {value!r}"
                )
        theirs = {key: getattr(self.config, name) for name, key in layout.options.items()}
        if "activation" in layout.options:
            theirs[layout.options["activation"]] = _ACTIVATIONS[self.config.activation][0]
        return (
            {"tie_word_embeddings": True}
            | theirs
            | {
                "model_type": layout.model_type,
                "architectures": [layout.architecture],
                "dtype": str(dtype).removeprefix("torch."),
            }
        )


def load_parts(
    parts: Mapping[str, type[Pretrained]],
    sources: Mapping[str, str | os.PathLike | None],
    **options,
) -> dict[str, Pretrained]:
    """Load a model that is published in parts, each a checkpoint of its own; return those found.

    parts : name → class
    sources : name → where that part is, or None
        Where only the first is given, it may be a folder with a folder for each part, by name; or
        any one part, which is told by the `architectures` of its `config.json`.
    options : of `Pretrained.from_pretrained`
    """
    given = {name: source for name, source in sources.items() if source is not None}
    (first, source), *others = given.items()
    if not others and all((Path(source) / name / "config.json").is_file() for name in parts):
        given = {name: Path(source) / name for name in parts}
    elif not others:
        said = read_config(source, options.get("revision")).get("architectures") or ()
        names = [name for name, part in parts.items() if part.layout.architecture in said]
        given = {(names or [first])[0]: source}
    return {name: parts[name].from_pretrained(given[name], **options) for name in given}


def find_file(folder_or_repo_id: str | os.PathLike, name: str, revision: str | None = None) -> Path:
    """The path of a file in a folder, or in a repository of the Hub: downloaded once, then cached.

    What is neither a folder nor written like a repository's id is taken for a folder that is
    missing. Raises FileNotFoundError, or ConnectionError where the Hub cannot be reached and the
    file is not in the cache.
    """
    folder = Path(folder_or_repo_id)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: expected a file {name}, found none")
        return folder / name
    repo_id = os.fspath(folder_or_repo_id)
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", repo_id):
        raise FileNotFoundError(f"{repo_id}: expected a folder or a Hub id owner/name")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise ImportError(
            f"{repo_id}: not a folder here, and the Hub needs `pip install huggingface_hub`"
        ) from None
    try:
        return Path(huggingface_hub.hf_hub_download(repo_id, name, revision=revision))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        where = f"{repo_id} at {revision}" if revision else repo_id
        raise FileNotFoundError(
            f"{where}: expected a folder here or a public repository on the Hub, found neither"
        ) from None
    except errors.EntryNotFoundError as error:
        if not isinstance(error, errors.LocalEntryNotFoundError):  # the Hub has been asked
            raise FileNotFoundError(
                f"{repo_id}: expected a file {name} on the Hub, found none"
            ) from None
        reason = error
    except (OSError, errors.HTTPError) as error:  # among them offline mode
        reason = error
    raise ConnectionError(
        f"{repo_id}: no such folder, {name} is not in the cache, and the Hub cannot be reached "
        f"({type(reason).__name__})"
    )


def read_config(folder_or_repo_id: str | os.PathLike, revision: str | None = None) -> dict:
    """The contents of a checkpoint's `config.json`."""
    path = find_file(folder_or_repo_id, "config.json", revision)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise CheckpointError(f"config.json: expected JSON, got an error: {error}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"config.json: expected an object, got {type(config).__name__}")
    return config


def _find_weights(folder_or_repo_id: str | os.PathLike, revision: str | None) -> Path:
    try:
        return find_file(folder_or_repo_id, "model.safetensors", revision)
    except (FileNotFoundError, ConnectionError) as error:
        missing = error
    try:  # without a network too, as it may be in the cache
        return find_file(folder_or_repo_id, "pytorch_model.bin", revision)
    except (FileNotFoundError, ConnectionError):
        raise missing from None


# Tensors


@dataclass(frozen=True)
class _Stored:
    """A tensor in a file: what it is, and how to read it.

    `read()` is a tensor in memory of its own; `read(scratch)`, for bytes enough, is one that lasts
    until they are used again.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None  # None: a kind that no weight has
    read: Callable[..., Tensor]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _checked_tensors(
    model: nn.Module, layout: Layout, path: Path, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """The file's tensors under our names, once every name, shape, dtype and tie is right."""
    stored = _stored_tensors(path)
    if layout.prefix and not any(name.startswith(layout.prefix) for name in stored):
        stored = {layout.prefix + name: tensor for name, tensor in stored.items()}
    stored = {n: t for n, t in stored.items() if not any(re.search(p, n) for p in layout.ignored)}
    for name, original in layout.stand_ins.items():
        if name not in stored and original in stored:
            stored[name] = stored[original]
    places = {name: layout.place(name) for name in model.state_dict()}
    wanted: dict[str, tuple[int, ...]] = {}  # their names and shapes
    for ours, parameter in model.state_dict().items():
        name, _, count = places[ours]
        shape = tuple(parameter.shape)
        wanted[name] = layout.as_stored(name, (count * shape[0], *shape[1:]))

    for name, shape in wanted.items():
        if name not in stored:
            raise CheckpointError(f"{path.name}: missing tensor {name}, shape {shape}")
    for name in stored:
        if name not in wanted and name not in layout.copies:
            raise CheckpointError(
                f"{path.name}: unexpected tensor {name}, shape {stored[name].shape}"
            )
    for name, tensor in stored.items():
        shape = wanted[layout.copies.get(name, name)]
        if tensor.shape != shape:
            raise CheckpointError(
                f"{path.name}: misshapen tensor {name}, expected shape {shape}, got {tensor.shape}"
            )
    first_name, first = next(iter(stored.items()))
    for name, tensor in stored.items():
        if tensor.dtype is None or (dtype is None and tensor.dtype != first.dtype):
            raise CheckpointError(
                f"{path.name}: expected floating tensors of one dtype (or give dtype=), got "
                f"{tensor.dtype or 'another kind'} in {name} and {first.dtype} in {first_name}"
            )
    for name, original in layout.copies.items():
        if name in stored and not torch.equal(stored[name].read(), stored[original].read()):
            raise CheckpointError(
                f"{path.name}: expected {name} equal to {original}, to which it is tied, got others"
            )
    return _read_all(stored, layout, places, dtype or first.dtype)


def _read_all(
    stored: Mapping[str, _Stored], layout: Layout, places: Mapping[str, Part], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Our tensors, each in memory of its own; each of theirs is read once.

    What is not as we want it, several in one, turned, or of another dtype, is read into the same
    bytes one after the other, and goes from there to its place in one pass.
    """
    found: dict[str, list[tuple[str, Part]]] = {}
    for ours, part in places.items():
        found.setdefault(part.name, []).append((ours, part))

    def is_ready(name: str) -> bool:
        tensor, (_, part) = stored[name], found[name][0]
        is_turned = layout.is_transposed(name) and len(tensor.shape) == 2
        return not is_turned and part.count == 1 and tensor.dtype == dtype

    most = max((stored[name].nbytes for name in found if not is_ready(name)), default=0)
    scratch = torch.empty(most, dtype=torch.uint8)
    tensors: dict[str, Tensor] = {}
    for name, parts in found.items():
        if is_ready(name):
            [(ours, _)] = parts
            tensors[ours] = stored[name].read()
            continue
        whole = stored[name].read(scratch)
        for ours, (_, index, count) in parts:
            tensors[ours] = _part(whole, layout.is_transposed(name), index, count, dtype)
    return {ours: tensors[ours] for ours in places}


def _part(whole: Tensor, transposed: bool, index: int, count: int, dtype: torch.dtype) -> Tensor:
    """A copy of one part of a tensor of theirs, turned if it is a matrix that they have turned."""
    if not (transposed and whole.ndim == 2):
        part = whole.chunk(count)[index]
        return part.to(dtype, copy=True, memory_format=torch.contiguous_format)
    stripes = whole.chunk(count, dim=1)[index].split(_STRIPE)
    turned = whole.new_empty(stripes[0].shape[1], whole.shape[0], dtype=dtype)
    for place, stripe in zip(turned.split(_STRIPE, dim=1), stripes, strict=True):
        place.copy_(stripe.mT)
    return turned


# Rows to turn at a time: few, so that what is read and where it goes stay in the cache.
_STRIPE = 8


def _lay_out_the_rest(model: nn.Module, dtype: torch.dtype) -> None:
    """Give memory to buffers that no file holds; their modules compute them when they are moved."""
    for module in model.modules():
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            module._apply(lambda x: torch.empty_like(x, device="cpu", dtype=dtype), recurse=False)


def _official_tensors(model: nn.Module, layout: Layout) -> dict[str, Tensor]:
    """The model's tensors as the file has them: put together, turned, under official names."""
    parts: dict[str, list[tuple[int, Tensor]]] = {}
    for ours, tensor in model.state_dict().items():
        name, index, _ = layout.place(ours)
        parts.setdefault(name, []).append((index, tensor.detach()))
    tensors = {}
    for name, found in parts.items():
        whole = torch.cat([tensor for _, tensor in sorted(found, key=lambda part: part[0])])
        turned = whole.mT if layout.is_transposed(name) and whole.ndim == 2 else whole
        tensors[name] = turned.contiguous()
    return tensors


def _stored_tensors(path: Path) -> dict[str, _Stored]:
    """What is in the file, by name, with the names of today."""
    stored = _open_safetensors(path) if path.suffix == ".safetensors" else _open_pickle(path)
    return {_OLD_NAMES.sub(lambda old: _NEW_NAMES[old[0]], n): t for n, t in stored.items()}


def _open_safetensors(path: Path) -> dict[str, _Stored]:
    """Let the library check the file, then read tensors ourselves.

    The library's tensors are windows into the file: they would change with it, and while they
    live, its pages stand in memory beside any copy.
    """
    safetensors = _import_safetensors()
    try:
        with safetensors.safe_open(path, framework="pt"):
            pass
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path.name}: expected a safetensors file, got: {error}") from None
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_size))
    header.pop("__metadata__", None)

    def read(
        shape: tuple[int, ...], dtype: torch.dtype, offset: int, scratch: Tensor | None = None
    ) -> Tensor:
        if scratch is None:
            tensor = torch.empty(shape, dtype=dtype)
        else:
            tensor = scratch[: math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
        with path.open("rb") as file:
            file.seek(8 + header_size + offset)
            if file.readinto(tensor.view(-1).view(torch.uint8).numpy()) != tensor.nbytes:
                raise CheckpointError(f"{path.name}: the file became shorter while it was read")
        return tensor

    stored = {}
    for name, entry in header.items():
        shape, dtype = tuple(entry["shape"]), _SAFETENSORS_DTYPES.get(entry["dtype"])
        stored[name] = _Stored(shape, dtype, partial(read, shape, dtype, entry["data_offsets"][0]))
    return stored


def _open_pickle(path: Path) -> dict[str, _Stored]:
    # Files from before torch 1.6 are no archives and cannot be mapped: those are read at once.
    mmap = zipfile.is_zipfile(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise CheckpointError(
            f"{path.name}: expected tensors that torch.load(weights_only=True) reads, got others"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{path.name}: expected a dictionary of tensors, got others")

    def read(tensor: Tensor, scratch: Tensor | None = None) -> Tensor:
        if scratch is not None:  # which is not needed: what is mapped lasts
            return tensor
        return tensor.clone(memory_format=torch.contiguous_format)

    return {
        name: _Stored(tuple(t.shape), t.dtype if t.is_floating_point() else None, partial(read, t))
        for name, t in state.items()
    }


def _import_safetensors():
    try:
        import safetensors
        import safetensors.torch
    except ImportError:
        raise ImportError("checkpoints need `pip install safetensors`") from None
    return safetensors
