"""A script that trains as Lightning with gpurun's plugin would, in a second: it counts steps, saves, and keeps the ledger.

`train.py steps=40 every=10 ...`: what it may be told is in `told`. What `crash`, `hog` and `kill` name happens in the first
attempt alone, so that a second one gets through.
"""

TRAINER = r"""
import hashlib, json, os, signal, sys, time

told = {
    "steps": 40, "every": 10, "pace": 0.05, "saving": 0.0,  # steps in all, between two saves; seconds a step, a save
    "crash": 0, "hog": 0, "kill": 0,  # at which step: exit 1, eat all memory, SIGKILL
    "deaf": 0,  # ignores the stop file and TERM
    "turn": 0,  # at which step the loss is least; 0: at the last one
    "linger": 0.0,  # seconds that it goes on behind a stop's checkpoint
}
told.update((word.split("=")[0], float(word.split("=")[1])) for word in sys.argv[1:])
out, attempt = os.environ["GPURUN_OUT"], int(os.environ["GPURUN_ATTEMPT"])
resume = os.environ.get("GPURUN_RESUME")
signal.signal(signal.SIGTERM, signal.SIG_IGN if told["deaf"] else lambda *_: (print("TERM", flush=True), os._exit(0)))


def loss(step):
    return abs(step - told["turn"]) / 100 if told["turn"] else 1.0 / step


def add(name, line):
    with open(os.path.join(out, name), "a") as file:
        file.write(json.dumps(line) + "\n")


def save(name, step):
    open(os.path.join(out, "saving"), "w").close()
    time.sleep(told["saving"])
    os.makedirs("checkpoints", exist_ok=True)
    path, content = "checkpoints/" + name, json.dumps({"step": step}).encode()
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.replace(path + ".new", path)
    os.unlink(os.path.join(out, "saving"))
    entry = {
        "t": time.time(), "attempt": attempt, "path": path, "epoch": step // 10, "step": step, "monitor": "loss", "mode": "min",
        "value": loss(step), "best": False, "last": True, "size": len(content), "complete": True,
        "sha256": hashlib.sha256(content).hexdigest(), "mtime_ns": os.stat(path).st_mtime_ns,
    }
    add("checkpoints.jsonl", entry)
    return path


step = 0
if resume:
    with open(resume) as file:
        step = json.load(file)["step"]
print("attempt %d begins at step %d" % (attempt, step), flush=True)
while step < told["steps"]:
    step += 1
    line = {"t": time.time(), "attempt": attempt, "stage": "fit", "epoch": step // 10, "step": step}
    add("progress.jsonl", {**line, "metrics": {"loss": loss(step)}})
    time.sleep(told["pace"])
    if step % told["every"] == 0:
        save("step=%d.ckpt" % step, step)
    if os.path.exists(os.path.join(out, "stop")) and not told["deaf"]:
        path = save("stop.ckpt", step)
        stopped = {"t": time.time(), "attempt": attempt, "checkpoint": path, "epoch": step // 10, "step": step}
        with open(os.path.join(out, "stopped.new"), "w") as file:
            json.dump({**stopped, "lost_batches": 0, "why": "stop"}, file)
        os.replace(os.path.join(out, "stopped.new"), os.path.join(out, "stopped.json"))
        print("saved at step %d" % step, flush=True)
        time.sleep(told["linger"])
        sys.exit(0)
    if attempt == 1 and step == told["crash"]:
        raise RuntimeError("crash at step %d" % step)
    if attempt == 1 and step == told["kill"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if attempt == 1 and step == told["hog"]:
        blocks = []
        while True:
            blocks.append(bytearray(1 << 24))
print("trained to step %d" % step, flush=True)
"""
