"""Whatever a cell does, it ends as one outcome with a reason, and leaves nothing behind."""

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.cell import Cell
from harness.errors import UsageError
from harness.generations import Course, measure_together
from harness.isolate import Ending, Limits, Place
from harness.server import ForkServer, StoppedError

FIXTURES = Path(__file__).parents[1] / "fixtures"
PLUGINS = os.pathsep.join(str(FIXTURES / name) for name in ("plugin", "odd"))
CORES = sorted(os.sched_getaffinity(0))


def run_cell(
    cell: Cell, server: ForkServer, cores: Sequence[int], limits: Limits, scratch: Path
) -> Ending:
    place = Place(server=server, cores=cores, limits=limits)
    (measured,) = measure_together([Course(cell, scratch, place)], generations=1)
    assert measured is not None
    assert not measured.relay
    return measured.ending


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with serving("trial/behave", "odd/behave") as server:
        yield server


@pytest.fixture(scope="module")
def torch_server() -> Iterator[ForkServer]:
    with serving("trial/behave", "odd/behave", "odd/with_torch") as server:
        yield server


@contextmanager
def serving(*techniques: str) -> Iterator[ForkServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PLUGINS)
        server = ForkServer(suites=["trial", "odd"], techniques=techniques, threads=1)
        yield server
        server.close()


@pytest.fixture
def run(server: ForkServer, tmp_path: Path) -> Any:
    def run(action: str, size: int = 1, **limits: Any) -> Ending:
        cell = trial_cell(action, size)
        return run_cell(cell, server, CORES, Limits(**limits), tmp_path / "scratch")

    return run


@pytest.fixture
def run_odd(server: ForkServer, tmp_path: Path) -> Any:
    def run(action: str, **limits: Any) -> Ending:
        cell = odd_cell(action, path=str(tmp_path / "trace"))
        return run_cell(cell, server, CORES, Limits(**limits), tmp_path / "scratch")

    return run


@pytest.fixture
def run_with_torch(torch_server: ForkServer, tmp_path: Path) -> Any:
    def run(cell: Cell, **limits: Any) -> Ending:
        return run_cell(cell, torch_server, CORES, Limits(**limits), tmp_path / "scratch")

    return run


def trial_cell(action: str = "ok", size: int = 1, world: int = 1) -> Cell:
    options = {"action": action, "size": size}
    names = {"suite": "trial", "technique": "trial/behave"}
    return Cell(**names, options=options, setting={"world": world}, code="0", world=world)


def odd_cell(action: str, size: int = 600, path: str = "", world: int = 1) -> Cell:
    options = {"action": action, "size": size, "path": path}
    names = {"suite": "odd", "technique": "odd/behave"}
    return Cell(**names, options=options, setting={"world": world}, code="0", world=world)


def test_measured_cell_returns_metrics_notes_and_what_it_used(run: Any) -> None:
    ending = run("ok", 7)
    assert (ending.outcome, ending.reason) == ("ok", "")
    assert ending.metrics == {"returned": 7.0, "sampled": [1.0, 2.0, 3.0]}
    assert ending.notes == {"n": 0}
    assert ending.measured_s >= 0
    assert ending.cpu_s > 0
    assert ending.peak_rss_bytes > 2**20


@pytest.mark.parametrize(
    ("action", "outcome", "reason"),
    [
        ("not_a_number", "failed", "ValueError: metric returned is nan, not a finite number"),
        ("raise", "failed", "ValueError: size 1 is not to my liking"),
        ("exit", "failed", "the cell called sys.exit(3)"),
        ("hard_exit", "crashed", "exited with status 9 before it wrote a result"),
        ("segfault", "crashed", "ended by signal SIGSEGV"),
        ("no_such_action", "failed", "AttributeError: 'Behave' object has no attribute"),
    ],
)
def test_misbehaviour_is_an_outcome_with_its_reason(
    run: Any, action: str, outcome: str, reason: str
) -> None:
    ending = run(action)
    assert ending.outcome == outcome
    assert ending.reason.startswith(reason)
    assert run("ok").outcome == "ok"


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("undeclared", "ValueError: metrics declared and returned differ in: extra"),
        ("missing", "ValueError: metrics declared and returned differ in: returned"),
        ("no_samples", "ValueError: metric returned has no samples"),
        ("surrogate", "ValueError: not Unicode: \\udc80"),
        ("long_reason", "ValueError: xxxxxxxxxx"),
        ("note_nan", "ValueError: Out of range float values"),
        ("note_object", "TypeError: Object of type object is not JSON serializable"),
        ("note_surrogate", "UnicodeEncodeError: "),
    ],
)
def test_result_that_no_record_can_hold_is_a_failure(
    run_odd: Any, action: str, reason: str
) -> None:
    ending = run_odd(action)
    assert ending.outcome == "failed"
    assert ending.reason.startswith(reason)
    assert len(ending.reason) <= 500
    ending.reason.encode()


