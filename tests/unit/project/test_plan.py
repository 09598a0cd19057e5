"""From a project on disk to the plan of one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstack.core.fingerprint import code_digest
from dstack.errors import ConfigError, NotFoundError, UsageError
from dstack.model import CodeFile, Dependency, Gpu, JobSpec, Resources, Retry
from dstack.project.plan import Project, check_includes, load_project, make_plan
from dstack.project.snapshot_parts import CodeParts
from dstack.project.starter_files import STARTER_FILES, write_starter

PATHS = ("a.py", "src/b.py", "src/deep/c.py", "src/d.txt", ".dstack/workflows.yaml", "data[1].csv", "train.py")


def code(*paths: str) -> list[CodeFile]:
    return [CodeFile(path=path, mode="100644", blob="0" * 40) for path in paths]


def project(root: Path, workflows: str, variables: str | None = None) -> Project:
    folder = root / ".dstack"
    folder.mkdir(exist_ok=True)
    (folder / "workflows.yaml").write_text(workflows, encoding="utf-8")
    if variables is not None:
        (folder / "variables.yaml").write_text(variables, encoding="utf-8")
    return load_project(root)


def job(root: Path, body: str, variables: str | None = None, **overrides: str) -> JobSpec:
    """The plan of one workflow `w` with the lines `body`."""
    text = "workflows:\n  - name: w\n" + "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    plan = make_plan(project(root, text, variables), "w", overrides=overrides, code=CodeParts(code(*PATHS)))
    return plan.jobs[-1]


DIAMOND = """
workflows:
  - {name: evaluate, commands: [e], depends-on: [train, baseline]}
  - {name: unused, commands: [u]}
  - {name: baseline, commands: [b], depends-on: {workflows: [prepare]}}
  - {name: train, commands: [t], deps: [{workflow: prepare}, "other:v1", {tag: v2}, {run: angry-rat-1}]}
  - {name: prepare, commands: [p]}
