"""A run as files: one offline HTML page, markdown with figures, CSV and parquet."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from harness.card import Card, Suite
from harness.record import Record
from harness.report import overview
from harness.report.details import samples
from harness.report.frame import frame, sample_frame
from harness.report.markdown import escape_markdown, markdown
from harness.report.pareto import pareto
from harness.report.plots import plots
from harness.report.quantities import quantity, ratio_text
from harness.report.svg import Plot
from harness.report.tables import Table, axis_text, build, canonical

LOG_CHARACTERS = 2_000  # of a log tail on the page; the record has the rest


@dataclass(frozen=True, slots=True)
class Section:
    """One suite of the page."""

    table: Table
    plots: tuple[Plot, ...]

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


def write_report(
    records: Sequence[Record],
    suites: Mapping[str, Suite],
    cards: Mapping[str, Card],
    out: Path,
    *,
    title: str,
    run: str,
) -> None:
    """Write the report of a run into the folder `out`, which is made if missing.

    - `index.html`: everything in one file that loads nothing;
    - `index.md` with `figures/*.svg`: tables and figures for a repository or a pull request;
    - `results.csv`, `results.parquet`: one row per cell and metric (`frame`);
    - `samples.parquet`: one row per raw sample (`sample_frame`).

    Records of suites or techniques without a header are shown with what they know themselves.
    """
    sections = _sections(records, suites)
    context = {
        "title": title, "run": run, "records": records, "sections": sections, "cards": cards,
        "outcomes": overview.outcomes(records), "facts": overview.facts(records),
        "warnings": overview.warnings(records), "wall_s": sum(r.wall_s for r in records),
    }  # fmt: skip
    templates = _templates()
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name in ("index.html", "index.md"):
        text = templates.get_template(name).render(context)
        (out / name).write_text(text, encoding="utf-8")
    for section in sections:
        for plot in section.plots:
            (out / "figures" / f"{plot.slug}.svg").write_text(plot.file, encoding="utf-8")
    results = frame(records)
    results.to_csv(out / "results.csv", index=False)
    results.to_parquet(out / "results.parquet", index=False)
    sample_frame(records).to_parquet(out / "samples.parquet", index=False)


def _sections(records: Sequence[Record], suites: Mapping[str, Suite]) -> list[Section]:
    """One section per suite that has records: in the order of `suites`, then the unknown ones."""
    members: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        members[record.suite].append(record)
    names = dict.fromkeys([*(name for name in suites if name in members), *members])
    tables = [build(name, members[name], suites.get(name)) for name in names]
    return [Section(table, tuple(_plots(table, tables))) for table in tables]


def _plots(table: Table, tables: Sequence[Table]) -> Iterable[Plot]:
    trade_off = pareto(table, tables)
    return [*plots(table), *([trade_off] if trade_off else [])]


def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "axis": axis_text,
        "md": escape_markdown,
        "ratio": ratio_text,
        "log_tail": lambda text: text[-LOG_CHARACTERS:],
        "plain": lambda value: value if isinstance(value, str) else canonical(value),
    }
    templates.globals |= {"markdown": markdown, "quantity": quantity, "samples": samples}
    return templates
