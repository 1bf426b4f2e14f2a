"""How official checkpoints name what our models hold: one table a family.

Left our module (or parameter), right theirs; "*" is the number of a layer. A module stands for its
weight and its bias. `lib.checkpoints.Layout` says what the other entries mean.
"""

from lib.checkpoints import Layout

_NO_DECODER = {"is_decoder": False, "add_cross_attention": False}
_TIED = {"tie_word_embeddings": True}
_SIZES = ("vocab_size", "d_model", "num_layers", "num_heads", "d_ff", "max_length")

BERT_LAYOUT = Layout(
    model_type="bert",
    architecture="BertForPreTraining",
    options={
        "vocab_size": "vocab_size",
        "d_model": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "d_ff": "intermediate_size",
        "max_length": "max_position_embeddings",
        "num_segments": "type_vocab_size",
        "activation": "hidden_act",
        "dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "eps": "layer_norm_eps",
        "init_std": "initializer_range",
    },
    required=_SIZES,
    fixed={"position_embedding_type": "absolute", **_NO_DECODER, **_TIED},
    weights={
        "encoder.embeddings.word": "bert.embeddings.word_embeddings",
        "encoder.embeddings.position": "bert.embeddings.position_embeddings",
        "encoder.embeddings.segment": "bert.embeddings.token_type_embeddings",
        "encoder.embeddings.norm": "bert.embeddings.LayerNorm",
        "encoder.layers.*.attention.query_projection": "bert.encoder.layer.*.attention.self.query",
        "encoder.layers.*.attention.key_projection": "bert.encoder.layer.*.attention.self.key",
        "encoder.layers.*.attention.value_projection": "bert.encoder.layer.*.attention.self.value",
        "encoder.layers.*.attention.output_projection": (
            "bert.encoder.layer.*.attention.output.dense"
        ),
        "encoder.layers.*.attention_norm": "bert.encoder.layer.*.attention.output.LayerNorm",
        "encoder.layers.*.feed_forward.expand": "bert.encoder.layer.*.intermediate.dense",
        "encoder.layers.*.feed_forward.contract": "bert.encoder.layer.*.output.dense",
        "encoder.layers.*.feed_forward_norm": "bert.encoder.layer.*.output.LayerNorm",
        "head.transform": "cls.predictions.transform.dense",
        "head.norm": "cls.predictions.transform.LayerNorm",
        "head.bias": "cls.predictions.bias",
        "pooler": "bert.pooler.dense",
        "next_sentence": "cls.seq_relationship",
    },
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
)

# ELECTRA's encoder is BERT's under another name, with word vectors of a size of their own.
_ELECTRA_ENCODER = {
    ours: theirs.replace("bert.", "electra.", 1)
    for ours, theirs in BERT_LAYOUT.weights.items()
    if ours.startswith("encoder.")
} | {"encoder.projection": "electra.embeddings_project"}
_ELECTRA_OPTIONS = BERT_LAYOUT.options | {"d_embedding": "embedding_size"}

DISCRIMINATOR_LAYOUT = Layout(
    model_type="electra",
    architecture="ElectraForPreTraining",
    options=_ELECTRA_OPTIONS,
    required=(*_SIZES, "d_embedding"),
    fixed=BERT_LAYOUT.fixed,
    weights=_ELECTRA_ENCODER
    | {
        "transform": "discriminator_predictions.dense",
        "output": "discriminator_predictions.dense_prediction",
    },
)

