"""A run as files: one offline HTML page, markdown with figures, CSV and parquet."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.card import Card, Suite
from harness.gate.labels import short_labels
from harness.record import Record
from harness.report import overview
from harness.report.doubts import warnings
from harness.report.frame import frame, sample_frame
from harness.report.pareto import pareto
from harness.report.payload import fitted, payload
from harness.report.plots import plots
from harness.report.render import template
from harness.report.strips import strips
from harness.report.svg import Plot
from harness.report.tables import Table, build
from harness.report.trust import UNTOLD, told
from harness.selfcheck import Selfcheck

MOST_BYTES = 4_900_000  # of the page
_SECTION_BYTES = 3_200_000  # of it for the suites' tables and figures
_IN_VIEW = 4  # figures of a suite; the others are folded


@dataclass(frozen=True)
class Section:
    """One suite of the page."""

    table: Table
    plots: tuple[Plot, ...]
    left_out: int = 0  # rows that the page has no room for

    @cached_property
    def strips(self) -> dict[str, dict[str, str]]:
        """Where values and intervals lie in their columns."""
        return strips(self.table)

    @property
    def in_view(self) -> tuple[Plot, ...]:
        """The most telling figures."""
        return self.plots[:_IN_VIEW]

    @property
    def folded(self) -> tuple[Plot, ...]:
        """The other figures."""
        return self.plots[_IN_VIEW:]

    @property
    def outcomes(self) -> dict[str, int]:
        """How often each outcome occurred."""
        return overview.outcomes([row.record for row in self.table.rows])

    @property
    def techniques(self) -> int:
        """How many techniques took part."""
        return len({row.record.technique for row in self.table.rows})

    @property
    def settings(self) -> int:
        """How many settings they were asked for."""
        return len({row.group for row in self.table.rows})

    @property
    def axes(self) -> str:
        """What the settings differ in."""
        return overview.axes_text(self.table)

    @property
    def headline(self) -> str:
        """Who was best."""
        return overview.headline(self.table)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A run and what is known about it."""

    records: Sequence[Record]
    suites: Mapping[str, Suite]
    cards: Mapping[str, Card]
    title: str
    run: str
    missing: int = 0  # cells of the plan without a record
    selfcheck: Selfcheck | None = None  # of the gate on the run's machine

    def write(self, out: Path) -> None:
        """Write the report into the folder `out`, which is made if missing.

        - `index.html`: everything in one file that loads nothing;
        - `index.md` with `figures/*.svg`: tables and figures for a repository or a pull request;
        - `results.csv`, `results.parquet`: one row per cell and metric (`frame`);
        - `samples.parquet`: one row per raw sample (`sample_frame`).

        Records of suites or techniques without a header are shown with what they know themselves.
        """
        sections = _sections(self.records, self.suites)
        (out / "figures").mkdir(parents=True, exist_ok=True)
        (out / "index.html").write_text(self._page(sections), encoding="utf-8")
        text = template("index.md").render(self._context(sections))
        (out / "index.md").write_text(text, encoding="utf-8")
        for section in sections:
            for plot in section.plots:
                (out / "figures" / f"{plot.slug}.svg").write_text(plot.file, encoding="utf-8")
        results = frame(self.records)
        results.to_csv(out / "results.csv", index=False)
        results.to_parquet(out / "results.parquet", index=False)
        sample_frame(self.records).to_parquet(out / "samples.parquet", index=False)

    def _context(self, sections: Sequence[Section]) -> dict[str, Any]:
        records = self.records
        return {
            "title": self.title, "run": self.run, "records": records, "sections": sections,
            "outcomes": overview.outcomes(records), "facts": overview.facts(records),
            "failures": overview.failures(records), "warnings": warnings(records),
            "wall_s": sum(record.wall_s for record in records),
            "missing": self.missing, "trust": told(self.selfcheck) if self.selfcheck else UNTOLD,
            "most_failures": overview.MOST_FAILURES,
            "names": dict(zip([r.cell_id for r in records], short_labels(records), strict=True)),
        }  # fmt: skip

    def _page(self, sections: Sequence[Section]) -> str:
        """The page, without what would make it larger than `MOST_BYTES`."""
        suite = template("suite.html")
        parts = [suite.render(section=section) for section in sections]
        size = sum(len(part.encode()) for part in parts)
        if size > _SECTION_BYTES:
            share = _room(sections) / (size - sum(_size(one.plots) for one in sections))
            sections = [_cut(section, share) for section in sections]
            parts = [suite.render(section=section) for section in sections]
        head = template("index.html")
        context = self._context(sections) | {"parts": parts, "data": "", "left_out": []}
        room = MOST_BYTES - len(head.render(context).encode())
        tables = [section.table for section in sections]
        data, left_out = fitted(payload(tables, self.cards), room)
        return head.render(context | {"data": data, "left_out": left_out})


def write_report(
    records: Sequence[Record],
    suites: Mapping[str, Suite],
    cards: Mapping[str, Card],
    out: Path,
    *,
    title: str,
    run: str,
) -> None:
    """Write the report of a run into the folder `out` (`Report.write`)."""
    Report(records=records, suites=suites, cards=cards, title=title, run=run).write(out)


def _sections(records: Sequence[Record], suites: Mapping[str, Suite]) -> list[Section]:
    """One section per suite that has records: in the order of `suites`, then the unknown ones."""
    members: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        members[record.suite].append(record)
    names = dict.fromkeys([*(name for name in suites if name in members), *members])
    tables = [build(name, members[name], suites.get(name)) for name in names]
    return [Section(table, _plots(table, tables)) for table in tables]


def _plots(table: Table, tables: Sequence[Table]) -> tuple[Plot, ...]:
    """Quality against cost first: it answers what most readers came to ask."""
    return (*pareto(table, tables), *plots(table))


def _room(sections: Sequence[Section]) -> float:
    """Bytes for the rows where only the figures in view stay."""
    return 0.95 * _SECTION_BYTES - sum(_size(section.in_view) for section in sections)


def _size(plots: Sequence[Plot]) -> int:
    return sum(len(plot.inline) for plot in plots)


def _cut(section: Section, share: float) -> Section:
    """The section with its first rows alone, and fewer figures: results.csv has all of it."""
    rows = section.table.rows[: max(1, int(min(share, 1) * len(section.table.rows)))]
    left_out = len(section.table.rows) - len(rows)
    return Section(replace(section.table, rows=rows), section.in_view, left_out)
