"""Compiled commands, run by real shells: a value reaches the job unaltered and is executed nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dstack.errors import ConfigError
from dstack.model import JobSpec
from dstack.project.plan import load_project, make_plan
from dstack.project.shell.scan import scan
from dstack.project.snapshot_parts import CodeParts
from dstack.project.workflows.job_script import compile_script
from dstack.project.workflows.variables import VariableScope, read_table
from dstack.project.yaml.parser import ListNode, ScalarNode, parse_yaml
from dstack.project.yaml.report import Report

SHELLS = [shell for shell in ("sh", "bash", "dash") if shutil.which(shell)]
PAYLOADS = [
    "; touch canary",
    "& touch canary &",
    "| touch canary",
    "&& touch canary",
    "$(touch canary)",
    "`touch canary`",
    '"; touch canary; "',
    "'; touch canary; '",
    "'\"; touch canary; \"'",
    "\ntouch canary\n",
    "\r\ntouch canary",
    '\\"; touch canary #',
    "\\'; touch canary #",
    "${IFS}; touch${IFS}canary",
    "$((a[$(touch canary)]))",
    "a[$(touch canary)]",
    "x) touch canary ;;",
    "EOF\ntouch canary\ncat <<EOF",
    "<(touch canary)",
    "> canary",
    "!(touch canary)",
    "() { :; }; touch canary",
    "${{ v }}$(touch canary)",
    "${x:=$(touch canary)}",
    "{touch,canary}",
    "~; touch canary",
    "\\$(touch canary)\\",
    "%s\\n$(touch canary)",
    "*",
    "-rf",
    "--help",
    " leading and trailing  ",
    "ünï😀 \u2028 text",
    "",
]
COMMANDS = r"""
workflows:
  - name: job
    commands:
      - printf '%s\0' "${{ v }}" >> out
      - printf '%s\0' "a"'b'"${{ v }}"c >> out
      - V="$(printf '%s.' "${{ v }}")"; printf '%s\0' "$V" >> out
      - |
        cat >> out <<EOF
        ${{ v }}
        EOF
        printf '\0' >> out
      - |
        f() { printf '%s\0' "$1" >> out; }
        f "${{ v }}"
      - printf '%s\0' $variables_as_args >> out
      - printf '%s\0' "$v" "$V_OWN" >> out
      - "true ${{ v }} > /dev/null"
      - |
        case "${{ v }}" in nothing) echo no;; esac
      - sh -c 'printf "%s\0" "$1" >> out' _ "${{ v }}"
