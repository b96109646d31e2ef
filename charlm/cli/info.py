"""``charlm info``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import click

from charlm.cli.output import Output, can_show, on_one_line, quoted, terminal_width
from charlm.wording import counted

EPILOG = """\b
Examples:
  charlm info names.npz                          what it is and how good
  charlm info names.resume.npz                   where its training stands
  charlm info names.npz --json                   the same for programs
  charlm info names.npz --json | jq -r .parameters.sha256

The whole file is read, and each checksum compared. Whether the sizes in it fit each other is found out by what uses the
model. A model's history ends with the validation after which it was saved; that of the
training state beside it goes on.

Two models whose parameters have the same SHA-256 have the same bits. The SHA-256 of an input is that of its bytes,
which sha256sum prints too (of a .gz: unpacked); that of the text is of all inputs in order.

--json prints one object: file, size_bytes, kind, charlm (the version that wrote it), schema, task, unit (of what is
predicted), model (its sizes), parameters (count, size_bytes, dtype, sha256, layers), texts (how each is cut, and its
vocabulary), labels, training (its options, the seed among them), corpus (sha256, files, counts), sessions (command,
version and host of each call of train), history (a record a validation, nats a unit), best (nats_per_unit,
bits_per_unit, perplexity_per_unit; error from 0 to 1) and standing (of a training state). What a file does not say is
null.
"""

GAP = 13  # columns of a heading
LONGEST = 1000  # characters of what is shown of a command, a name, a symbol's list
SHOWN_FILES, SHOWN_SESSIONS, SHOWN_LAYERS = 4, 4, 100
UNKNOWN = "not recorded"
ALL = "--json lists all"
COUNTS = ("sequences", "sentences", "pairs", "tokens", "source_tokens", "target_tokens", "unknowns")
VERSIONS = ("python", "numpy", "numba", "llvmlite")
PLACE = ("processor", "machine", "system", "libc")


@click.command(epilog=EPILOG)
@click.argument("model", metavar="MODEL")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def info(model: str, as_json: bool) -> None:
    """Say what a model is, and how it was made.

    MODEL is a file that train wrote: a model, or the training state beside it (MODEL.resume.npz).
    """
    from charlm.workflows.info import info as describe

    found = describe(model)
    output = Output()
    if as_json:
        output.write(json.dumps(found) + "\n")
        output.finish()
        return
    output.write("\n".join(_Report(found, terminal_width()).lines()) + "\n")
    output.finish()


class _Report:
    """What was found, as lines of text for a terminal: what it is on top, how good it is at the end."""

    def __init__(self, found: dict[str, Any], width: int) -> None:
        self.found, self.width = found, width

    def lines(self) -> Iterator[str]:
        yield from self._head()
        yield ""
        yield from self._layers()
        yield ""
        yield from self._weights()
        yield from self._texts()
        yield from self._corpus()
        yield from self._training()
        yield from self._made()
        yield ""
        yield from self._chart()
        yield from self._outcome()

    def _field(self, heading: str, *texts: str) -> Iterator[str]:
        """A heading, and beside it each text, wrapped; nothing in them moves the cursor."""
        for text in texts:
            line = ""
            shown = on_one_line(text)
            shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]} ... ({ALL})"
            for word in shown.split(" "):
                if line and GAP + len(line) + 1 + len(word) > self.width:
                    yield f"{heading:{GAP}}{line}"
                    heading, line = "", word
                else:
                    line = f"{line} {word}" if line else word
            yield f"{heading:{GAP}}{line}".rstrip()
            heading = ""

    def _head(self) -> Iterator[str]:
        from charlm.workflows.task_names import NOUNS

        found, model = self.found, self.found["model"] or {}
        noun = NOUNS[found["task"]]
        if found["kind"] == "training-state":
            noun = f"the training of {noun}"
        if found["task"] == "lm" and found["unit"]:
            noun += f" of {'characters' if found['unit'] == 'char' else found['unit'] + 's'}"
        sizes = " ".join(str(model[name]) for name in ("cell", "num_layers", "hidden_size") if name in model)
        sizes = f", {model['cell']} {model['num_layers']} x {model['hidden_size']}" if sizes.count(" ") == 2 else ""
        line = f"{found['file']}: {noun}{sizes}, {found['parameters']['count']:,} parameters"
        yield from textwrap.wrap(
            on_one_line(line)[:LONGEST], self.width, break_long_words=False, break_on_hyphens=False
        )
        yield from self._field("model", _options(found["model"]))

    def _layers(self) -> Iterator[str]:
        from charlm.evaluation.table import align

        layers = self.found["parameters"]["layers"]
        rows = [["layer", "tensors", "parameters"]]
        room = self.width - len("  ") * 3 - len(rows[0][-1]) - max([len(layer["name"]) for layer in layers] or [0])
        for layer in layers[:SHOWN_LAYERS]:
            first, *more = _folded([_tensor(tensor) for tensor in layer["tensors"]], room)
            rows.append([layer["name"], first, f"{layer['count']:,}"])
            rows += [["", line, ""] for line in more]
        if len(layers) > SHOWN_LAYERS:
            rows.append(["", f"and {len(layers) - SHOWN_LAYERS:,} more; {ALL}", ""])
        yield from (f"  {line}" for line in align(rows, left=2).splitlines())

    def _weights(self) -> Iterator[str]:
        weights = self.found["parameters"]
        yield from self._field(
            "parameters", f"{weights['count']:,} of {weights['dtype']}, {_size(weights['size_bytes'])}"
        )  # fmt: skip
        yield from self._field("SHA-256", weights["sha256"])

    def _texts(self) -> Iterator[str]:
        for text in self.found["texts"]:
            cut = [f"a token is a {text['level']}, a sequence a {text['sequence']}"]
            cut += [f"normal form {str(text['normalize']).upper()}", *["lower case"] * text["lowercase"]]
            yield from self._field(text["side"], ", ".join(cut))
            yield from self._field("vocabulary", _symbols(text["vocabulary"]))
            if text.get("characters"):
                yield from self._field("characters", _symbols(text["characters"]))
        labels = self.found["labels"]
        if labels:
            more = " ..." if labels["count"] > len(labels["first"]) else ""
            yield from self._field("labels", f"{labels['count']:,}: {', '.join(labels['first'])}{more}")

    def _corpus(self) -> Iterator[str]:
        corpus = self.found["corpus"]
        if corpus is None:
            yield from self._field("corpus", UNKNOWN)
            return
        counts = [
            f"{corpus['counts'][name]:,} {name.replace('_', ' ')}" for name in COUNTS if corpus["counts"].get(name)
        ]
        if corpus["valid_sha256"] is None:
            counts.append("nothing held out")
        elif corpus["valid_frac"]:
            counts.append(f"and {corpus['valid_frac']:.2g} of all held out")
        yield from self._field("corpus", ", ".join(counts))
        files, whole = corpus["files"], corpus["sha256"] or UNKNOWN
        if files is None:
            yield from self._field("", ", ".join(corpus["names"] or [UNKNOWN]))
            yield from self._field("SHA-256", whole)
            if corpus["valid_sha256"] not in (None, corpus["sha256"]):
                yield from self._field("validation", f"SHA-256 {corpus['valid_sha256']}")
            return
        yield from self._files("", files)
        if [file["sha256"] for file in files] != [corpus["sha256"]]:
            yield from self._field("of the text", whole)
        yield from self._files("validation", corpus["valid_files"] or [])

    def _training(self) -> Iterator[str]:
        options = self.found["training"]
        seed = "" if options is None or options.get("seed") is None else f"seed {options['seed']}, "
        others = options and {name: value for name, value in options.items() if name != "seed"}
        yield from self._field("training", f"{seed}{_options(others)}")

    def _files(self, heading: str, files: Sequence[dict[str, Any]]) -> Iterator[str]:
        for file in files[:SHOWN_FILES]:
            size = UNKNOWN if file["size_bytes"] is None else f"{file['size_bytes']:,} bytes"
            yield from self._field(heading, f"{file['name']}, {size}")
            yield from self._field("SHA-256", file["sha256"] or UNKNOWN)
            heading = ""
        if len(files) > SHOWN_FILES:
            yield from self._field("", f"and {len(files) - SHOWN_FILES:,} more; {ALL}")

    def _made(self) -> Iterator[str]:
        sessions = self.found["sessions"] or [{"command": None, "from_step": None, "charlm": None, "host": None}]
        if len(sessions) > SHOWN_SESSIONS:
            yield from self._field("sessions", f"{len(sessions):,}, here the last {SHOWN_SESSIONS}; {ALL}")
        for session in sessions[-SHOWN_SESSIONS:]:
            since = f"  (from step {session['from_step']:,})" if session["from_step"] else ""
            yield from self._field("command", (session["command"] or UNKNOWN) + since)
        last = sessions[-1]
        yield from self._field("made with", *_made_with(last["charlm"] or self.found["charlm"], last["host"] or {}))
        others = {json.dumps(session["host"]) for session in sessions}
        if len(others) > 1:
            yield from self._field("", f"before that, on other machines or with other settings; {ALL}")

    def _chart(self) -> Iterator[str]:
        """Validation and training loss over the epochs, if there are two validations."""
        from charlm.evaluation.chart import BLOCKS, Axis, panels

        history = [one for one in self.found["history"] if one["epoch"] is not None]
        curves = {
            name: [(one["epoch"], one[key]) for one in history if one[key] is not None]
            for name, key in (("validation", "valid_nats"), ("training", "train_nats"))
        }
        points = [point for curve in curves.values() for point in curve]
        low, high = (pick((loss for _, loss in points), default=0.0) for pick in (min, max))
        first, last = (pick((epoch for epoch, _ in points), default=0.0) for pick in (min, max))
        if first == last:
            return
        unit = on_one_line(self.found["unit"] or "unit")
        shown = {
            f"{name} loss, nats/{unit}: {curve[0][1]:.3f} at first, {curve[-1][1]:.3f} at last": sorted(curve)
            for name, curve in curves.items() if curve
        }  # fmt: skip
        up = Axis("", low, high if high > low else low + 1, label="{:.3f}".format)
        across = Axis(f"epochs, {counted(len(history), 'validation')}", first, last)
        yield from panels(shown, across, up, width=self.width, ascii_only=not can_show(BLOCKS)).splitlines()
        yield ""

    def _outcome(self) -> Iterator[str]:
        from charlm.cli.training_view import unit_of

        best, standing = self.found["best"], self.found["standing"]
        if best is None:
            yield from self._field("best", "not validated yet")
        else:
            shown = f"{best['judged_on']} {unit_of(best['unit'] or 'unit')(best['nats_per_unit'])}"
            shown += "" if best["error"] is None else f", error {best['error']:.2%}"
            shown += "" if best["epoch"] is None else f", after {best['epoch']:.1f} epochs"
            shown += "" if best["step"] is None else f", {counted(best['step'], 'step')}"
            yield from self._field("best", shown)
        if standing is not None:
            yield from self._standing(standing)

    def _standing(self, standing: dict[str, Any]) -> Iterator[str]:
        """Where a training stands, and how to go on with it."""
        step, epoch = standing["step"], standing["epoch"]
        where = [UNKNOWN if step is None else f"step {step:,}"]
        if epoch is not None:
            epochs = (self.found["training"] or {}).get("epochs")
            where.append(f"{epoch:,}{f' of {epochs:,}' if isinstance(epochs, int) else ''} epochs done")
        where.append("finished" if standing["finished"] else "not finished")
        yield from self._field("standing", ", ".join(where))
        if standing["finished"]:
            return
        from charlm.text.readers import STDIN, display_name

        corpus = self.found["corpus"] or {}
        names = corpus.get("names") or ["CORPUS"]
        words = ["charlm", "train", *(STDIN if name == display_name(STDIN) else name for name in names)]
        for file in corpus.get("valid_files") or []:
            words += ["--valid", file["name"] or "FILE"]
        state = self.found["file"]
        end = ".npz" if state.endswith(".npz") else ""
        words += ["-o", state.removesuffix(f".resume{end}") + end, "--resume"]
        yield from self._field("to go on", " ".join(map(quoted, words)))


def _made_with(version: str, host: dict[str, Any]) -> Iterator[str]:
    """The versions, the machine, and what the kernels were compiled for."""
    known = {name: value for name, value in host.items() if value not in (None, [])}
    yield ", ".join([f"charlm {version}", *(f"{name} {known[name]}" for name in VERSIONS if name in known)])
    place = [str(known[name]) for name in PLACE if name in known]
    place += [f"{known['threads']} threads of {known['cores']} cores"] if {"threads", "cores"} <= set(known) else []
    yield ", ".join(place) or f"host {UNKNOWN}"
    if {"cpu", "vector_bits"} <= set(known):
        features = known.get("features", "")
        shown = " ".join(features) if isinstance(features, list) else ""
        yield f"kernels for {known['cpu']} with vectors of {known['vector_bits']} bits; {shown}".rstrip("; ")


def _options(values: dict[str, Any] | None) -> str:
    """Names and values, as options are spelt; what is off, none or zero is left out."""
    if values is None:
        return UNKNOWN
    shown = ((name.replace("_", " "), value) for name, value in values.items() if value not in (None, False))
    return ", ".join(
        name if value is True else f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in shown
    )


def _symbols(names: dict[str, Any]) -> str:
    from charlm.text.visible import visible

    more = " ..." if names["count"] > len(names["first"]) else ""
    return f"{names['count']:,} symbols: {' '.join(map(visible, filter(None, names['first'])))}{more}"


def _tensor(tensor: dict[str, Any]) -> str:
    return f"{tensor['name']} {' x '.join(map(str, tensor['shape'])) or '1'}".strip()


def _folded(parts: Sequence[str], room: int) -> list[str]:
    """Parts in a row, on as many lines as it takes."""
    lines = [""]
    for part in parts:
        joined = f"{lines[-1]}, {part}" if lines[-1] else part
        if len(joined) > room and lines[-1]:
            lines[-1] += ","
            lines.append(part)
        else:
            lines[-1] = joined
    return lines


def _size(size_bytes: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"
