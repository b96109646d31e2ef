"""The real texts of tasks.py, from the folders in which they are published, as charlm reads them and as ids.

names/       one file a nationality, a surname a line (names-by-nationality of PyTorch's tutorials)
wnut17/      wnut17train.conll, emerging.dev.conll, emerging.test.annotated (WNUT 2017)
g2p/         fre_train.tsv, fre_dev.tsv, fre_test.tsv, and geo_, hin_ (SIGMORPHON 2020, task 1)
promoters.data    sign, sequence of DNA (UCI)
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import machine  # noqa: F401 (makes charlm the one of this tree)
import numpy as np

from charlm.text.buckets import Rows
from charlm.text.corpus import Corpus, load
from charlm.text.pairs import PairCorpus, load_pairs
from charlm.text.split import held_stratified
from charlm.text.tagged import TaggedCorpus, load_tagged
from charlm.text.tokenizer import Tokenizer

Part = list[Any]

HELD, SEED = Fraction(1, 10), 0


def write_names(folder: Path, out: Path) -> tuple[Path, Path]:
    """Lines of nationality<TAB>surname, a tenth of each nationality apart: the texts to train and to test on."""
    lines, numbers = [], []
    for number, path in enumerate(sorted(folder.glob("*.txt"))):
        for name in path.read_text("utf-8").splitlines():
            if name.strip():
                lines.append(f"{path.stem}\t{name.strip()}\n")
                numbers.append(number)
    held = held_stratified(np.array(numbers, np.int32), HELD, SEED)
    parts = []
    for name, wanted in (("names-train.tsv", False), ("names-test.tsv", True)):
        parts.append(out / name)
        parts[-1].write_text("".join(line for line, is_held in zip(lines, held, strict=True) if is_held == wanted))
    return parts[0], parts[1]


def promoters(path: Path) -> list[str]:
    """Lines of sign<TAB>sequence."""
    rows = (
        line.replace(" ", "").replace("\t", "").strip().split(",") for line in path.read_text().splitlines() if line
    )
    return [f"{row[0]}\t{row[-1]}\n" for row in rows]


def _cut(rows: Rows) -> Part:
    return [part.tolist() for part in np.split(rows.ids, rows.ends[:-1])]


def labelled_ids(train: Path, valid: Path) -> tuple[Part, Part, dict[str, int]]:
    """Items of both texts as tasks_peer.py has them, and the sizes."""
    first, second = load([str(train)], Tokenizer(), labelled=True, valid_paths=[str(valid)])

    def items(corpus: Corpus | None) -> Part:
        assert corpus is not None
        assert corpus.label_ids is not None
        return list(zip(_cut(Rows.of_stream(corpus.tokens)), corpus.label_ids.tolist(), strict=True))

    assert first.labels is not None
    return items(first), items(second), {"symbols": first.vocabulary.size, "labels": first.labels.size}


def tagged_ids(train: Path, *others: Path) -> tuple[list[Part], dict[str, int]]:
    """As `labelled_ids`: words, tags, and characters of each token."""
    tokenizer = Tokenizer("word")
    first, _ = load_tagged([str(train)], tokenizer, min_count=2)
    lexicon = first.lexicon

    def items(corpus: TaggedCorpus) -> Part:
        characters, word_ids = _cut(corpus.tokens.characters), corpus.tokens.word_ids
        return [
            (word_ids[sentence].tolist(), tags, [characters[i] for i in sentence])
            for sentence, tags in zip(_cut(corpus.tokens.rows), _cut(corpus.tags), strict=True)
        ]

    parts = [items(first)]
    for path in others:
        corpus, _ = load_tagged([str(path)], tokenizer, lexicon=lexicon, labels=first.labels)
        parts.append(items(corpus))
    sizes = {"symbols": lexicon.words.size, "characters": lexicon.characters.size, "labels": first.labels.size}
    return parts, sizes


def paired_ids(train: Path, *others: Path) -> tuple[list[Part], dict[str, int]]:
    """As `labelled_ids`: source and target."""
    tokenizers = Tokenizer(), Tokenizer("word")
    first, _ = load_pairs([str(train)], *tokenizers)

    def items(corpus: PairCorpus) -> Part:
        return list(zip(_cut(corpus.sources), _cut(corpus.targets), strict=True))

    parts = [items(first)]
    for path in others:
        corpus, _ = load_pairs([str(path)], *tokenizers, sides=(first.source, first.target))
        parts.append(items(corpus))
    return parts, {"symbols": first.source.vocabulary.size, "labels": first.target.vocabulary.size}
