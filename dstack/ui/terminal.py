"""Texts of jobs, hosts and buckets, made safe for a terminal.

Kept: text, newline, tab, and colours (`ESC [ … m`) with parameters undone by a reset. Dropped: every other control
sequence and character, C1 in both forms, and characters that reorder text. Bytes outside UTF-8 become U+FFFD. A line
drawn over itself with carriage returns (a progress bar) is given once, with its last text.
"""

from __future__ import annotations

import codecs
import re

from dstack.ui.colours import Colours, keep_permitted

MAX_HELD_CHARACTERS = 64 * 1024
"""Characters of an unfinished line held back at most."""
MAX_SEQUENCE_CHARACTERS = 64
"""Characters of a control sequence at most; of a longer sequence only the ESC is dropped."""

_PLAIN = bytes(range(0x20, 0x7F)) + b"\n\t"
_SUSPICIOUS = bytes(byte for byte in range(0x80) if byte not in _PLAIN)
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_FORBIDDEN = f"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029{_BIDI}"
_ODD = re.compile(f"[{_FORBIDDEN}]")
_ODD_BYTES = re.compile(
    rb"\xc2[\x80-\x9f]|\xd8\x9c|\xe2(?:\x80[\x8e\x8f\xa8-\xae]|\x81[\xa6-\xa9])",
)
_NOT_RETURN = _SUSPICIOUS.replace(b"\r", b"")
# Starts with one class of characters on purpose: the search then skips harmless text fast. Colours never match.
# _CSI is bounded within MAX_SEQUENCE_CHARACTERS: a sequence without an end must not make every search long.
_CSI = r"[0-?]{0,48}[ -/]{0,8}"
_SEQUENCE = re.compile(
    f"[{_FORBIDDEN}]"
    r"(?<!\x1b(?=\[[0-9;:]{0,48}m))"
    rf"(?:(?<=\x1b)\[{_CSI}[@-~]|(?<=\x9b){_CSI}[@-~]|(?<=\x1b)[ -/]{{1,8}}[0-~]|(?<=\x1b)[0-OQ-WYZ\\`-~])?"
)
_COLOUR = re.compile(r"\x1b\[([0-9;:]{0,48})m")
_STRING = re.compile("\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f]")
_STRING_OPENERS = ("\x1b]", "\x1bP", "\x1bX", "\x1b^", "\x1b_")
# CAN and SUB (0x18, 0x1a) break a string off in a terminal, as does any ESC.
_STRING_END = re.compile("[\x07\x9c\x18\x1a\n]|\x1b\\\\?")
_UNFINISHED = re.compile(rf"(?:\x1b|(?:\x1b\[|\x9b){_CSI}|\x1b[ -/]{{1,8}})\Z")
_LINE_END = re.compile("\r+\n")


def clean(text: str) -> str:
    """A line of text without commands to a terminal: for names, hosts, reasons, errors."""
    if text.isprintable():
        return _ODD.sub("", text)
    screen = TerminalFilter()
    data = re.sub("[\n\t\r]", " ", text).encode("utf-8", "replace")
    return _COLOUR.sub("", (screen.feed(data) + screen.finish()).decode("utf-8"))


def clean_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(clean(line) for line in text.split("\n"))


