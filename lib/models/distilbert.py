"""DistilBERT: BERT's encoder with half of the layers, taught by the whole.

Source: Sanh et al. 2019, "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and
lighter", arXiv:1910.01108. Against BERT it has no segments, no pooler and no next-sentence head.
Derived in chapter 14_distillation; the encoder is in lib.models.bert, the loss in lib.losses.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

from lib.models.bert import BERT, BERTConfig, MaskedLM
from lib.models.layouts import DISTILBERT_LAYOUT


@dataclass(frozen=True)
class DistilBERTConfig(BERTConfig):
    """As `BERTConfig`, with six layers and no segments; the defaults are the released model."""

    num_layers: int = 6
    num_segments: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_segments != 0:
            raise ValueError(f"num_segments: expected 0, got {self.num_segments}")


class DistilBERT(MaskedLM):
    """A small encoder with one head, which names hidden words.

    `forward(input_ids, *, attention_mask=None)` returns logits (B, n, V); `token_type_ids` are
    refused, as there are no segments. Attributes and other methods are those of `MaskedLM`.

    `DistilBERT.from_pretrained(folder_or_repo_id)` loads an official checkpoint with its head; see
    `lib.checkpoints`. `DistilBERT.from_teacher(bert)` starts a student.

    >>> import torch
    >>> config = DistilBERTConfig(vocab_size=50, d_model=12, num_layers=1, num_heads=3, d_ff=48)
    >>> DistilBERT(config)(torch.randint(50, (2, 7))).shape
    torch.Size([2, 7, 50])
    """

    config_class, layout = DistilBERTConfig, DISTILBERT_LAYOUT

    @classmethod
    def from_teacher(cls, teacher: BERT, layers: Sequence[int] | None = None) -> Self:
        """A student that starts with copies of the teacher's embeddings, head and some layers.

        layers : the teacher's layers to take, in this order, counted from 0
            Left out, every other one: 0, 2, 4, …. The paper's section 3 says "one layer out of
            two"; its authors' script takes 0, 2, 4, 7, 9, 11 of twelve.

        The teacher's segment vectors and pooler are left behind (section 3), so with all layers the
        student is the teacher without the vector of the first segment. Nothing is shared with the
        teacher, which stays as it is. The student is in training mode, on the teacher's device and
        of its dtype.

        Raises ValueError for a layer that the teacher does not have, or for none.
        """
        depth = teacher.config.num_layers
        layers = list(range(0, depth, 2) if layers is None else layers)
        if not layers or any(not isinstance(i, int) or not 0 <= i < depth for i in layers):
            raise ValueError(f"layers: expected some of 0 … {depth - 1}, got {layers}")
        options = asdict(teacher.config) | {"num_layers": len(layers), "num_segments": 0}
        weight = teacher.head.transform.weight
        student = cls(DistilBERTConfig(**options)).to(weight.device, weight.dtype)

        sources = {f"encoder.layers.{i}": f"encoder.layers.{j}" for i, j in enumerate(layers)}
        sources |= {"encoder.embeddings": "encoder.embeddings", "head": "head"}
        if student.encoder.projection is not None:
            sources["encoder.projection"] = "encoder.projection"
        for ours, theirs in sources.items():
            state = teacher.get_submodule(theirs).state_dict()
            state.pop("segment.weight", None)
            student.get_submodule(ours).load_state_dict(state)  # copies, and every name must fit
        return student
