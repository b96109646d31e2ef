"""Runs networks that read whole sequences on small problems, next to the reference, and compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.engine.threads import Team
from charlm.models.classifier import Classifier, ClassifierConfig
from charlm.models.sequences import Dropout, Sequences
from charlm.models.tagger import Tagger, TaggerConfig
from charlm.text.buckets import Rows
from charlm.text.tagged import Tokens
from charlm.training.collections import sentences, sequences
from tests.gradient_check import Known, check
from tests.reference import directions

Array = NDArray[Any]

FORWARD_TOLERANCE, GRADIENT_TOLERANCE = 1e-12, 1e-9
THRESHOLD = 77  # of dropout

# All different.
V, E, H, LABELS = 9, 5, 4, 3
CHARACTERS, CHAR_E, CHAR_H = 8, 3, 2
LENGTHS = (3, 1, 6, 0, 4, 2)


def draw_parameters(model: Any, seed: int = 5) -> None:
    """Weights of the order of 1, biases too: at zero, swapped ones would not be seen."""
    model.parameters.flat[...] = 0
    rng = np.random.default_rng(seed)
    for view in model.parameters.values():
        view[...] = 0.6 * rng.standard_normal(view.shape)
    model.changed()


def rows_of(lengths: Sequence[int], symbols: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    return Rows.of_sequences([rng.integers(0, symbols, length).astype(np.int32) for length in lengths])


def cut(rows: Rows) -> list[NDArray[np.int32]]:
    return np.split(rows.ids, rows.ends[:-1])


def factors_of(dropout: Dropout | None, row: int, length: int) -> directions.Factors | None:
    """What a row's outputs are multiplied by, as the reference takes it."""
    if dropout is None:
        return None
    keep = 256 / (256 - dropout.threshold)

    def own(draws: Array) -> Array:
        draws = np.broadcast_to(draws, (max(length, len(draws)), *draws.shape[1:])) if len(draws) == 1 else draws
        return np.where(draws[len(draws) - length :, row] >= dropout.threshold, keep, 0.0)

    return [[own(draws) for draws in pair] for pair in dropout.draws]


@dataclass(frozen=True)
class ClassifyProblem:
    """Sequences and their labels."""

    config: ClassifierConfig
    rows: Rows
    labels: NDArray[np.int32]
    dropout: str = ""  # "each", "variational"

    def model(self, team: Team | None = None) -> Classifier:
        model = Classifier(self.config, team, np.float64)
        draw_parameters(model)
        return model

    def batch(self, numbers: Sequence[int] | None = None) -> Sequences:
        chosen = np.arange(self.labels.size) if numbers is None else np.array(numbers)
        return sequences(self.rows, chosen, self.config.vocabulary_size)

    def draw(self, model: Any) -> Any:
        if not self.dropout:
            return None
        generator = np.random.default_rng(3)
        return model.draw_dropout(generator, self.batch(), THRESHOLD, variational=self.dropout == "variational")

    @property
    def kind(self) -> directions.Kind:
        config = self.config
        return directions.Kind(config.cell, config.activation, config.num_layers, config.directions)

    def reference_log_probs(self, parameters: Mapping[str, Array], dropout: Dropout | None = None) -> Array:
        return np.stack(
            [
                directions.classify(parameters, ids, self.kind, factors_of(dropout, row, len(ids)))
                for row, ids in enumerate(cut(self.rows))
            ]
        )

    def reference_loss(self, parameters: Mapping[str, Array], dropout: Dropout | None = None) -> complex:
        log_probs = self.reference_log_probs(parameters, dropout)
        return complex(-log_probs[np.arange(self.labels.size), self.labels].sum())


def classify_problem(
    cell: str = "lstm",
    activation: str = "tanh",
    layers: int = 1,
    *,
    bidirectional: bool = True,
    dropout: str = "",
    lengths: Sequence[int] = LENGTHS,
) -> ClassifyProblem:
    config = ClassifierConfig(V, E, H, layers, cell, activation, bidirectional, labels=LABELS)
    labels = np.array([0, 2, 1, 1, 2, 0], np.int32)[: len(lengths)]
    return ClassifyProblem(config, rows_of(lengths, V, 1), labels, dropout)


def check_classifier(problem: ClassifyProblem, probes: int | None = 12, known: Known | None = None) -> None:
    """Compare loss, log probabilities and all gradients with the reference; ``known`` as in `gradient_check.check`."""
    model = problem.model()
    parameters = {path: view.copy() for path, view in model.parameters.items()}
    found = model.log_probs(problem.batch())
    np.testing.assert_allclose(found, problem.reference_log_probs(parameters), rtol=0, atol=FORWARD_TOLERANCE)
    dropout = problem.draw(model)
    loss_nats = model.loss_and_gradients(problem.batch(), problem.labels, dropout, scale=1.0)
    reference = problem.reference_loss(parameters, dropout)
    np.testing.assert_allclose(loss_nats, reference.real, rtol=FORWARD_TOLERANCE)
    check(
        dict(model.gradients), lambda arrays: problem.reference_loss(arrays, dropout), parameters,
        GRADIENT_TOLERANCE, probes, known=known,
    )  # fmt: skip


