"""The peer's side of tasks.py: a classifier, a tagger and an encoder-decoder of PyTorch, of the same sizes.

    PEER/bin/python tasks_peer.py JOB.json ANSWER.json

JOB holds a task (classify, tag, transduce), sizes and rates, and for the parts train, valid and test the ids that
charlm gave. ANSWER receives predictions for test by the weights that were best on valid, as charlm keeps them: label
ids, tag ids, or target ids by greedy search. Each is built of nn.LSTM, trained with fused AdamW (warm-up, cosine to a
fiftieth, clipping at 1, dropout on what layers give), on batches of sequences of like length.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_packed_sequence, pad_sequence

THREADS = 2
FALL, WARMUP, CLIP_NORM = 0.02, 60, 1.0
ROWS = 64  # side by side in prediction
VALIDATIONS = 20
NONE = -1

Job = dict[str, Any]
Part = list[Any]


def ids_of(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


class Reader(nn.Module):
    """Embedding and LSTM over whole sequences; `padded` ids (N, T) and lengths to outputs and last states."""

    def __init__(self, job: Job, symbols: int, width: int, hidden: int, extra: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        self.lstm = nn.LSTM(
            width + extra, hidden, job["num_layers"], bidirectional=job["bidirectional"], batch_first=True,
            dropout=job["dropout"] if job["num_layers"] > 1 else 0.0,
        )  # fmt: skip

    def forward(self, sequences: list[Tensor], extra: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        lengths = torch.tensor([s.numel() for s in sequences])
        x = self.embedding(pad_sequence(sequences, batch_first=True))
        if extra is not None:
            x = torch.cat([x, extra], -1)
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, state = self.lstm(packed)
        return pad_packed_sequence(output, batch_first=True)[0], state

    def last(self, state: Tensor) -> Tensor:
        """The top layer's last states, both directions side by side: (N, D H)."""
        count = 2 if self.lstm.bidirectional else 1
        return torch.cat(list(state[-count:]), -1)


class Classifier(nn.Module):
    def __init__(self, job: Job) -> None:
        super().__init__()
        self.reader = Reader(job, job["symbols"], job["embedding_size"], job["hidden_size"])
        self.dropout = nn.Dropout(job["dropout"])
        self.output = nn.Linear(job["hidden_size"] * (2 if job["bidirectional"] else 1), job["labels"])

    def logits(self, batch: Part) -> Tensor:
        _, (last, _) = self.reader([ids_of(ids) for ids, _ in batch])
        return self.output(self.dropout(self.reader.last(last)))

    def loss(self, batch: Part) -> tuple[Tensor, int]:
        return functional.cross_entropy(self.logits(batch), ids_of([label for _, label in batch])), len(batch)

    def predict(self, batch: Part) -> list[Any]:
        return self.logits(batch).argmax(-1).tolist()


