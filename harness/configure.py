"""The only module that knows Hydra and OmegaConf: from a command line to frozen dataclasses.

Hydra composes the configuration once. Keys it does not know are axes of the matrix: `seed=0,1`
becomes `+axes.seed=0,1`, with all of Hydra's grammar (`range(0,5)`, `choice(...)`, lists, quotes),
and the expansion into cells is ours (harness/plan.py).
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import FiniteFloat, TypeAdapter, ValidationError

from harness import catalogue, experiments
from harness.elastic import Ranks
from harness.errors import UsageError, near
from harness.isolate import GENERATIONS, Limits
from harness.request import ROOT_KEYS, Block, Request

CONFIG_PACKAGE = "conf"
_FORWARDED = ("hydra", "axes", "matrix", "shard", *ROOT_KEYS)
_MANY = ("suite", "technique")  # a sweep over these chooses several for one run
_AXIS = "axes."
_HERE = ("basic", "joblib", "submitit_local")  # launchers whose jobs run on this machine
_EXECUTION = ("results", "reports", "retry", "workers", "generations", "ranks")


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """How a run runs; nothing here changes a result."""

    run: str
    results: Path = Path("results")
    reports: Path = Path("reports")
    retry: Literal["failed", "all"] | None = None
    workers: int = 1
    shards: int = 1
    generations: int = GENERATIONS
    ranks: Ranks | None = None  # None: elastic in a job of several nodes
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name in ("workers", "shards", "generations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if Path(self.run).name != self.run or self.run.startswith("."):
            raise ValueError(f"run must be a plain folder name, got {self.run!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One command line, understood."""

    execution: Execution
    request: Request | None  # None: go on with the run as it was planned


def compose(arguments: Sequence[str]) -> Asked:
    """What the command line asks for, without running it.

    Raises:
        UsageError: for anything wrong in it.
    """
    with usage_errors(), hydra.initialize_config_module(CONFIG_PACKAGE, version_base="1.3"):
        words = forwarded(arguments)
        plain = [w for w, o in zip(words, _parse(words), strict=True) if not o.is_sweep_override()]
        return understand(hydra.compose("config", plain, return_hydra_config=True), words)


def multirun(arguments: Sequence[str], task: TaskFunction) -> None:
    """Hand the command line to Hydra, whose Sweeper is ours.

    Raises:
        UsageError: for anything wrong in it.
    """
    place = f"pkg://{CONFIG_PACKAGE}"
    entry = hydra.main(version_base="1.3", config_path=place, config_name="config")(task)
    with usage_errors():
        argv = ["llmatrix", "--multirun", *forwarded(arguments)]
        with patch.object(sys, "argv", argv), patch.dict(os.environ, HYDRA_FULL_ERROR="1"):
            entry()


def forwarded(arguments: Sequence[str]) -> list[str]:
    """The overrides with the axes of the matrix moved under `axes`.

    Raises:
        UsageError: for a word that is no override.
    """
    words: dict[str, str] = {}
    for word, override in zip(arguments, _parse(arguments), strict=True):
        key, ours = override.key_or_group, _root(override.key_or_group) in _FORWARDED
        if not ours and override.is_delete():
            raise UsageError(f"{word}: an axis is left out by not naming it")
        if not ours and key in words:
            raise UsageError(f"{key} is given twice; several points are one list: {key}=1,2")
        words[word if ours else key] = word if ours else f"+{_AXIS}{word.lstrip('+')}"
    return list(words.values())


def understand(config: DictConfig, arguments: Sequence[str]) -> Asked:
    """Frozen dataclasses from the composed configuration and its overrides.

    Raises:
        UsageError: for a value of the wrong type, or a matrix without suite or technique.
    """
    given = {o.key_or_group: _values(o) for o in _parse(arguments) if not o.is_hydra_override()}
    root: dict[str, Any] = {
        str(key): OmegaConf.to_object(config[key]) if OmegaConf.is_config(config[key]) else value
        for key, value in config.items_ex(resolve=True)
        if key not in ("hydra", "axes")  # axes are read from the overrides, `${` and all
    }
    for key, values in given.items():
        if len(values) > 1 and key not in _MANY and not key.startswith(_AXIS):
            raise UsageError(f"{key} takes one value, got {len(values)}; sweeps are for axes")
    for key in _MANY:
        root[key] = _flat(given.get(key, [root[key]]))
    execution = _execution(root, config)
    if root["run"] and not (root["matrix"] or root["suite"] or root["technique"]):
        return Asked(execution=execution, request=None)
    chosen = {k.removeprefix(_AXIS): tuple(v) for k, v in given.items() if k.startswith(_AXIS)}
    document = {
        "title": root["title"] or "Chosen on the command line",
        "blocks": _blocks(root),
        "chosen": chosen,
        "elsewhere": config.hydra.runtime.choices.get("hydra/launcher", "basic") not in _HERE,
        **({"device": root["device"]} if root["device"] else {}),
    }
    return Asked(execution=execution, request=_checked(Request, document))


