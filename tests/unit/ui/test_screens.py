"""What stands on a terminal after a run was watched, judged by a small terminal of our own."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable

import pytest

from dstack.adapters.unwatched_screen import LogScreen
from dstack.app.queries.run_views import waits_text
from dstack.ports import Screen
from dstack.ui.live import JobRow, LiveScreen, bar, table_rows
from dstack.ui.plain import PlainScreen
from dstack.ui.tables import display_width

SGR = re.compile(r"\x1b\[[0-9;]*m")
TOKEN = re.compile(r"\x1b\[(\d*)([AJm])|\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\r|\n|[^\x1b\r\n]+")


class Terminal:
    """Understands what LiveScreen may send and refuses everything else."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines: list[str] = [""]
        self.row = 0
        self.column = 0
        self.visible = True

    def show(self, data: str) -> None:
        at = 0
        while at < len(data):
            token = TOKEN.match(data, at)
            assert token, f"unknown to this terminal: {data[at : at + 20]!r}"
            at = token.end()
            self._obey(token[0], token[1], token[2])

    def _obey(self, token: str, number: str | None, letter: str | None) -> None:
        if token == "\r":
            self.column = 0
        elif token == "\n":
            self.row, self.column = self.row + 1, 0
            if self.row == len(self.lines):
                self.lines.append("")
        elif letter == "A":
            self.row -= int(number or 1)
            assert self.row >= 0, "the cursor left the screen at the top"
        elif letter == "J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        elif token.startswith("\x1b[?25"):
            self.visible = token.endswith("h")
        elif not token.startswith("\x1b"):
            self._write(token)

    def _write(self, text: str) -> None:
        for char in text:
            if self.column >= self.columns:
                self._obey("\n", None, None)
            line = self.lines[self.row]
            self.lines[self.row] = line[: self.column].ljust(self.column) + char + line[self.column + 1 :]
            self.column += display_width(char)

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n") + "\n"


class Sink(io.RawIOBase):
    """Keeps what is written, and can die."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.dead = False

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self.dead:
            raise BrokenPipeError
        self.data += data
        return len(data)


def live(sink: Sink, workflows: list[str], columns: int = 80, rows: int = 24) -> LiveScreen:
    return LiveScreen("calm-otter-7", workflows, out=sink, colour=True, size=lambda: (columns, rows))  # type: ignore[arg-type]


def shown(sink: Sink, columns: int = 80) -> Terminal:
    terminal = Terminal(columns)
    terminal.show(sink.data.decode())
    return terminal


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def test_logs_stand_above_the_table_and_the_table_stands_once() -> None:
    sink = Sink()
    with live(sink, ["prepare", "train"]) as screen:
        screen.job("prepare", "running", "gpu-1", "")
        screen.log("prepare", b"one\ntw")
        wait_for(lambda: b"[prepare] one" in sink.data)
        screen.job("train", "waiting", "", "waits for prepare")
        screen.log("prepare", b"o\nthree")
        wait_for(lambda: b"[prepare] two" in sink.data)
        screen.job("prepare", "succeeded", "gpu-1", "")
        screen.job("train", "reused", "gpu-2", "", reused_from="kind-fox-3")
    terminal = shown(sink)
    assert terminal.text() == (
        "[prepare] one\n"
        "[prepare] two\n"
        "[prepare] three\n"
        "WORKFLOW  STATUS     HOST   ELAPSED  NOTE\n"
        "prepare   succeeded  gpu-1     0:00\n"
        "train     reused     gpu-2           from kind-fox-3\n"
        "calm-otter-7: 1 succeeded, 1 reused\n"
    )
    assert terminal.visible


@pytest.mark.parametrize("columns", [40, 80, 132])
def test_the_table_never_wraps_whatever_it_says(columns: int) -> None:
    sink = Sink()
    with live(sink, ["a-very-long-workflow-name-" * 3, "b"], columns) as screen:
        screen.job("b", "queued", "a-host-with-a-long-name.example.org", "waits for a slot " * 10)
        screen.progress("code to a-host-with-a-long-name.example.org", 3_100_000, 5_200_000)
        wait_for(lambda: "█".encode() in sink.data)
    for line in SGR.sub("", sink.data.decode()).replace("\r", "").split("\n"):
        assert display_width(re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", line)) < columns


def test_a_terminal_that_got_narrower_keeps_the_log() -> None:
    sink = Sink()
    size = [100, 24]
    screen = LiveScreen("r", ["w"], out=sink, colour=False, size=lambda: (size[0], size[1]))  # type: ignore[arg-type]
    with screen:
        screen.job("w", "running", "h", "x" * 70)
        wait_for(lambda: b"xxx" in sink.data)
        size[0] = 50
        before = len(sink.data)
        screen.log("w", b"line\n")
        wait_for(lambda: b"line\n" in sink.data)
        # Two table lines; the one with 70 x takes two rows now; and the footer.
        assert b"\x1b[4A" in sink.data[before:]


def test_a_job_that_was_taken_up_again_shows_how_long_it_ran_and_not_how_long_it_was_watched() -> None:
    sink = Sink()
    with live(sink, ["train"]) as screen:
        screen.job("train", "running", "h", "")
        screen.job("train", "succeeded", "h", "", 3723.0)
    assert "1:02:03" in "\n".join(shown(sink).lines)


def test_a_job_that_runs_shows_how_long_it_has_run_and_not_how_long_it_was_watched() -> None:
    sink = Sink()
    with live(sink, ["train"]) as screen:
        screen.job("train", "running", "h", "")
        screen.job("train", "running", "h", "", 3723.0)
        screen.job("train", "running", "h", "note")
    assert "1:02:03" in "\n".join(shown(sink).lines)


def test_many_jobs_leave_room_for_the_log() -> None:
    jobs = [JobRow(workflow=f"w{i}", status="succeeded" if i < 30 else "waiting") for i in range(50)]
    jobs[40].status = "running"
    rows = table_rows(jobs, 0.0, 10)
    assert len(rows) == 10
    assert "w40" in [row[0] for row in rows]
    assert rows[-1][0] == "+ 41 more"
    assert rows[-1][4] == "30 succeeded, 11 waiting"


def test_progress_goes_away_when_it_is_done() -> None:
    sink = Sink()
    with live(sink, ["w"]) as screen:
        screen.progress("code to gpu-1", 1, 2)
        wait_for(lambda: b"code to gpu-1" in sink.data)
        screen.progress("code to gpu-1", 2, 2)
    assert "code to gpu-1" not in shown(sink).text()


def test_a_bar_shows_the_share() -> None:
    assert bar("pull", 5, 10, 80) == "pull  ██████████░░░░░░░░░░  5 B of 10 B"


def test_colours_of_a_job_do_not_leak_into_the_table() -> None:
    sink = Sink()
    with live(sink, ["w"]) as screen:
        screen.log("w", b"\x1b[31mred for ever\n")
        wait_for(lambda: b"red for ever" in sink.data)
    assert b"red for ever\x1b[0m\n" in sink.data


def test_a_terminal_that_is_gone_raises_nothing() -> None:
    sink = Sink()
    with live(sink, ["w"]) as screen:
        sink.dead = True
        screen.log("w", b"x" * 300_000 + b"\n")
        screen.job("w", "failed", "", "")


def test_lines_come_whole_from_several_threads() -> None:
    sink = Sink()
    with live(sink, ["a", "b"], columns=200) as screen:

        def write(name: str) -> None:
            for number in range(300):
                screen.log(name, f"{number} ".encode())
                screen.log(name, b"end\n")

        threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = shown(sink, 200).text().split("\n")
    for name in ("a", "b"):
        assert [line for line in lines if line.startswith(f"[{name}]")] == [f"[{name}] {n} end" for n in range(300)]


def plain(events: Callable[[PlainScreen], None], workflows: list[str], *, logs: bool = True) -> str:
    sink = Sink()
    with PlainScreen("calm-otter-7", workflows, out=sink, logs=logs) as screen:  # type: ignore[arg-type]
        events(screen)
    return sink.data.decode()


def test_a_pipe_gets_one_line_for_each_change_and_the_logs() -> None:
    def events(screen: PlainScreen) -> None:
        screen.job("prepare", "reused", "gpu-1", "", reused_from="kind-fox-3")
        screen.job("train", "queued", "", "waits for a slot")
        screen.job("train", "queued", "", "waits for a slot")
        screen.progress("code to gpu-2", 10, 2000)
        screen.progress("code to gpu-2", 2000, 2000)
        screen.job("train", "running", "gpu-2", "")
        screen.log("train", b"epoch 1\r\nepo")
        screen.log("train", b"ch 2")
        screen.job("train", "failed", "gpu-2", "exit code 3")

    assert plain(events, ["prepare", "train"]) == (
        "calm-otter-7\n"
        "prepare: reused from kind-fox-3\n"
        "train: queued (waits for a slot)\n"
        "code to gpu-2: 2.0 kB\n"
        "train: running on gpu-2\n"
        "[train] epoch 1\n"
        "[train] epoch 2\n"
        "train: failed on gpu-2 (exit code 3)\n"
        "calm-otter-7: 1 reused, 1 failed\n"
    )


def test_one_job_has_no_prefix() -> None:
    assert "\nhello\n" in plain(lambda screen: screen.log("w", b"hello\n"), ["w"])


def test_without_logs_only_changes_are_told() -> None:
    assert "hello" not in plain(lambda screen: screen.log("w", b"hello\n"), ["w"], logs=False)


def test_hosts_and_reasons_cannot_steer_the_terminal() -> None:
    text = plain(lambda screen: screen.job("w", "failed", "\x1b]0;x\x07h", "a\nb\x1b[2J"), ["w"])
    assert "\x1b" not in text
    assert "w: failed on h (a b)\n" in text


@pytest.mark.parametrize("count", [1, 3, 4, 1000])
def test_a_fan_of_jobs_is_told_in_as_many_lines_as_it_has_jobs(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A job that waits for all others is told to wait once, in a short line, however many of them end before it."""
    inputs = [f"part-{number}" for number in range(count)]

    def events(screen: Screen) -> None:
        for done in range(count):
            screen.job("sum", "waiting", "", waits_text(inputs[done:]))
            screen.job(inputs[done], "succeeded", "local", "")
        screen.job("sum", "running", "local", "")
        screen.job("sum", "succeeded", "local", "")

    text = plain(events, [*inputs, "sum"])
    waits = [line for line in text.splitlines() if "waits for" in line]
    assert len(waits) == 1
    assert len(waits[0]) < 60
    assert waits[0].endswith("(waits for part-0)" if count == 1 else "part-2)" if count == 3 else f"{count} jobs)")
    assert len(text.splitlines()) == count + 5
    events(LogScreen())
    assert len(capsys.readouterr().out.splitlines()) == count + 3
