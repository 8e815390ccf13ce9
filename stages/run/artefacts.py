"""Names of the files of a training, relative to its folder, for all stages that use them."""

from pathlib import Path

# Below the work folder, while a training is not finished.
STATE = "state.pt"
PROGRESS = "progress.json"  # for those who watch
GAUSSIANS = "gaussians.safetensors"
POINT_CLOUD = "point_cloud.ply"
FIT = "fit.json"  # curve, evaluations, how poses were learnt
FLAGS = "flags.tsv"  # of the full-size recipe, as a capture was trained
CAPTURE = "capture.json"  # what a capture was trained on, and where its cameras stand
LEARNT_CAMERAS = Path("cameras", "sparse", "0")  # a COLMAP model
