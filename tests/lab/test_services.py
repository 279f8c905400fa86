"""TensorBoard and Jupyter through a tunnel, seen in a real browser; and that nobody else sees anything of them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.lab.browser import OPTIONS, Browser, browser
from tests.lab.host.golden import BASE_IMAGE
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.host.users import ADA
from tests.lab.jobs import Jobs
from tests.lab.tunnels import get, through_proxy, tunnel, until_answers
from tests.support.faultproxy import FaultProxy

# Trains until it is stopped, a step every few hundredths of a second.
TRAIN = """\
import time, torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, batch, index):
        time.sleep(0.03)
        loss = (self.layer(batch) - batch.sum(1, keepdim=True)).square().mean()
        self.log("train_loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)
data = torch.utils.data.DataLoader(torch.randn(4000, 4), batch_size=8)
trainer = Trainer(max_epochs=-1, accelerator="cpu", logger=TensorBoardLogger("logs", name=None), log_every_n_steps=1,
                  enable_progress_bar=False, enable_checkpointing=False)
print("training", flush=True)
trainer.fit(Line(), data)
"""
TAGS = "return fetch('/data/plugin/scalars/tags').then(answer => answer.json())"
POINTS = """
return fetch('/data/plugin/scalars/scalars?' + new URLSearchParams({run: arguments[0], tag: 'train_loss'}))
    .then(answer => answer.json()).then(points => points.length)
"""
NOTEBOOK = {
    "type": "notebook",
    "content": {
        "cells": [], "nbformat": 4, "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    },
}  # fmt: skip
PUT = """
return fetch('/api/contents/' + arguments[0], {method: 'PUT', body: JSON.stringify(arguments[1]), headers: {
    'Content-Type': 'application/json', 'X-XSRFToken': document.cookie.match(/_xsrf=([^;]*)/)[1]}})
    .then(answer => answer.status)
"""


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def project(laptop: Laptop) -> Path:
    return laptop.project({"gpurun.toml": "", "train.py": TRAIN, "answer.py": "ANSWER = 42\n"})


@pytest.fixture
def proxy(laptop: Laptop, host: LabHost) -> Iterator[FaultProxy]:
    with through_proxy(laptop, host) as made:
        yield made


def train(jobs: Jobs, project: Path) -> str:
    run = jobs.ask("submit", "train.py", "-H", jobs.alias, "-g", "0", "-e", "OMP_NUM_THREADS=1", cwd=project)
    jobs.until_running(run.stdout.strip())
    return run.stdout.strip()


def test_tensorboard_shows_runs_that_train_side_by_side(
    laptop: Laptop, jobs: Jobs, project: Path, page: Browser, host: LabHost
) -> None:
    first = train(jobs, project)
    with tunnel(laptop, "-H", "ada", cwd=project) as opened:
        url = opened.url("TensorBoard")
        page.open(url)
        page.until(lambda: "train_loss" in json.dumps(page.script(TAGS)), "the first scalar")
        second = train(jobs, project)
        names = page.until(lambda: both(page.script(TAGS), first, second), "the second run")
        page.driver.refresh()
        page.until(lambda: any("train_loss" in text for text in page.texts("scalar-card, card-view")), "the chart")
        for run in (first, second):
            page.until(functools.partial(lists, page, run), run)
        page.until(lambda: page.driver.find_elements("css selector", "line-chart svg, line-chart canvas"), "a line")
        assert page.title == f"{project.name} on ada"
        before = {name: page.script(POINTS, name) for name in names}
        page.picture("tensorboard")
        for name in names:
            page.until(functools.partial(has_more, page, name, before[name]), f"{name} grows")
        assert listeners(host) == []
        # One run alone, each under an address of its own that stays the same.
        with tunnel(laptop, first, cwd=project) as alone:
            assert list(runs_of(get(alone.url("TensorBoard") + "data/runs")[1])) == [first]
            assert alone.url("TensorBoard") != url
    with tunnel(laptop, "-H", "ada", cwd=project) as again:
        assert again.url("TensorBoard") == url


def test_tensorboard_sees_no_secret_of_other_runs_and_fetch_brings_none(
    laptop: Laptop, jobs: Jobs, project: Path, host: LabHost
) -> None:
    (project / "wait.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(600)\n")
    secret = laptop.env | {"HUSH": "hunter2-of-ada"}
    run = laptop.gpurun(
        "submit", "wait.py", "-H", "ada", "-g", "0", "-e", "HUSH", cwd=project, env=secret
    ).stdout.strip()
    jobs.until_running(run)
    with tunnel(laptop, "-H", "ada", cwd=project) as opened:
        board = opened.listeners["TensorBoard"]["run"]
        mounts = json.loads(host.run("docker", "inspect", f"gpurun-{board}"))[0]["Mounts"]
        assert [mount["Source"] for mount in mounts if mount["Source"].endswith("/runs")] == []
        seen = "grep -rlsI hunter2-of-ada / --exclude-dir=proc --exclude-dir=sys || true"
        assert host.run("docker", "exec", f"gpurun-{board}", "sh", "-c", seen).strip() == ""
        assert host.run("docker", "exec", f"gpurun-{run}", "sh", "-c", "cat /gpurun/secrets/env").count("hunter2") == 1
    laptop.gpurun("stop", board, run, "--grace", "1s", timeout=60)
    assert not any(jobs.secrets(run).iterdir())
    for line in (["fetch", board], ["fetch", "--all"], ["host", "leave", "ada", "-y"]):
        laptop.gpurun(*line, cwd=project, timeout=300)
        came = [str(path) for path in (project / "fetched").rglob("*") if path.is_file()]
        assert came
        assert [path for path in came if "/runs/" in path or b"hunter2-of-ada" in Path(path).read_bytes()] == []


def lists(page: Browser, run: str) -> bool:
    return any(run in text for text in page.texts("runs-table, runs-data-table"))


def has_more(page: Browser, name: str, points: int) -> bool:
    return bool(page.script(POINTS, name) > points)


def both(tags: dict[str, Any], *runs: str) -> list[str]:
    names = [name for name in tags if name.split("/")[0] in runs and "train_loss" in tags[name]]
    return names if len({name.split("/")[0] for name in names}) == len(runs) else []


def runs_of(answer: bytes) -> set[str]:
    return {name.split("/")[0] for name in json.loads(answer)}


def test_jupyter_runs_cells_and_its_kernel_survives_a_broken_connection(
    laptop: Laptop, jobs: Jobs, project: Path, page: Browser, proxy: FaultProxy, host: LabHost
) -> None:
    with tunnel(laptop, "--jupyter", "-g", "1", "-H", "far", cwd=project) as opened:
        url = opened.url("Jupyter")
        run = opened.listeners["Jupyter"]["run"]
        base = url.partition("/lab")[0]
        token = parse_qs(urlsplit(url).query)["token"][0]
        assert get(f"{base}/api/contents")[0] == 403
        assert get(f"{base}/api/contents", Authorization=f"token {token}")[0] == 200
        assert get(f"{base}/api/contents", Authorization=f"token {token}", Host="evil.example")[0] == 403
        page.open(url)
        page.until(lambda: page.script(PUT, "tried.ipynb", NOTEBOOK) in (200, 201), "a new notebook")
        open_notebook(page, f"{base}/lab/tree/tried.ipynb")
        assert ran(page, "import torch, answer; print('torch', torch.__version__)").startswith("torch 2.8.0")
        page.picture("jupyter")
        assert "notified about official" not in page.driver.page_source
        proxy.reset()
        opened.wait_for_line("reconnected to far", 30)
        until_answers(f"{base}/api?token={token}", 20)
        assert ran(page, "print('still', answer.ANSWER)") == "still 42"
        check_secrets(host, run, token)
        assert [gpu["uuid"] for gpu in jobs.record(run)["gpus"]] == host.gpus.uuids[:1]
        assert listeners(host) == []
        page.script("document.querySelector('[data-command=\"docmanager:save\"]')?.click()")
        saved = host.home(ADA) / ".gpurun/runs" / run / "workspace/tried.ipynb"
        page.until(lambda: "still" in saved.read_text(), "the saved notebook")
    laptop.gpurun("stop", run, "--grace", "20s", timeout=60)
    assert token not in text_below(host.home(ADA) / ".gpurun/runs" / run)
    laptop.gpurun("fetch", run, cwd=project)
    assert "still" in (project / "fetched" / run / "tried.ipynb").read_text()
    # The next session goes on with what the last one wrote, and with the code as it is now.
    (project / "answer.py").write_text("ANSWER = 43\n")
    with tunnel(laptop, "--jupyter", "-g", "0", "-H", "far", cwd=project) as opened:
        base, token = opened.url("Jupyter").split("/lab?token=")
        names = json.loads(get(f"{base}/api/contents", Authorization=f"token {token}")[1])["content"]
        assert {"tried.ipynb", "answer.py"} <= {entry["name"] for entry in names}
        answer = json.loads(get(f"{base}/api/contents/answer.py", Authorization=f"token {token}")[1])
        assert answer["content"] == "ANSWER = 43\n"


# What it was started with, and the page that it came to.
BROWSER = """\
#!/bin/sh
echo "$@" >{folder}/argv
chromium {options} --user-data-dir={folder}/profile --dump-dom "$1" >{folder}/page 2>/dev/null
touch {folder}/done
"""


def test_opened_browser_gets_in_without_a_token_in_its_arguments(
    laptop: Laptop, jobs: Jobs, project: Path, page: Browser, tmp_path: Path
) -> None:
    script = tmp_path / "browser"
    script.write_text(BROWSER.format(folder=tmp_path, options=" ".join(OPTIONS)))
    script.chmod(0o755)
    screen = {"DISPLAY": ":7", "BROWSER": f"{script} %s"}
    with tunnel(laptop, "--jupyter", "-g", "0", "-H", "ada", "--open", cwd=project, env=screen) as opened:
        token = opened.url("Jupyter").partition("token=")[2]
        page.until((tmp_path / "done").exists, "the page in the browser")
        assert len(token) * 4 >= 128
        assert token not in (tmp_path / "argv").read_text()
        assert "jupyter-config-data" in (tmp_path / "page").read_text()


def open_notebook(page: Browser, url: str) -> None:
    """Who types before there is a kernel is asked which one."""
    page.open(url)
    page.until(lambda: "| Idle" in "".join(page.texts("#jp-main-statusbar")), "a kernel that is ready")


def ran(page: Browser, source: str) -> str:
    """Type `source` into the notebook's last cell, run it, and return what it prints."""
    before = len(page.texts(".jp-OutputArea-output"))
    page.click(".jp-Notebook .jp-CodeCell .cm-content")
    page.type_and_run(source)
    page.until(lambda: len(page.texts(".jp-OutputArea-output")) > before, f"the output of {source}")
    return page.until(lambda: page.texts(".jp-OutputArea-output")[-1], "what it printed").strip()  # type: ignore[no-any-return]


def check_secrets(host: LabHost, run: str, token: str) -> None:
    folder = host.home(ADA) / ".gpurun/runs" / run
    kept = host.home(ADA) / ".gpurun/secrets" / run / "token"
    assert len(token) * 4 >= 128
    assert kept.read_text() == token
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "out/sockets").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "out/sockets/jupyter").stat().st_mode) & 0o077 == 0
    assert token not in host.run("docker", "inspect", f"gpurun-{run}")
    assert token not in (folder / "out/log").read_text()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            assert token.encode() not in (entry / "cmdline").read_bytes()


