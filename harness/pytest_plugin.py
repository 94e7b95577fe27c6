"""A gate for any project's functions: `pytest --llmatrix-baseline=origin/main`.

  def test_sort_is_fast(gate):
      gate(lambda: sorted(data))
      gate(sort_in_place, setup=data.copy)      # called with a fresh copy each time

Without a baseline the function is timed and the figures join the test's report. With a revision
each such test runs in two processes, one in a worktree of the revision and one here, which take
turns; the test fails if it regressed. A file of `--llmatrix-save` can be the baseline too.

Where no test asks for `gate`, nothing but the standard library and pytest is imported.
"""

import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.gate.child import Answer
    from harness.gate.functions import Gate

CHILD = "LLMATRIX_GATE"  # tells the process of one side where to take turns and leave samples
PLUGIN = "harness.pytest_plugin"
KEY = pytest.StashKey[dict[str, Any]]()
_GATES = pytest.StashKey["Gate | Answer"]()
_SHOWN = {"regressed": "failed", "unresolved": "warning", "improved": "note", "equivalent": ""}


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the gate."""
    group = parser.getgroup("llmatrix", "performance gate (llmatrix)")
    group.addoption(
        "--llmatrix-baseline",
        metavar="REV|FILE",
        help="what gated functions are compared with: a git revision, measured in turns with "
        "the working tree, or a file of --llmatrix-save",
    )
    group.addoption("--llmatrix-save", metavar="FILE", type=Path, help="keep the samples as JSON")
    group.addoption(
        "--llmatrix-rounds", metavar="N", type=_rounds, default=60, help="samples a test (60)"
    )
    group.addoption(
        "--llmatrix-margin",
        metavar="SHARE",
        type=_share,
        default=0.01,
        help="change that does not matter (0.01); never below what selfcheck found as this "
        "machine's noise",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Look the baseline up, and keep samples in the process that sees all reports."""
    if CHILD in os.environ:
        return
    if config.getoption("--llmatrix-baseline"):
        _gates(config)
    path = config.getoption("--llmatrix-save")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Keeper(path))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the worktree, where there is one."""
    if (made := config.stash.get(_GATES, None)) is not None:
        made.close()


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`gate(work)`: time a function without arguments, once a test; returns what it returned.

    `gate(work, setup=make)` calls `work(make())` and times the outer call only.
    """
    made = _gates(request.config)

    def measure(work: Callable[..., Any], *, setup: Callable[[], Any] | None = None) -> Any:
        if KEY in request.node.stash:
            raise pytest.UsageError("gate() was called twice in one test: make it two tests")
        result, found = made.measure(request.node, work, setup)
        request.node.stash[KEY] = found
        request.node.user_properties += [
            (f"llmatrix_{key}", value)
            for key, value in found.items()
            if key not in ("samples", "generations")
        ]
        if found.get("verdict") == "regressed":
            pytest.fail(found["told"], pytrace=False)
        return result

    return measure


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the figures travel with the report, from xdist's workers too."""
    report = yield
    if call.when == "call" and KEY in item.stash:
        vars(report)["llmatrix"] = item.stash[KEY]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each gated test that has something to say."""
    reports = [
        report
        for group in terminalreporter.stats.values()
        for report in group
        if getattr(report, "llmatrix", None)
    ]
    if not reports:
        return
    terminalreporter.section("llmatrix")
    for report in reports:
        found = report.llmatrix
        word = _SHOWN.get(found.get("verdict", ""), "")
        terminalreporter.line(": ".join(filter(None, (word, report.nodeid, found["told"]))))
    if any(getattr(report, "node", None) for report in reports):
        terminalreporter.line("warning: tests of several workers disturb one another: use -n0")


def _gates(config: pytest.Config) -> "Gate | Answer":
    """What the fixture measures with, made at its first use."""
    if (made := config.stash.get(_GATES, None)) is None:
        made = config.stash[_GATES] = _make(config)
    return made


def _make(config: pytest.Config) -> "Gate | Answer":
    if CHILD in os.environ:
        from harness.gate.child import Answer

        return Answer()
    from harness.errors import UsageError
    from harness.gate.functions import Gate

    try:
        return Gate(config)
    except UsageError as error:
        raise pytest.UsageError(f"--llmatrix-baseline: {error}") from error


class _Keeper:
    """Collects samples and writes them at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember what a gated test measured."""
        if found := getattr(report, "llmatrix", None):
            self._tests[report.nodeid] = {key: found[key] for key in ("samples", "generations")}

    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        from harness.gate.saved import save

        save(self._path, self._tests)


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 10:
        raise pytest.UsageError(f"--llmatrix-rounds must be 10 or more, got {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise pytest.UsageError(
            f"--llmatrix-margin must be between 0 and 1 (0.01 is one per cent), got {text!r}"
        )
    return value