def test_traceback_of_a_segfault_is_in_the_log(run: Any) -> None:
    log = run("segfault").log_tail
    assert "about to read address 0" in log
    assert "Fatal Python error: Segmentation fault" in log
    assert "behave.py" in log


def test_log_keeps_its_end(run_odd: Any) -> None:
    assert run_odd("chatter").log_tail.rstrip().endswith("ValueError: enough said")


def test_memory_past_the_limit_is_oom(run: Any) -> None:
    ending = run("hog", 600, memory_bytes=200 * 2**20)
    assert (ending.outcome, ending.reason) == ("oom", "MemoryError: no message")
    assert ending.peak_rss_bytes < 600 * 2**20


def test_memory_that_torch_cannot_get_is_oom(run_with_torch: Any) -> None:
    ending = run_with_torch(odd_cell("hog_torch"), memory_bytes=400 * 2**20)
    assert ending.outcome == "oom", ending


def test_last_words_of_a_native_library_tell_oom_from_a_crash(run_odd: Any) -> None:
    ending = run_odd("hog_native", memory_bytes=200 * 2**20)
    assert ending.outcome == "oom"
    assert ending.reason == "past 0.209715 GB of memory, ended by signal SIGABRT"
    assert run_odd("hog_native").outcome == "crashed"  # no limit was set


def test_memory_below_the_limit_is_fine(run: Any) -> None:
    assert run("hog", 100, memory_bytes=200 * 2**20).outcome == "ok"


def test_cell_past_its_time_ends_with_its_grandchildren(run_odd: Any) -> None:
    begun = time.monotonic()
    ending = run_odd("sleep_with_grandchild", time_s=1.0)
    assert time.monotonic() - begun < 20
    assert (ending.outcome, ending.reason) == ("timeout", "ran past 1 s")
    pids = [int(pid) for pid in ending.log_tail.split()]
    assert len(pids) == 2
    until_ended(pids)


def test_time_limit_too_short_to_begin_is_a_timeout_and_leaves_the_server(
    run: Any, server: ForkServer
) -> None:
    server.start()
    pid = server.pid
    assert {run("sleep", 60, time_s=1e-6).outcome for _ in range(10)} == {"timeout"}
    assert server.pid == pid


def test_children_left_behind_are_killed(run: Any) -> None:
    ending = run("leave_children", 60)
    assert ending.outcome == "ok"
    until_ended([int(ending.metrics["returned"])])


@pytest.mark.parametrize(
    ("action", "limits", "outcome", "number"),
    [("leave_daemons", {}, "failed", 3), ("wait_for_daemon", {"time_s": 1.0}, "timeout", 1)],
)
def test_children_in_sessions_of_their_own_are_killed_too(
    run_odd: Any, action: str, limits: dict[str, float], outcome: str, number: int
) -> None:
    ending = run_odd(action, **limits)
    assert ending.outcome == outcome
    pids = [int(line) for line in ending.log_tail.splitlines() if line.isdigit()]
    assert len(pids) == number
    until_ended(pids)


def test_closing_the_server_ends_what_is_in_flight(tmp_path: Path) -> None:
    scratch, stopped = tmp_path / "scratch", threading.Event()

    def run(server: ForkServer) -> None:
        with pytest.raises(StoppedError):
            run_cell(odd_cell("wait_for_daemon"), server, CORES, Limits(), scratch)
        stopped.set()

    with serving() as server:
        threading.Thread(target=run, args=[server]).start()
        log = scratch / "log"
        while not (log.exists() and (pid := log.read_text()).endswith("\n")):
            time.sleep(0.01)
    assert stopped.wait(20)
    until_ended([int(pid)])


def test_ranks_meet_over_gloo(run_with_torch: Any) -> None:
    assert run_with_torch(trial_cell("sum_over_ranks", world=2)).metrics["returned"] == 3.0


def test_failing_rank_ends_the_others_at_once(run_with_torch: Any) -> None:
    begun = time.monotonic()
    ending = run_with_torch(trial_cell("rank_one_fails", world=2))
    assert ending.outcome == "failed"
    assert ending.reason == "rank 1: ValueError: rank 1 has had enough"
    assert time.monotonic() - begun < 30  # rank 0 would sleep for 60 s


