"""The peer's half of twin.py and parity.py: a PyTorch model with charlm's weights. Runs within peer.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from work import BETAS, CLIP_NORM, DECAY

MODULES = {"lstm": nn.LSTM, "rnn": nn.RNN}
GATES = {"lstm": (0, 1, 3, 2), "rnn": (0,)}  # PyTorch's i, f, g, o are charlm's u, f, c, o, and those are u, f, o, c


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


def parity(config: dict[str, Any], source: str, target: str) -> None:
    """Train on given chunks at given rates; what each step's loss was (sum, nats)."""
    with np.load(source) as archive:
        arrays = dict(archive)
    model = TwinModel(config, arrays)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("stack.bias_hh"))  # charlm has one bias
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learnt if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in learnt if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, 1.0, BETAS, fused=True)
    zeros = torch.zeros(model.layers, arrays["chunks"].shape[2], model.stack.hidden_size)
    state: Any = (zeros, zeros.clone()) if model.cell == "lstm" else zeros
    losses = []
    for chunk, rate in zip(arrays["chunks"], arrays["rates"].tolist(), strict=True):
        ids = torch.from_numpy(chunk.astype(np.int64))
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        hidden, state = model.stack(model.embedding(ids[:-1]), state)
        state = tuple(part.detach() for part in state) if model.cell == "lstm" else state.detach()
        logits = model.output(hidden)
        loss = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[1:].reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(learnt, CLIP_NORM)
        optimiser.step()
        losses.append(loss.item() * ids[1:].numel())
    np.savez(target, losses_nats=np.array(losses))
