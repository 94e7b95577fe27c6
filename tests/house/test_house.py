"""The rules of the house: size, direction of imports, headers, names, and what is never used."""

import ast
import dataclasses
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from pydantic import TypeAdapter

from harness import catalogue
from harness.card import read_card, read_suite
from harness.plan import build
from harness.request import ROOT_KEYS

ROOT = Path(__file__).parents[2]
ROOMS = ("harness", "impls", "suites", "conf", "hydra_plugins", "benchmarks")

# The first pattern that matches a path (`*` crosses `/`): lines of the file, of each function.
LIMITS = (
    ("impls/*/kernels/*.py", 350, 80),
    ("impls/*.py", 200, 40),
    ("suites/data/*.py", 200, 40),
    ("suites/*.py", 150, 40),
    ("*.py", 300, 40),
)

# Longer files, each with its bound and reason. This list only shrinks.
LONGER = {
    "impls/tokenizers/interface.py": (220, "three abstract classes, every method's contract told"),
}

# Imports inside functions, each with its reason: it is slow, or an optional package.
LATE_IMPORTS = {
    "harness/commands/doctor.py": {"torch"},  # the doctor must answer where torch does not load
    "harness/plan.py": {"torch"},  # seconds, paid only where a card asks for CUDA
    "harness/pytest_plugin.py": {  # loaded by every test run: only those that gate may pay
        "harness.errors",
        "harness.gate.child",
        "harness.gate.functions",
        "harness.gate.saved",
    },
    "harness/run.py": {"harness.report"},  # pandas and matplotlib: a second that `plan` saves
    "suites/data/hub.py": {"datasets"},  # optional
}

# Internal keys of conf/config.yaml: nobody types them.
INTERNAL_KEYS = {"defaults", "matrix", "headline", "axes", "shard", "hydra"}

# A technique that is made of others imports them; name it here with its parts.
COMPOSITIONS: dict[str, set[str]] = {}

# Which other families (and the models) a family may import: those below it.
BELOW = {
    "models": set(),
    "tokenizers": set(),
    "positions": {"models"},
    "attention": {"models"},
    "context": {"models", "positions", "attention"},
    "compression": {"models"},
}

# Every row of the technique list, so far.
ROWS = {
    "tokenizers": """word char bpe wordpiece unigram sentencepiece byte_bpe bytes bpe_dropout
        superbpe""",
    "positions": """sinusoidal learned rope alibi transformer_xl t5_bias tupe deberta nope xpos
        kerple sandwich fire cope shaw randomized""",
    "attention": """full sliding_window strided longformer bigbird block_sparse flash mqa gqa mla
        linear streaming_sinks nsa moba differential gated_delta retention flash_varlen""",
    "context": """alibi logn window position_interpolation ntk dynamic_ntk consistent_dynamic rerope
        nbce yarn longrope self_extend""",
    "compression": """rtn magnitude obd obs obc exact_obs gptq obq spqr awq smoothquant llm_int8
        zeroquant layer_reduction wanda sparsegpt hqq nf4 fp8 mxfp4 rotation""",
}

FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {
    "torch.load", "torch.save", "joblib.load", "joblib.dump", "pd.read_pickle",
}  # fmt: skip
FORBIDDEN_NAMES = {"util", "utils", "helper", "helpers", "common", "base", "misc", "manager"}

SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
OURS = ("harness", "impls", "suites")


def told(path):
    return path.relative_to(ROOT).as_posix()


def room(name):
    return [path for path in SOURCES if told(path).startswith(f"{name}/")]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file's import statements may load."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{told(path)}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if is_module(name) else str(node.module) for name in names)


def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def own_imports(path: Path) -> set[str]:
    return {name for name in imports(path) if name.partition(".")[0] in OURS}


def rule(path: Path) -> list[int]:
    return next(bounds for pattern, *bounds in LIMITS if fnmatch(told(path), pattern))


@pytest.mark.parametrize("path", SOURCES, ids=told)
def test_files_and_functions_are_short(path):
    lines, function_lines = rule(path)
    lines, _ = LONGER.get(told(path), (lines, ""))
    n_lines = path.read_text(encoding="utf-8").count("\n")
    assert n_lines <= lines
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > function_lines
    }
    assert not long


@pytest.mark.parametrize("name", LONGER)
def test_every_longer_file_is_still_longer_than_its_rule(name):
    path = ROOT / name
    assert path.read_text(encoding="utf-8").count("\n") > rule(path)[0]


