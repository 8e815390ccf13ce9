"""Where the kernels run: on a GPU, or without one in Python, as tests/conftest.py tells Triton."""

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
