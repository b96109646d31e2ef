"""Language models for tests: one whose probabilities are known, and tiny real ones on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charlm import checkpoint
from charlm.engine import decode
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.text.labels import Labels
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import SPECIAL, Vocabulary
from charlm.workflows.label_side import LabelSide

Ids = NDArray[np.int32]
Array = NDArray[Any]


class StubModel:
    """A table of probabilities behind the interface of ``LanguageModel``.

    Args:
        table: (V + 1, V), the probabilities of the next token after each token, row V at a sequence's start. Or
            (V + 1, V + 1, V), given the token before the last one and the last one (V where there is none): then
            a state that went to the wrong row shows. The latter is [before, last]. A model that is given one of K
            labels has K rows more (on both axes), of which one stands in place of row V.
    """

    def __init__(self, table: ArrayLike) -> None:
        self.table = np.asarray(table, dtype=np.float64)
        self.size = self.table.shape[-1]  # V
        assert self.table.ndim in (2, 3)
        assert min(self.table.shape[:-1]) == max(self.table.shape[:-1]) > self.size
        assert np.allclose(self.table.sum(-1), 1)
        with np.errstate(divide="ignore"):
            self._log_table = np.log(self.table)
        self.steps = 0  # how many tokens it was asked about

    def zero_state(self, rows: int) -> Array:
        """The state before a sequence, (1, 1, rows, 1): the last token minus V, so zero where there is none."""
        return np.zeros((1, 1, rows, 1))

    def step(self, state: Array, tokens: Ids) -> tuple[Array, NDArray[np.float64]]:
        """The state after ``tokens`` (N,), and the next token's log probabilities (N, V)."""
        assert state.shape == (1, 1, tokens.size, 1)
        assert tokens.ndim == 1
        self.steps += tokens.size
        before = np.where(tokens >= self.size, tokens, state[0, 0, :, 0].astype(int) + self.size)
        index = (tokens,) if self.table.ndim == 2 else (before, tokens)
        return (tokens - self.size).astype(float).reshape(state.shape), self._log_table[index]

    def generate(
        self, state: Array, log_probs: Array, uniforms: Array, rule: decode.Rule, left: Array, before_end: Array
    ) -> tuple[tuple[Array, Array], tuple[Ids, Array]]:
        """As ``LanguageModel.generate``, with the engine's draws and this model's steps."""
        log_probs = log_probs.copy()
        tokens, nats = np.full(uniforms.shape, -1, np.int32), np.zeros(uniforms.shape)
        scratch, rows = (np.empty(log_probs.shape), np.empty(log_probs.shape, np.int32)), uniforms.shape[1]
        for t in range(uniforms.shape[0]):
            if not decode.choose(log_probs, uniforms[t], rule, left, before_end, tokens[t], nats[t], *scratch, 0, rows):
                break
            going = np.flatnonzero(left)
            state = state.copy()
            state[:, :, going], log_probs[going] = self.step(state[:, :, going], tokens[t, going])
        return (state, log_probs), (tokens, nats)

    def log_probs(self, inputs: Ids, targets: Ids, state: Array) -> NDArray[np.float64]:
        """The log probability of each target (T, N), 0 where it is -1; ``state`` is replaced by that at the end."""
        result = np.zeros(targets.shape)
        for t, (tokens, wanted) in enumerate(zip(inputs, targets, strict=True)):
            state[...], log_probs = self.step(state, tokens)
            rows = np.flatnonzero(wanted >= 0)
            result[t, rows] = log_probs[rows, wanted[rows]]
        return result


def vocabulary_of(symbols: Sequence[str]) -> Vocabulary:
    """The two special symbols, then these."""
    return Vocabulary((*SPECIAL, *symbols))


def write_tiny_model(
    path: str | Path,
    symbols: Sequence[str] = "abcdefghijklmnopqrstuvwxyz",
    tokenizer: Tokenizer | None = None,
    *,
    cell: str = "gru",
    size: int = 8,
    seed: int = 0,
    sharpness: float = 1.0,
    biases: dict[str, float] | None = None,
    labels: dict[str, int] | None = None,
) -> LanguageModel:
    """Write an untrained model of one layer to ``path``.

    Args:
        symbols: the vocabulary after the two special symbols.
        tokenizer: by default characters, a sequence a line.
        sharpness: what the output's weights are multiplied by; large makes some tokens far likelier than others.
        biases: added to the logits of these symbols, ``<unk>`` and ``<eos>`` among them.
        labels: those of which the model is given one, and how many training sequences had each.
    """
    vocabulary = vocabulary_of(symbols)
    model = LanguageModel(LanguageModelConfig(vocabulary.size, size, size, cell=cell, labels=len(labels or {})))
    model.initialise(np.random.default_rng(seed))
    model.parameters["output/w"][...] *= sharpness
    for symbol, bias in (biases or {}).items():
        model.parameters["output/b"][vocabulary.symbols.index(symbol)] += bias
    model.changed()
    header: dict[str, Any] = {
        "model": model.config.to_json(),
        "vocabulary": list(vocabulary.symbols),
        "tokenizer": (tokenizer or Tokenizer()).to_json(),
    }
    if labels:
        header |= LabelSide(Labels(tuple(labels)), tuple(labels.values())).to_header()
    arrays = {name: model.parameters[name] for name in model.config.shapes()}
    checkpoint.save(path, header, arrays)
    return model