def text_below(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def listeners(host: LabHost) -> list[str]:
    """Return the TCP sockets of the host's users and containers that listen on more than a loopback."""
    return [where for where in listening(host) if not where.startswith(("127.", "::1"))]


def listening(host: LabHost) -> list[str]:
    """Return `address:port` of every TCP socket that a process of the host's users listens on, also in containers."""
    found = set()
    for pid in pids_below(host.box.init):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == 0:  # sshd, the engine: the host's own
                continue
            sockets = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            for table in ("tcp", "tcp6"):
                for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                    words = line.split()
                    if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                        found.add(readable(words[1]))
    return sorted(found)


def pids_below(init: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found, to_see = [init], [init]
    while to_see:
        children = parents.get(to_see.pop(), [])
        found += children
        to_see += children
    return found


def readable(address: str) -> str:
    """Return `0100007F:1F90` of /proc/net/tcp as 127.0.0.1:8080."""
    number, _, port = address.partition(":")
    raw = b"".join(bytes.fromhex(number[at : at + 8])[::-1] for at in range(0, len(number), 8))
    return f"{socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)}:{int(port, 16)}"


def test_idle_services_end_by_themselves(laptop: Laptop, jobs: Jobs, project: Path, page: Browser) -> None:
    """Also when a tab of Jupyter Lab is left open, which polls kernels and folders."""
    (project / "gpurun.toml").write_text('idle = "12s"\n')
    with tunnel(laptop, "-H", "ada", "--tensorboard", "--jupyter", "-g", "0", cwd=project) as opened:
        runs = [opened.listeners[name]["run"] for name in ("TensorBoard", "Jupyter")]
        page.open(opened.url("Jupyter"))
        assert opened.process.wait(timeout=120) == 0
    for run in runs:
        assert jobs.until_ended(run) == ("succeeded", "exit", 0)


TERMINAL = """
const answer = await fetch('/api/terminals', {method: 'POST', headers: {
    'X-XSRFToken': document.cookie.match(/_xsrf=([^;]*)/)[1]}})
const socket = new WebSocket(`ws://${location.host}/terminals/websocket/${(await answer.json()).name}`)
await new Promise(resolve => { socket.onmessage = resolve })
socket.send(JSON.stringify(['stdin', arguments[0] + '\\r']))
await new Promise(resolve => setTimeout(resolve, 1000))
return answer.status
"""


def test_running_terminal_command_keeps_jupyter_open(laptop: Laptop, jobs: Jobs, project: Path, page: Browser) -> None:
    (project / "gpurun.toml").write_text('idle = "5s"\n')
    with tunnel(laptop, "-H", "ada", "--jupyter", "-g", "0", cwd=project) as opened:
        page.open(opened.url("Jupyter"))
        assert page.script(f"return (async function () {{{TERMINAL}}}).apply(null, arguments)", "sleep 25") == 200
        page.open("about:blank")
        time.sleep(18)
        assert jobs.record(opened.listeners["Jupyter"]["run"])["state"] == "running"
        assert opened.process.wait(timeout=90) == 0


def test_dead_service_is_reported_and_started_again(laptop: Laptop, jobs: Jobs, project: Path) -> None:
    with tunnel(laptop, "-H", "ada", cwd=project) as opened:
        run = opened.listeners["TensorBoard"]["run"]
        jobs.host.run("docker", "kill", f"gpurun-{run}")
        assert opened.process.wait(timeout=30) == 125
        opened.wait_for_line(f"{run} was killed by signal 9", 2)
        assert not any("was killed" in line for line in opened.lines)  # once
    with tunnel(laptop, "-H", "ada", cwd=project) as again:
        assert again.listeners["TensorBoard"]["run"] != run
        assert get(again.url("TensorBoard"))[0] == 200


def test_services_without_an_engine(laptop: Laptop, bare_host: LabHost, project: Path, page: Browser) -> None:
    """In an environment of the host's own Python, with the packages of the services installed."""
    laptop.hosts_file.write_text("")
    with tunnel(laptop, "-H", "bare", "--tensorboard", "--jupyter", "-g", "0", cwd=project, env={}) as opened:
        base = opened.url("Jupyter").partition("/lab")[0]
        assert get(opened.url("TensorBoard") + "data/runs") == (200, b"[]")
        assert get(f"{base}/api/contents")[0] == 403
        page.open(opened.url("Jupyter"))
        page.until(lambda: page.script(PUT, "tried.ipynb", NOTEBOOK) in (200, 201), "a new notebook")
        open_notebook(page, f"{base}/lab/tree/tried.ipynb")
        assert ran(page, "import torch; print('torch', torch.__version__)").startswith("torch 2.8.0")
        assert listeners(bare_host) == []
        folder = Path(f"{bare_host.root}/tmp/gpurun-{ADA.uid}")
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("sockets-*/")} == {0o700}
        runs = [opened.listeners[name]["run"] for name in ("TensorBoard", "Jupyter")]
    laptop.gpurun("stop", *runs, "--grace", "20s", timeout=60)
    time.sleep(1)
    assert not [path for path in folder.iterdir() if path.name.startswith("sockets-")]


def test_project_folders_named_like_the_services_are_not_imported(laptop: Laptop, jobs: Jobs) -> None:
    """A project may have its own tensorboard/ and jupyterlab/."""
    files = {"gpurun.toml": "", "tensorboard/__init__.py": "1/0\n", "jupyterlab/__init__.py": "1/0\n"}
    project = laptop.project(files, name="clash")
    with tunnel(laptop, "-H", "ada", "--tensorboard", "--jupyter", "-g", "0", cwd=project) as opened:
        assert get(opened.url("TensorBoard"))[0] == 200
        assert get(opened.url("Jupyter"))[0] == 200


def test_another_image_gets_what_a_service_needs(laptop: Laptop, jobs: Jobs, project: Path) -> None:
    (project / "gpurun.toml").write_text(f'image = "{BASE_IMAGE}"\n')
    with tunnel(laptop, "-H", "ada", "--jupyter", "-g", "0", cwd=project) as opened:
        assert get(opened.url("Jupyter"))[0] == 200
