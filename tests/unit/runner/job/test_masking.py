"""What is hidden in a stream: every occurrence of a pattern, however the stream is cut; and nothing else."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.runner.job.masking import LONG_PATTERN_BYTES, MASK, SINGLE_SEARCH_PATTERNS, Masker
from dstack.runner.job.secret_patterns import patterns

letters = st.text("ab", min_size=1, max_size=6).map(str.encode)
texts = st.lists(st.sampled_from([b"a", b"b", b"ab", b"aab", b"x"]), max_size=40).map(b"".join)
cuts = st.lists(st.integers(0, 3000), max_size=12)


def expected(text: bytes, sought: list[bytes]) -> bytes:
    """Slowly: mark every byte of every occurrence; occurrences that share a byte are one."""
    inside = [False] * len(text)
    joined = [False] * len(text)
    for pattern in sought:
        for at in range(len(text) - len(pattern) + 1):
            if text.startswith(pattern, at):
                inside[at : at + len(pattern)] = [True] * len(pattern)
                joined[at + 1 : at + len(pattern)] = [True] * (len(pattern) - 1)
    out = bytearray()
    for at, byte in enumerate(text):
        if not inside[at]:
            out.append(byte)
        elif not joined[at]:
            out += MASK
    return bytes(out)


def masked(text: bytes, sought: list[bytes], places: list[int]) -> bytes:
    masker, done, out = Masker(sought), 0, b""
    for place in sorted(place % (len(text) + 1) for place in places):
        out += masker.feed(text[done:place])
        done = place
    return out + masker.feed(text[done:]) + masker.finish()


@given(texts, st.lists(letters, min_size=1, max_size=4), cuts)
def test_any_cut_gives_what_a_slow_search_gives(text: bytes, sought: list[bytes], places: list[int]) -> None:
    assert masked(text, sought, places) == expected(text, sought)


@given(
    st.lists(
        st.binary(min_size=LONG_PATTERN_BYTES, max_size=60),
        min_size=SINGLE_SEARCH_PATTERNS + 1,
        max_size=SINGLE_SEARCH_PATTERNS + 6,
        unique=True,
    ),
    st.data(),
    cuts,
)
def test_many_long_patterns_are_found_by_their_blocks(
    sought: list[bytes], data: st.DataObject, places: list[int]
) -> None:
    piece = st.one_of(st.sampled_from(sought), st.sampled_from([p[:-1] for p in sought]), st.binary(max_size=20))
    text = b"".join(data.draw(st.lists(piece, max_size=12)))
    assert masked(text, sought, places) == expected(text, sought)


@given(st.binary(max_size=3000), cuts)
def test_text_without_a_secret_is_the_same_byte_for_byte(text: bytes, places: list[int]) -> None:
    sought = patterns(["correct horse battery staple"])
    assert masked(text, sought, places) == text


def encodings(secret: str) -> dict[str, bytes]:
    raw = secret.encode()
    return {
        "raw": raw,
        "json": json.dumps({"key": secret}).encode(),
        "json as it is": json.dumps({"key": secret}, ensure_ascii=False).encode(),
        "repr": repr({"key": secret}).encode(),
        "url": b"https://x/?a=" + quote(secret, safe="").encode(),
        "base64 0": base64.b64encode(raw),
        "base64 1": base64.b64encode(b"u" + raw + b"tail"),
        "base64 2": base64.b64encode(b"u:" + raw + b"t"),
        "base64 3": base64.b64encode(b"abc" + raw + b"ta"),
        "base64 for URLs": base64.urlsafe_b64encode(b"u:" + raw),
        "hex": raw.hex().encode(),
    }


SECRETS = ["kx7Qp2mZ9vR4tLw8", "pa\"ss\\wo/rd&<é>+ '1'", "hunter2!", "ab\u2028cd?>~~~", "x" * 200]


@pytest.mark.parametrize("secret", SECRETS)
def test_every_encoding_is_hidden_at_every_cut(secret: str) -> None:
    """No five bytes in a row of what an encoding makes of the secret are left."""
    sought = patterns([secret])
    for name, text in encodings(secret).items():
        whole = masked(b"<<" + text + b">>", sought, [])
        assert MASK in whole, name
        assert_hidden(name, secret, text, whole)
        for cut in range(len(text) + 4):
            assert masked(b"<<" + text + b">>", sought, [cut]) == whole, (name, cut)


def assert_hidden(name: str, secret: str, text: bytes, shown: bytes) -> None:
    raw = secret.encode()
    assert raw not in shown, name
    kept = b"".join(shown.split(MASK))
    for run in re.findall(rb"[A-Za-z0-9+/_-]{8,}", kept) if name.startswith("base64") else []:
        for start in range(4):
            piece = run[start : start + (len(run) - start) // 4 * 4]
            decoded = base64.urlsafe_b64decode(piece.replace(b"+", b"-").replace(b"/", b"_"))
            assert not any(decoded[at : at + 3] in raw for at in range(len(decoded) - 2)), (name, decoded)


@given(
    st.text(min_size=4, max_size=40).filter(lambda text: "\0" not in text), st.binary(max_size=7), st.binary(max_size=7)
)
def test_base64_of_any_secret_among_anything_is_hidden(secret: str, before: bytes, after: bytes) -> None:
    raw = secret.encode()
    text = base64.b64encode(before + raw + after)
    assert MASK in masked(text, patterns([secret]), [])


@given(st.text(min_size=4, max_size=40).filter(lambda text: "\0" not in text), cuts)
def test_any_secret_in_any_encoding_is_hidden_at_any_cut(secret: str, places: list[int]) -> None:
    sought = patterns([secret])
    for name, text in encodings(secret).items():
        shown = masked(text, sought, places)
        assert shown == masked(text, sought, []), name
        assert MASK in shown, name
        assert_hidden(name, secret, text, shown)


def test_every_line_of_a_value_of_many_is_hidden_and_short_ones_are_not() -> None:
    value = "-----BEGIN KEY-----\nq83jf92kd0ak\r\nabc\nzz91mma0xx\n-----END KEY-----\n"
    sought = patterns([value])
    assert masked(b"| q83jf92kd0ak |\n| abc |\n| zz91mma0xx |\n", sought, []) == b"| *** |\n| abc |\n| *** |\n"
    assert masked(base64.b64encode(b"zz91mma0xx"), sought, [5]).startswith(MASK)
    assert masked(value.encode(), sought, []) == MASK


def test_base64_that_is_wrapped_is_hidden_line_by_line() -> None:
    value = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" * 3
    shown = masked(base64.encodebytes(value.encode()), patterns([value]), [])
    assert shown == b"***\n***\n***\n***\n"


@pytest.mark.parametrize("secret", ["hunter2-secret-value", "hunter2-secret-valu", "hunter2-secret-val", "?~~?>>~~"])
@pytest.mark.parametrize(("before", "shared"), [(b"", 0), (b"u", 2), (b"u:", 3)])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_that_ends_with_the_value_is_hidden_to_its_end(
    secret: str, before: bytes, shared: int, encode: Callable[[bytes], bytes]
) -> None:
    """Only the digits that the bytes before have a part in are left."""
    sought = patterns([secret])
    text = encode(before + secret.encode())
    for shown in (text, text.rstrip(b"=")):
        for cut in range(len(shown)):
            assert masked(shown + b"\n", sought, [cut]) == shown[:shared] + b"***\n", (shown, cut)
    echoed = encode(before + secret.encode() + b"\n")
    whole = len(before + secret.encode()) % 3 == 0
    assert masked(echoed, sought, []) == text[:shared] + (b"***Cg==" if whole else b"***")


@pytest.mark.parametrize("width", [64, 76])
@pytest.mark.parametrize("length", range(100, 118))
def test_wrapped_base64_is_hidden_to_its_end(width: int, length: int) -> None:
    value = ("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" * 3)[:length]
    for ending in (b"", b"\n") if length % 3 else (b"",):
        digits = base64.b64encode(value.encode() + ending)
        lines = [digits[start : start + width] for start in range(0, len(digits), width)]
        assert masked(b"\n".join(lines), patterns([value]), []) == b"\n".join([MASK] * len(lines))


def test_values_of_fewer_than_four_bytes_are_not_hidden() -> None:
    assert patterns(["abc", "", "é"]) == []


def test_a_stream_that_might_be_the_beginning_of_a_secret_for_ever_takes_no_memory() -> None:
    masker = Masker([b"a" * 50])
    out = b"".join(masker.feed(b"a" * 100_000) for _ in range(20)) + masker.finish()
    assert out == MASK
    assert len(masker._window) < 100


def test_a_line_is_shown_at_once() -> None:
    masker = Masker(patterns(["kx7Qp2mZ9vR4tLw8"]))
    assert masker.feed(b"step 1 of 2\n") == b"step 1 of 2\n"


def test_a_log_is_masked_fast_whatever_the_number_of_patterns() -> None:
    """A key of 50 lines in all its forms; the bound is far below what was measured (250 MB/s)."""
    lines = [base64.b64encode(bytes([number]) * 48).decode() for number in range(50)]
    masker = Masker(patterns(["\n".join(lines)]))
    chunk = b"epoch 12 step 3344: loss=0.12345 acc=0.9911 lr=0.0003 time=12.3s [info] trainer.py:221\n" * 3000
    began = time.process_time()
    for _ in range(40):
        masker.feed(chunk)
    assert 40 * len(chunk) / (time.process_time() - began) > 40e6
