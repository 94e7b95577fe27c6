"""What was asked becomes what will run: which cells, which skips, which refusals, which ids."""

import dataclasses
import importlib
import json
import time

import pytest

from harness import catalogue
from harness.cell import Cell, digest
from harness.errors import UsageError
from harness.plan import make_plan, skipped_cell
from harness.request import Block, Request, Rule

pytestmark = pytest.mark.usefixtures("plugin")

BEHAVE = "trial/behave"


def block(*, technique=(BEHAVE,), suite="trial", **rest):
    return Block(suite=suite, technique=tuple(technique), **rest)


def planned(*blocks, chosen=None, **rest):
    request = Request(title="T", blocks=blocks, chosen=chosen or {}, **rest)
    return make_plan(request)


def points(plan, *keys):
    return [tuple({**c.options, **c.setting}[key] for key in keys) for c in plan.cells]


def refused(*blocks, told, **rest):
    with pytest.raises(UsageError) as refusal:
        planned(*blocks, **rest)
    for part in told:
        assert part in str(refusal.value)


def test_axes_multiply_and_reach_technique_and_setting():
    plan = planned(block(axes={"size": (1, 2), "n": (0, 5, 7)}))
    assert points(plan, "size", "n") == [(1, 0), (1, 5), (1, 7), (2, 0), (2, 5), (2, 7)]
    assert plan.cells[0].options == {"action": "ok", "size": 1}
    assert plan.cells[0].setting == {"n": 0, "seed": 0, "world": 1, "note": ""}


def test_a_block_without_axes_is_one_cell_a_technique_with_every_default_written_out():
    (cell,) = planned(block()).cells
    assert (cell.suite, cell.technique) == ("trial", BEHAVE)
    assert cell.options == {"action": "ok", "size": 1}


def test_zip_takes_points_together_and_multiplies_with_the_axes():
    plan = planned(block(axes={"seed": (0, 1)}, zip=({"size": 1, "n": 10}, {"size": 2, "n": 20})))
    assert points(plan, "seed", "size", "n") == [(0, 1, 10), (0, 2, 20), (1, 1, 10), (1, 2, 20)]


def test_a_chosen_axis_replaces_the_block_s_own_and_its_part_of_a_zip():
    plan = planned(block(axes={"seed": (0, 1)}), chosen={"seed": (7,)})
    assert points(plan, "seed") == [(7,)]
    plan = planned(
        block(zip=({"size": 1, "n": 10}, {"size": 2, "n": 20})), chosen={"size": (5,)}
    )  # fmt: skip
    assert points(plan, "size", "n") == [(5, 10), (5, 20)]


def test_exclude_leaves_out_with_its_reason_and_no_record():
    rule = Rule(when={"technique": "trial/*", "size": [2, 3], "n": 1}, reason="too many")
    plan = planned(block(axes={"size": (1, 2, 3), "n": (0, 1)}, exclude=(rule,)))
    assert points(plan, "size", "n") == [(1, 0), (1, 1), (2, 0), (3, 0)]
    assert [s.point for s in plan.skips] == [{"size": 2, "n": 1}, {"size": 3, "n": 1}]
    assert {(s.reason, s.recorded) for s in plan.skips} == {("too many", False)}


def test_a_rule_means_a_default_as_well_as_a_value_written_out():
    rule = Rule(when={"seed": 0}, reason="no")
    refused(block(exclude=(rule,)), told=("nothing to run", "no"))
    assert points(planned(block(axes={"seed": (0, 1)}, exclude=(rule,))), "seed") == [(1,)]


def test_a_rule_about_an_axis_does_not_touch_techniques_without_it():
    rule = Rule(when={"vocab_size": [None, 300]}, reason="no")
    names = ("tokenizers/bytes", "tokenizers/bpe")
    plan = planned(
        block(suite="tokenization", technique=names, exclude=(rule,)), chosen={"vocab_size": (300,)}
    )
    assert [c.technique for c in plan.cells] == ["tokenizers/bytes"]


def test_a_rule_without_a_reason_is_refused():
    with pytest.raises(ValueError, match=r"'seed': 0.* needs a reason"):
        Rule(when={"seed": 0}, reason="")


