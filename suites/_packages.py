"""Which releases of the libraries behind a technique or peer were measured."""

from importlib.metadata import packages_distributions, version

from harness import catalogue


def package_versions(name: str) -> dict[str, str]:
    """Versions of the packages the card of this technique or peer asks for."""
    distributions = packages_distributions()
    return {p: version(distributions[p][0]) for p in catalogue.card(name).packages}
