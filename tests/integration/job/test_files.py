"""Which files travel: git's own list, the ignore files, and what stays out by itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpurun.agent import manifest
from gpurun.agent.manifest import Entry
from gpurun.config.project import find_project
from gpurun.errors import UsageError
from gpurun.fetch.destination import opened
from gpurun.fetch.plan import Item
from gpurun.job import ignore
from gpurun.job.files import FileList, largest, list_files
from tests.support.hostile import NAMES

Git = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project without git: a script and a package of the name that careless ignore rules drop."""
    root = tmp_path / "vision"
    write(root, "gpurun.toml", "")
    write(root, "train.py", "print('hello')")
    write(root, "data/__init__.py", "")
    return root


@pytest.fixture
def repository(project: Path, git: Git) -> Path:
    """The same, committed."""
    git(project, "init", "-q", "-b", "main")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "begin")
    return project


@pytest.fixture(params=["plain", "repository"])
def either(request: pytest.FixtureRequest) -> Path:
    """Without git, then with it: what must be the same in both."""
    fixture = "project" if request.param == "plain" else "repository"
    folder: Path = request.getfixturevalue(fixture)
    return folder


def write(root: Path, name: str, text: str = "x") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def listing(root: Path, exclude: tuple[str, ...] = (), env_files: tuple[Path, ...] = ()) -> FileList:
    return list_files(find_project(root), exclude=exclude, env_files=env_files)


def names(files: FileList) -> set[str]:
    return {os.fsdecode(entry.path) for entry in files.entries}


def reasons(files: FileList) -> dict[str, str]:
    return {item.path: item.why for item in files.left_out}


BASE = {"gpurun.toml", "train.py", "data/__init__.py"}


def test_everything_else_travels(either: Path) -> None:
    assert names(listing(either)) == BASE


def test_any_name_travels(either: Path) -> None:
    for name in NAMES:
        Path(os.fsdecode(os.path.join(os.fsencode(either), name))).write_bytes(name)
    found = {entry.path for entry in listing(either).entries}
    assert found == {*NAMES, *(name.encode() for name in BASE)}


def test_ignore_files_are_honoured_at_every_level_and_the_nearest_wins(either: Path) -> None:
    write(either, ".gitignore", "*.log\n/out/\n")
    write(either, "models/.gitignore", "!keep.log\n/scratch\n")
    for name in ("a.log", "out/x", "models/keep.log", "models/drop.log", "models/scratch", "models/sub/scratch"):
        write(either, name)
    files = listing(either)
    assert names(files) == BASE | {".gitignore", "models/.gitignore", "models/keep.log", "models/sub/scratch"}
    assert reasons(files) == dict.fromkeys(("a.log", "out/", "models/drop.log", "models/scratch"), "ignored by git")


def test_our_own_ignore_file_drops_and_brings_back(either: Path) -> None:
    write(either, ".gitignore", "*.csv\n/weights/\n")
    write(either, ".gpurunignore", "/docs/\n!small.csv\n!/weights/\n")
    for name in ("docs/a.md", "docs/deep/b.md", "large.csv", "data/small.csv", "weights/a.pt", "weights/b/c.pt"):
        write(either, name)
    files = listing(either)
    assert names(files) == BASE | {".gitignore", ".gpurunignore", "data/small.csv", "weights/a.pt", "weights/b/c.pt"}
    assert reasons(files) == {"docs/": "ignored by .gpurunignore", "large.csv": "ignored by git"}


def test_a_single_file_is_brought_back_from_an_ignored_folder(either: Path) -> None:
    write(either, ".gitignore", "/weights/\n")
    write(either, ".gpurunignore", "!/weights/best.pt\n")
    for name in ("weights/best.pt", "weights/last.pt"):
        write(either, name)
    files = listing(either)
    assert "weights/best.pt" in names(files)
    assert "weights/last.pt" not in names(files)


def test_the_spec_excludes_more(either: Path) -> None:
    write(either, "big.bin")
    assert names(listing(either, exclude=("*.bin",))) == BASE


def test_what_is_tracked_can_be_dropped_by_our_own_ignore_file(repository: Path, git: Git) -> None:
    write(repository, ".gpurunignore", "data/\n")
    git(repository, "add", "-A")
    files = listing(repository)
    assert names(files) == {"gpurun.toml", "train.py", ".gpurunignore"}
    assert files.why_not("data/__init__.py") == "ignored by .gpurunignore"


