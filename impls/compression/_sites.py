"""Layers that read the same input, and where a scale of their input's channels goes.

    y = W x = (W diag(s)) (x / s)

The division is folded into what computes x where that feeds these layers alone; else an input map
keeps it. Layers whose surroundings are not known by name stand alone, with a map. C channels.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from impls.compression._folds import safe_folds
from impls.compression._hosts import blocks_of
from impls.compression._inputs import ChannelScale
from impls.compression._layer import Around, CompressedLinear, Parts


@dataclass(frozen=True)
class Site:
    """Chosen layers that read the same input.

    Attributes:
        linears: the layers by their names in the model.
        source: name of the norm or linear layer that can take the division, or None.
        normed: whether their input comes from a norm.
    """

    linears: Mapping[str, nn.Linear]
    source: str | None = None
    normed: bool = True


def sites_of(model: nn.Module, chosen: Mapping[str, nn.Linear]) -> list[Site]:
    """The sites of the chosen layers; those with a linear source first.

    A linear source's rows change with the scale, so what reads the weights of its own site must
    come later.
    """
    sites = [site for name, block in blocks_of(model).items() for site in _of(name, block, chosen)]
    if not _passes_values(model):
        sites = [replace(s, source=None) if _is_values(s.source) else s for s in sites]
    return sorted(sites, key=lambda site: not _is_linear(model, site.source))


@dataclass
class Moves:
    """Scales that were moved in a model, by the names of the layers they concern.

    Attributes:
        maps: what has to stand before a layer from now on.
        inputs: scales by which a layer's input is now divided, by something before it.
        outputs: scales by which a layer's output is now divided.
    """

    maps: dict[str, ChannelScale] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)

    def move(self, model: nn.Module, site: Site, scale: Tensor) -> None:
        """Multiply the columns of a site's weights by a scale (C,), in place, and undo it before.

        The model computes what it did as soon as the maps stand in their places.
        """
        with torch.no_grad():
            for linear in site.linears.values():
                linear.weight *= scale.to(linear.weight.dtype)
            if site.source is None:
                self.maps |= dict.fromkeys(site.linears, ChannelScale(scale))
                return
            self.inputs |= dict.fromkeys(site.linears, scale)
            source = model.get_submodule(site.source)
            over = scale.to(source.weight.dtype)
            if isinstance(source, nn.Linear):
                self.outputs[site.source] = scale
                source.weight /= over[:, None]
            else:
                source.weight /= over
            if getattr(source, "bias", None) is not None:
                source.bias /= over

    def scale_of(self, name: str) -> Tensor | None:
        """The scale that a layer's columns were multiplied by; None: it was left alone."""
        return self.maps[name].scale if name in self.maps else self.inputs.get(name)

    def layer(self, name: str, parts: Parts, bias: Tensor | None) -> CompressedLinear:
        """The compressed layer of a name, behind its map, that knows what its neighbours hold."""
        own = copy.deepcopy(self.maps.get(name))  # layers of a site share the one in `maps`
        layer = CompressedLinear(parts._replace(input_map=own), bias)
        layer.around = Around(self.inputs.get(name), self.outputs.get(name))
        return layer


def _of(block_name: str, block: nn.Module, chosen: Mapping[str, nn.Linear]) -> list[Site]:
    """The sites in one block."""
    left = {name: linear for name, linear in chosen.items() if name.startswith(f"{block_name}.")}
    sites = []
    for fold in safe_folds(block):
        names = [f"{block_name}.{target}" for target in fold.targets]
        mine = {name: left.pop(name) for name in names if name in left}
        if not mine:
            continue
        source = (fold.norm or fold.linear) if len(mine) == len(names) else None
        sites.append(Site(mine, source and f"{block_name}.{source}", fold.normed))
    return sites + [Site({name: linear}) for name, linear in left.items()]


def _passes_values(model: nn.Module) -> bool:
    """Whether attention's output is values mixed and nothing else, as far as is known.

    Techniques that plug into this project's models may norm that output or add to it.
    """
    recipes = getattr(model, "recipes", {})
    encoding = getattr(model, "encoding", None)
    adds = encoding is not None and encoding.at(0).reads_weights
    return recipes.get("attention") is None and not adds


def _is_values(name: str | None) -> bool:
    return name is not None and "attention." in name


def _is_linear(model: nn.Module, name: str | None) -> bool:
    return name is not None and isinstance(model.get_submodule(name), nn.Linear)
