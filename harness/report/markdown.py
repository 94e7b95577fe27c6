"""Tables as GitHub's markdown."""

from tabulate import tabulate

from harness.card import Metric
from harness.report.quantities import Scale, ratio_text
from harness.report.tables import Entry, Row, Table, axis_text

MOST_LINES = 400
_MARKS = {"": "", "best": " ★", "tied": " ≈"}


def markdown(table: Table) -> str:
    """The table in GitHub's markdown; ★ best of its setting, ≈ not told apart from it.

    Of a long table the first rows, since forges do not render long files.
    """
    has_options = table.has_options
    headers = ["technique", *table.axes, *(["options"] if has_options else [])]
    headers += [_header(m, table.scales[m.name]) for m in table.metrics] or ["outcome"]
    lines = []
    for row in table.rows[:MOST_LINES]:
        line = [row.name + " (peer)" * row.is_peer]
        line[0] += " (baseline)" * row.is_baseline
        line += [axis_text(value) for value in row.axes.values()]
        if has_options:
            line.append(" ".join(f"{k}={axis_text(v)}" for k, v in row.options.items()))
        line += _metric_cells(table, row)
        lines.append([escape_markdown(cell) for cell in line])
    text = tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)
    more = len(table.rows) - MOST_LINES
    return text if more <= 0 else f"{text}\n\n… and {more:,} more rows in `results.csv`."


def escape_markdown(text: str) -> str:
    """Text that neither ends a table cell nor opens a tag."""
    for symbol, escaped in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), ("|", "\\|")):
        text = text.replace(symbol, escaped)
    return " ".join(text.split())


def _header(metric: Metric, shown: Scale) -> str:
    arrow = {"higher": " ↑", "lower": " ↓", "neither": ""}[metric.better]
    return escape_markdown(metric.name + (f" ({shown.unit})" if shown.unit else "") + arrow)


def _metric_cells(table: Table, row: Row) -> list[str]:
    if row.record.outcome == "ok":
        names = (metric.name for metric in table.metrics)
        return [_entry(table.scales[n], row.entries[n]) if n in row.entries else "" for n in names]
    reason = f"{row.record.outcome}: {row.record.reason}"
    return [reason, *[""] * (len(table.metrics) - 1)]


def _entry(shown: Scale, entry: Entry) -> str:
    parts = [shown.text(entry.estimate) + _MARKS[entry.mark], shown.interval(entry.estimate)]
    if entry.ratio is not None:
        parts.append(f"({ratio_text(entry.ratio)})")
    return " ".join(part for part in parts if part)
