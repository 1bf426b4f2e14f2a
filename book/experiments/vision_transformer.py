"""Train a small ViT and a CNN of equal size on few and on many digits, and write down how they do.

    python book/experiments/vision_transformer.py

writes vision_transformer.json beside this file, which chapter 12_vision_transformer reads. It takes
about ten minutes on one thread. All arms of one seed see the same images in the same order; in the
shuffled arms the patches of every image, in training and in the test, stand in one other order.
The peak learning rate of each model is chosen first, on a part of the training images.

The file is written anew after every run, at once or not at all. If it is stopped, it goes on where
it was.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.data import digits  # noqa: E402
from lib.models.vit import ViT, ViTConfig  # noqa: E402
from lib.teaching.recorded import earlier, record  # noqa: E402
from lib.training import fit  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python book/experiments/vision_transformer.py"
VIT = {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_ff": 64, "init_std": 0.2}
CNN = {"channels": [24, 24, 48]}
TRAINING = {
    "steps": 500,
    "long_steps": 1500,
    "batch": 32,
    "rates": [1e-3, 3e-3, 1e-2],
    "tuned_on": [100, 1000],
}
SIZES = [50, 100, 200, 400, 800, 1297]
SEEDS = [0, 1, 2, 3, 4]
PAIRS = {"seeds": list(range(100, 107)), "size": 200}  # straight and shuffled ViTs, some more
TUNING_SEEDS = [10, 11]
HELD_OUT = 500  # images of the test; with as many, 1,297 are left
PATCH, SIDE = 2, 4  # pixels on the side of a patch, patches on the side of an image


@dataclass(frozen=True)
class Arm:
    model: str
    shuffled: bool = False  # the patches of every image
    moved: bool = False  # each training image, by up to a pixel, anew whenever it is drawn
    long: bool = False  # more steps
    all_sizes: bool = True  # or with all labels only


ARMS = {
    "vit": Arm("vit"),
    "cnn": Arm("cnn"),
    "vit, shuffled": Arm("vit", shuffled=True),
    "cnn, shuffled": Arm("cnn", shuffled=True),
    "vit, no positions": Arm("bag", all_sizes=False),
    "vit, long": Arm("quiet", long=True, all_sizes=False),
    "vit, long, moved": Arm("quiet", long=True, moved=True, all_sizes=False),
    "cnn, long": Arm("cnn", long=True, all_sizes=False),
    "cnn, long, moved": Arm("cnn", long=True, moved=True, all_sizes=False),
}


def small_vit() -> ViT:
    return ViT(ViTConfig(8, PATCH, 1, num_classes=10, **VIT))


def bag_of_patches() -> ViT:
    """The same without positions: they are zero, and stay so."""
    model = small_vit()
    nn.init.zeros_(model.embeddings.position).requires_grad_(False)
    return model


def quiet_places() -> ViT:
    """The same, whose positions begin at ViT's own 0.02: what they are in the end, was learned."""
    model = small_vit()
    nn.init.normal_(model.embeddings.position, std=0.02)
    return model


