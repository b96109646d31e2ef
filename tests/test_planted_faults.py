"""The checks are checked: with a fault planted, the comparisons that the other tests rely on must fail.

Faults are planted in two ways, in every cell: in what goes into and comes out of its kernels, and in the reference's
equations, one operation at a time.
"""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from charlm.engine import cells
from charlm.engine.cells._cell import Cell
from tests.engine_harness import (
    FORWARD_TOLERANCE,
    VARIANTS,
    CellRun,
    cell_problem,
    check_cell_forward,
    check_cell_gradients,
    check_model,
    model_problem,
)
from tests.gradient_check import Known
from tests.reference import network

FORWARD = ("pre", "w_h", "w_p", "state", "hidden", "saved", "reset", "initial", "activation", "low", "high")
BACKWARD = (
    "d_hidden", "d_state", "pre", "w_h", "w_p", "state", "saved", "reset", "scratch", "activation", "low", "high",
)  # fmt: skip
GRADIENTS = ("pre", "state", "saved", "d_w_h", "d_w_p", "part", "parts")

Change = Callable[[dict[str, Any]], None]


def nothing(arguments: dict[str, Any]) -> None:
    """No change."""


@dataclass(frozen=True)
class Fault:
    """A fault of one kernel: arguments that are changed before the call, in a copy, and results after it."""

    name: str
    kernel: str  # forward, backward or gradients
    before: Change = nothing
    after: Change = nothing

    def plant(self, cell: Cell) -> Cell:
        """The cell with the fault."""
        kernel = getattr(cell, self.kernel)
        names = {"forward": FORWARD, "backward": BACKWARD, "gradients": GRADIENTS}[self.kernel]

        def faulty(*values: Any) -> None:
            arguments = dict(zip(names, values, strict=True))
            self.before(arguments)
            kernel(*arguments.values())
            self.after(arguments)

        return replace(cell, **{self.kernel: faulty})


def scale(path: str, factor: float) -> Change:
    def change(arguments: dict[str, Any]) -> None:
        arguments[path][...] *= factor

    return change


def instead(path: str, function: Callable[[Any], Any]) -> Change:
    """Hand over another array in an argument's place; the argument itself is not touched."""

    def change(arguments: dict[str, Any]) -> None:
        arguments[path] = np.ascontiguousarray(function(arguments[path]))

    return change


def overwrite(path: str, function: Callable[[Any], Any]) -> Change:
    def change(arguments: dict[str, Any]) -> None:
        arguments[path][...] = function(arguments[path].copy())

    return change


def later(values: Any) -> Any:
    return np.roll(values, 1, axis=0)


def without_first(values: Any) -> Any:
    values[0] = 0
    return values


def swap_blocks(size: int, i: int, j: int) -> Callable[[Any], Any]:
    """Exchange the i-th and the j-th block of columns."""

    def change(values: Any) -> Any:
        changed = values.copy()
        changed[..., i * size : (i + 1) * size] = values[..., j * size : (j + 1) * size]
        changed[..., j * size : (j + 1) * size] = values[..., i * size : (i + 1) * size]
        return changed

    return change


def forward_faults(cell: Cell) -> Iterator[Fault]:
    yield Fault("factor", "forward", after=scale("hidden", 1.001))
    yield Fault("factor of 1 + 1e-10", "forward", after=scale("hidden", 1 + 1e-10))
    yield Fault("last state not written", "forward", after=lambda a: a["state"][-1].fill(0))
    yield Fault("dropped recurrent term", "forward", instead("w_h", np.zeros_like))
    yield Fault("dropped first state", "forward", lambda a: a["state"][0].fill(0))
    yield Fault("dropped initial state", "forward", instead("initial", np.zeros_like))
    yield Fault("reset ignored", "forward", instead("reset", np.zeros_like))
    yield Fault("reset a step late", "forward", instead("reset", later))
    yield Fault("shifted step of the input", "forward", overwrite("pre", later))
    yield Fault("shifted step of the output", "forward", after=overwrite("hidden", later))
    yield Fault("rows exchanged", "forward", after=overwrite("hidden", lambda x: x[:, ::-1]))
    for i, j in combinations(range(len(cell.states)), 2):
        yield Fault(f"states {i}, {j} swapped", "forward", after=overwrite("state", lambda x: x[:, ::-1]))
    if cell.peepholes:
        yield Fault("dropped peepholes", "forward", instead("w_p", np.zeros_like))
        yield Fault("peepholes in another order", "forward", instead("w_p", later))


