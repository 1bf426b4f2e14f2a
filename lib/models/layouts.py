"""How official checkpoints name what our models hold: one table a family.

Left our module (or parameter), right theirs; "*" is the number of a layer. A module stands for its
weight and its bias. `lib.checkpoints.Layout` says what the other entries mean.
"""

from lib.checkpoints import Layout, Part

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

GPT2_LAYOUT = Layout(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    options={
        "vocab_size": "vocab_size",
        "d_model": "n_embd",
        "num_layers": "n_layer",
        "num_heads": "n_head",
        "d_ff": "n_inner",
        "max_length": "n_positions",
        "activation": "activation_function",
        "embedding_dropout": "embd_pdrop",
        "dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
        "eps": "layer_norm_epsilon",
        "init_std": "initializer_range",
        "eos_token_id": "eos_token_id",
        "pad_token_id": "pad_token_id",
    },
    required=("vocab_size", "d_model", "num_layers", "num_heads", "max_length"),
    fixed={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,  # in float32 always, as lib.attention computes
        "add_cross_attention": False,
        **_TIED,
    },
    weights={
        "word": "transformer.wte",
        "position": "transformer.wpe",
        "layers.*.attention_norm": "transformer.h.*.ln_1",
        "layers.*.attention.query_projection": Part("transformer.h.*.attn.c_attn", 0, 3),
        "layers.*.attention.key_projection": Part("transformer.h.*.attn.c_attn", 1, 3),
        "layers.*.attention.value_projection": Part("transformer.h.*.attn.c_attn", 2, 3),
        "layers.*.attention.output_projection": "transformer.h.*.attn.c_proj",
        "layers.*.feed_forward_norm": "transformer.h.*.ln_2",
        "layers.*.feed_forward.expand": "transformer.h.*.mlp.c_fc",
        "layers.*.feed_forward.contract": "transformer.h.*.mlp.c_proj",
        "norm": "transformer.ln_f",
    },
    copies={"lm_head.weight": "transformer.wte.weight"},
    ignored=(r"\.attn\.(masked_)?bias$",),  # the causal mask, which official files store
    transposed=(r"\.c_(attn|proj|fc)\.weight$",),
    prefix="transformer.",  # which official files leave out
)

_T5_PARTS = {  # ours in a layer → their sublayer (0, or the last, which is 1 or 2), and its name
    "attention.query_projection": "layer.0.SelfAttention.q",
    "attention.key_projection": "layer.0.SelfAttention.k",
    "attention.value_projection": "layer.0.SelfAttention.v",
    "attention.output_projection": "layer.0.SelfAttention.o",
    "attention_norm": "layer.0.layer_norm",
    "cross_attention.query_projection": "layer.1.EncDecAttention.q",
    "cross_attention.key_projection": "layer.1.EncDecAttention.k",
    "cross_attention.value_projection": "layer.1.EncDecAttention.v",
    "cross_attention.output_projection": "layer.1.EncDecAttention.o",
    "cross_attention_norm": "layer.1.layer_norm",
    "feed_forward.contract": "layer.{last}.DenseReluDense.wo",
    "feed_forward_norm": "layer.{last}.layer_norm",
}


