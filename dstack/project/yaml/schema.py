"""Every key of every YAML file, for the readers and for `docs/reference/configuration.md`.

The readers take their keys from these tables, and the page is made of the same tables: both always know the same keys.
The check of the page lets the readers read every `example`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of a map. `form`, `default` and `meaning` are Markdown, `example` is a value in YAML's flow style,
    `spellings` are other accepted names."""

    name: str
    form: str
    meaning: str
    example: str
    default: str = "none"
    spellings: tuple[str, ...] = ()


def spellings(table: Sequence[Key]) -> dict[str, str]:
    """Each spelling of each key -> the name of the key."""
    return {spelling: key.name for key in table for spelling in (key.name, *key.spellings)}


WORKFLOW_KEYS = (
    Key(name="name", form="text", default="required", example="train", meaning="Name of the workflow."),
    Key(name="help", form="text", example="Train the model", meaning="What `dstack run --help` says of it."),
    Key(
        name="commands",
        form="list of texts",
        default="required, unless there is a `script`",
        example="[python3 train.py --lr $lr]",
        meaning="Run one after another in one `bash -e` (`sh -e` where there is no bash); the first that fails ends "
        "it.",
    ),
    Key(
        name="setup",
        form="list of texts",
        example="[mkdir -p out]",
        meaning="Commands before `commands` or `script`; an error in them fails the job too.",
    ),
    Key(
        name="before-run",
        form="list of texts",
        example="[env]",
        meaning="Like `setup`, and after it.",
    ),
    Key(
        name="image",
        form="text",
        default="none: straight on the host",
        example="python:3.11-slim",
        meaning="Docker image that the job runs in. The host then needs Docker.",
    ),
    Key(
        name="depends-on",
        form="map, or list of workflows",
        default="everything: all files, all variables, no workflow",
        example="{workflows: [prepare], variables: [lr], repo: {include: [train.py]}}",
        spellings=("deps", "dependencies"),
        meaning="What the result depends on: see below. A list stands for `{workflows: …}`.",
    ),
    Key(
        name="artifacts",
        form="list of paths",
        default="nothing is kept",
        example="[model, {path: plots}]",
        meaning="Files and folders that are kept when the job has ended, relative to `working-dir`. One that does not "
        "exist fails the job.",
    ),
    Key(
        name="env",
        form="map, or list of `NAME=VALUE` and `NAME`",
        example='{PYTHONUNBUFFERED: "1"}',
        spellings=("environment",),
        meaning="Environment variables of the job; they win over variables of that name. A bare `NAME` in a list is "
        "taken from the environment of `dstack run`, never written anywhere, and masked in the log like a secret.",
    ),
    Key(
        name="secrets",
        form="list of names",
        example="[HF_TOKEN]",
        meaning="Values that `dstack secrets set` keeps, given to the job as environment variables and masked in its "
        "log. Only the names count for reuse. See [use secrets](../how-to/use-secrets.md).",
    ),
    Key(
        name="resources",
        form="map",
        default="any host",
        example="{cpu: 2, memory: 4GB}",
        meaning="What the host must have: see below.",
    ),
    Key(
        name="retry",
        form="number of attempts, or map",
        default="1 attempt",
        example="{attempts: 3, on: [failed]}",
        meaning="Try again after an end without success: see below.",
    ),
    Key(
        name="max-duration",
        form="duration",
        default="no limit",
        example="6h",
        meaning="The job is stopped after this time and has failed.",
    ),
    Key(
        name="reuse",
        form="boolean",
        default="`true`",
        example="false",
        meaning="`false`: never take an earlier result, always run.",
    ),
    Key(
        name="priority",
        form="number from -100 to 100",
        default="0",
        example="10",
        meaning="On a host whose queue is full, jobs of a higher priority come first; it counts for nothing else.",
    ),
    Key(
        name="working-dir",
        form="path",
        default="the project folder",
        example="src",
        meaning="Folder that the commands run in and `artifacts` are relative to.",
    ),
    Key(
        name="requirements",
        form="path",
        example="requirements.txt",
        meaning="`python3 -m pip install -r` this file before everything else.",
    ),
    Key(
        name="python",
        form="version",
        example="3.11",
        spellings=("version",),
        meaning="The image `python:<version>`, where no `image` is given.",
    ),
    Key(
        name="provider",
        form="`bash`, `docker` or `python`",
        example="bash",
        meaning="As in old files. `docker` needs `image`, `python` needs `script`; else it changes nothing.",
    ),
    Key(
        name="script",
        form="path",
        example="train.py",
        spellings=("file", "python-script"),
        meaning="`python3` this file, instead of `commands`.",
    ),
    Key(
        name="args",
        form="text, or list of texts",
        example="[--verbose, $variables_as_args]",
        meaning="Arguments of `script`. A text is read as the shell reads it, an entry of a list is one argument.",
    ),
    Key(
        name="ports",
        form="list of numbers",
        example="[6006]",
        meaning="Understood and checked. This version forwards no ports.",
    ),
)