"""


def test_every_job_comes_after_its_inputs_and_else_in_the_order_of_the_files(tmp_path: Path) -> None:
    plan = make_plan(project(tmp_path, DIAMOND), "evaluate", code=CodeParts(code(*PATHS)))
    assert [spec.workflow for spec in plan.jobs] == ["prepare", "baseline", "train", "evaluate"]
    assert plan.jobs[2].inputs == (
        Dependency(workflow="prepare"),  # type: ignore[arg-type]
        Dependency(workflow="other", tag="v1"),  # type: ignore[arg-type]
        Dependency(workflow="", tag="v2"),  # type: ignore[arg-type]
        Dependency(workflow="", run="angry-rat-1"),  # type: ignore[arg-type]
    )
    alone = make_plan(project(tmp_path, DIAMOND), "prepare", code=CodeParts(code(*PATHS)))
    assert [spec.workflow for spec in alone.jobs] == ["prepare"]


def test_a_long_chain_is_ordered(tmp_path: Path) -> None:
    lines = [f"  - {{name: w{n}, commands: [x], depends-on: [w{n + 1}]}}" for n in range(1500)]
    text = "workflows:\n" + "\n".join([*lines, "  - {name: w1500, commands: [x]}"]) + "\n"
    plan = make_plan(project(tmp_path, text), "w0", code=CodeParts(()))
    assert [spec.workflow for spec in plan.jobs] == [f"w{n}" for n in range(1500, -1, -1)]


def test_an_unknown_workflow_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r'no workflow is called "trian" \(did you mean "train"\?\)'):
        make_plan(project(tmp_path, DIAMOND), "trian", code=CodeParts(()))


def test_a_variable_of_any_workflow_of_the_run_may_be_overridden_and_of_no_other(tmp_path: Path) -> None:
    variables = "variables: {prepare: {size: 1}, unused: {other: 1}, evaluate: {size: 5}}\n"
    loaded = project(tmp_path, DIAMOND, variables)
    plan = make_plan(loaded, "evaluate", overrides={"size": "2"}, code=CodeParts(()))
    assert [spec.variables for spec in plan.jobs] == [{"size": "2"}, {}, {}, {"size": "2"}]
    assert plan.overrides == {"size": "2"}
    with pytest.raises(UsageError, match="other is a variable of unused, which evaluate does not depend on"):
        make_plan(loaded, "evaluate", overrides={"other": "2"}, code=CodeParts(()))


def test_depends_on_variables_restricts_the_fingerprint_and_nothing_else(tmp_path: Path) -> None:
    body = "commands: [x]\ndepends-on: {variables: [batch_size, m]}"
    spec = job(tmp_path, body, "variables: {global: {m: 1, n: 2}, w: {batch-size: 3, lr: 4}}\n")
    assert spec.variables == {"batch-size": "3", "m": "1"}
    assert spec.arguments == ("--m", "1", "--n", "2", "--batch-size", "3", "--lr", "4")
    assert spec.environment["lr"] == "4"
    assert job(tmp_path, "commands: [x]\ndepends-on: {variables: []}").variables == {}
    assert job(tmp_path, "commands: [x]").variables == {"m": "1", "n": "2", "batch-size": "3", "lr": "4"}


@pytest.mark.parametrize(
    ("include", "paths"),
    [
        (None, [path for path in PATHS if path != ".dstack/workflows.yaml"]),
        ("[.]", list(PATHS)),
        ("[a.py]", ["a.py"]),
        ("[./src/]", ["src/b.py", "src/deep/c.py", "src/d.txt"]),
        ("['*.py']", ["a.py", "train.py"]),
        ("['src/*.py']", ["src/b.py"]),
        ("['**/*.py']", ["a.py", "src/b.py", "src/deep/c.py", "train.py"]),
        ("['src/**']", ["src/b.py", "src/deep/c.py", "src/d.txt"]),
        ("['s?c/[bd].*']", ["src/b.py", "src/d.txt"]),
        ("['src/d*']", ["src/deep/c.py", "src/d.txt"]),
        ("['data[1].csv']", ["data[1].csv"]),
        ("[.dstack, a.py]", ["a.py", ".dstack/workflows.yaml"]),
        ("[]", []),
    ],
)
def test_include_picks_files_folders_and_globs(tmp_path: Path, include: str | None, paths: list[str]) -> None:
    body = "commands: [x]" + (f"\ndepends-on: {{repo: {{include: {include}}}}}" if include else "")
    assert job(tmp_path, body).code == code_digest(code(*paths))


def test_an_include_that_matches_nothing_is_a_problem_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        job(tmp_path, "commands: [x]\ndepends-on: {repo: {include: [trian.py, a.py, '*.rs']}}")
    assert [str(problem) for problem in caught.value.problems] == [
        '.dstack/workflows.yaml:4:35: include "trian.py" matches no file of the project (did you mean "train.py"?)',
        '.dstack/workflows.yaml:4:51: include "*.rs" matches no file of the project',
    ]
    assert len(check_includes(load_project(tmp_path), CodeParts(code(*PATHS)))) == 2


def test_values_are_put_in_as_text_where_no_shell_looks(tmp_path: Path) -> None:
    body = """
