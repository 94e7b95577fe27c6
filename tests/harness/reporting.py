"""Records as a run would have left them, for the tests of the report."""

import numpy as np

from harness.card import Card, Metric, Suite
from harness.cell import digest
from harness.record import Quantity, Record
from harness.statistics import summarise

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>"
SPEED = Suite(
    title="Speed",
    question="Which is fastest?",
    families=("toys",),
    baseline="toys/plain",
    metrics=(Metric(name="seconds", unit="s", better="lower", kind="timing"),),
)
QUALITY = Suite(
    title="Quality",
    question="Which is best?",
    families=("toys",),
    baseline="",
    metrics=(Metric(name="score", unit="1", better="higher", kind="quality"),),
)
SUITES = {"quality": QUALITY, "speed": SPEED}
CARD = Card(cls="Plain", title="Plain", paper="arXiv:1234.5678", year=2020, summary="Does it.")


def seconds(centre, n=20, **fields):
    samples = (centre * np.random.default_rng(0).lognormal(0, 0.05, n)).tolist()
    value, low, high = summarise(samples)
    return Quantity(value=value, low=low, high=high, samples=samples,
                    unit="s", better="lower", kind="timing", **fields)  # fmt: skip


def score(value):
    return Quantity(value=value, unit="1", better="higher", kind="quality")


def record(suite, technique, metrics=None, setting=None, *, outcome="ok", **fields):
    setting = setting or {}
    defaults = {"options": {}, "environment": {}, "command": f"llmatrix run technique={technique}"}
    return Record(
        cell_id=digest([suite, technique, setting]), run="r", suite=suite, technique=technique,
        setting=setting, code="c", world=1, device="cpu", outcome=outcome, metrics=metrics or {},
        started="2026-01-01T00:00:00Z", wall_s=1.0, **defaults | fields,
    )  # fmt: skip


def some_records():
    times = {"toys/plain": 3e-3, "toys/fast": 1e-3, "toys/peers/rival": 2e-3}
    cells = [record("speed", name, {"seconds": seconds(t)}) for name, t in times.items()]
    cells += [record("quality", name, {"score": score(t * 100)}) for name, t in times.items()]
    return [*cells, record("speed", "toys/broken", outcome="failed", reason=HOSTILE,
                           log_tail=HOSTILE, options={"note": HOSTILE})]  # fmt: skip
