"""The targets of sources, by a transducer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charlm.errors import CheckpointError, UsageError
from charlm.evaluation.edits import EditScores, score_edits
from charlm.text.buckets import Buckets, Rows
from charlm.text.examples import read_pairs
from charlm.text.labels import SEPARATORS
from charlm.training.collections import sequences as sequence_batch
from charlm.training.sequence_task import EVALUATION_ROWS
from charlm.workflows.beams import Hypothesis
from charlm.workflows.finite import naming
from charlm.workflows.predictors.predictor import Evaluation, Predictor, nothing_to_evaluate, windows
from charlm.workflows.trained import Trained
from charlm.workflows.transduction import beam


@dataclass(frozen=True)
class Transduction:
    """Targets of a source, the likeliest first, and their log probabilities, EOS included."""

    source: str
    targets: list[str]
    log_probs_nats: list[float]


class TransducePredictor(Predictor):
    """Of a transducer.

    Args:
        beam: its width; 1 to take the likeliest token each time.
        n_best: how many targets to tell, at most the width.
    """

    def __init__(self, trained: Trained, beam: int | None = None, n_best: int = 1) -> None:
        super().__init__(trained)
        if beam is not None and n_best > beam:
            raise UsageError(f"--beam {beam} cannot give {n_best} targets; use --beam {n_best}")
        self._width, self._best = beam or n_best, n_best
        self._source = self.side()
        self._target = self.side("target_")
        if any(separator in symbol for symbol in self._target.vocabulary.symbols for separator in SEPARATORS):
            raise CheckpointError(f"{self.path}: a target's symbol holds a tab or a line break; use another copy")

    def _hypotheses(self, rows: Rows) -> list[list[Hypothesis]]:
        """Targets of each source, the likeliest first."""
        self.count(rows, int(rows.lengths.size))
        result: list[list[Hypothesis]] = [[]] * int(rows.lengths.size)
        for numbers in Buckets(rows.lengths, batch_size=EVALUATION_ROWS).once():
            sources = sequence_batch(rows, numbers, self._source.vocabulary.size)
            with naming(self.path):
                found = beam(self.model, sources, width=self._width, best=self._best)
            for number, hypotheses in zip(numbers.tolist(), found, strict=True):
                result[number] = hypotheses
        return result

    def predict(self, path: str) -> Iterator[list[Transduction]]:
        """The targets of each line of a text, a window at a time.

        Raises:
            InputError: the text is at fault; the lines before it have been given.
        """
        symbols, join = self._target.vocabulary.symbols, self._target.tokenizer.join
        for texts in self.texts(path, self._source):
            found = self._hypotheses(self._source.rows(texts))
            yield [
                Transduction(
                    text,
                    [join([symbols[i] for i in one.ids]) for one in hypotheses],
                    [one.log_prob_nats for one in hypotheses],
                )
                for text, hypotheses in zip(texts, found, strict=True)
            ]

    def evaluate(self, path: str) -> Evaluation:
        """Compare the likeliest targets with those of a text of ``source<TAB>target`` lines.

        Raises:
            InputError: the text is at fault.
        """
        pairs: list[tuple[Sequence[str], Sequence[str]]] = []
        symbols, tokens = self._target.vocabulary.symbols, self._target.tokenizer.tokens
        for window in windows(read_pairs(path)):
            found = self._hypotheses(self._source.rows(pair.source for pair in window))
            made = [[symbols[i] for i in hypotheses[0].ids] for hypotheses in found]
            pairs += zip(made, [tokens(pair.target) for pair in window], strict=True)
        if not pairs:
            raise nothing_to_evaluate(path)
        scores = score_edits(pairs)
        return Evaluation(
            self._table(scores),
            {
                "pairs": scores.sequences,
                "right": scores.exact,
                "sequence_accuracy": scores.sequence_accuracy,
                "edits": scores.edits,
                "tokens": scores.tokens,
                "token_error_rate": scores.token_error_rate,
            },
        )

    def _table(self, scores: EditScores) -> str:
        """For a person to read."""
        wrong = scores.sequences - scores.exact
        search = f"beam of {self._width}" if self._width > 1 else ""
        edits = f"of {scores.tokens:,} tokens; of pronunciations: phone error rate"
        rows = [
            ["pairs", f"{scores.sequences:,}", "", search],
            ["right", f"{scores.exact:,}", f"{scores.sequence_accuracy:.2%}", ""],
            ["wrong", f"{wrong:,}", f"{scores.sequence_error_rate:.2%}", "of pronunciations: word error rate"],
            ["edits", f"{scores.edits:,}", f"{scores.token_error_rate:.2%}", edits],
        ]
        width = max(len(row[1]) for row in rows)
        return "".join(f"{a}  {b:>{width}}  {c:>7}  {d}".rstrip() + "\n" for a, b, c, d in rows)
