"""The peer's side: PyTorch doing the same work. Run by the other scripts with the peer's own Python.

Jobs are JSON lines on stdin, answers JSON lines on stdout. Imports numpy, PyTorch, and from this folder peer_twin and
work.

PyTorch as one who knows it would use it: time steps first, fused AdamW, gradients dropped instead of zeroed, inference
mode where nothing is learnt, and of one thread and two (and of nn.LSTM and nn.LSTMCell where a loop over the tokens is
needed) whatever is fastest. Denormal numbers are left alone, as they are in charlm.
"""

from __future__ import annotations

import itertools
import json
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peer_twin import parity, twin
from torch import Tensor, nn
from torch.nn import functional
from work import BETAS, CLIP_NORM, DECAY, RATE, SAMPLE, TRAIN, Row, measure, tokens

MODULES = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}
THREADS = 2


class Model(nn.Module):
    """The model whose speed is measured."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.row = row
        self.embedding = nn.Embedding(row.symbols, row.size)
        self.stack = MODULES[row.cell](row.size, row.size, row.layers)
        self.output = self.make_output()

    def make_output(self) -> nn.Module:
        size, symbols = self.row.size, self.row.symbols
        if self.row.adaptive:  # in charlm's parts
            return nn.AdaptiveLogSoftmaxWithLoss(size, symbols, [symbols // 10, symbols * 2 // 5], div_value=4.0)
        return nn.Linear(size, symbols)

    def loss(self, inputs: Tensor, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The mean loss; the state after the last step."""
        hidden, state = self.stack(self.embedding(inputs), state)
        if self.row.adaptive:
            return self.output(hidden.flatten(0, 1), targets.reshape(-1)).loss, state
        logits = self.output(hidden)
        return functional.cross_entropy(logits.view(-1, self.row.symbols), targets.reshape(-1)), state

    def zero_state(self) -> Any:
        zeros = torch.zeros(self.row.layers, self.row.rows, self.row.size)
        return (zeros, zeros.clone()) if self.row.cell == "lstm" else zeros

    def forward(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, state = self.stack(self.embedding(inputs), state)
        return self.output(hidden), state


def detach(state: Any) -> Any:
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


def training(row: Row) -> Callable[[], object]:
    """A training step: forward, backward, clip by norm, Adam; the state is carried on."""
    model = Model(row)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, BETAS, weight_decay=DECAY, fused=True)
    chunks = [torch.from_numpy(ids) for ids in tokens(row)]
    state = model.zero_state()
    number = itertools.count()

    def step() -> float:
        nonlocal state
        ids = chunks[next(number) % len(chunks)]
        optimiser.zero_grad(set_to_none=True)
        loss, state = model.loss(ids[:-1], ids[1:], detach(state))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimiser.step()
        return loss.item()

    return step


def scoring(row: Row) -> Callable[[], object]:
    """The log probability of each token of a chunk; the state is carried on."""
    model = Model(row).eval()
    chunks = [torch.from_numpy(ids) for ids in tokens(row)]
    state = model.zero_state()
    number = itertools.count()

    @torch.inference_mode()
    def step() -> NDArray[Any]:
        nonlocal state
        ids = chunks[next(number) % len(chunks)]
        logits, state = model(ids[:-1], state)
        targets = ids[1:].reshape(-1)
        return -functional.cross_entropy(logits.view(-1, row.symbols), targets, reduction="none").numpy()

    return step


def sampling_by_module(row: Row) -> Callable[[], object]:
    """Draw T tokens for each stream with nn.LSTM, a call a token."""
    model = Model(row).eval()

    @torch.inference_mode()
    def step() -> list[list[int]]:
        state, ids = model.zero_state(), torch.zeros(1, row.rows, dtype=torch.int64)
        drawn = []
        for _ in range(row.steps):
            logits, state = model(ids, state)
            ids = torch.multinomial(torch.softmax(logits[0], -1), 1).view(1, -1)
            drawn.append(ids)
        return torch.cat(drawn).tolist()

    return step


def sampling_by_cell(row: Row) -> Callable[[], object]:
    """Draw T tokens for each stream with a chain of nn.LSTMCell."""
    model = Model(row).eval()
    cells = nn.ModuleList(CELLS[row.cell](row.size, row.size) for _ in range(row.layers))

    @torch.inference_mode()
    def step() -> list[list[int]]:
        zeros = torch.zeros(row.rows, row.size)
        states: list[Any] = [(zeros, zeros) if row.cell == "lstm" else zeros for _ in cells]
        ids = torch.zeros(row.rows, dtype=torch.int64)
        drawn = []
        for _ in range(row.steps):
            x = model.embedding(ids)
            for layer, cell in enumerate(cells):
                states[layer] = cell(x, states[layer])
                x = states[layer][0] if row.cell == "lstm" else states[layer]
            ids = torch.multinomial(torch.softmax(model.output(x), -1), 1).view(-1)
            drawn.append(ids)
        return torch.stack(drawn).tolist()

    return step


def ways(row: Row) -> dict[str, Callable[[], object]]:
    """The ways to do a row's work, by name."""
    if row.kind == SAMPLE:
        by_module, by_cell = MODULES[row.cell].__name__, CELLS[row.cell].__name__
        return {f"nn.{by_module}, ": sampling_by_module(row), f"nn.{by_cell}, ": sampling_by_cell(row)}
    return {"": training(row) if row.kind == TRAIN else scoring(row)}


def prepare(row: Row) -> tuple[Callable[[], object], str]:
    """A warm step of the work in the fastest way, and which that is."""
    torch.manual_seed(1)
    tried = []
    for name, step in ways(row).items():
        for threads in range(1, THREADS + 1):
            torch.set_num_threads(threads)
            measure(step, 0.1)
            tried.append((measure(step, 0.3), threads, name, step))
    _, threads, name, step = min(tried, key=lambda way: way[0])
    torch.set_num_threads(threads)
    return step, f"{name}{threads} thread{'s' * (threads > 1)}"


def main() -> None:
    torch.set_num_threads(THREADS)
    step: Callable[[], object] | None = None
    for line in sys.stdin:
        job = json.loads(line)
        answer: dict[str, Any] = {}
        if job["job"] == "versions":
            answer = {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}
        elif job["job"] == "twin":
            twin(job["config"], job["source"], job["target"])
        elif job["job"] == "parity":
            torch.set_num_threads(THREADS)
            parity(job["config"], job["source"], job["target"])
        elif job["job"] == "prepare":
            step, note = prepare(Row(**job["row"]))
            answer = {"note": note}
        elif job["job"] == "measure":
            assert step is not None
            before = time.process_time()
            seconds = measure(step, job["seconds"])
            answer = {"seconds": seconds, "processor_seconds": time.process_time() - before}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
