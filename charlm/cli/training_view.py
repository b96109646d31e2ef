"""What `charlm train` shows on stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from charlm.cli.output import on_one_line, quoted, say, visible
from charlm.cli.progress import bar_shape, new_bar
from charlm.units import nats_to_bits, perplexity
from charlm.wording import counted

if TYPE_CHECKING:
    from charlm.training.loop import StepDone, Trainer, Validated
    from charlm.workflows.train import TrainResult
    from charlm.workflows.train_plan import Plan
    from charlm.workflows.train_request import TrainRequest

REFRESH_STEPS_PER_SECOND = 10
SAMPLE_LINES, SAMPLE_WIDTH = 4, 100


def unit_of(level: str) -> Callable[[float], str]:
    """How to show a loss in nats per token: also as what people know it by."""
    if level == "word":
        return lambda nats: f"{nats:.3f} nats/word (perplexity {perplexity(nats):,.1f})"
    return lambda nats: f"{nats:.3f} nats/{level} ({nats_to_bits(nats):.3f} bits)"


class TrainingView:
    """An observer of a training: the plan, a bar, a line and a little text for each validation.

    Attributes:
        signal: the number of the signal that asked for a stop, 0 before.
        begun: whether there is something to be saved: a step, and no state that stands on the disk already.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.signal = 0
        self.begun = False
        self.bar: Any = None
        self.valid = ""
        self.best = ""  # how the best model did, where not only the loss judges

    def __enter__(self) -> TrainingView:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def _line(self, text: str, *, dim: bool = False) -> None:
        if self.bar is not None and not self.bar.disable:
            self.bar.clear()
        with contextlib.suppress(OSError):  # whoever listened has gone; the training goes on
            say(text, dim=dim)
        if self.bar is not None and not self.bar.disable:
            self.bar.refresh()

    def message(self, text: str) -> None:
        """A line that is shown even when quiet."""
        self._line(f"charlm: {text}")

    def begin(self, plan: Plan, trainer: Trainer) -> None:
        """Show the plan, start the bar."""
        material = plan.material
        self.show_loss = unit_of(material.unit)
        self.counted, self.next_command = material.counted, material.next_command
        if self.quiet:
            return
        self._show_plan(plan, trainer)
        total, seconds = trainer.total_steps, plan.options.time_seconds
        self.by_time = total is None
        self.bar = new_bar(
            total=round(seconds) if self.by_time and seconds else total,
            initial=round(trainer.state.progress.seconds) if self.by_time else trainer.state.progress.step,
            unit="s" if self.by_time else "step",
            bar_format="{percentage:3.0f}% {bar:12} {elapsed}<{remaining}  {desc}",
            mininterval=1 / REFRESH_STEPS_PER_SECOND,
            delay=0,
            dynamic_ncols=True,
        )
        self.bar.dynamic_ncols = bar_shape

    def _show_plan(self, plan: Plan, trainer: Trainer) -> None:
        from charlm.workflows.train_request import option_name

        config = plan.config
        for number, line in enumerate(plan.material.described()):
            self._line(f"{'      ' if number else 'text: '}{line}")
        layers = counted(config.num_layers, "layer")
        self._line(
            f"model: {config.cell}, {layers} of {config.hidden_size}, embedding {config.embedding_size}: "
            f"{trainer.state.parameters.count:,} parameters"
        )
        if plan.chosen:
            self._line("chosen for you:")
            width = max(len(option_name(name)) for name in plan.chosen)
            for name, (value, reason) in plan.chosen.items():
                option = option_name(name)
                shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
                self._line(f"  {option:{width}}  {shown!s:8}  {reason}")
        progress = trainer.state.progress
        if progress.step:
            total = trainer.total_steps
            self._line(f"going on at step {progress.step:,} of {'a time limit' if total is None else f'{total:,}'}")
        elif plan.replaces:
            self._line(f"{on_one_line(plan.request.output)} is there already, and will be replaced")

    def step(self, event: StepDone, trainer: Trainer) -> None:
        """Move the bar."""
        self.begun = True
        if self.bar is None or self.bar.disable:
            return
        progress = trainer.state.progress
        self.bar.n = min(round(progress.seconds), self.bar.total) if self.by_time else progress.step
        window = progress.interval
        rate = progress.tokens / progress.seconds if progress.seconds else 0.0
        smoothed = event.loss_nats if progress.smoothed_nats is None else progress.smoothed_nats
        self.bar.set_description_str(
            f"{self.show_loss(smoothed)}  {rate:,.0f} {self.counted}/s  gradient {event.grad_norm:.2f}, "
            f"clipped {window.clipped / max(1, window.steps):.0%}{self.valid}",
            refresh=False,
        )
        self.bar.update(0)

    def validated(self, event: Validated, trainer: Trainer, glimpse: str, *, is_saved: bool) -> None:
        """A line, and a little text."""
        if self.quiet:
            return
        judged = event.train_nats if event.valid_nats is None else event.valid_nats
        kind = "training" if event.valid_nats is None else "validation"
        self.valid = f"  {kind} {judged:.3f}"
        best = "best so far" if is_saved else "best so far, not saved"
        mark = best if event.improved else "no better"
        losses = f"{kind} {self.show_loss(judged)}"
        if event.valid_nats is not None:
            losses += f", training {event.train_nats:.3f}"
        if event.improved and event.valid_error is not None:
            self.best = glimpse
        self._line(f"epoch {trainer.epoch:.1f}  {losses}: {mark}")
        for line in glimpse.splitlines()[:SAMPLE_LINES]:
            self._line(f"    {visible(line)[:SAMPLE_WIDTH]}", dim=True)

    def finished(self, result: TrainResult, request: TrainRequest) -> None:
        """The end, and what to do next."""
        from charlm.workflows.train_request import resume_path

        if self.bar is not None:
            self.bar.close()
        output, name = quoted(request.output), on_one_line(request.output)
        if result.interrupted:
            corpus = " ".join(map(quoted, request.corpus))
            more = [f" --valid {quoted(path)}" for path in request.valid]
            more += [f" --log {quoted(request.log)}"] if request.log else []
            self.message(
                f"stopped at step {result.steps:,} ({result.reason}); saved in {resume_path(name)}. "
                f"Go on with: charlm train {corpus}{''.join(more)} -o {output} --resume"
            )
            return
        if not result.steps_made:
            self.message(f"nothing was left to do: {result.reason}; --epochs, --time and --patience set the end")
        if self.quiet:
            return
        found = "" if result.train_nats is None else f"; training {self.show_loss(result.train_nats)}"
        if result.best_valid_nats is not None:
            found = f"; best {self.show_loss(result.best_valid_nats)}"
        if self.best:
            found = f"; best {self.best}"
        self._line(
            f"{result.reason}: {counted(result.steps, 'step')}, {result.tokens:,} {self.counted} "
            f"in {result.seconds:.1f} s ({result.tokens_per_second:,.0f} {self.counted}/s){found}"
        )
        self._line(f"{name} is ready. Try: charlm {self.next_command(output)}")

    def stop_requested(self) -> str | None:
        """Whether a signal came."""
        return {0: None, 1: "hung up", 2: "interrupted", 15: "terminated"}.get(self.signal, "stopped")
