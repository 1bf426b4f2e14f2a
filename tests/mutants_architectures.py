"""Mutants of windows, of models, and of what is drawn: sliding_window, Longformer, ViT, corruption.

In the form of tests/mutants.py, which says what a mutant is: (path, old, new, why, test).

    python tests/mutants_architectures.py                          run every one of these
    python tests/mutants_architectures.py lib/sliding_window.py    those of this module
"""

import sys
from pathlib import Path

WINDOW = "lib/sliding_window.py"
LONGFORMER = "lib/models/longformer.py"
VIT = "lib/models/vit.py"
CORRUPTION = "lib/corruption.py"
LOSSES = "lib/losses.py"

BAND = "test_equals_dense_attention_with_the_band"
GLOBAL = "test_equals_dense_attention_with_global_tokens"

WINDOW_MUTANTS = [
    # the pattern
    (
        WINDOW,
        "(offset.abs() <= dilation * (window // 2))",
        "(offset.abs() <= dilation * window)",
        "w on each side",
        "test_the_mask_and_the_count_of_pairs",
    ),
    (
        WINDOW,
        "(offset.abs() <= dilation * (window // 2))",
        "(offset <= 0) & (offset.abs() <= dilation * window)",
        "a window to the left only (D21)",
        "test_the_mask_and_the_count_of_pairs",
    ),
    (
        WINDOW,
        " & (offset % dilation == 0)",
        "",
        "the mask: a dilated window without gaps",
        "test_the_mask_and_the_count_of_pairs",
    ),
    (
        WINDOW,
        "mask | is_global[..., :, None] | is_global[..., None, :]",
        "mask | is_global[..., None, :]",
        "the mask: a global token does not see all",
        "test_the_mask_and_the_count_of_pairs",
    ),
    (
        WINDOW,
        "total += length * (2 * half + 1) - half * (half + 1)",
        "total += length * (2 * half + 1)",
        "pairs: ends not subtracted",
        "test_the_closed_form_of_the_paper_s_pattern",
    ),
    (
        WINDOW,
        "half = min(window // 2, length - 1)",
        "half = window // 2",
        "pairs: a window wider than the sequence",
        "test_the_mask_and_the_count_of_pairs",
    ),
    (
        WINDOW,
        "length = (n - phase - 1) // dilation + 1",
        "length = n // dilation",
        "pairs: phases of one length",
        "test_the_mask_and_the_count_of_pairs",
    ),
    # gathered
    (
        WINDOW,
        "meet = (places >= 0) & (places < n)",
        "meet = places < n",
        "gathered: keys before the first",
        BAND,
    ),
    (
        WINDOW,
        "meet = (places >= 0) & (places < n)",
        "meet = places >= 0",
        "gathered: keys behind the last",
        BAND,
    ),
    (
        WINDOW,
        "offsets = dilation * torch.arange(-half, half + 1",
        "offsets = torch.arange(-half, half + 1",
        "gathered: no dilation",
        BAND,
    ),
    (WINDOW, "torch.arange(-half, half + 1", "torch.arange(-half, half", "one key short", BAND),
    (
        WINDOW,
        "last = n - half - (n - 2 * half) % block",
        "last = n - half",
        "without padding: the last block cut short",
        "test_blocks_and_ends_meet_at_every_length",
    ),
    (
        WINDOW,
        "slice(max(start - half, 0), stop + half)",
        "slice(max(start - half, 0), stop)",
        "without padding: no key behind a block",
        "test_blocks_and_ends_meet_at_every_length",
    ),
    (
        WINDOW,
        "offset = place - before - place[:block, None]",
        "offset = place - half - place[:block, None]",
        "without padding: the first window shifted",
        "test_blocks_and_ends_meet_at_every_length",
    ),
    (
        WINDOW,
        "size = block if half <= start < last else stop - start",
        "size = block if start < last else stop - start",
        "without padding: the first queries cut in blocks that are not whole",
        "test_blocks_smaller_than_what_the_first_queries_need",
    ),
    (
        WINDOW,
        "        offset.abs() <= half,\n",
        "        offset.abs() <= size,\n",
        "without padding: a block meets all its keys",
        "test_blocks_and_ends_meet_at_every_length",
    ),
    (
        WINDOW,
        "total[:, places[1]] += part",
        "total[:, places[1]] = part",
        "in turn: a key has the gradient of its last piece only",
        "test_gradients_of_pieces_add_up",
    ),
    (
        WINDOW,
        "max(most // block, 1) * block",
        "most",
        "in turn: pieces that are no whole blocks",
        "test_the_backward_pass_in_turn_by_differences",
    ),
    (
        WINDOW,
        "            return _InTurn.apply(*(x.to(dtype) for x in inputs), half, block)\n",
        "            pass\n",
        "gradients of all blocks at once",
        "test_the_backward_pass_needs_little_beside_the_gradients",
    ),
    (
        WINDOW,
        "if query.dtype != torch.float64 and not dropout:",
        "if not dropout:",
        "in float64 too a first derivative only",
        "test_a_second_derivative_is_there_in_float64_and_refused_elsewhere",
    ),
    (
        WINDOW,
        "if query.dtype != torch.float64 and not dropout:",
        "if query.dtype != torch.float64:",
        "in turn: nothing is dropped",
        "test_dropout_where_there_are_gradients_and_many_blocks",
    ),
    (
        WINDOW,
        "is_compiling() and not _under_a_transform():",
        "is_compiling():",
        "in turn: under a transform too",
        "test_transforms_go_through_many_blocks",
    ),
    (
        WINDOW,
        "dtype = _dtype_here(query)  #",
        "dtype = query.dtype  #",
        "in turn: autocast leaves the inputs wide for the backward pass",
        "test_gradients_under_autocast",
    ),
    (
        WINDOW,
        "    @once_differentiable\n",
        "",
        "in turn: a second derivative that is wrong, and not refused",
        "test_a_second_derivative_is_there_in_float64_and_refused_elsewhere",
    ),
    (
        WINDOW,
        "        return _undilated_and_unmasked(query, key, value, half, block, dropout)\n",
        "        pass\n",
        "a mask with a row for every query, and padded copies, where none are needed",
        "test_without_padding_no_mask_has_a_row_for_every_query",
    ),
    (
        WINDOW,
        "    block = max(block // 4, min(block, _LEAST_BLOCK))\n",
        "",
        "blocks of w/2 where smaller ones do less",
        "test_work_grows_with_n_and_with_the_window",
    ),
    (
        WINDOW,
        "    meet = meet if near is None else meet & near[places]\n",
        "",
        "gathered: padding is met",
        "test_padding_has_no_influence",
    ),
    (
        WINDOW,
        "meet = F.pad(meet, (len(far), 0), value=True)",
        "meet = F.pad(meet, (len(far), 0), value=False)",
        "gathered: global keys are not met",
        GLOBAL,
    ),
    # blocks
    (
        WINDOW,
        "meet = meet[:, None] & (offset.abs() <= half)",
        "meet = meet[:, None].expand(-1, block, -1)",
        "blocks: no band, whole blocks meet",
        BAND,
    ),
    (
        WINDOW,
        "(offset.abs() <= half)",
        "(offset.abs() < half)",
        "blocks: the last key of each side lost",
        BAND,
    ),
    (
        WINDOW,
        "x = F.pad(x, (0, 0, half, rest + half))",
        "x = F.pad(x, (0, 0, 2 * half, rest))",
        "blocks: keys shifted",
        BAND,
    ),
    (
        WINDOW,
        "meet = F.pad(near, (half, rest + half))",
        "meet = F.pad(near, (half, rest + half), value=True)",
        "blocks: what stands before the first token has weight",
        BAND,
    ),
    (
        WINDOW,
        "block = min(max(half, _LEAST_BLOCK), n)",
        "block = n",
        "blocks: one block, so an n × n table after all",
        "test_no_tensor_is_n_by_n",
    ),
    (
        WINDOW,
        "return torch.cat(outputs, dim=1)[:, order.argsort()]",
        "return torch.cat(outputs, dim=1)[:, order]",
        "blocks: phases dealt out by the inverse order",
        BAND,
    ),
    (
        WINDOW,
        "None if near is None else near[phase],\n",
        "None if near is None else near[: len(near[phase])],\n",
        "blocks: padding of another phase",
        GLOBAL,
    ),
    (
        WINDOW,
        "meet = F.pad(meet, (far_key.shape[1], 0), value=True)",
        "meet = F.pad(meet, (far_key.shape[1], 0), value=False)",
        "blocks: global keys are not met",
        GLOBAL,
    ),
    # both
    (
        WINDOW,
        "half, dilation, near & ~is_global, far, dropout)",
        "half, dilation, near, far, dropout)",
        "a global key stands in the window and beside it: counted twice",
        GLOBAL,
    ),
    (
        WINDOW,
        "far = (near & is_global).nonzero()",
        "far = is_global.nonzero()",
        "padding that is global is met",
        GLOBAL,
    ),
    (
        WINDOW,
        "half = min(window // 2, (n - 1) // dilation)",
        "half = min(window // 2, n // (2 * dilation))",
        "a window cut too short",
        BAND,
    ),
    (
        WINDOW,
        "    mask = None if real is None else real[None]\n",
        "    mask = None\n",
        "global tokens attend to padding",
        GLOBAL,
    ),
    (
        WINDOW,
        "attend(g_query[:, rows], g_key, g_value, mask, dropout=dropout)",
        "attend(g_query[:, rows], key, value, mask, dropout=dropout)",
        "global tokens attend with the others' keys",
        GLOBAL,
    ),
    (
        WINDOW,
        "attend(g_query[:, rows], g_key, g_value, mask, dropout=dropout)",
        "attend(query[:, rows], g_key, g_value, mask, dropout=dropout)",
        "global tokens ask with the others' queries",
        GLOBAL,
    ),
    (
        WINDOW,
        "attend(g_query[:, rows], g_key, g_value, mask, dropout=dropout)",
        "attend(g_query[:, rows], g_key, g_value, mask)",
        "no dropout for global tokens",
        "test_dropout_is_on_the_weights_and_unbiased",
    ),
    (
        WINDOW,
        "    ones = (1,) * (len(leading) - mask.ndim + 1)\n"
        "    return mask.reshape(*mask.shape[:-1], *ones, mask.shape[-1])",
        "    return mask",
        "masks match leading dimensions from the right (D20)",
        "test_masks_of_different_depth_combine",
    ),
    (
        WINDOW,
        "return torch.zeros_like(value, dtype=dtype)",
        "return torch.zeros_like(value)",
        "no batch: autocast's dtype ignored",
        "test_autocast",
    ),
    (
        WINDOW,
        "or window < 2 or window % 2:",
        "or window < 2:",
        "an odd window",
        "test_bad_inputs",
    ),
    (
        WINDOW,
        "    if len(given) < 3:\n",
        "    if False:\n",
        "two projections of three",
        "test_bad_inputs",
    ),
    # the module
    (
        WINDOW,
        "            heads = heads.masked_fill((mask == 0).unsqueeze(-1), 0.0)\n",
        "            pass\n",
        "module: padding attends",
        "test_without_global_tokens_it_is_multi_head_attention_with_the_band",
    ),
    (
        WINDOW,
        'options["global_mask"] = mask == 2',
        'options["global_mask"] = mask == 1',
        "module: 1 for global",
        "test_global_tokens_have_projections_of_their_own",
    ),
    (
        WINDOW,
        'options["global_key"] = self._heads(self.global_key_projection, x)',
        'options["global_key"] = self._heads(self.key_projection, x)',
        "module: one key projection for all",
        "test_global_tokens_have_projections_of_their_own",
    ),
    (
        WINDOW,
        "self.dropout if self.training else 0.0",
        "self.dropout",
        "module: dropout in evaluation",
        "test_dropout_only_in_training",
    ),
    (
        WINDOW,
        "        self.copy_to_global()\n",
        "",
        "module: global projections begin on their own",
        "test_global_projections_begin_as_copies",
    ),
    (
        WINDOW,
        "return rows[0] if bool((rows == rows[0]).all()) else mask",
        "return rows[0]",
        "the first sample's mask for all",
        "test_rows_of_masks_that_are_alike_are_one_pass",
    ),
    (
        WINDOW,
        "key_mask, global_mask = _shared(key_mask), _shared(global_mask)",
        "pass",
        "a pass for each sample, though all masks are alike",
        "test_rows_of_masks_that_are_alike_are_one_pass",
    ),
]

