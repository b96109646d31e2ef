"""What ``charlm predict`` does: the labels of texts, the tags of tokens, the targets of sources; or how good they are.

A window of the input at a time is in memory; output is in the order of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from charlm.errors import CheckpointError, UsageError
from charlm.workflows.predictors.labels import LabelPredictor
from charlm.workflows.predictors.predictor import Predictor
from charlm.workflows.predictors.tags import TagPredictor
from charlm.workflows.predictors.targets import TransducePredictor
from charlm.workflows.task_names import NOUNS, REMEDIES
from charlm.workflows.trained import Trained

PREDICTORS: dict[str, Callable[..., Predictor]] = {
    "classify": LabelPredictor,
    "tag": TagPredictor,
    "transduce": TransducePredictor,
}
ONLY_PREDICTING, ONLY_EVALUATING = ("top", "n_best"), ("tag_column",)
OPTIONS = {"classify": ("top",), "tag": ("token_column", "tag_column"), "transduce": ("beam", "n_best")}


def new_predictor(trained: Trained, given: Mapping[str, int | None], *, evaluates: bool) -> Any:
    """What predicts with a model.

    Args:
        evaluates: whether it is to compare with answers.
        given: the options of the command by their names, None for those that were not given.

    Raises:
        CheckpointError: the model is a language model.
        UsageError: an option is not for this kind of model.
    """
    if trained.task not in PREDICTORS:
        raise CheckpointError(f"{trained.path}: this is {NOUNS[trained.task]}: {REMEDIES[trained.task]}")
    chosen = {name: value for name, value in given.items() if value is not None}
    for name in chosen:
        option = f"--{name.replace('_', '-')}"
        if name not in OPTIONS[trained.task]:
            raise UsageError(f"{option}: {trained.path} is {NOUNS[trained.task]}; leave it out")
        if name in ONLY_PREDICTING and evaluates:
            raise UsageError(f"{option} says what to print of each text; leave it out, or --evaluate")
        if name in ONLY_EVALUATING and not evaluates:
            raise UsageError(f"{option} says where the answers are; leave it out, or add --evaluate")
    return PREDICTORS[trained.task](trained, **chosen)
