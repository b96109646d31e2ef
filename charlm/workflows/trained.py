"""Any model from its checkpoint, whatever its task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlm import checkpoint
from charlm.engine.threads import Team, available_cores
from charlm.errors import CheckpointError
from charlm.models.classifier import Classifier, ClassifierConfig
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.models.tagger import Tagger, TaggerConfig
from charlm.models.transducer import Transducer, TransducerConfig
from charlm.workflows.configs import read_config
from charlm.workflows.model_files import check_weights, model_config
from charlm.workflows.task_names import task_of
from charlm.workflows.text_side import lexicon, saved_labels, text_side

Header = dict[str, Any]


@dataclass
class Trained:
    """What a checkpoint holds; the model's type is its task's."""

    task: str
    model: Any
    header: Header
    path: str


def _language_model_config(header: Header, path: str | Path) -> LanguageModelConfig:
    return model_config(header, text_side(header, path)[0], path)


def _classifier_config(header: Header, path: str | Path) -> ClassifierConfig:
    vocabulary, labels = text_side(header, path)[0], saved_labels(header, path)
    return read_config(
        ClassifierConfig, header, path, {"vocabulary_size": vocabulary.size, "labels": labels.size}
    )  # fmt: skip


def _tagger_config(header: Header, path: str | Path) -> TaggerConfig:
    known, labels = lexicon(header, path), saved_labels(header, path)
    config = read_config(
        TaggerConfig, header, path, {"vocabulary_size": known.words.size, "labels": labels.size}
    )  # fmt: skip
    if config.char_features not in (0, known.characters.size):
        raise CheckpointError(f"{path}: its model configuration is not valid (characters); use another copy")
    return config


def _transducer_config(header: Header, path: str | Path) -> TransducerConfig:
    source, target = (text_side(header, path, key)[0].size for key in ("", "target_"))
    return read_config(TransducerConfig, header, path, {"source_size": source, "target_size": target})


CONFIGS: dict[str, Callable[[Header, str | Path], Any]] = {
    "lm": _language_model_config,
    "classify": _classifier_config,
    "tag": _tagger_config,
    "transduce": _transducer_config,
}
MODELS: dict[str, Callable[..., Any]] = {
    "lm": LanguageModel,
    "classify": Classifier,
    "tag": Tagger,
    "transduce": Transducer,
}


def load_trained(path: str | Path, threads: int | None = None) -> Trained:
    """Read and check a model.

    Args:
        threads: as many as the process has cores, if None.

    Raises:
        CheckpointError: the file cannot be used; the message says why and what to do.
    """
    loaded = checkpoint.load(path)
    task = task_of(loaded.header, path)
    config = CONFIGS[task](loaded.header, path)
    checkpoint.check_arrays(loaded.arrays, config.shapes(), path)
    check_weights(loaded.arrays, path)
    model = MODELS[task](config, Team(threads or available_cores()))
    model.parameters.assign(loaded.arrays)
    model.changed()
    return Trained(task, model, loaded.header, str(path))
