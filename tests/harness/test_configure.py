"""A command line in Hydra's grammar becomes frozen dataclasses, or one message."""

import os
import re
from pathlib import Path

import pytest

from harness.configure import Execution, compose, forwarded
from harness.errors import UsageError
from harness.isolate import Limits
from harness.plan import make_plan
from harness.request import Block, Rule

ONE = ("suite=parity", "technique=tokenizers/bpe")


def chosen(*words):
    return compose([*ONE, *words]).request.chosen


def refusal(*words):
    with pytest.raises(UsageError) as error:
        make_plan(compose(list(words)).request)
    message = str(error.value)
    assert "\n" not in message
    assert "axes." not in message
    return message


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("seed=3", (3,)),
        ("+seed=3", (3,)),
        ("++seed=3", (3,)),
        ("seed=0,1,2", (0, 1, 2)),
        ("seed=choice(4,5)", (4, 5)),
        ("data=choice('1',2,'it, too')", ("1", 2, "it, too")),
        ("data=['1',2],[[]]", (["1", 2], [[]])),
        ("seed=range(0,5)", (0, 1, 2, 3, 4)),
        ("seed=range(0,10,4)", (0, 4, 8)),
        ("seed=sort(3,1,2)", (1, 2, 3)),
        ("seed=[1,2]", ([1, 2],)),
        ("seed=[1,2],[3]", ([1, 2], [3])),
        ("seed={a:1}", ({"a": 1},)),
        ("alpha=0.1,1e-3", (0.1, 0.001)),
        ("alpha=null,true,text", (None, True, "text")),
        ("data='with, comma'", ("with, comma",)),
        ("data='1'", ("1",)),
        ("data='null',null", ("null", None)),
        ('data="double"', ("double",)),
        ("data=file:/a/b-c_d.txt,hf:org/name", ("file:/a/b-c_d.txt", "hf:org/name")),
        ("data='${not.a.key}'", ("${not.a.key}",)),
        ("data=''", ("",)),
    ],
)
def test_hydra_s_grammar_names_the_points_of_an_axis(word, values):
    key = word.lstrip("+").partition("=")[0]
    assert chosen(word) == {key: values}


def test_several_axes_keep_their_order():
    assert list(chosen("seed=1", "size=2", "alpha=3")) == ["seed", "size", "alpha"]


def test_keys_hydra_knows_stay_where_they_are():
    words = ["experiment=quick", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "run=a"]
    assert forwarded([*words, "seed=1,2"]) == [*words, "+axes.seed=1,2"]


def test_a_suite_and_techniques_are_one_block_each_suite():
    request = compose(["suite=parity,tokenization", "technique=tokenizers/b*,tokenizers/word"])
    assert request.request.blocks == (
        Block(suite="parity", technique=("tokenizers/b*", "tokenizers/word")),
        Block(suite="tokenization", technique=("tokenizers/b*", "tokenizers/word")),
    )


def test_suites_are_chosen_by_pattern_too():
    blocks = compose(["suite=token*", "technique=[tokenizers/bpe]"]).request.blocks
    assert [b.suite for b in blocks] == ["tokenization", "tokenizer_throughput"]


def test_a_pattern_that_takes_away_is_written_in_quotes():
    (block,) = compose(
        ["suite=parity", "technique=['tokenizers/*','!tokenizers/bpe']"]
    ).request.blocks
    assert block.technique == ("tokenizers/*", "!tokenizers/bpe")


def test_an_experiment_brings_its_blocks_and_title():
    request = compose(["experiment=tokenizers"]).request
    assert request.title == "Tokenizers over vocabulary sizes, corpora and draws"
    assert [b.suite for b in request.blocks] == ["tokenization", "tokenizer_throughput", "parity"]
    first, second, third = request.blocks
    assert first.axes["seed"] == (0, 1, 2)
    assert isinstance(first.exclude[0], Rule)
    assert second.zip[0] == {"data": "english", "corpus_bytes": 2_000_000}
    assert third.technique == ("tokenizers/*",)