class TerminalFilter:
    """Filters a stream of bytes in pieces of any size; the output depends on the bytes alone.

    The exception is a line being drawn over: the line is held until its end or a call of `release`. Memory is bounded
    by the longest piece plus MAX_HELD_CHARACTERS.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tail = ""
        self._in_string = False
        self._overwriting = False
        self._held = ""
        self._in_line = False

    def feed(self, data: bytes) -> bytes:
        """The permitted part of `data`."""
        if not data:
            return b""
        # The way of most logs: bytes are compared in C, and nothing is decoded.
        if self._calm and data.isascii() and len(data.translate(None, _SUSPICIOUS)) == len(data):
            self._in_line = data[-1] != 0x0A
            return data
        whole = not (self._tail or self._in_string or self._decoder.getstate()[0])
        text = self._decoder.decode(data)
        if whole and len(data.translate(None, _NOT_RETURN)) == len(data) and not _ODD_BYTES.search(data):
            return self._draw(self._keep_return(text))
        return self._draw(self._strip(text))

    @property
    def _calm(self) -> bool:
        return not (self._tail or self._in_string or self._overwriting or self._decoder.getstate()[0])

    @property
    def is_holding(self) -> bool:
        """Whether a line being drawn over is held back."""
        return bool(self._held)

    def release(self) -> bytes:
        """The text of the held line now, with a newline; nothing without a held line."""
        if not self._held:
            return b""
        text, self._held, self._overwriting, self._in_line = self._held + "\n", "", False, False
        return _encode(text)

    def finish(self) -> bytes:
        """The rest, at the end of the stream; an unfinished sequence is dropped."""
        text = self._draw(self._strip(self._decoder.decode(b"", final=True)))
        self._tail = ""
        held, self._held, self._overwriting = self._held, "", False
        return text + _encode(held)

    def _strip(self, text: str) -> str:
        """`text` without anything forbidden; an unfinished sequence at the end is kept in `_tail`."""
        text = self._tail + text
        self._tail = ""
        parts: list[str] = []
        position = 0
        while position < len(text):
            if self._in_string:
                position = self._skip_string(text, position)
                continue
            string = _STRING.search(text, position) if _may_hold_string(text) else None
            end = string.start() if string else self._end_of_finished(text, position)
            parts.append(_COLOUR.sub(_listed, _SEQUENCE.sub("", text[position:end])))
            position = string.end() if string else len(text)
            self._in_string = string is not None
        return self._keep_return("".join(parts))

    def _end_of_finished(self, text: str, position: int) -> int:
        """The beginning of an unfinished sequence, kept for the next piece; else the end."""
        start = max(text.rfind("\x1b", position), text.rfind("\x9b", position))
        if start < 0 or len(text) - start > MAX_SEQUENCE_CHARACTERS or not _UNFINISHED.match(text, start):
            return len(text)
        self._tail = text[start:]
        return start

    def _skip_string(self, text: str, position: int) -> int:
        """Drop the payload of an OSC, DCS, APC, PM or SOS -> where to go on. A newline always ends the payload."""
        end = _STRING_END.search(text, position)
        if end is None:
            return len(text)
        if end[0] == "\x1b" and end.end() == len(text):
            self._tail = "\x1b"
            return len(text)
        self._in_string = False
        # A newline, and an ESC that begins another sequence, belong to the text behind the string.
        return end.start() if end[0] in ("\n", "\x1b") else end.end()

    def _keep_return(self, text: str) -> str:
        """Hold a carriage return at the very end, which may be half of a line end."""
        stripped = text.rstrip("\r")
        if len(stripped) != len(text):
            self._tail = "\r" + self._tail
        return stripped

    def _draw(self, text: str) -> bytes:
        if not text:
            return b""
        text = text.replace("\r\n", "\n")
        if "\r" in text:
            text = _LINE_END.sub("\n", text)
        if "\r" not in text and not self._overwriting:
            self._in_line = text[-1] != "\n"
            return _encode(text)
        lines = text.split("\n")
        out: list[str] = []
        for line in lines[:-1]:
            self._line(line, out)
            out.append(self._held + "\n")
            self._held, self._overwriting, self._in_line = "", False, False
        self._line(lines[-1], out)
        if len(self._held) > MAX_HELD_CHARACTERS:
            out.append(self._held)
            self._held, self._overwriting, self._in_line = "", False, True
        return _encode("".join(out))

    def _line(self, line: str, out: list[str]) -> None:
        """Give a line, or a part without the end of the line; text that may still be drawn over goes to `_held`."""
        if "\r" not in line and not self._overwriting:
            out.append(line)
            self._in_line = self._in_line or bool(line)
            return
        parts = line.split("\r")
        if self._overwriting:
            parts[0] = self._held + parts[0]
        elif self._in_line:
            out.append(parts.pop(0) + "\n")
            self._in_line = False
        self._held = next((part for part in reversed(parts) if part), self._held)
        self._overwriting = True


def _listed(colour: re.Match[str]) -> str:
    """An `ESC [ … m` with the permitted parameters alone; nothing where no parameter is permitted."""
    parameters = keep_permitted(colour[1])
    return "" if parameters is None else f"\x1b[{parameters}m"


def _may_hold_string(text: str) -> bool:
    """A cheap no for most texts, colours and all."""
    return not text.isascii() or any(opener in text for opener in _STRING_OPENERS)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")


class LinePrefixer:
    """Puts a prefix before every line of a stream, and gives whole lines only, so that streams can be mixed.

    A line with colours left on ends without colours, and the next line begins with the same colours: no line colours
    the prefix, another stream or the table below.
    """

    def __init__(self, prefix: bytes = b"") -> None:
        self._prefix = prefix
        self._rest = b""
        self._colours = Colours()

    def feed(self, data: bytes) -> bytes:
        """The lines completed by `data`; a line beyond MAX_HELD_CHARACTERS bytes is cut."""
        end = data.rfind(b"\n")
        if end < 0:
            self._rest += data
            return self.flush() if len(self._rest) > MAX_HELD_CHARACTERS else b""
        body = self._rest + data[:end] if self._rest else data[:end]
        self._rest = data[end + 1 :]
        return self._lines(body)

    def flush(self) -> bytes:
        """The last line, whole or not, with a newline."""
        if not self._rest:
            return b""
        body, self._rest = self._rest, b""
        return self._lines(body)

    def _lines(self, body: bytes) -> bytes:
        if b"\x1b" in body:
            return b"".join(map(self._coloured, body.split(b"\n")))
        head, end = self._prefix + self._colours.in_force, self._colours.reset + b"\n"
        return head + body.replace(b"\n", end + head) + end

    def _coloured(self, line: bytes) -> bytes:
        head = self._prefix + self._colours.in_force
        self._colours.follow(line)
        return head + line + self._colours.reset + b"\n"
