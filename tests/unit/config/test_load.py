"""Layers of configuration: who wins, where each value came from, and how wrong ones are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpurun import toml
from gpurun.config import hosts
from gpurun.config.load import Loaded, load
from gpurun.config.schema import MountConfig
from gpurun.config.units import size, span
from gpurun.errors import UsageError
from gpurun.secret import Secret


@pytest.fixture
def project(home: Path) -> Path:
    """A project with a script, and one host that is known."""
    hosts.add("box", {"root": "/mnt/gpurun"})
    root = home / "vision"
    (root / "deep").mkdir(parents=True)
    (root / "gpurun.toml").touch()
    (root / "train.py").touch()
    (root / "deep/eval.py").touch()
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def loaded(project: Path, target: str | None = "train.py", **flags: Any) -> Loaded:
    return load(flags, target, project)


def refused(project: Path, target: str | None = "train.py", **flags: Any) -> list[str]:
    with pytest.raises(UsageError) as error:
        load(flags, target, project)
    assert error.value.exit_code == 2
    return error.value.what.splitlines()


def test_flags_win_over_the_job_file_over_the_project(project: Path) -> None:
    write(project / "gpurun.toml", 'gpus = 1\nmemory = "1GB"\nshm_size = "1GB"\nmax_duration = "1h"\n')
    job = write(project / "jobs/big.toml", 'script = "train.py"\nproject = ".."\ngpus = 2\nmemory = "2GB"\n')
    found = loaded(project, "jobs/big.toml", gpus="all", name=None)
    spec = found.spec
    assert (spec.gpus, spec.memory, spec.shm_size, spec.max_duration) == ("all", 2_000_000_000, 1_000_000_000, 3600.0)
    assert found.job_file == job
    assert {key: found.sources[key] for key in ("gpus", "memory", "shm_size", "script")} == {
        "gpus": "--gpus",
        "memory": str(job),
        "shm_size": str(project / "gpurun.toml"),
        "script": str(job),
    }
    assert "name" not in found.sources


def test_defaults(project: Path) -> None:
    spec = loaded(project).spec
    assert (spec.script, spec.gpus, spec.grace, spec.image, spec.memory) == ("train.py", 1, 60.0, None, None)


def test_the_project_file_may_be_pyproject(home: Path, project: Path) -> None:
    (project / "gpurun.toml").unlink()
    write(project / "pyproject.toml", "[tool.gpurun]\ngpus = 4\n")
    assert loaded(project).spec.gpus == 4


def test_the_name_in_the_project_file_is_the_projects(project: Path) -> None:
    write(project / "gpurun.toml", 'name = "Deep Vision"')
    found = loaded(project)
    assert (found.project.name, found.spec.name) == ("deep-vision", None)


def test_scripts_are_found_from_any_folder_and_run_at_the_root(project: Path) -> None:
    assert load({}, "eval.py", project / "deep").spec.script == "deep/eval.py"
    assert load({}, "../train.py", project / "deep").spec.script == "train.py"
    assert load({}, "train.py", project / "deep").spec.script == "train.py"  # of the root
    assert load({}, str(project / "train.py"), project.parent).spec.script == "train.py"
    assert load({}, str(project / "train.py"), project.parent).project.root == project


def test_a_project_that_is_reached_through_a_link(project: Path, home: Path) -> None:
    (home / "link").symlink_to(project)
    assert load({}, str(home / "link/train.py"), home).spec.script == "train.py"
    assert load({}, str(project / "train.py"), home / "link").spec.script == "train.py"


def test_a_script_that_is_missing_or_elsewhere(project: Path, home: Path) -> None:
    (line,) = refused(project, "trian.py")
    assert line == f"there is no script trian.py in {project}; did you mean 'train.py'?"
    write(home / "other.py", "")
    (project / "deep/out.py").symlink_to(home / "other.py")
    assert loaded(project, "deep/out.py").spec.script == "deep/out.py"


def test_a_module_in_place_of_a_script(project: Path) -> None:
    found = loaded(project, None, module="vision.train", args=["--lr", "1"])
    assert (found.spec.module, found.spec.script, found.spec.args) == ("vision.train", None, ("--lr", "1"))
    assert refused(project, None) == ["no script was named"]


def test_a_flag_module_replaces_the_script_of_a_job_file(project: Path) -> None:
    write(project / "job.toml", 'script = "train.py"')
    spec = loaded(project, "job.toml", module="vision.train").spec
    assert (spec.module, spec.script) == ("vision.train", None)


def test_a_job_file_without_anything_to_run(project: Path) -> None:
    job = write(project / "job.toml", "gpus = 1")
    assert refused(project, "job.toml") == [f"{job}: neither script nor module says what to run"]


def test_a_job_file_that_is_missing(project: Path) -> None:
    write(project / "jobs/large.toml", "")
    (line,) = refused(project, "jobs/larg.toml")
    assert line == f"there is no job file {project}/jobs/larg.toml; did you mean 'large.toml'?"


def test_the_root_that_a_job_file_names(project: Path, home: Path) -> None:
    job = write(home / "jobs/a.toml", 'project = "../vision"\nscript = "train.py"')
    assert loaded(home, str(job)).project.root == project
    write(job, 'project = "../nowhere"\nscript = "train.py"')
    assert refused(home, str(job)) == [f"{job}: project: there is no folder {home}/jobs/../nowhere"]


def test_everything_that_is_wrong_is_listed_with_its_place(project: Path) -> None:
    file = write(project / "gpurun.toml", 'gpu = 1\nscript = "train.py"\n')
    job = write(
        project / "job.toml", 'script = "train.py"\nmemmory = "1GB"\nmemory = "lots"\nruntime = "dokcer"\ncpus = 0\n'
    )
    assert refused(project, "job.toml", gpus="many", max_duration="soon") == [
        f"{job}:",
        "  line 2: memmory: unknown key; did you mean 'memory'?",
        '  line 3: memory: wants a size such as "32GB" or "512MiB"',
        "  line 4: runtime: wants 'docker' or 'bare'",
        "  line 5: cpus: must be greater than 0",
        f"{file}:",
        "  line 1: gpu: unknown key; did you mean 'gpus'?",
        "  line 2: script: belongs in a job file, not in the project's defaults",
        '--gpus: wants a number of GPUs, 0 or more, or "all"',
        '--max-duration: wants a time span such as "12h", "90m" or "1h30m"',
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpus = -1", 'gpus: wants a number of GPUs, 0 or more, or "all"'),
        ("gpus = true", 'gpus: wants a number of GPUs, 0 or more, or "all"'),
        ("memory = 0", 'memory: wants a size such as "32GB" or "512MiB"'),
        ("image = 3", "image: wants text in quotes"),
        ('fetch = "perhaps"', "fetch: wants true or false"),
        ('args = "--lr 1"', "args: wants a list: [ ... ]"),
        ("args = [1]", "args.0: wants text in quotes"),
        ('mounts = ["data:/data"]', 'mounts.0: \'data\' is a path of the host: begin it with "/" or "~/"'),
        ('mounts = ["/data"]', 'mounts.0: \'/data\' is not a mount; write "SRC:DST" or "SRC:DST:ro"'),
        ('mounts = ["/data:data"]', "mounts.0: 'data' is where the job sees it: begin it with \"/\""),
        ('max_duration = "0s"', "max_duration: wants a time span that is longer than zero"),
        ("dependencies = true", 'dependencies: wants false, or the path of a file such as "requirements/train.txt"'),
        ('env = ["1X=2"]', "env: '1X' is not a valid name of an environment variable"),
        ('env = "X=2"', 'env: wants a list such as ["WANDB_API_KEY", "LEVEL=debug"], or a table'),
        ('name = "a\\nb"', "name: wants 1 to 60 printable characters"),
        ('user = "ada"', "user: wants 'root'"),
        ('keep_caps = ["SYS PTRACE"]', 'keep_caps.0: wants names such as "SYS_PTRACE" or "no-new-privileges"'),
    ],
)
def test_wrong_values_in_plain_words(project: Path, text: str, says: str) -> None:
    job = write(project / "job.toml", f'script = "train.py"\n{text}\n')
    assert refused(project, "job.toml") == [f"{job}, line 2: {says}"]


def test_a_file_that_is_no_toml(project: Path) -> None:
    job = write(project / "job.toml", "script = train.py\n")
    (line,) = refused(project, "job.toml")
    assert line.startswith(f"{job}, line 1, column 10: not valid TOML: ")
    assert line.count("line 1") == 1


def test_line_of_a_project_in_pyproject_counts_from_the_top_of_the_file(project: Path) -> None:
    (project / "gpurun.toml").unlink()
    file = write(project / "pyproject.toml", '[project]\nname = "x"\n\n[tool.gpurun]\n# one\ngpus = "few"\n')
    assert refused(project) == [f'{file}, line 6: gpus: wants a number of GPUs, 0 or more, or "all"']


TOML = """\
# a comment
script = "train.py"
args = [
  "--lr",
  3,
]
note = \'\'\'
gpus = 1
\'\'\'
env.LEVEL = "x"

