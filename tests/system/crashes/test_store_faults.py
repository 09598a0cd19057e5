"""A store whose answers get lost, come late, are cut or say 503, for three requests of ten."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from dstack.adapters.bucket.opener import open_bucket
from dstack.app.effects.catalogue import PutNew, Read
from dstack.app.protocol.create_if_absent import create
from dstack.core.artifacts import manifests
from dstack.errors import BucketError
from dstack.ports import Bucket, Put
from tests.support.buckets.object_stores import ObjectStore, ministack
from tests.support.faults.faulty_proxy import FAULTS, FaultyProxy
from tests.support.people.laptop import Laptop

SEEDS = (1, 2)


@pytest.fixture(scope="module")
def store() -> ObjectStore:
    return ministack()


def through(proxy: FaultyProxy, store: ObjectStore, url: str) -> Bucket:
    return open_bucket(url, store.options | {"endpoint_url": proxy.url}, "/nowhere")


def won(bucket: Bucket, key: str, body: bytes) -> bool | None:
    """Create by the rule that coordinators follow; None when the bucket gave no answer at all."""
    steps = create(key, body)
    answer: object = None
    try:
        while True:
            effect = steps.send(answer)
            if isinstance(effect, PutNew):
                answer = bucket.create(effect.key, effect.body)
            elif isinstance(effect, Read):
                answer = bucket.get(effect.key)
            else:
                answer = None
    except StopIteration as end:
        return bool(end.value)
    except BucketError:
        return None


@pytest.mark.parametrize("seed", SEEDS)
def test_of_many_writers_one_wins_and_its_bytes_stay(store: ObjectStore, seed: int) -> None:
    url = store.make(f"create-{seed}")
    with FaultyProxy(store.endpoint, seed=seed) as proxy:
        bucket = through(proxy, store, url)
        for index in range(15):
            key, bodies = f"a/{index}", [b"%d of %d" % (number, index) * 100 for number in range(6)]
            with ThreadPoolExecutor(len(bodies)) as pool:
                told = list(pool.map(partial(won, bucket, key), bodies))
            there = store_get(store, url, key)
            winners = [body for body, answer in zip(bodies, told, strict=True) if answer]
            assert winners in ([], [there]), (key, told)
            # Who got no answer may have written it all the same; nobody else may.
            assert winners or bodies.index(there or b"") in [at for at, answer in enumerate(told) if answer is None]
        assert set(proxy.met) == set(FAULTS)


def store_get(store: ObjectStore, url: str, key: str) -> bytes | None:
    """What is in the store, seen past the proxy."""
    name = url.removeprefix("s3://")
    with store.client() as client:
        try:
            return bytes(client.get_object(Bucket=name, Key=key)["Body"].read())
        except client.exceptions.NoSuchKey:
            return None


def keys_of(store: ObjectStore, url: str) -> set[str]:
    with store.client() as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=url.removeprefix("s3://"))
        return {entry["Key"] for page in pages for entry in page.get("Contents", ())}


def test_a_large_object_is_whole_or_absent(store: ObjectStore) -> None:
    url = store.make("large")
    blocks = [hashlib.sha256(b"%d" % index).digest() * (1 << 15) for index in range(100)]
    with FaultyProxy(store.endpoint, seed=5) as proxy:
        bucket = through(proxy, store, url)
        for index in range(4):
            try:
                said = bucket.create_from(f"a/{index}", iter(blocks))
            except BucketError:
                said = Put.UNKNOWN
            there = store_get(store, url, f"a/{index}")
            assert there in (None, b"".join(blocks))
            assert said is not Put.CREATED or there is not None
            if there is not None:
                try:
                    assert b"".join(bucket.read(f"a/{index}", 0, len(there))) == there
                except BucketError:
                    continue
        assert proxy.met


FAN = 4
WORKFLOWS = "workflows:\n" + "".join(
    f"""  - name: part-{number}
    commands:
      - mkdir -p out
      - head -c 200000 /dev/urandom > out/blob-{number}
      - echo {number} > out/small-{number}
      - echo part-{number} >> $MARKS
    env: [MARKS]
    artifacts: [out]
"""
    for number in range(FAN)
)
WORKFLOWS += f"""  - name: all
    depends-on: {{workflows: [{", ".join(f"part-{number}" for number in range(FAN))}]}}
    commands: [cat out/small-* > sum.txt, echo all >> $MARKS]
    env: [MARKS]
    artifacts: [sum.txt]
