"""Many people start the same thing at once: it runs once, and all of them get what came of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.people.laptop import Laptop
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(280)


class Crowd:
    """People with homes of their own, one bucket and one project; each has this machine as host."""

    def __init__(self, folder: Path, count: int) -> None:
        (folder / "bucket").mkdir()
        self.marks, self.gate = folder / "marks", folder / "gate"
        self.people = [self._person(folder, number) for number in range(count)]
        self.processes: list[subprocess.Popen[bytes]] = []
        self._folder = folder

    def _person(self, folder: Path, number: int) -> Laptop:
        laptop = Laptop(folder / f"person-{number}")
        laptop.environment["DSTACK_SLOTS_DIR"] = str(folder / "slots")
        laptop.write(
            {
                ".dstack/workflows.yaml": f"""
workflows:
  - name: once
    commands:
      - echo begun >> {self.marks}
      - 'while [ ! -e {self.gate} ]; do sleep 0.05; done'
      - 'if [ -e {folder}/fail ]; then exit 3; fi'
      - echo done > out.txt
    artifacts: [out.txt]
""",
                ".dstack/config.yaml": f"{{bucket: {folder / 'bucket'}, project: shared}}",
            }
        )
        laptop.commit()
        return laptop

    def start(self, first: int, after: int) -> None:
        """These people, all at once."""
        for number, person in list(enumerate(self.people))[first:after]:
            with (self._folder / f"told-{number}").open("wb") as stream:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-P", "-m", "dstack", "run", "once"],
                        cwd=person.root,
                        env=person.environment,
                        stdin=subprocess.DEVNULL,
                        stdout=stream,
                        stderr=stream,
                    )
                )

    def wants(self) -> int:
        """How many runs wait for the job."""
        return len(list((self._folder / "bucket").glob("projects/shared/jobs/*/*/wants/*")))

    def begun(self) -> list[str]:
        return self.marks.read_text().split() if self.marks.exists() else []

    def told(self, number: int) -> str:
        return (self._folder / f"told-{number}").read_text()

    def codes(self) -> list[int]:
        return [process.wait(timeout=120) for process in self.processes]


LARGEST = 32 if int(os.environ.get("DSTACK_ROUNDS", "0")) >= 50 else 8
"""People in a crowd: a soak has 32."""


@pytest.fixture(params=[2, LARGEST])
def crowd(request: pytest.FixtureRequest, tmp_path: Path) -> Crowd:
    return Crowd(tmp_path, request.param)


def wait_for_all(crowd: Crowd) -> None:
    until("all wait for the one job", lambda: crowd.wants() == len(crowd.people), seconds=120)
    until("it runs", lambda: crowd.begun() == ["begun"], seconds=60)


def join(crowd: Crowd) -> None:
    """All but the first come when the job runs already."""
    crowd.start(0, 1)
    until("it runs", lambda: crowd.begun() == ["begun"], seconds=60)
    crowd.start(1, len(crowd.people))
    wait_for_all(crowd)


def test_many_who_start_the_same_job_run_it_once(crowd: Crowd) -> None:
    crowd.start(0, len(crowd.people))
    wait_for_all(crowd)
    crowd.gate.touch()
    assert crowd.codes() == [0] * len(crowd.people), crowd.told(0)
    assert crowd.begun() == ["begun"]


def test_one_failure_is_the_failure_of_all_who_had_joined(crowd: Crowd, tmp_path: Path) -> None:
    join(crowd)
    (tmp_path / "fail").touch()
    crowd.gate.touch()
    assert crowd.codes() == [1] * len(crowd.people), crowd.told(0)
    assert crowd.begun() == ["begun"], "nobody ran the failure again"


def test_who_stops_takes_the_job_from_nobody_and_the_last_one_ends_it(crowd: Crowd) -> None:
    join(crowd)
    names = [crowd.told(number).split()[0] for number in range(len(crowd.people))]
    for person, name in list(zip(crowd.people, names, strict=True))[:-1]:
        # So many coordinators on few processors may need longer than a stop waits for them.
        assert person.dstack("stop", name, code=None).returncode in (0, 1)
        until(f"{name} is stopped", lambda: person.statuses(name) == {"once": "stopped"}, seconds=60)
    assert crowd.begun() == ["begun"]
    crowd.gate.touch()
    assert crowd.codes() == [1] * (len(crowd.people) - 1) + [0], crowd.told(len(crowd.people) - 1)
    assert crowd.begun() == ["begun"], "it went on for the one who still wanted it"
