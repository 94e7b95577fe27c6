"""The page's templates, with the words they need."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape

from harness.report.doubts import flags
from harness.report.markdown import escape_markdown, markdown
from harness.report.quantities import percent, quantity, ratio_text
from harness.report.tables import axis_text

_MINUTES, _HOURS = 120, 7_200  # seconds from which a duration is told in them


@cache
def template(name: str) -> Template:
    """The template of this name; HTML is escaped, whatever a record says."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "axis": axis_text,
        "md": escape_markdown,
        "ratio": ratio_text,
        "percent": percent,
        "count": "{:,}".format,
        "duration": _duration,
    }
    environment.globals |= {"markdown": markdown, "flags": flags}
    return environment


def _duration(seconds: float) -> str:
    if seconds < _MINUTES:
        return quantity("s", seconds)
    return f"{seconds / 60:,.1f} min" if seconds < _HOURS else f"{seconds / 3600:,.1f} h"