"""


def laptop_at(folder: Path, store: ObjectStore, endpoint: str, marks: Path) -> Laptop:
    laptop = Laptop(folder)
    laptop.environment |= {**store.environment, "AWS_ENDPOINT_URL": endpoint, "MARKS": str(marks)}
    laptop.write({".dstack/workflows.yaml": WORKFLOWS})
    return laptop


def succeeded(laptop: Laptop, tries: int = 6) -> bool:
    """Run until it is done; where the bucket gives no answer for too long, dstack says so and is started again."""
    said = []
    for _ in range(tries):
        done = laptop.dstack("run", "all", "--json", code=None)
        assert "Traceback" not in done.stderr
        if done.returncode == 0:
            return bool(json.loads(done.stdout)["status"] == "succeeded")
        assert done.returncode == 6, (done.returncode, done.stdout, done.stderr)
        said.append(done.stderr)
    raise AssertionError("\n".join(said))


@pytest.mark.parametrize("seed", SEEDS)
def test_two_laptops_at_once_end_right_through_a_faulty_network(tmp_path: Path, store: ObjectStore, seed: int) -> None:
    url = store.make(f"run-{seed}")
    with FaultyProxy(store.endpoint, seed=seed) as proxy:
        laptops = [laptop_at(tmp_path / name, store, proxy.url, tmp_path / "marks") for name in ("alice", "bob")]
        for laptop in laptops:
            laptop.write({".dstack/config.yaml": f"bucket: {url}\nproject: shared\n"})
            laptop.commit()
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(succeeded, laptops)) == [True, True]
        assert set(proxy.met) == set(FAULTS)
    marks = (tmp_path / "marks").read_text().split()
    assert sorted(marks) == sorted(["all", *(f"part-{number}" for number in range(FAN))])
    judge_results(store, url)
    out = tmp_path / "pulled"
    laptops[0].environment["AWS_ENDPOINT_URL"] = store.endpoint
    newest = json.loads(laptops[0].dstack("ps", "-a", "--json").stdout)[0]
    laptops[0].dstack("artifacts", "pull", newest["run"], "all", "-o", str(out))
    assert (out / "sum.txt").read_text() == "".join(f"{number}\n" for number in range(FAN))


def judge_results(store: ObjectStore, url: str) -> None:
    """Every job has one result, and everything that it names is there, whole."""
    keys = keys_of(store, url)
    results = {key for key in keys if key.endswith("/result")}
    assert len(results) == FAN + 1
    assert len({key.rsplit("/", 2)[0] for key in results}) == FAN + 1
    for key in results:
        result = json.loads(store_get(store, url, key) or b"")
        folder = f"{key.removesuffix('result')}a/{result['attempt']:06d}/"
        body = store_get(store, url, folder + "manifest") or b""
        assert hashlib.sha256(body).hexdigest() == result["manifest"]
        for pack, members in manifests.uploads(manifests.decode(key, body)).items():
            data = store_get(store, url, f"{folder}data/{pack}") or b""
            assert len(data) == manifests.pack_size(members)
            for entry in members:
                part = data[entry.offset : entry.offset + entry.size]
                assert hashlib.sha256(part).hexdigest() == entry.sha256


def test_a_store_whose_create_overwrites_is_caught_by_the_probe(tmp_path: Path, store: ObjectStore) -> None:
    url = store.make("overwrites")
    with FaultyProxy(store.endpoint, rate=0, forgetful=True) as proxy:
        laptop = laptop_at(tmp_path / "one", store, proxy.url, tmp_path / "marks")
        laptop.commit()
        done = laptop.dstack("init", "--bucket", url, code=None)
        assert done.returncode == 6
        assert "cannot be a bucket" in done.stderr
        laptop.write({".dstack/config.yaml": f"bucket: {url}\n"})
        assert laptop.dstack("run", "all", code=None).returncode == 6
    assert not laptop.marks.exists()
    assert not (tmp_path / "marks").exists()


def test_a_store_whose_create_overwrites_is_caught_by_the_rule_of_the_race(store: ObjectStore) -> None:
    """The test above of many writers can fail: without conditions several win."""
    url = store.make("overwrites-race")
    with FaultyProxy(store.endpoint, rate=0, forgetful=True) as proxy:
        bucket = through(proxy, store, url)
        together = threading.Barrier(4)

        def want(body: bytes) -> bool | None:
            together.wait()
            return won(bucket, "a/b", body)

        with ThreadPoolExecutor(4) as pool:
            told = list(pool.map(want, [b"1", b"2", b"3", b"4"]))
    assert told.count(True) > 1
