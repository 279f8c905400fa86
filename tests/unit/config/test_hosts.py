"""hosts.toml: read fast, written without losing a comment, never left half-written or wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.config import hosts
from gpurun.config.hosts import AddressConfig, HostProfile
from gpurun.errors import UsageError
from gpurun.secret import Secret

pytestmark = pytest.mark.usefixtures("home")

WRITTEN = """\
# my boxes
default = "box" # the big one

[hosts.box]
# the disk that is roomy
root = "/mnt/big"
engine = "sudo -n docker"
env = { HF_TOKEN = "secret", N = 3 }

[hosts.box.data]
imagenet = "/mnt/imagenet"

[hosts.rented]
address = { host = "203.0.113.9", user = "root", port = 34567 }
"""


@pytest.fixture
def written(home: Path) -> Path:
    file = hosts.path()
    assert home in file.parents
    file.parent.mkdir(parents=True)
    file.write_text(WRITTEN)
    return file


def test_nothing_is_known_at_first() -> None:
    known = hosts.read()
    assert (known.default, dict(known.hosts)) == (None, {})
    assert known.get("alias") == HostProfile("alias")


@pytest.mark.usefixtures("written")
def test_what_is_written_is_read() -> None:
    known = hosts.read()
    assert known.default == "box"
    box = known.get("box")
    assert (box.root, box.engine, box.added) == ("/mnt/big", ("sudo", "-n", "docker"), True)
    assert (box.env, box.data) == ({"HF_TOKEN": Secret("secret"), "N": Secret("3")}, {"imagenet": "/mnt/imagenet"})
    assert known.get("rented").address == AddressConfig("203.0.113.9", "root", 34567)
    assert "secret" not in repr(box)


def test_a_change_is_checked_again(written: Path) -> None:
    hosts.read()
    written.write_text(WRITTEN.replace("root =", "roto ="))
    for _ in range(2):
        with pytest.raises(UsageError) as error:
            hosts.read()
        line = next(n for n, text in enumerate(written.read_text().splitlines(), 1) if "roto" in text)
        assert error.value.what == f"{written}, line {line}: hosts.box.roto: unknown key; did you mean 'root'?"


def test_nested_keys_are_named_in_full(written: Path) -> None:
    written.write_text("[hosts.a.address]\nhost = 'x'\nprot = 2\n[hosts.b]\npip_idnex = 3\n")
    with pytest.raises(UsageError) as error:
        hosts.read()
    assert error.value.what.splitlines() == [
        f"{written}:",
        "  line 3: hosts.a.address.prot: unknown key; did you mean 'port'?",
        "  line 5: hosts.b.pip_idnex: unknown key; did you mean 'pip_index'?",
    ]


def test_adding_keeps_comments_and_what_else_stood_there(written: Path) -> None:
    hosts.add("box", {"root": "/mnt/bigger", "python": "/opt/py/bin/python", "engine": None})
    hosts.add("new", {"address": {"host": "198.51.100.2", "user": "ada", "port": None}})
    text = written.read_text()
    assert text.startswith('# my boxes\ndefault = "box" # the big one\n')
    assert "# the disk that is roomy\nroot = " in text
    box = hosts.read().get("box")
    assert (box.root, box.python, box.engine) == ("/mnt/bigger", "/opt/py/bin/python", None)
    assert box.data == {"imagenet": "/mnt/imagenet"}
    assert hosts.read().get("new").address == AddressConfig("198.51.100.2", "ada")
    assert written.stat().st_mode & 0o77 == 0


def test_the_first_host_of_all() -> None:
    hosts.add("box", {"root": "/mnt/big", "data": {"coco": "/coco"}})
    assert hosts.choose().root == "/mnt/big"
    hosts.use("box")
    hosts.add("two", {})
    assert hosts.choose().name == "box"


def test_second_host_leaves_the_first_one_the_default() -> None:
    hosts.add("box", {"root": "/mnt/big"})
    hosts.add("box", {"python": "/opt/python"})
    assert hosts.read().default is None  # the only one needs none
    hosts.add("two", {})
    hosts.add("three", {})
    assert (hosts.choose().name, hosts.read().default) == ("box", "box")
    hosts.use("two")
    hosts.add("four", {})
    assert hosts.choose().name == "two"


def test_a_default_can_be_any_alias_and_stands_before_the_tables() -> None:
    hosts.add("box", {})
    hosts.use("alias")
    assert hosts.choose() == HostProfile("alias")
    assert hosts.path().read_text().startswith('default = "alias"\n')


def test_wrong_values_are_never_written(written: Path) -> None:
    with pytest.raises(UsageError, match=r"hosts\.box\.root: wants text"):
        hosts.add("box", {"root": 3})
    assert written.read_text() == WRITTEN


@pytest.mark.parametrize("name", ["-oProxyCommand=id", "", "two words", "new\nline"])
def test_names_that_ssh_would_take_for_something_else(name: str) -> None:
    with pytest.raises(UsageError):
        hosts.add(name, {})
    with pytest.raises(UsageError):
        hosts.use(name)


def test_an_option_is_no_host() -> None:
    with pytest.raises(UsageError):
        hosts.choose("-oProxyCommand=id")


@pytest.mark.usefixtures("written")
def test_removing_takes_the_default_along() -> None:
    assert hosts.remove("box")
    assert not hosts.remove("box")
    known = hosts.read()
    assert (known.default, list(known.hosts)) == (None, ["rented"])
    assert hosts.path().read_text().startswith("# my boxes\n")


def test_a_linked_file_stays_a_link(written: Path, tmp_path: Path) -> None:
    dotfiles = tmp_path / "dotfiles.toml"
    written.rename(dotfiles)
    written.symlink_to(dotfiles)
    hosts.use("rented")
    assert written.is_symlink()
    assert 'default = "rented"' in dotfiles.read_text()


def test_a_broken_file_is_named(written: Path) -> None:
    written.write_text("default = \n")
    for verb in (hosts.read, lambda: hosts.use("box"), lambda: hosts.add("box", {})):
        with pytest.raises(UsageError, match="not valid TOML"):
            verb()


def test_the_only_one_is_taken_and_none_is_an_error() -> None:
    with pytest.raises(UsageError, match="none is known") as error:
        hosts.choose()
    assert "gpurun host add" in error.value.next_step
    hosts.add("box", {})
    assert hosts.choose().name == "box"
    assert hosts.choose("alias", job="box").name == "alias"