def backward_faults(cell: Cell) -> Iterator[Fault]:
    for path in ("pre", "d_state"):
        yield Fault(f"factor of {path}", "backward", after=scale(path, 1.001))
        yield Fault(f"factor 1 + 1e-7 of {path}", "backward", after=scale(path, 1 + 1e-7))
        yield Fault(f"zeros in {path}", "backward", after=scale(path, 0.0))
        yield Fault(f"sign of {path}", "backward", after=scale(path, -1.0))
    yield Fault("dropped gradient of the last state", "backward", overwrite("d_state", np.zeros_like))
    yield Fault("dropped gradient of the first output", "backward", overwrite("d_hidden", without_first))
    yield Fault("dropped recurrent term", "backward", instead("w_h", np.zeros_like))
    yield Fault("reset ignored", "backward", instead("reset", np.zeros_like))
    yield Fault("reset a step late", "backward", instead("reset", later))
    yield Fault("shifted step of d_hidden", "backward", overwrite("d_hidden", later))
    yield Fault("shifted step of d_pre", "backward", after=overwrite("pre", later))
    for i, j in combinations(range(len(cell.states)), 2):
        yield Fault(f"states {i}, {j} swapped", "backward", after=overwrite("d_state", lambda x: x[::-1]))
    if cell.peepholes:
        yield Fault("dropped peepholes", "backward", instead("w_p", np.zeros_like))
        yield Fault("peepholes in another order", "backward", instead("w_p", later))
    for path in ("d_w_h", "d_w_p") if cell.peepholes else ("d_w_h",):
        yield Fault(f"factor of {path}", "gradients", after=scale(path, 1.001))
        yield Fault(f"factor 1 + 1e-7 of {path}", "gradients", after=scale(path, 1 + 1e-7))
        yield Fault(f"zeros in {path}", "gradients", after=scale(path, 0.0))
    yield Fault("dropped first step", "gradients", instead("pre", lambda x: without_first(x.copy())))
    for path in ("state", "saved") if cell.saved and len(cell.products) > 1 else ("state",):
        yield Fault(f"shifted step of {path}", "gradients", instead(path, lambda x: np.roll(x, -1, axis=0)))


def swapped_gates(cell: Cell, size: int) -> Iterator[tuple[Fault, Fault, Fault]]:
    for i, j in combinations(range(len(cell.gates)), 2):
        name, swap = f"gates {cell.gates[i]} and {cell.gates[j]} swapped", swap_blocks(size, i, j)
        yield (
            Fault(name, "forward", overwrite("pre", swap)),
            Fault(name, "backward", after=overwrite("pre", swap)),
            Fault(name, "gradients", after=overwrite("d_w_h", swap)),
        )


def must_fail(check: Callable[[], object], fault: object) -> None:
    try:
        check()
    except AssertionError:
        return
    pytest.fail(f"not caught: {fault}")


variants = pytest.mark.parametrize(("name", "activation"), VARIANTS)


@variants
def test_faults_of_forward_are_caught(name: str, activation: str) -> None:
    cell, problem = cells.find(name), cell_problem(name, activation)
    check_cell_forward(cell, problem)
    faults = [*forward_faults(cell), *(swapped for swapped, _, _ in swapped_gates(cell, problem.initial.shape[-1]))]
    for fault in faults:
        must_fail(lambda fault=fault: check_cell_forward(fault.plant(cell), problem), fault.name)  # type: ignore[misc]


@variants
def test_faults_of_backward_are_caught(name: str, activation: str) -> None:
    cell, problem = cells.find(name), cell_problem(name, activation)
    known: Known = {}
    check_cell_gradients(cell, problem, probes=16, known=known)
    faults = list(backward_faults(cell))
    for _, in_pre, in_weights in swapped_gates(cell, problem.initial.shape[-1]):
        faults += [in_pre, in_weights]
    for fault in faults:
        must_fail(
            lambda fault=fault: check_cell_gradients(fault.plant(cell), problem, probes=16, known=known),  # type: ignore[misc]
            (fault.kernel, fault.name),
        )


