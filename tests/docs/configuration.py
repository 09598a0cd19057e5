"""`docs/reference/configuration.md`: from the tables that the readers themselves take their keys from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from dstack.errors import ConfigError
from dstack.project import settings
from dstack.project.hosts import inventory
from dstack.project.plan import load_project
from dstack.project.workflows import resources, variables, workflow_files
from dstack.project.yaml import schema
from dstack.project.yaml.schema import Key
from dstack.runner.executors.plain import INHERITED_VARIABLES
from tests.docs.markdown import code, page, table

_SCRIPTED = {"script": "", "args": "script: train.py", "provider": "commands: [ls]", "commands": ""}
"""What must, or must not, stand beside a key of a workflow."""


def configuration_page() -> str:
    """Raises ConfigError when an example of a table is not what the readers accept."""
    read_examples()
    return page("Configuration", *_about(), *_workflows(), *_variables(), *_hosts(), *_config(), *_environment())


def _about() -> tuple[str, ...]:
    return (
        (
            "Files are YAML 1.2 without anchors, aliases, merges and tags; `yes` and `on` are texts. `_` in a key "
            "counts as `-`. An unknown key is an error. `dstack check` reads all files and says everything that is "
            "wrong, as `file:line:column`; [how to begin](../tutorial/first-run.md)."
        ),
        (
            "**Sizes** have a unit: `16GB` and `16G` are 16 × 10⁹ bytes, `16GiB` and `16Gi` are 16 × 2³⁰. "
            "**Durations** have one too: `90s`, `30m`, `6h`, `1d`, `1h30m`. **Paths** are relative to the project "
            "folder and stay in it."
        ),
    )


def _workflows() -> tuple[str, ...]:
    refused = {
        **workflow_files.UNSUPPORTED_KEYS,
        **{f"resources: {key}": why for key, why in resources.UNSUPPORTED_RESOURCES.items()},
    }
    return (
        f"## {code(workflow_files.WORKFLOWS_FILE)}",
        (
            f"A list under `workflows:`; every `{workflow_files.WORKFLOWS_FOLDER}/*.yaml` adds to it. "
            "An entry has these keys."
        ),
        _keys(schema.WORKFLOW_KEYS),
        (
            "`image`, `artifacts`, `env`, `resources` and commands may hold `${{ name }}` or `$name`: the value of a "
            "variable. In a command it reaches the shell through the environment, never as a part of the script."
        ),
        "### `depends-on`",
        _keys(schema.DEPENDS_KEYS),
        "Keys of `repo`. In a pattern, `*`, `?` and `[…]` stay within one part of a path, `**` goes over any number:",
        _keys(schema.DEPENDS_REPO_KEYS),
        "An entry of `workflows` is a name, `NAME:TAG`, `:TAG`, or a map:",
        _keys(schema.DEPENDENCY_KEYS),
        "### An entry of `artifacts`",
        "A path, or a map:",
        _keys(schema.ARTIFACT_KEYS),
        "### `resources`",
        _keys(schema.RESOURCES_KEYS),
        "`cpu` as a map:",
        _keys(schema.CPU_KEYS),
        "`gpu` as a map:",
        _keys(schema.GPU_KEYS),
        "### `retry`",
        "A number of attempts, or a map:",
        _keys(schema.RETRY_KEYS),
        "### Keys that are refused",
        table(("key", "instead"), [(code(key), why) for key, why in refused.items()]),
    )


def _variables() -> tuple[str, ...]:
    taken = ", ".join(code(name) for name in variables.SYSTEM_VARIABLES)
    return (
        f"## {code(variables.VARIABLES_FILE)}",
        (
            "A map under `variables:`. Each of its keys is the name of a workflow, or "
            f"`{variables.GLOBAL_SECTION}` for all of "
            "them; below it stand `name: default`. A workflow sees its own section and `global`; its own wins."
        ),
        table(
            ("what", "rule"),
            [
                ("name", "a letter or `_`, then letters, digits, `_`, `-` or `.`, at most 64; not `variables_as_args`"),
                ("default", "a whole number, a number, `true`/`false`, or a text. It gives the variable its type"),
                ("override", "`--name value`, `--name=value`, `--flag`, `--no-flag`, `--var name=value`"),
                ("in a job", "`$name` and `$NAME`, other characters than letters, digits and `_` made `_`"),
                ("reserved names", "`$PATH` and the like stay as they are: the variable is `$DSTACK_VAR_<name>` then"),
                (
                    "`$variables_as_args`",
                    "`--name value` for each variable; a true boolean `--name`, a false one nothing",
                ),
                (taken, "given by dstack in every job: name of the run, id of the attempt"),
            ],
        ),
    )


def _hosts() -> tuple[str, ...]:
    return (
        f"## {code('hosts.yaml')}",
        (
            f"A map under `hosts:` from a name to these keys; all are optional, and `gpu-1:` alone is a host of that "
            f"name in `~/.ssh/config` or DNS. `{inventory.HOSTS_FILE}` of the project and "
            f"`~/{inventory.HOSTS_FILE}` count; a name "
            "that is in both is taken from the project's. `--hosts FILE` takes the place of both. Without any host, "
            "this machine is the host. See [servers](../how-to/servers.md)."
        ),
        _keys(schema.HOST_KEYS),
    )


def _config() -> tuple[str, ...]:
    return (
        f"## {code('config.yaml')}",
        f"`{settings.CONFIG_FILE}` of the project, then `~/{settings.CONFIG_FILE}`.",
        _keys(schema.CONFIG_KEYS),
        "`bucket` as a map:",
        _keys(schema.BUCKET_KEYS),
    )


def _environment() -> tuple[str, ...]:
    return (
        "## Environment",
        table(
            ("variable", "meaning"),
            [
                (code(settings.BUCKET_VARIABLE), "URL or path of the bucket; wins over both `config.yaml`"),
                (code("SSH_AUTH_SOCK"), "the ssh agent that is asked for keys; it is never forwarded"),
                (code("NO_COLOR"), "no colours"),
                (code("COLUMNS"), "width of tables"),
            ],
        ),
        "A job without `image` takes these over from the account on its host, and `LC_*`; nothing else: "
        + ", ".join(code(name) for name in INHERITED_VARIABLES)
        + ".",
    )


def _keys(keys: Sequence[Key]) -> str:
    rows = [
        (
            code(key.name) + "".join(f", {code(other)}" for other in key.spellings),
            key.form,
            key.default,
            f"{key.meaning} Example: {code(key.example)}",
        )
        for key in keys
    ]
    return table(("key", "type", "default", "meaning"), rows)


def read_examples() -> None:
    """Read every example with the real readers; raises ConfigError with the file that they would not take."""
    for key in schema.WORKFLOW_KEYS:
        _read_workflow(key.name, key.example)
    for whole, keys in _NESTED:
        name, _, form = whole.partition(" ")
        for key in keys:
            _read_workflow(name, form.replace("…", f"{key.name}: {key.example}"))
    for key in schema.HOST_KEYS:
        _read_hosts(key)
    for key in schema.CONFIG_KEYS:
        _read_config(f"{key.name}: {key.example}\n")
    for key in schema.BUCKET_KEYS:
        rest = "" if key.name == "url" else "url: s3://my-bucket, "
        _read_config(f"bucket: {{{rest}{key.name}: {key.example}}}\n")


_NESTED: tuple[tuple[str, Sequence[Key]], ...] = (
    ("depends-on {…}", schema.DEPENDS_KEYS),
    ("depends-on {repo: {…}}", schema.DEPENDS_REPO_KEYS),
    ("depends-on {workflows: [{…}]}", schema.DEPENDENCY_KEYS),
    ("artifacts [{path: other, …}]", [key for key in schema.ARTIFACT_KEYS if key.name != "path"]),
    ("artifacts [{…}]", [key for key in schema.ARTIFACT_KEYS if key.name == "path"]),
    ("resources {…}", schema.RESOURCES_KEYS),
    ("resources {cpu: {…}}", schema.CPU_KEYS),
    ("resources {gpu: {…}}", schema.GPU_KEYS),
    ("retry {attempts: 2, …}", [key for key in schema.RETRY_KEYS if key.name != "attempts"]),
    ("retry {…}", [key for key in schema.RETRY_KEYS if key.name == "attempts"]),
)


def _read_workflow(name: str, example: str) -> None:
    lines = ["workflows:", "  - name: prepare", "    commands: [ls]"]
    if name == "name":
        lines += [f"  - name: {example}", "    commands: [ls]"]
    else:
        lines += ["  - name: train", f"    {_SCRIPTED.get(name, 'commands: [ls]')}", f"    {name}: {example}"]
    table_text = "variables: {train: {lr: 0.1}}\n"
    _in_folder(
        {workflow_files.WORKFLOWS_FILE: "\n".join(lines) + "\n", variables.VARIABLES_FILE: table_text}, load_project
    )


def _read_hosts(key: Key) -> None:
    text = f"hosts:\n  gpu-1: {{{key.name}: {key.example}}}\n"
    _in_folder({inventory.HOSTS_FILE: text}, lambda root: inventory.read_inventory(home=root / "home", root=root))


def _read_config(text: str) -> None:
    none: Mapping[str, str] = {}
    _in_folder(
        {settings.CONFIG_FILE: text},
        lambda root: settings.read_settings(home=root / "home", root=root, environment=none),
    )


def _in_folder(files: Mapping[str, str], read: Callable[[Path], object]) -> None:
    with TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        try:
            read(Path(folder))
        except ConfigError as error:
            shown = "\n".join(files.values())
            raise ConfigError(error.problems, hint=f"an example of dstack/project/yaml/schema.py:\n{shown}") from None
