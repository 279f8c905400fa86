"""Questions to the agent, through an ssh that goes nowhere: the real agent answers them on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpurun import bundle, wire
from gpurun.errors import ContactLost, HostError, HostUnreachable
from gpurun.wire import Frame, Wire

LOCAL_SSH = Path(__file__).parent / "ssh" / "local_ssh.sh"


@dataclass(frozen=True)
class Profile:
    name: str = "box"
    address: None = None
    root: str | None = None
    python: str | None = None
    engine: Sequence[str] | None = None


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The laptop's and the host's home are one here."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.setenv("GPURUN_SSH", str(LOCAL_SSH))
    monkeypatch.setenv("LOCAL_SSH_LOG", str(tmp_path / "calls"))
    return tmp_path


def calls(home: Path) -> int:
    return len((home / "calls").read_text().splitlines())


def fake_agent(home: Path, text: str) -> None:
    """Put `text` in place of this version's agent."""
    place = home / ".gpurun/agent" / bundle.current().hash
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / "__main__.py").write_text("import json, sys, time\nq = json.loads(sys.stdin.readline())\n" + text)


def ask(**profile: str | None) -> dict[str, str]:
    return wire.connect(Profile(**profile), interactive=False).ask("data", {"name": "sets"})  # type: ignore[arg-type]


def test_a_host_without_the_agent_gets_it_with_the_second_question(home: Path) -> None:
    assert ask()["path"] == str(home / ".gpurun/data/sets")
    assert calls(home) == 2
    assert [path.name for path in (home / ".gpurun/agent").iterdir()] == [bundle.current().hash]
    assert ask()["path"] == str(home / ".gpurun/data/sets")
    assert calls(home) == 3


@pytest.mark.parametrize("root", ["~/big disk", "ABSOLUTE/it's"])
def test_everything_lies_under_the_root_that_the_profile_names(home: Path, root: str) -> None:
    root = root.replace("ABSOLUTE", str(home))
    assert ask(root=root)["path"] == root.replace("~", str(home)) + "/data/sets"
    assert not (home / ".gpurun").exists()


def test_an_agent_that_lost_a_file_is_put_right(home: Path) -> None:
    ask()
    module = home / ".gpurun/agent" / bundle.current().hash / "gpurun/agent/dispatch.py"
    module.unlink()
    assert ask()["path"]
    assert module.is_file()
    left = sorted(path.name.split("-")[0] for path in (home / ".gpurun/agent").iterdir())
    assert left == [".old", bundle.current().hash]