def t5_layout(feed_forward: str, tied: bool) -> Layout:
    """T5 v1.0 ("relu", tied), or v1.1: layers with a gate, and words of its own for the head.

    The models are derived in chapter 08_relative_positions.
    """
    parts = dict(_T5_PARTS)
    if feed_forward.startswith("gated"):
        parts["feed_forward.gate"] = "layer.{last}.DenseReluDense.wi_0"
        parts["feed_forward.expand"] = "layer.{last}.DenseReluDense.wi_1"
    else:
        parts["feed_forward.expand"] = "layer.{last}.DenseReluDense.wi"
    weights = {"word": "shared"} | ({} if tied else {"head": "lm_head"})
    for stack, last in (("encoder", 1), ("decoder", 2)):
        weights[f"{stack}.bias"] = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
        weights[f"{stack}.norm"] = f"{stack}.final_layer_norm"
        for ours, theirs in parts.items():
            weights[f"{stack}.layers.*.{ours}"] = f"{stack}.block.*.{theirs.format(last=last)}"
    copies = dict.fromkeys(
        ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), "shared.weight"
    )
    return Layout(
        model_type="t5",
        architecture="T5ForConditionalGeneration",
        options={
            "vocab_size": "vocab_size",
            "d_model": "d_model",
            "d_head": "d_kv",
            "num_layers": "num_layers",
            "num_decoder_layers": "num_decoder_layers",
            "num_heads": "num_heads",
            "d_ff": "d_ff",
            "num_buckets": "relative_attention_num_buckets",
            "max_distance": "relative_attention_max_distance",
            "feed_forward": "feed_forward_proj",
            "tied": "tie_word_embeddings",
            "dropout": "dropout_rate",
            "eps": "layer_norm_epsilon",
            "eos_token_id": "eos_token_id",
            "pad_token_id": "pad_token_id",
            "start_token_id": "decoder_start_token_id",
        },
        required=("vocab_size", "d_model", "d_head", "num_layers", "num_heads", "d_ff"),
        fixed={"is_encoder_decoder": True},
        weights=weights,
        copies=copies | ({"lm_head.weight": "shared.weight"} if tied else {}),
        stand_ins={} if tied else {"lm_head.weight": "shared.weight"},
        # A table of cross-attention, which the first releases store and nothing reads.
        ignored=(r"EncDecAttention\.relative_attention_bias\.weight$",),
    )


def _marian_weights() -> dict[str, str]:
    parts = {
        "attention_norm": "self_attn_layer_norm",
        "cross_attention_norm": "encoder_attn_layer_norm",
        "feed_forward.expand": "fc1",
        "feed_forward.contract": "fc2",
        "feed_forward_norm": "final_layer_norm",
    }
    for ours, theirs in (("attention", "self_attn"), ("cross_attention", "encoder_attn")):
        for projection in ("query", "key", "value"):
            parts[f"{ours}.{projection}_projection"] = f"{theirs}.{projection[0]}_proj"
        parts[f"{ours}.output_projection"] = f"{theirs}.out_proj"
    weights = {"word": "model.shared", "output_bias": "final_logits_bias"}
    for stack in ("encoder", "decoder"):
        for ours, theirs in parts.items():
            weights[f"{stack}.*.{ours}"] = f"model.{stack}.layers.*.{theirs}"
    return weights


MARIAN_LAYOUT = Layout(
    model_type="marian",
    architecture="MarianMTModel",
    options={
        "vocab_size": "vocab_size",
        "d_model": "d_model",
        "num_layers": "encoder_layers",
        "num_decoder_layers": "decoder_layers",
        "num_heads": "encoder_attention_heads",
        "num_decoder_heads": "decoder_attention_heads",
        "d_ff": "encoder_ffn_dim",
        "d_decoder_ff": "decoder_ffn_dim",
        "max_length": "max_position_embeddings",
        "activation": "activation_function",
        "scale_embedding": "scale_embedding",
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "activation_dropout": "activation_dropout",
        "init_std": "init_std",
        "eos_token_id": "eos_token_id",
        "pad_token_id": "pad_token_id",
        "start_token_id": "decoder_start_token_id",
        "banned_token_ids": "bad_words_ids",
    },
    required=(
        *("vocab_size", "d_model", "num_layers", "num_decoder_layers", "num_heads"),
        *("num_decoder_heads", "d_ff", "d_decoder_ff"),
    ),
    fixed={
        "is_encoder_decoder": True,
        "share_encoder_decoder_embeddings": True,
        "normalize_before": False,
        "normalize_embedding": False,
        "add_final_layer_norm": False,
        "static_position_embeddings": True,
        "add_bias_logits": False,
        **_TIED,
    },
    weights=_marian_weights(),
    copies={
        "model.encoder.embed_tokens.weight": "model.shared.weight",
        "model.decoder.embed_tokens.weight": "model.shared.weight",
        "lm_head.weight": "model.shared.weight",
    },
    ignored=(r"embed_positions\.weight$",),  # the sines, which are computed
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