@contextmanager
def usage_errors() -> Iterator[None]:
    """What Hydra and OmegaConf find wrong is bad input, said in one message."""
    try:
        yield
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        known = list(experiments.titles()) if group == "experiment" else list(error.options or [])
        raise UsageError(
            f"no {group} is called {name!r}{near(name, known)} (there are: {', '.join(known)})"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    told = " ".join(
        x for x in lines if x and not x.startswith(("full_key:", "object_type=", "See"))
    )
    return re.sub(r"^\w+Exception: ", "does not parse: ", told).replace(f"+{_AXIS}", "")


def _parse(arguments: Sequence[str]) -> list[Override]:
    try:
        parsed: list[Override] = OverridesParser.create().parse_overrides(list(arguments))
    except HydraException as error:
        raise UsageError(
            f"{_one_line(error)} (expected KEY=VALUE, other text in quotes: key=\"'!x'\")"
        ) from error
    return parsed


def _root(key: str) -> str:
    return key.partition(".")[0].partition("/")[0]


def _values(override: Override) -> list[Any]:
    """Every value the override names, one unless it sweeps."""
    if not override.is_sweep_override():
        return [override.value()]
    if not override.is_discrete_sweep():
        line = str(override.input_line).removeprefix(f"+{_AXIS}")
        raise UsageError(f"{line}: name the points; an interval has no end of them")
    return [Override._convert_value(point) for point in override.sweep_iterator()]


def _flat(values: Sequence[Any]) -> list[str]:
    """Names out of a value, a list or a sweep of either."""
    nested = [value if isinstance(value, list) else [value] for value in values]
    return [str(name) for names in nested for name in names if name is not None]


def _execution(root: Mapping[str, Any], config: DictConfig) -> Execution:
    moment = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    experiment = config.hydra.runtime.choices.get("experiment")
    limits = {"time_s": root["time_limit_s"]}
    if root["memory_limit_gb"] is not None:
        gigabytes = _checked(FiniteFloat, root["memory_limit_gb"], "memory_limit_gb")
        limits["memory_bytes"] = int(gigabytes * 1e9)
    document = {
        **{key: root[key] for key in _EXECUTION},
        "run": str(root["run"] or f"{experiment or 'run'}-{moment}"),
        "shards": _default_shards(config) if root["shards"] is None else root["shards"],
    }
    given = {key: value for key, value in document.items() if value is not None}
    chosen = {key: value for key, value in limits.items() if value is not None}
    return _checked(Execution, {**given, "limits": _checked(Limits, chosen)})  # type: ignore[no-any-return]


def _default_shards(config: DictConfig) -> int:
    """One for Hydra's basic launcher; else as many as joblib may run at once, or two."""
    if config.hydra.runtime.choices.get("hydra/launcher", "basic") == "basic":
        return 1
    jobs = int(OmegaConf.select(config, "hydra.launcher.n_jobs") or 2)
    return jobs if jobs > 0 else (os.cpu_count() or 1)


def _blocks(root: Mapping[str, Any]) -> list[Block]:
    if not isinstance(root["matrix"], list):
        raise UsageError(f"matrix={root['matrix']!r}: a list of blocks is needed")
    blocks = [_block(document) for document in root["matrix"]]
    if not blocks:
        return [_block({"suite": name, "technique": _required(root)}) for name in _suites(root)]
    suites, patterns = root["suite"], root["technique"]
    chosen = [b for b in blocks if not suites or any(catalogue.glob(b.suite, s) for s in suites)]
    if patterns:
        chosen = [narrowed for block in chosen if (narrowed := _narrow(block, patterns))]
    if not chosen:
        has = ", ".join(dict.fromkeys(block.suite for block in blocks))
        raise UsageError(
            f"the experiment (suites: {has}) has nothing for suite={suites} technique={patterns}"
        )
    return chosen


def _narrow(block: Block, patterns: Sequence[str]) -> Block | None:
    wanted = set(catalogue.match(patterns))
    both = tuple(name for name in catalogue.match(block.technique) if name in wanted)
    include = tuple(
        {**point, "technique": name}
        for point in block.include
        for name in catalogue.match([str(point["technique"])])
        if name in wanted
    )
    return replace(block, technique=both, include=include) if both else None


def _suites(root: Mapping[str, Any]) -> list[str]:
    if not root["suite"]:
        names = ", ".join(catalogue.suites())
        raise UsageError(f"name an experiment (experiment=quick) or a suite (suite=...: {names})")
    return [catalogue_name for name in root["suite"] for catalogue_name in _suite_names(name)]


def _suite_names(pattern: str) -> list[str]:
    names = [name for name in catalogue.suites() if catalogue.glob(name, pattern)]
    if not names:
        catalogue.suite_source(pattern)
    return names


def _required(root: Mapping[str, Any]) -> list[str]:
    if not root["technique"]:
        raise UsageError("a suite needs techniques to measure: technique='tokenizers/*'")
    return list(root["technique"])


def _block(document: Any) -> Block:
    known = [f.name for f in fields(Block)]
    axes = document.get("axes", {}) if isinstance(document, dict) else None
    if not isinstance(axes, dict):
        raise UsageError(
            f"a block of the matrix is suite, technique, axes: {{...}}; got {document!r}"
        )
    for key in document:
        if key not in known:
            raise UsageError(f"a block of the matrix has no key {key!r}{near(str(key), known)}")
    axes = {k: v if isinstance(v, list) else [v] for k, v in axes.items()}
    technique = _flat([document.get("technique", [])])
    return _checked(Block, {**document, "axes": axes, "technique": technique})  # type: ignore[no-any-return]


def _checked(kind: Any, value: Any, name: str = "") -> Any:
    """The value as the type asks, or one message that names key and value."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in (name, *first["loc"]) if part != "")
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{key}={first['input']!r}: {message}" if key else message) from error
