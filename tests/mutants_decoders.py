"""Mutants of what writes: the cache, decoder layers, distances, GPT-2, T5, Transformer, generation.

In the form of tests/mutants.py, which says what a mutant is: (path, old, new, why, test).

    python tests/mutants_decoders.py                     run every one of these, one line each
    python tests/mutants_decoders.py lib/cache.py        those of this module
"""

import sys
from pathlib import Path

ATTENTION = "lib/attention.py"
CACHE = "lib/cache.py"
CHECKPOINTS = "lib/checkpoints.py"
GENERATION = "lib/generation.py"
GPT2 = "lib/models/gpt2.py"
LAYERS = "lib/layers.py"
LOSSES = "lib/losses.py"
POSITIONS = "lib/positions.py"
T5 = "lib/models/t5.py"
TRANSFORMER = "lib/models/transformer.py"
IN_CACHE = "tests/test_cache.py::"
IN_GPT2 = "tests/models/test_gpt2.py::"
IN_HEADS = "tests/test_multi_head.py::"
IN_RELATIVE = "tests/test_relative_positions.py::"
IN_T5 = "tests/models/test_t5.py::"

DECODERS = [
    # attention with a cache, without a scale
    (
        ATTENTION,
        "q = q * math.sqrt(self.d_head)  # by which attention will divide",
        "pass",
        "logits divided by √d_head all the same",
        IN_HEADS + "test_heads_of_a_width_of_their_own_and_no_scale",
    ),
    (
        ATTENTION,
        "width = num_heads * self.d_head  # d_model, unless d_head says otherwise",
        "width = d_model",
        "d_head ignored",
        IN_HEADS + "test_heads_of_a_width_of_their_own_and_no_scale",
    ),
    (
        ATTENTION,
        "appends = cache is not None and key is None",
        "appends = False",
        "self-attention keeps what it has read as if it were the memory",
        IN_CACHE + "test_attention_in_steps_is_attention_at_once",
    ),
    (
        ATTENTION,
        "appends = cache is not None and key is None",
        "appends = cache is not None",
        "the memory counted as tokens read",
        IN_CACHE + "test_the_memory_is_projected_once",
    ),
    (
        ATTENTION,
        "cache.remember(self, k, v)",
        "pass",
        "the memory projected at every step",
        IN_CACHE + "test_the_memory_is_projected_once",
    ),
    # the cache
    (
        CACHE,
        "room[:, :, start:end] = x",
        "room[:, :, : end - start] = x",
        "written from the start again",
        "test_attention_in_steps_is_attention_at_once",
    ),
    (
        CACHE,
        "return kept[0][:, :, :end], kept[1][:, :, :end]",
        "return kept",
        "room that is not filled yet is attended to",
        "test_attention_in_steps_is_attention_at_once",
    ),
    (
        CACHE,
        "if layer not in self._kept:",
        "if not self._kept:",
        "all layers share the first one's room",
        "test_two_layers_keep_apart",
    ),
    (
        CACHE,
        "if end > self.capacity:",
        "if end > self.capacity + 1:",
        "a token too many let through",
        "test_it_refuses",
    ),
    (
        CACHE,
        "if key.shape[0] != kept[0].shape[0] or key.dtype != kept[0].dtype:",
        "if key.dtype != kept[0].dtype:",
        "another batch broadcast into the cache",
        "test_it_refuses",
    ),
    (
        CACHE,
        "if key.shape[0] != kept[0].shape[0] or key.dtype != kept[0].dtype:",
        "if key.shape[0] != kept[0].shape[0]:",
        "another dtype rounded into the cache",
        "test_it_refuses",
    ),
    (
        CACHE,
        "if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):",
        "if False:",
        "gradients lost in silence",
        "test_it_refuses",
    ),
    (
        CACHE,
        "tuple(x.index_select(0, rows) for x in kept)",
        "kept",
        "beams go on with each other's past",
        "test_selected_rows_go_on_where_they_were",
    ),
    (
        CACHE,
        "return next(iter(self._lengths.values()), 0)",
        "return max(self._lengths.values(), default=0) and 1",
        "position 1 for ever",
        IN_GPT2 + "test_a_cache_changes_nothing",
    ),
    # layers
    (
        LAYERS,
        "mean_square = x.square().mean(dim=-1, keepdim=True)",
        "mean_square = (x - x.mean(dim=-1, keepdim=True)).square().mean(dim=-1, keepdim=True)",
        "RMSNorm: divided by the standard deviation",
        "test_rms_norm_is_its_formula_and_torchs",
    ),
    (
        LAYERS,
        "torch.rsqrt(mean_square + self.eps)",
        "torch.rsqrt(mean_square) + self.eps",
        "RMSNorm: ε outside the root",
        "test_rms_norm_is_its_formula_and_torchs",
    ),
    (
        LAYERS,
        "bend(self.gate(x)) * hidden",
        "self.gate(x) * bend(hidden)",
        "the other branch bent",
        "test_gated_feed_forward_is_its_formula",
    ),
    (
        LAYERS,
        "bend(self.gate(x)) * hidden",
        "bend(self.gate(x)) + hidden",
        "a gate that adds",
        "test_gated_feed_forward_is_its_formula",
    ),
    (
        LAYERS,
        "return x + self._drop(sublayer(norm(x)))",
        "return norm(x) + self._drop(sublayer(norm(x)))",
        "pre-norm: the residual normalised too",
        "test_decoder_layer_equals_torchs",
    ),
    (
        LAYERS,
        "return norm(x + self._drop(sublayer(x)))",
        "return norm(x) + self._drop(sublayer(x))",
        "post-norm: the norm before the sum",
        "test_encoder_layer_equals_torchs",
    ),
    (
        LAYERS,
        "        x = self._add(attend, self.attention_norm, x)\n"
        "        x = self._add(read, self.cross_attention_norm, x)\n",
        "        x = self._add(read, self.cross_attention_norm, x)\n"
        "        x = self._add(attend, self.attention_norm, x)\n",
        "the decoder reads before it looks at itself",
        "test_decoder_layer_equals_torchs",
    ),
    (
        LAYERS,
        "x = self._add(read, self.cross_attention_norm, x)",
        "x = self._add(read, self.attention_norm, x)",
        "one norm for two sublayers",
        "test_decoder_layer_equals_torchs",
    ),
    (
        LAYERS,
        "key=memory, mask=memory_mask, cache=cache)",
        "key=memory, cache=cache)",
        "the memory's padding attended to",
        "test_decoder_layer_equals_torchs",
    ),
    (
        LAYERS,
        "read = partial(self.cross_attention, key=memory,",
        "read = partial(self.cross_attention, key=x,",
        "the decoder reads itself",
        "test_decoder_layer_equals_torchs",
    ),
    (
        LAYERS,
        "causal: bool = True,\n",
        "causal: bool = False,\n",
        "a decoder that sees the future (D14)",
        "test_decoder_layer_equals_torchs",
    ),
    (
        LAYERS,
        "            dropout=self.attention.dropout,\n",
        "",
        "no dropout on the weights of cross-attention",
        "test_decoder_dropout_has_torchs_places",
    ),
    (
        LAYERS,
        'scaled=options.get("scaled", True),',
        "",
        "cross-attention scaled where the layer is not",
        "test_options_reach_every_part",
    ),
    # distances
    (
        POSITIONS,
        "return bucket + (r > 0) * (num_buckets // 2) if bidirectional else bucket",
        "return bucket + (r < 0) * (num_buckets // 2) if bidirectional else bucket",
        "the sign of an offset turned",
        IN_RELATIVE + "test_equals_the_official_buckets",
    ),
    (
        POSITIONS,
        "return bucket + (r > 0) * (num_buckets // 2) if bidirectional else bucket",
        "return bucket + (r >= 0) * (num_buckets // 2) if bidirectional else bucket",
        "the dead bucket brought to life",
        IN_RELATIVE + "test_equals_the_official_buckets",
    ),
    (
        POSITIONS,
        "device=r.device), right=True)",
        "device=r.device), right=False)",
        "an edge belongs to the bucket before it",
        IN_RELATIVE + "test_equals_the_official_buckets",
    ),
    (
        POSITIONS,
        "r.abs() if bidirectional else (-r).clamp(min=0)",
        "r.abs() if bidirectional else r.clamp(min=0)",
        "a decoder that tells the future's distances",
        IN_RELATIVE + "test_equals_the_official_buckets",
    ),
    (
        POSITIONS,
        "in_one = num_buckets // 2 if bidirectional else num_buckets  # m",
        "in_one = num_buckets // 2  # m",
        "half of the buckets in one direction",
        IN_RELATIVE + "test_equals_the_official_buckets",
    ),
    (
        POSITIONS,
        "while d**wide < target:",
        "while d**wide <= target:",
        "an edge that is a whole number, missed",
        IN_RELATIVE + "test_by_definition",
    ),
    (
        POSITIONS,
        "d = max(d, int(target ** (1 / wide)) - 2) if target < 1e300 else d",
        "d = max(d, round(target ** (1 / wide)) + 1)",
        "an edge by a root in floating point",
        IN_RELATIVE + "test_edges_of_the_defaults",
    ),
    (
        POSITIONS,
        "query = torch.arange(n_k - n_q, n_k, device=self.weight.device)[:, None]",
        "query = torch.arange(n_q, device=self.weight.device)[:, None]",
        "the first query stands where the first key does",
        IN_RELATIVE + "test_bias_by_definition",
    ),
    (
        POSITIONS,
        "            key - query, self.bidirectional",
        "            query - key, self.bidirectional",
        "query less key",
        IN_RELATIVE + "test_bias_by_definition",
    ),
    (
        POSITIONS,
        "return (x + self.weight[positions]).to(x.dtype)",
        "return (x + self.weight[: x.shape[-2]]).to(x.dtype)",
        "positions of the caller's choice ignored",
        IN_RELATIVE + "test_learned_positions_of_the_callers_choice",
    ),
    # GPT-2
    (
        GPT2,
        "positions = (places - first).clamp(min=0)",
        "positions = places.expand_as(input_ids)",
        "padding on the left counted",
        "test_padding_changes_nothing",
    ),
    (
        GPT2,
        "places = torch.arange(start, end, device=real.device)",
        "places = torch.arange(end - start, device=real.device)",
        "with a cache, padded rows begin at position 0 again",
        "test_a_cache_changes_nothing",
    ),
    (
        GPT2,
        "self.position(self.word(input_ids), start, positions=positions)",
        "self.position(self.word(input_ids), 0, positions=positions)",
        "with a cache, rows begin at position 0 again",
        "test_a_cache_changes_nothing",
    ),
    (
        GPT2,
        "x = layer(x, mask, causal=True, cache=cache)",
        "x = layer(x, mask, causal=False, cache=cache)",
        "GPT-2 sees the future (D14)",
        "test_no_output_depends_on_the_future",
    ),
    (
        GPT2,
        "math.sqrt(2 * config.num_layers)",
        "math.sqrt(config.num_layers)",
        "one residual a layer",
        "test_it_starts_knowing_nothing",
    ),
    (
        GPT2,
        "        return self.norm(x)\n",
        "        return x\n",
        "no norm behind the last layer",
        "test_equals_the_official_model",
    ),
    (
        GPT2,
        "x = F.dropout(x, self.config.embedding_dropout, self.training)",
        "pass",
        "no dropout on the embeddings",
        "test_dropout_only_in_training",
    ),
    (
        GPT2,
        "        if end > self.config.max_length:\n",
        "        if False:\n",
        "past the table, padding or cache hiding it",
        "test_forward_refuses",
    ),
    # T5
    (
        T5,
        "F.linear(hidden * self.config.d_model**-0.5, self.word.weight)",
        "F.linear(hidden, self.word.weight)",
        "the tied output not scaled",
        "test_equals_the_official_model",
    ),
    (
        T5,
        "bidirectional=not self.is_decoder,",
        "bidirectional=True,",
        "the decoder's buckets are the encoder's",
        "test_equals_the_official_model",
    ),
    (
        T5,
        "                scaled=False,\n",
        "",
        "T5 with a division by √d",
        "test_equals_the_official_model",
    ),
    (
        T5,
        'step = {"memory": memory, "memory_mask": real,',
        'step = {"memory": memory, "memory_mask": None,',
        "padding of what is read, attended to by the decoder",
        "test_padding_changes_nothing",
    ),
    (
        T5,
        "bias = bias if real is None else bias.masked_fill(~real.unsqueeze(1), -torch.inf)",
        "pass",
        "padding attended to by the encoder",
        "test_padding_changes_nothing",
    ),
    (
        T5,
        "bias = bias.masked_fill(~causal_mask(n, seen, device=x.device), -torch.inf)",
        "pass",
        "T5's decoder sees the future",
        "test_no_output_depends_on_the_future",
    ),
    (
        T5,
        "seen = n if cache is None else cache.length + n",
        "seen = n",
        "with a cache, distances from the new tokens only",
        "test_a_cache_changes_nothing",
    ),
    (
        T5,
        'theirs.get("scale_decoder_outputs", theirs.get("tie_word_embeddings", True))',
        'theirs.get("tie_word_embeddings", True)',
        "what transformers 5 says of every T5, believed",
        "test_equals_the_official_model",
    ),
    (
        T5,
        "std *= self.config.d_head**-0.5",
        "pass",
        "queries as large as keys",
        "test_first_values_keep_sizes",
    ),
    (
        T5,
        "x = F.dropout(x, self.dropout, self.training)\n        for layer",
        "for layer",
        "T5: no dropout on the embeddings",
        "test_each_dropout_is_there",
    ),
    (
        T5,
        "return F.dropout(self.norm(x), self.dropout, self.training)",
        "return self.norm(x)",
        "T5: no dropout behind the last norm",
        "test_each_dropout_is_there",
    ),
    # Transformer
    (
        TRANSFORMER,
        "self.word(ids) * scale, start)",
        "self.word(ids), start)",
        "words not multiplied by √d (D30)",
        "test_equals_the_official_model",
    ),
    (
        TRANSFORMER,
        "self._embed(decoder_input_ids, 0 if cache is None else cache.length)",
        "self._embed(decoder_input_ids, 0)",
        "Transformer: with a cache, position 0 for ever",
        "test_a_cache_changes_nothing",
    ),
    (
        TRANSFORMER,
        "memory_mask=_mask_of_keys(attention_mask)",
        "memory_mask=None",
        "Transformer: padding read by the decoder (D17)",
        "test_padding_changes_nothing",
    ),
    (
        TRANSFORMER,
        "x = layer(x, mask)\n        return x",
        "x = layer(x)\n        return x",
        "Transformer: padding read by the encoder",
        "test_padding_changes_nothing",
    ),
    (
        TRANSFORMER,
        ', layout="concatenated")',
        ")",
        "sines in turn, as no Marian has them",
        "test_equals_the_official_model",
    ),
    (
        TRANSFORMER,
        "self.word.weight, self.output_bias.squeeze(0))",
        "self.word.weight)",
        "no bias of the output",
        "test_equals_the_official_model",
    ),
    (
        TRANSFORMER,
        "return F.dropout(x, self.config.dropout, self.training)",
        "return x",
        "no dropout on the sum of word and position",
        "test_dropout_only_in_training",
    ),
    (
        TRANSFORMER,
        'if v or k not in ("bad_words_ids", "init_std")}',
        "}",
        "a null that the official configuration refuses",
        "test_the_official_model_reads_what_we_write",
    ),
    # checkpoints
    (
        CHECKPOINTS,
        "tensor = stored.mT if transposed and stored.ndim == 2 else stored",
        "tensor = stored",
        "a transposed matrix read as it is",
        IN_GPT2 + "test_equals_the_official_model",
    ),
    (
        CHECKPOINTS,
        "tensor = tensor.chunk(count)[index]",
        "tensor = tensor.chunk(count)[0]",
        "queries for queries, keys and values",
        IN_GPT2 + "test_equals_the_official_model",
    ),
    (
        CHECKPOINTS,
        "sorted(found, key=lambda part: part[0])",
        "sorted(found, key=lambda part: -part[0])",
        "parts written in another order",
        IN_GPT2 + "test_the_official_model_reads_what_we_write",
    ),
    (
        CHECKPOINTS,
        "turned = whole.mT if layout.is_transposed(name) and whole.ndim == 2 else whole",
        "turned = whole",
        "a matrix written as ours and not as theirs",
        IN_GPT2 + "test_the_official_model_reads_what_we_write",
    ),
    (
        CHECKPOINTS,
        "stored = {layout.prefix + name: tensor for name, tensor in stored.items()}",
        "pass",
        "official files without a prefix refused",
        IN_GPT2 + "test_official_files_leave_out_a_prefix_and_store_the_mask",
    ),
    (
        CHECKPOINTS,
        "            stored[name] = stored[original]\n",
        "            pass\n",
        "a head that stands in for itself refused",
        IN_T5 + "test_a_file_of_version_1_1_without_a_head",
    ),
    (
        CHECKPOINTS,
        "        _lay_out_the_rest(model, next(iter(tensors.values())).dtype)\n",
        "",
        "a table without memory",
        "tests/models/test_transformer.py::test_equals_the_official_model",
    ),
    # generation
    (
        GENERATION,
        "ids = ids[:, self.cache.length :]  # what it has not read yet",
        "pass",
        "read again what the cache has read",
        "test_greedy_equals_the_official_one",
    ),
    (
        GENERATION,
        "token = choose(writer.logits()).masked_fill(done, pad)",
        "token = choose(writer.logits())",
        "a row goes on behind its end",
        "test_rows_end_by_themselves",
    ),
    (
        GENERATION,
        "            if len(eos) and bool(done.all()):\n                break\n",
        "",
        "steps that nobody needs",
        "test_rows_end_by_themselves",
    ),
    (
        GENERATION,
        "self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)",
        "self.mask = torch.cat([self.mask, torch.zeros_like(self.mask[:, :1])], dim=1)",
        "new tokens taken for padding",
        "test_greedy_equals_the_official_one",
    ),
    (
        GENERATION,
        "logits = logits / temperature\n",
        "logits = logits * temperature\n",
        "temperature turned over",
        "test_draws_have_their_distribution[{'temperature': 0.5}]",
    ),
    (
        GENERATION,
        "return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)",
        "return torch.multinomial(logits.softmax(dim=-1), 1)",
        "the caller's generator ignored",
        "test_draws_follow_the_generator_with_and_without_a_cache",
    ),
    (
        GENERATION,
        "logits.masked_fill(logits < least, -math.inf)",
        "logits.masked_fill(logits <= least, -math.inf)",
        "k − 1 are kept",
        "test_top_k_by_definition_and_as_official",
    ),
    (
        GENERATION,
        "before = probability.cumsum(dim=-1) - probability  #",
        "before = probability.cumsum(dim=-1)  #",
        "the token that reaches p is dropped",
        "test_top_p_by_definition_and_as_official",
    ),
    (
        GENERATION,
        "        return logits\n    ordered",
        "        pass\n    ordered",
        "p = 1 drops what rounding adds up to more than 1",
        "test_top_p_by_definition_and_as_official",
    ),
    (
        GENERATION,
        ".scatter_(-1, order, drop)",
        ".copy_(drop)",
        "the nucleus in the order of size, not of words",
        "test_top_p_by_definition_and_as_official",
    ),
    (
        GENERATION,
        "running[:, 1:] = -math.inf  # of k equal prompts one is enough",
        "pass",
        "k beams that are all the same",
        "test_beams_equal_the_official_ones[0.0-2-False-True]",
    ),
    (
        GENERATION,
        'return log_p / (length if penalty == "power" else (5 + length) / 6) ** length_penalty',
        "return log_p / length**length_penalty",
        "Wu's penalty is the power's",
        "test_the_penalty_matters",
    ),
    (
        GENERATION,
        "(5 + length) / 6)",
        "(6 + length) / 6)",
        "Wu's penalty begins at one token too many",
        "test_wus_five",
    ),
    (
        GENERATION,
        "            counts[:, k:] = False\n",
        "",
        "ends below the first k count",
        "test_beams_equal_the_official_ones[0.0-1-False-True]",
    ),
    (
        GENERATION,
        "improving &= penalised(running[:, 0], length) > best[:, -1]",
        "pass",
        "no row is ever done",
        "test_beams_equal_the_official_ones[1.0-1-True-True]",
    ),
    (
        GENERATION,
        "value.masked_fill(ends, -math.inf).topk(k, dim=1)",
        "value.topk(k, dim=1)",
        "beams that go on behind their end",
        "test_beams_equal_the_official_ones[1.0-2-False-True]",
    ),
    (
        GENERATION,
        "rows * k + beam.gather(1, chosen)",
        "beam.gather(1, chosen)",
        "beams of the first sequence for all",
        "test_beams_equal_the_official_ones[0.0-1-False-True]",
    ),
    (
        GENERATION,
        "            self.cache.select(rows)\n",
        "            pass\n",
        "the cache does not follow the beams",
        "test_beams_equal_the_official_ones[0.0-2-False-True]",
    ),
    (
        GENERATION,
        "            module.training = training\n",
        "            pass\n",
        "the model left in evaluation mode",
        "test_the_mode_of_the_model_is_not_changed",
    ),
    (
        GENERATION,
        "    model.eval()\n    try:",
        "    try:",
        "dropout while writing",
        "test_the_mode_of_the_model_is_not_changed",
    ),
    (
        GENERATION,
        "self.ids.shape[1] + max_new_tokens - 1  # the last",
        "self.ids.shape[1] + max_new_tokens  # the last",
        "the last token need not be read",
        "test_the_room_of_the_model_is_known_before",
    ),
    (
        GENERATION,
        "if attention_mask is not None and not bool((attention_mask[:, -1] != 0).all()):",
        "if False:",
        "padding between the prompt and what is written",
        "test_refuses",
    ),
    (
        GENERATION,
        "        if self.banned:\n",
        "        if False:\n",
        "what is banned is written",
        "tests/models/test_transformer.py::test_banned_tokens_are_never_written",
    ),
    # label smoothing
    (
        LOSSES,
        "alike = z.logsumexp(dim=-1) - z.mean(dim=-1)",
        "alike = z.shape[-1] * z.logsumexp(dim=-1) - z.sum(dim=-1)",
        "ε on each word",
        "test_label_smoothing_by_hand_and_by_torch",
    ),
    (
        LOSSES,
        "return (1 - smoothing) * right + smoothing * alike",
        "return right + smoothing * alike",
        "a target that is more than 1",
        "test_label_smoothing_by_hand_and_by_torch",
    ),
    (
        LOSSES,
        "alike = _reduce(alike, labels != ignore_index, reduction)",
        "alike = _reduce(alike, None, reduction)",
        "smoothing over padding",
        "test_label_smoothing_by_hand_and_by_torch",
    ),
]

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import mutants

    chosen = [m for m in DECODERS if not sys.argv[1:] or m[0] in sys.argv[1:]]
    sys.exit(mutants.main([mutants.Mutant(*m) for m in chosen], as_json=False) > 0)
