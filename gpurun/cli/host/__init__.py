"""`gpurun host`: the machines with the GPUs."""

from __future__ import annotations

from gpurun.cli.command import VerbCommand, noun
from gpurun.cli.host import add, check, known, leave, prepare

app = noun("host", "Add, check and leave hosts. Any alias of your SSH configuration is a host without being added.")

app.command("add", cls=VerbCommand, epilog=add.EXAMPLES)(add.add)
app.command("use", cls=VerbCommand)(known.use)
app.command("ls", cls=VerbCommand)(known.ls)
app.command("rm", cls=VerbCommand)(known.rm)
app.command("check", cls=VerbCommand, epilog=check.EXAMPLES)(check.check)
app.command("prepare", cls=VerbCommand, epilog=prepare.EXAMPLES)(prepare.prepare)
app.command("leave", cls=VerbCommand)(leave.leave)