image: "python:${{ version }}-slim"
env: {OUT: "runs/$model/${{ lr }}", N: 5, FLAG: true}
artifacts: ["models/$model", {path: "m/${{ model }}.json"}]
resources: {cpu: "${{ cpu }}", gpu: "${{ gpu }}", memory: "${{ mem }}GB"}
commands: ["x"]
"""
    variables = "variables: {w: {version: 3.10, lr: 0.00002, model: 124M, cpu: 4, gpu: 0, mem: 16}}\n"
    spec = job(tmp_path, body, variables, gpu="2", model="a;b $(c)")
    assert spec.image == "python:3.10-slim"
    assert spec.env == {"OUT": "runs/a;b $(c)/0.00002", "N": "5", "FLAG": "true"}
    assert spec.artifacts == ("models/a;b $(c)", "m/a;b $(c).json")
    assert spec.resources == Resources(cpu=4, gpu=Gpu(count=2), memory=16 * 10**9)
    assert job(tmp_path, body).resources.gpu is None


def test_a_value_is_not_looked_at_for_references_again(tmp_path: Path) -> None:
    spec = job(tmp_path, "commands: [x]\nenv: {A: '$a-$b'}", 'variables: {w: {a: "$b", b: "${{ a }}"}}\n')
    assert spec.env == {"A": "$b-${{ a }}"}


def test_an_image_made_of_values_cannot_become_an_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='image: "--privileged" is not the name of a Docker image'):
        job(tmp_path, "commands: [x]\nimage: $image", "variables: {w: {image: img}}\n", image="--privileged")


def test_everything_else_of_a_workflow_is_in_its_job(tmp_path: Path) -> None:
    body = """
