"""Loss parity: charlm and PyTorch learn the same text in the same way, and their losses fall alike.

    python tests/benchmarks/parity.py TEXT --peer-python PATH [--steps 340] [--quick]

The same characters in the same chunks in the same order, the same initial weights (carried over as in twin.py), state
carried, AdamW with the same rates (warm-up, then a cosine) and decay, gradients clipped to the same norm: LSTM 2 x 128
and 2 x 256. Whoever wonders whether speed.py compares the same work finds the answer here. The two differ by rounding
alone, a millionth of a nat in 300 steps. Exits with 1 if the losses of one step differ by more than 0.001 nats.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from numpy.typing import NDArray
from ours import TrainingStep
from peer_process import HOW_TO, Peer
from table import Table
from work import DECAY, RATE

from charlm.engine.threads import Team
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.training.schedule import rate_factor

THREADS, ROWS, STEPS = 2, 50, 64
HIGHEST_RATE = 2 * RATE
WARMUP = 0.1  # part of the steps
LIMIT_NATS = 1e-3
WINDOWS = 20
SIZES = (128, 256)
TABLE = Table(("steps", 12), ("charlm nats", 11), ("peer nats", 11), ("difference", 10))


def chunks(path: str, count: int) -> tuple[NDArray[np.int32], int]:
    """The text's first chunks, (count, T + 1, N), each beginning where the one before ended; and V."""
    characters = np.array(list(Path(path).read_text(encoding="utf-8")))
    symbols, ids = np.unique(characters, return_inverse=True)
    length = ids.size // ROWS
    if length < count * STEPS + 1:
        raise SystemExit(f"{path}: {ids.size:,} characters are too few for {count} steps of {ROWS} x {STEPS}")
    streams = ids[: ROWS * length].reshape(ROWS, length).T  # (length, N)
    cut = [streams[i * STEPS : (i + 1) * STEPS + 1] for i in range(count)]
    return np.stack(cut).astype(np.int32), symbols.size


def problem(config: LanguageModelConfig, cut: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
    """Weights by charlm's names, chunks, and each step's rate."""
    model = LanguageModel(config)
    model.initialise(np.random.default_rng(7))
    count = len(cut)
    rates = [HIGHEST_RATE * rate_factor("cosine", i, int(WARMUP * count), i / count) for i in range(count)]
    return dict(model.parameters) | {"chunks": cut, "rates": np.array(rates)}


def run(config: LanguageModelConfig, arrays: dict[str, NDArray[Any]], team: Team) -> NDArray[np.float64]:
    """charlm's side: as `parity` of peer_twin.py."""
    model = LanguageModel(config, team)
    model.parameters.assign({path: arrays[path] for path in model.parameters})
    model.changed()
    step = TrainingStep(model, ROWS, DECAY)
    pairs = zip(arrays["chunks"], arrays["rates"].tolist(), strict=True)
    return np.array([step(ids, rate) for ids, rate in pairs])


def compare(config: LanguageModelConfig, cut: NDArray[np.int32], peer: Peer, team: Team, folder: Path) -> float:
    """Print both curves, as means over some steps; the largest difference of one step's loss, nats."""
    source, target = folder / "ours.npz", folder / "theirs.npz"
    arrays = problem(config, cut)
    np.savez(source, **arrays)
    peer.ask("parity", config=config.to_json(), source=str(source), target=str(target))
    ours = run(config, arrays, team) / (ROWS * STEPS)
    with np.load(target) as archive:
        theirs = archive["losses_nats"] / (ROWS * STEPS)
    print(f"\nlstm 2 x {config.hidden_size}, V {config.vocabulary_size}, N {ROWS}, T {STEPS}\n\n{TABLE.head()}")
    for window in np.array_split(np.arange(len(cut)), min(WINDOWS, len(cut))):
        a, b = float(ours[window].mean()), float(theirs[window].mean())
        print(TABLE.line([f"{window[0] + 1}-{window[-1] + 1}", f"{a:.5f}", f"{b:.5f}", f"{a - b:+.1e}"]))
    worst = float(np.abs(ours - theirs).max())
    print(f"\nlargest difference of one step's loss: {worst:.1e} nats", flush=True)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", metavar="TEXT", help="a text file of some hundred thousand characters or more")
    parser.add_argument("--peer-python", metavar="PATH", help="the Python of an environment with PyTorch and numpy")
    parser.add_argument("--steps", type=int, default=340, metavar="N", help="of training (default: 340)")
    parser.add_argument("--quick", action="store_true", help="40 steps of the smaller model")
    options = parser.parse_args()
    if options.peer_python is None:
        parser.error(f"no --peer-python\n{HOW_TO}")
    sizes, count = (SIZES[:1], 40) if options.quick else (SIZES, options.steps)
    cut, symbols = chunks(options.text, count)
    team = Team(THREADS)
    with Peer(options.peer_python) as peer, tempfile.TemporaryDirectory() as folder:
        print(describe(peer))
        configs = [LanguageModelConfig(symbols, size, size, 2) for size in sizes]
        worst = float(np.max([compare(config, cut, peer, team, Path(folder)) for config in configs]))
    team.close()
    is_same = worst <= LIMIT_NATS  # a NaN is not
    print(f"\n{'the same' if is_same else 'NOT the same'}: the limit is {LIMIT_NATS} nats")
    sys.exit(0 if is_same else 1)


if __name__ == "__main__":
    main()
