"""Questions to the agent, through an ssh that goes nowhere: the real agent answers them on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.schema.answers import DataAnswer
from gpurun.agent.schema.requests import LogsRequest
from gpurun.config.hosts import HostProfile
from gpurun.errors import ContactLost, HostError, HostUnreachable
from gpurun.remote import bundle, wire
from gpurun.remote.wire import Frame, Wire
from tests.support.agent_answers import listing, record
from tests.support.part import part
from tests.support.waiting import eventually

LOCAL_SSH = Path(__file__).parents[2] / "support" / "local_ssh.sh"


def connect(**profile: Any) -> Wire:
    return wire.connect(HostProfile("box", **profile), interactive=False)


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


RECORD = record()
PUT = f"""
record = {RECORD!r}
out = sys.stdout.buffer
def put(head, data=b""):
    out.write(json.dumps(head).encode() + b"\\n" + data); out.flush()
out.write(q["nonce"].encode() + b"\\n"); put({{"ok": True, "answer": {{"run": record}}}})
"""


def ask(**profile: str | None) -> DataAnswer:
    return connect(**profile).ask("data", {"name": "sets"})


def test_a_host_without_the_agent_gets_it_with_the_second_question(home: Path) -> None:
    assert ask()["path"] == str(home / ".gpurun/data/sets")
    assert calls(home) == 2
    assert [path.name for path in (home / ".gpurun/agent").iterdir()] == [bundle.current().hash]
    assert ask()["path"] == str(home / ".gpurun/data/sets")
    assert calls(home) == 3


@pytest.mark.parametrize("root", ["~/big disk", "ABSOLUTE/it's"])
def test_everything_lies_under_the_root_that_the_profile_names(home: Path, root: str) -> None:
    root = root.replace("ABSOLUTE", str(home))
    assert ask(root=root)["path"] == root.replace("~", str(home)) + "/.gpurun/data/sets"
    assert not (home / ".gpurun").exists()


def test_a_root_that_cannot_be_used_is_one_clear_error(home: Path) -> None:
    (home / "data").write_text("a file")
    with pytest.raises(HostError) as error:
        ask(root="~/data")
    assert (error.value.code, error.value.what) == (
        "root",
        f"gpurun cannot keep its files in {home}/data/.gpurun: Not a directory",
    )
    assert "gpurun host add NAME --root FOLDER" in error.value.next_step


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
        connect().ask("data", {"name": "../up"})
    assert (raised.value.code, raised.value.exit_code, raised.value.where) == ("bad_name", 2, "box")
    assert raised.value.next_step


def test_every_request_carries_who_asks_and_what_the_profile_says(home: Path) -> None:
    fake_agent(home, f"print(q['nonce']); print(json.dumps({{'ok': True, 'answer': {{**{listing()!r}, 'asked': q}}}}))")
    connected = connect(root=None, engine=("sudo", "-n", "docker"))
    answer: Any = Wire(connected.connection, engine=connected.engine, owner="ada").ask(
        "ps", {"all": True, "nonce": "x"}
    )
    asked = answer["asked"]
    assert asked.pop("nonce") != "x"
    assert asked == {"all": True, "protocol": 1, "root": None, "owner": "ada", "engine": ["sudo", "-n", "docker"]}


@pytest.fixture
def warm(home: Path) -> Iterator[Wire]:
    """A connection whose master seems to stand, to a host that has the agent."""
    ask()
    connected = connect()
    connected.connection.control_path.touch()
    yield connected
    connected.connection.control_path.unlink(missing_ok=True)


def test_question_that_was_begun_starts_ssh_once_and_before_it_is_asked(warm: Wire, home: Path) -> None:
    before = calls(home)
    with warm.begin("data"):
        eventually(lambda: calls(home) == before + 1)
        assert warm.ask("data", {"name": "late"})["path"].endswith("/late")
    assert calls(home) == before + 1
    with pytest.raises(KeyboardInterrupt), warm.begin("data"):
        raise KeyboardInterrupt
    assert warm.ask("data", {"name": "next"})["path"].endswith("/next")


def test_question_is_begun_over_a_warm_connection_alone(home: Path) -> None:
    ask()
    before = calls(home)
    with connect().begin("data"):
        assert calls(home) == before


def test_a_large_request_does_not_block(home: Path) -> None:
    asked: Any = connect()
    assert asked.ask("data", {"name": "sets", "patch": "x" * 3_000_000})["path"]


def test_a_host_that_is_late_is_out_of_reach(home: Path) -> None:
    fake_agent(home, "time.sleep(30)")
    with pytest.raises(ContactLost, match=r"no answer within 0\.3 s"):
        connect().ask("ps", {}, within=0.3)


def test_a_stream_brings_frames_of_raw_bytes(home: Path) -> None:
    fake_agent(
        home,
        PUT
        + """