commands: [x]
env: [A=1, B, "C=a=b"]
secrets: [TOKEN]
retry: {attempts: 3, on: [lost, interrupted]}
max-duration: 1h30m
ports: [6006, 8080]
reuse: false
resources: {memory: 16GiB, gpu: {count: 2, name: A100, memory: 40GB}, shm_size: 8GB, interruptible: true}
"""
    spec = job(tmp_path, body)
    assert (spec.env, spec.env_from_caller, spec.secrets) == ({"A": "1", "C": "a=b"}, ("B",), ("TOKEN",))
    assert spec.retry == Retry(attempts=3, on=("lost", "interrupted"))
    assert (spec.max_duration, spec.ports, spec.reuse) == (5400, (6006, 8080), False)
    gpu = Gpu(count=2, name="A100", memory=40 * 10**9)
    assert spec.resources == Resources(memory=2**34, gpu=gpu, shm_size=8 * 10**9, interruptible=True)


@pytest.mark.parametrize(
    ("body", "script", "artifacts", "image"),
    [
        ("provider: bash\ncommands: [a, b]\nsetup: [s]", "s\na\nb\n", (), None),
        ("provider: docker\nimage: img\ncommands: [a]\nbefore_run: [s]", "s\na\n", (), "img"),
        ("provider: python\nscript: t.py", "python3 t.py\n", (), None),
        ("provider: python\nfile: t.py\nargs: --x $y ${{ v }}", "python3 t.py --x $y ${v}\n", (), None),
        (
            "provider: python\npython_script: t.py\nargs: [--x, 'a b', '\"`${{ v }}\\ $(c)', $variables_as_args]",
            'python3 t.py --x \'a b\' "\\"\\`${v}\\\\ \\$(c)" "$@"\n',
            (),
            None,
        ),
        (
            "provider: python\nscript: t.py\nversion: 3.10\nrequirements: r.txt",
            "python3 -m pip install -r r.txt\npython3 t.py\n",
            (),
            "python:3.10",
        ),
        ("commands: [a]\nworking_dir: s/d\nartifacts: [out, ./x/]", "cd -- s/d\na\n", ("s/d/out", "s/d/x"), None),
        ("commands: [a]\npython: 3.10\nimage: img", "a\n", (), "img"),
        ("commands:\n  - |\n    a\n    b\n  - c", "a\nb\nc\n", (), None),
    ],
)  # fmt: skip
def test_later_spellings_mean_the_same(
    tmp_path: Path, body: str, script: str, artifacts: tuple[str, ...], image: str | None
) -> None:
    spec = job(tmp_path, body, "variables: {w: {v: text}}\n")
    assert (spec.script, spec.artifacts, spec.image) == (script, artifacts, image)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        *(("16GB", 16 * 10**9), ("16G", 16 * 10**9), ("16 GiB", 2**34), ("512Mi", 2**29), ("512MiB", 2**29)),
        *(("512MB", 512 * 10**6), ("512M", 512 * 10**6), ("1.5GB", 15 * 10**8), ("2Gi", 2**31), ("2tb", 2 * 10**12)),
    ],
)
def test_sizes_in_every_unit_ever_accepted(tmp_path: Path, written: str, size: int) -> None:
    assert job(tmp_path, f"commands: [x]\nresources: {{memory: {written}}}").resources.memory == size


@pytest.mark.parametrize(
    ("written", "gpu"),
    [
        ("gpu: 1", Gpu(count=1)),
        ("gpu: 0", None),
        ("gpu: {name: T4}", Gpu(count=1, name="T4")),
        ("gpu: {memory: 16GB}", Gpu(count=1, memory=16 * 10**9)),
        ("v100/gpu: 2", Gpu(count=2, name="v100")),
        ("gpu: {count: 0, name: T4}", None),
    ],
)
def test_gpus_in_every_form(tmp_path: Path, written: str, gpu: Gpu | None) -> None:
    assert job(tmp_path, f"commands: [x]\nresources: {{{written}}}").resources.gpu == gpu


def test_all_files_under_workflows_are_read_in_order(tmp_path: Path) -> None:
    folder = tmp_path / ".dstack" / "workflows"
    folder.mkdir(parents=True)
    for name in ("b.yml", "a.yaml", "c.txt"):
        (folder / name).write_text(
            f"workflows: [{{name: {name[0]}, commands: [x], depends-on: []}}]\n", encoding="utf-8"
        )
    loaded = project(tmp_path, "workflows: [{name: z, commands: [x], depends-on: [a, b]}]\n")
    assert [workflow.name for workflow in loaded.workflows] == ["z", "a", "b"]
    assert loaded.workflows[1].position.file == ".dstack/workflows/a.yaml"


def test_the_starter_passes_its_own_check_and_is_never_written_over_a_file(tmp_path: Path) -> None:
    assert write_starter(tmp_path, home=tmp_path / "home") == tuple(tmp_path / name for name in STARTER_FILES)
    loaded = load_project(tmp_path)
    assert loaded.notes == ()
    assert [spec.workflow for spec in make_plan(loaded, "train", code=CodeParts(())).jobs] == ["prepare", "train"]
    (tmp_path / ".dstack" / "workflows.yaml").write_text("mine", encoding="utf-8")
    (tmp_path / ".dstack" / "variables.yaml").rename(tmp_path / ".dstack" / "variables.yml")
    assert write_starter(tmp_path, home=tmp_path / "home") == ()
    assert (tmp_path / ".dstack" / "workflows.yaml").read_text(encoding="utf-8") == "mine"


def test_where_the_starter_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / ".dstack").write_text("a file", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot write"):
        write_starter(tmp_path, home=tmp_path / "home")


def test_workflows_with_the_same_includes_share_a_part(tmp_path: Path) -> None:
    same = "depends-on: {repo: {include: [src]}}"
    text = "".join(f"  - {{name: w{n}, commands: [a], {same}, artifacts: [o{n}]}}\n" for n in range(2))
    text += "  - {name: last, commands: [a], depends-on: {workflows: [w0, w1], repo: {include: ['**/*.py']}}}\n"
    parts = CodeParts(code(*PATHS))
    plan = make_plan(project(tmp_path, "workflows:\n" + text), "last", code=parts)
    assert len(parts.parts) == 2
    assert {part.digest for part in parts.parts} == {spec.code for spec in plan.jobs}
    for part in parts.parts:
        assert part.digest == code_digest(part.files)


def test_only_workflows_that_see_other_values_are_compiled_again(tmp_path: Path) -> None:
    loaded = project(tmp_path, DIAMOND, "variables: {train: {epochs: 3}, global: {size: 1}}\n")
    plan = make_plan(loaded, "evaluate", overrides={"epochs": "4"}, code=CodeParts(()))
    again = [spec.workflow for spec in plan.jobs if spec.variables is not loaded.compiled[spec.workflow].included]
    assert again == ["train"]
