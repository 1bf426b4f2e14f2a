"""The memory that loading a checkpoint takes at its peak, in a process of its own.

`memory_of_loading` starts this file as that process. It also holds that a model can be built where
neither safetensors nor huggingface_hub is installed: what is imported when shows only there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def memory_of_loading(family: str, folder: Path, scratch: Path) -> tuple[int, int]:
    """Bytes of resident memory at the peak, less those before, and the bytes of the weights.

    family : "bert" or "gpt2"
    scratch : a folder to write into
    """
    run = subprocess.run(
        [sys.executable, __file__, family, folder, scratch],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    peak, weights = map(int, run.stdout.split())
    return peak, weights


def main(family: str, folder: str, scratch: str) -> None:
    from lib.models.bert import BERT, BERTConfig
    from lib.models.gpt2 import GPT2, GPT2Config

    kind, config = {"bert": (BERT, BERTConfig), "gpt2": (GPT2, GPT2Config)}[family]
    tiny = kind(config(5, d_model=3, num_layers=1, num_heads=3, d_ff=5, max_length=7))
    early = [m for m in sys.modules if m.startswith(("safetensors", "huggingface_hub"))]
    assert not early, f"expected them to be imported when they are used, got {early}"
    tiny.save_pretrained(f"{scratch}/tiny")
    kind.from_pretrained(f"{scratch}/tiny")  # what the first call imports and sets up
    before, peak, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident())
            done.wait(0.0005)

    thread = threading.Thread(target=watch)
    thread.start()
    model = kind.from_pretrained(folder)
    done.set()
    thread.join()
    print(max(peak, resident()) - before, sum(p.nbytes for p in model.parameters()))


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(*sys.argv[1:])