GENERATOR_LAYOUT = Layout(
    model_type="electra",
    architecture="ElectraForMaskedLM",
    options=_ELECTRA_OPTIONS,
    required=(*_SIZES, "d_embedding"),
    fixed=BERT_LAYOUT.fixed,
    weights=_ELECTRA_ENCODER
    | {
        "head.transform": "generator_predictions.dense",
        "head.norm": "generator_predictions.LayerNorm",
        "head.bias": "generator_lm_head.bias",
    },
    copies={"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
)

DISTILBERT_LAYOUT = Layout(
    model_type="distilbert",
    architecture="DistilBertForMaskedLM",
    options={
        "vocab_size": "vocab_size",
        "d_model": "dim",
        "num_layers": "n_layers",
        "num_heads": "n_heads",
        "d_ff": "hidden_dim",
        "max_length": "max_position_embeddings",
        "activation": "activation",
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "init_std": "initializer_range",
    },
    required=_SIZES,
    fixed={"sinusoidal_pos_embds": False, **_TIED},
    weights={
        "encoder.embeddings.word": "distilbert.embeddings.word_embeddings",
        "encoder.embeddings.position": "distilbert.embeddings.position_embeddings",
        "encoder.embeddings.norm": "distilbert.embeddings.LayerNorm",
        "encoder.layers.*.attention.query_projection": (
            "distilbert.transformer.layer.*.attention.q_lin"
        ),
        "encoder.layers.*.attention.key_projection": (
            "distilbert.transformer.layer.*.attention.k_lin"
        ),
        "encoder.layers.*.attention.value_projection": (
            "distilbert.transformer.layer.*.attention.v_lin"
        ),
        "encoder.layers.*.attention.output_projection": (
            "distilbert.transformer.layer.*.attention.out_lin"
        ),
        "encoder.layers.*.attention_norm": "distilbert.transformer.layer.*.sa_layer_norm",
        "encoder.layers.*.feed_forward.expand": "distilbert.transformer.layer.*.ffn.lin1",
        "encoder.layers.*.feed_forward.contract": "distilbert.transformer.layer.*.ffn.lin2",
        "encoder.layers.*.feed_forward_norm": "distilbert.transformer.layer.*.output_layer_norm",
        "head.transform": "vocab_transform",
        "head.norm": "vocab_layer_norm",
        "head.bias": "vocab_projector.bias",
    },
    copies={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
)

# RoBERTa's names, which are BERT's but for the head, and three projections more.
_LONGFORMER_ENCODER = {
    ours.removeprefix("encoder."): theirs.replace("bert.", "longformer.", 1)
    for ours, theirs in BERT_LAYOUT.weights.items()
    if ours.startswith("encoder.")
}

LONGFORMER_LAYOUT = Layout(
    model_type="longformer",
    architecture="LongformerForMaskedLM",
    options=BERT_LAYOUT.options | {"window": "attention_window", "pad_token_id": "pad_token_id"},
    required=(*_SIZES, "window"),
    fixed=_TIED,
    weights=_LONGFORMER_ENCODER
    | {
        f"layers.*.attention.global_{name}_projection": (
            f"longformer.encoder.layer.*.attention.self.{name}_global"
        )
        for name in ("query", "key", "value")
    }
    | {
        "head.transform": "lm_head.dense",
        "head.norm": "lm_head.layer_norm",
        "head.bias": "lm_head.bias",
    },
    copies={
        "lm_head.decoder.weight": "longformer.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    # A pooler, where a file has one, is not a part of the masked language model.
    ignored=(r"position_ids$", r"^longformer\.pooler\."),
)

VIT_LAYOUT = Layout(
    model_type="vit",
    architecture="ViTForImageClassification",
    options={
        "image_size": "image_size",
        "patch_size": "patch_size",
        "num_channels": "num_channels",
        "num_classes": "num_labels",
        "d_model": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "d_ff": "intermediate_size",
        "activation": "hidden_act",
        "dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "eps": "layer_norm_eps",
        "init_std": "initializer_range",
    },
    required=(
        *("image_size", "patch_size", "num_classes"),
        *("d_model", "num_layers", "num_heads", "d_ff"),
    ),
    fixed={"qkv_bias": True},
    # The names in the files: since its version 5, transformers calls the modules otherwise.
    weights={
        "embeddings.projection": "vit.embeddings.patch_embeddings.projection",
        "embeddings.class_token": "vit.embeddings.cls_token",
        "embeddings.position": "vit.embeddings.position_embeddings",
        "layers.*.attention.query_projection": "vit.encoder.layer.*.attention.attention.query",
        "layers.*.attention.key_projection": "vit.encoder.layer.*.attention.attention.key",
        "layers.*.attention.value_projection": "vit.encoder.layer.*.attention.attention.value",
        "layers.*.attention.output_projection": "vit.encoder.layer.*.attention.output.dense",
        "layers.*.attention_norm": "vit.encoder.layer.*.layernorm_before",
        "layers.*.feed_forward.expand": "vit.encoder.layer.*.intermediate.dense",
        "layers.*.feed_forward.contract": "vit.encoder.layer.*.output.dense",
        "layers.*.feed_forward_norm": "vit.encoder.layer.*.layernorm_after",
        "norm": "vit.layernorm",
        "classifier": "classifier",
    },
)
