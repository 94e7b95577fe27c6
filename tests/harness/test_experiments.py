"""Every committed experiment composes, plans and is listed by the title it composes to."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from harness import catalogue, experiments
from harness.configure import compose
from harness.plan import make_plan
from harness.request import ROOT_KEYS, Block, Rule

FILES = {path.stem: path for path in Path(experiments._folder()).glob("*.yaml")}

every_experiment = pytest.mark.parametrize("name", sorted(FILES))


def document(name):
    return yaml.safe_load(FILES[name].read_text(encoding="utf-8"))


def test_every_file_is_listed():
    assert set(experiments.titles()) == set(FILES) >= {"quick", "tokenizers"}


@every_experiment
def test_an_experiment_plans_cells_of_each_of_its_blocks(name):
    request = compose([f"experiment={name}"]).request
    for block in request.blocks:
        assert make_plan(type(request)(title="T", blocks=(block,))).cells


@every_experiment
def test_no_point_of_an_experiment_is_out_of_range(name):
    plan = make_plan(compose([f"experiment={name}"]).request)
    out_of_range = [s for s in plan.skips if s.recorded and not s.reason.startswith("needs ")]
    assert out_of_range == []


@every_experiment
def test_the_title_listed_is_the_title_composed(name):
    assert experiments.titles()[name]["title"] == compose([f"experiment={name}"]).request.title


@every_experiment
def test_every_key_is_known(name):
    assert set(document(name)) <= {*ROOT_KEYS, "matrix", "headline", "defaults"}
    for block in document(name)["matrix"]:
        assert set(block) <= {f.name for f in fields(Block)}
        for rule in block.get("exclude", []):
            assert set(rule) <= {f.name for f in fields(Rule)}


@every_experiment
def test_every_rule_of_an_experiment_leaves_something_out(name):
    reasons = {s.reason for s in make_plan(compose([f"experiment={name}"]).request).skips}
    for block in document(name)["matrix"]:
        for rule in block.get("exclude", []):
            assert rule["reason"] in reasons


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("title: Plain words", "Plain words"),
        ("title:   'In quotes'  ", "In quotes"),
        ('title: "In double quotes"', "In double quotes"),
        ("# no title", ""),
    ],
)
def test_a_title_is_read_from_its_one_line(tmp_path, monkeypatch, line, title):
    (tmp_path / "one.yaml").write_text(f"# @package _global_\n{line}\nmatrix: []\n")
    monkeypatch.setattr(experiments, "_folder", lambda: tmp_path)
    assert experiments.titles() == {"one": {"title": title}}


def test_quick_measures_every_tokenizer_against_every_library():
    plan = make_plan(compose(["experiment=quick"]).request)
    planned = {c.technique for c in plan.cells} | {s.technique for s in plan.skips}
    assert planned >= {*catalogue.match(["tokenizers/*", "tokenizers/peers/*"])}
