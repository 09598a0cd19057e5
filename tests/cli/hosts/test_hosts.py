"""The inventory commands; what concerns keys is tried on a real sshd."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from dstack.cli.hosts.host_report import host_lines, problems_by_hosts
from dstack.model import Gpu, Host, HostName
from dstack.session.host_answers import HostAnswer
from dstack.session.host_inspection import HostCondition
from dstack.ui.tables import display_width
from tests.support.buckets.guarded_store import Guarded
from tests.support.buckets.refusing_store import Refusing
from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import ClientKey
from tests.support.people.laptop import Done, Laptop
from tests.support.records.specs import LARGE_FACTS

Make = Callable[..., Laptop]


def fingerprint(host: TestHost) -> str:
    """As the host itself says it."""
    line = subprocess.run(
        ["ssh-keygen", "-lf", "-"], input=host.host_key(), capture_output=True, text=True, check=True
    ).stdout
    return line.split()[1]


def options(host: TestHost, key: ClientKey) -> list[str]:
    return ["--address", host.address, "--port", str(host.port), "--user", host.user, "--identity-file", str(key.file)]


def inventory(project: Laptop) -> Path:
    return project.home / ".dstack" / "hosts.yaml"


def test_without_an_inventory_this_machine_is_the_host(project: Make) -> None:
    assert project().run("hosts", "ls").out == (
        "HOST   ADDRESS       USER  JUMP  SLOTS  FROM\n"
        "local  this machine  -     -         -  default: no host is listed\n"
    )


def test_hosts_ls_says_where_each_host_stands(project: Make) -> None:
    made = project(
        {
            ".dstack/workflows.yaml": "workflows: []\n",
            ".dstack/hosts.yaml": "hosts:\n"
            "  gpu-1: {address: 10.0.0.5, user: ubuntu, slots: 2}\n"
            "  gpu-2: {jump: gpu-1}\n",
        }
    )
    assert made.run("hosts", "ls").out == (
        "HOST   ADDRESS   USER    JUMP   SLOTS  FROM\n"
        "gpu-1  10.0.0.5  ubuntu  -          2  .dstack/hosts.yaml:2\n"
        "gpu-2  gpu-2     -       gpu-1      -  .dstack/hosts.yaml:3\n"
    )


def test_a_host_is_added_and_removed_and_the_rest_stays(project: Make) -> None:
    made = project()
    inventory(made).parent.mkdir(mode=0o700)
    before = "# mine\nhosts:\n  a: {address: 10.0.0.1}  # first\n"
    inventory(made).write_text(before)
    done = made.run("hosts", "add", "b", "--address", "10.0.0.2", "--slots", "2", "--offline")
    assert (done.code, done.out, done.err) == (0, "added b to ~/.dstack/hosts.yaml\n", "")
    assert inventory(made).read_text() == before + "  b:\n    address: 10.0.0.2\n    slots: 2\n"
    assert made.run("hosts", "rm", "b").out == "removed b from ~/.dstack/hosts.yaml\n"
    assert inventory(made).read_text() == before


def test_a_new_inventory_is_private(project: Make) -> None:
    made = project()
    assert made.run("hosts", "add", "b", "--offline").code == 0
    assert inventory(made).stat().st_mode & 0o777 == 0o600


def test_the_inventory_of_the_project_is_chosen_by_an_option(project: Make) -> None:
    made = project({".dstack/workflows.yaml": "workflows: []\n"})
    assert made.run("hosts", "add", "b", "--local", "--project").out == "added b to .dstack/hosts.yaml\n"
    assert (made.root / ".dstack/hosts.yaml").read_text() == "hosts:\n  b:\n    local: true\n"


def test_what_cannot_be_added_or_removed_is_told(project: Make) -> None:
    made = project()
    made.run("hosts", "add", "b", "--offline")
    assert made.run("hosts", "add", "b", "--user", "x", "--offline").err == (
        "error: host b is listed already at ~/.dstack/hosts.yaml:2\n  edit it there, or `dstack hosts rm b`\n"
    )
    assert made.run("hosts", "add", "-x").code == 2
    assert made.run("hosts", "add", "a b", "--offline").code == 2
    assert made.run("hosts", "rm", "c").code == 2
    assert 'did you mean "b"?' in made.run("hosts", "rm", "bb").err


def test_an_unknown_host_is_told_with_the_known_ones(project: Make) -> None:
    done = project().run("hosts", "check", "gpu-9")
    assert (done.code, done.out) == (2, "")
    assert "there is no host 'gpu-9'" in done.err


def test_this_machine_is_checked_without_ssh(project: Make) -> None:
    done = project().run("hosts", "check")
    assert done.code == 0, done.err
    head, row = done.out.splitlines()[:2]
    columns = "HOST STATE TOOLS CPUS MEMORY GPUS SLOTS DISK BUCKET"
    assert head.split() == columns.split()
    assert row.split()[:2] == ["local", "ok"]
    assert max(len(line) for line in done.out.splitlines()[:2]) <= 80


def test_a_key_that_nobody_confirms_ends_with_4_and_leaves_nothing(
    project: Make,
    ssh_host: TestHost,
    client_key: ClientKey,
) -> None:
    made = project()
    done = made.run("hosts", "add", "gpu", *options(ssh_host, client_key))
    assert (done.code, done.out) == (4, "")
    assert fingerprint(ssh_host) in done.err
    assert not inventory(made).exists()
    assert ssh_host.sessions() == 0


def test_a_key_is_asked_about_once(project: Make, ssh_host: TestHost, client_key: ClientKey) -> None:
    made = project()
    refused = made.terminal("hosts", "add", "gpu", *options(ssh_host, client_key), answer="n\n")
    assert refused.code == 4
    left = made.terminal("hosts", "add", "gpu", *options(ssh_host, client_key), interrupt_at="[y/N]")
    assert left.code == 130
    assert "Traceback" not in left.out
    assert not inventory(made).exists()
    done = made.terminal("hosts", "add", "gpu", *options(ssh_host, client_key), answer="y\n")
    assert done.code == 0, done.out
    assert fingerprint(ssh_host) in done.out
    assert "Is this the key of that host? [y/N]" in done.out
    assert "added gpu to ~/.dstack/hosts.yaml" in done.out
    checked = made.run("hosts", "check", "gpu")
    assert checked.code == 0, checked.out + checked.err
    assert checked.out.splitlines()[1].split()[:2] == ["gpu", "ok"]
    assert made.run("hosts", "add", "gpu").out == "gpu: its key is confirmed\n"


def test_the_right_fingerprint_confirms_and_a_wrong_one_does_not(
    project: Make,
    ssh_host: TestHost,
    client_key: ClientKey,
) -> None:
    made = project()
    wrong = made.run("hosts", "add", "gpu", *options(ssh_host, client_key), "--yes", "SHA256:" + "A" * 43)
    assert wrong.code == 4
    assert f"shows the key {fingerprint(ssh_host)}, not SHA256:AAA" in wrong.err
    assert "--yes" not in wrong.err
    right = made.run("hosts", "add", "gpu", *options(ssh_host, client_key), "--yes", fingerprint(ssh_host))
    assert (right.code, right.out) == (0, "added gpu to ~/.dstack/hosts.yaml\n"), right.err


def test_a_changed_key_is_never_offered(project: Make, ssh_host: TestHost, client_key: ClientKey) -> None:
    made = project()
    made.run("hosts", "add", "gpu", *options(ssh_host, client_key), "--yes", fingerprint(ssh_host))
    ssh_host.swap_host_key()
    assert made.run("hosts", "check").out.splitlines()[1].split()[:3] == ["gpu", "key", "CHANGED"]
    for done in (
        made.run("hosts", "check"),
        made.run("hosts", "add", "gpu", "--yes", fingerprint(ssh_host)),
        made.terminal("hosts", "add", "gpu", answer="y\n"),
    ):
        assert done.code == 4
        assert "CHANGED" in done.out + done.err


def test_a_host_that_cannot_be_reached_is_3_and_the_others_are_shown(project: Make) -> None:
    made = project()
    made.run("hosts", "add", "here", "--local")
    made.run("hosts", "add", "gone", "--address", "127.0.0.1", "--port", "1", "--offline")
    done = made.run("hosts", "check")
    assert done.code == 3
    rows = [line.split()[:2] for line in done.out.splitlines()[1:] if line.startswith(("here ", "gone "))]
    assert rows == [["here", "ok"], ["gone", "failed"]]
    assert "\ngone: " in done.out


def checked(project: Laptop, host: TestHost, key: ClientKey, bucket: str, env: Mapping[str, str]) -> Done:
    """`hosts check` of one host with this bucket, which is the host's own way to it with the user's credentials."""
    if not inventory(project).exists():
        project.run("hosts", "add", "gpu", *options(host, key), "--yes", fingerprint(host))
        text = inventory(project).read_text()
        inventory(project).write_text(text.replace("address:", "forward-credentials: true\n    address:", 1))
    done = project.run("hosts", "check", env={"DSTACK_BUCKET": bucket, "COLUMNS": "200", **env})
    assert done.code == 0, done.out + done.err
    return done


def test_a_host_that_reaches_a_new_bucket_is_shown_as_reaching_it(
    project: Make, farm: Farm, ssh_host: TestHost, client_key: ClientKey
) -> None:
    """Nothing but reads comes to the store: a look creates nothing."""
    store = Refusing(404, "NoSuchKey", farm.gateway())
    env = {"AWS_ENDPOINT_URL": store.url, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "x"}
    try:
        done = checked(project(), ssh_host, client_key, "s3://fresh", env)
    finally:
        store.close()
    assert "yes (you, forwarded)" in done.out.splitlines()[1], done.out
    assert done.out.endswith("the bucket s3://fresh is not used yet\n  dstack init --bucket s3://fresh    tries it\n")
    assert set(store.methods) == {"GET"}


def test_a_folder_that_nobody_has_used_is_told_from_one_that_the_host_does_not_see(
    project: Make, ssh_host: TestHost, client_key: ClientKey, tmp_path: Path
) -> None:
    made, bucket = project({".dstack/workflows.yaml": "workflows: []\n"}), tmp_path / "bucket"
    elsewhere = f"gpu: this host does not see the bucket {bucket}: no dstack has used it as seen from here\n"
    elsewhere += "  mount it there at the same path, or "
    missing = checked(made, ssh_host, client_key, str(bucket), {})
    assert elsewhere in missing.out
    assert missing.out.endswith(
        f"\nthe bucket {bucket} does not exist here\n  mount it, or make it: dstack init --bucket {bucket}\n"
    )
    assert not bucket.exists()
    bucket.mkdir()
    fresh = checked(made, ssh_host, client_key, str(bucket), {})
    assert "not used yet" in fresh.out.splitlines()[1]
    assert f"the bucket {bucket} is not used yet" in fresh.out
    assert not list(bucket.iterdir())
    assert made.run("init", "--bucket", str(bucket)).code == 0
    used = checked(made, ssh_host, client_key, f"file://{bucket}", {})
    assert "not used yet" not in used.out
    if not used.out.splitlines()[1].endswith(f" yes ({ssh_host.user})"):
        assert f"this host does not see the bucket file://{bucket}" in used.out


def test_a_host_says_what_its_account_can_do_with_the_bucket_by_doing_it(
    project: Make, farm: Farm, client_key: ClientKey, tmp_path: Path
) -> None:
    """A folder that all machines see: the laptop may do everything, the account on the host what its mode says."""
    bucket = tmp_path / "shared"
    bucket.mkdir()
    host = farm.start(shared=bucket)[0]
    made = project({".dstack/workflows.yaml": "workflows: []\n"})
    assert made.run("init", "--bucket", str(bucket)).code == 0
    made.run("hosts", "add", "gpu", *options(host, client_key), "--yes", fingerprint(host))
    where = {"DSTACK_BUCKET": str(bucket), "COLUMNS": "200"}
    host.run(["chmod", "-R", "a+rwX", str(bucket)])
    good = made.run("hosts", "check", env=where)
    assert (good.code, good.out.splitlines()[1].endswith(f" yes ({host.user})")) == (0, True), good.out
    host.run(["sh", "-c", f"chown -R root {bucket} && chmod -R 755 {bucket}"])
    reads = made.run("hosts", "check", env=where)
    assert (reads.code, reads.out.splitlines()[1].split()[1]) == (6, "unfit"), reads.out
    assert reads.out.splitlines()[1].endswith(" read only")
    assert "gpu: its account can read the bucket, and not write to it: " in reads.out
    host.run(["chmod", "700", str(bucket)])
    shut = made.run("hosts", "check", env=where)
    assert (shut.code, shut.out.splitlines()[1].split()[1]) == (6, "unfit"), shut.out
    assert shut.out.splitlines()[1].endswith(" no")
    assert "gpu: its account cannot read the bucket: " in shut.out
    assert not list((bucket / "probe").glob("*/*"))


@pytest.mark.parametrize("can", ["everything", "read", "nothing"])
def test_this_machine_is_judged_by_a_real_read_and_write(project: Make, can: str) -> None:
    store = Guarded(reads=can != "nothing", writes=can == "everything")
    env = {"AWS_ENDPOINT_URL": store.url, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "x"}
    try:
        done = project().run("hosts", "check", env={"DSTACK_BUCKET": "s3://lab", "COLUMNS": "200", **env})
    finally:
        store.close()
    row, words = done.out.splitlines()[1], done.out
    told = {"everything": "yes (alice)", "read": "read only", "nothing": "no"}[can]
    assert row.split()[1] == ("ok" if can == "everything" else "unfit"), words
    assert row.endswith(f" {told}"), words
    assert done.code == (0 if can == "everything" else 6)
    assert ("its account can" in words) == (can != "everything")
    assert set(store.objects) == {"dstack.json"}


def answer(name: str, *, docker: bool, unseen: str = "") -> HostAnswer[HostCondition]:
    facts = replace(LARGE_FACTS, hostname=name, docker=docker, shared_slots=True)
    return HostAnswer(host=Host(name=HostName(name)), value=HostCondition(facts=facts, unseen=unseen))


def test_a_problem_of_several_hosts_is_told_once() -> None:
    found = [answer("gpu-1", docker=False), answer("gpu-2", docker=True, unseen="x"), answer("gpu-3", docker=False)]
    assert [(problem.partition(":")[0], names) for problem, _, names in problems_by_hosts(found)] == [
        ("Docker does not answer user alice", ["gpu-1", "gpu-3"]),
        ("x", ["gpu-2"]),
    ]


@pytest.mark.parametrize("columns", [80, 200])
def test_nothing_of_what_a_host_has_is_cut(columns: int) -> None:
    gpus = (Gpu(count=2, name="NVIDIA A100-SXM4-80GB", memory=80_000_000_000),)
    bare = answer("gpu-1", docker=False).value
    assert bare is not None
    facts = replace(bare.facts, gpus=gpus, disk_free=999_000_000_000, python="3.11.7", git="git version 2.40.0")
    found = HostAnswer(host=Host(name=HostName("gpu-1")), value=HostCondition(facts=facts, who="ec2-user, forwarded"))
    titles, *lines = host_lines([found], width=columns)
    assert all(display_width(line) <= columns for line in lines)
    starts = [titles.index(title) for title in ("TOOLS", "CPUS", "GPUS", "SLOTS", "BUCKET")]
    tools, _, shown, _, bucket = (
        " ".join(line[begin:end].strip() for line in lines).split()
        for begin, end in zip(starts, [*starts[1:], columns], strict=True)
    )
    assert tools == ["Python", "3.11.7,", "git", "2.40.0,", "no", "Docker"]
    assert "".join(shown) == "2×NVIDIAA100-SXM4-80GB80GB"
    assert bucket == ["yes", "(ec2-user,", "forwarded)"]


def test_a_hint_is_broken_at_spaces_in_a_narrow_terminal(project: Make) -> None:
    made = project()
    made.run("hosts", "add", "gone", "--address", "127.0.0.1", "--port", "1", "--offline")
    whole = made.run("hosts", "check", env={"COLUMNS": "40"}).out.partition("\n\n")[2]
    narrow = made.terminal("hosts", "check", env={"COLUMNS": "40"}).out.partition("\n\n")[2]
    assert max(map(len, whole.splitlines())) > 40, "what programs read is not broken"
    assert all(len(line) <= 40 for line in narrow.splitlines())
    assert narrow.split() == whole.split()
