"""An engine that remembers its containers and images in a file: what a real one answers, on demand and without root."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

from gpurun.agent import vocabulary as words
from gpurun.agent.host.engine import Engine
from gpurun.agent.schema.job import AttemptJob
from gpurun.agent.setup import wrapper

PROGRAM = """
import json, os, pathlib, sys, time
here = pathlib.Path(__file__).parent
args = sys.argv[1:]
with open(here / "asked", "a") as file:
    file.write(" ".join(args) + "\\n")
state = json.loads((here / "state").read_text())

def done(code=0, out="", err=""):
    (here / "state").write_text(json.dumps(state))
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)

def after(option, words=args):
    return [words[at + 1] for at, word in enumerate(words) if word == option]

def find(name):
    for one in state["containers"]:
        if name in (one["Id"], one["Name"].lstrip("/")):
            return one
    done(1, "", "Error: No such container: %s\\n" % name)

if state["away"] and args[0] != "version":
    said = state["away"].pop(0)
    if said:
        done(1, "", said + "\\n")
if args[0] == "version":
    done(1, "", state["away"][0]) if state["away"] else done(0, "20.10.24\\n")
elif args[0] == "ps":
    wanted = [one.partition("=")[2] for one in after("--filter")]
    fits = lambda one: all(label in ["%s=%s" % pair for pair in one["Config"]["Labels"].items()] for label in wanted)
    done(0, "".join(one["Id"] + "\\n" for one in state["containers"] if fits(one)))
elif args[:2] == ["container", "inspect"]:
    done(0, json.dumps(find(args[-1])) + "\\n")
elif args[:2] == ["image", "inspect"]:
    if args[-1] not in state["images"]:
        done(1, "", "Error: No such image: %s\\n" % args[-1])
    done(0, json.dumps({"Id": args[-1], "RepoDigests": []}) + "\\n")
elif args[0] == "create":
    name = after("--name")[0]
    image = args[args.index("--entrypoint") + 2]
    if any(one["Name"] == "/" + name for one in state["containers"]):
        done(1, "", 'Conflict. The container name "/%s" is already in use by container "c1".\\n' % name)
    if image not in state["images"]:
        done(1, "", "Error: No such image: %s\\n" % image)
    made = {"Id": "c%d" % (len(state["containers"]) + 1), "Name": "/" + name, "Image": image,
            "Config": {"Labels": dict(one.split("=", 1) for one in after("--label"))}, "State": {"Status": "created"}}
    state["containers"].append(made)
    done(0, made["Id"] + "\\n")
elif args[0] in ("start", "kill", "rm"):
    if args[0] == "rm" and state["on_its_way"]:
        find(args[-1])["State"]["Status"] = state["on_its_way"]
    if args[0] == "start" and state["prune"]:
        state["prune"] -= 1
        state["containers"] = [one for one in state["containers"] if one["State"]["Status"] == "running"]
    one = find(args[-1])
    if args[0] == "start":
        one["State"]["Status"] = "running"
        one["starts"] = one.get("starts", 0) + 1
    elif args[0] == "rm" and one["State"]["Status"] == "running" and "--force" not in args:
        done(1, "", "Error response from daemon: You cannot remove a running container %s. "
             "Stop the container before attempting removal or force remove\\n" % one["Id"])
    elif args[0] == "rm":
        state["containers"].remove(one)
    else:
        one["State"].update(Status="exited", ExitCode=137)
    done(0, one["Id"] + "\\n")
elif args[0] == "wait":
    time.sleep(state.get("slow_wait", 0))
    done(0, "%s\\n" % find(args[-1])["State"].get("ExitCode", 0))
elif args[0] == "events":
    done(0, "".join(json.dumps(event) + "\\n" for event in state["events"]))
done(1, "", "unknown command: " + args[0])
"""


class FakeEngine:
    """`argv` answers from `state`; `away`: what each further question is refused with, "" for one that is answered;
    `on_its_way`: the status of a container when it is to be removed; `prune`: how many further starts come behind a `docker container prune`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.program = folder / "docker"
        self.program.write_text(f"#!{sys.executable} -S\n" + PROGRAM)
        self.program.chmod(0o755)
        self.save({"containers": [], "images": [], "events": [], "away": [], "prune": 0, "on_its_way": None})

    @property
    def argv(self) -> list[str]:
        return [str(self.program)]

    @property
    def engine(self) -> Engine:
        return Engine(self.argv)

    @property
    def asked(self) -> list[str]:
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def forget_what_was_asked(self) -> None:
        (self.folder / "asked").unlink(missing_ok=True)

    @property
    def state(self) -> Any:
        return cast(dict[str, Any], json.loads((self.folder / "state").read_text()))

    def save(self, state: dict[str, Any]) -> None:
        (self.folder / "state").write_text(json.dumps(state))

    def change(self, **changes: Any) -> None:
        self.save({**self.state, **changes})

    @property
    def containers(self) -> list[dict[str, Any]]:
        return cast(list[dict[str, Any]], self.state["containers"])

    def add(self, job: AttemptJob, *, name: str = "", attempt: int = 1, status: str = "running", **told: Any) -> str:
        """A container of this job, as `create` would have made it; its id."""
        labels = {
            words.LABEL_RUN: job["id"],
            words.LABEL_TOKEN: wrapper.token_label(job),
            words.LABEL_ATTEMPT: str(attempt),
        }
        made = f"c{len(self.containers) + 1}"
        container = {
            "Id": made,
            "Name": "/" + (name or words.CONTAINER_PREFIX + job["id"]),
            "Image": "sha256:1a2b",
            "Config": {"Labels": labels},
            "State": {"Status": status, **told},
        }
        self.change(containers=[*self.containers, container])
        return made