class Tagger(nn.Module):
    """Items: word ids, tags, and the character ids of each token."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        size = job["char_hidden_size"]
        self.characters = Reader(
            {**job, "num_layers": 1, "bidirectional": True}, job["characters"], job["char_embedding_size"], size
        )  # fmt: skip
        self.reader = Reader(job, job["symbols"], job["embedding_size"], job["hidden_size"], 2 * size)
        self.dropout = nn.Dropout(job["dropout"])
        self.output = nn.Linear(job["hidden_size"] * (2 if job["bidirectional"] else 1), job["labels"])

    def logits(self, batch: Part) -> Tensor:
        spellings = {tuple(s) for _, _, characters in batch for s in characters}
        places = {s: i for i, s in enumerate(spellings)}
        _, (last, _) = self.characters([ids_of(list(s)) for s in spellings])
        rows = self.dropout(self.characters.last(last))
        extra = pad_sequence([rows[[places[tuple(s)] for s in characters]] for _, _, characters in batch], True)
        output, _ = self.reader([ids_of(ids) for ids, _, _ in batch], extra)
        return self.output(self.dropout(output))

    def loss(self, batch: Part) -> tuple[Tensor, int]:
        tags = pad_sequence([ids_of(tags) for _, tags, _ in batch], True, NONE)
        loss = functional.cross_entropy(self.logits(batch).flatten(0, 1), tags.flatten(), ignore_index=NONE)
        return loss, int((tags != NONE).sum())

    def predict(self, batch: Part) -> list[Any]:
        best = self.logits(batch).argmax(-1)
        return [best[row, : len(ids)].tolist() for row, (ids, _, _) in enumerate(batch)]


class Transducer(nn.Module):
    """Items: source ids, target ids, both closed by EOS (1). The zero vector begins a target."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        size, count = job["hidden_size"], 2 if job["bidirectional"] else 1
        self.encoder = Reader(job, job["symbols"], job["embedding_size"], size // count)
        self.embedding = nn.Embedding(job["labels"] + 1, job["embedding_size"], padding_idx=job["labels"])
        self.decoder = nn.LSTM(
            job["embedding_size"], size, job["num_layers"], batch_first=True,
            dropout=job["dropout"] if job["num_layers"] > 1 else 0.0,
        )  # fmt: skip
        self.attention = nn.Linear(2 * size, size) if job["attention"] else None
        self.dropout = nn.Dropout(job["dropout"])
        self.output = nn.Linear(size, job["labels"])
        self.begin, self.layers, self.count = job["labels"], job["num_layers"], count

    def encode(self, sources: list[list[int]]) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        memory, (h, c) = self.encoder([ids_of(ids) for ids in sources])
        lengths = torch.tensor([len(ids) for ids in sources])
        mask = torch.arange(memory.shape[1])[None] >= lengths[:, None]
        rows = len(sources)
        state = tuple(
            s.view(self.layers, self.count, rows, -1).transpose(1, 2).reshape(self.layers, rows, -1).contiguous()
            for s in (h, c)
        )  # fmt: skip
        return self.dropout(memory), mask, state  # type: ignore[return-value]

    def decode(self, inputs: Tensor, state: Any, memory: Tensor, mask: Tensor) -> tuple[Tensor, Any]:
        d, state = self.decoder(self.embedding(inputs), state)
        d = self.dropout(d)
        if self.attention is not None:
            scores = (d @ memory.transpose(1, 2)).masked_fill(mask[:, None], -math.inf)
            d = torch.tanh(self.attention(torch.cat([scores.softmax(-1) @ memory, d], -1)))
        return self.output(d), state

    def loss(self, batch: Part) -> tuple[Tensor, int]:
        memory, mask, state = self.encode([source for source, _ in batch])
        targets = pad_sequence([ids_of(target) for _, target in batch], True, NONE)
        inputs = torch.cat([torch.full((len(batch), 1), self.begin), targets[:, :-1]], 1)
        inputs[inputs == NONE] = self.begin
        logits, _ = self.decode(inputs, state, memory, mask)
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NONE)
        return loss, int((targets != NONE).sum())

    def predict(self, batch: Part) -> list[Any]:
        memory, mask, state = self.encode([source for source, _ in batch])
        tokens = torch.full((len(batch), 1), self.begin)
        made: list[list[int]] = [[] for _ in batch]
        ended = [False] * len(batch)
        for _ in range(2 * max(len(source) for source, _ in batch) + 20):
            logits, state = self.decode(tokens, state, memory, mask)
            logits[..., 0] = -math.inf
            tokens = logits[:, -1:].argmax(-1)
            for row, token in enumerate(tokens[:, 0].tolist()):
                ended[row] |= token == 1
                if not ended[row]:
                    made[row].append(token)
            if all(ended):
                break
        return made


KINDS = {"classify": Classifier, "tag": Tagger, "transduce": Transducer}


def batches(part: Part, rows: int, generator: np.random.Generator | None) -> list[list[int]]:
    """Numbers of items of like length; in random order if there is a generator."""
    lengths = np.array([max(len(side) for side in item if isinstance(side, list)) for item in part])
    if generator is not None:
        order = generator.permutation(len(part))
        order = order[np.argsort(lengths[order] // 2, kind="stable")]
    else:
        order = np.argsort(lengths, kind="stable")
    cut = [order[i : i + rows].tolist() for i in range(0, len(part), rows)]
    return cut if generator is None else [cut[i] for i in generator.permutation(len(cut))]


def train(job: Job) -> tuple[nn.Module, float, float]:
    torch.manual_seed(job["seed"])
    model = KINDS[job["task"]](job)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices}, {"params": vectors}], lr=job["lr"], betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )  # fmt: skip
    generator = np.random.default_rng(job["seed"])
    part, valid = job["train"], job["valid"]
    steps = -(-len(part) // job["batch_size"])
    total = steps * job["epochs"]
    every = max(total // VALIDATIONS, min(steps, 100))
    warmup = min(WARMUP, total // 20)
    best, kept, step = math.inf, None, 0
    begun = time.perf_counter()
    for _ in range(job["epochs"]):
        for numbers in batches(part, job["batch_size"], generator):
            model.train()
            done = step / total
            rate = job["lr"] * (FALL + (1 - FALL) * (1 + math.cos(math.pi * done)) / 2)
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / max(1, warmup))
            optimiser.zero_grad()
            loss, _ = model.loss([part[i] for i in numbers])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimiser.step()
            step += 1
            if valid and (step % every == 0 or step == total):
                model.eval()
                with torch.inference_mode():
                    found = [model.loss([valid[i] for i in batch]) for batch in batches(valid, ROWS, None)]
                nats = sum(float(loss) * count for loss, count in found) / sum(count for _, count in found)
                if nats < best:
                    best, kept = nats, {name: value.clone() for name, value in model.state_dict().items()}
    if kept is not None:
        model.load_state_dict(kept)
    return model, best, time.perf_counter() - begun


def main() -> None:
    job: Job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(THREADS)
    model, best, seconds = train(job)
    model.eval()
    found: list[Any] = [None] * len(job["test"])
    with torch.inference_mode():
        for numbers in batches(job["test"], ROWS, None):
            for number, one in zip(numbers, model.predict([job["test"][i] for i in numbers]), strict=True):
                found[number] = one
    parameters = sum(p.numel() for p in model.parameters())
    answer = {"found": found, "valid_nats": best, "seconds": seconds, "parameters": parameters}
    Path(sys.argv[2]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
