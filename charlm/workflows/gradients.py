"""What ``charlm gradients`` does: how fast the gradient of a step's loss falls, or grows, with the steps gone back.

Of models as they were trained, or of cells with fresh weights; averaged over tokens of a text, each after the tokens
that precede it there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from charlm.engine import cells
from charlm.engine.threads import Team, available_cores
from charlm.errors import InputError, UsageError
from charlm.evaluation.chart import Axis, Curves, log_axis, svg
from charlm.files import check_writable, replacing
from charlm.models.gradient_flow import Norms, gradient_norms
from charlm.models.language_model import LanguageModel, LanguageModelConfig
from charlm.text import token_file
from charlm.text.corpus import load
from charlm.text.histories import Histories
from charlm.text.readers import STDIN, display_name
from charlm.training import defaults
from charlm.workflows.label_side import first_input
from charlm.workflows.model_files import load_model
from charlm.workflows.model_tokens import read_tokens
from charlm.workflows.numbers import not_a_number
from charlm.workflows.tokenize import TextOptions

STEPS, POSITIONS = 50, 512  # by default: how far back, and from how many tokens
WARMUP = 128  # steps before, at the most, so that the states are those of the text and not of its beginning
ROWS, STATE_NUMBERS = 64, 1 << 24  # tokens whose pasts are worked on side by side, but for so many numbers of states
MOST_DECADES = 12  # of a picture
PICTURE_SUFFIX = ".svg"


@dataclass(frozen=True)
class GradientsRequest:
    """What the user asked for; None for what was not given.

    Attributes:
        paths: models, and the text last.
        cells: whose fresh weights to look at, without a model.
        label: of which the models that were trained with labels are given one.
        on_unknown: what a token is that a model does not know: "unk", "error" or "skip".
        steps: K. positions: how many tokens, at the most.
        activation: of the cells that know it.
        seed: of fresh weights, and of which tokens are drawn.
        picture: where to write one.
    """

    paths: Sequence[str]
    cells: Sequence[str] = ()
    text: TextOptions = field(default_factory=TextOptions)
    label: str | None = None
    on_unknown: str | None = None
    steps: int | None = None
    positions: int = POSITIONS
    hidden_size: int | None = None
    num_layers: int | None = None
    activation: str | None = None
    seed: int = 0
    threads: int | None = None
    picture: str | None = None


@dataclass(frozen=True)
class Clipping:
    """How a model's gradients were clipped in training.

    Attributes:
        limit: of the norm or the values, 0 for none. mode: "norm" or "value".
        steps: of the training, up to the model's last validation.
        share: of the steps whose gradients were beyond the limit, 0 to 1; None if the model does not tell.
    """

    limit: float
    mode: str
    steps: int
    share: float | None


@dataclass(frozen=True)
class Curve:
    """How far back the loss of one network reaches.

    Attributes:
        name: of the curve.
        model: its file; None for fresh weights.
        config: its sizes. parameters: how many.
        positions: the number of tokens over which the mean is taken.
        norms: (K + 1,), the mean of |d loss<t> / d s<t-k>|; ``gradient_flow`` says what s is.
        layers: (L, K + 1), the same of each layer's states.
        clipping: None for fresh weights.
    """

    name: str
    model: str | None
    config: LanguageModelConfig
    parameters: int
    positions: int
    norms: Norms
    layers: Norms
    clipping: Clipping | None

    @property
    def factor_per_step(self) -> float | None:
        """The geometric mean of norms[k + 1] / norms[k] from k = 1 on; None for fewer than two steps, or of zeros."""
        first, last, steps = float(self.norms[1:2].sum()), float(self.norms[-1]), self.norms.size - 2
        return (last / first) ** (1 / steps) if steps > 0 and first > 0 else None


@dataclass(frozen=True)
class Gradients:
    """The result: K steps back in a text, a curve for each network."""

    corpus: str
    steps: int
    curves: list[Curve]

    def to_json(self) -> dict[str, Any]:
        """For a program to read; None for what JSON cannot hold."""
        return {
            "corpus": self.corpus,
            "steps": self.steps,
            "curves": [
                {
                    "name": curve.name,
                    "model": curve.model,
                    **curve.config.to_json(),
                    "parameters": curve.parameters,
                    "positions": curve.positions,
                    "norms": _finite(curve.norms),
                    "layers": [_finite(layer) for layer in curve.layers],
                    "factor_per_step": curve.factor_per_step,
                    "clipping": None if curve.clipping is None else asdict(curve.clipping),
                }
                for curve in self.curves
            ],
        }


def run(request: GradientsRequest, on_tokens: Callable[[int], object] = lambda count: None) -> Gradients:
    """Measure, and write the picture if one is wanted.

    Args:
        request: what to do.
        on_tokens: called with how many more of the tokens drawn are done.

    Raises:
        CharlmError: the request, a model, the text or the picture's place is at fault.
    """
    _check(request)
    corpus = request.paths[-1]
    networks = _fresh(request) if request.cells else _trained(request)
    steps = _steps_back(request, [network.histories for network in networks])
    curves = []
    for network in networks:
        curves.append(_measure(network, steps, request, on_tokens))
        network.model.team.close()
    result = Gradients(corpus, steps, curves)
    if request.picture is not None:
        with replacing(request.picture) as file:
            file.write(picture(result).encode("utf-8"))
    return result


def points(gradients: Gradients) -> tuple[Curves, Axis, Axis]:
    """The curves as points of a chart, and its axes."""
    curves = {curve.name: list(enumerate(curve.norms.tolist())) for curve in gradients.curves}
    across = Axis("k, steps back", 0, max(1, gradients.steps))
    every = [norm for curve in gradients.curves for norm in curve.norms.tolist()]
    return curves, across, log_axis("|d loss<t> / d s<t-k>|, mean", every, MOST_DECADES)


def picture(gradients: Gradients) -> str:
    """The curves as an SVG."""
    text = Path(display_name(gradients.corpus)).name
    return svg(*points(gradients), title=f"How far back the loss of a step reaches: {text}")


@dataclass(frozen=True)
class _Network:
    """What a curve is made from."""

    name: str
    path: str | None
    model: LanguageModel
    histories: Histories
    clipping: Clipping | None


def _check(request: GradientsRequest) -> None:
    """What can be wrong before anything is read."""
    if request.picture is not None:
        if Path(request.picture).suffix.lower() != PICTURE_SUFFIX:
            raise UsageError(
                f"-o {request.picture}: a picture is written as {PICTURE_SUFFIX}; give such a name, and convert it "
                "with rsvg-convert or a browser if need be"
            )
        check_writable(request.picture)
        if any(os.path.realpath(path) == os.path.realpath(request.picture) for path in request.paths):
            raise UsageError(f"-o {request.picture}: would be written over what is read; choose another name")
    if request.cells:
        _check_cells(request)
        return
    if len(request.paths) < 2:
        raise UsageError(f"{request.paths[0]}: is that MODEL or CORPUS? Give both, or --cell and CORPUS")
    if request.paths[-1] == STDIN and len(request.paths) > 2:
        raise UsageError("-: several models each read the text, standard input only one; name a file")
    sizes = {"hidden_size": request.hidden_size, "num_layers": request.num_layers, "activation": request.activation}
    given = [*request.text.given(), *(f"--{name.replace('_', '-')}" for name, value in sizes.items() if value)]
    if given:
        raise UsageError(f"a model brings its own {'text options' if request.text.given() else 'sizes'}: "
                         f"leave out {', '.join(given)}")  # fmt: skip


def _check_cells(request: GradientsRequest) -> None:
    if len(request.paths) > 1:
        raise UsageError("--cell shows fresh networks, on one CORPUS: leave out --cell, or all but the text")
    if request.label is not None:
        raise UsageError(f"--label {request.label!r}: a fresh network is not given any; leave it out")
    if request.on_unknown is not None:
        raise UsageError("a fresh network's vocabulary is the text's own: leave out --on-unknown")
    known = {activation for cell in request.cells for activation in cells.find(cell).activations}
    if request.activation is not None and request.activation not in known:
        raise UsageError(f"--activation {request.activation}: --cell {', '.join(request.cells)} has no choice of it")


def _fresh(request: GradientsRequest) -> list[_Network]:
    """Networks as ``charlm train`` would begin with on this text."""
    path, text = request.paths[-1], request.text
    if token_file.is_token_file(path) and text.given():
        raise UsageError(f"{path} is tokenized already: leave out {', '.join(text.given())}")
    corpus, _ = load([path], text.tokenizer(), min_count=text.least_count(), vocab_size=text.vocab_size)
    size = corpus.vocabulary.size
    chosen = {n: value for n, (value, _) in defaults.choose(corpus.tokens.size, size, corpus.tokenizer.level).items()}
    hidden = request.hidden_size or chosen["hidden_size"]
    layers = request.num_layers or chosen["num_layers"]
    histories = Histories(corpus.tokens, corpus.vocabulary.start_id)
    networks = []
    for name in dict.fromkeys(request.cells):
        activations = cells.find(name).activations
        activation = request.activation if request.activation in activations else activations[0]
        config = LanguageModelConfig(size, min(chosen["embedding_size"], hidden), hidden, layers, name, activation)
        model = LanguageModel(config, Team(request.threads or available_cores()))
        model.initialise(np.random.default_rng(request.seed))
        networks.append(_Network(_cell_name(config), None, model, histories, None))
    return networks


def _trained(request: GradientsRequest) -> list[_Network]:
    *models, corpus = request.paths
    stems = [Path(path).stem for path in models]
    names = stems if len(set(stems)) == len(stems) else models
    networks = []
    for name, path in zip(names, models, strict=True):
        loaded = load_model(path, request.threads)
        tokens = read_tokens(corpus, loaded, request.on_unknown or "unk")
        histories = Histories(tokens, first_input(request.label, loaded.labels, loaded.vocabulary))
        config = loaded.model.config
        shown = _cell_name(config) if len(models) == 1 else name
        networks.append(_Network(shown, path, loaded.model, histories, clipping(loaded.header)))
    return networks


def _cell_name(config: LanguageModelConfig) -> str:
    """As ``rnn (relu)``: the activation where it is not the cell's usual one."""
    usual = cells.find(config.cell).activations[0]
    return config.cell if config.activation == usual else f"{config.cell} ({config.activation})"