@pytest.mark.parametrize("path", SOURCES, ids=told)
def test_imports_stand_at_the_top(path):
    late = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert late == LATE_IMPORTS.get(told(path), set())


def test_the_harness_imports_neither_techniques_nor_suites():
    for path in room("harness"):
        assert not {n for n in own_imports(path) if not n.startswith("harness")}, told(path)


def test_techniques_import_their_card_their_own_family_and_those_below():
    for path in room("impls"):
        family = told(path).split("/")[1]
        for name in own_imports(path):
            top, *rest = name.split(".")
            near = top == "impls" and rest[0] in {family, *BELOW[family]}
            # Packages load by name, and so do checkpoints: they hold the names of techniques.
            by_name = told(path) == f"impls/{family}/__init__.py" or family == "models"
            through_catalogue = by_name and name == "harness.catalogue"
            assert near or name == "harness.card" or through_catalogue, (
                f"{told(path)} imports {name}"
            )


def test_techniques_do_not_import_each_other():
    modules = {source.module: name for name, source in catalogue.techniques().items()}
    for path in room("impls"):
        if "/peers/" in told(path):
            continue  # a peer may read the class whose work it repeats
        name = told(path).removeprefix("impls/").removesuffix(".py")
        others = {modules[m] for m in own_imports(path) if m in modules} - {name}
        assert others <= COMPOSITIONS.get(name, set()), told(path)


def test_suites_import_interfaces_and_never_a_technique():
    harness = {"catalogue", "card", "code", "errors", "instruments"}
    for path in room("suites"):
        for name in own_imports(path):
            top, *rest = name.split(".")
            interface = top == "impls" and rest[-1] == "interface" and len(rest) == 2
            interface |= top == "impls" and rest[0] == "models"
            known = top == "suites" or (top == "harness" and rest[0] in harness)
            assert interface or known, f"{told(path)} imports {name}"


def members():
    return {**catalogue.techniques(), **catalogue.peers()}


def installed(name):
    if missing := catalogue.missing_packages(name):
        pytest.skip(f"needs {', '.join(missing)}")
    return catalogue.load(name)


@pytest.mark.parametrize("name", members())
def test_a_card_read_is_the_card_imported(name):
    source = catalogue.source(name)
    card = read_card(source.path)
    installed(name)
    module = import_module(source.module)
    assert card == module.CARD
    assert getattr(module, card.cls).__module__ == source.module


@pytest.mark.parametrize("name", members())
def test_a_card_says_who_and_whence(name):
    card = catalogue.card(name)
    assert card.title
    assert card.summary.endswith(".")
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\S+|https://\S+|[^:]{3,}", card.paper), (
        card.paper
    )
    assert 1948 <= card.year <= 2100
    assert re.fullmatch(r"any|cuda(>=\d+\.\d+)?", card.device)
    assert card.world >= 1


@pytest.mark.parametrize("name", catalogue.peers())
def test_a_peer_names_its_packages_and_whose_work_it_repeats(name):
    card = catalogue.card(name)
    assert card.packages
    assert card.peer_of
    assert set(card.peer_of) <= set(catalogue.techniques())


@pytest.mark.parametrize("name", catalogue.techniques())
def test_an_oracle_that_is_a_peer_repeats_this_technique(name):
    card = catalogue.card(name)
    assert card.oracle, "say what it is checked against: a peer or an identity"
    assert not card.peer_of
    if "/peers/" in card.oracle:
        assert card.oracle in catalogue.peers_of(name)


@pytest.mark.parametrize("name", members())
def test_a_technique_is_a_frozen_dataclass_of_keywords(name):
    cls = installed(name)
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(cls))
    assert "__slots__" in vars(cls)
    assert cls.__doc__
    default = cls()  # every field has a default
    assert build(cls, TypeAdapter(cls).dump_python(default, mode="json")) == default


@pytest.mark.parametrize("name", catalogue.suites())
def test_a_suite_read_is_the_suite_imported(name):
    source = catalogue.suite_source(name)
    module = catalogue.load_suite(name)
    assert read_suite(source.path) == module.SUITE
    assert module.Setting.__dataclass_params__.frozen
    assert callable(module.measure)