[mounts]
"a b" = { c = 1, d.e = 2 }
[[ports]]
x = 1
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("path", "line"),
    [
        (["script"], 2), (["args"], 3), (["args", 1], 3), (["note"], 7), (["env"], 10), (["env", "LEVEL"], 10),
        (["mounts"], 12), (["mounts", "a b", "d", "e"], 13), (["mounts", "missing"], 12), (["ports", 0, "x"], 14),
        (["gpus"], None), ([], None),
    ],
)  # fmt: skip
def test_line_of_a_key_is_where_its_statement_begins(path: list[str | int], line: int | None, newline: str) -> None:
    assert toml.line_of(TOML.replace("\n", newline), path) == line


def test_values_are_read_as_people_write_them(project: Path) -> None:
    text = (
        'script = "train.py"\nmemory = "32GiB"\nmax_duration = "1h30m"\ngrace = "5s"\nkeep_caps = ["cap_sys_ptrace"]\n'
    )
    write(project / "job.toml", text + 'mounts = ["~/d ata:/data:ro"]\ncpus = 1.5\ndependencies = false\n')
    spec = loaded(project, "job.toml").spec
    assert (spec.memory, spec.max_duration, spec.grace, spec.cpus) == (32 << 30, 5400.0, 5.0, 1.5)
    assert spec.mounts == (MountConfig(source="~/d ata", target="/data", readonly=True),)
    assert (spec.keep_caps, spec.dependencies) == (("SYS_PTRACE",), False)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("1h30m", 5400.0), (0, 0.0), ("2 days", 172800.0)])