MODEL_MUTANTS = [
    (
        LONGFORMER,
        "place = self.pad_token_id + real * real.cumsum(dim=1)",
        "place = self.pad_token_id + real.cumsum(dim=1)",
        "padding tokens have the place of the last word",
        "test_equals_the_official_model",
    ),
    (
        LONGFORMER,
        "place = self.pad_token_id + real * real.cumsum(dim=1)",
        "place = real * real.cumsum(dim=1)",
        "places counted from 1",
        "test_equals_the_official_model",
    ),
    (
        LONGFORMER,
        "mask = mask * (1 + (global_attention_mask != 0).long())",
        "mask = mask + (global_attention_mask != 0).long()",
        "padding can be global",
        "test_equals_the_official_model",
    ),
    (
        LONGFORMER,
        "mask = mask * (1 + (global_attention_mask != 0).long())",
        "mask = mask * (1 + global_attention_mask.long())",
        "a mask with other numbers than 0 and 1",
        "test_masks_of_every_dtype_mean_the_same",
    ),
    (
        LONGFORMER,
        "            layer.attention.copy_to_global()\n",
        "            pass\n",
        "global projections drawn apart",
        "test_it_starts_with_equal_projections_and_small_weights",
    ),
    (
        LONGFORMER,
        "return self.max_length - self.pad_token_id - 1",
        "return self.max_length",
        "the last places are past the table",
        "test_forward_refuses",
    ),
    (
        LONGFORMER,
        'self.head = MaskedLMHead(config, "gelu")',
        "self.head = MaskedLMHead(config, config.activation)",
        "the head has the layers' activation",
        "test_equals_the_official_model",
    ),
    (
        LONGFORMER,
        "dropout=config.attention_dropout",
        "dropout=0.0",
        "no attention dropout",
        "test_attention_dropout_reaches_the_windows",
    ),
    (
        VIT,
        "patches = self.projection(pixel_values).flatten(2).mT",
        "patches = self.projection(pixel_values).mT.flatten(2).mT",
        "patches column by column",
        "test_the_convolution_is_one_matrix_for_every_patch",
    ),
    (
        VIT,
        "x = torch.cat([first, patches], dim=1) + self.position",
        "x = torch.cat([patches, first], dim=1) + self.position",
        "class token last",
        "test_equals_the_official_model",
    ),
    (VIT, '                norm="pre",\n', "", "post-norm", "test_equals_the_official_model"),
    (
        VIT,
        "return self.norm(x)\n",
        "return x\n",
        "no norm at the end of the stack",
        "test_every_vector_is_the_official_one",
    ),
    (
        VIT,
        "self.encode(pixel_values)[:, 0]",
        "self.encode(pixel_values)[:, -1]",
        "the last patch is classified",
        "test_equals_the_official_model",
    ),
    (
        VIT,
        "2 if names is None else len(names)",
        "1000 if names is None else len(names)",
        "classes of a file without names",
        "test_classes_are_counted_by_their_names",
    ),
    (
        VIT,
        "return F.dropout(x, self.dropout, self.training)",
        "return x",
        "no dropout on the embeddings",
        "test_dropout_only_in_training",
    ),
]

