"""Mutants of what is private: modes whatever the umask is, and owners before anything is executed or believed."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

UMASKS = "tests/hostile/test_private_umask.py"
ACCOUNTS = "tests/hostile/test_private_accounts.py"

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="secrets-by-one-spelling",
        breaks="a key under `bucket:` goes to hosts unasked where it is written in upper case",
        file="dstack/adapters/bucket/host_access.py",
        old="name.lower() not in SECRET_OPTIONS",
        new="name not in SECRET_OPTIONS",
        tests=("tests/unit/adapters/bucket/test_registry.py", "-k", "however_it_is_spelled"),
    ),
    Mutant(
        name="parents-by-umask",
        breaks="only the last part of a path is private: parents get the umask, as makedirs gives them",
        file="dstack/private_folder.py",
        old="            make_folder(os.path.dirname(path))\n",
        new="            os.makedirs(os.path.dirname(path), exist_ok=True)\n",
        tests=("tests/unit/test_private_folder.py::test_a_folder_and_its_missing_parents_are_private",),
    ),
    Mutant(
        name="open-folder-left-open",
        breaks="a folder that others may enter is said to be closed and is not",
        file="dstack/private_folder.py",
        old="        os.chmod(name, wanted, dir_fd=folder)\n",
        new="        pass\n",
        tests=("tests/unit/test_private_folder.py",),
    ),
    Mutant(
        name="owner-not-asked",
        breaks="what another account put into a folder of dstack's is executed and believed",
        file="dstack/private_folder.py",
        old="    if found.st_uid in (os.getuid(), 0):\n",
        new="    if found.st_uid >= 0:\n",
        tests=(ACCOUNTS,),
    ),
    Mutant(
        name="cache-by-hash-alone",
        breaks="compiled code is run because its own hash is right, whoever wrote it",
        file="dstack/runner/bootstrap.py",
        old="""    with os.fdopen(open_trusted(name, place.runner), "rb") as file:
        return file.read()
""",
        new="""    with open(os.path.join(place.folder, "runner", name), "rb") as file:
        return file.read()
""",
        tests=(f"{ACCOUNTS}::test_whatever_another_account_owns_or_may_write_is_not_run",),
    ),
    Mutant(
        name="cache-of-any-zipapp",
        breaks="compiled code counts for every zipapp, and so does that of an earlier version",
        file="dstack/runner/bootstrap.py",
        old='hashlib.sha256(place.name.encode("ascii") + body)',
        new="hashlib.sha256(body)",
        tests=(f"{ACCOUNTS}::test_a_cache_of_an_earlier_version_and_of_another_zipapp_is_not_run",),
    ),
    Mutant(
        name="home-not-checked",
        breaks="a command believes what another account put into ~/.dstack",
        file="dstack/session/home.py",
        old='        closed = secure(str(home / ".dstack"))\n',
        new="        pass\n",
        tests=(f"{ACCOUNTS}::test_a_folder_that_was_open_is_closed_and_that_is_said_once",),
    ),
    Mutant(
        name="git-by-umask",
        breaks="what git writes on a laptop gets the umask",
        file="dstack/adapters/git/command.py",
        old=", umask=RIGHTS_OF_OTHERS",
        new="",
        tests=(f"{UMASKS}::test_a_run_with_artifacts_and_secrets_leaves_private_folders_and_files[0o0]",),
    ),
    Mutant(
        name="users-folders-closed",
        breaks="a folder of the user's that has a name of dstack's, as ~/code, is closed to the user's colleagues",
        file="dstack/private_folder.py",
        old="            if not is_own:\n                _judge_folder(path, name, fd, root)\n            elif _settle",
        new="            if _settle",
        tests=("tests/unit/test_private_folder.py",),
    ),
    Mutant(
        name="users-folders-closed-by-making",
        breaks="the same, by making what dstack keeps below it",
        file="dstack/private_folder.py",
        old="_settle(path, path, keep=READ_RIGHTS)",
        new="_settle(path, path)",
        tests=("tests/unit/test_private_folder.py",),
    ),
)
