"""The machine's measured ceilings, kept as an artifact: the most arithmetic and traffic a second.

Measured once per machine class, device, element type and number of threads, in a process of its own
that ends by itself after a few seconds. A result that seems to beat them makes a second look, which
is kept too; the better look counts.
"""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.artifacts import Artifacts
from harness.environment import environment, usable_cores

CPUS = Path("/sys/devices/system/cpu")
UNKNOWN_CACHE_BYTES = 64 << 20  # where the system does not say: more than most cores have
_PATIENCE_S = 120.0  # it takes some ten seconds on a machine busy with other work


class CeilingError(RuntimeError):
    """A ceiling cannot be measured here; says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """What a ceiling holds for."""

    device: str = "cpu"
    threads: int = 1
    cores: tuple[int, ...] = ()  # it is measured on; (): any


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceiling:
    """The most seen, a second."""

    flops: float
    bandwidth: float  # bytes
    cache_bytes: int  # of the last level; what fits in there need not travel

    def raised(self, other: "Ceiling") -> "Ceiling":
        """The better of two looks."""
        return Ceiling(
            flops=max(self.flops, other.flops),
            bandwidth=max(self.bandwidth, other.bandwidth),
            cache_bytes=max(self.cache_bytes, other.cache_bytes),
        )


def ceiling(artifacts: Artifacts, site: Site, dtype: str, *, looks: int = 1) -> Ceiling:
    """The best of so many looks at the site, each measured where it is not kept yet.

    Raises:
        CeilingError: if it cannot be measured.
    """
    best, *others = (_look(artifacts, site, dtype, number) for number in range(looks))
    for other in others:
        best = best.raised(other)
    return best


def _look(artifacts: Artifacts, site: Site, dtype: str, number: int) -> Ceiling:
    identity = {
        "machine_class": environment()["machine_class"],
        "device": site.device,
        "threads": site.threads,
        "dtype": dtype,
        "torch": importlib.metadata.version("torch"),
        "look": number,
    }

    def build(path: Path) -> None:
        path.write_text(_measured(site, dtype))

    path = artifacts.get("ceilings", identity, build)
    return Ceiling(**json.loads(path.read_text()))


def _measured(site: Site, dtype: str) -> str:
    request = {**asdict(site), "dtype": dtype, "cache_bytes": cache_bytes(site.cores)}
    safe = [] if {"", str(Path.cwd())} & set(sys.path) else ["-P"]  # the same path as ours
    command = [sys.executable, *safe, "-m", "harness.instruments.ceiling_trial"]
    what = f"the ceiling of {dtype} on {site.device}"
    try:
        done = subprocess.run(
            [*command, json.dumps(request)],
            capture_output=True, text=True, check=True, timeout=_PATIENCE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CeilingError(f"{what} was not measured within {_PATIENCE_S:.0f} s") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or "no message").splitlines()[-1]
        raise CeilingError(f"{what} cannot be measured: {last}") from error
    return done.stdout


def kept(artifacts: Artifacts) -> list[str]:
    """A line for each ceiling of this machine that was measured before."""
    machine, lines = environment()["machine_class"], set()
    for path in artifacts.folder.glob("ceilings/*/identity.json"):
        identity = json.loads(path.read_text())
        if identity["machine_class"] == machine:
            most = Ceiling(**json.loads((path.parent / "content").read_text()))
            lines.add(
                f"{identity['dtype']} on {identity['device']}, {identity['threads']} threads: "
                f"{most.flops / 1e9:,.0f} GFLOP/s, memory {most.bandwidth / 1e9:,.0f} GB/s"
            )
    return sorted(lines)


def cache_bytes(cores: Sequence[int] = ()) -> int:
    """Last-level cache of the cores together; of all that may be used where none is named."""
    caches = {}
    for core in cores or usable_cores():
        try:
            last = max((CPUS / f"cpu{core}" / "cache").glob("index*"), key=lambda path: path.name)
            shared = (last / "shared_cpu_list").read_text()
            caches[shared] = _bytes((last / "size").read_text().strip())
        except (OSError, ValueError):
            return UNKNOWN_CACHE_BYTES
    return sum(caches.values())


def _bytes(size: str) -> int:
    """What `32768K` or `32M` means."""
    units = {"K": 10, "M": 20, "G": 30}
    return int(size[:-1]) << units[size[-1]] if size[-1] in units else int(size)
