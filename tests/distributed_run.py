"""What torchrun starts in tests/test_distributed.py: one run that is killed, one not.

    torchrun --nproc-per-node 2 --max-restarts 1 tests/distributed_run.py FOLDER

At step 5 of the first run process 1 is killed. Started anew, both go on from the checkpoint.
"""

import os
import signal
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from lib.distributed import parallelize, processes, share
from lib.training import fit

STEPS, KILLED, EVERY = 7, 5, 2


def run(world, strategy, checkpoint=None, stop=None):
    """Draw from a generator of its own in each process, with dropout; `stop` ends it there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.3), nn.Linear(7, 3)).double()
    model = parallelize(model, strategy, blocks=[model[0]])
    torch.manual_seed(10 + world.rank)
    generator = torch.Generator().manual_seed(20 + world.rank)
    drawn = []

    def loss(step, part):
        if step == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        x = torch.randn(12, 5, generator=generator, dtype=torch.float64)[share(12, world)]
        drawn.append((step, x.sum().item()))
        rows = x[: 2 + world.rank]
        return F.mse_loss(model(rows), rows[:, :3], reduction="sum"), len(rows)

    losses = fit(model, loss, steps=STEPS, learning_rate=0.05, accumulate=1, clip=0.5, every=EVERY,
                 checkpoint=checkpoint, generators=[generator])  # fmt: skip
    weights = [getattr(p, "full_tensor", lambda p=p: p)().detach() for p in model.parameters()]
    return losses, weights, drawn


def main(folder):
    with processes(backend="gloo", seconds=10) as world:
        found = {}
        for strategy in ("ddp", "fsdp"):
            anew = (folder / "fsdp").exists()  # written before the kill
            if anew:
                found[strategy] = run(world, strategy)
            stop = KILLED if not anew and strategy == "fsdp" and world.rank == 1 else None
            found[strategy, "killed"] = run(world, strategy, folder / strategy, stop)
        torch.save(found, folder / f"found-{world.rank}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