def test_axes_of_the_command_line_win_over_the_experiment_s():
    plan = make_plan(compose(["experiment=quick", "vocab_size=512", "suite=tokenization"]).request)
    assert {c.options["vocab_size"] for c in plan.cells if "vocab_size" in c.options} == {512}


def test_an_experiment_is_narrowed_by_technique():
    request = compose(["experiment=quick", "technique=tokenizers/peers/tiktoken"]).request
    assert [(b.suite, b.technique) for b in request.blocks] == [
        ("tokenizer_throughput", ("tokenizers/peers/tiktoken",))
    ]


def test_an_experiment_is_narrowed_by_suite_and_technique():
    words = ["experiment=quick", "suite=parity", "technique=tokenizers/b*"]
    (block,) = compose(words).request.blocks
    assert block.suite == "parity"
    assert "tokenizers/bpe" in block.technique
    assert "tokenizers/word" not in block.technique


def test_narrowing_keeps_the_included_points_of_the_techniques_left():
    matrix = (
        "matrix=[{suite:parity,technique:tokenizers/bpe,"
        "include:[{technique:tokenizers/word,seed:7},{technique:'tokenizers/b*',seed:8}]}]"
    )
    (block,) = compose([matrix, "technique=tokenizers/bpe"]).request.blocks
    assert block.include == ({"technique": "tokenizers/bpe", "seed": 8},)


def test_a_machine_file_says_how_many_cells_at_a_time():
    assert compose([*ONE, "machine=cpu"]).execution.workers == 2
    assert compose([*ONE, "machine=cpu", "workers=3"]).execution.workers == 3


def test_what_is_not_given_is_the_dataclass_s_default():
    execution = compose([*ONE, "run=a"]).execution
    assert execution == Execution(run="a")
    assert execution.limits == Limits()


def test_execution_keys_arrive_typed():
    words = ["run=a", "results=/tmp/r", "reports=p", "retry=failed", "workers=2", "shards=3"]
    execution = compose([*ONE, *words, "time_limit_s=2.5", "memory_limit_gb=1.5"]).execution
    assert execution == Execution(
        run="a",
        results=Path("/tmp/r"),  # noqa: S108
        reports=Path("p"),
        retry="failed",
        workers=2,
        shards=3,
        limits=Limits(time_s=2.5, memory_bytes=1_500_000_000),
    )


def test_a_run_is_named_by_its_experiment_and_the_moment():
    name = compose(["experiment=quick"]).execution.run
    assert re.fullmatch(r"quick-\d{8}-\d{6}", name)
    assert compose([*ONE]).execution.run.startswith("run-")


def test_a_run_s_name_alone_goes_on_with_it():
    asked = compose(["run=earlier", "retry=all"])
    assert asked.request is None
    assert asked.execution.retry == "all"


def test_the_launcher_says_how_many_shards():
    def shards(*words):
        return compose([*ONE, *words]).execution.shards

    assert shards() == 1
    assert shards("hydra/launcher=basic") == 1
    assert shards("hydra/launcher=basic", "shards=4") == 4


@pytest.mark.parametrize(
    ("words", "elsewhere"),
    [
        ([], False),
        (["hydra/launcher=joblib"], False),
        (["hydra/launcher=submitit_local"], False),
        (["hydra/launcher=submitit_slurm"], True),
        (["machine=slurm_array"], True),
    ],
)
def test_slurm_s_jobs_run_on_other_machines_than_the_one_that_plans(words, elsewhere):
    assert compose([*ONE, *words]).request.elsewhere == elsewhere


