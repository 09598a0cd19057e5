"""Hostile texts on their whole way over SSH: none is executed, on the host or the laptop, and each arrives unaltered.

Every payload, if anything ever took it for code, would create the canary file: on the host, on the laptop, or both.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop
from tests.support.people.pipeline import remote_laptop
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)


def payloads(canary: str) -> list[str]:
    """Texts that shells, printf, Python, YAML, JSON, docker or terminals might take for something else."""
    do = f"touch {canary}"
    return [
        f"$({do})",
        f"`{do}`",
        f"; {do} ;",
        f"& {do} &",
        f"| {do}",
        f"|| {do} #",
        f"\n{do}\n",
        f"\r\n{do}\r\n",
        f"'; {do}; '",
        f'"; {do}; "',
        f"'\"; {do}; \"'",
        f'"$({do})"',
        f"'$({do})'",
        f"\\$({do})",
        f"\\'; {do}; \\'",
        f"${{IFS:+$({do})}}",
        f"${{x:-`{do}`}}",
        f"$((`{do}`))",
        f"a[$({do})]",
        f"() {{ :; }}; {do}",
        f"<({do})",
        f"$'\\x3b {do}'",
        f"*; {do} ? [a-z]",
        "-e",
        "-n",
        "--help",
        f"-exec {do} ;",
        "--",
        f"%s%n%d\\n\\0$({do})",
        f"EOF\n{do}\nEOF",
        f"__import__('os').system('{do}')",
        f"${{{{ {do} }}}}",
        "$variables_as_args",
        f"!!python/object/apply:os.system ['{do}']",
        f'{{"a": "$({do})"}}',
        f"~root {do}",
        f"日本語 é \u202e$({do})\u200b",
        f"\x01\x07\x1b]0;$({do})\x07\x1b[31m\x7f",
        " leading and trailing ",
        "\t",
        "\\",
        "''\"\"``$$",
        f"{'x' * 60_000}$({do})",
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    laptop: Laptop
    host: TestHost
    canary: str

    def check_nothing_ran(self) -> None:
        assert not Path(self.canary).exists(), "executed on the laptop"
        assert self.host.exec(["test", "-e", self.canary]).code != 0, "executed on the host"


@pytest.fixture
def scene(farm: Farm, ssh_home: Home, tmp_path: Path) -> Iterator[Scene]:
    host = farm.start()[0]
    canary = f"/tmp/canary-{uuid.uuid4().hex}"
    yield Scene(laptop=remote_laptop(tmp_path, ssh_home, host), host=host, canary=canary)
    Path(canary).unlink(missing_ok=True)


def yaml(value: object) -> str:
    """JSON is YAML, except for what strict readers want escaped."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def test_the_payloads_bite_where_they_are_put_into_a_script(tmp_path: Path) -> None:
    """The control: pasted into a command as text, plain or in double quotes, most of them do create the canary."""
    canary, bitten = tmp_path / "canary", 0
    for text in payloads(str(canary)):
        for command in (f"echo {text}", f'echo "{text}"'):
            subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, timeout=20, check=False)
        bitten += canary.exists()
        canary.unlink(missing_ok=True)
    assert bitten >= 20


def test_values_arrive_unaltered_and_are_never_executed(scene: Scene, tmp_path: Path) -> None:
    """As defaults and from the command line; through "$name", "${{ name }}" and $variables_as_args."""
    texts = payloads(scene.canary)
    assert len(texts) >= 20
    given = {f"given{number}": text for number, text in enumerate(texts)}
    default = {f"default{number}": text for number, text in enumerate(texts)}
    commands = ["mkdir got"]
    for number, name in enumerate([*default, *given]):
        reference = f"${name}" if number % 2 else "${{ " + name + " }}"
        commands.append(f'printf %s "{reference}" > got/{name}')
    commands.append("python3 arguments.py $variables_as_args")
    laptop = scene.laptop
    laptop.write(
        {
            ".dstack/workflows.yaml": "workflows:\n  - name: carry\n    commands:\n"
            + "".join(f"      - {yaml(command)}\n" for command in commands)
            + "    artifacts: [got, arguments.json]\n",
            ".dstack/variables.yaml": "variables:\n  carry:\n"
            + "".join(f"    {name}: {yaml(text)}\n" for name, text in default.items())
            + "".join(f"    {name}: ''\n" for name in given),
            "arguments.py": "import json, sys\njson.dump(sys.argv[1:], open('arguments.json', 'w'))\n",
        }
    )
    laptop.commit()
    overrides = [word for name, text in given.items() for word in ("--var", f"{name}={text}")]
    run = laptop.run_json("carry", *overrides)["run"]
    laptop.dstack("artifacts", "pull", run, "-o", str(tmp_path / "out"))
    for name, text in {**default, **given}.items():
        assert (tmp_path / "out/got" / name).read_bytes() == text.encode(), name
    arguments = json.loads((tmp_path / "out/arguments.json").read_text())
    assert arguments == [word for name, text in {**default, **given}.items() for word in (f"--{name}", text)]
    for command in (("show", run), ("ps", "-a"), ("why", run), ("run", "carry", "--help"), ("logs", run)):
        assert "\x1b" not in laptop.dstack(*command).stdout
    scene.check_nothing_ran()


def test_a_value_that_is_no_text_is_refused(scene: Scene) -> None:
    """Bytes that are no UTF-8 would have to be altered on their way: exit 2 instead."""
    scene.laptop.write(
        {
            ".dstack/workflows.yaml": "workflows:\n  - name: carry\n    commands: ['echo \"$v\"']\n",
            ".dstack/variables.yaml": "variables:\n  carry: {v: a}\n",
        }
    )
    scene.laptop.commit()
    refused = scene.laptop.dstack("run", "carry", "--v", "\udcff\udc80", code=2)
    assert "not text" in refused.stderr