@pytest.mark.parametrize("name", cells.names())
def test_a_fault_of_a_single_entry_is_caught(name: str) -> None:
    cell, problem = cells.find(name), cell_problem(name, cells.find(name).activations[0])

    def change(arguments: dict[str, Any]) -> None:
        arguments["d_w_h"][-1, -1] *= 1.001

    fault = Fault("one entry", "gradients", after=change)
    must_fail(lambda: check_cell_gradients(fault.plant(cell), problem, tensors=("w_h",)), fault.name)


@pytest.mark.parametrize("name", cells.names())
def test_faults_are_caught_in_the_whole_model(name: str) -> None:
    cell, problem = cells.find(name), model_problem(name, cells.find(name).activations[0])
    known: Known = {}
    check_model(problem, probes=4, known=known)
    for fault in (
        Fault("factor of d_pre", "backward", after=scale("pre", 1.001)),
        Fault("factor of d_w_h", "gradients", after=scale("d_w_h", 1.001)),
        Fault("dropped recurrent term", "backward", instead("w_h", np.zeros_like)),
        Fault("dropped initial state", "forward", instead("initial", np.zeros_like)),
        Fault("reset ignored", "backward", instead("reset", np.zeros_like)),
    ):
        model = problem.model()
        for layer in model.stack.layers:
            layer.cell = fault.plant(cell)
        must_fail(lambda model=model: check_model(problem, model, probes=4, known=known), fault.name)  # type: ignore[misc]


# Faults in the reference's equations


def mutations(tree: ast.Module) -> Iterator[tuple[str, ast.Module]]:
    """The module with each of the arithmetic operations of `step` changed, one at a time, in several ways."""

    def operations(module: ast.Module) -> list[ast.BinOp]:
        (step,) = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "step"]
        inside_slices = {
            id(inner)
            for node in ast.walk(step)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "slice"
            for inner in ast.walk(node)
        }
        return [node for node in ast.walk(step) if isinstance(node, ast.BinOp) and id(node) not in inside_slices]

    def changed(position: int, change: Callable[[ast.BinOp], ast.expr]) -> ast.Module:
        module = copy.deepcopy(tree)
        target = operations(module)[position]

        class Replace(ast.NodeTransformer):
            def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
                if node is target:
                    return change(node)
                self.generic_visit(node)
                return node

        return ast.fix_missing_locations(Replace().visit(module))

    def times(node: ast.expr, factor: float) -> ast.expr:
        return ast.BinOp(node, ast.Mult(), ast.Constant(factor))

    for position, operation in enumerate(operations(tree)):
        text = ast.unparse(operation)
        yield f"1.001 * ({text})", changed(position, lambda node: times(node, 1.001))
        yield f"-({text})", changed(position, lambda node: times(node, -1.0))
        if isinstance(operation.op, ast.Add | ast.Sub):
            yield f"left part of {text}", changed(position, lambda node: node.left)
            yield f"right part of {text}", changed(position, lambda node: node.right)
        elif isinstance(operation.op, ast.Mult):
            yield (
                f"1.001 * right part of {text}",
                changed(position, lambda node: ast.BinOp(node.left, ast.Mult(), times(node.right, 1.001))),
            )


@variants
def test_faults_in_the_equations_are_caught(name: str, activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels agree with the equations as they stand, and with none of their neighbours."""
    problem = cell_problem(name, activation)
    run = CellRun(cells.find(name), problem).forward()

    def difference() -> float:
        hidden, state = problem.reference(problem.arrays)
        if hidden.shape != run.hidden.shape:  # an operation left out may leave a row in a matrix's place
            return np.inf
        return float(max(np.abs(run.hidden - hidden).max(), np.abs(run.state[-1] - state).max()))

    assert difference() <= FORWARD_TOLERANCE
    module = network.find_cell(name)
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    planted = 0
    for text, mutant in mutations(tree):
        namespace: dict[str, Any] = {"__name__": "mutant"}
        exec(compile(mutant, name, "exec"), namespace)
        monkeypatch.setattr(module, "step", namespace["step"])
        assert not difference() <= 1e6 * FORWARD_TOLERANCE, f"not caught: {text}"
        planted += 1
    assert planted >= 6
