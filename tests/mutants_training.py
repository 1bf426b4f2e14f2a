"""Mutants of what goes into training and of training itself: data sets, the loop, its checkpoints.

In the form of tests/mutants.py, which says what a mutant is: (path, old, new, why, test).

    python tests/mutants_training.py                     run every one of these, one line each
    python tests/mutants_training.py lib/training.py     those of this module
"""

import sys
from pathlib import Path

DATA = "lib/data.py"
TRAINING = "lib/training.py"
DOCSTRINGS = "tests/test_data.py::TestDocstrings::"
DIGITS = "tests/test_data.py::TestDigits::"
HUB = "tests/test_data.py::TestHub::"
FIT = "tests/test_training.py::TestFit::"
PARTS = "tests/test_training.py::TestAccumulation::"
RESUMED = "tests/test_training.py::TestCheckpoint::"

DATA_MUTANTS = [
    (
        DATA,
        'hashlib.sha256(f"{seed}\\n{example}".encode())',
        "hashlib.sha256(example.encode())",
        "the seed is ignored",
        DOCSTRINGS + "test_the_seed_decides",
    ),
    (
        DATA,
        '_NOT_LABELS = {"idlelib", "turtledemo", "test", "distutils", "lib2to3"}',
        '_NOT_LABELS = {"turtledemo", "test", "distutils", "lib2to3"}',
        "an application is a label",
        DOCSTRINGS + "test_other_files_are_left_out",
    ),
    (
        DATA,
        '_TESTS = {"test", "tests", "idle_test"}',
        '_TESTS = {"test", "idle_test"}',
        "a package's tests are read",
        DOCSTRINGS + "test_other_files_are_left_out",
    ),
    (
        DATA,
        'if not name.startswith("_"):',
        "if name:",
        "private modules are labels",
        DOCSTRINGS + "test_other_files_are_left_out",
    ),
    (
        DATA,
        "known = name in sys.stdlib_module_names and name not in _NOT_LABELS",
        "known = name not in _NOT_LABELS",
        "what pip installed is a label",
        DOCSTRINGS + "test_other_files_are_left_out",
    ),
    (
        DATA,
        "if len(text) >= min_length]",
        "if len(text) > min_length]",
        "one character more is demanded of a docstring",
        DOCSTRINGS + "test_characters_are_counted_once_white_space_is_folded",
    ),
    (
        DATA,
        'yield " ".join(text.split())',
        'yield text.replace("\\n", " ")',
        "white space is not folded",
        DOCSTRINGS + "test_characters_are_counted_once_white_space_is_folded",
    ),
    (
        DATA,
        "    found = _without_ambiguous(found)\n",
        "",
        "ambiguous only among the labels that are kept",
        DOCSTRINGS + "test_a_module_that_is_not_kept_makes_a_text_ambiguous_too",
    ),
    (
        DATA,
        'kept = _without_ambiguous([(mask.sub("…", t), name)',
        'kept = list([(mask.sub("…", t), name)',
        "equal once masked, on both sides and under two labels",
        DOCSTRINGS + "test_texts_that_are_equal_once_masked_are_not_kept",
    ),
    (
        DATA,
        '[(mask.sub("…", t), name) for t, name in found if name in names]',
        '[(re.sub(name, "…", t, flags=re.I), name) for t, name in found if name in names]',
        "only a text's own name is masked, so that another says what it is not",
        DOCSTRINGS + "test_names_of_all_labels_are_masked_in_all_texts",
    ),
    (
        DATA,
        "key=len, reverse=True)), re.IGNORECASE)",
        "key=len, reverse=True)))",
        "names are masked in small letters only",
        DOCSTRINGS + "test_names_of_all_labels_are_masked_in_all_texts",
    ),
    (
        DATA,
        '"|".join(sorted(names, key=len, reverse=True))',
        '"|".join(sorted(names, key=len))',
        "the shorter name is masked, and the rest of the longer is left",
        DOCSTRINGS + "test_the_longer_of_two_names_is_masked",
    ),
    (
        DATA,
        "if len(found) == 1]",
        "if found]",
        "a text of two labels is kept, with a label too many",
        DOCSTRINGS + "test_no_copies_and_no_text_that_two_modules_have",
    ),
    (
        DATA,
        "ast.stmt | ast.ExceptHandler",
        "ast.stmt",
        "functions defined in a handler are missed",
        DOCSTRINGS + "test_modules_classes_and_functions_wherever_they_are",
    ),
    (
        DATA,
        "ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef",
        "ast.Module | ast.ClassDef | ast.FunctionDef",
        "coroutines are missed",
        DOCSTRINGS + "test_modules_classes_and_functions_wherever_they_are",
    ),
    (
        DATA,
        "key=lambda item: (-item[1], item))",
        "key=lambda item: (item[1], item))",
        "the labels with the fewest docstrings",
        DOCSTRINGS + "test_keeps_the_modules_with_most_docstrings",
    ),
    (
        DATA,
        "most = sum(count >= _FEWEST for _, count in counts)",
        "most = len(counts)",
        "a module with few docstrings is a label",
        DOCSTRINGS + "test_refuses_more_labels_than_there_are",
    ),
    (
        DATA,
        "in sorted((draw_by_hash(seed, text), text, name) for text, name in kept)",
        "in [(draw_by_hash(seed, text), text, name) for text, name in kept]",
        "label after label",
        DOCSTRINGS + "test_labels_are_mixed_whatever_the_library",
    ),
    (
        DATA,
        "{label for _, label in side} != set(range(num_labels)) for side in sides",
        "not side for side in sides",
        "a label may be missing from a side",
        DOCSTRINGS + "test_refuses_a_side_that_has_texts_but_not_of_every_label",
    ),
    (
        DATA,
        "held_out[members[draws[members].argsort()[:count]]] = True",
        "held_out[members[:count]] = True",
        "the first images of each digit, whatever the seed",
        DIGITS + "test_the_seed_decides_and_the_hash_is_of_the_whole",
    ),
    (
        DATA,
        "held_out[members[draws[members].argsort()[:count]]] = True",
        "held_out |= draws < validation",
        "drawn, not stratified",
        DIGITS + "test_every_digit_has_its_share",
    ),
    (
        DATA,
        "torch.from_numpy(pixels).unsqueeze(1).float() / 16",
        "torch.from_numpy(pixels).unsqueeze(1).float() / 15",
        "the darkest pixel is more than 1",
        DIGITS + "test_every_image_once_and_as_scikit_learn_has_it",
    ),
    (
        DATA,
        "train=images[~held_out],",
        "train=images,",
        "validation images are trained on",
        DIGITS + "test_every_image_once_and_as_scikit_learn_has_it",
    ),
    (
        DATA,
        "if not 0 < count < len(members):",
        "if not 0 < count <= len(members):",
        "a digit may be missing from the training side",
        DIGITS + "test_refuses_a_share_that_leaves_a_side_without_a_digit",
    ),
    (
        DATA,
        "for (text,) in side if text.strip()) for side",
        "for (text,) in side) for side",
        "rows without text are lines",
        HUB + "test_text",
    ),
    (
        DATA,
        "draw_by_hash(seed, row[0].strip()) < validation",
        "draw_by_hash(seed, str(len(sides[0]))) < validation",
        "equal rows on both sides",
        HUB + "test_a_share_is_drawn_by_hash",
    ),
    (
        DATA,
        "distinct = range(len(given)) if given else sorted(set(values))",
        "distinct = sorted(set(values))",
        "ids of a label that does not occur are taken by others",
        HUB + "test_names_that_the_data_set_brings",
    ),
    (
        DATA,
        "distinct = range(len(given)) if given else sorted(set(values))",
        "distinct = range(len(given)) if given else sorted(set(values), key=str)",
        "integers are sorted as strings",
        HUB + "test_integers_are_sorted_as_numbers",
    ),
    (
        DATA,
        "wrong += [v for v in values if given and v not in range(len(given))]",
        "wrong += [v for v in values if given and v >= len(given)]",
        "-1 is a label",
        HUB + "test_names_that_the_data_set_brings",
    ),
    (
        DATA,
        "if type(v) not in (int, str) or type(v) is not type(values[0])]",
        "if type(v) not in (int, str, float)]",
        "real numbers are labels",
        HUB + "test_labels_of_another_kind",
    ),
    (
        DATA,
        "        return datasets.load_dataset(repo_id, name, revision=revision)",
        "        return datasets.load_dataset(repo_id, revision=revision)",
        "the configuration is ignored",
        HUB + "test_a_configuration_is_chosen_by_name",
    ),
    (
        DATA,
        "if not (repo_id and Path(repo_id).is_dir()) and not re.fullmatch(",
        "if False and not re.fullmatch(",
        "a format's name reads every file that lies around",
        HUB + "test_what_is_neither_a_folder_nor_an_id",
    ),
    (
        DATA,
        "(ConnectionError, TimeoutError, errors.LocalEntryNotFoundError, errors.HTTPError)",
        "(ConnectionError, TimeoutError, errors.HTTPError)",
        "a Hub that cannot be reached has no such data set",
        HUB + "test_what_the_hub_refuses_is_one_line",
    ),
    (
        DATA,
        "    except (ValueError, DatasetsError) as error:",
        "    except ValueError as error:",
        "an error of many lines",
        HUB + "test_files_whose_columns_differ",
    ),
]