def small_cnn() -> nn.Sequential:
    """Three convolutions of 3 × 3 and one linear map."""
    a, b, c = CNN["channels"]
    return nn.Sequential(
        nn.Conv2d(1, a, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(a, b, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(b, c, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * c, 10),
    )


MODELS = {"vit": small_vit, "bag": bag_of_patches, "quiet": quiet_places, "cnn": small_cnn}


def shuffle_patches(images: Tensor, order: Tensor) -> Tensor:
    """Patch i of the result (N, 1, 8, 8) is patch order[i] of the image, row by row."""
    patches = F.unfold(images, PATCH, stride=PATCH)[:, :, order]  # (N, P², 16)
    return F.fold(patches, images.shape[-2:], PATCH, stride=PATCH)


def move(images: Tensor, down: int, right: int) -> Tensor:
    """Every image moved by whole pixels, at most one each way; what comes in is empty."""
    padded = F.pad(images, (1, 1, 1, 1))
    return padded[..., 1 - down : 9 - down, 1 - right : 9 - right]


def move_each(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by -1, 0 or 1 pixel down and right, all nine ways alike likely."""
    ways = torch.randint(9, (len(images),), generator=generator)
    result = torch.empty_like(images)
    for way in range(9):
        result[ways == way] = move(images[ways == way], way // 3 - 1, way % 3 - 1)
    return result


def train(
    arm: Arm, images: Tensor, labels: Tensor, *, seed: int, rate: float
) -> tuple[nn.Module, float]:
    """The model, trained, and the mean loss of its last 20 steps."""
    torch.manual_seed(seed)
    model = MODELS[arm.model]()
    generator = torch.Generator().manual_seed(seed)

    def batch_loss(step: int) -> Tensor:
        chosen = torch.randint(len(images), (TRAINING["batch"],), generator=generator)
        x = images[chosen]
        if arm.moved:
            x = move_each(x, generator)
        return F.cross_entropy(model(x), labels[chosen])

    steps = TRAINING["long_steps" if arm.long else "steps"]
    losses = fit(model, batch_loss, steps=steps, learning_rate=rate)
    return model.eval(), sum(losses[-20:]) / len(losses[-20:])


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (model(images).argmax(-1) == labels).double().mean().item()


def similarity(model: ViT) -> list[list[float]]:
    """Cosines between the position embeddings of all patches, (16, 16), without their mean."""
    position = model.embeddings.position.detach()[0, 1:]
    position = F.normalize(position - position.mean(0), dim=-1)
    return [[round(x, 4) for x in row] for row in (position @ position.T).tolist()]


def main(path: Path = RESULTS) -> None:
    """Choose the rates, then train every arm; the file at `path` is whole after each seed."""
    torch.set_num_threads(1)
    data = digits(0, HELD_OUT / 1797)
    settings = {**TRAINING, "vit": VIT, "cnn": CNN, "sizes": SIZES, "held_out": HELD_OUT}
    settings |= {"seeds": SEEDS, "tuning_seeds": TUNING_SEEDS, "pairs": PAIRS}
    results = {
        "images_sha256": data.sha256,
        "parameters": {
            k: sum(p.numel() for p in make().parameters()) for k, make in MODELS.items()
        },
        "tuning": {},
        "rates": {},
        "arms": {},
        "positions": {},
        "pairs": [],
    }
    before = 0.0
    if old := earlier(path, settings, but=["seeds"], images_sha256=data.sha256):
        results, before = old["results"], old["seconds"]
    began = time.process_time()

    def save() -> None:
        record(
            path,
            command=COMMAND,
            hardware="one of 2 CPU cores; seconds are of processor time",
            seconds=before + time.process_time() - began,
            settings=settings,
            results=results,
        )

    # the learning rate: on all but the last training images, judged on those
    cut = max(TRAINING["tuned_on"])
    for name in ("vit", "cnn"):
        for rate in TRAINING["rates"]:
            key = f"{name} {rate:g}"
            if key in results["tuning"]:
                continue
            found = []
            for n in TRAINING["tuned_on"]:
                for seed in TUNING_SEEDS:
                    order = torch.randperm(cut, generator=torch.Generator().manual_seed(seed))[:n]
                    x, y = data.train[order], data.train_labels[order]
                    model, _ = train(ARMS[name], x, y, seed=seed, rate=rate)
                    found.append(accuracy(model, data.train[cut:], data.train_labels[cut:]))
            results["tuning"][key] = found
            print(f"{key:12}", " ".join(f"{a:.3f}" for a in found), flush=True)
            save()
        means = {r: sum(results["tuning"][f"{name} {r:g}"]) for r in TRAINING["rates"]}
        results["rates"][name] = max(means, key=means.get)
    results["rates"]["bag"] = results["rates"]["quiet"] = results["rates"]["vit"]

    def draw(seed: int) -> tuple[Tensor, Tensor]:
        """The order of the training images, and of the patches in the shuffled arms."""
        generator = torch.Generator().manual_seed(1000 + seed)
        images = torch.randperm(len(data.train), generator=generator)
        return images, torch.randperm(SIDE * SIDE, generator=generator)

    for seed in SEEDS:
        order, patches = draw(seed)
        for name, arm in ARMS.items():
            for n in SIZES if arm.all_sizes else SIZES[-1:]:
                key = f"{name}, {n}"
                runs = results["arms"].setdefault(key, [])
                if len(runs) > SEEDS.index(seed):
                    continue

                def change(x: Tensor, arm: Arm = arm, patches: Tensor = patches) -> Tensor:
                    return shuffle_patches(x, patches) if arm.shuffled else x

                x, y = data.train[order[:n]], data.train_labels[order[:n]]
                rate = results["rates"][arm.model]
                model, loss = train(arm, change(x), y, seed=seed, rate=rate)
                test, wanted = data.validation, data.validation_labels
                aside = [accuracy(model, change(move(test, 0, s)), wanted) for s in (-1, 1)]
                run = {
                    "accuracy": accuracy(model, change(test), wanted),
                    "one_pixel_aside": sum(aside) / 2,
                    "training_loss": round(loss, 5),
                }
                runs.append(run)
                if arm.model == "quiet":
                    results["positions"].setdefault(name, []).append(similarity(model))
                print(f"{seed}  {key:28}{run['accuracy']:.3f}", flush=True)
                save()

    for seed in PAIRS["seeds"][len(results["pairs"]) :]:
        order, patches = draw(seed)
        chosen = order[: PAIRS["size"]]
        x, y, rate = data.train[chosen], data.train_labels[chosen], results["rates"]["vit"]
        straight, _ = train(ARMS["vit"], x, y, seed=seed, rate=rate)
        x, test = shuffle_patches(x, patches), shuffle_patches(data.validation, patches)
        shuffled, _ = train(ARMS["vit, shuffled"], x, y, seed=seed, rate=rate)
        pair = [accuracy(straight, data.validation, data.validation_labels)]
        pair.append(accuracy(shuffled, test, data.validation_labels))
        results["pairs"].append(pair)
        print(f"{seed}  pair {pair[0]:.3f} {pair[1]:.3f}", flush=True)
        save()


if __name__ == "__main__":
    main()