@dataclass(frozen=True)
class TagProblem:
    """Sentences and their tags. Two spellings share a word, one occurs thrice, and one has no character left."""

    config: TaggerConfig
    tokens: Tokens
    tags: Rows
    dropout: str = ""

    def model(self, team: Team | None = None) -> Tagger:
        model = Tagger(self.config, team, np.float64)
        draw_parameters(model)
        return model

    def batch(self, numbers: Sequence[int] | None = None) -> Any:
        chosen = np.arange(self.tags.lengths.size) if numbers is None else np.array(numbers)
        return sentences(self.tokens, chosen, self.config.char_features)

    def tag_rows(self, numbers: Sequence[int] | None = None) -> NDArray[np.int32]:
        chosen = np.arange(self.tags.lengths.size) if numbers is None else np.array(numbers)
        return self.tags.padded(chosen, -1, at_end=True)

    def draw(self, model: Tagger) -> Any:
        if not self.dropout:
            return None
        generator = np.random.default_rng(3)
        return model.draw_dropout(generator, self.batch(), THRESHOLD, variational=self.dropout == "variational")

    @property
    def kind(self) -> directions.Kind:
        config = self.config
        return directions.Kind(config.cell, config.activation, config.num_layers, config.network.directions)

    def reference_log_probs(self, parameters: Mapping[str, Array], dropout: Any = None) -> list[Array]:
        characters = cut(self.tokens.characters)
        result = []
        for row, sentence in enumerate(cut(self.tokens.rows)):
            of_words = of_characters = None
            if dropout is not None:
                of_words = factors_of(dropout.words, row, len(sentence))
                if dropout.characters is not None:
                    of_characters = [factors_of(dropout.characters, i, len(characters[i])) for i in sentence]
            result.append(
                directions.tag(
                    parameters, self.tokens.word_ids[sentence], [characters[i] for i in sentence], self.kind,
                    of_words, of_characters,
                )
            )  # fmt: skip
        return result

    def reference_loss(self, parameters: Mapping[str, Array], dropout: Any = None) -> complex:
        total = 0.0 + 0.0j
        for log_probs, tags in zip(self.reference_log_probs(parameters, dropout), cut(self.tags), strict=True):
            known = np.flatnonzero(tags >= 0)
            total -= log_probs[known, tags[known]].sum()
        return total


def tag_problem(
    cell: str = "lstm",
    activation: str = "tanh",
    layers: int = 1,
    *,
    bidirectional: bool = True,
    characters: bool = True,
    dropout: str = "",
) -> TagProblem:
    config = TaggerConfig(
        V, E, H, LABELS, layers, cell, activation, bidirectional, CHARACTERS if characters else 0, CHAR_E, CHAR_H
    )
    spelling_lengths = (2, 5, 0, 3)
    rows = Rows.of_sequences([np.array(ids, np.int32) for ids in ([0, 1, 0], [2], [], [3, 0, 2, 1])])
    word_ids = np.array([4, 0, 0, 7], np.int32)
    tags = [np.array(ids, np.int32) for ids in ([0, 2, 1], [1], [], [2, -1, 0, 0])]
    return TagProblem(
        config, Tokens(rows, word_ids, rows_of(spelling_lengths, CHARACTERS, 4)), Rows.of_sequences(tags), dropout
    )


def check_tagger(problem: TagProblem, probes: int | None = 12, known: Known | None = None) -> None:
    """Compare loss, log probabilities and all gradients with the reference; ``known`` as in `gradient_check.check`."""
    model = problem.model()
    parameters = {path: view.copy() for path, view in model.parameters.items()}
    found = model.log_probs(problem.batch())
    for row, expected in enumerate(problem.reference_log_probs(parameters)):
        np.testing.assert_allclose(
            found[len(found) - len(expected) :, row], expected, rtol=0, atol=FORWARD_TOLERANCE
        )  # fmt: skip
    dropout = problem.draw(model)
    loss_nats = model.loss_and_gradients(problem.batch(), problem.tag_rows(), dropout, scale=1.0)
    reference = problem.reference_loss(parameters, dropout)
    np.testing.assert_allclose(loss_nats, reference.real, rtol=FORWARD_TOLERANCE)
    check(
        dict(model.gradients), lambda arrays: problem.reference_loss(arrays, dropout), parameters,
        GRADIENT_TOLERANCE, probes, known=known,
    )  # fmt: skip