def test_spans(text: str | int, seconds: float) -> None:
    assert span(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("32GB", 32 * 10**9), ("512 MiB", 512 << 20), ("1.5T", 15 * 10**11), ("8k", 8000), (".5gb", 5 * 10**8), ("9B", 9)],
)
def test_sizes(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_duration = 12", 'max_duration: 12 what? Write "12h", "12m" or "12s"'),
        ('grace = "1.5"', 'grace: 1.5 what? Write "1.5h", "1.5m" or "1.5s"'),
        ("memory = 32", 'memory: 32 what? Write "32GB" or "32MB"'),
        ('shm_size = "8"', 'shm_size: 8 what? Write "8GB" or "8MB"'),
        ("memory = 0", 'memory: wants a size such as "32GB" or "512MiB"'),
        ('memory = "0"', 'memory: wants a size such as "32GB" or "512MiB"'),
        ('memory = "inf"', 'memory: wants a size such as "32GB" or "512MiB"'),
        ('max_duration = "inf"', 'max_duration: wants a time span such as "12h", "90m" or "1h30m"'),
        ("max_duration = -5", 'max_duration: wants a time span such as "12h", "90m" or "1h30m"'),
    ],
)
def test_quantity_without_a_unit_is_refused(project: Path, text: str, message: str) -> None:
    job = write(project / "job.toml", f'script = "train.py"\n{text}\n')
    assert refused(project, "job.toml") == [f"{job}, line 2: {message}"]


def test_mounts_and_data_add_up_and_the_higher_layer_wins_by_target(project: Path) -> None:
    write(project / "gpurun.toml", 'mounts = ["/a:/x", "/b:/y"]\ndata = ["imagenet"]\n')
    write(project / "job.toml", 'script = "train.py"\nmounts = ["/c:/y:ro"]\ndata = ["coco", "imagenet"]\n')
    spec = loaded(project, "job.toml", mounts=["/d:/z"]).spec
    assert [(m.source, m.target) for m in spec.mounts] == [("/a", "/x"), ("/c", "/y"), ("/d", "/z")]
    assert set(spec.data) == {"imagenet", "coco"}