def _steps_back(request: GradientsRequest, histories: Sequence[Histories]) -> int:
    """K: as given, or as far as enough tokens go back."""
    source = display_name(request.paths[-1])
    if request.steps is None:
        reach = min(one.reach(min(request.positions, one.count(0)), STEPS) for one in histories)
        if reach == 0:
            raise InputError(f"{source}: too few tokens have another before them; give a longer text, or --steps")
        return reach
    longest = min(one.longest for one in histories)
    if request.steps >= longest:
        raise InputError(
            f"{source}: no token has {request.steps} before it in its sequence, the longest has {longest} with its "
            f"end; lower --steps to {longest - 1} or less, or give a longer text"
        )
    return request.steps


def _measure(network: _Network, steps: int, request: GradientsRequest, on_tokens: Callable[[int], object]) -> Curve:
    """The mean over tokens that are drawn, each at the end of a row of its own."""
    model, histories = network.model, network.histories
    places = histories.draw(steps, request.positions, request.seed)
    rows = max(1, min(ROWS, STATE_NUMBERS // (steps * model.zero_state(1).size)))
    found = []
    for first in range(0, places.size, rows):
        window = histories.window(places[first : first + rows], WARMUP + steps + 1)
        state = model.zero_state(window.targets.size)
        found.append(gradient_norms(model, window.inputs, window.targets, state, steps))
        on_tokens(window.targets.size)
    layers = np.concatenate(found, axis=1)  # (K + 1, positions, L)
    if np.isnan(layers).any():  # an infinite one is a gradient that explodes
        raise not_a_number()
    return Curve(
        name=network.name,
        model=network.path,
        config=model.config,
        parameters=model.parameters.count,
        positions=places.size,
        norms=np.sqrt(np.square(layers).sum(axis=2)).mean(axis=1),
        layers=np.ascontiguousarray(layers.mean(axis=1).T),
        clipping=network.clipping,
    )


def clipping(header: dict[str, Any]) -> Clipping | None:
    """What a model's header tells of clipping; None if it does not even tell the limit.

    The history's records each hold "step", and "clipped", the share of the steps since the record before.
    """
    options, history = header.get("training"), header.get("history")
    if not isinstance(options, dict) or not isinstance(options.get("clip"), (int, float)):
        return None
    steps, clipped, is_told = 0, 0.0, True
    for record in history if isinstance(history, list) else []:
        step, share = (record.get("step"), record.get("clipped")) if isinstance(record, dict) else (None, None)
        if not isinstance(step, int) or not isinstance(share, (int, float)):
            is_told = False
            steps = step if isinstance(step, int) else steps
            continue
        clipped += share * (step - steps)
        steps = step
    share = clipped / steps if is_told and steps else None
    return Clipping(float(options["clip"]), str(options.get("clip_mode", "norm")), steps, share)


def _finite(values: Norms) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]