@pytest.mark.parametrize("name", [".env", ".env.local", ".envrc", "keys/server.pem", "id_rsa", "id_ed25519.pub"])
def test_likely_secrets_stay_out(either: Path, name: str) -> None:
    write(either, name)
    files = listing(either)
    assert names(files) == BASE
    assert reasons(files) == {name: "may be a secret"}


@pytest.mark.parametrize("name", [".netrc", ".pypirc", "cloud/kaggle.json", "box.ppk", "service-account.json"])
def test_list_files_with_credentials_of_programs_leaves_them_out(either: Path, name: str) -> None:
    write(either, name)
    assert reasons(listing(either)) == {name: "may be a secret"}


@pytest.mark.parametrize("kind", ["", "RSA ", "OPENSSH ", "ENCRYPTED "])
def test_list_files_with_a_private_key_of_any_name_leaves_it_out(either: Path, kind: str) -> None:
    write(either, "rental_key", f"-----BEGIN {kind}PRIVATE KEY-----\nAAAA\n")
    write(either, "notes.md", "a file that begins with -----BEGIN PRIVATE KEY----- is a key\n")
    files = listing(either)
    assert reasons(files) == {"rental_key": "may be a secret"}
    assert "notes.md" in names(files)


KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"type": "service_account", "private_key": KEY}, indent=2),
        json.dumps({"private_key": KEY.replace("\n", "\r\n")}),
        "tls:\n  key: |\n" + "".join(f"    {line}\n" for line in KEY.splitlines()),
        KEY + "x" * 20_000,
        KEY.replace("\n", "\r\n"),
        KEY.replace("PRIVATE KEY", "PGP PRIVATE KEY BLOCK").replace("\n", "\n\n"),
    ],
)
def test_list_files_with_a_private_key_inside_a_file_leaves_it_out(either: Path, text: str) -> None:
    write(either, "conf", text)
    assert reasons(listing(either)) == {"conf": "may be a secret"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "load.py",
            'if "-----BEGIN PRIVATE KEY-----\\n" in text or text == "-----BEGIN PRIVATE KEY-----":\n    pass\n',
        ),
        ("README.md", "Paste it here:\n\n    -----BEGIN PRIVATE KEY-----\n    ...\n"),
        ("late.txt", "x\n" * 10_000 + KEY),
    ],
)
def test_list_files_with_the_words_of_a_private_key_alone_sends_them(either: Path, name: str, text: str) -> None:
    write(either, name, text)
    assert reasons(listing(either)) == {}


@pytest.mark.parametrize("name", ["a.png", "b.JPEG", "c.npz", "last.ckpt"])
def test_list_files_does_not_open_images_and_arrays_to_look_for_keys(either: Path, name: str) -> None:
    write(either, name, KEY)
    assert reasons(listing(either)) == {}


@pytest.mark.parametrize("folder", [".ssh/", "deep/.aws/", ".config/gcloud/"])
def test_list_files_with_a_folder_of_keys_leaves_it_out_although_git_tracks_it(
    repository: Path, git: Git, folder: str
) -> None:
    write(repository, folder + "config")
    write(repository, ".gpurunignore", "!*\n")
    git(repository, "add", "-A", "-f")
    files = listing(repository)
    assert names(files) == BASE | {".gpurunignore"}
    assert reasons(files) == {folder: "may be a secret"}


def test_list_files_of_the_home_directory_is_refused(either: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(either))
    with pytest.raises(UsageError, match="the project would be your home directory"):
        listing(either)


@pytest.mark.parametrize("root", ["/", "/bin", "/usr/lib/python3", "/etc", "/tmp", "/proc/self"])
def test_list_files_of_a_folder_of_the_system_is_refused(root: str) -> None:
    with pytest.raises(UsageError, match="the project would be /"):
        listing(Path(root))


