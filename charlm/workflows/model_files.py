"""A language model and its text side, to and from one checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from charlm import checkpoint
from charlm.engine import cells
from charlm.engine.threads import Team, available_cores
from charlm.errors import CheckpointError
from charlm.models.language_model import SOFTMAXES, LanguageModel, LanguageModelConfig
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import Vocabulary
from charlm.workflows.text_side import text_side

LARGEST_SIZE = 1 << 20  # of a layer; beyond it a header is damaged or hostile


@dataclass
class LoadedModel:
    """What a checkpoint holds, ready to use."""

    model: LanguageModel
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    header: dict[str, Any]
    path: str


def model_config(header: dict[str, Any], vocabulary: Vocabulary, path: str | Path) -> LanguageModelConfig:
    """The sizes of a checkpoint's model.

    Raises:
        CheckpointError: they are missing, malformed, out of bounds, or not those of the vocabulary.
    """
    values: dict[str, Any] = {"softmax": "full"} | checkpoint.require(
        header, "model", dict, path
    )  # the only kind before 0.2
    damaged = f"{path}: its model configuration is not valid"
    names = {field.name: field for field in fields(LanguageModelConfig)}
    if set(values) != set(names):
        raise CheckpointError(f"{damaged} (fields {', '.join(sorted(set(values) ^ set(names)))}); use another copy")
    kinds = {"int": int, "str": str, "bool": bool}
    for name, field in names.items():
        value = values[name]
        if type(value) is not kinds[str(field.type)] or (type(value) is int and not 0 < value <= LARGEST_SIZE):
            raise CheckpointError(f"{damaged} ({name} is {value!r:.40}); use another copy")
    config = LanguageModelConfig(**values)
    if config.cell not in cells.names():
        raise CheckpointError(f"{damaged} (cell {config.cell!r:.40} is not one of {', '.join(cells.names())})")
    if config.activation not in cells.find(config.cell).activations:
        raise CheckpointError(f"{damaged} (activation {config.activation!r:.40}); use another copy")
    if config.vocabulary_size != vocabulary.size:
        raise CheckpointError(f"{damaged} (vocabulary of {vocabulary.size}, not {config.vocabulary_size})")
    if config.softmax not in SOFTMAXES or (config.softmax == "adaptive" and config.tie_weights):
        raise CheckpointError(f"{damaged} (softmax {config.softmax!r:.40}); use another copy")
    if config.tie_weights and config.embedding_size != config.hidden_size:
        raise CheckpointError(f"{damaged} (tied weights of different sizes); use another copy")
    return config


def load_model(path: str | Path, threads: int | None = None) -> LoadedModel:
    """Read and check a model.

    Args:
        threads: as many as the process has cores, if None.

    Raises:
        CheckpointError: the file cannot be used; the message says why and what to do.
    """
    loaded = checkpoint.load(path)
    vocabulary, tokenizer = text_side(loaded.header, path)
    config = model_config(loaded.header, vocabulary, path)
    checkpoint.check_arrays(loaded.arrays, config.shapes(), path)
    model = LanguageModel(config, Team(threads or available_cores()), loaded.arrays["embedding"].dtype)
    model.parameters.assign(loaded.arrays)
    return LoadedModel(model, vocabulary, tokenizer, loaded.header, str(path))