@pytest.mark.parametrize("noise", ["Welcome!\n", "no newline", '{"ok": true}\n', "\0\xff\n" * 2000])
def test_a_noisy_start_up_file_is_read_over(home: Path, noise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_SSH_SAYS", noise.replace("\0", ""))
    assert ask()["path"] == str(home / ".gpurun/data/sets")


def test_a_missing_python_is_told(home: Path) -> None:
    with pytest.raises(HostError, match="there is no `python9` on box") as raised:
        ask(python="python9")
    assert (raised.value.code, raised.value.exit_code) == ("no_python", 125)
    assert "hosts.toml" in raised.value.next_step


def test_a_python_that_says_nothing_is_told(home: Path) -> None:
    (home / "python").write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    (home / "python").chmod(0o755)
    with pytest.raises(HostError, match="ended with code 3 and without an answer: broken") as raised:
        ask(python="~/python")
    assert raised.value.code == "no_answer"


def test_the_agents_no_is_an_error_with_its_next_step(home: Path) -> None:
    with pytest.raises(HostError) as raised:
        wire.connect(Profile(), interactive=False).ask("data", {"name": "../up"})
    assert (raised.value.code, raised.value.exit_code, raised.value.where) == ("bad_name", 2, "box")
    assert raised.value.next_step


def test_every_request_carries_who_asks_and_what_the_profile_says(home: Path) -> None:
    fake_agent(home, "print(q['nonce']); print(json.dumps({'ok': True, 'answer': q}))")
    connected = wire.connect(Profile(root=None, engine=("sudo", "-n", "docker")), interactive=False)
    asked = Wire(connected.connection, engine=connected.engine, owner="ada").ask("ps", {"all": True, "nonce": "x"})
    assert asked.pop("nonce") != "x"
    assert asked == {"all": True, "protocol": 1, "root": None, "owner": "ada", "engine": ["sudo", "-n", "docker"]}


def test_a_request_may_be_made_while_ssh_is_on_its_way(home: Path) -> None:
    made = []

    def request() -> dict[str, str]:
        made.append((home / "calls").exists())
        return {"name": "late"}

    assert wire.connect(Profile(), interactive=False).ask("data", request)["path"].endswith("/late")
    assert len(made) == 1  # though the question was put twice: the agent was not there


def test_a_large_request_does_not_block(home: Path) -> None:
    asked = wire.connect(Profile(), interactive=False)
    assert asked.ask("data", {"name": "sets", "patch": "x" * 3_000_000})["path"]


def test_a_host_that_is_late_is_out_of_reach(home: Path) -> None:
    fake_agent(home, "time.sleep(30)")
    with pytest.raises(ContactLost, match=r"no answer within 0\.3 s"):
        wire.connect(Profile(), interactive=False).ask("ps", {}, within=0.3)


def test_a_stream_brings_frames_of_raw_bytes(home: Path) -> None:
    fake_agent(
        home,
        """
out = sys.stdout.buffer
def put(head, data=b""):
    out.write(json.dumps(head).encode() + b"\\n" + data); out.flush()
out.write(q["nonce"].encode() + b"\\n"); put({"ok": True, "answer": {"run": 1}})
put({"stream": "log", "offset": 7, "size": 4}, b"a\\n\\xff\\r")
put({"beat": 1.0})
put({"state": {"state": "running"}})
put({"end": {"state": "succeeded"}})
""",
    )
    with wire.connect(Profile(), interactive=False).stream("logs", {}) as stream:
        assert stream.answer == {"run": 1}
        assert list(stream) == [
            Frame("log", 7, b"a\n\xff\r"),
            Frame(state={"state": "running"}),
            Frame(end={"state": "succeeded"}),
        ]


def test_a_stream_that_ends_with_an_error_raises_what_the_agent_said(home: Path) -> None:
    fake_agent(
        home,
        """
def put(line):
    sys.stdout.buffer.write(json.dumps(line).encode() + b"\\n")
sys.stdout.buffer.write(("\\n" + q["nonce"] + "\\n").encode())
put({"ok": True, "answer": {"run": 1}})
put({"state": {"state": "running"}})
put({"error": {"code": "log_unreadable", "what": "it is a link", "where": "/x", "next": "gpurun shell", "exit": 125}})
""",
    )
    with wire.connect(Profile(), interactive=False).stream("logs", {}) as stream, pytest.raises(HostError) as caught:
        list(stream)
    error = caught.value
    assert (error.what, error.where, error.code, error.exit_code) == ("it is a link", "box\n/x", "log_unreadable", 125)


@pytest.mark.parametrize(
    "last",
    [
        "",
        "put({'stream': 'log', 'offset': 0, 'size': 9}, b'torn')",
        "out.write(b'no json\\n'); out.flush()",
        "time.sleep(9)",
    ],
)
def test_a_stream_without_an_end_is_lost_contact(home: Path, last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SILENCE", 0.5)
    fake_agent(
        home,
        f"""
out = sys.stdout.buffer
def put(head, data=b""):
    out.write(json.dumps(head).encode() + b"\\n" + data); out.flush()
out.write(q["nonce"].encode() + b"\\n"); put({{"ok": True, "answer": {{}}}})
{last}
""",
    )
    with wire.connect(Profile(), interactive=False).stream("logs", {}) as stream, pytest.raises(ContactLost):
        list(stream)


def test_an_ssh_that_fails_is_diagnosed(home: Path) -> None:
    broken = home / "broken_ssh"
    broken.write_text(
        '#!/bin/sh\ncase " $* " in *" -G "*) echo hostname no-such-host.invalid; echo port 22; exit 0;; esac\n'
        "echo 'ssh: it is dark' >&2; exit 255\n"
    )
    broken.chmod(0o755)
    connected = wire.connect(Profile(), interactive=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPURUN_SSH", str(broken))
        with pytest.raises(HostUnreachable) as raised:
            connected.ask("ps", {})
    assert (raised.value.code, raised.value.exit_code) == ("no_name", 255)
    assert raised.value.where == "box\nssh said: ssh: it is dark"