def test_a_rule_for_another_technique_excludes_nothing():
    rule = Rule(when={"technique": "trial/a*"}, reason="no")
    assert len(planned(block(axes={"size": (1, 2)}, exclude=(rule,))).cells) == 2


def test_include_adds_points_beside_the_product():
    plan = planned(block(axes={"size": (1,)}, include=({"technique": BEHAVE, "size": 9, "n": 4},)))
    assert points(plan, "size", "n") == [(1, 0), (9, 4)]


def test_an_include_without_technique_is_refused():
    with pytest.raises(ValueError, match=r"include: .*'size': 9.* needs a technique"):
        block(include=({"size": 9},))


def test_an_axis_that_does_not_apply_gives_one_cell_instead_of_many():
    plan = planned(
        block(suite="tokenization", technique=("tokenizers/bytes", "tokenizers/bpe")),
        chosen={"vocab_size": (1000, 2000, 3000), "seed": (0, 1)},
    )
    counts = [cell.technique for cell in plan.cells]
    assert counts.count("tokenizers/bytes") == 2
    assert counts.count("tokenizers/bpe") == 6


def test_a_cell_two_blocks_ask_for_is_planned_once():
    assert len(planned(block(axes={"n": (1, 2)}), block(axes={"n": (2, 3)})).cells) == 3


def test_a_suite_s_default_reaches_the_technique_that_shares_the_field():
    suite = "tokenizer_throughput"
    plan = planned(block(suite=suite, technique=("tokenizers/*",)))
    for cell in plan.cells:
        shared = cell.options.keys() & cell.setting.keys()
        assert {key: cell.options[key] for key in shared} == {
            key: cell.setting[key] for key in shared
        }


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"size": ("many",)}, ("options of trial/behave", "size='many'", "integer")),
        ({"size": (1.0,)}, ("size=1.0", "integer")),
        ({"size": (True,)}, ("size=True", "integer")),
        ({"action": (None,)}, ("action=None", "string")),
        ({"n": ("0",)}, ("setting of trial", "n='0'", "integer")),
        ({"n": ([1],)}, ("n=[1]", "integer")),
    ],
)
def test_a_value_of_the_wrong_type_names_key_and_value(axes, told):
    refused(block(axes=axes), told=told)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1, [float("nan")]], {"a": -1e999}])
def test_a_number_that_is_not_finite_is_refused_wherever_it_stands(value):
    refused(block(), chosen={"n": (value,)}, told=("n=", "finite"))
    refused(block(axes={"n": (value,)}), told=("n=", "finite"))
    refused(block(zip=({"n": value},)), told=("n=", "finite"))
    refused(block(include=({"technique": BEHAVE, "n": value},)), told=("n=", "finite"))


def test_an_unknown_key_is_refused_with_near_misses():
    told = ("'sede'", "did you mean 'seed'", "axes: action")
    refused(block(), chosen={"sede": (1,)}, told=("this matrix", *told))
    refused(block(axes={"sede": (1,)}), told=("suite 'trial'", *told))
    refused(block(zip=({"sede": 1},)), told=told)
    refused(block(include=({"technique": BEHAVE, "sede": 1},)), told=told)
    refused(block(exclude=(Rule(when={"sede": 1}, reason="r"),)), told=told)
    refused(block(axes={"technique": (BEHAVE,)}), told=("no axis or option 'technique'",))


def test_a_misspelt_root_key_is_named_as_one():
    refused(block(), chosen={"worker": (2,)}, told=("'worker'", "'workers'"))


def test_a_chosen_key_needs_to_reach_some_block_only():
    plan = planned(
        block(), block(suite="parity", technique=("tokenizers/bpe",)), chosen={"action": ("ok",)}
    )
    assert len(plan.cells) == 2


def test_a_value_the_technique_refuses_becomes_a_recorded_skip():
    plan = planned(block(axes={"size": (-1, 1)}))
    (skip,) = plan.skips
    assert skip.reason == "size must not be negative, got -1"
    assert skip.point == {"size": -1}
    assert skip.recorded
    assert points(plan, "size") == [(1,)]


def test_a_value_the_suite_refuses_becomes_a_recorded_skip():
    plan = planned(block(suite="parity", technique=("tokenizers/bpe",), axes={"size": (0, 10)}))
    assert [s.reason for s in plan.skips] == ["size must be at least 1, got 0"]
    assert len(plan.cells) == 1