@pytest.mark.parametrize("name", catalogue.suites())
def test_a_suite_s_baseline_and_families_exist(name):
    suite = catalogue.suite(name)
    assert suite.baseline == "" or suite.baseline in catalogue.techniques()
    assert set(suite.families) <= {"*", *catalogue.families()}
    names = [metric.name for metric in suite.metrics]
    assert len(set(names)) == len(names) > 0
    assert suite.question.endswith("?")


@pytest.mark.parametrize("family", catalogue.families())
def test_every_family_has_a_contract_test(family):
    assert (ROOT / "tests" / "contracts" / f"test_{family}.py").is_file()


@pytest.mark.parametrize("family", ROWS)
def test_every_row_of_the_list_is_there(family):
    rows = {f"{family}/{slug}" for slug in ROWS[family].split()}
    assert rows <= set(catalogue.techniques())


def test_no_two_techniques_of_a_family_share_a_class_name():
    for names in (catalogue.techniques(), catalogue.peers()):
        classes = [(name.partition("/")[0], catalogue.card(name).cls) for name in names]
        assert len(set(classes)) == len(classes)


MEETINGS = [
    (suite, name)
    for suite, name in product(catalogue.suites(), members())
    if {"*", name.partition("/")[0]} & set(catalogue.suite(suite).families)
]


@pytest.mark.parametrize(("suite", "name"), MEETINGS)
def test_fields_of_equal_names_agree_in_type(suite, name):
    setting = get_type_hints(catalogue.load_suite(suite).Setting)
    technique = get_type_hints(installed(name))
    shared = {f.name for f in dataclasses.fields(installed(name))} & setting.keys()
    assert {key: technique[key] for key in shared} == {key: setting[key] for key in shared}


def test_no_axis_or_option_is_called_like_a_root_key():
    taken = {*ROOT_KEYS, *INTERNAL_KEYS}
    for suite in catalogue.suites():
        assert not taken & set(get_type_hints(catalogue.load_suite(suite).Setting)), suite
    for name in members():
        if not catalogue.missing_packages(name):
            names = {field.name for field in dataclasses.fields(catalogue.load(name))}
            assert not taken & names, name


def test_root_keys_are_those_of_the_configuration():
    config = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text(encoding="utf-8"))
    groups = {key for entry in config["defaults"] if isinstance(entry, dict) for key in entry}
    groups = {key for key in groups if not key.startswith("override ")}
    assert set(ROOT_KEYS) == (set(config) | groups) - INTERNAL_KEYS


@pytest.mark.parametrize("path", SOURCES, ids=told)
def test_nothing_unsafe_or_global_is_used(path):
    assert not {name.partition(".")[0] for name in imports(path)} & FORBIDDEN_MODULES
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.Global), f"line {node.lineno}: global"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in FORBIDDEN_CALLS | FORBIDDEN_METHODS, (
                f"line {node.lineno}: {called}"
            )
            assert "allow_pickle" not in {k.arg for k in node.keywords}, f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=told)
def test_nothing_is_left_for_later_and_names_say_what_is_inside(path):
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text(encoding="utf-8"))
    assert not set(re.split(r"[_/.]", told(path))) & FORBIDDEN_NAMES


def test_no_file_names_a_place_of_one_machine():
    kinds = {".py", ".yaml", ".toml", ".md", ".lock", ".html", ".css", ".js", ".json", ".txt"}
    rooms = [ROOT / room for room in (*ROOMS, "tests", ".ci")]
    files = [path for room in rooms for path in room.rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    for path in files:
        if path.suffix in kinds or path.name in ("Makefile", "run"):
            found = re.search(r"/(home|root|work|Users)/\w", path.read_text(encoding="utf-8"))
            assert not found, told(path)


def requirements():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def test_every_requirement_is_pinned_exactly():
    for line in requirements():
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+( *;.+)?", line), line
    names = [line.partition("==")[0].lower().replace("_", "-") for line in requirements()]
    assert len(set(names)) == len(names)


def test_the_lock_pins_torch_and_names_no_address():
    assert "torch==2.13.0" in [re.split(r"[+; ]", line)[0] for line in requirements()]
    assert "://" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_the_lock_holds_every_package_the_project_asks_for():
    names = {line.partition("==")[0].lower().replace("_", "-") for line in requirements()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["peers"]]
    asked += project["optional-dependencies"]["dev"]
    for requirement in asked:
        name = re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")
        assert name in names, requirement