put({"stream": "log", "offset": 7, "size": 4}, b"a\\n\\xff\\r")
put({"beat": 1.0})
put({"state": record})
put({"end": {**record, "state": "succeeded"}})
""",
    )
    with connect().stream("logs", {"run": RECORD["id"]}) as stream:
        assert stream.answer == {"run": RECORD}
        assert list(stream) == [
            Frame("log", 7, b"a\n\xff\r"),
            Frame(state=part(RECORD)),
            Frame(end=part({**RECORD, "state": "succeeded"})),
        ]


def test_a_stream_that_ends_with_an_error_raises_what_the_agent_said(home: Path) -> None:
    fake_agent(
        home,
        PUT
        + """
put({"state": record})
put({"error": {"code": "log_unreadable", "what": "it is a link", "where": "/x", "next": "gpurun shell", "exit": 125}})
""",
    )
    with connect().stream("logs", {"run": RECORD["id"]}) as stream, pytest.raises(HostError) as caught:
        list(stream)
    error = caught.value
    assert (error.what, error.where, error.code, error.exit_code) == ("it is a link", "box\n/x", "log_unreadable", 125)


@pytest.mark.parametrize(
    "last",
    [
        "",
        "put({'stream': 'log', 'offset': 0, 'size': 9}, b'torn')",
        "time.sleep(9)",
    ],
)
def test_a_stream_without_an_end_is_lost_contact(home: Path, last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SILENCE", 0.5)
    fake_agent(
        home,
        PUT + last,
    )
    with connect().stream("logs", {"run": RECORD["id"]}) as stream, pytest.raises(ContactLost):
        list(stream)


def test_an_ssh_that_fails_is_diagnosed(home: Path) -> None:
    broken = home / "broken_ssh"
    broken.write_text(
        '#!/bin/sh\ncase " $* " in *" -G "*) echo hostname no-such-host.invalid; echo port 22; exit 0;; esac\n'
        "echo 'ssh: it is dark' >&2; exit 255\n"
    )
    broken.chmod(0o755)
    connected = connect()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPURUN_SSH", str(broken))
        with pytest.raises(HostUnreachable) as raised:
            connected.ask("ps", {})
    assert (raised.value.code, raised.value.exit_code) == ("no_name", 255)
    assert raised.value.where == "box\nssh said: ssh: it is dark"


FLOOD = "\nwhile True:\n    out.write({line!r}); out.flush()"


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ("out.write(b'no json\\n'); out.flush(); time.sleep(9)", "it is not JSON"),
        ("out.write(b'[' * 100000 + b'\\n'); out.flush(); time.sleep(9)", "it is not JSON"),
        ("put({'stream': 'log', 'offset': 0, 'size': 1 << 40})", "`size` should be"),
        ("put({'stream': 'log', 'offset': -1, 'size': 1}, b'a')", "`offset` should be"),
        ("put({'state': None})", "`state` should be an object"),
        ("put({'end': {**record, 'id': 'other-7f3k'}})", "which was not asked for"),
        (FLOOD.format(line=b'{"beat": 1}\n'), "nothing but signs of life"),
        (FLOOD.format(line=b'{"stream": "log", "offset": 0, "size": 0}\n'), "nothing but signs of life"),
        (FLOOD.format(line=b"x" * 65536), "a frame has no end"),
    ],
)
def test_frames_that_are_none_end_a_stream_with_one_error(home: Path, sent: str, says: str) -> None:
    fake_agent(home, PUT + sent)
    asked: LogsRequest = {"run": RECORD["id"], "follow": True}
    with connect().stream("logs", asked) as stream, pytest.raises(HostError) as caught:
        list(stream)
    assert says in caught.value.what
    assert (caught.value.code, caught.value.exit_code, caught.value.where) == ("malformed", 125, "box")


def test_log_that_is_not_followed_and_does_not_end_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "STANDSTILL", 0.2)
    fake_agent(home, PUT + "while True:\n    put({'beat': 1}); time.sleep(0.1)")
    stream = connect().stream("logs", {"run": RECORD["id"]})
    with stream, pytest.raises(HostError, match="nothing new came"):
        list(stream)


def test_noise_without_an_end_is_no_answer(home: Path) -> None:
    fake_agent(home, "while True:\n    print('x' * 65536)")
    with pytest.raises(HostError, match="it has no end") as caught:
        connect().ask("ps", {})
    assert caught.value.code == "malformed"


def test_long_answer_over_a_slow_line_may_take_longer_than_the_host_may_think(home: Path) -> None:
    """Each byte that comes shows that the answer is on its way."""
    fake_agent(
        home,
        f"""
text = q['nonce'] + "\\n" + json.dumps({{'ok': True, 'answer': {listing()!r}}}) + "\\n"
for at in range(0, len(text), 40):
    sys.stdout.write(text[at:at + 40]); sys.stdout.flush(); time.sleep(0.2)
""",
    )
    answer = connect().ask("ps", {}, within=1.0)
    assert answer["runs"] == []