def test_joblib_gets_a_shard_for_each_of_its_jobs():
    asked = compose([*ONE, "hydra/launcher=joblib", "hydra.launcher.n_jobs=3"])
    assert asked.execution.shards == 3
    assert compose([*ONE, "hydra/launcher=joblib"]).execution.shards == (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["experiment=qick"], ("'qick'", "did you mean 'quick'")),
        (["machine=cpuu", "experiment=quick"], ("no machine is called 'cpuu'", "'cpu'")),
        (["hydra/launcher=slrm", *ONE], ("no hydra/launcher is called 'slrm'", "basic")),
        ([*ONE, "workers=0"], ("workers must be at least 1, got 0",)),
        ([*ONE, "shards=0"], ("shards must be at least 1, got 0",)),
        ([*ONE, "shards=-1"], ("shards must be at least 1, got -1",)),
        ([*ONE, "workers=two"], ("workers='two'", "integer")),
        ([*ONE, "workers=1,2"], ("workers takes one value, got 2", "axes")),
        (["experiment=quick,tokenizers"], ("experiment takes one value, got 2",)),
        ([*ONE, "retry=fail"], ("retry='fail'", "'failed'", "'all'")),
        ([*ONE, "device=gpu"], ("device='gpu'", "'cuda'")),
        ([*ONE, "run=a/b"], ("plain folder name", "'a/b'")),
        ([*ONE, "run=.."], ("plain folder name", "'..'")),
        ([*ONE, "memory_limit_gb=lots"], ("memory_limit_gb='lots'", "number")),
        ([*ONE, "time_limit_s=-1"], ("-1",)),
        ([*ONE, "seed=nan"], ("seed=nan", "finite")),
        ([*ONE, "seed=0,inf"], ("seed=inf", "finite")),
        ([*ONE, "seed=[1,nan]"], ("seed=nan", "finite")),
        ([*ONE, "seed=word"], ("seed='word'", "integer")),
        ([*ONE, "seed="], ("seed=''", "integer")),
        ([*ONE, "sede=1"], ("'sede'", "did you mean 'seed'")),
        ([*ONE, "seed=1", "seed=2"], ("seed is given twice", "seed=1,2")),
        ([*ONE, "~seed"], ("~seed", "not naming it")),
        ([*ONE, "seed=interval(0,1)"], ("seed=interval(0,1)", "name the points")),
        ([*ONE, "seed"], ("'seed'", "KEY=VALUE")),
        ([*ONE, "--seed=1"], ("--seed=1", "KEY=VALUE")),
        ([*ONE, "data='${'"], ("data='${'",)),
        ([*ONE, "data=it's"], ("data=it's", "quotes")),
        (["suite=parity", "technique=!tokenizers/bpe"], ("technique=!tokenizers/bpe", "quotes")),
        (["suite=parity"], ("a suite needs techniques",)),
        (["technique=tokenizers/bpe"], ("name an experiment", "parity")),
        (["suite=parrity", "technique=tokenizers/bpe"], ("'parrity'", "'parity'")),
        (["suite=parity", "technique=tokenizers/bqe"], ("'tokenizers/bqe'", "'tokenizers/bpe'")),
        (["experiment=quick", "suite=nothing"], ("tokenization", "nothing")),
        (["experiment=quick", "technique=tokenizers/bqe"], ("'tokenizers/bqe'",)),
        (["nonsense.key=1", *ONE], ("nonsense",)),
        (["hydra.nonsense=1", *ONE], ("nonsense",)),
        (["matrix=5"], ("matrix=5", "list of blocks")),
        (["matrix=[5]"], ("block", "got 5")),
        (["matrix=[{suite:parity,technique:tokenizers/bpe,axes:null}]"], ("axes",)),
        (["matrix=[{suite:parity,technique:tokenizers/bpe,axis:{}}]"], ("'axis'", "'axes'")),
        (["matrix=[{technique:tokenizers/bpe}]"], ("suite", "required")),
        (["matrix=[{suite:parity,technique:tokenizers/bpe,include:[{seed:1}]}]"], ("technique",)),
        (["title=[1]", *ONE], ("title", "string")),
    ],
)
def test_what_is_wrong_is_said_in_one_message(words, told):
    message = refusal(*words)
    for part in told:
        assert part in message