@pytest.mark.parametrize(
    ("action", "outcome", "reason"),
    [
        ("rank_one_segfaults", "crashed", "rank 1: ended by signal SIGSEGV"),
        ("rank_one_leaves_reduction", "failed", "rank 1: ValueError: rank 1 has had enough"),
    ],
)
def test_rank_that_failed_first_is_named(
    run_with_torch: Any, action: str, outcome: str, reason: str
) -> None:
    ending = run_with_torch(odd_cell(action, world=2))
    assert (ending.outcome, ending.reason) == (outcome, reason)


def test_killed_server_is_replaced_and_its_cell_tried_again(
    run_odd: Any, server: ForkServer
) -> None:
    server.start()
    before = server.pid
    assert run_odd("kill_server_once").outcome == "ok"
    assert server.pid != before


def test_cell_that_keeps_killing_the_server_is_a_row_and_leaves_no_children(
    run_odd: Any, tmp_path: Path
) -> None:
    ending = run_odd("kill_server_with_child")
    assert (ending.outcome, ending.reason) == ("crashed", "its fork server died 3 times")
    pids = [int(pid) for pid in (tmp_path / "trace").read_text().split()]
    assert len(pids) == 3
    until_ended(pids)
    assert run_odd("ok").outcome == "ok"


def test_cuda_cell_runs_in_a_fresh_interpreter(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = replace(trial_cell("ok", 7), device="cuda")  # the technique itself needs no device
    assert run_cell(cell, server, CORES, Limits(), tmp_path).metrics["returned"] == 7


def test_closed_server_stops_its_cells() -> None:
    server = ForkServer(threads=1)
    server.close()
    with pytest.raises(StoppedError):
        server.connect()


@pytest.mark.parametrize("module", ["prints", "exits", "crashes", "breaks"])
def test_import_that_misbehaves_is_left_to_its_cell(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", PLUGINS)
    server = ForkServer(suites=["trial"], techniques=[f"odd/{module}", "trial/behave"], threads=1)
    try:
        ending = run_cell(trial_cell(), server, CORES, Limits(), tmp_path)
    finally:
        server.close()
    assert ending.outcome == "ok"


SHORT_LIVED = """
import os, pathlib, signal
left = pathlib.Path(__file__).with_name("left")
if n := int(left.read_text()):
    left.write_text(str(n - 1))
    END
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(("end", "times"), [(KILL, 11), ("os._exit(3)", 3)])
def test_server_that_is_ended_again_and_again_at_its_start_is_started_again(
    end: str, times: int, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SHORT_LIVED.replace("END", end))
    (tmp_path / "left").write_text(str(times))
    server = ForkServer(threads=1, sources=tmp_path)
    try:
        server.start()
        assert server.pid
    finally:
        server.close()
    assert (tmp_path / "left").read_text() == "0"


@pytest.mark.parametrize(
    ("end", "why"), [(KILL, "killed by signal 9"), ("os._exit(3)", "it exited with status 3")]
)
def test_server_that_never_starts_ends_the_run_with_a_reason(
    end: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SHORT_LIVED.replace("END", end))
    (tmp_path / "left").write_text("1000")
    server = ForkServer(threads=1, sources=tmp_path)
    with pytest.raises(UsageError, match=f"again and again: {why}"):
        server.start()
    server.close()


def test_files_of_the_working_folder_do_not_shadow_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "suites").mkdir()
    for name in ("random.py", "suites/__init__.py"):
        (tmp_path / name).write_text("raise ValueError('not meant')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in sys.path if p not in {"", "."}])
    monkeypatch.setenv("PYTHONPATH", PLUGINS)
    server = ForkServer(suites=["trial"], techniques=["trial/behave"], threads=1)
    try:
        ending = run_cell(trial_cell(), server, CORES, Limits(), tmp_path / "scratch")
    finally:
        server.close()
    assert ending.outcome == "ok"


@pytest.mark.parametrize("time_s", [0, -1, float("nan"), float("inf")])
def test_time_limit_must_be_a_time(time_s: float) -> None:
    with pytest.raises(ValueError, match="time_limit_s must be above 0"):
        Limits(time_s=time_s)


@pytest.mark.parametrize("memory_bytes", [-1, 2**64])
def test_memory_limit_must_be_an_amount(memory_bytes: int) -> None:
    with pytest.raises(ValueError, match="memory_limit_gb must be from 0"):
        Limits(memory_bytes=memory_bytes)


def until_ended(pids: list[int]) -> None:
    """Killed processes go when the kernel gets to it."""
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    alive = [p for p in psutil.wait_procs(processes, timeout=20)[1] if running(p)]
    assert not alive


def running(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
