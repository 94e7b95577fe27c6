"""What was asked becomes what will run: a pure function from a Request to a Plan.

A block of the matrix is one suite x technique patterns x axes. An axis reaches every dataclass that
has a field of its name (the suite's `Setting`, the technique); where neither has it the axis does
not apply and the technique gets one cell instead of many. Where both have it they share its value,
the suite's default included.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness import catalogue
from harness.axes import check_axes, field_names, known_axes, setting_of, techniques_of
from harness.cell import Cell, Json, Options, digest
from harness.code import code_digest
from harness.errors import UsageError
from harness.request import Block, Point, Request, Rule


@dataclass(frozen=True, kw_only=True, slots=True)
class Skip:
    """A point that will not run here, and why; `recorded` ones become rows of the report."""

    suite: str
    technique: str
    point: Point
    reason: str
    recorded: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The cells to run, in order, and what was left out."""

    title: str
    cells: tuple[Cell, ...]
    skips: tuple[Skip, ...]


def make_plan(request: Request) -> Plan:
    """Expand and validate every block.

    Raises:
        UsageError: for a name or key nobody knows, a value of the wrong type, or nothing to run.
    """
    check_axes(request)
    cells: dict[str, Cell] = {}
    skips: list[Skip] = []
    for block in request.blocks:
        for technique, point in _points(block, request.chosen):
            result = _resolve(block, technique, point, request)
            if isinstance(result, Skip):
                skips.append(result)
            else:
                cells.setdefault(result.cell_id, result)
    unique = {digest([s.suite, s.technique, s.point]): s for s in skips}
    plan = Plan(
        title=request.title,
        cells=tuple(cells.values()),
        skips=tuple(unique.values()),
    )
    if not plan.cells:
        reasons = "; ".join(dict.fromkeys(f"{s.technique}: {s.reason}" for s in plan.skips))
        raise UsageError(f"nothing to run: {reasons or 'the matrix is empty'}")
    return plan


def skipped_cell(skip: Skip) -> Cell:
    """The cell a recorded skip stands for, with only the options that were given."""
    return Cell(
        suite=skip.suite, technique=skip.technique, options={}, setting=skip.point, code="skipped"
    )


def _points(block: Block, chosen: Options) -> Iterator[tuple[str, Point]]:
    """Every technique with each of its points, axes that do not apply to it dropped."""
    axes = {**block.axes, **chosen}
    tied = [{k: v for k, v in point.items() if k not in chosen} for point in block.zip] or [{}]
    for technique in techniques_of(block):
        known = known_axes(block.suite, technique)
        mine = {key: values for key, values in axes.items() if key in known}
        for values in itertools.product(*mine.values()):
            for together in tied:
                point = dict(zip(mine, values, strict=True))
                point |= {key: value for key, value in together.items() if key in known}
                yield technique, point
    for extra in block.include:
        point = {key: value for key, value in extra.items() if key != "technique"}
        for technique in catalogue.match([str(extra["technique"])]):
            yield technique, point


def _resolve(block: Block, technique: str, point: Point, request: Request) -> Cell | Skip:
    def skip(reason: str, *, recorded: bool) -> Skip:
        return Skip(
            suite=block.suite, technique=technique, point=point, reason=reason, recorded=recorded
        )

    if reason := _excluded(block, technique, point):
        return skip(reason, recorded=False)
    if reason := _unsuited(block.suite, technique):
        return skip(reason, recorded=False)
    if reason := unavailable(technique, request.device, elsewhere=request.elsewhere):
        return skip(reason, recorded=True)
    try:
        setting = _build(f"the setting of {block.suite}", setting_of(block.suite), point)
        reached = {**point, **setting}  # a default of the suite's reaches the technique too
        options = _build(f"the options of {technique}", catalogue.load(technique), reached)
    except OutOfRangeError as error:
        return skip(str(error), recorded=True)
    if reason := _excluded(block, technique, {**options, **setting}):  # a rule may mean a default
        return skip(reason, recorded=False)
    card = catalogue.card(technique)
    return Cell(
        suite=block.suite,
        technique=technique,
        options=options,
        setting=setting,
        code=source_digest(block.suite, technique),
        world=int(setting.get("world", card.world)),
        device="cuda" if card.device.startswith("cuda") else request.device,
        timing=catalogue.suite(block.suite).timing,
    )


def _excluded(block: Block, technique: str, values: Options) -> str:
    """Reason of the first rule that leaves these values out, or nothing."""
    rules = (rule for rule in block.exclude if _applies(rule, technique, values))
    return next((rule.reason for rule in rules), "")


def _applies(rule: Rule, technique: str, values: Options) -> bool:
    for key, wanted in rule.when.items():
        allowed = wanted if isinstance(wanted, list | tuple) else [wanted]
        if key == "technique":
            if not any(catalogue.glob(technique, str(pattern)) for pattern in allowed):
                return False
        elif key not in values or values[key] not in allowed:
            return False
    return True


@cache
def _unsuited(suite: str, technique: str) -> str:
    """Why the suite has no question for this technique: its own `applies(card)`, if it has one."""
    applies = getattr(catalogue.load_suite(suite), "applies", None)
    return str(applies(catalogue.card(technique))) if applies else ""


@cache
def unavailable(technique: str, device: str, *, elsewhere: bool = False) -> str:
    """Why this technique cannot be measured on this machine, or by this installation elsewhere."""
    card = catalogue.card(technique)
    if missing := catalogue.missing_packages(technique):
        return f"needs {', '.join(missing)}: pip install -e '.[peers]' (or the package itself)"
    needs_cuda = card.device.startswith("cuda") or device == "cuda"
    if needs_cuda and not elsewhere and not _has_cuda():
        return f"needs a {card.device if card.device != 'any' else 'cuda'} device"
    return ""


@cache
def _has_cuda() -> bool:
    import torch  # seconds, paid only where a card asks for CUDA

    return torch.cuda.is_available()


class OutOfRangeError(ValueError):
    """A value the technique or suite itself refuses at this point."""


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _build(what: str, cls: Any, point: Point) -> dict[str, Json]:
    """The dataclass's fields in full, as JSON, with the point's values checked and filled in."""
    given = {key: value for key, value in point.items() if key in field_names(cls)}
    adapter = _adapter(cls)
    try:
        instance = build(cls, given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "value_error":
            raise OutOfRangeError(message) from error
        raise UsageError(f"{what}: {key}={first['input']!r}: {message}") from error
    resolved: dict[str, Json] = adapter.dump_python(instance, mode="json")
    return resolved


def build(cls: Any, options: Options) -> Any:
    """An instance of a technique or `Setting` from JSON values, types checked strictly."""
    return _adapter(cls).validate_json(json.dumps(dict(options)), strict=True)


@cache
def source_digest(suite: str, technique: str) -> str:
    """Digest of all source that a cell of this suite and technique depends on."""
    card = catalogue.card(technique)
    names = [technique, *card.peer_of, *([card.oracle] if "/peers/" in card.oracle else [])]
    modules = [catalogue.source(name).module for name in names]
    return code_digest([*modules, catalogue.suite_source(suite).module])