def names(canary: str) -> list[str]:
    """The payloads that can be names of files, once slashes are out of them."""
    found = [text.replace("/", "_") for text in payloads(canary)]
    return [*{name for name in found if len(name.encode()) <= 255}, "..x", "-rf *", ".hidden"]


def test_names_of_files_travel_from_host_to_bucket_to_host_to_laptop(scene: Scene, tmp_path: Path) -> None:
    """A job makes files with hostile names; the next job on the host and `artifacts pull` find exactly these."""
    wanted = sorted(names(scene.canary))
    laptop = scene.laptop
    laptop.write(
        {
            ".dstack/workflows.yaml": "workflows:\n"
            "  - name: make\n    commands: [python3 make.py]\n    artifacts: [made]\n"
            "  - name: list\n    depends-on: [make]\n    commands: [python3 list.py]\n    artifacts: [listed.json]\n",
            "names.json": json.dumps(wanted),
            "make.py": "import json, os\nos.mkdir('made')\n"
            "for name in json.load(open('names.json')): open(os.path.join('made', name), 'wb').write(name.encode())\n",
            "list.py": "import json, os\njson.dump({name: open(os.path.join('made', name), 'rb').read().decode()"
            " for name in os.listdir('made')}, open('listed.json', 'w'))\n",
        }
    )
    laptop.commit()
    run = laptop.run_json("list")["run"]
    laptop.dstack("artifacts", "pull", run, "-o", str(tmp_path / "out"))
    assert json.loads((tmp_path / "out/list/listed.json").read_text()) == {name: name for name in wanted}
    pulled = {path.name: path.read_bytes().decode() for path in (tmp_path / "out/make/made").iterdir()}
    assert pulled == {name: name for name in wanted}
    listed = laptop.dstack("artifacts", "ls", run).stdout
    assert "\x1b" not in listed
    assert "\x07" not in listed
    scene.check_nothing_ran()


def test_paths_of_artifacts_and_files_of_the_repository(scene: Scene, tmp_path: Path) -> None:
    """Hostile names that the format allows as artifact paths, and of files in the repository, reach the job."""
    legal = [name for name in names(scene.canary) if name.isprintable() and name == name.strip() and name[0] != "~"]
    paths = [f"out/{name}" for name in legal if not set(name) & set("*?[") and "${{" not in name and "$var" not in name]
    assert len(paths) >= 15
    value = f"`touch {scene.canary}`".replace("/", "_")
    laptop = scene.laptop
    laptop.write({f"code/{name}": name for name in legal})
    mirror = "import os, shutil\nshutil.copytree('code', 'out')\nopen('out/of ' + os.environ['v'], 'w').close()\n"
    laptop.write(
        {
            ".dstack/workflows.yaml": "workflows:\n  - name: copy\n    commands: [python3 mirror.py]\n    artifacts:\n"
            + "".join(f"      - {yaml(path)}\n" for path in [*paths, "out/of ${{ v }}"]),
            ".dstack/variables.yaml": f"variables:\n  copy: {{v: {yaml(value)}}}\n",
            "mirror.py": mirror,
        }
    )
    laptop.commit()
    run = laptop.run_json("copy")["run"]
    laptop.dstack("artifacts", "pull", run, "-o", str(tmp_path / "pulled"))
    pulled = {path.name for path in (tmp_path / "pulled/out").iterdir()}
    assert pulled == {*(path.removeprefix("out/") for path in paths), f"of {value}"}
    scene.check_nothing_ran()


def test_names_that_the_format_refuses_are_refused_before_anything_runs(scene: Scene) -> None:
    """Workflow names, images and paths that leave the project: exit 2, each at its place, nothing executed."""
    laptop, lines = scene.laptop, ["workflows:"]
    bad = [text for text in payloads(scene.canary) if len(text) < 200]
    for text in bad:
        lines += [f"  - name: {yaml(text)}", "    commands: ['true']"]
    for number, path in enumerate((f"/tmp/$(touch {scene.canary})", "../x", "a\nb", "~/x", ".git/hooks", "a/../../b")):
        lines += [f"  - name: path{number}", "    commands: ['true']", f"    artifacts: [{yaml(path)}]"]
    lines += ["  - name: image", "    commands: ['true']", f"    image: {yaml(f'$(touch {scene.canary})')}"]
    laptop.write({".dstack/workflows.yaml": "\n".join(lines) + "\n"})
    laptop.commit()
    refused = laptop.dstack("run", "image", code=2)
    assert refused.stderr.count("workflows.yaml:") >= len(bad) + 7
    assert "\x1b" not in refused.stderr
    scene.check_nothing_ran()


def test_no_module_of_the_project_is_imported(scene: Scene) -> None:
    """A project may have files named like modules of Python or of dstack; neither command nor background takes them."""
    laptop = scene.laptop
    trap = f"import pathlib\npathlib.Path({scene.canary!r}).touch()\nraise SystemExit('imported')\n"
    laptop.write(
        {f"{name}.py": trap for name in ("copy", "queue", "typing_extensions", "sitecustomize", "yaml", "json")}
    )
    laptop.write({"dstack/__init__.py": trap, "dstack/__main__.py": trap})
    laptop.write({".dstack/workflows.yaml": "workflows:\n  - name: hello\n    commands: [echo hello]\n"})
    laptop.commit()
    name = laptop.dstack("run", "hello", "-d").stdout.split()[0]
    until("the run ends", lambda: laptop.show(name)["status"] == "succeeded", seconds=60)
    scene.check_nothing_ran()
