"""A language model and its text side, to and from one checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charlm import checkpoint
from charlm.engine.threads import Team, available_cores
from charlm.errors import CheckpointError
from charlm.models.language_model import LEAST_SYMBOLS, SOFTMAXES, LanguageModel, LanguageModelConfig
from charlm.text.labels import Labels
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import Vocabulary
from charlm.workflows.configs import read_config
from charlm.workflows.label_side import LabelSide
from charlm.workflows.task_names import require_language_model
from charlm.workflows.text_side import text_side

FIELDS_SINCE = {"softmax": "full", "labels": 0}  # what a model was before its header said so


@dataclass
class LoadedModel:
    """What a checkpoint holds, ready to use; ``label_side`` is None for a model that is not given a label."""

    model: LanguageModel
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    header: dict[str, Any]
    path: str
    label_side: LabelSide | None = None

    @property
    def labels(self) -> Labels | None:
        """The labels of which the model is given one, if it is."""
        return None if self.label_side is None else self.label_side.labels


def model_config(header: dict[str, Any], vocabulary: Vocabulary, path: str | Path) -> LanguageModelConfig:
    """The sizes of a checkpoint's model.

    Raises:
        CheckpointError: they are missing, malformed, out of bounds, or not those of the vocabulary or the labels.
    """
    config = read_config(
        LanguageModelConfig, header, path, {"vocabulary_size": vocabulary.size}, FIELDS_SINCE
    )  # fmt: skip
    damaged = f"{path}: its model configuration is not valid"
    side = LabelSide.from_header(header, path)
    named = 0 if side is None else side.labels.size
    if config.labels != named:
        raise CheckpointError(f"{damaged} (names of {named} labels, not {config.labels})")
    if config.softmax not in SOFTMAXES or (config.softmax == "adaptive" and config.tie_weights):
        raise CheckpointError(f"{damaged} (softmax {config.softmax!r:.40}); use another copy")
    if config.vocabulary_size < LEAST_SYMBOLS[config.softmax]:
        what = f"a vocabulary of {config.vocabulary_size} for a softmax of {LEAST_SYMBOLS[config.softmax]} or more"
        raise CheckpointError(f"{damaged} ({what}); use another copy")
    if config.tie_weights and config.embedding_size != config.hidden_size:
        raise CheckpointError(f"{damaged} (tied weights of different sizes); use another copy")
    return config


def check_weights(arrays: checkpoint.Arrays, path: str | Path) -> None:
    """CheckpointError unless all of a model's arrays are of the type that it is trained in.

    Kernels are compiled for the type of what they get: of integers they would make something, but no language model.
    """
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise CheckpointError(f"{path}: array {name!r} is of {array.dtype}, not float32; {checkpoint.REPLACE}")


def load_model(path: str | Path, threads: int | None = None) -> LoadedModel:
    """Read and check a model.

    Args:
        threads: as many as the process has cores, if None.

    Raises:
        CheckpointError: the file cannot be used; the message says why and what to do.
    """
    loaded = checkpoint.load(path)
    require_language_model(loaded.header, path)
    vocabulary, tokenizer = text_side(loaded.header, path)
    config = model_config(loaded.header, vocabulary, path)
    side = LabelSide.from_header(loaded.header, path)
    if side is not None and (tokenizer.sequence != "line" or tokenizer.level == "byte"):
        raise CheckpointError(f"{path}: labels of what is no line of characters or words; {checkpoint.REPLACE}")
    checkpoint.check_arrays(loaded.arrays, config.shapes(), path)
    check_weights(loaded.arrays, path)
    model = LanguageModel(config, Team(threads or available_cores()))
    model.parameters.assign(loaded.arrays)
    return LoadedModel(model, vocabulary, tokenizer, loaded.header, str(path), side)
