"""What a workflow sees of variables.yaml, under which names, and what the command line may change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dstack.errors import UsageError
from dstack.model import Position, Variable, VariableType, WorkflowName
from dstack.project.workflows.overrides import Overridable, check_overrides, read_overrides
from dstack.project.workflows.variables import VariableTable, environment_name, is_reserved, read_table
from dstack.project.yaml.parser import parse_yaml
from dstack.project.yaml.report import Report

TRAIN = WorkflowName("train")
SOURCE = b"""
variables:
  global:
    model: 124M
    seed: 1
  train:
    epochs: 3
    lr: 0.00002
    batch-size: 64
    shuffle: true
    debug: false
    model: 355M
    note: ""
  evaluate:
    epochs: 1
    batch_size: 8
"""


def table_of(source: bytes) -> VariableTable:
    report = Report()
    root = parse_yaml(source, "v.yaml").root
    assert root is not None
    table = read_table(report, root)
    assert table is not None
    assert report.problems == []
    return table


def test_a_section_wins_over_global_and_the_order_is_that_of_the_file() -> None:
    scope = table_of(SOURCE).scope(TRAIN)
    assert scope.arguments() == (
        *("--seed", "1", "--epochs", "3", "--lr", "0.00002", "--batch-size", "64"),
        *("--shuffle", "--model", "355M", "--note", ""),
    )


def test_a_workflow_without_a_section_sees_global_alone() -> None:
    assert table_of(SOURCE).scope(WorkflowName("other")).arguments() == ("--model", "124M", "--seed", "1")


def test_every_variable_is_in_the_environment_under_its_legal_and_its_upper_case_name() -> None:
    environment = table_of(SOURCE).scope(TRAIN).environment()
    assert environment["batch_size"] == environment["BATCH_SIZE"] == "64"
    assert environment["lr"] == environment["LR"] == "0.00002"
    assert (environment["shuffle"], environment["DEBUG"]) == ("true", "false")
    assert "batch-size" not in environment


def test_defaults_give_types() -> None:
    types = {variable.name: variable.type for variable in table_of(SOURCE).scope(TRAIN).variables}
    assert types["epochs"] is VariableType.INTEGER
    assert types["lr"] is VariableType.FLOAT
    assert types["shuffle"] is VariableType.BOOLEAN
    assert types["model"] is VariableType.STRING
    quoted = table_of(b'variables: {global: {a: "5", b: 3.10, c: 1:30}}').scope(TRAIN).variables
    assert [(variable.text, variable.type.value) for variable in quoted] == [
        ("5", "string"),
        ("3.10", "float"),
        ("1:30", "string"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("path", "home", "user", "shell", "lang", "pwd", "term", "ld_preload", "LD_LIBRARY_PATH", "ifs", "env"),
        *("bash_env", "pythonpath", "PYTHONSTARTUP", "ps4", "prompt_command", "shellopts", "lc_all", "git_dir", "_"),
    ],
)
def test_a_name_of_the_base_environment_is_never_shadowed(name: str) -> None:
    scope = table_of(f"variables: {{global: {{{name}: value}}}}".encode()).scope(TRAIN)
    environment = scope.environment()
    assert name.upper() not in environment
    assert not any(is_reserved(exported) for exported in environment if not exported.startswith("DSTACK_VAR_"))
    assert environment[environment_name(name)] == "value"


def test_two_names_of_one_upper_case_name_export_none() -> None:
    environment = table_of(b"variables: {global: {lr: 1, LR: 2, aB: 3, Ab: 4}}").scope(TRAIN).environment()
    assert environment == {"lr": "1", "LR": "2", "aB": "3", "Ab": "4"}


def test_values_replace_the_variable_of_that_name_wherever_it_is_defined() -> None:
    scope = table_of(SOURCE).scope(TRAIN, {"model": "x", "seed": "9"})
    assert scope.environment()["model"] == "x"
    assert scope.environment()["seed"] == "9"


def allowed() -> Overridable:
    table = table_of(SOURCE)
    variables = (*table.sections["global"], *table.sections["train"])
    return Overridable(workflow="train", variables=variables, elsewhere={"batch_size": "evaluate", "top": "evaluate"})


@pytest.mark.parametrize(
    ("arguments", "assignments", "given"),
    [
        (["--epochs", "5"], [], {"epochs": "5"}),
        (["--epochs=5", "--lr", "1e-3"], [], {"epochs": "5", "lr": "1e-3"}),
        (["--lr", "1"], [], {"lr": "1"}),
        (["--lr", "-0.5"], [], {"lr": "-0.5"}),
        (["--debug"], [], {"debug": "true"}),
        (["--debug", "false"], [], {"debug": "false"}),
        (["--debug=TRUE"], [], {"debug": "true"}),
        (["--no-shuffle"], [], {"shuffle": "false"}),
        (["--debug", "--epochs", "5"], [], {"debug": "true", "epochs": "5"}),
        (["--batch_size", "1"], [], {"batch-size": "1"}),
        (["--model", "a b"], [], {"model": "a b"}),
        (["--model="], [], {"model": ""}),
        (["--model=--x"], [], {"model": "--x"}),
        (["--model", "5"], [], {"model": "5"}),
        ([], ["epochs=5", "note=a=b"], {"epochs": "5", "note": "a=b"}),
        (["--epochs", "5"], ["epochs=6"], {"epochs": "6"}),
        (["--epochs", "5", "--epochs", "7"], [], {"epochs": "7"}),
        ([], [], {}),
    ],
)
def test_overrides_are_read_by_the_type_of_the_default(
    arguments: list[str], assignments: list[str], given: dict[str, str]
) -> None:
    assert read_overrides(allowed(), arguments, assignments) == given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epoch", "5"], 'train has no variable "epoch" (did you mean "epochs"?)'),
        (["--top", "5"], "top is a variable of evaluate, which train does not depend on"),
        (["--epochs", "1.5"], '--epochs "1.5": expected a whole number, as its default "3" in v.yaml:7 is'),
        (["--epochs", "five"], '--epochs "five": expected a whole number, as its default "3" in v.yaml:7 is'),
        (["--epochs", "true"], '--epochs "true": expected a whole number, as its default "3" in v.yaml:7 is'),
        (
            ["--epochs", "1; touch x"],
            '--epochs "1; touch x": expected a whole number, as its default "3" in v.yaml:7 is',
        ),
        (["--lr", "fast"], '--lr "fast": expected a number, as its default "0.00002" in v.yaml:8 is'),
        (["--debug=5"], '--debug "5": expected true or false, as its default "false" in v.yaml:11 is'),
        (["--epochs"], "--epochs needs a value"),
        (["--epochs", "--lr", "1"], "--epochs needs a value"),
        (["train"], 'unexpected "train"'),
        (["--"], 'unexpected "--"'),
        (["--no-epochs"], 'train has no variable "no-epochs"'),
        (["--model", "a\0b"], "--model: the value is not text"),
        (["--model", "a\udcffb"], "--model: the value is not text"),
        (["--epochs", "9" * 5000], "expected a whole number of at most 100 characters"),
    ],
)
def test_an_override_that_does_not_fit_is_refused_with_the_reason(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_overrides(allowed(), arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "--detatch",
            'variable "detatch", and `dstack run` no option "--detatch" (did you mean "--detach"?)',
        ),
        ("--epoch", 'no variable "epoch" (did you mean "epochs"?), and `dstack run` no option "--epoch"'),
    ],
)
def test_a_word_that_is_neither_variable_nor_option_is_told_as_both(word: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_overrides(replace(allowed(), options=("detach", "dry-run")), [word, "5"])
    assert message in str(caught.value)


@pytest.mark.parametrize("assignment", ["epochs", "=5", "epoch=5"])
def test_an_assignment_that_is_none_is_refused(assignment: str) -> None:
    with pytest.raises(UsageError):
        read_overrides(allowed(), [], [assignment])


def test_a_spelling_that_could_be_two_variables_is_no_variable() -> None:
    place = Position(file="v", line=1, column=1)
    two = [Variable(name=name, text="1", type=VariableType.INTEGER, position=place) for name in ("a-b-c", "a_b-c")]
    both = Overridable(workflow="w", variables=tuple(two))
    assert check_overrides(both, {"a-b-c": "2"}) == {"a-b-c": "2"}
    with pytest.raises(UsageError):
        check_overrides(both, {"a_b_c": "2"})
