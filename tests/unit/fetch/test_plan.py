"""What a host's list makes us do, and what not."""

from __future__ import annotations

from typing import Any

import pytest

from gpurun.errors import GpurunError
from gpurun.fetch import plan
from tests.support.meddler import an_entry
from tests.support.part import part


def an_item(to: str, size: int = 1, rank: int = 4) -> plan.Item:
    return plan.Item(f"workspace/{to}", to, size, 0, 0, 0, None, rank, False, None)


def listing(*entries: Any, root: str = "/runs/x") -> plan.Listing:
    return plan.read_listing(
        part(
            {
                "record": {"attempt": 1, "state": "running"},
                "root": root,
                "live": False,
                "files": list(entries),
                "skipped": [],
            }
        )
    )


@pytest.mark.parametrize(
    "entry",
    [
        an_entry(**{"as": "../evil"}),
        an_entry(**{"as": "/tmp/evil"}),
        an_entry(**{"as": "a/../../evil"}),
        an_entry(**{"as": "./x"}),
        an_entry(**{"as": "a//b"}),
        an_entry(**{"as": ".gpurun/fetch.json"}),
        an_entry(**{"as": ".GPURUN/fetch.json"}),
        an_entry(**{"as": ".gpurun", "link": "x"}),
        an_entry(**{"as": "a\0b"}),
        an_entry(**{"as": ""}),
        an_entry(**{"as": None}),
        an_entry(path="workspace/../../../.ssh/id_ed25519"),
        an_entry(path="ro/env"),
        an_entry(path="workspace"),
        an_entry(path="/etc/passwd"),
        an_entry(path=None),
        an_entry(link="/etc/passwd"),
        an_entry(link=""),
        an_entry(link="a\0"),
        an_entry(**{"as": "a/b", "link": "../../etc"}),
        an_entry(**{"as": "x", "link": "chain/d1/.."}),
        an_entry(**{"as": "chain/b", "link": "a/../.."}),
        an_entry(**{"as": "chain/b", "link": "./a/../x"}),
        an_entry(**{"as": "top", "link": ".."}),
        an_entry(size=-1),
        an_entry(size="1"),
        an_entry(size=True),
        an_entry(mtime_ns=None),
        an_entry(rank=None),
    ],
)
def test_what_leads_out_or_makes_no_sense_is_left_and_told(entry: Any) -> None:
    found = listing(entry, an_entry())
    assert [item.to for item in found.items] == ["x"]
    assert len(found.left) == 1
    assert found.left[0].lost


@pytest.mark.parametrize("root", ["", "runs/x", "-e sh", "/a\0b"])
def test_a_root_that_is_no_path_ends_it(root: str) -> None:
    with pytest.raises(GpurunError):
        listing(root=root)


def test_a_time_before_1970_is_a_time() -> None:
    assert listing(an_entry(mtime_ns=-5)).items[0].mtime_ns == -5


@pytest.mark.parametrize(
    "name",
    [".env", "a/.env.local", "server.pem", "tls.KEY", "id_ed25519", ".netrc", ".aws/config", "hf_token", "token", "secrets.toml",
     "my-credentials.json", "service_account_1.json", "wandb.api_key", "kubeconfig-prod", "x/.ssh/config", "passwords.txt",
     "kaggle.json", "service-account.json"],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert plan.looks_secret(name)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "best.ckpt", "environment.json", "keys.csv", "tokenized/x", "model.keras"]
)
def test_names_of_what_a_training_writes_are_no_secrets(name: str) -> None:
    assert not plan.looks_secret(name)


@pytest.mark.parametrize("target", ["../b/c", "..", "./b", "b/./c", "b//c"])
def test_links_inside_are_taken(target: str) -> None:
    found = listing(an_entry(path=None, link=target, **{"as": "a/x"}))
    assert found.items[0].link == target


def test_file_that_is_listed_twice_is_taken_once() -> None:
    found = listing(an_entry(), an_entry(**{"as": "y"}), an_entry(path="workspace/z", **{"as": "z"}))
    assert [item.to for item in found.items] == ["x", "z"]
    assert [(left.path, left.why) for left in found.left] == [("y", "the host lists the same file twice")]


def test_names_that_a_disk_takes_for_one() -> None:
    items = [an_item("Model.pt"), an_item("model.pt"), an_item("caf\u00e9"), an_item("cafe\u0301"), an_item("x")]
    kept, left = plan.without_clashes(items, ignores_case=True)
    assert [item.to for item in kept] == ["Model.pt", "caf\u00e9", "x"]
    assert [one.path for one in left] == ["model.pt", "cafe\u0301"]
    assert len(plan.without_clashes(items, ignores_case=False)[0]) == 5


def test_small_and_precious_goes_first_and_little_goes_together() -> None:
    big = plan.GROUP_BYTES
    items = [an_item("huge", big, 6), an_item("best.ckpt", big // 2, 2), an_item("log", 10, 0), an_item("m", 10, 1)]
    assert [[item.to for item in group] for group in plan.groups(items)] == [["log", "m"], ["best.ckpt"], ["huge"]]


def test_a_group_stays_within_bounds() -> None:
    items = [an_item(str(number), plan.GROUP_BYTES // 3, 6) for number in range(7)]
    assert [len(group) for group in plan.groups(items)] == [3, 3, 1]


def test_globs_are_those_of_gitignore() -> None:
    items = [an_item(name) for name in ("a.ckpt", "deep/b.ckpt", "logs/x", "other/logs/y", "c.csv")]

    def picked(*globs: str) -> list[str]:
        return [item.to for item in plan.select(items, globs)]

    assert picked("*.ckpt") == ["a.ckpt", "deep/b.ckpt"]
    assert picked("/logs/") == ["logs/x"]
    assert picked("logs/", "!other/") == ["logs/x"]
    assert len(picked()) == 5
