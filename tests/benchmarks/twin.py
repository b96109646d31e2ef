"""Twin check: with the same weights and tokens, charlm and PyTorch have the same loss and the same gradients.

    python tests/benchmarks/twin.py --peer-python PATH

Compares loss, last state, and the gradients of every parameter and of the initial state, for `lstm` (nn.LSTM) and
`rnn` (nn.RNN, tanh and relu), in float32 (1e-5) and float64 (1e-12): largest difference over largest value, per
tensor. Exits with 1 if any is beyond. `gru` is not compared: in charlm the reset gate acts before the matrix product
and an update gate near 1 takes the new value; in PyTorch neither holds, so no mapping of weights makes them equal.
PyTorch has no `gru-simple` and no peepholes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from numpy.typing import NDArray
from peer_process import HOW_TO, Peer

from charlm.engine.threads import Team
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.models.stack import Batch

LIMITS = {"float32": 1e-5, "float64": 1e-12}
THREADS = 2

# vocabulary, embedding, hidden, layers; then N, T
CASES = [
    (LanguageModelConfig(65, 32, 128, 2), 16, 40),
    (LanguageModelConfig(27, 20, 100, 2), 7, 13),  # odd sizes
    (LanguageModelConfig(211, 24, 40, 3), 5, 9),  # more symbols than tokens: the table holds the ids of the batch alone
    (LanguageModelConfig(65, 48, 48, 2, tie_weights=True), 16, 40),
    (LanguageModelConfig(65, 32, 128, 2, "rnn", "tanh"), 16, 40),
    (LanguageModelConfig(65, 32, 128, 2, "rnn", "relu"), 16, 40),
    (LanguageModelConfig(27, 20, 100, 2, "rnn", "tanh"), 7, 13),
    (LanguageModelConfig(27, 20, 100, 2, "rnn", "relu"), 7, 13),
]


def name(config: LanguageModelConfig, rows: int, steps: int) -> str:
    activation = f" {config.activation}" if config.cell == "rnn" else ""
    tied = ", tied" if config.tie_weights else ""
    return (
        f"{config.cell}{activation}, V={config.vocabulary_size} E={config.embedding_size} H={config.hidden_size} "
        f"L={config.num_layers} N={rows} T={steps}{tied}"
    )


def problem(config: LanguageModelConfig, rows: int, steps: int, dtype: str) -> dict[str, NDArray[Any]]:
    """Weights by charlm's names, no bias of zero, an initial state that is not zero, tokens."""
    rng = np.random.default_rng(7)
    model = LanguageModel(config, dtype=dtype)
    model.initialise(rng)
    for path, array in model.parameters.items():
        if array.ndim == 1:
            array += 0.3 * rng.standard_normal(array.shape).astype(dtype)
        if path.endswith("w_h") and config.activation == "relu":
            array *= 0.7  # or relu's state grows without bound
    ids = rng.integers(config.vocabulary_size, size=(steps + 1, rows))
    state = 0.5 * rng.standard_normal(model.zero_state(rows).shape)
    return dict(model.parameters) | {"inputs": ids[:-1], "targets": ids[1:], "state": state.astype(dtype)}


def run(config: LanguageModelConfig, arrays: dict[str, NDArray[Any]], team: Team) -> dict[str, NDArray[Any]]:
    """charlm's side: as `TwinModel.run` of peer.py."""
    model = LanguageModel(config, team, arrays["embedding"].dtype)
    model.parameters.assign(arrays)
    model.changed()
    state = arrays["state"].copy()
    inputs, targets = arrays["inputs"].astype(np.int32), arrays["targets"].astype(np.int32)
    loss_nats = model.loss_and_gradients(Batch(inputs, state, np.zeros_like(state)), targets, scale=1.0)
    result = {"loss_nats": np.array(loss_nats), "state_T": state, "d_state_0": model.stack.d_state}
    return result | {f"d {path}": gradient for path, gradient in model.gradients.items()}


def difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Largest difference over the peer's largest value; infinite if the shapes differ, NaN if either holds one."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def compare(peer: Peer, team: Team, folder: Path) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """For each case its name, and dtype -> tensor -> relative difference."""
    source, target = folder / "ours.npz", folder / "theirs.npz"
    for config, rows, steps in CASES:
        differences: dict[str, dict[str, float]] = {}
        for dtype in LIMITS:
            arrays = problem(config, rows, steps, dtype)
            np.savez(source, **arrays)
            peer.ask("twin", config=config.to_json(), source=str(source), target=str(target))
            ours = run(config, arrays, team)
            with np.load(target) as theirs:
                missing = set(theirs.files) ^ set(ours)
                if missing:
                    raise SystemExit(f"tensors of one side alone: {', '.join(sorted(missing))}")
                differences[dtype] = {tensor: difference(ours[tensor], theirs[tensor]) for tensor in ours}
        yield name(config, rows, steps), differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", metavar="PATH", help="the Python of an environment with PyTorch and numpy")
    options = parser.parse_args()
    if options.peer_python is None:
        parser.error(f"no --peer-python\n{HOW_TO}")
    failures = 0
    team = Team(THREADS)
    with Peer(options.peer_python) as peer, tempfile.TemporaryDirectory() as folder:
        print(describe(peer))
        print("largest difference / largest value; limits: " + ", ".join(f"{k} {v:.0e}" for k, v in LIMITS.items()))
        for title, differences in compare(peer, team, Path(folder)):
            print(f"\n{title:<48}  {'float32':>9}  {'float64':>9}")
            for tensor in differences["float32"]:
                cells, verdict = [], ""
                for dtype, limit in LIMITS.items():
                    cells.append(f"{differences[dtype][tensor]:9.1e}")
                    if not differences[dtype][tensor] <= limit:  # a NaN fails
                        failures, verdict = failures + 1, "  BEYOND"
                print(f"    {tensor:<44}  {'  '.join(cells)}{verdict}")
    team.close()
    print(f"\n{failures} beyond their limit" if failures else "\nall within their limits")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