DRAW_MUTANTS = [
    (
        CORRUPTION,
        "wanted = (wanted - torch.rand(wanted.shape, generator=rng",
        "wanted = (wanted - 0 * torch.rand(wanted.shape, generator=rng",
        "always rounded up",
        "test_the_shares_of_all_tokens_in_expectation",
    ),
    (
        CORRUPTION,
        "labels = input_ids.masked_fill(~chosen, -100)",
        "labels = input_ids",
        "labels for all tokens (D37)",
        "test_labels_are_the_original_words_of_what_was_chosen",
    ),
    (
        CORRUPTION,
        "place = (rank + start) / chosen.sum()",
        "place = rank / chosen.sum()",
        "the first of a few is always masked",
        "test_a_batch_of_one_chosen_token_has_the_same_expectation",
    ),
    (
        CORRUPTION,
        "keys = keys.masked_fill(~chosen, 2.0).flatten()",
        "keys = keys.flatten()",
        "ranks among all tokens, chosen or not",
        "test_each_call_is_80_10_10_to_within_one_token",
    ),
    (
        CORRUPTION,
        "keys = keys.masked_fill(~chosen, 2.0).flatten()",
        "keys = torch.arange(keys.numel()).masked_fill(~chosen.flatten(), 10**9)",
        "the first tokens of a batch are masked, the last kept",
        "test_every_place_is_chosen_and_masked_alike",
    ),
    (
        CORRUPTION,
        "replaced = chosen & ~masked & (place < parts[0] + parts[1])",
        "replaced = chosen & ~masked",
        "none kept",
        "test_each_call_is_80_10_10_to_within_one_token",
    ),
    (
        CORRUPTION,
        "words = torch.randint(vocab_size, input_ids.shape",
        "words = torch.randint(vocab_size - 1, input_ids.shape",
        "the last word is never drawn",
        "test_random_words_are_drawn_from_the_whole_vocabulary",
    ),
    (
        LOSSES,
        "    if logits.shape[-1] != 2:\n",
        "    if False:\n",
        "next sentence: any number of columns",
        "test_next_sentence_refuses",
    ),
    (
        LOSSES,
        "    return masked_lm_loss(logits, labels, reduction=reduction)\n",
        "    return masked_lm_loss(logits.flip(-1), labels, reduction=reduction)\n",
        "next sentence: 1 for follows",
        "test_next_sentence_column_0_says_that_b_follows",
    ),
]

ARCHITECTURES = WINDOW_MUTANTS + MODEL_MUTANTS + DRAW_MUTANTS


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import mutants

    chosen = [m for m in ARCHITECTURES if not sys.argv[1:] or m[0] in sys.argv[1:]]
    sys.exit(mutants.main([mutants.Mutant(*m) for m in chosen], as_json=False) > 0)
