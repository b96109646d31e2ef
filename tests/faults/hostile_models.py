"""Models that are right in themselves, but of sizes, symbols and numbers that no training makes."""

from __future__ import annotations

import random

import numpy as np

from charlm.workflows.trained import CONFIGS
from tests.faults.hostile_archive import Archive

SIZES = (1, 2, 3, 5, 8, 16, 17, 33)
LAYERS = (1, 1, 2, 3, 9)
COUNTS = (2, 3, 4, 5, 6, 11, 40, 300)


def _symbols(draw: random.Random, level: str) -> list[str]:
    count = draw.choice(COUNTS) - 2
    first = draw.choice([0x61, 0x4E00]) if level != "byte" else 0x20
    if level == "byte":
        count = min(count, 0x60)
    return ["<unk>", "<eos>", *(chr(first + i) for i in range(count))]


def consistent(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    """Another configuration, vocabulary and labels, and arrays of the shapes that these ask for."""
    archive = Archive.read(data)
    header, config = archive.header, archive.header["model"]
    task = header.get("task", "lm")
    for name in draw.sample(list(config), draw.randint(1, 3)):
        value = config[name]
        if isinstance(value, bool):
            config[name] = not value
        elif isinstance(value, int):
            config[name] = draw.choice(LAYERS if name == "num_layers" else SIZES)
    sizes = {"vocabulary": ["vocabulary_size", "source_size"], "target_vocabulary": ["target_size"],
             "characters": ["char_features"]}  # fmt: skip
    for key, names in sizes.items():
        if key not in header:
            continue
        if draw.randrange(2):
            level = header["target_tokenizer" if key == "target_vocabulary" else "tokenizer"]["level"]
            header[key] = _symbols(draw, level)
        for name in names:
            if name in config:
                config[name] = len(header[key])
    if "labels" in header:
        if draw.randrange(2):
            header["labels"] = [f"L{i}" for i in range(draw.choice([1, 2, 3, 50, 2000]))]
        config["labels"] = len(header["labels"])
    if "label_counts" in header:
        header["label_counts"] = [draw.choice([0, 1, 2**53])] * (len(header["labels"]) - 1) + [1]
    if config.get("tie_weights"):
        config["embedding_size"] = config["hidden_size"]
    what = ", ".join(f"{name} {value}" for name, value in config.items())
    try:
        shapes = CONFIGS[task](header, "consistent").shapes()
    except Exception as error:
        return archive.write(), f"{what} ({type(error).__name__})"
    numbers = np.random.default_rng(draw.randrange(2**32))
    scale = draw.choice([0.0, 0.1, 1.0, 1.0, 100.0, 1e10])
    archive.arrays = {
        name: (scale * numbers.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()
    }
    archive.declare()
    return archive.write(), f"{what}, weights of {scale:g}"
