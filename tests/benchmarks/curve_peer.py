"""The peer's side of curve.py: trains on one text, validates on all of another, writes a log like charlm's.

    PEER/bin/python curve_peer.py lstm TRAIN VALID --log LOG [--hidden-size 256] [--dropout 0.1] [--epochs 10] ...
    PEER/bin/python curve_peer.py gpt TRAIN VALID --log LOG [--iterations 2000]

`lstm` is nn.LSTM with charlm's defaults for this size of text: 2 x 256, embedding 64, batch 50, chunks of 64, state
carried, fused AdamW at 0.004 with warm-up and a cosine, clipping at 1, dropout 0.1 after each layer, ten epochs. It
validates as charlm does: 32 streams side by side, state carried, each warmed on the 128 characters before its own.

`gpt` is nanoGPT's published recipe for a CPU: 4 layers of 4 heads, 128 wide, blocks of 64, batch 12, 2,000 iterations,
AdamW at 1e-3 falling to 1e-4, warm-up of 100, decay 0.1, clipping at 1, no dropout. It validates on the whole text in
windows of a block.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpt import GPT
from torch import Tensor, nn
from torch.nn import functional

THREADS = 2
STREAMS, CHUNK, WARMUP = 32, 64, 128  # of the LSTM's validation; the warm-up is whole chunks
BLOCK, GPT_BATCH, GPT_EVERY = 64, 12, 250
CLIP_NORM, BETAS = 1.0, (0.9, 0.99)
LSTM_FALL, GPT_FALL = 0.02, 0.1  # of the rate, where the cosine ends


def read(train: str, valid: str) -> tuple[Tensor, Tensor, int]:
    """Both texts as ids, and the number of symbols."""
    texts = [np.array(list(Path(path).read_bytes().decode())) for path in (train, valid)]
    symbols, ids = np.unique(np.concatenate(texts), return_inverse=True)
    return torch.from_numpy(ids[: texts[0].size]), torch.from_numpy(ids[texts[0].size :]), symbols.size


class Log:
    """Lines of JSON, each on the disk before the next step."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the process)

    def validation(self, tokens: int, valid_nats: float) -> None:
        self._file.write(json.dumps({"event": "validation", "tokens": tokens, "valid_nats": valid_nats}) + "\n")
        self._file.flush()


def optimiser_of(model: nn.Module, rate: float, decay: float) -> torch.optim.Optimizer:
    """Fused AdamW; decay on matrices alone."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, rate, BETAS, fused=True)


def learn(model: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """Backward, clip, step."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimiser.step()


def rate_factor(step: int, warmup: int, done: float, end: float) -> float:
    """A linear rise and a cosine's fall to ``end``."""
    return min(1.0, (step + 1) / max(1, warmup)) * (end + (1 - end) * 0.5 * (1 + math.cos(math.pi * done)))