def test_list_files_of_a_folder_that_is_somebody_elses_and_not_writable_is_refused(
    either: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by two questions to the system, of which root gets other answers than people do."""
    monkeypatch.setattr(os, "geteuid", lambda: either.stat().st_uid + 1)
    assert names(listing(either)) == BASE, "a folder that a group shares"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match=f"the project would be {either}, which is not yours"):
        listing(either)


@pytest.mark.parametrize("name", [".env", "certificates/ca.pem"])
def test_what_git_tracks_is_no_secret(repository: Path, git: Git, name: str) -> None:
    write(repository, name)
    git(repository, "add", "-f", name)
    assert name in names(listing(repository))


def test_an_example_of_an_env_file_travels(either: Path) -> None:
    write(either, ".env.example")
    assert names(listing(either)) == BASE | {".env.example"}


def test_env_files_of_the_job_never_travel_even_tracked(repository: Path, git: Git) -> None:
    file = write(repository, "wandb.txt", "WANDB_API_KEY=x")
    git(repository, "add", "-A")
    files = listing(repository, env_files=(file,))
    assert names(files) == BASE
    assert "wandb.txt" in reasons(files)


def fetched(folder: Path, *files: str) -> None:
    """What a fetch into `folder` leaves there."""
    with opened(folder, "train-7f3k") as destination:
        for file in files:
            write(destination.staging, file, "12345")
            destination.place(Item(file, file, 5, 0, 0, 0, None, 0, grows=False, writing=None), "0" * 64)
        destination.save()
        destination.clear()


def test_what_was_fetched_stays_out(either: Path) -> None:
    fetched(either / "results", "best.ckpt", "logs/metrics.csv")
    files = listing(either)
    assert names(files) == BASE
    assert reasons(files) == {"results/": "fetched from a run"}


@pytest.mark.parametrize("folder", ["models", "."])
def test_code_beside_what_was_fetched_travels(either: Path, folder: str) -> None:
    fetched(either / folder, "best.ckpt", "edited.yaml", "deep/last.ckpt")
    write(either, "models/new.py")
    write(either / folder, "edited.yaml", "123456")
    files = listing(either)
    own = os.path.normpath(f"{folder}/edited.yaml")
    assert names(files) == BASE | {"models/new.py", own}
    kept = {"best.ckpt", "deep/last.ckpt"} if folder == "." else {"models/best.ckpt", "models/deep/last.ckpt"}
    assert {path for path, why in reasons(files).items() if why == "fetched from a run"} == kept
    write(either, ".gpurunignore", "!best.ckpt\n")
    assert os.path.normpath(f"{folder}/best.ckpt") in names(listing(either))


def test_environments_and_caches_stay_out_and_are_counted(either: Path) -> None:
    write(either, "my env/pyvenv.cfg", "home = /usr")
    write(either, "my env/lib/a.py", "12345")
    write(either, "conda/conda-meta/history")
    write(either, "models/__pycache__/a.cpython-311.pyc")
    write(either, ".ipynb_checkpoints/a-checkpoint.ipynb")
    write(either, "stray.pyc")
    files = listing(either)
    assert names(files) == BASE
    assert reasons(files) == {
        "my env/": "virtual environment",
        "conda/": "virtual environment",
        "models/__pycache__/": "cache",
        ".ipynb_checkpoints/": "cache",
        "stray.pyc": "cache",
    }
    environment = next(item for item in files.left_out if item.path == "my env/")
    assert (environment.files, environment.size, environment.at_least) == (2, 16, False)
    assert files.why_not("my env/lib/a.py") == "virtual environment"


def test_counting_what_stays_out_has_an_end(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ignore, "COUNTED", 3)
    for number in range(9):
        write(project, f"venv/lib/{number}.py")
    write(project, "venv/pyvenv.cfg")
    assert [(item.files, item.at_least) for item in listing(project).left_out] == [(3, True)]


def test_an_ignored_environment_is_named_as_one(repository: Path) -> None:
    write(repository, ".gitignore", ".venv/\n")
    write(repository, ".venv/pyvenv.cfg")
    assert reasons(listing(repository)) == {".venv/": "virtual environment"}


def test_git_itself_never_travels(either: Path) -> None:
    write(either, ".gpurunignore", "!*\n")
    write(either, "vendored/.git", "gitdir: ../.git/modules/vendored")
    write(either, "vendored/a.py")
    assert names(listing(either)) == BASE | {".gpurunignore", "vendored/a.py"}


def test_deleted_files_are_not_listed(repository: Path) -> None:
    (repository / "train.py").unlink()
    assert names(listing(repository)) == BASE - {"train.py"}


def test_a_folder_that_became_a_file(repository: Path) -> None:
    (repository / "data/__init__.py").unlink()
    (repository / "data").rmdir()
    write(repository, "data", "now a file")
    assert names(listing(repository)) == {"gpurun.toml", "train.py", "data"}


def test_new_files_travel_without_being_added(repository: Path) -> None:
    write(repository, "new.py")
    assert "new.py" in names(listing(repository))


def test_submodules_and_nested_clones_are_opened(repository: Path, tmp_path: Path, git: Git) -> None:
    library = tmp_path / "library"
    write(library, "lib.py")
    write(library, ".gitignore", "*.tmp\n")
    git(library, "init", "-q")
    git(library, "add", "-A")
    git(library, "commit", "-q", "-m", "begin")
    git(repository, "submodule", "add", "-q", str(library), "libs/library")
    git(repository, "clone", "-q", str(library), "nested clone")
    write(repository, "libs/library/junk.tmp")
    write(repository, "libs/library/new.py")
    files = listing(repository)
    opened = {f"{place}/{name}" for place in ("libs/library", "nested clone") for name in ("lib.py", ".gitignore")}
    assert names(files) == BASE | {".gitmodules", "libs/library/new.py"} | opened


def test_a_submodule_that_was_never_fetched_is_named(repository: Path, tmp_path: Path, git: Git) -> None:
    library = tmp_path / "library"
    write(library, "lib.py")
    git(library, "init", "-q")
    git(library, "add", "-A")
    git(library, "commit", "-q", "-m", "begin")
    git(repository, "submodule", "add", "-q", str(library), "libs")
    git(repository, "commit", "-q", "-m", "library")
    git(tmp_path, "clone", "-q", str(repository), "clone")
    (note,) = listing(tmp_path / "clone").notes
    assert note == "the submodule libs/ is empty; fetch it with: git submodule update --init"


def test_only_the_project_of_a_larger_repository_travels(repository: Path) -> None:
    write(repository, "part/gpurun.toml")
    write(repository, "part/a.py")
    assert names(listing(repository / "part")) == {"gpurun.toml", "a.py"}


def test_a_folder_that_an_outer_repository_ignores_is_walked(repository: Path) -> None:
    write(repository, ".gitignore", "/scratch/\n")
    write(repository, "scratch/gpurun.toml")
    write(repository, "scratch/a.py")
    assert names(listing(repository / "scratch")) == {"gpurun.toml", "a.py"}


def test_a_broken_repository_is_walked_and_said(repository: Path) -> None:
    (repository / ".git/HEAD").write_text("nonsense")
    files = listing(repository)
    assert names(files) == BASE
    assert files.notes == ("git gave no list of files here; the .gitignore files were read instead",)


def test_a_repository_without_commits(project: Path, git: Git) -> None:
    git(project, "init", "-q")
    assert names(listing(project)) == BASE


def test_git_is_asked_about_this_folder_alone(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert names(listing(repository)) == BASE
    assert listing(repository).notes == ()


def test_links_stay_links_and_those_that_lead_out_are_named(either: Path) -> None:
    for name, target in {
        "inside": "train.py",
        "data/up": "../train.py",
        "broken": "nowhere",
        "absolute": str(either / "train.py"),
        "data/out": "../../elsewhere",
        "folder": "data",
    }.items():
        (either / name).symlink_to(target)
    files = listing(either)
    links = {entry.path: entry.target for entry in files.entries if entry.kind == "l"}
    assert links[b"inside"] == b"train.py"
    assert links[b"folder"] == b"data"
    assert len(links) == 6
    (note,) = files.notes
    assert note.startswith("leads out of the project or nowhere, and travels as the link that it is: ")
    assert set(note.rpartition(": ")[2].split(", ")) == {"broken", "absolute", "data/out"}


def test_what_is_neither_file_nor_link_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(project / "pipe")
    monkeypatch.chdir(project)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
        files = listing(project)
    assert names(files) == BASE
    assert files.notes in (
        ("neither file nor link, so it stays out: pipe, sock",),
        ("neither file nor link, so it stays out: sock, pipe",),
    )


def test_the_list_is_what_the_host_finds(either: Path) -> None:
    (either / "link").symlink_to("nowhere")
    for name in NAMES:
        Path(os.fsdecode(os.path.join(os.fsencode(either), name))).write_bytes(name)
    files = listing(either)
    wanted = files.manifest()
    assert (wanted["count"], wanted["bytes"]) == (files.count, files.bytes)
    found = [entry for entry in manifest.walk(str(either)) if not entry.path.startswith(b".git/")]
    assert manifest.make(found) == wanted


def test_importing_the_list_is_cheap() -> None:
    heavy = "import sys, gpurun.job.files, gpurun.config.project, gpurun.store.run_store; print('pydantic' in sys.modules, 'pathspec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", heavy], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_largest_are_named_where_the_bytes_are() -> None:
    entries = [
        Entry(b"a/deep/model.ckpt", "f", 900, 0),
        Entry(b"a/deep/small", "f", 1, 0),
        *(Entry(b"images/%d.png" % number, "f", 10, 0) for number in range(50)),
        Entry(b"train.py", "f", 5, 0),
    ]
    assert largest(entries, 3) == [("a/deep/model.ckpt", 900), ("images/", 500), ("train.py", 5)]
