"""A small language model that is given a label, trained on ``label<TAB>text`` lines and written to disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from charlm import checkpoint
from charlm.engine import optimise
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.models.stack import Batch
from charlm.text.batches import Batches
from charlm.text.corpus import Corpus, load
from charlm.text.tokenizer import Tokenizer
from charlm.workflows.label_side import LabelSide


def write_conditioned_model(
    path: str | Path, text: str | Path, *, size: int = 32, epochs: int = 20, tokenizer: Tokenizer | None = None
) -> Corpus:
    """Train with AdamW and write to ``path``; returns the corpus, of which nothing was held out."""
    corpus, _ = load([str(text)], tokenizer or Tokenizer(), labelled=True)
    assert corpus.labels is not None
    symbols = corpus.vocabulary.size
    model = LanguageModel(LanguageModelConfig(symbols, size, size, cell="gru", labels=corpus.labels.size))
    model.initialise(np.random.default_rng(0))
    batches = Batches(
        corpus.tokens, vocabulary_size=symbols, streams=16, bptt=24, shuffle=True, seed=0,
        first_inputs=corpus.first_inputs,
    )  # fmt: skip
    zeros, flat = model.zero_state(batches.streams), model.parameters.flat
    mean, square, step = np.zeros_like(flat), np.zeros_like(flat), 0
    for epoch in range(epochs):
        state = zeros.copy()
        for chunk in batches.chunks(epoch):
            step += 1
            model.loss_and_gradients(Batch(chunk.inputs, state, zeros), chunk.targets)
            optimise.adamw(
                flat, model.gradients.flat, mean, square, step, 0.01, 0.9, 0.999, 1e-8, 0.0, 1.0, 0, flat.size
            )
    header = {
        "model": model.config.to_json(),
        "vocabulary": list(corpus.vocabulary.symbols),
        "tokenizer": corpus.tokenizer.to_json(),
        "corpus": {"unknowns": corpus.counts.unknowns},
    } | LabelSide(corpus.labels, corpus.label_counts).to_header()
    checkpoint.save(path, header, dict(model.parameters))
    return corpus