TRAINING_MUTANTS = [
    (
        TRAINING,
        "p.grad.div_(count)",
        "p.grad.div_(accumulate)",
        "the gradient is divided by the number of parts",
        PARTS + "test_the_gradient_is_that_of_the_whole_batch",
    ),
    (
        TRAINING,
        "return total / count",
        "return total / (accumulate or 1)",
        "the loss is divided by the number of parts",
        PARTS + "test_parts_equal_the_whole_batch_with_uneven_counts",
    ),
    (
        TRAINING,
        "                loss.backward()\n",
        "                (loss / n).backward()\n",
        "a mean of means",
        PARTS + "test_the_gradient_is_that_of_the_whole_batch",
    ),
    (
        TRAINING,
        "            if part == 0:\n                optimizer.zero_grad()\n",
        "            optimizer.zero_grad()\n",
        "only the last part has a gradient",
        PARTS + "test_the_gradient_is_that_of_the_whole_batch",
    ),
    (
        TRAINING,
        "            if part == 0:\n                optimizer.zero_grad()\n",
        "",
        "gradients add up over the steps",
        FIT + "test_gradients_of_one_step_do_not_leak_into_the_next",
    ),
    (
        TRAINING,
        "else batch_loss(step, part)",
        "else batch_loss(step, 0)",
        "the first part again and again",
        PARTS + "test_parts_come_in_order_and_one_may_be_empty",
    ),
    (
        TRAINING,
        "            if n > 0 or team.size > 1:  # alone, a part may happen to select nothing\n"
        "                loss.backward()",
        "            loss.backward()",
        "a part that selects nothing is an error",
        PARTS + "test_parts_come_in_order_and_one_may_be_empty",
    ),
    (
        TRAINING,
        "    if not count > 0:\n",
        "    if count < 0:\n",
        "0/0 where nothing is selected",
        PARTS + "test_refuses_counts_of_nothing",
    ),
    (
        TRAINING,
        "            if not n >= 0:\n",
        "            if n < 0:\n",
        "a count that is not a number",
        PARTS + "test_refuses_a_count_below_zero",
    ),
    (
        TRAINING,
        "                os.fsync(file.fileno())\n",
        "",
        "in its place before it is on the disk",
        RESUMED + "test_is_on_the_disk_before_it_takes_its_place",
    ),
    (
        TRAINING,
        'scratch = self.path.with_name(f"{self.path.name}.tmp")',
        "scratch = self.path",
        "written in place: a failure leaves half of it",
        RESUMED + "test_a_failure_while_writing_loses_nothing",
    ),
    (
        TRAINING,
        "            scratch.unlink(missing_ok=True)",
        "            pass",
        "half a file is left lying",
        RESUMED + "test_a_failure_while_writing_loses_nothing",
    ),
    (
        TRAINING,
        'self.team.restore(self.optimizer, state["model"], state["optimizer"])',
        'self.team.model.load_state_dict(state["model"])',
        "AdamW's moments begin again at zero",
        RESUMED + "test_interrupted_anywhere_it_equals_the_uninterrupted_run",
    ),
    (
        TRAINING,
        'self.team.restore(self.optimizer, state["model"], state["optimizer"])',
        'self.optimizer.load_state_dict(state["optimizer"])',
        "the model begins again",
        RESUMED + "test_interrupted_anywhere_it_equals_the_uninterrupted_run",
    ),
    (
        TRAINING,
        '        torch.set_rng_state(draws["cpu"])\n',
        "",
        "dropout draws other masks",
        RESUMED + "test_interrupted_anywhere_it_equals_the_uninterrupted_run",
    ),
    (
        TRAINING,
        "            generator.set_state(saved)\n",
        "            pass\n",
        "the first batches again",
        RESUMED + "test_interrupted_anywhere_it_equals_the_uninterrupted_run",
    ),
    (
        TRAINING,
        '        return state["losses"]\n',
        "        return []\n",
        "every step again",
        RESUMED + "test_interrupted_anywhere_it_equals_the_uninterrupted_run",
    ),
    (
        TRAINING,
        "((step + 1) % every == 0 or step + 1 == steps)",
        "(step % every == 0 or step + 1 == steps)",
        "written a step late",
        RESUMED + "test_interrupted_anywhere_it_equals_the_uninterrupted_run",
    ),
    (
        TRAINING,
        "((step + 1) % every == 0 or step + 1 == steps)",
        "(step + 1) % every == 0",
        "the end is not written",
        RESUMED + "test_a_finished_run_is_read",
    ),
    (
        TRAINING,
        "weights_only=True",
        "weights_only=False",
        "a checkpoint may run code",
        RESUMED + "test_refuses_a_file_that_is_no_checkpoint",
    ),
    (
        TRAINING,
        "for name in {**self.identity, **theirs}:",
        "for name in self.identity:",
        "a tensor that only the checkpoint has is no difference",
        RESUMED + "test_refuses_another_model_and_leaves_it_alone",
    ),
    (
        TRAINING,
        "[*t.shape, str(t.dtype)]",
        "[*t.shape]",
        "a checkpoint of another dtype",
        RESUMED + "test_refuses_another_model_and_leaves_it_alone",
    ),
    (
        TRAINING,
        '"processes": team.size, "generators": len(generators)}',
        '"processes": team.size}',
        "another number of generators fails after the model was loaded",
        RESUMED + "test_refuses_another_model_and_leaves_it_alone",
    ),
    (
        TRAINING,
        '        options |= {"weight_decay": weight_decay, "accumulate": accumulate}\n',
        "",
        "weight decay and parts may change",
        RESUMED + "test_refuses_a_run_with_other_options",
    ),
    (
        TRAINING,
        "learning_rate, weight_decay, warmup = float(learning_rate), ",
        "learning_rate, weight_decay, warmup = learning_rate, ",
        "numpy's numbers make a file that cannot be read",
        RESUMED + "test_options_may_be_numpy_s",
    ),
    (
        TRAINING,
        "    loop = range(len(losses), steps)\n",
        "    loop = range(steps)\n",
        "a resumed run begins at step 0",
        RESUMED + "test_progress_has_the_rest",
    ),
]

TRAINING_AND_DATA = DATA_MUTANTS + TRAINING_MUTANTS


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import mutants

    chosen = [m for m in TRAINING_AND_DATA if not sys.argv[1:] or m[0] in sys.argv[1:]]
    sys.exit(mutants.main([mutants.Mutant(*m) for m in chosen], as_json=False) > 0)
