"""The recorded run that chapter 12_vision_transformer shows: whole, and its command can be run."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from lib.teaching.recorded import recorded

SCRIPT = Path(__file__).parents[2] / "book" / "experiments" / "vision_transformer.py"
TINY = {"steps": 3, "long_steps": 4, "batch": 4, "rates": [1e-3, 3e-3], "tuned_on": [20, 30]}


@pytest.fixture
def tiny(run, monkeypatch):
    monkeypatch.setattr(run, "TRAINING", TINY)
    monkeypatch.setattr(run, "SIZES", [30, 60])
    monkeypatch.setattr(run, "SEEDS", [0, 1])
    monkeypatch.setattr(run, "TUNING_SEEDS", [10])
    monkeypatch.setattr(run, "PAIRS", {"seeds": [7], "size": 20})
    return run


def keys(run):
    return [
        f"{name}, {n}"
        for name, arm in run.ARMS.items()
        for n in (run.SIZES if arm.all_sizes else run.SIZES[-1:])
    ]


def assert_whole(run, record):
    results = record["results"]
    assert sorted(results["arms"]) == sorted(keys(run))
    assert {len(runs) for runs in results["arms"].values()} == {len(run.SEEDS)}
    for found in itertools.chain(*results["arms"].values()):
        assert found.keys() == {"accuracy", "one_pixel_aside", "training_loss"}
        assert 0 <= found["accuracy"] <= 1 and 0 <= found["one_pixel_aside"] <= 1
    assert sorted(results["positions"]) == ["vit, long", "vit, long, moved"]
    for tables in results["positions"].values():
        tables = torch.tensor(tables)
        assert tables.shape == (len(run.SEEDS), 16, 16)
        torch.testing.assert_close(tables, tables.mT, rtol=0, atol=2e-4)
        diagonal = torch.diagonal(tables, dim1=1, dim2=2)
        torch.testing.assert_close(diagonal, torch.ones_like(diagonal), rtol=0, atol=2e-4)
    assert len(results["pairs"]) == len(run.PAIRS["seeds"])
    sums = {k: sum(v) for k, v in results["tuning"].items()}
    for name in ("vit", "cnn"):
        best = max(run.TRAINING["rates"], key=lambda rate: sums[f"{name} {rate:g}"])
        assert results["rates"][name] == best
    assert record["command"] == run.COMMAND and SCRIPT.name in run.COMMAND


def test_the_recorded_file_holds_every_run(run):
    record = recorded("vision_transformer")
    assert_whole(run, record)
    want = {**run.TRAINING, "vit": run.VIT, "cnn": run.CNN, "sizes": run.SIZES}
    want |= {"held_out": run.HELD_OUT, "seeds": run.SEEDS, "tuning_seeds": run.TUNING_SEEDS}
    assert record["settings"] == {**want, "pairs": run.PAIRS}
    found = {name: sum(p.numel() for p in make().parameters()) for name, make in run.MODELS.items()}
    assert record["results"]["parameters"] == found
    assert abs(found["vit"] / found["cnn"] - 1) < 0.03


def test_the_script_writes_what_is_recorded_and_goes_on_where_it_was(tiny, tmp_path, monkeypatch):
    path = tmp_path / "tiny.json"
    tiny.main(path)
    whole = recorded("tiny", folder=tmp_path)
    assert_whole(tiny, whole)
    assert (
        whole["results"]["images_sha256"]
        == (recorded("vision_transformer")["results"]["images_sha256"])
    )
    # a seed draws images, weights and batches; an order of patches is another run
    arms = {
        key: [x["training_loss"] for x in runs] for key, runs in whole["results"]["arms"].items()
    }
    assert arms["vit, 60"][0] != arms["vit, 60"][1]
    assert arms["vit, 60"][0] != arms["vit, shuffled, 60"][0]
    assert arms["cnn, long, 60"][0] != arms["cnn, long, moved, 60"][0]
    # stopped in the middle: the same file in the end
    cut = json.loads(path.read_text())
    cut["results"]["arms"] = {
        key: runs[: 1 if key.startswith("vit") else 2]
        for key, runs in cut["results"]["arms"].items()
    }
    cut["results"]["positions"] = {k: v[:1] for k, v in cut["results"]["positions"].items()}
    cut["results"]["pairs"] = []
    path.write_text(json.dumps(cut))
    tiny.main(path)
    again = recorded("tiny", folder=tmp_path)["results"]
    assert again == whole["results"]
    monkeypatch.setattr(tiny, "PAIRS", {"seeds": [8], "size": 20})
    with pytest.raises(ValueError, match="expected results of pairs = "):
        tiny.main(path)


def test_shuffling_moves_whole_patches(run):
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    image = torch.arange(64.0).view(1, 1, 8, 8)
    got = run.shuffle_patches(image, order)
    for t in range(16):
        i, j = divmod(t, 4)
        a, b = divmod(int(order[t]), 4)
        here = got[0, 0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        assert torch.equal(here, image[0, 0, 2 * a : 2 * a + 2, 2 * b : 2 * b + 2])
    assert torch.equal(run.shuffle_patches(got, order.argsort()), image)


def test_moving_is_by_pixels_each_image_by_its_own(run):
    image = torch.arange(1.0, 65.0).view(1, 1, 8, 8)
    right = run.move(image, 0, 1)
    assert (right[..., 0] == 0).all() and torch.equal(right[..., 1:], image[..., :-1])
    up = run.move(image, -1, 0)
    assert (up[..., -1, :] == 0).all() and torch.equal(up[..., :-1, :], image[..., 1:, :])
    many = run.move_each(image.repeat(900, 1, 1, 1), torch.Generator().manual_seed(0))
    different, counts = many.unique(dim=0, return_counts=True)
    assert len(different) == 9 and counts.min() > 60


def test_the_bag_has_no_places_and_keeps_none(tiny):
    torch.manual_seed(0)
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    bag, _ = tiny.train(tiny.ARMS["vit, no positions"], images, labels, seed=0, rate=1e-2)
    order = torch.randperm(16)
    shuffled = tiny.shuffle_patches(images, order)
    torch.testing.assert_close(bag(shuffled), bag(images), rtol=0, atol=1e-5)
    vit, _ = tiny.train(tiny.ARMS["vit"], images, labels, seed=0, rate=1e-2)
    assert (vit(shuffled) - vit(images)).abs().max() > 1e-2
    quiet = tiny.quiet_places().embeddings.position
    assert abs(quiet.std() - 0.02) < 0.003