"""


def project_job(root: Path, value: str, workflows: str = COMMANDS) -> JobSpec:
    folder = root / ".dstack"
    folder.mkdir(exist_ok=True)
    (folder / "workflows.yaml").write_text(workflows.lstrip("\n"), encoding="utf-8")
    (folder / "variables.yaml").write_text('variables: {global: {v: "", v-own: ""}}\n', encoding="utf-8")
    plan = make_plan(load_project(root), "job", overrides={"v": value, "v_own": value}, code=CodeParts(()))
    return plan.jobs[-1]


def run(shell: str, job: JobSpec, folder: Path) -> subprocess.CompletedProcess[bytes]:
    (folder / "job.sh").write_text(job.script, encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], **job.environment, **job.env}
    return subprocess.run(
        [shell, "-e", "job.sh", *job.arguments], cwd=folder, env=environment, capture_output=True, timeout=60
    )


def expected(value: str) -> list[str]:
    return [value, f"ab{value}c", f"{value}.", f"{value}\n", value, "--v", value, "--v-own", value, value, value, value]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("value", PAYLOADS)
def test_a_value_reaches_the_job_unaltered_and_is_not_executed(shell: str, value: str, tmp_path: Path) -> None:
    job = project_job(tmp_path, value)
    assert value == "" or value in ("*", "-rf") or value not in job.script
    work = tmp_path / "work"
    work.mkdir()
    done = run(shell, job, work)
    assert done.returncode == 0, done.stderr
    assert not (work / "canary").exists()
    # `V=$(…)` drops no trailing newline because of the "." behind it.
    assert (work / "out").read_bytes().decode().split("\0")[:-1] == expected(value)


def test_the_canary_would_sing(tmp_path: Path) -> None:
    """The same payloads put into the script as text are executed: the test above can fail."""
    sung = 0
    for number, value in enumerate(PAYLOADS):
        work = tmp_path / str(number)
        work.mkdir()
        (work / "job.sh").write_text(f'true {value}\ntrue "{value}"\n', encoding="utf-8")
        subprocess.run(["bash", "job.sh"], cwd=work, capture_output=True, timeout=60, env={"PATH": os.environ["PATH"]})
        sung += (work / "canary").exists()
    assert sung >= 12


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_any_text_reaches_the_job_unaltered(tmp_path: Path, value: str) -> None:
    job = project_job(tmp_path, value)
    work = tmp_path / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    done = run("sh", job, work)
    assert done.returncode == 0, done.stderr
    assert (work / "out").read_bytes().decode().split("\0")[:-1] == expected(value)


READERS = [
    'eval "x=${{ v }}"',
    'bash -c "echo ${{ v }}"',
    'sudo -u x env A=1 timeout 5 bash -ec "echo ${{ v }}"',
    'docker run img sh -c "echo ${{ v }}"',
    "python3 -c \"print('${{ v }}')\"",
    "python3 - <<EOF\nprint('${{ v }}')\nEOF",
    "cat <<EOF | bash\n${{ v }}\nEOF",
    'echo "${{ v }}" | sh',
    'bash <<< "${{ v }}"',
    "perl -e \"print '${{ v }}'\"",
    'awk "{print \\"${{ v }}\\"}" file',
    'sed "s/a/${{ v }}/" file',
    'trap "rm ${{ v }}" EXIT',
    'ssh host "rm ${{ v }}"',
    "echo $(( ${{ v }} + 1 ))",
    "(( ${{ v }} > 1 ))",
    "[[ ${{ v }} -eq 1 ]]",
    "a[${{ v }}]=1",
    'let "x=${{ v }}"',
    "declare -i x=${{ v }}",
    "eval train $variables_as_args",
    "ssh host train $variables_as_args",
]


@pytest.mark.parametrize("command", READERS)
def test_a_text_is_refused_where_a_program_would_read_it_as_a_script(command: str) -> None:
    assert problems(command, "text")


@pytest.mark.parametrize("command", [command for command in READERS if "$variables_as_args" not in command])
def test_a_checked_number_is_let_through_there(command: str) -> None:
    assert problems(command, "5") == []


def problems(command: str, default: str) -> list[str]:
    report = Report()
    root = parse_yaml(f"variables: {{global: {{v: {default}}}}}".encode(), "v").root
    assert root is not None
    table = read_table(report, root)
    assert table is not None
    scope: VariableScope = table.scope("w")  # type: ignore[arg-type]
    node = ScalarNode(
        position=root.position, text=command, value=command, plain=False, raw=command, start=0, end=len(command)
    )
    compile_script(report, [node], scope)
    return [problem.message for problem in report.problems]


PLACES = [
    ("echo '${{ v }}'", False),
    ("echo \"'${{ v }}'\"", True),
    ("echo 'a'${{ v }}'b'", True),
    ("echo $'it\\'s ${{ v }}'", False),
    ("echo it\\'s ${{ v }}", True),
    ("cat <<'E'\n${{ v }}\nE", False),
    ("cat <<\\E\n${{ v }}\nE", False),
    ('cat <<"E" | tr a b\n${{ v }}\nE', False),
    ("cat <<E\n'${{ v }}'\nE", True),
    ("cat <<-E\n\t'${{ v }}'\n\tE\necho \"${{ v }}\"", True),
    ("echo \"$(echo '${{ v }}')\"", False),
    ('echo "$(echo "${{ v }}")"', True),
    ("echo `echo '${{ v }}'`", False),
    ("echo ${x:-${{ v }}}", False),
    ("# it's a comment\necho ${{ v }}", True),
    ("case x in a) echo ${{ v }};; esac", True),
    ("x=$(case a in a) echo ${{ v }};; esac); echo ${{ v }}", True),
    ("((echo ${{ v }}) | cat)", True),
    ("f() { echo $variables_as_args; }", False),
    ("function f { echo $variables_as_args; }", False),
    ("f() ( echo $variables_as_args )", False),
    ("f() { echo a; }; f $variables_as_args", True),
    ("if true; then f $variables_as_args; fi", True),
    ('f "$variables_as_args"', False),
    ("f --x=$variables_as_args", False),
    ("f '$variables_as_args'", False),
    ("f ${variables_as_args}", True),
    ("f $variables_as_args_too", True),
    ("f $(g $variables_as_args)", True),
    ("a=(); b=($variables_as_args)", True),
    ("echo \\${{ v }}", True),
    ("echo ${{ v", False),
    ("echo ${{ w }}", False),
    ("echo ${{ run_name }} ${{ job_id }} ${{ run.name }}", True),
]


@pytest.mark.parametrize(("command", "allowed"), PLACES)
def test_where_a_reference_may_stand(command: str, allowed: bool) -> None:
    assert (problems(command, "text") == []) is allowed


def test_references_become_exactly_names_and_arguments() -> None:
    root = parse_yaml(b"variables: {global: {batch-size: 1, path: a, PATH: b}}", "v").root
    commands = parse_yaml(
        rb'["x ${{ batch-size }} ${{batch_size}} ${{ path }} ${{ PATH }}", "y $variables_as_args $lr"]', "w"
    ).root
    assert root is not None
    assert isinstance(commands, ListNode)
    table = read_table(Report(), root)
    assert table is not None
    report = Report()
    nodes = [node for node in commands.items if isinstance(node, ScalarNode)]
    scope = table.scope("w")  # type: ignore[arg-type]
    text = compile_script(report, nodes, scope)
    assert text == 'x ${batch_size} ${batch_size} ${path} ${DSTACK_VAR_PATH}\ny "$@" $lr\n'
    assert report.problems == []
    assert scope.environment() == {
        "batch_size": "1",
        "BATCH_SIZE": "1",
        "path": "a",
        "DSTACK_VAR_PATH": "b",
    }


_QUOTING = ["'", '"', "\\", "$(printf %s ", ")", "`", "${{ v }}", "${x:-", "}", "<<E\n", "\nE\n", "$'", "((", "))"]
_PLAIN = ["a", " ", "\n", ";", "#", "printf %s ", "(", "{ ", "case a in a) ", " esac"]
_FRAGMENTS = st.lists(st.sampled_from([*_QUOTING, *_PLAIN]), min_size=1, max_size=12)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fragments=_FRAGMENTS)
def test_bash_expands_every_reference_that_was_let_through(tmp_path: Path, fragments: list[str]) -> None:
    """The scan agrees with bash about quoting: no reference that it lets through is left as text by the shell."""
    text = "printf '%s ' ${{ v }} " + "".join(fragments)
    found = scan(text)
    if found.fault or problems(text, "5"):
        return
    compiled = text
    for number, reference in reversed(list(enumerate(found.references))):
        compiled = f"{compiled[: reference.start]}${{v{number}}}{compiled[reference.end :]}"
    environment = {f"v{number}": "x" for number in range(len(found.references))}
    if subprocess.run(["bash", "-n", "-c", compiled], capture_output=True, cwd=tmp_path).returncode:
        return
    done = subprocess.run(
        ["bash", "-c", compiled],
        capture_output=True,
        cwd=tmp_path,
        env=environment,
        timeout=20,
        stdin=subprocess.DEVNULL,
    )
    assert b"${v" not in done.stdout, compiled


@settings(max_examples=500, deadline=5_000)
@given(st.text(alphabet="'\"\\$`(){}[]<>|&;#\n aE-=!*?cse", max_size=200))
def test_any_text_is_scanned_without_an_error(text: str) -> None:
    spans = [(reference.start, reference.end) for reference in scan(text + "${{ v }}").references]
    assert spans == sorted(spans)


LONG = [
    "x",
    "${{ v }} ",
    "'",
    "$(",
    "((",
    "a ",
    "{ ",
    "`",
    '"',
    "<<E ",
    "\\",
    "a[",
    "$((",
    "a | sh;",
    "$(( ((",
    "[[ a ",
    "(a;",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", LONG)
def test_a_long_command_is_scanned_before_the_timeout(piece: str) -> None:
    size = 300_000 // len(piece) | 1
    assert scan(piece * size).fault or piece in ("x", "a ", "a | sh;", "a[", "[[ a ")


WORDS = ["a b", "x;touch canary", "$(touch canary)", "`touch canary`", "'q'", '"q"', "ü", "-o", "a&b", "#c", "!d"]


@pytest.mark.parametrize("word", WORDS)
def test_an_artifact_path_and_a_value_in_it_stay_as_they_are(word: str, tmp_path: Path) -> None:
    workflows = (
        "workflows:\n  - name: job\n    commands: ['true']\n"
        f"    artifacts: ['out/{word.replace(chr(39), chr(39) * 2)}', 'v/${{{{ v }}}}']\n"
    )
    job = project_job(tmp_path, word, workflows)
    assert job.artifacts == (f"out/{word}", f"v/{word}")
    assert word not in job.script


@pytest.mark.parametrize("value", ["../x", "/../../x", "..", "a/../../b", "x\x07", "x\n", "*"])
def test_a_value_that_leads_an_artifact_astray_is_refused(value: str, tmp_path: Path) -> None:
    workflows = "workflows:\n  - name: job\n    commands: ['true']\n    artifacts: ['v/${{ v }}']\n"
    with pytest.raises(ConfigError, match=r"workflows.yaml:4:17: artifact"):
        project_job(tmp_path, value, workflows)


@pytest.mark.parametrize("value", PAYLOADS)
def test_a_payload_cannot_name_a_workflow_or_a_variable(value: str, tmp_path: Path) -> None:
    folder = tmp_path / ".dstack"
    folder.mkdir()
    name = "".join(f"\\U{ord(character):08x}" for character in value)
    (folder / "workflows.yaml").write_text(f'workflows: [{{name: "{name}", commands: [ls]}}]\n', encoding="utf-8")
    (folder / "variables.yaml").write_text(f'variables: {{global: {{"{name}": 1}}}}\n', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_project(tmp_path)
    assert {problem.file for problem in caught.value.problems} == {".dstack/workflows.yaml", ".dstack/variables.yaml"}