DEPENDS_KEYS = (
    Key(
        name="workflows",
        form="list of workflows",
        example="[prepare]",
        meaning="Run first, or reused; their artifacts are in place when the commands start. An entry is a name or a "
        "map: see below.",
    ),
    Key(
        name="variables",
        form="list of names",
        default="all that it sees",
        example="[lr]",
        meaning="The variables whose change makes it run again.",
    ),
    Key(
        name="repo",
        form="map",
        default="all files of the project",
        example="{include: [train.py]}",
        meaning="The files whose change makes it run again.",
    ),
)
DEPENDS_REPO_KEYS = (
    Key(
        name="include",
        form="list of paths",
        default="all files of the project",
        example="[train.py, src]",
        meaning="Files, folders, or patterns. All files travel to the host in any case.",
    ),
)
DEPENDENCY_KEYS = (
    Key(name="workflow", form="text", example="prepare", meaning="A workflow of this project."),
    Key(
        name="tag",
        form="text",
        example="v1",
        meaning="Results of the run with this tag. `dstack check` takes it, `dstack run` refuses it in this version.",
    ),
    Key(
        name="run",
        form="text",
        example="angry-rat-1",
        meaning="Results of the run of this name. `dstack check` takes it, `dstack run` refuses it in this version.",
    ),
)
ARTIFACT_KEYS = (
    Key(name="path", form="path", default="required", example="model", meaning="The file or folder."),
    Key(
        name="mount",
        form="`false`",
        default="`false`",
        example="false",
        meaning="As in old files; `true` is refused: artifacts are copied, never mounted.",
    ),
)

RESOURCES_KEYS = (
    Key(name="cpu", form="number, or `{count: number}`", example="4", default="any", meaning="Cores, at least."),
    Key(name="memory", form="size", example="16GB", default="any", meaning="Memory of the host, at least."),
    Key(
        name="gpu",
        form="number, or map",
        example="{count: 2, name: A100, memory: 40GB}",
        default="`0`",
        meaning="GPUs, at least. `A100/gpu: 2` as a key is understood too.",
    ),
    Key(
        name="shm-size",
        form="size",
        example="8GB",
        default="Docker's own",
        spellings=("shm",),
        meaning="`/dev/shm` of the container; without `image` it changes nothing.",
    ),
    Key(
        name="interruptible",
        form="boolean",
        example="false",
        default="`false`",
        meaning="Understood; it changes nothing on servers of your own.",
    ),
)
CPU_KEYS = (Key(name="count", form="number", example="4", default="any", meaning="Cores, at least."),)
GPU_KEYS = (
    Key(name="count", form="number", example="2", default="`1`", meaning="How many."),
    Key(name="name", form="text", example="A100", default="any", meaning="Part of the name; capital letters or not."),
    Key(name="memory", form="size", example="40GB", default="any", meaning="Memory of each, at least."),
)
RETRY_KEYS = (
    Key(name="attempts", form="number from 1 to 100", default="required", example="3", meaning="Attempts in all."),
    Key(
        name="on",
        form="`failed`, `lost`, `interrupted`, or a list of them",
        default="all three",
        example="[failed, lost]",
        meaning="After which ends.",
    ),
)

HOST_KEYS = (
    Key(
        name="address",
        form="host name or IP address",
        default="the name, as `~/.ssh/config` has it",
        example="gpu-1.example.org",
        spellings=("hostname",),
        meaning="Where it is.",
    ),
    Key(name="user", form="text", default="as ssh does", example="alice", meaning="Account on the host."),
    Key(name="port", form="number", default="as ssh does, 22", example="2222", meaning="Port of its sshd."),
    Key(
        name="identity-file",
        form="path",
        default="as ssh does: agent, `~/.ssh`",
        example="~/.ssh/id_ed25519",
        meaning="Private key to log in with.",
    ),
    Key(
        name="jump",
        form="`[user@]host[:port]`, several separated by commas",
        default="as ssh does",
        example="alice@bastion:2222",
        spellings=("proxy-jump",),
        meaning="Hosts to go through; names of the inventory count. The key of each is verified.",
    ),
    Key(
        name="slots",
        form="number",
        default="one for each GPU, else half the cores",
        example="2",
        meaning="Jobs at a time, of all users of the host together.",
    ),
    Key(
        name="forward-credentials",
        form="true or false",
        default="false",
        example="true",
        meaning="Whether your own credentials for the bucket go to this host (in memory only) so that it works alone; "
        "without it the host uses what it has: a profile, the environment, an instance's role.",
    ),
    Key(
        name="gpu-shares",
        form="number",
        default="1",
        example="2",
        meaning="Jobs that may have one GPU at the same time. They share its memory: nothing keeps them apart there.",
    ),
    Key(
        name="dir",
        form="path from `/` or `~/`",
        default="`~/.dstack`",
        example="/scratch/alice/dstack",
        meaning="Folder on the host for everything that dstack keeps there.",
    ),
    Key(
        name="labels",
        form="list of texts",
        example="[cuda12]",
        meaning="Understood and checked. This version does not choose hosts by them.",
    ),
    Key(
        name="local",
        form="boolean",
        default="`false`",
        example="true",
        meaning="This machine itself, without SSH.",
    ),
)

CONFIG_KEYS = (
    Key(
        name="bucket",
        form="URL or path, or map",
        default="`~/.dstack/bucket`",
        example="s3://my-bucket/dstack",
        meaning="Where state, logs and artifacts are kept. A path is relative to the folder that holds `.dstack`.",
    ),
    Key(
        name="project",
        form="text",
        default="path of the git remote, else the name of the folder",
        example="digits",
        meaning="Name of the project in the bucket. In the project's own file only.",
    ),
)
BUCKET_KEYS = (
    Key(name="url", form="URL or path", default="required", example="s3://my-bucket/dstack", meaning="The bucket."),
    Key(
        name="options",
        form="map",
        example="{region: eu-central-1}",
        meaning="Options of the storage library for this kind of URL. A folder takes none.",
    ),
)