def test_a_missing_package_is_a_recorded_skip_that_says_how_to_get_it():
    plan = planned(block(technique=("trial/*",), axes={"size": (1, 2)}))
    (skip,) = plan.skips
    assert skip.technique == "trial/absent"
    assert skip.recorded
    assert skip.reason.startswith("needs package_that_does_not_exist: pip install")
    assert skipped_cell(skip) == Cell(
        suite="trial", technique="trial/absent", options={}, setting={}, code="skipped"
    )


def test_without_cuda_a_cuda_run_has_nothing_to_run_unless_it_runs_elsewhere():
    torch = importlib.import_module("torch")
    assert planned(block(), device="cuda", elsewhere=True).cells[0].device == "cuda"
    if torch.cuda.is_available():
        assert planned(block(), device="cuda").cells[0].device == "cuda"
    else:
        refused(block(), device="cuda", told=("nothing to run", "needs a cuda device"))


def test_a_suite_s_own_question_decides_whom_it_leaves_out():
    plan = planned(block(suite="parity", technique=("tokenizers/bpe", "tokenizers/bytes")))
    assert [c.technique for c in plan.cells] == ["tokenizers/bpe"]
    assert [(s.technique, s.recorded) for s in plan.skips] == [("tokenizers/bytes", False)]


def test_nothing_to_run_is_refused_with_the_reasons():
    refused(block(axes={"size": (-1, -2)}), told=("nothing to run", BEHAVE, "got -1", "got -2"))
    refused(told=("nothing to run", "empty"))


def test_a_family_the_suite_was_not_meant_for_is_refused():
    refused(block(technique=("tokenizers/bpe",)), told=("suite 'trial' measures trial",))


def test_the_same_request_gives_the_same_plan():
    axes = {"size": (1, 2, -1), "n": (3, 4)}
    assert planned(block(axes=axes)) == planned(block(axes=axes))


def test_the_order_of_keys_does_not_change_ids():
    forth = planned(block(axes={"size": (1, 2), "n": (3, 4), "seed": (5,)}))
    back = planned(block(axes={"seed": (5,), "n": (3, 4), "size": (1, 2)}))
    assert {c.cell_id for c in forth.cells} == {c.cell_id for c in back.cells}
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})


def test_a_default_written_out_is_the_same_cell():
    given = planned(block(axes={"size": (1,), "n": (0,), "note": ("",)}))
    assert given.cells == planned(block()).cells


def test_how_a_suite_is_run_follows_its_header():
    assert not planned(block()).cells[0].timing
    assert planned(block(suite="trial_timed")).cells[0].timing
    assert planned(block(axes={"world": (2,)})).cells[0].world == 2


CELL = Cell(suite="s", technique="f/t", options={"a": 1}, setting={"n": 2}, code="c")


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "other"},
        {"technique": "f/other"},
        {"options": {"a": 2}},
        {"options": {"a": 1.0}},
        {"options": {"a": "1"}},
        {"options": {"a": True}},
        {"setting": {"n": 3}},
        {"code": "d"},
        {"world": 2},
        {"device": "cuda"},
    ],
)
def test_whatever_could_change_a_result_changes_the_id(change):
    assert dataclasses.replace(CELL, **change).cell_id != CELL.cell_id


def test_how_a_cell_runs_does_not_change_its_id():
    assert dataclasses.replace(CELL, timing=True).cell_id == CELL.cell_id


def test_an_id_is_the_published_hash_of_canonical_json():
    identity = [1, "s", "f/t", {"a": 1}, {"n": 2}, "c", 1, "cpu"]
    assert CELL.cell_id == digest(json.loads(json.dumps(identity)))


def test_ten_thousand_cells_are_planned():
    started = time.perf_counter()
    plan = planned(
        block(suite="tokenization", technique=("tokenizers/*", "!tokenizers/bytes")),
        chosen={"vocab_size": tuple(range(5000, 5028)), "seed": tuple(range(40))},
    )
    seconds = time.perf_counter() - started
    print(f"{len(plan.cells)} cells planned in {seconds:.2f} s")
    techniques = len(catalogue.match(["tokenizers/*"])) - 1
    assert len(plan.cells) == techniques * 28 * 40 >= 10_000
    assert len({cell.cell_id for cell in plan.cells}) == len(plan.cells)
