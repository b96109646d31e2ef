"""The records of a training's validations: of a long training's older ones fewer, or they would outgrow its files."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]  # see `Trainer`

MOST_RECORDS = 1000


def thinned(records: list[Record], best_step: int) -> list[Record]:
    """The records themselves, or if there are too many, about half of them: each second is joined to the one after it.

    What a record tells of the time since the one before, it then tells of both. The best and the last stay as they are.

    Args:
        records: in their order.
        best_step: of the best.
    """
    if len(records) <= MOST_RECORDS:
        return records
    kept: list[Record] = []
    waiting: Record | None = None
    for record in records:
        if record["step"] == best_step or record is records[-1]:
            kept += [record] if waiting is None else [waiting, record]
            waiting = None
        elif waiting is None:
            waiting = record
        else:
            kept.append(_joined(kept[-1] if kept else None, waiting, record))
            waiting = None
    return kept


def _joined(before: Record | None, first: Record, second: Record) -> Record:
    """The second record, which also tells of the time of the first."""

    def mean(name: str, weight: str) -> float:
        begin = 0 if before is None else before[weight]
        whole, part = second[weight] - begin, first[weight] - begin
        return float((first[name] * part + second[name] * (whole - part)) / whole)

    return second | {"train_nats": mean("train_nats", "tokens"), "clipped": round(mean("clipped", "step"), 4)}
