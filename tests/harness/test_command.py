"""The command a record prints plans exactly the cell it stands for."""

import dataclasses
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from harness import catalogue
from harness.command import command_of, override
from harness.configure import _values, compose
from harness.plan import make_plan
from harness.request import Block, Request

NASTY = (
    "", " ", "null", "true", "nan", "inf", "1", "1.0", "-0", "1e3", "0x10", "1_000",
    "it's", "''", '"', "\\", "\\'", "a\\", "C:\\dir\\", "\\\\'", "a,b", "[a,b]", "{a:1}", "a=b",
    "a:b",
    "(", ")", "$HOME", "${a}", "$", "{", "\\${a}", "$(id)", "`id`", "a b", " a ", "#", "!x", "~x",
    "*", "?", "é", "日本語", "🤗", "\t", "-x", "--x", "+x", "%", "@", "choice(1,2)", "range(3)",
    "<s>", "a;b", "a&b", "a|b", "a>b", "@x", "x@y", "null,1", ",", "]", "}",
)  # fmt: skip

printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
plain_text = st.text(st.sampled_from("ab'\"\\,[]{}()$:= #!~*?é日🤗\t+-@%"), max_size=12)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    plain_text,
    printable,
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=6)


def planned_from(command):
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("llmatrix", "run")
    return make_plan(compose(words).request)


def parsed(word):
    return OverridesParser.create().parse_override(word)


def assert_repeats(cell):
    plan = planned_from(command_of(cell))
    assert [c.cell_id for c in plan.cells] == [cell.cell_id], command_of(cell)
    assert not plan.skips


@given(values)
def test_a_value_survives_hydra_s_grammar(value):
    found = parsed(f"key={override(value)}")
    assert not found.is_sweep_override()
    assert found.value() == value
    assert type(found.value()) is type(value)


@given(st.lists(values, min_size=2, max_size=4))
def test_values_survive_a_sweep(several):
    found = parsed(f"key={','.join(map(override, several))}")
    assert _values(found) == several


@pytest.mark.parametrize("text", NASTY)
def test_a_nasty_text_survives_the_shell_and_the_plan(plugin, text):
    block = Block(suite="trial", technique=("trial/behave",), axes={"note": (text,)})
    (cell,) = make_plan(Request(title="T", blocks=(block,))).cells
    assert cell.setting["note"] == text
    assert_repeats(cell)


@pytest.mark.parametrize(
    "tokens", [[], ["<s>"], ["it's", "a,b", "]"], ["\\'", "\\"], ["null", "1"]]
)
def test_a_list_is_one_value_and_survives(tokens):
    axes = {"special_tokens": (tokens,)}
    block = Block(suite="parity", technique=("tokenizers/byte_bpe",), axes=axes)
    (cell,) = make_plan(Request(title="T", blocks=(block,))).cells
    assert cell.options["special_tokens"] == tokens
    assert_repeats(cell)


def test_every_cell_of_the_quick_experiment_is_repeated_by_its_command():
    for cell in make_plan(compose(["experiment=quick"]).request).cells:
        assert_repeats(cell)


def test_every_technique_with_every_default_is_repeated_by_its_command():
    for suite in catalogue.suites():
        families = set(catalogue.suite(suite).families)
        measured = families if "*" not in families else set(catalogue.families())
        names = (*catalogue.techniques(), *catalogue.peers())
        every = [name for name in names if name.partition("/")[0] in measured]
        for cell in make_plan(
            compose([f"suite={suite}", f"technique=[{','.join(every)}]"]).request
        ).cells:
            assert_repeats(cell)


def test_the_device_is_written_out_unless_it_is_the_cpu():
    block = Block(suite="parity", technique=("tokenizers/bpe",))
    (cell,) = make_plan(Request(title="T", blocks=(block,))).cells
    assert "device" not in command_of(cell)
    assert command_of(dataclasses.replace(cell, device="cuda")).endswith(" device=cuda")