def test_data_of_the_highest_layer_is_the_first_which_gpurun_data_points_to(project: Path) -> None:
    write(project / "gpurun.toml", 'data = ["base"]\n')
    write(project / "job.toml", 'script = "train.py"\ndata = ["coco", "base"]\n')
    assert loaded(project, "job.toml").spec.data == ("coco", "base")
    assert loaded(project, "job.toml", data=["imagenet", "more"]).spec.data == ("imagenet", "more", "coco", "base")


def test_variables_add_up_in_the_order_of_the_layers(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_SHELL", "shell")
    hosts.add("box", {"env": {"A": "host", "B": "host"}})
    write(project / "gpurun.toml", 'env = { B = "project", C = "project", N = 3 }\nenv_file = "project.env"\n')
    write(project / "project.env", "C=overridden\nP=file\n")
    write(project / "jobs/j.toml", 'project = ".."\nscript = "train.py"\nenv = ["C=job", "D=job", "FROM_SHELL"]\n')
    write(project / "flags.env", "D=envfile\nE=envfile\n")
    found = loaded(project, "jobs/j.toml", env_file="flags.env", env=["E=flag", "F=a=b"])
    assert {key: value.reveal() for key, value in found.env.items()} == {
        **{"A": "host", "B": "project", "C": "job", "D": "envfile", "E": "flag", "F": "a=b"},
        **{"N": "3", "P": "file", "FROM_SHELL": "shell"},
    }
    assert set(found.env_files) == {project / "project.env", project / "flags.env"}


def test_a_variable_that_is_unset_here_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("OTHER_KEY", raising=False)
    write(project / "gpurun.toml", 'env = ["WANDB_API_KEY"]')
    assert refused(project, env=["OTHER_KEY"]) == [
        f"{project}/gpurun.toml: WANDB_API_KEY takes its value from this shell, where it is not set",
        "-e/--env: OTHER_KEY takes its value from this shell, where it is not set",
    ]
    assert loaded(project, env=["WANDB_API_KEY=x", "OTHER_KEY="]).env["OTHER_KEY"].reveal() == ""


def test_values_never_show(project: Path) -> None:
    write(project / "gpurun.toml", 'env = ["TOKEN=hunter2"]')
    found = loaded(project)
    assert found.env == {"TOKEN": Secret("hunter2")}
    assert "hunter2" not in f"{found} {found.spec!r} {found.env['TOKEN']}"
    write(project / "gpurun.toml", 'env = { TOKEN = ["hunter2"] }')
    assert "hunter2" not in "".join(refused(project))


def test_the_host(project: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-H > GPURUN_HOST > job > project > default > the only one."""

    def chosen(**flags: Any) -> str:
        host = loaded(project, "job.toml", **flags).host
        assert host is not None
        return host.name

    write(project / "job.toml", 'script = "train.py"')
    assert chosen() == "box"
    hosts.add("second", {})
    assert chosen() == "box"
    hosts.path().write_text("[hosts.box]\n[hosts.second]\n")
    (line,) = refused(project, "job.toml")
    assert line == "no host was named, and several are known: box, second"
    hosts.use("second")
    assert chosen() == "second"
    write(project / "gpurun.toml", 'host = "of-project"')
    assert chosen() == "of-project"
    write(project / "job.toml", 'script = "train.py"\nhost = "of-job"')
    assert chosen() == "of-job"
    monkeypatch.setenv("GPURUN_HOST", "of-shell")
    assert chosen() == "of-shell"
    assert chosen(host="box") == "box"


def test_no_host_is_needed_to_look(project: Path) -> None:
    hosts.remove("box")
    assert load({}, "train.py", project, need_host=False).host is None
    assert refused(project) == ["no host was named, and none is known"]


def test_an_image_on_the_line_takes_the_place_of_a_dockerfile(project: Path) -> None:
    (project / "gpurun.toml").write_text('dockerfile = "Dockerfile"\n')
    spec = load({"image": "v2.7"}, "train.py", project).spec
    assert (spec.image, spec.dockerfile) == ("v2.7", None)
