"""Take more memory than the GPU has."""

import torch

free, _ = torch.cuda.mem_get_info()
kept = [torch.empty(free // 2, dtype=torch.uint8, device="cuda") for _ in range(4)]