class Recurrent(nn.Module):
    """Embedding, nn.LSTM, linear output."""

    def __init__(self, symbols: int, options: argparse.Namespace) -> None:
        super().__init__()
        size, layers = options.hidden_size, options.num_layers
        self.embedding = nn.Embedding(symbols, options.embedding_size)
        self.stack = nn.LSTM(options.embedding_size, size, layers, dropout=options.dropout if layers > 1 else 0.0)
        self.drop = nn.Dropout(options.dropout)
        self.output = nn.Linear(size, symbols)

    def forward(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, state = self.stack(self.embedding(ids), state)
        return self.output(self.drop(hidden)), state


@torch.inference_mode()
def validate_lstm(model: Recurrent, ids: Tensor) -> float:
    """Nats per character of all characters but the first, each predicted once."""
    starts = [1 + (ids.numel() - 1) * i // STREAMS for i in range(STREAMS + 1)]
    length = max(b - a for a, b in itertools.pairwise(starts))
    begin = torch.tensor(starts[:-1])
    steps = torch.arange(-WARMUP, length)[:, None]
    places = begin + steps  # (WARMUP + length, N): what each step predicts
    is_own = (steps >= 0) & (places < torch.tensor(starts[1:]))
    places = places.clamp(1, ids.numel() - 1)
    total = 0.0
    state: Any = None
    for first in range(0, len(places), CHUNK):
        chunk = places[first : first + CHUNK]
        if first == WARMUP:  # nothing stands before the first stream
            state = tuple(part.index_fill(1, torch.tensor([0]), 0.0) for part in state)
        logits, state = model(ids[chunk - 1], state)
        losses = functional.cross_entropy(logits.flatten(0, 1), ids[chunk].flatten(), reduction="none")
        total += float((losses * is_own[first : first + CHUNK].flatten()).double().sum())
    return total / int(is_own.sum())


def train_lstm(options: argparse.Namespace) -> None:
    train, valid, symbols = read(options.train, options.valid)
    model, log = Recurrent(symbols, options), Log(options.log)
    optimiser = optimiser_of(model, options.lr, options.weight_decay)
    length = train.numel() // options.batch_size
    streams = train[: length * options.batch_size].view(options.batch_size, length).T.contiguous()  # (length, N)
    firsts = range(0, length - 1, options.bptt)
    steps, step, tokens = options.epochs * len(firsts), 0, 0
    for _ in range(options.epochs):
        state: Any = None
        for first in firsts:
            chunk = streams[first : first + options.bptt + 1]
            logits, state = model(chunk[:-1], state)
            state = tuple(part.detach() for part in state)
            loss = functional.cross_entropy(logits.flatten(0, 1), chunk[1:].flatten())
            rate = options.lr * rate_factor(step, min(200, steps // 20), step / steps, LSTM_FALL)
            learn(model, optimiser, loss, rate)
            step, tokens = step + 1, tokens + chunk[1:].numel()
        model.eval()
        log.validation(tokens, validate_lstm(model, valid))
        model.train()


@torch.inference_mode()
def validate_gpt(model: GPT, ids: Tensor) -> float:
    """Nats per character of all characters but the first, each predicted within its own block."""
    total = 0.0
    whole = (ids.numel() - 1) // BLOCK * BLOCK
    blocks = [ids[:whole].view(-1, BLOCK), ids[whole:-1].view(1, -1)]
    targets = [ids[1 : whole + 1].view(-1, BLOCK), ids[whole + 1 :].view(1, -1)]
    for these, those in zip(blocks, targets, strict=True):
        for inputs, wanted in zip(these.split(64), those.split(64), strict=True):
            if inputs.numel():
                logits = model(inputs)
                total += float(functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum"))
    return total / (ids.numel() - 1)


def train_gpt(options: argparse.Namespace) -> None:
    train, valid, symbols = read(options.train, options.valid)
    model, log = GPT(symbols, BLOCK, options.width, options.num_layers, options.heads), Log(options.log)
    optimiser = optimiser_of(model, options.lr, 0.1)
    places = torch.arange(BLOCK)
    for step in range(options.iterations):
        begins = torch.randint(train.numel() - BLOCK, (GPT_BATCH, 1))
        logits = model(train[begins + places])
        loss = functional.cross_entropy(logits.flatten(0, 1), train[begins + places + 1].flatten())
        rate = options.lr * rate_factor(step, 100, max(0.0, (step - 100) / max(1, options.iterations - 100)), GPT_FALL)
        learn(model, optimiser, loss, rate)
        if (step + 1) % GPT_EVERY == 0 or step + 1 == options.iterations:
            log.validation((step + 1) * GPT_BATCH * BLOCK, validate_gpt(model, valid))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    flags: dict[Callable[[argparse.Namespace], None], dict[str, float]] = {
        train_lstm: {
            "hidden-size": 256, "num-layers": 2, "embedding-size": 64, "batch-size": 50, "bptt": 64, "epochs": 10,
            "dropout": 0.1, "lr": 0.004, "weight-decay": 0.0,
        },
        train_gpt: {"width": 128, "num-layers": 4, "heads": 4, "iterations": 2000, "lr": 1e-3},
    }  # fmt: skip
    for train, values in flags.items():
        kind = kinds.add_parser(train.__name__.removeprefix("train_"))
        kind.set_defaults(train_model=train)
        kind.add_argument("train", metavar="TRAIN")
        kind.add_argument("valid", metavar="VALID")
        kind.add_argument("--log", required=True, metavar="LOG")
        for name, value in values.items():
            kind.add_argument(f"--{name}", type=type(value), default=value, help=f"default: {value}")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    options.train_model(options)


if __name__ == "__main__":
    main()
