"""What ``charlm info`` does: all that a model or a training state says of itself, as one object that JSON can hold.

Nothing here needs the engine, so that the answer comes at once. A file may be a stranger's: what its header does not
say, or says in another form than charlm writes, is None ("not recorded"), and never a failure.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from charlm import checkpoint
from charlm.checkpoint import Arrays
from charlm.units import nats_to_bits, perplexity
from charlm.workflows.task_names import task_of

Values = dict[str, Any]

FIRST_SYMBOLS = 24
STATE_PREFIX = "parameters/"  # of a training state's weights; the rest is the optimiser's
FLOW = ("characters", "label_embedding", "embedding", "encoder", "layer", "attention", "decoder", "output")
TENSORS = ("w_z", "w_x", "w", "w_h", "b", "w_p")
UNITS = {"classify": "label", "tag": "tag", "transduce": "token"}  # of predictions; a language model's is its level
LARGEST = 10**18  # of a number that anybody has measured
TIMES = ("step", "epoch", "tokens", "seconds", "train_nats", "valid_nats", "valid_error", "clipped")
STANDING = ("step", "epoch", "chunk", "tokens", "seconds", "lr", "rollbacks", "unimproved", "smoothed_nats")


def info(path: str) -> Values:
    """Describe a model, or a training state.

    Returns:
        file, size_bytes, kind ("model", "training-state"), charlm (the version that wrote it), schema, task, unit (of
        what is predicted), model (its sizes), parameters, texts (how each side is cut, and its vocabulary), labels,
        training (its options), corpus, sessions, history (a record a validation), best, standing (of a state).

    Raises:
        CheckpointError: the file cannot be read, is damaged, or of an unknown task.
    """
    loaded = checkpoint.load(path, kind=None)
    header = loaded.header
    task, is_state = task_of(header, path), header["kind"] == "training-state"
    texts, history = _texts(header), _history(header)
    unit = UNITS.get(task) or (texts[0]["level"] if texts else None)
    return {
        "file": path,
        "size_bytes": os.path.getsize(path),
        "kind": header["kind"],
        "charlm": header["charlm"],
        "schema": header["schema"],
        "task": task,
        "unit": unit,
        "model": _plain(header.get("model")),
        "parameters": parameters(loaded.arrays, STATE_PREFIX if is_state else ""),
        "texts": texts,
        "labels": _first(header.get("labels")),
        "training": _plain(header.get("training")),
        "corpus": _corpus(header),
        "sessions": _sessions(header),
        "history": history,
        "best": _best(history, unit),
        "standing": _standing(header) if is_state else None,
    }


# ---- weights ----


def parameters(arrays: Arrays, prefix: str) -> Values:
    """What is learnt, by layer.

    Args:
        arrays: those of a checkpoint.
        prefix: what the names of the weights begin with.

    Returns:
        count, size_bytes, dtype; sha256 of names, shapes, dtypes and numbers, which is equal where the bits are; and
        layers, in the order in which a token meets them: name, count, and tensors: name (empty if the layer is
        nothing else), shape, count.
    """
    weights = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name].astype(weights[name].dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {array.dtype.name} {list(array.shape)}\n".encode())
        digest.update(array.reshape(-1).view("uint8").data)
    layers: dict[str, Values] = {}
    for path in sorted(weights, key=_place):
        name, _, tensor = path.rpartition("/")
        if not name:
            name, tensor = path, ""
        layer = layers.setdefault(name, {"name": name, "count": 0, "tensors": []})
        layer["count"] += weights[path].size
        layer["tensors"].append({"name": tensor, "shape": list(weights[path].shape), "count": weights[path].size})
    dtypes = sorted({array.dtype.name for array in weights.values()})
    return {
        "count": sum(array.size for array in weights.values()),
        "size_bytes": sum(array.nbytes for array in weights.values()),
        "dtype": ", ".join(dtypes),
        "sha256": digest.hexdigest(),
        "layers": list(layers.values()),
    }


def _place(path: str) -> tuple[int, list[tuple[int, str]], int, str]:
    """Sorts paths as a token meets them: layers by number, of a layer the input's matrix first, the vectors last."""
    layer, _, tensor = path.rpartition("/")
    first = re.sub(r"\d+$", "", path.split("/")[0])
    numbered = [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d{1,9})", layer)]
    return (
        FLOW.index(first) if first in FLOW else len(FLOW),
        numbered,
        TENSORS.index(tensor) if tensor in TENSORS else len(TENSORS),
        tensor,
    )


# ---- what the header says ----


