"""The peer's side: PyTorch doing the same work. Run by twin.py and speed.py with the peer's own Python.

Jobs are JSON lines on stdin, answers JSON lines on stdout. Imports numpy, PyTorch and work.py.
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
from torch import Tensor, nn
from torch.nn import functional
from work import BETAS, CLIP_NORM, RATE, SAMPLE, TRAIN, Row, measure, tokens

MODULES = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}
GATES = {"lstm": (0, 1, 3, 2), "rnn": (0,)}  # PyTorch's i, f, g, o are charlm's u, f, c, o, and those are u, f, o, c
THREADS = 2


def reorder(array: NDArray[Any], cell: str) -> NDArray[Any]:
    """Exchange the two orders of gates in the last axis; its own reverse."""
    blocks = np.split(array, len(GATES[cell]), axis=-1)
    return np.concatenate([blocks[gate] for gate in GATES[cell]], axis=-1)


class TwinModel(nn.Module):
    """Embedding, nn.LSTM or nn.RNN, nn.Linear; weights come and gradients go under charlm's names and shapes."""

    def __init__(self, config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        super().__init__()
        self.cell, self.layers, self.tied = config["cell"], config["num_layers"], config["tie_weights"]
        symbols, width, size = config["vocabulary_size"], config["embedding_size"], config["hidden_size"]
        options = {"nonlinearity": config["activation"]} if self.cell == "rnn" else {}
        self.embedding = nn.Embedding(symbols, width)
        self.stack = MODULES[self.cell](width, size, self.layers, **options)
        self.output = nn.Linear(size, symbols)
        if self.tied:
            self.output.weight = self.embedding.weight
        self.to(torch.from_numpy(arrays["embedding"]).dtype)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()  # one of PyTorch's two biases stays zero
            for path, (parameter, is_transposed, is_gated) in self.places().items():
                array = reorder(arrays[path], self.cell) if is_gated else arrays[path]
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(array.T if is_transposed else array)))

    def places(self) -> dict[str, tuple[Tensor, bool, bool]]:
        """charlm's path -> PyTorch's parameter, whether it is the transpose, whether it holds gates."""
        places: dict[str, tuple[Tensor, bool, bool]] = {"embedding": (self.embedding.weight, False, False)}
        for layer in range(self.layers):
            places[f"layer{layer}/w_x"] = (getattr(self.stack, f"weight_ih_l{layer}"), True, True)
            places[f"layer{layer}/w_h"] = (getattr(self.stack, f"weight_hh_l{layer}"), True, True)
            places[f"layer{layer}/b"] = (getattr(self.stack, f"bias_ih_l{layer}"), False, True)
        if not self.tied:
            places["output/w"] = (self.output.weight, True, False)
        return places | {"output/b": (self.output.bias, False, False)}

    def run(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Loss (sum, nats), last state, and the gradients of all parameters and of the initial state."""
        states = [torch.from_numpy(np.ascontiguousarray(s)) for s in np.moveaxis(arrays["state"], 1, 0)]  # (L, N, H)
        for state in states:
            state.requires_grad_()
        hidden, last = self.stack(
            self.embedding(torch.from_numpy(arrays["inputs"])), tuple(states) if self.cell == "lstm" else states[0]
        )
        logits = self.output(hidden)
        targets = torch.from_numpy(arrays["targets"]).reshape(-1)
        loss = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets, reduction="sum")
        loss.backward()
        ends = last if self.cell == "lstm" else (last,)
        result = {
            "loss_nats": loss.detach().numpy(),
            "state_T": np.stack([end.detach().numpy() for end in ends], axis=1),
            "d_state_0": np.stack([state.grad.numpy() for state in states], axis=1),
        }
        for path, (parameter, is_transposed, is_gated) in self.places().items():
            gradient = parameter.grad.numpy()
            gradient = gradient.T if is_transposed else gradient
            result[f"d {path}"] = reorder(gradient, self.cell) if is_gated else gradient
        return result


def twin(config: dict[str, Any], source: str, target: str) -> None:
    with np.load(source) as archive:
        arrays = dict(archive)
    np.savez(target, **TwinModel(config, arrays).run(arrays))


class Model(nn.Module):
    """The model whose speed is measured."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.row = row
        self.embedding = nn.Embedding(row.symbols, row.size)
        self.stack = MODULES[row.cell](row.size, row.size, row.layers)
        self.output = nn.Linear(row.size, row.symbols)

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
    optimiser = torch.optim.AdamW(model.parameters(), RATE, BETAS, fused=True)
    chunks = [torch.from_numpy(ids) for ids in tokens(row)]
    state = model.zero_state()
    number = itertools.count()

    def step() -> float:
        nonlocal state
        ids = chunks[next(number) % len(chunks)]
        optimiser.zero_grad(set_to_none=True)
        logits, state = model(ids[:-1], detach(state))
        loss = functional.cross_entropy(logits.view(-1, row.symbols), ids[1:].reshape(-1))
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


def prepare(row: Row) -> tuple[Callable[[], object], str]:
    """A warm step of the work, and how it is done where there was a choice."""
    torch.manual_seed(1)
    torch.set_num_threads(THREADS)
    if row.kind != SAMPLE:
        step = training(row) if row.kind == TRAIN else scoring(row)
        measure(step, 0.2)
        return step, ""
    best: tuple[float, Callable[[], object], int, str] | None = None
    for name, make in ((MODULES[row.cell].__name__, sampling_by_module), (CELLS[row.cell].__name__, sampling_by_cell)):
        step = make(row)
        for threads in (1, THREADS):
            torch.set_num_threads(threads)
            measure(step, 0.1)
            seconds = measure(step, 0.3)
            if best is None or seconds < best[0]:
                best = seconds, step, threads, f"nn.{name}, {threads} thread{'s' * (threads > 1)}"
    assert best is not None
    torch.set_num_threads(best[2])
    return best[1], best[3]


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
