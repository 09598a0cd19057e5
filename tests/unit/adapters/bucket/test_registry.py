"""Every kind of bucket is declared once, opens by each of its schemes, and keeps its secrets from hosts."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import BaseError, UnknownConfigurationKeyError
from obstore.store import from_url

import dstack
from dstack.adapters.bucket.backend import Backend
from dstack.adapters.bucket.folder import FOLDER_BACKEND
from dstack.adapters.bucket.fsspec_store import FSSPEC_BACKEND
from dstack.adapters.bucket.host_access import lend_credentials, location_options
from dstack.adapters.bucket.object_stores.azure import AZURE_BACKEND
from dstack.adapters.bucket.object_stores.gcs import GCS_BACKEND
from dstack.adapters.bucket.object_stores.s3 import S3_BACKEND
from dstack.adapters.bucket.opener import bucket_path, missing_path, open_bucket, private_path
from dstack.adapters.bucket.registry import BACKENDS, BY_SCHEME, backend_of, is_path
from tests.support.checkout import ROOT

OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"key": "k", "secret": "s", "region": "x"},
    "gcs": {"token": "t"},
    "azure": {"account_name": "a", "access_key": "a2V5"},
}
PREFIXES = ("", "aws_", "azure_", "azure_storage_", "google_")
"""What obstore lets stand before the names of its options."""
SECRET_WORDS = re.compile(
    r"secret|token$|session_token|(access|account|sas|master|encryption)_key|sas_|service_account"
)
PUBLIC = {"sts_token_endpoint"}


def test_no_scheme_and_no_name_is_declared_twice() -> None:
    schemes = [scheme for backend in BACKENDS for scheme in backend.properties.schemes]
    assert len(schemes) == len(set(schemes)) == len(BY_SCHEME)
    assert len({backend.properties.name for backend in BACKENDS}) == len(BACKENDS)
    assert all(scheme == scheme.lower() for scheme in schemes)


def test_what_a_backend_declares_fits_together() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for backend in BACKENDS:
        facts = backend.properties
        assert facts.is_path == (backend.path is not None) == (backend.is_private is not None), facts.name
        assert facts.extra == "" or facts.extra in extras, facts.name
        assert backend.lend is None or facts.secret_options, facts.name
        assert all(name == name.lower() for name in facts.secret_options), facts.name


@pytest.mark.parametrize("scheme", sorted(BY_SCHEME))
def test_every_declared_scheme_opens_a_bucket_in_upper_and_lower_case(scheme: str) -> None:
    for written in (scheme, scheme.upper()):
        place = "/srv/b" if BY_SCHEME[scheme].properties.is_path else "b/p"
        assert backend_of(f"{written}://{place}") is BY_SCHEME[scheme]
        open_bucket(f"{written}://{place}", OPTIONS.get(BY_SCHEME[scheme].properties.name, {}), "/home/alice")


@pytest.mark.parametrize(
    ("url", "backend"),
    [
        ("/srv/b", FOLDER_BACKEND),
        ("b", FOLDER_BACKEND),
        ("~/b", FOLDER_BACKEND),
        ("a/b://c", FOLDER_BACKEND),
        ("memory://b", FSSPEC_BACKEND),
        ("x://b", FSSPEC_BACKEND),
    ],
)
def test_a_url_of_no_declared_scheme_is_a_path_or_left_to_fsspec(url: str, backend: Backend) -> None:
    assert backend_of(url) is backend
    assert is_path(url) == (backend is FOLDER_BACKEND)


def test_only_a_bucket_that_is_a_path_has_one(tmp_path: Path) -> None:
    assert bucket_path("~/b", "/home/alice") == "/home/alice/b"
    assert missing_path(str(tmp_path / "b"), "/") == str(tmp_path / "b")
    assert private_path(str(tmp_path / "b"), "/") == ""
    open_bucket(str(tmp_path / "b"), {}, "/").put("a/b", b"")
    assert (missing_path(f"file://{tmp_path}/b", "/"), private_path(f"{tmp_path}/b", "/")) == ("", f"{tmp_path}/b")
    assert [each("s3://b", "/") for each in (bucket_path, missing_path, private_path)] == ["", "", ""]


def options_of(kind: str) -> set[str]:
    """The names that obstore's own stub knows as options of a kind of store."""
    stub = Path(obstore.__file__).with_name("_store") / f"_{kind}.pyi"
    (config,) = [
        node
        for node in ast.walk(ast.parse(stub.read_text()))
        if isinstance(node, ast.ClassDef) and node.name in ("S3Config", "AzureConfig", "GCSConfig")
    ]
    return {
        node.target.id for node in config.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def is_known(url: str, name: str) -> bool:
    try:
        config: dict[str, Any] = {name: "x"}
        from_url(url, config=config)  # type: ignore[call-overload]  # which kind of store it is, the URL says
    except UnknownConfigurationKeyError:
        return False
    except (BaseError, ValueError):
        return True
    return True


@pytest.mark.parametrize(
    ("backend", "kind", "url"),
    [(S3_BACKEND, "aws", "s3://b"), (AZURE_BACKEND, "azure", "az://b"), (GCS_BACKEND, "gcs", "gs://b")],
)
def test_every_option_of_obstore_that_holds_a_secret_is_known_as_one(backend: Backend, kind: str, url: str) -> None:
    names = {name for name in options_of(kind) if SECRET_WORDS.search(name)} | backend.properties.secret_options
    names = {name for name in names if not name.endswith("_file")} - PUBLIC
    spelled = {prefix + name for prefix, name in itertools.product(PREFIXES, names)}
    assert {name for name in spelled if is_known(url, name)} - backend.properties.secret_options == set()


@pytest.mark.parametrize("url", ["s3://b", "gs://b", "az://b", "S3://b", "x://b"])
def test_no_secret_option_goes_to_a_host_however_it_is_spelled(url: str) -> None:
    secrets = {name: "hunter2" for backend in BACKENDS for name in backend.properties.secret_options}
    secrets |= {name.upper(): "hunter2" for name in secrets}
    assert location_options(url, {**secrets, "endpoint": "e"}, {}) == {"endpoint": "e"}


def test_what_the_environment_says_of_the_place_goes_along() -> None:
    environment = {"AWS_ENDPOINT_URL": "http://here", "AWS_REGION": "x", "AWS_SECRET_ACCESS_KEY": "hunter2"}
    assert location_options("s3a://b", {"profile": "lab"}, environment) == {"endpoint": "http://here", "region": "x"}
    assert location_options("az://b", {"account_name": "a"}, environment) == {"account_name": "a"}


def test_keys_in_upper_case_count_as_the_users_own() -> None:
    options = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    assert lend_credentials("s3://b", options, {"HOME": "/nowhere"}).options == options


def test_a_scheme_is_spelled_in_the_file_of_its_backend_alone() -> None:
    """Words for people may name examples; code that compares with a scheme asks the registry."""
    root = Path(dstack.__file__).parent
    schemes = {
        f"{scheme}{end}"
        for scheme in BY_SCHEME
        if scheme not in FOLDER_BACKEND.properties.schemes
        for end in ("", "://")
    }
    own = {root.parent / f"{backend.open.__module__.replace('.', '/')}.py" for backend in BACKENDS}
    found = {
        f"{path.relative_to(root)}: {node.value}"
        for path in root.rglob("*.py")
        if path not in own and path.parent.name != "object_stores"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in schemes
    }
    assert found == set()


def test_the_registry_imports_no_storage_library() -> None:
    code = "import sys, dstack.adapters.bucket.registry, dstack.adapters.bucket.host_access;"
    code += "print([name for name in ('fsspec', 'obstore', 'boto3', 'asyncio', 'subprocess', 'datetime')"
    code += " if name in sys.modules and name not in before])"
    code = "import sys; import dstack.ports, dstack.core.format.keys; before = set(sys.modules);" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
