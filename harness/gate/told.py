"""A comparison told to people: verdicts first, as a table that terminals and forges both show."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from tabulate import tabulate

from harness.comparison import Compared, Comparison
from harness.gate.ending import counts
from harness.gate.labels import short_labels
from harness.gate.sides import Judged
from harness.record import Record
from harness.report.compared import change_text
from harness.report.markdown import escape_markdown
from harness.report.quantities import quantity, ratio_interval, scale
from harness.verdict import Verdict

MARKS: dict[Verdict, str] = {
    "regressed": "❌ regressed",
    "improved": "✅ improved",
    "unresolved": "❔ unresolved",
    "equivalent": "🟰 equivalent",
}
LONGEST = 60_000  # characters; a forge refuses a comment of more than 65,536
_SMALLEST_P = 1e-9  # smaller ones say nothing more
_SHOWN = 5  # cells of a list in a line


def report(judged: Judged, *, every: bool = False) -> str:
    """The whole answer for a terminal; rows that are equivalent only if `every` is asked for."""
    told = judged.comparison
    rows = [row for row in told.rows if every or row.change.verdict != "equivalent"]
    parts = [headline(told), *(f"warning: {warning}" for warning in told.warnings)]
    parts += [table(rows)] if rows else []
    parts += list(_left_out(told, len(told.rows) - len(rows)))
    parts += [doubt] if (doubt := unconfirmed(judged)) else []
    return "\n\n".join(parts)


def markdown(judged: Judged, *, longest: int = LONGEST) -> str:
    """The same for a pull request, cut to what a forge takes."""
    told = judged.comparison
    parts = [f"### llmatrix: {headline(told)}"]
    parts += [f"> ⚠️ {escape_markdown(warning)}" for warning in told.warnings]
    after = [*_left_out(told, _count_equivalent(told))]
    after += [doubt] if (doubt := unconfirmed(judged)) else []
    rows = [row for row in told.rows if row.change.verdict != "equivalent"]
    room = longest - sum(len(part) + 2 for part in (*parts, *after))
    shown = table(rows) if rows else ""
    if len(shown) > room:
        kept = max(0, (room - 200) * len(rows) // len(shown) - 2)  # its note and header need room
        note = f"… and {len(rows) - kept} more rows: the table was cut to what a forge shows"
        shown = f"{table(rows[:kept])}\n\n{note}" if kept else note
    return "\n\n".join(part for part in (*parts, shown, *after) if part)[: longest - 1] + "\n"


def headline(comparison: Comparison) -> str:
    """How many of each verdict, and the change over all timings."""
    found = [f"{count} {verdict}" for verdict, count in counts(comparison).items() if count]
    found += [f"{len(comparison.broken)} broken"] if comparison.broken else []
    told = ", ".join(found) or "nothing to compare"
    line = f"{comparison.candidate} against {comparison.baseline}: {told}"
    if comparison.overall is None:
        return line
    return f"{line}; times {ratio_interval(comparison.overall)} of the baseline's (geometric mean)"


def table(rows: Sequence[Compared]) -> str:
    """Rows in GitHub's markdown; the last column only where a reason has to be told."""
    names = short_labels([row.candidate for row in rows])
    headers = ["verdict", "cell", "metric", "baseline", "candidate", "change", "p", "why"]
    lines = [
        [
            MARKS[row.change.verdict],
            name,
            row.metric,
            *(_figure(row, value) for value in (row.change.baseline, row.change.candidate)),
            _change(row),
            _p_text(row.change.p),
            row.change.reason,
        ]
        for row, name in zip(rows, names, strict=True)
    ]
    if not any(line[-1] for line in lines):
        headers, lines = headers[:-1], [line[:-1] for line in lines]
    escaped = [[escape_markdown(text) for text in line] for line in lines]
    return tabulate(escaped, headers=headers, tablefmt="github", disable_numparse=True)


def sentence(row: Compared) -> str:
    """What happened to one metric, in a line."""
    change = row.change
    low, high = _figure(row, change.baseline), _figure(row, change.candidate)
    line = f"{row.metric} {change.verdict}: {low} → {high}, {_change(row)}"
    line += f", margin {change.margin:.2g}"
    return f"{line}; {change.reason}" if change.reason else line


def details(row: Compared) -> str:
    """Everything that is known of one row, as lines."""
    facts = {**asdict(row.change), "command": row.candidate.command}
    return "\n".join(f"{key}: {value}" for key, value in facts.items() if value not in (None, ""))


def unconfirmed(judged: Judged) -> str:
    """Why a regression that was found may still be an accident; empty where there is none."""
    if judged.confirmed or not counts(judged.comparison)["regressed"]:
        return ""
    if judged.live:
        return "not confirmed by a second measurement: `llmatrix check --git` confirms"
    return (
        "not confirmed: these are stored records; "
        "`llmatrix check --git A B ...` measures both revisions anew"
    )


def _left_out(comparison: Comparison, n_equivalent: int) -> Iterator[str]:
    if n_equivalent:
        widest = comparison.rule.margin_of("timing")
        yield f"{n_equivalent} equivalent within {widest:.2g} not shown"
    if comparison.broken:
        lines = [
            f"- {candidate.label}: {candidate.outcome}: {candidate.reason}; "
            f"again: `{candidate.command}`"
            for _, candidate in comparison.broken
        ]
        yield "\n".join(["broken, ok in the baseline:", "", *lines[:50], *_more(lines, 50)])
    if comparison.mended:
        mended = [new for _, new in comparison.mended]
        yield f"mended, not ok in the baseline ({len(mended)}): {_some(mended)}"
    for side, records in (
        (comparison.baseline, comparison.only_baseline),
        (comparison.candidate, comparison.only_candidate),
    ):
        if records:
            yield f"only in {side} ({len(records)}): {_some(records)}"


def _some(records: Sequence[Record]) -> str:
    labels = [record.label for record in records]
    return "; ".join([*labels[:_SHOWN], *_more(labels, _SHOWN)])


def _more(lines: Sequence[str], shown: int) -> list[str]:
    return [f"… and {len(lines) - shown} more"] if len(lines) > shown else []


def _count_equivalent(comparison: Comparison) -> int:
    return counts(comparison)["equivalent"]


def _p_text(p: float | None) -> str:
    if p is None:
        return ""
    return f"{p:.2g}" if p >= _SMALLEST_P else f"< {_SMALLEST_P:g}"


def _change(row: Compared) -> str:
    shown = scale(row.quantity.unit, [row.change.baseline, row.change.candidate])
    return change_text(row.change, shown)


def _figure(row: Compared, value: float) -> str:
    return quantity(row.quantity.unit, value)