def number(values: object, name: str) -> Any:
    """A number that stands under a name, finite and no larger than any that is meant; else None."""
    value = values.get(name) if isinstance(values, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        return None
    return value


def _text(values: object, name: str) -> str | None:
    value = values.get(name) if isinstance(values, Mapping) else None
    return value if isinstance(value, str) else None


def _plain(values: object) -> Values | None:
    """The texts, numbers and truths of an object, without what is nested in it."""
    if not isinstance(values, Mapping):
        return None
    kept = {name: value for name, value in values.items() if value is None or isinstance(value, (str, bool))}
    kept |= {name: number(values, name) for name in values if number(values, name) is not None}
    return {name: kept[name] for name in values if name in kept}


def _objects(values: object) -> list[Mapping[str, Any]] | None:
    """The objects of a list; None if it is no list."""
    return [one for one in values if isinstance(one, Mapping)] if isinstance(values, list) else None


def _first(names: object) -> Values | None:
    """How many names there are, and the first of them."""
    if not isinstance(names, list):
        return None
    return {"count": len(names), "first": [name for name in names[:FIRST_SYMBOLS] if isinstance(name, str)]}


def _texts(header: Values) -> list[Values]:
    """How each side is cut, and its vocabulary."""
    sides = {"": "text", "target_": "target"}
    if "target_vocabulary" in header:
        sides[""] = "source"
    found = []
    for key, side in sides.items():
        tokenizer, vocabulary = header.get(f"{key}tokenizer"), _first(header.get(f"{key}vocabulary"))
        if vocabulary is None or not isinstance(tokenizer, Mapping):
            continue
        one: Values = {"side": side}
        one |= {name: _text(tokenizer, name) for name in ("level", "sequence", "normalize")}
        found.append(one | {"lowercase": tokenizer.get("lowercase") is True, "vocabulary": vocabulary})
    if found and "characters" in header:
        found[0]["characters"] = _first(header["characters"])
    return found


def _corpus(header: Values) -> Values | None:
    """What was read: its digests, its files, its counts, and what was held out."""
    corpus = header.get("corpus")
    if not isinstance(corpus, Mapping):
        return None
    counts = {name: number(corpus, name) for name in corpus if number(corpus, name) is not None}
    names = corpus.get("names")
    return {
        "sha256": _text(corpus, "sha256"),
        "valid_sha256": _text(corpus, "valid_sha256"),
        "names": [name for name in names if isinstance(name, str)] if isinstance(names, list) else None,
        "files": _files(corpus.get("files")),
        "valid_files": _files(corpus.get("valid_files")),
        "valid_frac": number(header.get("text"), "valid_frac"),
        "counts": counts,
    }


def _files(values: object) -> list[Values] | None:
    files = _objects(values)
    if files is None:
        return None
    return [
        {"name": _text(f, "name"), "size_bytes": number(f, "size_bytes"), "sha256": _text(f, "sha256")} for f in files
    ]


def _sessions(header: Values) -> list[Values]:
    """The calls of ``charlm train``; of an older file the last one's command."""
    sessions = _objects(header.get("sessions"))
    if sessions is None:
        sessions = [{"command": header.get("command")}]
    return [
        {
            "from_step": number(session, "from_step"),
            "command": _text(session, "command"),
            "charlm": _text(session, "charlm"),
            "host": _host(session.get("host")),
        }
        for session in sessions
    ]


def _host(values: object) -> Values | None:
    host = _plain(values)
    if host is not None and isinstance(values, Mapping) and isinstance(values.get("features"), list):
        host["features"] = [feature for feature in values["features"] if isinstance(feature, str)]
    return host


# ---- how it went ----


def _history(header: Values) -> list[Values]:
    return [{name: number(one, name) for name in TIMES} for one in _objects(header.get("history")) or []]


def judged(validation: Mapping[str, Any]) -> float | None:
    """The loss of a validation by which models are compared: of the training, where nothing was held out."""
    valid_nats: float | None = validation["valid_nats"]
    return validation["train_nats"] if valid_nats is None else valid_nats


def _best(history: Iterable[Values], unit: str | None) -> Values | None:
    """The validation of the model that was kept: the one of the least error, and of those the least loss."""
    known = [one for one in history if judged(one) is not None]
    if not known:
        return None
    best = min(known, key=lambda one: (one["valid_error"] or 0.0, judged(one) or 0.0))
    nats = judged(best) or 0.0
    shown = perplexity(nats)
    return {
        "step": best["step"],
        "epoch": best["epoch"],
        "judged_on": "training" if best["valid_nats"] is None else "validation",
        "unit": unit,
        "nats_per_unit": nats,
        "bits_per_unit": nats_to_bits(nats),
        "perplexity_per_unit": shown if math.isfinite(shown) else None,
        "error": best["valid_error"],
    }


def _standing(header: Values) -> Values:
    """Where a training stands."""
    progress = header.get("progress")
    return {"finished": header.get("finished") is True} | {name: number(progress, name) for name in STANDING}
