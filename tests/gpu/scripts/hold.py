"""Hold memory of the device until it is ended: `hold.py BYTES`, on the CPU where there is no GPU."""

import os
import sys
import time

import torch

kept = torch.ones(int(sys.argv[1]), dtype=torch.uint8, device="cuda" if torch.cuda.is_available() else "cpu")
print(f"holding as {os.getpid()}", flush=True)
while True:
    time.sleep(0.1)
